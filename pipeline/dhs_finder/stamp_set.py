"""Which stamps are there: the row groups of a data set, how many stamps each holds, and who reads which.

The footers are read once (:func:`find_stamps`); the :class:`StampSet` that results is small, can be pickled, and is the
same in every process, so every rank and worker deals the same cards and takes its own.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from dhs_gen.status import Status
from dhs_gen.streams import stream

__all__ = ["Epoch", "Piece", "Remainder", "RowGroup", "Share", "StampSet", "StampSource", "find_stamps"]

SPLIT_FOLDER = "region_split="
_MANIFEST, _STAGE = "_manifest.json", "_stage.json"


class Remainder(StrEnum):
    """What becomes of the rows that cannot be dealt evenly among all ranks and workers."""

    KEEP = "keep"
    """Every stamp is read once; readers differ by one stamp at most, so ranks may differ by some small batches."""
    EQUAL_ROWS = "equal_rows"
    """Every reader gets the same number of stamps, the last batch may be small; fewer stamps are left out than there
    are readers."""
    WHOLE_BATCHES = "whole_batches"
    """Every reader gets the same number of full batches; fewer stamps are left out than readers x batch."""


@dataclass(frozen=True)
class StampSource:
    """What to read.

    Parameters
    ----------
    paths
        Folders or Parquet files. Of a folder that a stage committed (``_manifest.json``) the committed files are read,
        else every ``*.parquet`` below it whose path has no part that begins with ``_`` or ``.``.
    splits
        Folders ``region_split=<split>`` to take; empty: all.
    layers, bands
        Arrays to read: each layer as ``<layer>_<band>`` in the order of ``bands``, ``maskbits`` without a band.
    columns
        Further columns to hand on with the stamps; ``region_split`` comes from the folder where the file has none.
    stamp_column, status_column
        Where stamp and status are, for wide sets ``ctrl_stamp_npz`` and ``ctrl_status`` for instance.
    filesystem
        Where the paths are; None: this machine's files, mapped into memory.
    page_checksums
        Verify Parquet's CRC-32 of every page that is read (about 25 us for 49 KB).
    """

    paths: tuple[str, ...]
    splits: tuple[str, ...] = ()
    layers: tuple[str, ...] = ("image",)
    bands: str = "grz"
    columns: tuple[str, ...] = ()
    stamp_column: str = "stamp_npz"
    status_column: str = "status"
    filesystem: FileSystem | None = None
    page_checksums: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.paths, str | Path):
            raise ValueError(f"paths must be several, ({str(self.paths)!r},), not one text")
        if not self.layers or not self.bands:
            raise ValueError("layers and bands name what to read: neither may be empty")
        for what, names in (("layers", self.layers), ("bands", self.bands), ("columns", self.columns)):
            if len(set(names)) != len(names):
                raise ValueError(f"{what} must differ from each other, got {names!r}")
        if self.stamp_column in self.columns:
            raise ValueError(f"{self.stamp_column} is decoded; it cannot also be among the columns")

    def open_filesystem(self) -> FileSystem:
        return self.filesystem or LocalFileSystem(use_mmap=True)


@dataclass(frozen=True)
class RowGroup:
    """The unit that is shuffled and dealt: ``stamps`` of its rows have one, the others failed."""

    path: str
    index: int
    rows: int
    stamps: int
    split: str | None

    def __str__(self) -> str:
        return f"{self.path}, row group {self.index}"


@dataclass(frozen=True)
class Epoch:
    """How one pass over the set goes.

    Parameters
    ----------
    batch_stamps
        Stamps of a batch.
    seed
        Key of the order; None: the order of files and rows, as for validation.
    number
        Number of the pass; another number is another order.
    buffer_row_groups
        Row groups whose stamps are shuffled among each other; as many stamps are held in memory. Without a seed: 1.
    remainder
        What becomes of rows that cannot be dealt evenly.
    """

    batch_stamps: int = 256
    seed: int | None = None
    number: int = 0
    buffer_row_groups: int = 8
    remainder: Remainder = Remainder.KEEP

    def __post_init__(self) -> None:
        if self.batch_stamps < 1 or self.buffer_row_groups < 1:
            raise ValueError(
                "batch_stamps and buffer_row_groups must be positive, "
                f"got {self.batch_stamps} and {self.buffer_row_groups}"
            )

    def permutation(self, n: int, what: str) -> NDArray[np.int64]:
        """(n,) order of ``n`` things, keyed by seed, number and ``what``; 0 … n - 1 without a seed."""
        if self.seed is None:
            return np.arange(n)
        return stream(f"epoch {self.number}", f"read {what}", salt=str(self.seed)).permutation(n)


@dataclass(frozen=True)
class Share:
    """One reader among all: worker ``worker`` of ``workers`` in rank ``rank`` of ``world_size``."""

    rank: int = 0
    world_size: int = 1
    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.world_size and 0 <= self.worker < self.workers):
            raise ValueError(
                f"rank and worker count from 0 and end before world_size and workers, got rank {self.rank} of "
                f"{self.world_size}, worker {self.worker} of {self.workers}"
            )

    @property
    def readers(self) -> int:
        return self.world_size * self.workers

    @property
    def number(self) -> int:
        return self.rank * self.workers + self.worker


@dataclass(frozen=True)
class Piece:
    """Stamps ``first`` to before ``behind`` of a row group, rows without a stamp not counted."""

    group: RowGroup
    first: int
    behind: int

    def __len__(self) -> int:
        return self.behind - self.first


@dataclass(frozen=True)
class StampSet:
    """The row groups of a source, and how many rows have no stamp, by status."""

    source: StampSource
    groups: tuple[RowGroup, ...]
    skipped: Mapping[str, int]

    @property
    def stamps(self) -> int:
        return sum(group.stamps for group in self.groups)

    def __str__(self) -> str:
        files = len({group.path for group in self.groups})
        failed = ", ".join(f"{n} {status}" for status, n in self.skipped.items()) or "none"
        return f"{self.stamps} stamps in {len(self.groups)} row groups of {files} files; rows without a stamp: {failed}"

    def share_stamps(self, epoch: Epoch, share: Share) -> tuple[int, int]:
        """First and behind the last of the stamps of a share, counted in the order of the epoch's row groups."""
        if epoch.remainder is Remainder.KEEP:
            return self.stamps * share.number // share.readers, self.stamps * (share.number + 1) // share.readers
        each = self._each(epoch, share.readers)
        return each * share.number, each * (share.number + 1)

    def left_out(self, epoch: Epoch, readers: int) -> int:
        """Stamps that none of so many readers gets in an epoch: 0 with :attr:`Remainder.KEEP`."""
        return 0 if epoch.remainder is Remainder.KEEP else self.stamps - readers * self._each(epoch, readers)

    def batches(self, epoch: Epoch, share: Share) -> int:
        """Batches that a share gives."""
        first, behind = self.share_stamps(epoch, share)
        return -(-(behind - first) // epoch.batch_stamps)

    def _each(self, epoch: Epoch, readers: int) -> int:
        """Stamps of every reader, where all get as many."""
        unit = epoch.batch_stamps if epoch.remainder is Remainder.WHOLE_BATCHES else 1
        return self.stamps // (readers * unit) * unit

    def pieces(self, epoch: Epoch, share: Share) -> list[Piece]:
        """What a share reads, in order: the whole set is dealt without duplicates or gaps among all shares.

        The row groups are put in the epoch's order and their stamps counted through; each reader takes one stretch, so
        only the row groups at its two ends are read by its neighbours too, each for other rows.
        """
        first, behind = self.share_stamps(epoch, share)
        ordered = [self.groups[i] for i in epoch.permutation(len(self.groups), "row groups")]
        ends = list(accumulate(group.stamps for group in ordered))
        pieces = []
        at = bisect_right(ends, first)
        while first < behind:
            group, start = ordered[at], ends[at] - ordered[at].stamps
            piece = Piece(group, first - start, min(behind - start, group.stamps))
            pieces.append(piece)
            first = start + piece.behind
            at = bisect_right(ends, first)
        return pieces


def find_stamps(source: StampSource) -> StampSet:
    """Look through the footers of all files of a source.

    How many stamps a row group has is told by the statistics of its status column where all are OK, else by the column.

    Raises
    ------
    FileNotFoundError
        If a path is not there, or there are no files of these splits.
    ValueError
        If a folder's stage has not finished, a file is not what was committed, or a column is missing.
    """
    filesystem = source.open_filesystem()
    files = [(path, _split(path)) for where in source.paths for path in _files(filesystem, where)]
    files = [(path, split) for path, split in files if not source.splits or split in source.splits]
    if not files:
        wanted = f" of the splits {', '.join(source.splits)}" if source.splits else ""
        raise FileNotFoundError(f"no Parquet files{wanted} in {', '.join(source.paths)}")
    if again := [path for path, n in Counter(path for path, _ in files).items() if n > 1]:
        raise ValueError(f"{again[0]} is named twice: its stamps would be read twice")
    skipped: Counter[str] = Counter()
    groups: list[RowGroup] = []
    with ThreadPoolExecutor(8) as pool:
        for (path, split), counted in zip(
            files, pool.map(lambda file: _status_counts(filesystem, source, *file), files), strict=True
        ):
            for index, (rows, counts) in enumerate(counted):
                groups.append(RowGroup(path, index, rows, counts.pop(str(Status.OK), 0), split))
                skipped.update(counts)
    return StampSet(source, tuple(groups), dict(sorted(skipped.items())))


def _files(filesystem: FileSystem, where: str) -> list[str]:
    """Paths of the Parquet files of one path, in order."""
    if "://" in where:
        raise ValueError(
            f"{where}: give the path within a filesystem=, such as pyarrow.fs.FileSystem.from_uri makes both"
        )
    where = where.rstrip("/")
    info = filesystem.get_file_info(where)
    if info.type == FileType.NotFound:
        raise FileNotFoundError(f"{where}: nothing is there")
    if info.type == FileType.File:
        return [where]
    sizes = {
        file.path: file.size
        for file in filesystem.get_file_info(FileSelector(where, recursive=True))
        if file.type == FileType.File and file.path.endswith(".parquet") and not _hidden(file.path[len(where) :])
    }
    committed = _committed(filesystem, where)
    if committed is None:
        return sorted(sizes)
    if changed := [path for path, size in sorted(committed.items()) if sizes.get(path) != size]:
        raise ValueError(f"{changed[0]} is gone or has another size than was committed; run its stage again")
    return sorted(committed)


def _committed(filesystem: FileSystem, where: str) -> dict[str, int] | None:
    """Path → bytes of the committed files below a folder of a stage; None where no stage wrote it."""
    for stage in [where, *([str(PurePosixPath(where).parent)] if _split(where + "/") else [])]:
        manifest, begun = filesystem.get_file_info([f"{stage}/{_MANIFEST}", f"{stage}/{_STAGE}"])
        if manifest.type == FileType.File:
            with filesystem.open_input_stream(manifest.path) as source:
                files: Mapping[str, Mapping[str, int]] = json.loads(source.read())["files"]
            paths = {f"{stage}/{name}": file["size_bytes"] for name, file in files.items()}
            return {path: size for path, size in paths.items() if path.startswith(f"{where}/")}
        if begun.type == FileType.File:
            raise ValueError(f"{stage}: its stage has not finished (no {_MANIFEST}); run it again")
    return None


def _hidden(path: str) -> bool:
    return any(part.startswith(("_", ".")) for part in path.split("/"))


def _split(path: str) -> str | None:
    """Split that the folders of a path name."""
    folders = [part for part in path.split("/")[:-1] if part.startswith(SPLIT_FOLDER)]
    return folders[-1].removeprefix(SPLIT_FOLDER) if folders else None


def _status_counts(
    filesystem: FileSystem, source: StampSource, path: str, split: str | None
) -> list[tuple[int, Counter[str]]]:
    """Rows and their statuses of each row group."""
    with filesystem.open_input_file(path) as file, pq.ParquetFile(file) as parquet:
        _check_columns(parquet, source, path, split)
        return [
            (parquet.metadata.row_group(index).num_rows, _statuses(parquet, index, source.status_column))
            for index in range(parquet.num_row_groups)
        ]


def _check_columns(parquet: pq.ParquetFile, source: StampSource, path: str, split: str | None) -> None:
    there = {*parquet.schema_arrow.names, *(["region_split"] if split else [])}
    if missing := [c for c in (source.stamp_column, source.status_column, *source.columns) if c not in there]:
        raise ValueError(f"{path}: no column {', '.join(missing)}; there are {', '.join(sorted(there))}")


def _statuses(parquet: pq.ParquetFile, index: int, column: str) -> Counter[str]:
    group = parquet.metadata.row_group(index)
    at = next(i for i in range(group.num_columns) if group.column(i).path_in_schema == column)
    known = group.column(at).statistics
    told = known is not None and known.has_min_max and known.has_null_count and not known.null_count
    if told and known.min == known.max == str(Status.OK):
        return Counter({str(Status.OK): group.num_rows})
    values: Iterable[str | None] = parquet.read_row_group(index, [column], use_threads=False).column(0).to_pylist()
    return Counter("NO_STATUS" if value is None else value for value in values)
