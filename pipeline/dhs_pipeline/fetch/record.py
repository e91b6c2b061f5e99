"""What became of every file: a table of parts below ``_fetch`` of the destination, one row per file that was tried.

Parts are only added, so a killed run loses at most its last rows (their files are looked at again), and machines that
share a destination never write the same object. Of several rows of a file the latest holds. At its end a run puts the
parts of its shard together: files that are OK in one part (``-ok``), all others in another, which is all that 4b reads.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc

from dhs_pipeline.storage import Location, write_parquet


class FetchStatus(StrEnum):
    """How a file ended. OK and NOT_FOUND are settled; the others are tried again by the next run."""

    OK = "OK"
    NOT_FOUND = "NOT_FOUND"  # the server answered 404: the release has no such file
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"  # came whole, but not with the sum that the release lists
    NOT_FITS = "NOT_FITS"  # came whole, but is not FITS or shorter than its headers say
    FAILED = "FAILED"  # anything else; the message says what


def _field(name: str, dtype: pa.DataType, description: str, unit: str = "", *, nullable: bool = True) -> pa.Field:
    metadata = {"description": description} | ({"unit": unit} if unit else {})
    if name == "status":
        metadata["values"] = "|".join(FetchStatus)
    return pa.field(name, dtype, nullable, metadata)


FETCH = pa.schema(
    [
        _field("path", pa.string(), "below the destination and below source", nullable=False),
        _field("brick", pa.string(), "DR10 brick, <AAAa>c<BBB>", nullable=False),
        _field("status", pa.string(), "how the file ended", nullable=False),
        _field("message", pa.string(), "what was found"),
        _field("bytes", pa.int64(), "size of the file; null unless OK", "byte"),
        _field("sha256", pa.string(), "of its bytes; null unless OK"),
        _field("verified", pa.bool_(), "the release lists this sum; false: it lists none", nullable=False),
        _field("http_status", pa.int32(), "of the last answer; null: none, or it was there already"),
        _field("attempts", pa.int32(), "requests of this run for it", nullable=False),
        _field("etag", pa.string(), "the server's name of this version"),
        _field("source", pa.string(), "base URL that was asked", nullable=False),
        _field("recorded_at", pa.timestamp("us", "UTC"), "when the row was made", nullable=False),
    ],
    {"table": "fetch"},
)


@dataclass(frozen=True)
class FetchRow:
    """One row of ``FETCH``."""

    path: str
    brick: str
    status: FetchStatus
    source: str
    recorded_at: datetime
    attempts: int
    message: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    verified: bool = False
    http_status: int | None = None
    etag: str | None = None


def utc_now() -> datetime:
    return datetime.now(UTC)


def folder_of(destination: Location) -> Location:
    return destination / "_fetch"


class Recorder:
    """Adds rows to the record, some thousand at a time; used by one thread."""

    def __init__(self, destination: Location, tag: str) -> None:
        self._folder = folder_of(destination)
        self._prefix = f"part-{tag}-{uuid.uuid4().hex[:12]}"
        self._parts = 0
        self._rows: list[FetchRow] = []

    @property
    def waiting(self) -> int:
        """Rows that a kill would lose."""
        return len(self._rows)

    def add(self, row: FetchRow) -> None:
        self._rows.append(row)

    def flush(self) -> None:
        """Write the rows that have come together, as one part."""
        if not self._rows:
            return
        table = pa.Table.from_pylist([asdict(row) for row in self._rows], schema=FETCH)
        write_parquet(table, self._folder / f"{self._prefix}-{self._parts:05d}.parquet", row_group_rows=65536)
        self._parts += 1
        self._rows = []


def compact(destination: Location, tag: str) -> None:
    """Put the parts of one shard together, one row per file, and delete those that were put together."""
    folder = folder_of(destination)
    parts = [p for p in folder.files(".parquet") if p.name.startswith(f"part-{tag}-")]
    if not parts or all(_is_compacted(p) for p in parts):
        return
    rows = latest([part.read_table() for part in parts])
    is_not_ok = _is_not_ok(rows)
    stem = f"part-{tag}-{uuid.uuid4().hex[:12]}"
    for kind, table in (("rest", rows.filter(is_not_ok)), ("ok", rows.filter(pc.invert(is_not_ok)))):
        if table.num_rows:
            write_parquet(table.cast(FETCH), folder / f"{stem}-{kind}.parquet", row_group_rows=65536)
    for part in parts:
        part.delete()


def _is_compacted(part: Location) -> bool:
    return part.name.endswith(("-ok.parquet", "-rest.parquet"))


def latest(tables: Sequence[pa.Table]) -> pa.Table:
    """The latest row of each path, in the order of paths."""
    if not tables:
        return FETCH.empty_table()
    rows = pa.concat_tables(tables).sort_by([("path", "ascending"), ("recorded_at", "ascending")])
    if not rows.num_rows:
        return rows
    path = rows.column("path").combine_chunks()
    is_last = pc.not_equal(path[:-1], path[1:])
    return rows.filter(pa.concat_arrays([pa.array(is_last, pa.bool_()), pa.array([True])]))


def read_record(
    destination: Location, columns: Sequence[str] | None = None, *, keep: Callable[[pa.Table], pa.Table] | None = None
) -> pa.Table:
    """The latest row of each file, in the order of paths; empty without a record.

    Parameters
    ----------
    destination
        Folder that was fetched to.
    columns
        Columns to return; default all.
    keep
        Rows of a part that are of interest, all of a file or none; the others are not held in memory.
    """
    wanted = FETCH.names if columns is None else list(columns)
    tables = _read_parts(destination, wanted, with_ok=True)
    return latest([keep(table) if keep else table for table in tables]).select(wanted)


def read_not_ok(destination: Location, columns: Sequence[str]) -> pa.Table:
    """The latest rows of files that are not OK; of a record that is put together only the small part is read.

    While it is not, an OK row may follow the row of a failure, so that the parts are gone through twice.
    """
    wanted = sorted({*columns, "status"}, key=FETCH.names.index)
    not_ok = [
        t.filter(_is_not_ok(t)).column("path") for t in _read_parts(destination, ["path", "status"], with_ok=False)
    ]
    paths = pa.array([path for column in not_ok for path in column.to_pylist()], pa.string())
    tables = _read_parts(destination, wanted, with_ok=False) if len(paths) else iter(())
    rows = latest([t.filter(pc.is_in(t.column("path"), paths)) for t in tables])
    return rows.filter(_is_not_ok(rows)).select(list(columns))


def _is_not_ok(rows: pa.Table) -> pa.ChunkedArray:
    return pc.not_equal(rows.column("status"), FetchStatus.OK.value)


def _read_parts(destination: Location, columns: Sequence[str], *, with_ok: bool) -> Iterator[pa.Table]:
    """Part by part, with what :func:`latest` needs; a part that a running fetch deletes is in another by then."""
    read = sorted({*columns, "path", "recorded_at"}, key=FETCH.names.index)
    seen: set[str] = set()
    while waiting := [p for p in folder_of(destination).files(".parquet") if p.name not in seen]:
        for part in waiting:
            seen.add(part.name)
            if with_ok or not part.name.endswith("-ok.parquet"):
                try:
                    yield part.read_table(read).cast(_only(read))
                except FileNotFoundError:
                    continue


def _only(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([FETCH.field(name) for name in columns], FETCH.metadata)


@dataclass(frozen=True)
class Known:
    """What an earlier run recorded of a file."""

    status: FetchStatus
    bytes: int | None
    verified: bool
    source: str


class KnownFiles:
    """The record of some bricks, as columns: 2.3 million files are too many for objects."""

    def __init__(self, destination: Location, bricks: Sequence[str]) -> None:
        wanted = pa.array(bricks, pa.string())
        rows = read_record(
            destination,
            ["path", "brick", "status", "bytes", "verified", "source"],
            keep=lambda part: part.filter(pc.is_in(part.column("brick"), wanted)),
        )
        self._rows = rows.sort_by([("brick", "ascending"), ("path", "ascending")])
        bricks = self._rows.column("brick").combine_chunks()
        self._of_brick: dict[str, tuple[int, int]] = dict(_runs(bricks))

    def of(self, brick: str) -> Mapping[str, Known]:
        """Path → what is recorded, for one brick."""
        start, length = self._of_brick.get(brick, (0, 0))
        return {
            row["path"]: Known(FetchStatus(row["status"]), row["bytes"], row["verified"], row["source"])
            for row in self._rows.slice(start, length).to_pylist()
        }


def _runs(values: pa.Array) -> Iterator[tuple[str, tuple[int, int]]]:
    """Value → start and length of its run."""
    encoded = pc.run_end_encode(values)
    start = 0
    for value, end in zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True):
        yield value, (start, end - start)
        start = end
