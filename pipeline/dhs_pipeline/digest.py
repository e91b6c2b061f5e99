"""An order-independent digest of a data set: the same rows give the same digest, however they are cut into files.

Each row is hashed (BLAKE3, 128 bits) over its columns in the order of their names; the digest is the sum of the row
hashes modulo 2¹²⁸, with the number of rows. Digests of parts add up, so every worker returns that of its own files.

The split labels are left out: 4p5 deals them anew, and the digest of its output must still equal that of its input.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from blake3 import blake3

from dhs_pipeline.storage import Location, StorageError

SPLIT_LABELS = frozenset({"region_split", "region_split_4a"})
_HASH_BYTES = 16
_MODULUS = 1 << 8 * _HASH_BYTES

_FLOAT64, _INT64 = pa.float64(), pa.int64()
_NULL = (-1).to_bytes(8, "little", signed=True)

Cell: TypeAlias = bytes | memoryview
"""Bytes that are hashed of a row."""


@dataclass(frozen=True)
class Digest:
    """Sum of row hashes and number of rows; ``+`` joins disjoint sets of rows."""

    total: int = 0
    rows: int = 0

    def __add__(self, other: Digest) -> Digest:
        return Digest((self.total + other.total) % _MODULUS, self.rows + other.rows)

    def __str__(self) -> str:
        return f"{self.total:032x}-{self.rows}"

    @classmethod
    def parse(cls, text: str) -> Digest:
        total, _, rows = text.partition("-")
        return cls(int(total, 16), int(rows))


def digest_table(table: pa.Table, columns: Collection[str] | None = None) -> Digest:
    """Digest of a table over ``columns``; None takes all but the split labels."""
    names = sorted(n for n in table.column_names if (n in columns if columns else n not in SPLIT_LABELS))
    start = blake3("\x00".join(names).encode())
    found = [table.column(name) for name in names]
    fixed = [_whole(column) for column in found if _is_fixed_width(column.type)]
    cells: list[Sequence[Cell]] = [_fixed_width_block(fixed, table.num_rows)]
    for short, group in groupby((c for c in found if not _is_fixed_width(c.type)), _is_short):
        neighbours = list(group)
        cells += _joined_cells(neighbours) if short else chain.from_iterable(map(_variable_cells, neighbours))
    total = 0
    for row in zip(*cells, strict=True):
        h = start.copy()
        for cell in row:
            h.update(cell)
        total += int.from_bytes(h.digest(_HASH_BYTES), "little")
    return Digest(total % _MODULUS, table.num_rows)


def digest_path(where: Location, columns: Collection[str] | None = None) -> Digest:
    """Digest of a Parquet file, or of all Parquet files below a folder, one row group at a time.

    Raises
    ------
    StorageError
        If there is no Parquet file there, or one lacks a column that is asked for.
    """
    files = [where] if where.size() is not None else where.files(".parquet", recursive=True)
    if not files:
        raise StorageError(f"{where}: no Parquet file here")
    total = Digest()
    for file in files:
        with file.open_input() as source:
            parquet = pq.ParquetFile(source)
            if missing := set(columns or ()) - set(parquet.schema_arrow.names):
                raise StorageError(f"{file}: no column {', '.join(sorted(missing))}")
            for group in range(parquet.num_row_groups):
                total += digest_table(parquet.read_row_group(group, columns=columns and list(columns)), columns)
    return total


def _is_fixed_width(dtype: pa.DataType) -> bool:
    return pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_boolean(dtype)


def _fixed_width_block(columns: list[pa.Array], n_rows: int) -> list[bytes]:
    """Per row: a validity byte and eight little-endian bytes for each number."""
    if not columns:
        return [b""] * n_rows
    values = np.zeros((n_rows, len(columns)), dtype="<u8")
    valid = np.zeros((n_rows, len(columns)), dtype=np.uint8)
    for k, column in enumerate(columns):
        if column.null_count == n_rows:
            continue
        target = _FLOAT64 if pa.types.is_floating(column.type) else _INT64
        wide = column if column.type == target else column.cast(target)
        if column.null_count:
            wide = pc.fill_null(wide, pa.scalar(0, target))
            valid[:, k] = column.is_valid().to_numpy(zero_copy_only=False)
        else:
            valid[:, k] = 1
        values[:, k] = wide.to_numpy(zero_copy_only=False).view("<u8")
    data, width = np.hstack([valid, values.view(np.uint8)]).tobytes(), 9 * len(columns)
    return [data[i : i + width] for i in range(0, n_rows * width, width)]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array, copied only where it is in pieces."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _is_short(column: pa.ChunkedArray) -> bool:
    """Whether the cells are worth joining before they are hashed: text, or nothing at all."""
    return pa.types.is_string(column.type) or column.null_count == len(column)


def _joined_cells(columns: Sequence[pa.ChunkedArray]) -> list[Sequence[Cell]]:
    """Cells of neighbouring short columns joined to one."""
    return [[b"".join(row) for row in zip(*(_short_cells(_whole(column)) for column in columns), strict=True)]]


def _short_cells(column: pa.Array) -> list[bytes]:
    """:func:`_plain_cells`, made once for each value that occurs."""
    if column.null_count == len(column):
        return [_NULL] * len(column)
    encoded = column.dictionary_encode()
    found = np.array([*_plain_cells(encoded.dictionary), _NULL], dtype=object)
    cells: list[bytes] = found[pc.fill_null(encoded.indices, len(found) - 1).to_numpy()].tolist()
    return cells


def _variable_cells(column: pa.ChunkedArray) -> list[Sequence[Cell]]:
    """What is hashed of each row, one sequence after another: a length and the bytes; a null is the length −1."""
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        pieces = [_lengths_and_views(chunk) for chunk in column.chunks]
        return [[c for lengths, _ in pieces for c in lengths], [c for _, views in pieces for c in views]]
    return [_plain_cells(_whole(column))]


def _plain_cells(column: pa.Array) -> list[bytes]:
    """Per row: a length and the bytes; a null is the length −1."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        cells = [
            None if not scalar.is_valid else scalar.values.to_numpy(zero_copy_only=False).tobytes() for scalar in column
        ]
    else:
        plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        cells = [None if c is None else (c.encode() if isinstance(c, str) else bytes(c)) for c in plain.to_pylist()]
    return [_NULL if c is None else len(c).to_bytes(8, "little", signed=True) + c for c in cells]


def _lengths_and_views(chunk: pa.Array) -> tuple[list[Cell], list[Cell]]:
    """The lengths of binary cells as eight bytes each, and views of their bytes where Arrow keeps them.

    Stamps are nearly all the bytes of a row: to copy them takes longer than to hash them.
    """
    _, offsets_buffer, data = chunk.buffers()
    if len(chunk) == 0 or offsets_buffer is None:
        return [], []
    dtype = np.int64 if pa.types.is_large_binary(chunk.type) else np.int32
    offsets = np.frombuffer(offsets_buffer, dtype)[chunk.offset : chunk.offset + len(chunk) + 1].astype(np.int64)
    valid = chunk.is_valid().to_numpy(zero_copy_only=False)
    lengths = np.where(valid, np.diff(offsets), -1).astype("<i8").view("V8")
    first = offsets[:-1]
    # The bytes below a null cell, if there are any, are nobody's.
    last = np.where(valid, offsets[1:], first)
    whole = memoryview(b"" if data is None else data)
    return [n.tobytes() for n in lengths], [whole[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True)]
