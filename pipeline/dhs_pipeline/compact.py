"""Stage 4p5 on Spark: many small files become few good ones, and splits are dealt anew, by folds of sky regions.

Stamps are not shuffled: the driver packs shards into output files from the light metrics table alone, and one worker
task writes each output file. Rows in are rows out, proved by digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dhs_gen.streams import unit_interval
from dhs_pipeline.commit import committed_files
from dhs_pipeline.config import Compact, RunConfig, SplitFractions
from dhs_pipeline.digest import Digest
from dhs_pipeline.receipts import Receipt, UnitWriter
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import COMPACTED, SPLITS
from dhs_pipeline.stage import StageError, open_stage, require_finished, run_units
from dhs_pipeline.storage import Location

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class OutputFile:
    """One file to write: the rows of one split from some shards."""

    split: str
    number: int
    sources: tuple[str, ...]
    rows: int


def run_compaction(
    spark: SparkSession,
    run: RunDir,
    generation: str,
    config: RunConfig,
    *,
    partitions: int | None,
    force: bool,
    progress: bool,
) -> dict[str, Any]:
    """Write ``phase4p5/<generation>/region_split=<split>/``; returns the stage's JSON.

    Raises
    ------
    StageError
        If 4c has not finished, a host, pair, template or task would be in two splits, or a row was lost or changed.
    """
    source = run.phase4c(generation)
    summary_4c = require_finished(source, f"4c {generation}")
    inputs = {"stamps": summary_4c["digests"]["stamps"]}
    settings = {"compact": config.compact.model_dump(mode="json")}
    stage = open_stage("4p5", run.phase4p5(generation), settings, inputs, force=force)
    committed_files(source, "stamps")  # all there, before the first task
    rows = _read_keys(committed_files(source, "metrics"), source)
    splits = assign_splits(Counter(rows.column("region_fold").to_pylist()), config.compact.split_fractions)
    plan = _plan(rows, splits, summary_4c, config.compact.target_file_mb)
    done = stage.finished_receipts()
    pending = [o for o in plan if _unit(o) not in done]
    if not pending and (finished := stage.finished_summary()) is not None:
        return finished
    _check_disjoint(rows, splits)
    compact = config.compact

    def work(outputs: Iterator[OutputFile]) -> Iterator[Receipt]:
        for output in outputs:
            yield _write(output, source / "stamps", splits, stage.writer(_unit(output)), compact)

    fresh = run_units(
        spark,
        stage,
        f"4p5 {generation}",
        pending,
        work,
        done=done.values(),
        partitions=partitions,
        rows_of=lambda o: o.rows,
        progress=progress,
    )
    receipts = [*done.values(), *fresh]
    digest = _check_nothing_lost(receipts, summary_4c)
    achieved = Counter({split: 0 for split in SPLITS})
    for output in plan:
        achieved[output.split] += output.rows
    return stage.finish(
        receipts,
        {
            "generation": generation,
            "rows_digest": str(digest),
            "folds_by_split": dict(sorted(Counter(splits.values()).items())),
            "split_fractions": {
                split: {
                    "configured": config.compact.split_fractions.as_dict()[split],
                    "achieved": round(achieved[split] / rows.num_rows, 4),
                    "rows": achieved[split],
                }
                for split in SPLITS
            },
        },
    )


def assign_splits(rows_of_fold: Mapping[int, int], fractions: SplitFractions) -> dict[int, str]:
    """Give whole folds of regions to splits so that the rows come as near to the fractions as folds allow.

    The largest folds are dealt first (ties in the order of a hash), each to the split that is then farthest below
    its share. The result depends on the folds and their rows alone.
    """
    total = sum(rows_of_fold.values())
    wanted = {split: fraction * total for split, fraction in fractions.as_dict().items() if fraction > 0}
    order = sorted(rows_of_fold, key=lambda f: (-rows_of_fold[f], unit_interval(f, salt="split_order")))
    held = dict.fromkeys(wanted, 0.0)
    splits = {}
    for fold in order:
        split = max(wanted, key=lambda s: wanted[s] - held[s])
        splits[fold] = split
        held[split] += rows_of_fold[fold]
    return splits


def _read_keys(metrics: Sequence[Location], source: Location) -> pa.Table:
    """Fold, host, pair, template and shard file of every row, from the metrics table."""
    columns = ["task_id", "pair_id", "host_id", "region_fold", "template_id"]
    tables = []
    for file in metrics:
        table = file.read_table(columns)
        tables.append(table.append_column("file", pa.repeat(file.name, table.num_rows)))
    if not tables:
        raise StageError(f"{source}: no metrics here")
    return pa.concat_tables(tables)


def _check_disjoint(rows: pa.Table, splits: Mapping[int, str]) -> None:
    """A task is there once; a host, a pair and a source template are in one split, a pair also in one file."""
    if (again := rows.num_rows - pc.count_distinct(rows.column("task_id")).as_py()) > 0:
        raise StageError(f"{again} task ids are there more than once")
    if lost := rows.column("region_fold").null_count:
        raise StageError(f"{lost} rows have no region_fold: their split cannot be told")
    split = pa.array([splits[f] for f in rows.column("region_fold").to_pylist()])
    for column in ("host_id", "pair_id", "template_id"):
        used = pa.table({"name": rows.column(column), "split": split}).filter(pc.is_valid(rows.column(column)))
        pairs = used.group_by(["name", "split"]).aggregate([])
        if crossing := pairs.num_rows - pc.count_distinct(pairs.column("name")).as_py():
            raise StageError(f"{crossing} values of {column} lie in more than one split")
    pieces = pa.table({"pair_id": rows.column("pair_id"), "file": rows.column("file")}).group_by(["pair_id", "file"])
    if torn := pieces.aggregate([]).num_rows - pc.count_distinct(rows.column("pair_id")).as_py():
        raise StageError(f"{torn} pairs lie in more than one file")


def _plan(
    rows: pa.Table, splits: Mapping[int, str], summary_4c: Mapping[str, Any], target_file_mb: float
) -> list[OutputFile]:
    """Fill output files with shards, in their order, up to the target size."""
    bytes_per_row = summary_4c["bytes"] / max(summary_4c["rows"], 1)
    target_rows = max(1, int(target_file_mb * 1e6 / bytes_per_row))
    split = pa.array([splits[f] for f in rows.column("region_fold").to_pylist()])
    counts = pa.table({"file": rows.column("file"), "split": split}).group_by(["split", "file"])
    per_file = counts.aggregate([([], "count_all")]).sort_by([("split", "ascending"), ("file", "ascending")])
    plan: list[OutputFile] = []
    for name in SPLITS:
        held: list[tuple[str, int]] = []
        for row in per_file.filter(pc.equal(per_file.column("split"), name)).to_pylist():
            held.append((row["file"], row["count_all"]))
            if sum(n for _, n in held) >= target_rows:
                plan.append(_output(name, plan, held))
                held = []
        if held:
            plan.append(_output(name, plan, held))
    return plan


def _output(split: str, plan: Sequence[OutputFile], held: Sequence[tuple[str, int]]) -> OutputFile:
    number = sum(1 for o in plan if o.split == split)
    return OutputFile(split, number, tuple(f for f, _ in held), sum(n for _, n in held))


def _unit(output: OutputFile) -> str:
    return f"{output.split}-{output.number:05d}"


def _write(
    output: OutputFile, stamps: Location, splits: Mapping[int, str], writer: UnitWriter, compact: Compact
) -> Receipt:
    statuses: Counter[str] = Counter()

    def counted(rows: pa.Table) -> pa.Table:
        statuses.update(rows.column("status").to_pylist())
        return _relabel(rows)

    # A chain of maps holds no table of its own while the next one is read.
    sources = chain.from_iterable(_rows_of_split(stamps / name, output.split, splits) for name in output.sources)
    folder = f"region_split={output.split}"
    rows = writer.write_stream(
        folder,
        map(counted, sources),
        COMPACTED,
        row_group_rows=compact.row_group_rows,
        pixel_compression=compact.stamp_compression,
    )
    return writer.finish(rows, statuses)


def _rows_of_split(shard: Location, split: str, splits: Mapping[int, str]) -> Iterator[pa.Table]:
    """One table for each row group."""
    with shard.open_input() as source:
        parquet = pq.ParquetFile(source, page_checksum_verification=True)
        for group in range(parquet.num_row_groups):
            yield _of_split(parquet.read_row_group(group), split, splits)


def _of_split(rows: pa.Table, split: str, splits: Mapping[int, str]) -> pa.Table:
    """The rows of one split: the table itself, not a copy, where that is all of them."""
    kept = [splits[f] == split for f in rows.column("region_fold").to_pylist()]
    return rows if all(kept) else rows.filter(pa.array(kept, pa.bool_()))


def _relabel(table: pa.Table) -> pa.Table:
    """The folder names the new split (``region_split=train``); the column keeps the one of 4a under its own name."""
    columns = [table.column("region_split" if f.name == "region_split_4a" else f.name) for f in COMPACTED]
    return pa.table(columns, schema=COMPACTED)


def _check_nothing_lost(receipts: Sequence[Receipt], summary_4c: Mapping[str, Any]) -> Digest:
    """Rows out, with their digest, equal rows in."""
    out = Digest()
    for receipt in receipts:
        for text in receipt.digests.values():
            out += Digest.parse(text)
    rows_in = Digest.parse(summary_4c["digests"]["stamps"])
    if out != rows_in:
        raise StageError(f"compaction changed rows: {rows_in} went in, {out} came out")
    return out
