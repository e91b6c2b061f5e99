"""``dhs warm`` leaves nothing to compile: every kernel in the sources, with the signatures of every stage."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dhs_pipeline.cli import main
from dhs_pipeline.warm import cached_kernels
from tests_support import REPO

SOURCES = REPO / "pipeline" / "dhs_gen"


def kernels_in_sources() -> dict[str, bool]:
    """Module and name of every function that is decorated as a cached kernel → is it always inlined?"""
    found = {}
    for file in sorted(SOURCES.rglob("*.py")):
        module = ".".join(file.relative_to(SOURCES.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                for decorator in map(ast.unparse, node.decorator_list):
                    if "jit" in decorator or "vectorize" in decorator or decorator == "inner_kernel":
                        cached = decorator == "inner_kernel" or "cache=True" in decorator
                        assert cached, f"{module}.{node.name} is compiled anew by every process"
                        found[f"{module}.{node.name}"] = "inline='always'" in decorator
    return found


def test_every_kernel_of_the_sources_is_known() -> None:
    found = kernels_in_sources()
    assert len(found) > 20
    assert set(cached_kernels()) == set(found)


def test_without_a_folder_it_stops(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert main(["warm"]) == 2
    assert "NUMBA_CACHE_DIR is not set" in capsys.readouterr().err


# --- with a folder of its own: compiles everything ----------------------------------------------------------------


def in_a_fresh_process(cache: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)} | variables
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def warm(cache: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return in_a_fresh_process(cache, "-m", "dhs_pipeline.cli", "warm", *options, **variables)


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of kernels that ``dhs warm`` filled."""
    cache = tmp_path_factory.mktemp("kernels")
    done = warm(cache)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["signatures_compiled"] > 25
    return cache


@pytest.fixture
def cache(warmed: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may spoil; numba does not ask where the folder lies."""
    shutil.copytree(warmed, tmp_path / "kernels")
    return tmp_path / "kernels"


def state(cache: Path) -> dict[str, int]:
    return {str(file.relative_to(cache)): file.stat().st_mtime_ns for file in cache.rglob("*.nb[ic]")}


@pytest.mark.slow
def test_warm_compiles_every_kernel(warmed: Path) -> None:
    """An inlined kernel is compiled into its callers and has no file of its own."""
    there = {file.name.split("-")[0] for file in warmed.rglob("*.nbi")}
    wanted = {".".join(name.split(".")[-2:]) for name, inlined in kernels_in_sources().items() if not inlined}
    assert there == wanted


@pytest.mark.slow
def test_check_tells_whether_the_folder_is_complete(cache: Path) -> None:
    before = state(cache)
    done = warm(cache, "--check")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["signatures_compiled"] == 0
    assert state(cache) == before
    for file in cache.rglob("sersic._integrate-*.nbi"):
        file.unlink()
    incomplete = warm(cache, "--check")
    assert incomplete.returncode == 2
    kernels = len(kernels_in_sources())
    assert f"does not hold 1 of {kernels} kernels" in incomplete.stderr
    assert "(dhs_gen.hybrid_sources.sersic._integrate)" in incomplete.stderr


RENDER_EVERYTHING = """
import sys
from pathlib import Path
from drawn_banks import drawn_bank
from small_run import SETTINGS, make_run
from dhs_pipeline.sources import Banks
from dhs_pipeline.warm import kernel_uses

root = Path(sys.argv[1])
cosmos = drawn_bank(root / "cosmos", "hst_cosmos_f814w", 0.03, 12)
banks = Banks(cosmos, drawn_bank(root / "deep", "deep_ground", 0.084, 8))
names = ("control", "null", "gen5", "gen5_prime", "gen6", "gen7", "gen7a", "gen7b", "gen8b", "gen8c", "uber")
for mass in ("sie", "epl_cdm"):
    settings = [*SETTINGS, "manifest.folds=4", f"mass={mass}"]
    run, _ = make_run(root / mass, hosts={"a": None, "b": None}, generations=names, settings=settings, banks=banks)
    for name in names:
        counts = (run.phase4c(name) / "_stage.json").read_json()["rows_by_status"]
        assert set(counts) == {"OK"}, (mass, name, counts)
compiled = [use.name for use in kernel_uses() if use.compiled]
loaded = [use.name for use in kernel_uses() if use.loaded]
print("compiled", *compiled)
print("loaded", *loaded)
"""


@pytest.mark.slow
def test_no_generation_has_anything_to_compile(cache: Path, tmp_path: Path) -> None:
    """4a's subhalos, 4c of every kind and 4p5, in a process of their own, with a cache that nobody has to write."""
    before = state(cache)
    paths = os.pathsep.join([str(REPO / "tests" / "dhs_pipeline"), str(REPO / "tests"), str(REPO / "pipeline")])
    done = in_a_fresh_process(cache, "-c", RENDER_EVERYTHING, str(tmp_path), PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    compiled, loaded = (line.split()[1:] for line in done.stdout.splitlines()[-2:])
    assert compiled == []
    for name in (
        "ray_kernels.shoot_box",
        "tnfw._tabulate",
        "tnfw.total_mass",
        "moffat._round",
        "moffat._elliptical",
        "add_light._add",
        "noise._faint_noise",
        "sampler._dark_border",
    ):
        assert any(kernel.endswith(name) for kernel in loaded), name
    assert any(kernel.endswith("sersic._integrate") for kernel in loaded)
    assert state(cache) == before


@pytest.mark.slow
@pytest.mark.spark
def test_a_run_on_spark_has_nothing_to_compile(cache: Path, tmp_path: Path) -> None:
    """4a to 4p5 with the real 4b; numba writes what it compiles into the folder, whichever worker it is."""
    before = state(cache)
    options = ("--out", str(tmp_path / "run"), "--generations", "gen7,control", "--quiet", "--master", "local[2]")
    settings = [word for s in ("manifest.tasks_per_host=2", "mass=epl_cdm") for word in ("--set", s)]
    done = in_a_fresh_process(cache, "-m", "dhs_pipeline.cli", "run", *options, *settings)
    assert done.returncode == 0, done.stderr[-2000:]
    assert state(cache) == before
