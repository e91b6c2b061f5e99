"""A small input for the stages: the simulated demo bricks and a run of a few tasks per host on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dhs_pipeline.config import RunConfig, load_run_config
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.simulate import SimulatedSurvey, load_simulation_settings, simulate_survey
from dhs_pipeline.storage import Location
from tests_support import SMALL, run_stages

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> SimulatedSurvey:
    """The demo bricks and their parent catalogue."""
    return simulate_survey(tmp_path_factory.mktemp("bricks"), load_simulation_settings())


@pytest.fixture(scope="session")
def small_config() -> RunConfig:
    return load_run_config("demo", SMALL)


@pytest.fixture(scope="session")
def small_run(
    spark: SparkSession, simulated: SimulatedSurvey, small_config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> RunDir:
    """A finished run of gen7, control and null; tests read it and leave it as it is."""
    out = Location.of(tmp_path_factory.mktemp("run") / "small")
    data, parent = Location.of(simulated.data_dir), Location.of(simulated.parent_path)
    return run_stages(spark, out, data, parent, small_config, generations=("gen7", "control", "null"))


@pytest.fixture
def copied_run(small_run: RunDir, tmp_path: Path) -> RunDir:
    """A copy of the small run that a test may damage."""
    import shutil

    shutil.copytree(small_run.where.uri, tmp_path / "copy")
    return RunDir(Location.of(tmp_path / "copy"))
