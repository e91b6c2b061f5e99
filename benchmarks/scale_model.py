"""The cost model: fitted to small runs, checked by predicting a larger one before it is made; memory on the way.

    python benchmarks/scale_model.py [--data … --parent …] [--sizes 2500,5000,20000] [--predict 50000] [--write]

Every run is `dhs run` in a process of its own on two cores, gen5 from a drawn bank of 1 GB, so that the bank is larger
than a worker's memory may be. While it runs, its Python workers are watched: resident memory, and how much
of the bank's pages they share. `--write` puts the fitted numbers into conf/emr/cost_model.yaml. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from dhs_gen.cosmos_sources.builder import COLUMNS
from dhs_gen.source_banks.writer import IMAGES_FILE, BankWriter
from dhs_pipeline.config import conf_root
from dhs_pipeline.scale import Capacity, CostModel, StageCost, load_cost_model, predict
from dhs_pipeline.session import start_session
from dhs_pipeline.simulate import load_simulation_settings, simulate_survey

CORES = 2
ROWS_PER_UNIT = 1024  # as conf/run/survey.yaml has it: the largest units, so the largest workers
BANK_SIDE_PIX = 96
PIXSCALE_ARCSEC = 0.03
SAMPLE_EVERY_S = 1.0
MB = 1e6

# What a row of real survey data moves and what cannot be seen in a run on two small bricks.
DR10_BRICK_MB = 75.0  # 13 maps of a 3600x3600 brick (DR10 "files" page: image 11-15 MB, invvar 11 MB, psfsize 0.4 MB)
LRGS_PER_BRICK = 77.0  # 19.7 million LRGs in 256,000 bricks, as earlier runs had them
CUTOUTS_PER_READ = 16  # row group of 4b's table: what a unit of 4c reads at least


@dataclass(frozen=True)
class Memory:
    """Peaks over a run of one Python worker, and of all workers together, in MB (10^6 bytes).

    Parameters
    ----------
    rss
        Resident memory of the largest worker, pages of the memory-mapped bank included.
    own
        The same without the bank's pages, which workers share.
    bank_rss, bank_pss
        Pages of the bank: as each worker counts them, summed over workers; and shared out between those that map them.
    workers
        Python workers seen at once.
    """

    rss: float
    own: float
    bank_rss: float
    bank_pss: float
    workers: int


@dataclass(frozen=True)
class Run:
    """A finished run: its stages' JSON, and its memory."""

    tasks: int
    wall_s: float
    stages: Mapping[str, Mapping[str, Any]]
    memory: Memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--parent")
    parser.add_argument("--sizes", default="2500,5000,20000")
    parser.add_argument("--predict", type=int, default=50_000)
    parser.add_argument("--bank-gb", type=float, default=1.0)
    parser.add_argument("--work", help="folder for the bank and the runs; default: a temporary one")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", help="where to write everything that was measured")
    args = parser.parse_args()
    sizes = [int(n) for n in args.sizes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(args.work or folder)
        bank = make_bank(work / "bank", args.bank_gb)
        data, parent = (args.data, args.parent) if args.data else simulated(work / "survey")
        runs = [make_run(work / f"run-{n}", n, data, parent, bank) for n in sizes]
        model = fit(runs)
        capacity = Capacity(nodes=1, vcpus_per_node=CORES)
        asked = {name: stage["rows"] * args.predict // runs[-1].tasks for name, stage in runs[-1].stages.items()}
        asked["4b"] = int(runs[-1].stages["4b"]["rows"])
        predicted = {name: predict(model, cost_name(name), rows, capacity) for name, rows in asked.items()}
        print(f"predicted before it is made: {sum(p.seconds for p in predicted.values()):.0f} s", flush=True)
        large = make_run(work / f"run-{args.predict}", args.predict, data, parent, bank)
    print(markdown(model, runs, large, {name: p.seconds for name, p in predicted.items()}))
    if args.json:
        measured = {"machine": machine(), "runs": [asdict(r) for r in [*runs, large]], "model": model.model_dump()}
        Path(args.json).write_text(json.dumps(measured, indent=2) + "\n")
    if args.write:
        write_model(model)


def cost_name(stage: str) -> str:
    return "4p5" if stage.startswith("4p5") else stage


def make_bank(folder: Path, size_gb: float) -> Path:
    """Drawn galaxies, as many as fill ``size_gb``: exponential discs of random size, shape and place."""
    if (folder / "bank.json").exists():
        return folder
    rng = np.random.default_rng(5)
    count = int(size_gb * 1e9 / (4 * BANK_SIDE_PIX**2))
    y, x = np.indices((BANK_SIDE_PIX, BANK_SIDE_PIX)) - (BANK_SIDE_PIX - 1) / 2
    with BankWriter(folder, COLUMNS) as writer:
        for number in range(count):
            scale_pix, q, phi = rng.uniform(3, 8), rng.uniform(0.4, 1), rng.uniform(0, np.pi)
            u, v = x * np.cos(phi) + y * np.sin(phi), -x * np.sin(phi) + y * np.cos(phi)
            image = np.exp(-np.hypot(u, v / q) / scale_pix)
            writer.accept(image, bank_row(number, half_light_arcsec(image)))
        writer.finish(
            {"kind": "hst_cosmos_f814w", "pixscale_arcsec": PIXSCALE_ARCSEC, "effective_psf_fwhm_arcsec": 0.1}
        )
    return folder


def bank_row(number: int, hlr_arcsec: float) -> dict[str, Any]:
    row: dict[str, Any] = {column.name: None for column in COLUMNS}
    return row | {"template_id": f"drawn-{number}", "hlr_arcsec": hlr_arcsec}


def half_light_arcsec(image: np.ndarray) -> float:
    from dhs_gen.source_banks.measure import half_light_radius_px

    return float(half_light_radius_px(image / image.sum()) * PIXSCALE_ARCSEC)


def simulated(folder: Path) -> tuple[str, str]:
    if not (folder / "parent.parquet").exists():
        simulate_survey(folder, load_simulation_settings())
    return str(folder), str(folder / "parent.parquet")


def make_run(out: Path, tasks: int, data: str, parent: str, bank: Path) -> Run:
    """`dhs run` of about ``tasks`` tasks, watched."""
    hosts = count_hosts(out.with_name("hosts"), data, parent)
    command = [sys.executable, "-m", "dhs_pipeline.cli", "run", "--out", str(out), "--config", "data", "--quiet"]
    command += ["--data", data, "--parent", parent, "--bank", str(bank), "--generations", "gen5"]
    command += ["--master", f"local[{CORES}]", "--set", f"manifest.tasks_per_host={round(0.9 * tasks / hosts)}"]
    command += ["--set", f"manifest.tasks_per_shard={ROWS_PER_UNIT}"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    watcher = Watcher(process.pid, str(bank / IMAGES_FILE))
    watcher.start()
    if process.wait() != 0:
        raise SystemExit(f"the run in {out} failed")
    wall_s = time.perf_counter() - started
    watcher.stop()
    where = {"4a": "phase4a", "4b": "phase4b", "4c gen5": "phase4c/gen5", "4p5": "phase4p5/gen5"}
    stages = {name: json.loads((out / folder / "_stage.json").read_text()) for name, folder in where.items()}
    return Run(stages["4c gen5"]["rows"], wall_s, stages, watcher.peak())


def count_hosts(out: Path, data: str, parent: str) -> int:
    """Hosts of the parent, by a stage 4a with one task each."""
    summary = out / "phase4a" / "_stage.json"
    if not summary.exists():
        command = [sys.executable, "-m", "dhs_pipeline.cli", "stage-4a", "--out", str(out), "--parent", parent]
        command += ["--config", "data", "--set", "manifest.tasks_per_host=1", "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return int(json.loads(summary.read_text())["hosts"])


class Watcher(threading.Thread):
    """Looks at the Python workers below a process once a second."""

    def __init__(self, pid: int, bank_file: str) -> None:
        super().__init__(daemon=True)
        self._root, self._bank_file = psutil.Process(pid), bank_file
        self._ended = threading.Event()
        self._looks: list[Memory] = []

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            try:
                workers = [p for p in self._root.children(recursive=True) if is_worker(p)]
            except psutil.NoSuchProcess:
                return
            seen = [m for m in (memory_of(p, self._bank_file) for p in workers) if m is not None]
            if seen:
                rss, own, bank_rss, bank_pss = (list(values) for values in zip(*seen, strict=True))
                self._looks.append(Memory(max(rss), max(own), sum(bank_rss), sum(bank_pss), len(seen)))

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def peak(self) -> Memory:
        last = max(self._looks, key=lambda m: m.bank_rss)
        return Memory(
            max(m.rss for m in self._looks),
            max(m.own for m in self._looks),
            last.bank_rss,
            last.bank_pss,
            max(m.workers for m in self._looks),
        )


def is_worker(process: psutil.Process) -> bool:
    try:
        return "pyspark.daemon" in " ".join(process.cmdline()) and "pyspark.daemon" in " ".join(
            process.parent().cmdline()
        )
    except (psutil.NoSuchProcess, AttributeError):
        return False


def memory_of(process: psutil.Process, bank_file: str) -> tuple[float, float, float, float] | None:
    """Resident, without the bank, and the bank's pages (resident; shared out), in MB; None if it has ended."""
    try:
        full = process.memory_info()
        maps = [m for m in process.memory_maps(grouped=False) if m.path == bank_file]
    except (psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
        return None
    bank_rss = sum(m.rss for m in maps)
    return full.rss / MB, (full.rss - bank_rss) / MB, bank_rss / MB, sum(m.pss for m in maps) / MB


def fit(runs: Sequence[Run]) -> CostModel:
    """Worker time a row from the largest run; the start is what the runs took beyond it, on average."""
    stages = {name: fit_stage(name, runs) for name in runs[0].stages}
    driver_ms, worker_ms = spark_ms_per_unit()
    return CostModel(measured_on=in_words(), driver_ms_per_unit=driver_ms, worker_ms_per_unit=worker_ms, stages=stages)


def fit_stage(name: str, runs: Sequence[Run]) -> StageCost:
    stages = [run.stages[name] for run in runs]
    last = stages[-1]
    ms_per_row = 1e3 * last["worker_seconds"] / last["rows"]
    rows_per_unit = max(1, round(last["rows"] / last["units"]))
    starts = [
        s["seconds"] - ms_per_row / 1e3 * (s["rows"] / CORES + 0.5 * min(s["rows"], rows_per_unit)) for s in stages
    ]
    read_kb, written_kb = kilobytes(name, runs[-1])
    return StageCost(
        start_s=round(max(0.0, float(np.mean(starts))), 2),
        worker_ms_per_row=round(ms_per_row, 4),
        read_kb_per_row=round(read_kb, 2),
        written_kb_per_row=round(written_kb, 2),
        rows_per_unit=rows_per_unit,
    )


def kilobytes(name: str, run: Run) -> tuple[float, float]:
    """Read and written for each row: from the sizes of files, and for bricks from the survey's own pages."""
    per_row = {n: s["bytes"] / s["rows"] / 1e3 for n, s in run.stages.items()}
    units = run.stages["4c gen5"]["units"]
    read = {
        "4a": 0.2,
        "4b": DR10_BRICK_MB * 1e3 / LRGS_PER_BRICK,
        "4c gen5": per_row["4a"] + CUTOUTS_PER_READ * per_row["4b"] * units / run.stages["4c gen5"]["rows"],
        "4p5": per_row["4c gen5"],
    }
    return read[name], per_row[name]


def spark_ms_per_unit(units: int = 400) -> tuple[float, float]:
    """Spark's own cost of a task that does nothing: in the driver (no Python), and in the Python worker beside that."""
    spark = start_session("empty tasks", f"local[{CORES}]")
    sc = spark.sparkContext

    def seconds(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    def with_python(n: int) -> object:
        return sc.parallelize(range(n), n).mapPartitions(list).collect()

    with_python(20)
    spark.range(0, 20, 1, 20).count()
    without = seconds(lambda: spark.range(0, units, 1, units).count())
    beside = seconds(lambda: with_python(units)) - without
    spark.stop()
    return round(1e3 * without / units, 2), round(1e3 * beside * CORES / units, 2)


def machine() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}


def in_words() -> str:
    import pyspark

    m = machine()
    return f"{m['cores']} shared {m['machine']} cores, Python {m['python']}, Spark {pyspark.__version__}"


def write_model(model: CostModel) -> None:
    """Put what was measured in; what was not measured this time keeps its numbers."""
    path = conf_root() / "emr" / "cost_model.yaml"
    stages = {**load_cost_model().model_dump()["stages"], **model.model_dump()["stages"]}
    head = "# What the stages cost, for predictions (docs/scale.md). "
    head += "Written by `python benchmarks/scale_model.py --write`.\n"
    tree = {**model.model_dump(), "stages": stages}
    path.write_text(head + yaml.safe_dump(tree, sort_keys=False, width=120))


def markdown(model: CostModel, runs: Sequence[Run], large: Run, predicted: Mapping[str, float]) -> str:
    lines = [in_words(), "", "| stage | start, s | ms in a worker per row | rows per unit | KB read, written per row |"]
    lines.append("|---|---|---|---|---|")
    for name, c in model.stages.items():
        moved = f"{c.read_kb_per_row:.1f}, {c.written_kb_per_row:.1f}"
        lines.append(f"| {name} | {c.start_s:.1f} | {c.worker_ms_per_row:.2f} | {c.rows_per_unit} | {moved} |")
    own = f"{model.driver_ms_per_unit} ms in the driver, {model.worker_ms_per_unit} in a worker"
    lines += ["", f"Spark's own cost of a unit: {own}.", ""]
    lines += [f"| {large.tasks} tasks | rows | predicted, s | took, s | rows/s |", "|---|---|---|---|---|"]
    for name, stage in large.stages.items():
        took = stage["seconds"]
        lines.append(f"| {name} | {stage['rows']} | {predicted[name]:.0f} | {took:.0f} | {stage['rows'] / took:.0f} |")
    took = sum(s["seconds"] for s in large.stages.values())
    lines.append(f"| all | | {sum(predicted.values()):.0f} | {took:.0f} | |")
    lines += [
        "",
        "| tasks | wall, s | largest worker, MB | without the bank | bank pages, summed over workers | shared out |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for run in [*runs, large]:
        m = run.memory
        cells = (f"{run.wall_s:.0f}", *(f"{v:.0f}" for v in (m.rss, m.own, m.bank_rss, m.bank_pss)))
        lines.append(f"| {run.tasks} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
