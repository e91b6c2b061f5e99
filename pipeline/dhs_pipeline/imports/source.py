"""Reading an earlier Parquet data set: a file or a folder, Hive partitions, one batch at a time.

Columns of the layout come out with the layout's types whatever the files hold (int32 for int64, dictionaries for
strings); columns that the layout does not have come out as they are. A folder such as ``region_split=train`` gives
its files that column, and wins over one of the same name inside the file, as in Spark.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dhs_gen.streams import blake2b_u64
from dhs_pipeline.imports.layouts import Layout
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location, StorageError

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class SourceFile:
    """One Parquet file.

    Parameters
    ----------
    where, rows
        The file and its rows.
    schema
        What the file itself holds.
    partitions
        Columns given by its folders; None is Hive's null.
    """

    where: Location
    rows: int
    schema: pa.Schema
    partitions: Mapping[str, str | None]

    @property
    def columns(self) -> set[str]:
        return set(self.schema.names) | set(self.partitions)


@dataclass(frozen=True)
class Source:
    """All files of a data set, in the order of their names."""

    where: Location
    files: tuple[SourceFile, ...]

    @property
    def rows(self) -> int:
        return sum(f.rows for f in self.files)

    @property
    def columns(self) -> set[str]:
        """Columns that are in any of the files."""
        return {name for f in self.files for name in f.columns}


def open_source(where: Location) -> Source:
    """List and open the footers; no rows are read.

    Raises
    ------
    StageError
        If there is no Parquet file, one cannot be read, or there are no rows.
    """
    if not where.exists():
        raise StageError(f"SOURCE: {where} does not exist")
    found = [where] if where.size() is not None else where.files(".parquet", recursive=True)
    if not found:
        raise StageError(f"{where}: no Parquet file here")
    files = tuple(_open(file, where) for file in found)
    if not any(f.rows for f in files):
        raise StageError(f"{where}: {len(files)} Parquet file(s) without a row")
    return Source(where, files)


def check_layout(source: Source, layout: Layout) -> None:
    """StageError if a file lacks a required column, or holds one in a type that does not convert."""
    for file in source.files:
        if missing := layout.missing(file.columns):
            raise StageError(
                f"{file.where}: not a {layout.name} file: {len(missing)} required column(s) absent: "
                f"{', '.join(missing)}; it has {_some(file.schema.names)}"
            )
        for field in file.schema:
            wanted = layout.types.get(field.name)
            if wanted is not None and not _convertible(field.type, wanted):
                raise StageError(f"{file.where}: column {field.name} is {field.type}, expected {wanted}")


def read_batches(source: Source, layout: Layout, rows: int, *, only: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Tables of ``rows`` rows (the last of fewer) with the layout's types, in the source's order, across files.

    All have the same columns; those that are in some files only are null in the rows of the others.

    Raises
    ------
    StageError
        If a file is damaged or a value does not fit its column's type.
    """
    held: list[pa.Table] = []
    count = 0
    for table in _read_files(source, source_schema(source, layout, only), rows):
        held.append(table)
        count += table.num_rows
        if count >= rows:
            joined = pa.concat_tables(held)
            yield joined.slice(0, rows)
            held, count = [joined.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(held)


def _read_files(source: Source, schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """Tables of up to ``rows`` rows, file by file."""
    for file in source.files:
        with _reading(file.where), file.where.open_input() as handle:
            parquet = pq.ParquetFile(handle, pre_buffer=False)
            names = [n for n in schema.names if n in file.schema.names and n not in file.partitions]
            for batch in parquet.iter_batches(batch_size=rows, columns=names):
                yield _shaped(pa.Table.from_batches([batch]), file, schema)


def source_schema(source: Source, layout: Layout, only: Sequence[str] | None = None) -> pa.Schema:
    """Columns in the layout's order, then those it does not know in the order in which they are met."""
    types: dict[str, pa.DataType] = {n: t for n, t in layout.types.items() if n in source.columns}
    for file in source.files:
        types |= {f.name: f.type for f in file.schema if f.name not in types}
        types |= {name: pa.string() for name in file.partitions if name not in types}
    return pa.schema([(n, t) for n, t in types.items() if only is None or n in only])


def check_unique(source: Source, layout: Layout, batch_rows: int) -> None:
    """StageError if a task_id is there twice. Holds eight bytes a row.

    Two rows of one name may differ, and which of them an earlier run rendered cannot be known: choosing is left to
    the owner. The commonest cause is a folder that holds the same manifest twice.
    """
    hashes = np.empty(source.rows, np.uint64)
    start = 0
    for table in read_batches(source, layout, batch_rows, only=["task_id"]):
        names = table.column("task_id").to_pylist()
        hashes[start : start + len(names)] = [
            blake2b_u64(n) if n is not None else blake2b_u64("null", start + i) for i, n in enumerate(names)
        ]
        start += len(names)
    order = np.argsort(hashes, kind="stable")
    again = hashes[order][1:] == hashes[order][:-1]
    if not again.any():
        return
    pair = order[np.flatnonzero(again)[0] :][:2]
    task_id, first, second = _rows_at(source, layout, sorted(int(i) for i in pair))
    raise StageError(
        f"{source.where}: {int(again.sum())} row(s) repeat a task_id of another row, such as {task_id} in {first} and "
        f"{second}; give a data set in which each task is there once"
    )


def _rows_at(source: Source, layout: Layout, rows: list[int]) -> tuple[str, str, str]:
    """The task_id of the first of two rows, and where both are."""
    places = []
    task_id = ""
    for row in rows:
        before = 0
        for file in source.files:
            if row < before + file.rows:
                places.append(f"{file.where.uri.removeprefix(source.where.uri).lstrip('/') or file.where.name}")
                if not task_id:
                    table = file.where.read_table(["task_id"])
                    task_id = str(table.column("task_id")[row - before].as_py())
                break
            before += file.rows
    return task_id, places[0], places[1]


def _open(file: Location, root: Location) -> SourceFile:
    with _reading(file), file.open_input() as handle:
        parquet = pq.ParquetFile(handle)
        relative = file.uri[len(root.uri) :]
        return SourceFile(file, parquet.metadata.num_rows, parquet.schema_arrow, _partitions(relative, root.name))


def _partitions(relative: str, root_name: str) -> dict[str, str | None]:
    """``region_split=train`` folders below the source, or the source itself, as columns."""
    found: dict[str, str | None] = {}
    for part in [root_name, *relative.split("/")[:-1]]:
        name, equals, value = part.partition("=")
        if equals and name:
            found[name] = None if value == _HIVE_NULL else urllib.parse.unquote(value)
    return found


def _shaped(table: pa.Table, file: SourceFile, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        if field.name in file.partitions:
            value = pa.repeat(pa.scalar(file.partitions[field.name], pa.string()), table.num_rows)
            columns.append(pa.chunked_array([value]).cast(field.type))
        elif field.name in table.column_names:
            columns.append(_cast(table.column(field.name), field))
        else:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)]))
    return pa.table(columns, schema=schema)


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise StageError(f"column {field.name}: {' '.join(str(error).split())}") from error


def _convertible(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Numbers to numbers, text to text, bytes to bytes; booleans where a layout has 0 and 1."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found):
        return True
    families = (
        (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view),
    )
    for family in families:
        if any(is_one(wanted) for is_one in family):
            return any(is_one(found) for is_one in family)
    if pa.types.is_integer(wanted):
        return bool(pa.types.is_integer(found) or pa.types.is_boolean(found))
    return bool(pa.types.is_floating(found) or pa.types.is_integer(found))


@contextmanager
def _reading(file: Location) -> Iterator[None]:
    """What is wrong with a file, in one line with its name."""
    try:
        yield
    except StageError as error:
        raise StageError(f"{file}: {error}") from error
    except StorageError:  # a store that does not answer, keys it refuses: not the file's fault
        raise
    except (pa.ArrowException, OSError) as error:
        raise StageError(f"{file}: not a readable Parquet file ({' '.join(str(error).split())[:200]})") from error


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown}, … ({len(names)} columns)"


def null_count(column: pa.ChunkedArray) -> int:
    """Nulls, and NaN where the column holds floats."""
    nulls = int(column.null_count)
    if pa.types.is_floating(column.type):
        nulls += int(pc.sum(pc.is_nan(column)).as_py() or 0)
    return nulls
