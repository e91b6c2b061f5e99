"""One pass over a data set: every row's light columns, and facts of its stamp that need no picture.

File by file, in this process or on Spark, and put together in the order of the files: the table is the same whatever
did the work. Workers write their tables beside the result, so that nothing large passes through the JVM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dhs_gen.stamps import decode_stamp_npz, read_stamp
from dhs_pipeline.gates.data import PAIR_COLUMNS, PIXEL_FACTS
from dhs_pipeline.schemas import COMPACTED, STAMPS
from dhs_pipeline.storage import Location, StorageError, write_parquet

STAMP = "stamp_npz"
_BATCH_ROWS = 128
_BAND_ORDER = "ugrizy"
_SPLIT_FOLDER = "region_split="


@dataclass(frozen=True)
class DataSet:
    """Where the stamps of a set lie.

    Parameters
    ----------
    folder
        The generation's folder, or that of a foreign set: gates write their results into ``_gates`` in it.
    stamps
        Folder of the files.
    files
        Their paths below it, in order.
    """

    folder: Location
    stamps: Location
    files: tuple[str, ...]

    def file(self, name: str) -> Location:
        return self.stamps / name


def find_set(path: Location) -> DataSet:
    """The set at a path: a file, a folder of stamps, or a generation's folder in phase4c or phase4p5.

    Raises
    ------
    StorageError
        If there is no Parquet file, or one has no stamps.
    """
    if path.size() is not None:
        folder, _, name = path.uri.rpartition("/")
        found = DataSet(Location(folder), Location(folder), (name,))
    else:
        stamps = path / "stamps" if (path / "stamps").is_dir() else path
        folder = stamps.uri.rpartition("/")[0] if stamps.name == "stamps" else stamps.uri
        files = stamps.files(".parquet", recursive=True)
        found = DataSet(Location(folder), stamps, tuple(f.uri[len(stamps.uri) + 1 :] for f in files))
    if not found.files:
        raise StorageError(f"{path}: no Parquet file here")
    for name in found.files:
        if STAMP not in _names(found.file(name)):
            raise StorageError(f"{found.file(name)}: no column {STAMP}: not a set of stamps")
    return found


def count_rows(data: DataSet) -> int:
    """Rows of the set, from the files' footers."""
    total = 0
    for name in data.files:
        with data.file(name).open_input() as source:
            total += pq.ParquetFile(source).metadata.num_rows
    return total


def scan_here(data: DataSet) -> pa.Table:
    """Light columns and PIXEL_FACTS of every row, in the order of files and rows, in this process.

    Raises
    ------
    ValueError
        If a stamp cannot be decoded, or a column cannot be read as what the schema says; the message says where.
    """
    return joined([scan_file(data.stamps, name) for name in data.files])


def scan_on_spark(data: DataSet, scratch: Location, start: Callable[[], Any]) -> pa.Table:
    """As :func:`scan_here`, with one file per task; ``scratch`` is used and removed.

    Parameters
    ----------
    start
        Gives the Spark session.
    """
    stamps, files = data.stamps, list(enumerate(data.files))

    def work(part: Iterator[tuple[int, str]]) -> Iterator[int]:
        for number, name in part:
            write_parquet(scan_file(stamps, name), scratch / f"part-{number:06d}.parquet")
            yield number

    scratch.delete()
    context = start().sparkContext
    context.setJobDescription(f"gates: scan of {stamps}")
    try:
        context.parallelize(files, len(files)).mapPartitions(work).collect()
        return joined([(scratch / f"part-{number:06d}.parquet").read_table() for number, _ in files])
    finally:
        scratch.delete()


def scan_file(stamps: Location, name: str) -> pa.Table:
    """Light columns and PIXEL_FACTS of one file."""
    with (stamps / name).open_input() as source:
        parquet = pq.ParquetFile(source)
        light = [f for f in LIGHT if f.name in parquet.schema_arrow.names]
        parts: list[pa.Table] = []
        facts: list[dict[str, object]] = []
        try:
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=[*(f.name for f in light), STAMP]):
                parts.append(pa.Table.from_batches([batch.drop_columns([STAMP])]))
                for blob in batch.column(STAMP).to_pylist():
                    facts.append(pixel_facts(blob))
        except ValueError as error:
            raise ValueError(f"{stamps / name}: row {len(facts)}: {error}") from error
    table = pa.concat_tables(parts) if parts else pa.schema(light).empty_table()
    return _with_facts(_as_known(table, light, stamps / name), facts, stamps, name)


def pixel_facts(blob: bytes | None) -> dict[str, object]:
    """What a stamp's bytes tell without a picture; null without a stamp."""
    if blob is None:
        return dict.fromkeys(_STAMP_FACTS)
    arrays = read_stamp(blob)
    images = [arrays[f"image_{b}"] for b in _BAND_ORDER if f"image_{b}" in arrays] or [decode_stamp_npz(blob)[0]]
    digest = hashlib.blake2b(digest_size=16)
    for image in images:
        digest.update(np.ascontiguousarray(image).tobytes())
    pixels = np.concatenate([np.asarray(image, np.float64).ravel() for image in images])
    known = pixels[~np.isnan(pixels)]
    return {
        "stamp_bytes": len(blob),
        "stamp_keys": ",".join(arrays),
        "stamp_dtypes": ",".join(str(image.dtype) for image in images),
        "stamp_shapes": ",".join("x".join(map(str, image.shape)) for image in images),
        "pixels_hash": digest.hexdigest(),
        "pixels_nan": pixels.size - known.size,
        "pixels_zero": int((known == 0.0).sum()),
        "pixels_min": float(known.min()) if known.size else None,
        "pixels_max": float(known.max()) if known.size else None,
    }


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of files as one; a column that some files do not have is null in their rows."""
    return pa.concat_tables(tables, promote_options="default").combine_chunks()


def pair_ranks(pair_ids: Sequence[str]) -> NDArray[np.int64]:
    """Rank of each row's pair in the order in which the pairs first appear."""
    _, first, index = np.unique(np.asarray(pair_ids, dtype=object).astype(str), return_index=True, return_inverse=True)
    rank = np.empty(first.size, np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    return rank[index]


_STAMP_FACTS = tuple(n for n in PIXEL_FACTS.names if n not in ("file", "file_row", "row_in_file", "split"))


def _light_fields() -> list[pa.Field]:
    """All columns of the tables of stamps but the stamp, and those of pairs, once each."""
    fields = {f.name: f for schema in (STAMPS, COMPACTED, PAIR_COLUMNS) for f in schema if f.name != STAMP}
    return [f.with_nullable(True).remove_metadata() for f in fields.values()]


LIGHT = _light_fields()
"""Columns that the scan keeps, where a file has them."""


def _as_known(table: pa.Table, light: Sequence[pa.Field], file: Location) -> pa.Table:
    for field in light:
        column = table.column(field.name)
        if column.type == field.type:
            continue
        try:
            plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
            table = table.set_column(table.column_names.index(field.name), field, plain.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(
                f"{file}: column {field.name} is {column.type}, which is no {field.type}: {error}"
            ) from error
    return table


def _with_facts(table: pa.Table, facts: Sequence[dict[str, object]], stamps: Location, name: str) -> pa.Table:
    n = len(facts)
    place = np.arange(n, dtype=np.int64)
    known = {
        "file": pa.array([name] * n, pa.string()),
        "file_row": pa.array(place),
        "row_in_file": pa.array(pair_ranks(table.column("pair_id").to_pylist()) if _has(table, "pair_id") else place),
        "split": _split(table, stamps / name, n),
    } | {fact: pa.array([row[fact] for row in facts], PIXEL_FACTS.field(fact).type) for fact in _STAMP_FACTS}
    for field in PIXEL_FACTS:
        table = table.append_column(field, known[field.name])
    return table


def _split(table: pa.Table, file: Location, n: int) -> pa.Array:
    folders = [part for part in file.uri.split("/")[:-1] if part.startswith(_SPLIT_FOLDER)]
    if folders:
        return pa.array([folders[-1].removeprefix(_SPLIT_FOLDER)] * n, pa.string())
    if _has(table, "region_split"):
        return table.column("region_split").combine_chunks()
    return pa.nulls(n, pa.string())


def _has(table: pa.Table, name: str) -> bool:
    return name in table.column_names


def _names(file: Location) -> list[str]:
    with file.open_input() as source:
        return list(pq.ParquetFile(source).schema_arrow.names)
