"""Tables as Parquet files."""

from __future__ import annotations

from collections.abc import Iterable
from io import RawIOBase
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from dhs_pipeline.storage.location import Location

_STAMPS_AT_ONCE = 8
"""Values after which the writer looks whether a page is full (1 MiB) in tables with stamps of up to 0.2 MB.

With Arrow's 1,024 a row group of stamps becomes one page, which writer and reader hold several times over.
"""

Compression = Literal["zstd", "lz4", "snappy", "none"]


def write_parquet(
    table: pa.Table, where: Location, *, row_group_rows: int = 1024, compression: Compression = "zstd"
) -> int:
    """Write a table as one Parquet file, whole or not at all, and return its bytes."""
    data = encode_parquet(table, row_group_rows=row_group_rows, compression=compression)
    where.write_bytes(data)
    return len(data)


def encode_parquet(table: pa.Table, *, row_group_rows: int = 1024, compression: Compression = "zstd") -> bytes:
    """A table as the bytes of one Parquet file.

    String columns are dictionary-encoded; floats and stamps are not (their dictionaries never pay). Every page
    carries a CRC-32, which readers verify with ``page_checksum_verification=True`` (:meth:`Location.read_table` does).
    """
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **_options(table.schema, compression, compression)) as writer:
        writer.write_table(table, row_group_size=row_group_rows)
    return bytes(sink.getvalue().to_pybytes())


def write_parquet_stream(
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    sink: BinaryIO | RawIOBase,
    *,
    row_group_rows: int,
    stamp_compression: Compression = "zstd",
) -> int:
    """Tables one after another as one Parquet file, in memory for no more than a row group and a table; the rows.

    The same bytes as :func:`encode_parquet` of all of them together. ``stamp_compression`` is that of binary columns.
    """
    rows, held = 0, schema.empty_table()
    with pq.ParquetWriter(sink, schema, **_options(schema, "zstd", stamp_compression)) as writer:
        for table in tables:
            rows += table.num_rows
            held = pa.concat_tables([held, table]) if held.num_rows else table
            # Neither name may keep this table alive while the next one is made: a table of stamps is 20 MB and more.
            del table
            whole = held.num_rows // row_group_rows * row_group_rows
            for first in range(0, whole, row_group_rows):
                writer.write_table(held.slice(first, row_group_rows).combine_chunks(), row_group_size=row_group_rows)
            held = held.slice(whole) if whole < held.num_rows else schema.empty_table()
        if held.num_rows or not rows:
            writer.write_table(held.combine_chunks(), row_group_size=row_group_rows)
    return rows


def _options(schema: pa.Schema, compression: Compression, stamp_compression: Compression) -> dict[str, Any]:
    codecs = {f.name: stamp_compression if pa.types.is_binary(f.type) else compression for f in schema}
    leaves = {leaf: codecs[leaf.partition(".")[0]] for leaf in _leaves(schema)}
    return {
        "compression": leaves,
        "compression_level": {leaf: 1 for leaf, codec in leaves.items() if codec == "zstd"},
        "use_dictionary": [f.name for f in schema if pa.types.is_string(f.type)],
        "write_statistics": [f.name for f in schema if not (pa.types.is_binary(f.type) or pa.types.is_list(f.type))],
        "write_page_checksum": True,
        "write_batch_size": _STAMPS_AT_ONCE if any(pa.types.is_binary(f.type) for f in schema) else None,
    }


def _leaves(schema: pa.Schema) -> list[str]:
    """Names that Parquet has for the columns, which are those of the elements of lists."""
    return [f"{f.name}.list.{f.type.value_field.name}" if pa.types.is_list(f.type) else f.name for f in schema]
