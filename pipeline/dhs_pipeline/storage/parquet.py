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

_PIXEL_ZSTD_LEVEL = -3
"""zstd's level for pixels. Level 1 packs stamps by another tenth and takes twice as long (docs/throughput.md)."""

Compression = Literal["zstd", "lz4", "snappy", "none"]


def write_parquet(
    table: pa.Table, where: Location, *, row_group_rows: int = 1024, pixel_compression: Compression = "zstd"
) -> int:
    """Write a table as one Parquet file, whole or not at all, and return its bytes."""
    data = encode_parquet(table, row_group_rows=row_group_rows, pixel_compression=pixel_compression)
    where.write_bytes(data)
    return len(data)


def encode_parquet(table: pa.Table, *, row_group_rows: int = 1024, pixel_compression: Compression = "zstd") -> bytes:
    """A table as the bytes of one Parquet file.

    ``pixel_compression`` is that of binary and list columns. The others are packed by lz4: to set up zstd for each of
    a hundred columns takes longer than to pack it. String columns are dictionary-encoded; floats and stamps are not
    (their dictionaries never pay). Every page carries a CRC-32, which readers verify with
    ``page_checksum_verification=True`` (:meth:`Location.read_table` does).
    """
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **_options(table.schema, pixel_compression)) as writer:
        writer.write_table(table, row_group_size=row_group_rows)
    return bytes(sink.getvalue().to_pybytes())


def write_parquet_stream(
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    sink: BinaryIO | RawIOBase,
    *,
    row_group_rows: int,
    pixel_compression: Compression = "zstd",
) -> int:
    """Tables one after another as one Parquet file, in memory for no more than a row group and a table; the rows.

    The same bytes as :func:`encode_parquet` of all of them together.
    """
    rows, held = 0, schema.empty_table()
    with pq.ParquetWriter(sink, schema, **_options(schema, pixel_compression)) as writer:
        for table in tables:
            rows += table.num_rows
            held = pa.concat_tables([held, table]) if held.num_rows else table
            # Neither name may keep this table alive while the next one is made: a table of stamps is 20 MB and more.
            del table
            whole = held.num_rows // row_group_rows * row_group_rows
            for first in range(0, whole, row_group_rows):
                writer.write_table(held.slice(first, row_group_rows), row_group_size=row_group_rows)
            held = held.slice(whole) if whole < held.num_rows else schema.empty_table()
        if held.num_rows or not rows:
            writer.write_table(held, row_group_size=row_group_rows)
    return rows


def _options(schema: pa.Schema, pixel_compression: Compression) -> dict[str, Any]:
    codecs = {_leaf(field): pixel_compression if _holds_pixels(field) else "lz4" for field in schema}
    return {
        "compression": codecs,
        "compression_level": {leaf: _PIXEL_ZSTD_LEVEL for leaf, codec in codecs.items() if codec == "zstd"},
        "use_dictionary": [f.name for f in schema if pa.types.is_string(f.type)],
        "write_statistics": [f.name for f in schema if not _holds_pixels(f)],
        "write_page_checksum": True,
        "write_batch_size": _STAMPS_AT_ONCE if any(pa.types.is_binary(f.type) for f in schema) else None,
    }


def _holds_pixels(field: pa.Field) -> bool:
    """Binary columns are stamps, and lists are cutouts (those of subhalos are few)."""
    return pa.types.is_binary(field.type) or pa.types.is_list(field.type)


def _leaf(field: pa.Field) -> str:
    """The name that Parquet has for a column, which is that of the elements of a list."""
    return f"{field.name}.list.{field.type.value_field.name}" if pa.types.is_list(field.type) else field.name
