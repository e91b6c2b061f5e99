"""4c from reading to writing on Spark: rate, scaling, cost against size, start-up; beside its floor and lenstronomy.

    python benchmarks/endtoend.py [--data DATA --parent PARENT --bank BANK] [--full]

Every stage runs in a process of its own. Figures of 4c are those of its steady state, from the receipts that workers
leave for each unit; the first unit of each worker (imports, compiled kernels, cold caches) is left out and told as
start-up. Costs are CPU times: on a busy machine they hold where rates of wall time do not.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench.goals import Check, Figure, Inputs, Measurement, exit_code, table
from bench.peers import lenstronomy_by_hand, lenstronomy_by_the_book
from bench.scenes import Arcs, Job, bank_of, bricks_of, dhs, error_percent, positive_jobs, prepare_run, scene_of
from bench.timing import take_turns
from bench.truth import true_arcs
from kernel import FACTORS, TOLERANCE_PERCENT, best_tries, our_kernel, search, template_of

from dhs_gen.inject import stamp_window
from dhs_gen.metrics import arc_snr, good_pixels
from dhs_gen.noise import add_arc_variance, arc_shot_noise
from dhs_gen.stamps import encode_stamp, read_stamp
from dhs_gen.streams import stream
from dhs_gen.task import Task
from dhs_pipeline.commit import committed_files
from dhs_pipeline.config import RunConfig
from dhs_pipeline.injection import injection_settings
from dhs_pipeline.receipts import Receipt
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import STAMPS
from dhs_pipeline.sources import Banks, SourceMaker, source_maker
from dhs_pipeline.stage import read_receipts
from dhs_pipeline.storage import Location, write_parquet_stream

GENERATION = "gen5"
SIZES, SIZES_FULL = (2_000, 8_000), (2_000, 20_000, 200_000)
UNIT_ROWS = 256
"""Rows of a unit where sizes are compared: small enough that the smallest run has several for each worker."""

RATE_TASKS, RATE_UNIT_ROWS = 16_000, 1024
"""The run whose rate is told, in units of a survey (conf/run/survey.yaml)."""

_FLOOR_STAMPS = 48
_PEER_STAMPS = 6
_CHECKED_STAMPS = 8
_STARTS = 3


@dataclass(frozen=True)
class Steady:
    """4c once its workers are warm.

    Parameters
    ----------
    cpu_ms
        Processor time of a worker for a stamp.
    stamps_per_s
        By the clock, all workers together.
    busy
        Share of the workers' time spent inside units; the rest is waiting for the next.
    """

    cpu_ms: float
    stamps_per_s: float
    busy: float


def steady_state(receipts: Sequence[Receipt]) -> Steady:
    """Without the first unit of each worker.

    Raises
    ------
    ValueError
        If no worker has three units.
    """
    workers: dict[int, list[Receipt]] = {}
    for receipt in sorted(receipts, key=lambda r: r.effort.finished_unix_s):
        workers.setdefault(receipt.effort.pid, []).append(receipt)
    long = [units for units in workers.values() if len(units) >= 3]
    if not long:
        raise ValueError(f"no worker has three of the {len(receipts)} units: make more tasks")
    rest = [unit for units in long for unit in units[1:]]
    spans = [units[-1].effort.finished_unix_s - units[0].effort.finished_unix_s for units in long]
    rows = [sum(unit.rows for unit in units[1:]) for units in long]
    return Steady(
        cpu_ms=1e3 * sum(unit.effort.cpu_seconds for unit in rest) / sum(rows),
        stamps_per_s=sum(n / s for n, s in zip(rows, spans, strict=True)),
        busy=sum(unit.effort.seconds for unit in rest) / sum(spans),
    )


def measure(inputs: Inputs) -> list[Measurement]:
    """The goals ``4c-rate``, ``4c-peer``, ``4c-floor``, ``scaling``, ``flat`` and ``start-up``."""
    sizes = SIZES_FULL if inputs.full else SIZES
    hosts = pq.read_metadata(bricks_of(inputs)[1]).num_rows
    bank = bank_of(inputs)

    def prepared(tasks: int, unit_rows: int) -> RunDir:
        return prepare_run(inputs.work / f"run-{tasks}", inputs, max(1, round(tasks / hosts)), unit_rows)

    run = prepared(RATE_TASKS, RATE_UNIT_ROWS)
    ground = Ground.of(run, Banks(cosmos=Location.of(str(bank))))
    ours, floor = beside_floor(ground, partial(run_4c, run, bank, cores=2))
    checks = ground.checks(run)
    on_one = run_4c(run, bank, cores=1)
    by_size = {}
    for size in sizes:
        sized = prepared(size, UNIT_ROWS)
        by_size[size] = beside_floor(ground, partial(run_4c, sized, bank, cores=2))
        shutil.rmtree(inputs.work / f"run-{size}")
    over_floor = {size: steady.cpu_ms / beside for size, (steady, beside) in by_size.items()}
    peer_ms, factor, peer_error = ground.peer()
    bound = "" if peer_error <= TOLERANCE_PERCENT else " (not enough: a lower bound)"
    by_cost = 2e3 / ours.cpu_ms
    return [
        Measurement(
            "4c-rate",
            ours.stamps_per_s,
            beside=(
                Figure("2 cores' worth of its CPU time", by_cost, "stamps/s"),
                Figure("CPU per stamp", ours.cpu_ms, "ms"),
                Figure("busy", 100 * ours.busy, "%"),
            ),
            checks=checks,
            note=f"{GENERATION}, {RATE_TASKS:,} tasks in units of {RATE_UNIT_ROWS}, local[2], steady state",
        ),
        Measurement(
            "4c-peer",
            peer_ms / ours.cpu_ms,
            beside=(Figure("lenstronomy", peer_ms, "ms"), Figure("4c", ours.cpu_ms, "ms")),
            note=(
                f"{_PEER_STAMPS} stamps by lenstronomy at supersampling {factor}{bound}, error {peer_error:.2f} % of "
                "the peak; source, noise, weights, S/N, encoding and writing as in 4c; CPU time"
            ),
        ),
        Measurement(
            "4c-floor",
            ours.cpu_ms / floor,
            beside=(Figure("floor", floor, "ms"), Figure("4c", ours.cpu_ms, "ms")),
            note="floor: rays, convolutions, encoding and Parquet of the same rows in one process, before and after 4c",
        ),
        Measurement(
            "scaling",
            2 * (on_one.cpu_ms / ours.cpu_ms) * (ours.busy / on_one.busy),
            beside=(
                Figure("by the clock", ours.stamps_per_s / on_one.stamps_per_s, "x"),
                Figure("CPU per stamp, 1 worker", on_one.cpu_ms, "ms"),
                Figure("2 workers", ours.cpu_ms, "ms"),
            ),
            note="from CPU time per stamp and time between units; local[1] and local[2], one after the other",
        ),
        Measurement(
            "flat",
            over_floor[sizes[-1]] / over_floor[sizes[0]],
            beside=tuple(Figure(f"{size:,} tasks", steady.cpu_ms, "ms") for size, (steady, _) in by_size.items()),
            note=(
                f"CPU per stamp in units of {UNIT_ROWS} on two cores, over the floor before and after each run, "
                f"{' and '.join(f'{floor:.2f}' for _, floor in by_size.values())} ms; wanted up to "
                f"{SIZES_FULL[-1]:,} tasks, which --full makes"
            ),
            series=tuple((float(size), steady.cpu_ms) for size, (steady, _) in by_size.items()),
        ),
        start_up(run, bank),
    ]


def beside_floor(ground: Ground, measured: Callable[[], Steady]) -> tuple[Steady, float]:
    """What was measured, and the floor (ms) as the mean of before and after: a machine changes its speed."""
    before = ground.floor_ms()
    found = measured()
    return found, statistics.fmean((before, ground.floor_ms()))


def run_4c(run: RunDir, bank: Path, cores: int) -> Steady:
    """One 4c, whatever was there before."""
    master = f"local[{cores}]"
    given = ("--out", run.where.uri, "--generation", GENERATION, "--bank", str(bank), "--master", master)
    dhs("stage-4c", *given, "--force", "--quiet")
    return steady_state(read_receipts(run.phase4c(GENERATION)))


def start_up(run: RunDir, bank: Path) -> Measurement:
    """Fresh interpreters with the kernels compiled by one before them."""
    script = Path(__file__).parent / "bench" / "first_stamp.py"
    command = [sys.executable, str(script), run.where.uri, GENERATION, str(bank)]
    walls, cpus = [], []
    for _ in range(_STARTS + 1):
        started = time.perf_counter()
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        walls.append(time.perf_counter() - started)
        cpus.append(float(printed.split()[-1]))
    return Measurement(
        "start-up",
        statistics.median(walls[1:]),
        beside=(Figure("its CPU time", statistics.median(cpus[1:]), "s"), Figure("the very first", walls[0], "s")),
        note=f"median of {_STARTS} by the clock: interpreter, imports, bank, kernels from their cache, one stamp",
    )


@dataclass(frozen=True, eq=False)
class Ground:
    """Tasks of a run, for the floor, the peer and the truth; all in this process."""

    config: RunConfig
    make: SourceMaker
    jobs: Sequence[Job]
    positive_share: float

    @classmethod
    def of(cls, run: RunDir, banks: Banks) -> Ground:
        config = run.config()
        make = source_maker(config.generation(GENERATION), banks, config.manifest.folds)
        share = 1.0 - config.manifest.control_fraction
        return cls(config, make, positive_jobs(run, _FLOOR_STAMPS), share)

    def floor_ms(self) -> float:
        """CPU milliseconds of a stamp of the run, controls among them: they are encoded and written without an arc."""
        accuracy = injection_settings(self.config).accuracy
        kernels = [our_kernel(scene_of(j, template_of(j, self.make), self.config.survey), accuracy) for j in self.jobs]
        arcs = [one() for one in kernels]

        def render() -> None:
            for one in kernels:
                one()

        def write() -> None:
            write_rows([self._bare(job, arc) for job, arc in zip(self.jobs, arcs, strict=True)])

        seconds = take_turns({"render": render, "write": write}, 5)
        render_s, write_s = (statistics.median(seconds[name]) for name in ("render", "write"))
        return 1e3 * (self.positive_share * render_s + write_s) / len(self.jobs)

    def _bare(self, job: Job, arcs: Arcs) -> bytes:
        window = stamp_window(job.cutout, self.config.survey.stamp_size_pix)[0]
        layers = {f"image_{b}": job.cutout.image[b][window] + arc.astype(np.float32) for b, arc in arcs.items()}
        layers |= {f"invvar_{b}": job.cutout.invvar[b][window] for b in arcs}
        layers |= {f"arc_{b}": arc.astype(np.float32) for b, arc in arcs.items()}
        if job.cutout.maskbits is not None:
            layers["maskbits"] = job.cutout.maskbits[window]
        return encode_stamp(layers)

    def peer(self) -> tuple[float, int, float]:
        """CPU milliseconds of a stamp of the run by lenstronomy, its supersampling, and its largest error (%).

        Controls cost it nothing here, which is in its favour; models and PSFs are made beforehand.
        """
        jobs = [self.jobs[i] for i in np.linspace(0, len(self.jobs) - 1, _PEER_STAMPS).astype(int)]
        scenes = [scene_of(job, template_of(job, self.make), self.config.survey) for job in jobs]
        truths = [true_arcs(scene) for scene in scenes]
        best = best_tries(search(lenstronomy_by_hand, scenes, truths, FACTORS))
        factor = max(x.factor for x in best)
        models = [lenstronomy_by_the_book(scene, factor) for scene in scenes]

        def whole_job() -> None:
            write_rows([self._by_lenstronomy(job, model) for job, model in zip(jobs, models, strict=True)])

        seconds = statistics.median(take_turns({"job": whole_job}, 2)["job"])
        error = max(error_percent(model(), truth) for model, truth in zip(models, truths, strict=True))
        return 1e3 * self.positive_share * seconds / len(jobs), factor, error

    def _by_lenstronomy(self, job: Job, model: Callable[[], Arcs]) -> bytes:
        settings = injection_settings(self.config)
        task = Task.from_row(job.row)
        window = stamp_window(job.cutout, task.stamp_size_pix)[0]
        template_of(job, self.make)  # the model has it already; a job makes it once for every stamp
        maskbits = None if job.cutout.maskbits is None else job.cutout.maskbits[window]
        layers: dict[str, np.ndarray] = {}
        for band, unit in model().items():
            arc = unit * task.source.flux_nmgy(band)
            gain = job.cutout.nexp[band] * settings.electrons_per_nmgy_per_exposure[band]
            noise = arc_shot_noise(arc, gain, stream(task.task_id, "arc_shot_noise", band=band))
            invvar = job.cutout.invvar[band][window]
            arc_snr(arc, invvar, good_pixels(maskbits, invvar, settings.bad_mask))
            layers[f"image_{band}"] = (job.cutout.image[band][window] + arc + noise).astype(np.float32)
            layers[f"invvar_{band}"] = add_arc_variance(invvar, arc, gain)
            layers[f"arc_{band}"] = arc.astype(np.float32)
        if maskbits is not None:
            layers["maskbits"] = maskbits
        return encode_stamp(layers)

    def checks(self, run: RunDir) -> tuple[Check, ...]:
        """Arcs as 4c wrote them, from its files, beside the truth; and rows that ended without a stamp."""
        jobs = {job.row["task_id"]: job for job in positive_jobs(run, _CHECKED_STAMPS)}
        columns = ["task_id", "status", "stamp_npz", *(f"unlensed_flux_{b}_nmgy" for b in "grz")]
        errors, failed = [], 0
        for file in committed_files(run.phase4c(GENERATION), "stamps"):
            with file.open_input() as source:
                for row in pq.read_table(source, columns=columns).to_pylist():
                    failed += row["status"] != "OK"
                    if row["task_id"] in jobs and row["status"] == "OK":
                        errors.append(self._error(jobs[row["task_id"]], row))
        found = max(errors) if len(errors) == len(jobs) else float("nan")
        return (
            Check(f"largest error of {len(jobs)} arcs as written", found, TOLERANCE_PERCENT, "% of the peak"),
            Check("rows without a stamp", failed, 0, "rows"),
        )

    def _error(self, job: Job, row) -> float:
        layers = read_stamp(row["stamp_npz"])
        arcs = {b: layers[f"arc_{b}"] / row[f"unlensed_flux_{b}_nmgy"] for b in "grz"}
        return error_percent(arcs, true_arcs(scene_of(job, template_of(job, self.make), self.config.survey)))


def write_rows(stamps: Sequence[bytes]) -> int:
    """Bytes of a Parquet file with the column of stamps alone, written as 4c writes it."""
    schema = pa.schema([STAMPS.field("stamp_npz")])
    sink = io.BytesIO()
    write_parquet_stream(iter([pa.table([stamps], schema=schema)]), schema, sink, row_group_rows=128)
    return sink.tell()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "parent", "bank"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--full", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = measure(Inputs(Path(work), args.data, args.parent, args.bank, args.full))
    print(table(found))
    return exit_code(found)


if __name__ == "__main__":
    sys.exit(main())
