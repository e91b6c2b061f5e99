"""First pass: the labels of every row, counted block by block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dhs_gen.validation.files import ParquetPart, batches, open_parquet
from dhs_gen.validation.sampling import Block

__all__ = ["MODE", "Labels", "mode_of", "read_labels"]

MODE = ("gen_variant", "source_mode", "artifact_profile")
_LABELS = (*MODE, "status", "cutout_ok", "bandset", "region_split")
_BLOCK_ROWS = 10_000


@dataclass(eq=False)
class Labels:
    """What the first pass over all rows finds: counts of rows, and the blocks that a sample is drawn from."""

    rows: int = 0
    failed: int = 0
    status: Counter[str] = field(default_factory=Counter)
    values: dict[str, Counter[str]] = field(default_factory=dict)
    modes: Counter[tuple[str, ...]] = field(default_factory=Counter)
    failed_by_mode: Counter[tuple[str, ...]] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    status_contradictions: int = 0
    split_contradictions: int = 0
    blocks: list[Block] = field(default_factory=list)


def read_labels(part: ParquetPart, index: int, names: Sequence[str], labels: Labels) -> None:
    """Add the rows of one file, number ``index`` of the dataset, that has the columns ``names``."""
    group_before, before = -1, 0
    for group, n_rows, rows in _counted(part, [name for name in _LABELS if name in names]):
        before = before if group == group_before else 0
        group_before = group
        with_stamp = sum(n for row, n in rows if not _count(labels, row, n, part))
        labels.blocks.append(Block(index, group, before, with_stamp, n_rows))
        before += with_stamp


def _counted(part: ParquetPart, columns: list[str]) -> Iterator[tuple[int, int, list[tuple[dict[str, Any], int]]]]:
    """(row group, rows, [(labels, how many rows have them)]) of each block of rows."""
    import pyarrow as pa

    if not columns:  # no column to read: the footer knows the rows
        with open_parquet(part) as file:
            for group in range(file.num_row_groups):
                left = file.metadata.row_group(group).num_rows
                while left > 0:
                    yield group, min(left, _BLOCK_ROWS), [({}, min(left, _BLOCK_ROWS))]
                    left -= _BLOCK_ROWS
        return
    for group, batch in batches(part, columns, _BLOCK_ROWS):
        table = pa.table({name: _text(name, batch.column(name)) for name in columns})
        counted = table.group_by(columns).aggregate([([], "count_all")]).to_pylist()
        yield group, batch.num_rows, [(row, row.pop("count_all")) for row in counted]


def _text(name: str, column: Any) -> Any:
    import pyarrow as pa

    return (column.cast(pa.int32()) if name == "cutout_ok" else column).cast(pa.string())


def _count(labels: Labels, row: dict[str, str | None], n: int, part: ParquetPart) -> bool:
    """Add ``n`` rows of the same labels; returns whether they failed."""
    failed = "cutout_ok" in row and row["cutout_ok"] != "1"
    labels.rows += n
    labels.failed += n if failed else 0
    labels.status[row["status"] or "null" if "status" in row else _status(row)] += n
    if "status" in row and "cutout_ok" in row and (row["status"] == "OK") == failed:
        labels.status_contradictions += n
    for name in (*MODE, "bandset"):
        if name in row:
            labels.values.setdefault(name, Counter())[row[name] or "null"] += n
    mode = mode_of(row)
    labels.modes[mode] += n
    labels.failed_by_mode[mode] += n if failed else 0
    folder, column = part.partitions.get("region_split"), row.get("region_split")
    if split := folder or column:
        labels.splits[split] += n
    if folder is not None and column is not None and folder != column:
        labels.split_contradictions += n
    return failed


def _status(row: dict[str, str | None]) -> str:
    return f"cutout_ok={row['cutout_ok']}" if "cutout_ok" in row else "not recorded"


def mode_of(row: dict[str, Any]) -> tuple[str, ...]:
    """Values of :data:`MODE` of a row."""
    return tuple(str(row[name] or "null") if name in row else "not recorded" for name in MODE)
