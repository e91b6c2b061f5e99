"""What faults happen to: a run that was never disturbed, and copies of it that are."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from standalone import REPOSITORY, StandaloneCluster, Submission, wait_until

from dhs_pipeline.digest import digest_path
from dhs_pipeline.simulate import load_simulation_settings, simulate_survey
from dhs_pipeline.simulate.settings import BrickSettings, SimulationSettings, brick_name
from dhs_pipeline.storage import Location

GENERATION = "gen7"
"""Sources of its own: no bank is needed."""


@dataclass(frozen=True)
class Found:
    """What lies in a stage's folder under final names."""

    rows: int
    distinct: int
    digests: dict[str, str]


@dataclass(frozen=True)
class Ground:
    """An undisturbed run (4a, 4b and 4c finished) and the seconds that its 4b and 4c take on the cluster."""

    folder: Path
    run: Path
    data: Path | None
    seconds: dict[str, float]

    def copy(self, name: str, *, with_4b: bool = True) -> Path:
        """A run directory of the same inputs with 4a, and 4b if wanted, done."""
        out = self.folder / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        shutil.copy(self.run / "run.json", out)
        for stage in ("phase4a", "phase4b") if with_4b else ("phase4a",):
            shutil.copytree(self.run / stage, out / stage)
        return out

    def undisturbed(self, stage: str) -> Found:
        return found(self.run / stage)


STAGE_4C = f"phase4c/{GENERATION}"
TABLES = {"phase4b": ("cutouts",), STAGE_4C: ("stamps", "metrics")}
KEYS = {"cutouts": "host_id", "stamps": "task_id"}


def found(stage_dir: Path) -> Found:
    """Read every row of a stage."""
    stage = "phase4b" if stage_dir.name == "phase4b" else STAGE_4C
    tables = TABLES[stage]
    digests = {table: str(digest_path(Location.of(stage_dir / table))) for table in tables}
    keys = [pq.read_table(f, columns=[KEYS[tables[0]]]) for f in sorted((stage_dir / tables[0]).glob("[!.]*.parquet"))]
    ids = [key for table in keys for key in table.column(0).to_pylist()]
    return Found(len(ids), len(set(ids)), digests)


def receipts(stage_dir: Path) -> dict[str, tuple[int, int]]:
    """Unit → what tells a receipt that was written again: inode and time of writing."""
    return {
        file.stem: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in (stage_dir / "_receipts").glob("[!.]*.json")
    }


def wait_for_receipts(job: Submission, stage_dir: Path, count: int) -> None:
    """Until ``count`` units of a stage are done: the moment for a fault."""

    def there() -> bool:
        if not job.is_running():
            raise AssertionError(f"the job ended before {count} units were done: {job.text()[-2000:]}")
        return len(receipts(stage_dir)) >= count

    wait_until(f"{count} receipts in {stage_dir}", there, limit_s=300)


def unfinished_files(stage_dir: Path) -> list[str]:
    """Final names that do not hold a whole Parquet file."""
    broken = []
    for file in sorted(stage_dir.rglob("[!.]*.parquet")):
        try:
            pq.ParquetFile(file).metadata  # noqa: B018 - reads the end of the file
        except (OSError, ValueError):
            broken.append(str(file.relative_to(stage_dir)))
    return broken


def checksums(stage_dir: Path) -> dict[str, str]:
    files = sorted(stage_dir.rglob("[!.]*.parquet"))
    return {str(f.relative_to(stage_dir)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def submit_4b(cluster: StandaloneCluster, out: Path, data: Path, **conf: object) -> Submission:
    return cluster.submit("stage_4b_cutouts.py", "--out", out, "--data", data, "--quiet", conf=_dotted(conf))


def submit_4c(cluster: StandaloneCluster, out: Path, **conf: object) -> Submission:
    return cluster.submit("stage_4c_inject.py", "--out", out, "--generation", GENERATION, "--quiet", conf=_dotted(conf))


def _dotted(conf: dict[str, object]) -> dict[str, object]:
    return {f"spark.{key.replace('_', '.')}": value for key, value in conf.items()}


def dhs(*arguments: object) -> None:
    """The command itself, without a cluster: the undisturbed local run."""
    command = [sys.executable, "-m", "dhs_pipeline.cli", *map(str, arguments)]
    ended = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]


def _environment() -> dict[str, str]:
    import os

    paths = [str(REPOSITORY / "pipeline"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "OMP_NUM_THREADS": "1"}


# --- the undisturbed run ---------------------------------------------------------------------------------------------


def small_survey(bricks: int, hosts_per_brick: int) -> SimulationSettings:
    """The demo's bricks, more of them and smaller, so that 4b has several units."""
    given = load_simulation_settings()
    template = given.bricks[0].model_dump()
    made = []
    for number in range(bricks):
        ra_deg = 30.125 + 10 * number
        name = brick_name(ra_deg, template["dec_deg"])
        made.append(BrickSettings(**(template | {"name": name, "brickid": 900001 + number, "ra_deg": ra_deg})))
    hosts = given.hosts.model_copy(update={"per_brick": hosts_per_brick})
    return given.model_copy(update={"bricks": tuple(made), "brick_size_px": 600, "hosts": hosts})


def make_ground(folder: Path, *, bricks: int = 6, hosts_per_brick: int = 10, tasks_per_host: int = 64) -> Ground:
    """Simulate bricks and run 4a to 4c on them locally, on all cores."""
    data, run = folder / "data", folder / "undisturbed"
    survey = simulate_survey(data, small_survey(bricks, hosts_per_brick))
    sizes = {"tasks_per_host": tasks_per_host, "hosts_per_part": hosts_per_brick // 2, "tasks_per_shard": 64}
    settings = [word for key, value in sizes.items() for word in ("--set", f"manifest.{key}={value}")]
    inputs = ["--data", data, "--parent", survey.parent_path, "--config", "demo", "--generations", GENERATION]
    dhs("run", "--out", run, *inputs, *settings, "--quiet")
    return Ground(folder, run, data, {})


def time_undisturbed(ground: Ground, cluster: StandaloneCluster) -> Ground:
    """4b and 4c on the cluster, with nothing in their way."""
    assert ground.data is not None
    out = ground.copy("on-the-cluster", with_4b=False)
    seconds = {}
    for stage, submit in (
        ("phase4b", lambda: submit_4b(cluster, out, ground.data)),  # type: ignore[arg-type]
        (STAGE_4C, lambda: submit_4c(cluster, out)),
    ):
        job = submit()
        assert job.wait() == 0, job.text()[-3000:]
        assert found(out / stage) == ground.undisturbed(stage), f"{stage} on the cluster is not what it is locally"
        seconds[stage] = job.seconds
    shutil.rmtree(out)
    return Ground(ground.folder, ground.run, ground.data, seconds)
