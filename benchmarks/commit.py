"""Who writes the stamps: the Python workers with a commit by the driver, as the stages do, or Spark's own writer.

    python benchmarks/commit.py [--rows 10000] [--repeats 3]

The same rows (40 numbers and a 50-KB stamp of noise, made in the worker) go to Parquet three ways on two cores:

- **workers**: `run_units`, files and receipts by the workers, the manifest put by the driver (this package);
- **Spark, mapInArrow**: Arrow batches of 256 rows to the JVM, its Parquet writer, its FileOutputCommitter;
- **Spark, rows**: `rdd.mapPartitions` to rows, a DataFrame, the same writer.

Each way is run in turn after a warm-up, several times; medians and ratios are printed as Markdown. Processor time is
that of the driver's JVM and all Python workers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset as ds

from dhs_gen.stamps import encode_stamp
from dhs_gen.streams import stream
from dhs_pipeline.receipts import Receipt
from dhs_pipeline.session import start_session
from dhs_pipeline.stage import open_stage, run_units
from dhs_pipeline.storage import Location

ROWS_PER_UNIT = 500
SCHEMA = pa.schema(
    [("task_id", pa.string()), *((f"x{i}", pa.float64()) for i in range(40)), ("stamp_npz", pa.binary())]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    spark = start_session("commit", "local[2]")
    units = list(range(args.rows // ROWS_PER_UNIT))
    ways: dict[str, Callable[[Any, list[int], Path], None]] = {
        "workers write, driver commits": by_workers,
        "Spark writes, mapInArrow": by_arrow,
        "Spark writes, rows": by_rows,
    }
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(args.repeats + 1):
            for name, way in ways.items():
                out = Path(folder) / f"{repeat}-{len(took[name])}-{way.__name__}"
                wall_s, cpu_s = timed(way, spark, units, out)
                assert ds.dataset(out, format="parquet").count_rows() == args.rows
                if repeat:
                    took[name].append((wall_s, cpu_s))
    print(markdown(took, args.rows))
    spark.stop()


def timed(way: Callable[[Any, list[int], Path], None], spark: Any, units: list[int], out: Path) -> tuple[float, float]:
    cpu_before, started = cpu_seconds(), time.perf_counter()
    way(spark, units, out)
    return time.perf_counter() - started, cpu_seconds() - cpu_before


def cpu_seconds() -> float:
    """Of this process and all below it, ended workers included."""
    me = psutil.Process()
    total = 0.0
    for process in [me, *me.children(recursive=True)]:
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def unit_table(unit: int) -> pa.Table:
    rng = stream(str(unit), "commit_benchmark")
    rows = []
    for i in range(ROWS_PER_UNIT):
        bands = {f"image_{b}": rng.normal(0, 0.01, (64, 64)).astype(np.float32) for b in "grz"}
        numbers = dict(zip((f"x{k}" for k in range(40)), rng.random(40).tolist(), strict=True))
        rows.append({"task_id": f"{unit}-{i}", **numbers, "stamp_npz": encode_stamp(bands)})
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def by_workers(spark: Any, units: list[int], out: Path) -> None:
    stage = open_stage("benchmark", Location.of(out), {}, {}, force=False)

    def work(part: Iterator[int]) -> Iterator[Receipt]:
        for unit in part:
            writer = stage.writer(f"{unit:05d}")
            writer.write("stamps", unit_table(unit), row_group_rows=512)
            yield writer.finish(ROWS_PER_UNIT, {"OK": ROWS_PER_UNIT})

    receipts = run_units(
        *(spark, stage, "workers", units, work),
        done=[],
        partitions=None,
        rows_of=lambda unit: ROWS_PER_UNIT,
        progress=False,
    )
    stage.finish(receipts, {})


def by_arrow(spark: Any, units: list[int], out: Path) -> None:
    from pyspark.sql.pandas.types import from_arrow_schema

    def make(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for unit in batch.column(0).to_pylist():
                yield from unit_table(unit).to_batches(max_chunksize=256)

    made = spark.range(0, len(units), 1, len(units)).mapInArrow(make, from_arrow_schema(SCHEMA))
    made.write.option("compression", "zstd").parquet(out.as_uri())


def by_rows(spark: Any, units: list[int], out: Path) -> None:
    from pyspark.sql.pandas.types import from_arrow_schema

    def make(part: Iterator[int]) -> Iterator[tuple[Any, ...]]:
        for unit in part:
            for row in unit_table(unit).to_pylist():
                yield tuple(row.values())

    rows = spark.sparkContext.parallelize(units, len(units)).mapPartitions(make)
    made = spark.createDataFrame(rows, from_arrow_schema(SCHEMA))
    made.write.option("compression", "zstd").parquet(out.as_uri())


def markdown(took: dict[str, list[tuple[float, float]]], rows: int) -> str:
    medians = {name: [statistics.median(values) for values in zip(*runs, strict=True)] for name, runs in took.items()}
    first = next(iter(medians.values()))
    lines = [f"{os.cpu_count()} cores, {rows} rows of 50 KB", ""]
    lines += ["| way | s | rows/s | ms of processor per row | wall over the first |", "|---|---|---|---|---|"]
    for name, (wall_s, cpu_s) in medians.items():
        ratio = wall_s / first[0]
        lines.append(f"| {name} | {wall_s:.1f} | {rows / wall_s:.0f} | {1e3 * cpu_s / rows:.2f} | {ratio:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
