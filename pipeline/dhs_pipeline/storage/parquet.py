"""Tables as Parquet files."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from dhs_pipeline.storage.location import Location


def write_parquet(table: pa.Table, where: Location, *, row_group_rows: int = 1024, compression: str = "zstd") -> int:
    """Write a table as one Parquet file, whole or not at all, and return its bytes."""
    data = encode_parquet(table, row_group_rows=row_group_rows, compression=compression)
    where.write_bytes(data)
    return len(data)


def encode_parquet(table: pa.Table, *, row_group_rows: int = 1024, compression: str = "zstd") -> bytes:
    """A table as the bytes of one Parquet file.

    String columns are dictionary-encoded; floats and stamps are not (their dictionaries never pay). Every page
    carries a CRC-32, which readers verify with ``page_checksum_verification=True`` (:meth:`Location.read_table` does).
    """
    text = [f.name for f in table.schema if pa.types.is_string(f.type)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=row_group_rows,
        compression=compression,
        compression_level=1 if compression == "zstd" else None,
        use_dictionary=text,
        write_statistics=[f.name for f in table.schema if not (pa.types.is_binary(f.type) or pa.types.is_list(f.type))],
        write_page_checksum=True,
    )
    return bytes(sink.getvalue().to_pybytes())
