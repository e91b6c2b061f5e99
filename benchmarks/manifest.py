"""Tasks per second of stage 4a: what a worker does for a part, and the whole stage on two cores.

    python benchmarks/manifest.py [--hosts 2560] [--repeats 5] [--no-spark]

Hosts are drawn, 40 to a brick. **Worker**: one part of 64 hosts in this process, for several designs: read the hosts,
expand them, digest, encode and write the manifest, leave the receipt; processor time, median of the repeats.
**Stage**: all of 4a, from a parent of ``--hosts`` rows with conf/run/survey.yaml, in a Spark session that has already
run a small 4a (its start is not counted): wall time, and processor time of the JVM and its workers. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from bench.goals import Check, Figure, Inputs, Measurement

from dhs_pipeline.config import RunConfig, load_run_config
from dhs_pipeline.manifest.hosts import normalise
from dhs_pipeline.manifest.parent import map_columns, plan_parent, read_chunk
from dhs_pipeline.manifest.stage import expand_part, run_manifest
from dhs_pipeline.manifest.tasks import expand
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import BANDS, HOSTS
from dhs_pipeline.session import start_session
from dhs_pipeline.stage import open_stage
from dhs_pipeline.storage import Location, write_parquet

HOSTS_PER_BRICK = 40
HOSTS_PER_PART = 64
CORES = 2
WARM_HOSTS = 16 * HOSTS_PER_BRICK
POPULATION = ("priors=population", "manifest.tasks_per_host=72")
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "survey: halton, units of 1024": ("survey", ()),
    "data: halton, units of 128": ("data", ()),
    "survey, design small": ("survey", ("design=small", "manifest.tasks_per_host=48")),
    "survey, design population": ("survey", ("design=population", *POPULATION)),
    "survey, design population_vdf": ("survey", ("design=population_vdf", *POPULATION)),
    "survey, mass epl_cdm": ("survey", ("mass=epl_cdm", "manifest.tasks_per_host=9")),
}
"""Name → configuration in conf/run and settings."""


@dataclass(frozen=True)
class WorkerRate:
    """What a part costs in its worker: tasks, and processor time per task in microseconds."""

    case: str
    tasks: int
    cpu_us_per_task: float

    @property
    def tasks_per_s(self) -> float:
        """Of one core."""
        return 1e6 / self.cpu_us_per_task


@dataclass(frozen=True)
class StageRate:
    """What all of 4a takes on ``CORES`` cores; ``cpu_s`` is of the JVM and its workers."""

    tasks: int
    wall_s: float
    cpu_s: float

    @property
    def tasks_per_s(self) -> float:
        return self.tasks / self.wall_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=2560)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-spark", action="store_true", help="the workers alone")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workers = worker_rates(Path(folder), args.repeats)
        stage = None if args.no_spark else stage_rate(Path(folder), args.hosts)
    print(markdown(workers, stage))


def measure(inputs: Inputs) -> list[Measurement]:
    """The goal of 4a, for ``make bench``: the whole stage without Spark's start; beside it the workers alone."""
    stage = stage_rate(inputs.work, 40_960 if inputs.full else 10_240)
    worker = _worker_rate(inputs.work / "worker", next(iter(CASES)), 5)
    beside = (
        Figure("workers alone, 2 cores", CORES * worker.tasks_per_s, "tasks/s"),
        Figure("worker", worker.cpu_us_per_task, "µs/task"),
        Figure("stage, all processes", 1e6 * stage.cpu_s / stage.tasks, "µs/task"),
    )
    note = (
        f"{stage.tasks} tasks of the survey in {stage.wall_s:.1f} s by the clock, after a small run in the same session"
    )
    return [Measurement("4a", stage.tasks_per_s, beside, (_one_by_one(inputs.work),), note)]


def _one_by_one(work: Path) -> Check:
    """Hosts expanded together beside the same hosts one after another."""
    config = load_run_config("survey")
    hosts = hosts_of(drawn_parent(work / "few.parquet", 8), config)
    together, alone = expand(hosts, config), [expand(hosts.slice(i, 1), config) for i in range(len(hosts))]
    differ = sum(a != b for a, b in zip(together.to_pylist(), pa.concat_tables(alone).to_pylist(), strict=True))
    return Check("tasks that differ from their host's alone", differ, 0.0, "tasks")


def worker_rates(folder: Path, repeats: int) -> list[WorkerRate]:
    """One part of every case, expanded ``repeats`` times after a warm-up."""
    return [_worker_rate(folder / f"worker-{i}", name, repeats) for i, name in enumerate(CASES)]


def _worker_rate(folder: Path, case: str, repeats: int) -> WorkerRate:
    run, settings = CASES[case]
    config = load_run_config(run, settings)
    stage = open_stage("4a", Location.of(folder), {}, {}, force=False)
    hosts = hosts_of(drawn_parent(folder.with_suffix(".parquet"), HOSTS_PER_PART), config)
    write_parquet(hosts, stage.where / "hosts/part-00000.parquet")
    tasks = expand_part(stage, 0, config).rows
    took = []
    for _ in range(repeats):
        started = time.process_time()
        expand_part(stage, 0, config)
        took.append(time.process_time() - started)
    return WorkerRate(case, tasks, 1e6 * statistics.median(took) / tasks)


def stage_rate(folder: Path, hosts: int) -> StageRate:
    """4a of ``hosts`` hosts, after one in the same session with parts enough for every worker to start."""
    config = load_run_config("survey")
    spark = start_session("manifest", f"local[{CORES}]")
    try:
        for name, rows in (("warm", WARM_HOSTS), ("timed", hosts)):
            parent, run = drawn_parent(folder / f"{name}.parquet", rows), RunDir(Location.of(folder / name))
            cpu_before, started = _cpu_s(), time.perf_counter()
            summary = run_manifest(spark, run, parent, config, force=False, progress=False)
            took = StageRate(summary["rows"], time.perf_counter() - started, _cpu_s() - cpu_before)
    finally:
        spark.stop()
    return took


def drawn_parent(path: Path, rows: int) -> Location:
    """A parent whose rows are all hosts, in the names of Tractor."""
    rng = np.random.default_rng(5)
    brick = np.arange(rows) // HOSTS_PER_BRICK
    mag_r = rng.uniform(18, 21, rows)
    columns: dict[str, object] = {
        "release": np.full(rows, 9010),
        "brickid": 300_000 + brick,
        "objid": np.arange(rows) % HOSTS_PER_BRICK,
        "brickname": [f"{b:04d}m305" for b in brick],
        "type": rng.choice(["DEV", "SER"], rows),
        "ra": rng.uniform(10, 60, rows),
        "dec": rng.uniform(-30, 0, rows),
        "ebv": rng.uniform(0.01, 0.1, rows),
        "z_phot": rng.uniform(0.2, 0.9, rows),
        "sigma_v_km_s": rng.uniform(180, 320, rows),
    }
    for band, colour in zip(BANDS, (1.6, 0.0, -0.9), strict=True):
        columns[f"flux_{band}"] = 10 ** (-0.4 * (mag_r + colour - 22.5))
        columns[f"psfsize_{band}"] = rng.uniform(1.0, 1.6, rows)
        columns[f"psfdepth_{band}"] = rng.uniform(500, 2000, rows)
    pq.write_table(pa.table(columns), path)
    return Location.of(path)


def hosts_of(parent: Location, config: RunConfig) -> pa.Table:
    """The HOSTS table of a parent without rejects."""
    chunks, available = plan_parent(parent)
    columns = map_columns(parent, available, config.parent)
    found = pa.concat_tables([normalise(read_chunk(c, columns), columns, config) for c in chunks])
    if found.column("reason").null_count != found.num_rows:
        raise SystemExit(f"{parent}: rows that are no hosts: {found.column('message').drop_null()[0]}")
    return found.select(HOSTS.names).cast(HOSTS)


def markdown(workers: Sequence[WorkerRate], stage: StageRate | None) -> str:
    lines = ["| worker | tasks | µs of processor per task | tasks/s per core |", "|---|---|---|---|"]
    lines += [f"| {w.case} | {w.tasks} | {w.cpu_us_per_task:.1f} | {w.tasks_per_s:.0f} |" for w in workers]
    if stage is not None:
        lines += ["", "| 4a, local[2] | tasks | s | tasks/s | µs of processor per task |", "|---|---|---|---|---|"]
        per_task_us = 1e6 * stage.cpu_s / stage.tasks
        lines.append(f"| survey | {stage.tasks} | {stage.wall_s:.1f} | {stage.tasks_per_s:.0f} | {per_task_us:.1f} |")
    return "\n".join(lines)


def _cpu_s() -> float:
    """Processor time of this process and all below it, ended ones included."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(t.user + t.system + t.children_user + t.children_system for t in times)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
