"""The bundle that a cluster gets, downloaded as `make wheel` does, installed without a network, and used."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from install_sandbox import MACHINE, Sandbox, locked, make_bundle_module, needs_bundles_python, snapshot

from dhs_pipeline.cli import main
from dhs_pipeline.digest import digest_path
from dhs_pipeline.session import find_java_home
from dhs_pipeline.simulate import load_simulation_settings, simulate_survey
from dhs_pipeline.storage import Location

pytestmark = [pytest.mark.slow, needs_bundles_python]

SETTINGS = ("manifest.tasks_per_host=2", "manifest.hosts_per_part=16", "mass=epl_cdm")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("dist") / "bundle"
    make_bundle_module().make_bundle(made, MACHINE)
    return made


def test_it_holds_what_the_lock_names_and_no_sources(bundle: Path) -> None:
    wheels = [file.name for file in (bundle / "wheels").iterdir()]
    assert len(wheels) == len(locked("requirements-cluster.lock")) + 1
    assert all(name.endswith(".whl") for name in wheels)
    assert all(MACHINE in name or name.endswith("-any.whl") for name in wheels)


def test_a_machine_without_a_network_runs_the_stages_with_it(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Sandbox(tmp_path / "machine")
    installed = machine.run(*without_network(), "/bin/bash", str(bundle / "bootstrap" / "install.sh"), str(bundle))
    assert installed.returncode == 0, installed.stderr[-3000:]
    lost = machine.run("/bin/bash", str(bundle / "bootstrap" / "install.sh"), str(bundle), "--bank", "/not/there")
    assert lost.returncode != 0
    assert "/not/there: no built source bank" in lost.stderr
    kernels = snapshot(machine.home / "numba")
    run = tmp_path / "run"

    def here(*command: str) -> None:
        done = machine.as_a_task(*command, PYTHONPATH=str(spark), JAVA_HOME=find_java_home())
        assert done.returncode == 0, done.stderr[-3000:]

    spark = spark_from_outside(tmp_path / "spark" / "python")
    survey = simulate_survey(tmp_path / "survey", load_simulation_settings())  # with GalSim, which no cluster has
    where = ("--out", str(run), "--quiet", "--master", "local[2]")
    inputs = ("--config", "demo", "--data", str(survey.data_dir), "--parent", str(survey.parent_path))
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    here("dhs", "run", *where, *inputs, *settings, "--generations", "control")
    job = machine.home / "bundle" / "jobs" / "stage_4c_inject.py"
    here("python", str(job), *where, "--generation", "gen7")
    made = digest_path(Location.of(run / "phase4c" / "gen7" / "stamps"))
    assert snapshot(machine.home / "numba") == kernels  # nothing was compiled
    assert "pyspark" not in machine.as_a_task("python", "-m", "pip", "list").stdout

    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")  # as install.sh has it; workers read it when they start
    assert main(["stage-4c", *where, "--generation", "gen7", "--force"]) == 0
    assert digest_path(Location.of(run / "phase4c" / "gen7" / "stamps")) == made


def spark_from_outside(folder: Path) -> Path:
    """What EMR has in /usr/lib/spark/python and puts on PYTHONPATH."""
    folder.mkdir(parents=True)
    for name in ("pyspark", "py4j"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        (folder / name).symlink_to(spec.submodule_search_locations[0])
    return folder


def without_network() -> list[str]:
    """Put before a command: a network namespace with nothing in it, where this user may make one."""
    allowed = subprocess.run(["unshare", "--net", sys.executable, "-c", ""], capture_output=True, check=False)
    return ["unshare", "--net"] if allowed.returncode == 0 else []
