"""Parquet files of a dataset, and reading them in pieces of bounded size."""

from __future__ import annotations

import glob as globbing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ParquetPart", "batches", "find_parquet", "open_parquet"]

_SUFFIX = ".parquet"


@dataclass(frozen=True)
class ParquetPart:
    """One file and what the folders above it say (``region_split=train`` gives {"region_split": "train"})."""

    path: Path
    partitions: dict[str, str]


def find_parquet(pattern: str | Path | Sequence[str | Path]) -> list[ParquetPart]:
    """Files of a glob pattern (``**`` too), a file, a folder, or several of these; sorted by path, each once.

    Files and folders that are not named outright and begin with ``_`` or ``.`` are left out.

    Raises
    ------
    ValueError
        If nothing is found, or the pattern is no local path.
    """
    patterns = [pattern] if isinstance(pattern, str | Path) else list(pattern)
    found: set[Path] = set()
    for one in map(str, patterns):
        if "://" in one:
            raise ValueError(f"parquet must be a local path, got {one!r}: copy the dataset first")
        here = {Path(one)} if Path(one).is_file() else {file for top, file in _matches(one) if _is_data(top, file)}
        if not here:
            raise ValueError(f"parquet: no Parquet files match {one!r}")
        found |= here
    return [ParquetPart(path, _partitions(path)) for path in sorted(found)]


def _matches(pattern: str) -> Iterator[tuple[Path, Path]]:
    """(the folder that is named outright, a file below it) of a folder or a glob pattern."""
    parts = Path(pattern).parts
    named = next((i for i, part in enumerate(parts) if globbing.has_magic(part)), len(parts))
    top = Path(*parts[:named])
    for match in [top] if named == len(parts) else map(Path, globbing.iglob(pattern, recursive=True)):
        for file in match.rglob(f"*{_SUFFIX}") if match.is_dir() else [match]:
            yield top, file


def _is_data(top: Path, file: Path) -> bool:
    hidden = any(part.startswith(("_", ".")) for part in file.relative_to(top).parts)
    return file.is_file() and file.name.endswith(_SUFFIX) and not hidden


def _partitions(path: Path) -> dict[str, str]:
    return dict(part.split("=", 1) for part in path.parts[:-1] if "=" in part)


def open_parquet(part: ParquetPart) -> Any:
    """``pyarrow.parquet.ParquetFile`` that reads page by page: a column chunk of gigabytes is never held whole."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(part.path, pre_buffer=False, buffer_size=1 << 20)


def batches(
    part: ParquetPart, columns: Sequence[str], rows: int, groups: Sequence[int] | None = None
) -> Iterator[tuple[int, Any]]:
    """(row group, record batch) with the given columns, of at most ``rows`` rows each, in order."""
    with open_parquet(part) as file:
        for group in range(file.num_row_groups) if groups is None else groups:
            for batch in file.iter_batches(rows, row_groups=[group], columns=list(columns), use_threads=False):
                yield group, batch
