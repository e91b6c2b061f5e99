"""Whole runs with every path on an S3 store that fails now and then: the digests of the local run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from small_run import make_run

from dhs_pipeline.commit import verify
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.storage import Location
from faulty_proxy import Fault, FaultyProxy
from tests_support import REPO, SMALL

if TYPE_CHECKING:
    from dhs_pipeline.simulate import SimulatedSurvey

FAULTS = (
    Fault.SLOW_DOWN,
    Fault.INTERNAL_ERROR,
    Fault.TOO_MANY,
    Fault.RESET,
    Fault.RESET_IN_BODY,
    Fault.TRUNCATED,
    Fault.LOST_ANSWER,
)
STAGES = ("phase4a", "phase4b", "phase4c/gen7", "phase4p5/gen7")


def summaries(run: RunDir, stages: tuple[str, ...] = STAGES) -> dict[str, Any]:
    """What a stage says of its rows."""
    told = {stage: (run.where / stage / "_stage.json").read_json() for stage in stages}
    return {stage: (s["digests"], s["rows_by_status"], s["files"], s["bytes"]) for stage, s in told.items()}


def assert_many_faults(proxy: FaultyProxy) -> None:
    counts = Counter(request.fault for request in proxy.requests)
    assert len(set(counts) & set(FAULTS)) >= 5
    print(f"{len(proxy.requests)} requests, {len(proxy.requests) - counts[Fault.NONE]} faults")


def test_injection_and_compaction_in_this_process(
    proxy: FaultyProxy, seaweed_bucket: str, quick_retries: None, tmp_path: Path
) -> None:
    hosts = {"a": None, "b": None, "c": "no such file"}
    local, _ = make_run(tmp_path / "run", hosts=hosts, generations=("gen7",))
    proxy.at_random(FAULTS, 0.15, seed=11)
    remote, _ = make_run(f"{seaweed_bucket}/{tmp_path.name}", hosts=hosts, generations=("gen7",))
    assert_many_faults(proxy)
    proxy.reset()
    assert summaries(remote) == summaries(local)
    assert verify(remote.phase4p5("gen7")) == []


@pytest.mark.slow
@pytest.mark.spark
def test_dhs_run_on_a_store_that_fails_now_and_then(
    small_run: RunDir, simulated: SimulatedSurvey, proxy: FaultyProxy, seaweed_bucket: str, tmp_path: Path
) -> None:
    """In a process of its own, with its own Spark: the session's workers have inherited another endpoint."""
    root = Location.of(seaweed_bucket) / tmp_path.name
    for file in sorted(Path(simulated.data_dir).rglob("*.fz")):
        (root / "data" / str(file.relative_to(simulated.data_dir))).write_bytes(file.read_bytes())
    (root / "parent.parquet").write_bytes(Path(simulated.parent_path).read_bytes())
    proxy.reset()
    proxy.at_random(FAULTS, 0.04, seed=12)
    command = [sys.executable, "-m", "dhs_pipeline.cli", "run", "--config", "demo", "--master", "local[2]", "--quiet"]
    command += [part for setting in SMALL for part in ("--set", setting)]
    command += ["--data", f"{root}/data", "--parent", f"{root}/parent.parquet", "--out", f"{root}/run"]
    ended = subprocess.run(
        [*command, "--generations", "gen7"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPO / "pipeline")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert_many_faults(proxy)
    proxy.reset()
    run = RunDir(root / "run")
    assert summaries(run) == summaries(small_run)
    assert all(verify(run.where / stage) == [] for stage in STAGES)
    assert (run.report / "index.html").exists()
