"""Grounds and clusters of the fault tests: a small drawn one for every run, a simulated one for the slow tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "dhs_pipeline"))

from fault_ground import GENERATION, Ground, make_ground
from standalone import StandaloneCluster

DRAWN_HOSTS = 12
DRAWN_SETTINGS = (
    "manifest.tasks_per_host=20",
    "manifest.control_fraction=0.2",
    "manifest.tasks_per_shard=16",
    "rendering.max_supersampling=5",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneCluster]:
    """A master and two workers on two loopback hosts."""
    if sys.platform != "linux":
        pytest.skip("only Linux answers on all of 127.0.0.0/8")
    with StandaloneCluster(tmp_path_factory.mktemp("standalone")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def drawn_ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Drawn cutouts, rendered undisturbed in this process: no Spark, no bricks."""
    from small_run import make_run

    folder = tmp_path_factory.mktemp("drawn")
    hosts = {f"host{number:02d}": None for number in range(DRAWN_HOSTS)}
    make_run(folder / "undisturbed", hosts=hosts, generations=(GENERATION,), settings=DRAWN_SETTINGS)
    return Ground(folder, folder / "undisturbed", None, {})


@pytest.fixture(scope="module")
def simulated_ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """1,300 rows of simulated bricks, made by a local run."""
    return make_ground(tmp_path_factory.mktemp("simulated"), tasks_per_host=24)
