"""A clean Gen5-Prime set on real hosts passes every gate; each planted leak is found by the gate that is meant to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from planted_leaks import LEAKS, plant

from dhs_pipeline.banks import prepare_cosmos_bank
from dhs_pipeline.config import RunConfig, load_run_config
from dhs_pipeline.gates.result import Outcome
from dhs_pipeline.gates.runner import load_limits, results_table, run_gates
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.sources import Banks
from dhs_pipeline.storage import Location
from tests_support import run_stages

pytestmark = [pytest.mark.slow, pytest.mark.spark, pytest.mark.realdata]

GENERATION = "gen5_prime"
CONFIG = load_run_config("prime", ["manifest.tasks_per_host=40"])  # 1,440 pairs on 36 hosts
LIMITS = load_limits("default", ["sample_pairs=1400"])


@dataclass(frozen=True)
class Made:
    run: RunDir
    config: RunConfig
    banks: Banks


@pytest.fixture(scope="module")
def clean(spark: Any, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root, layout = tmp_path_factory.mktemp("prime"), real_data / "dr10_layout"
    banks = Banks(cosmos=prepare_cosmos_bank(Location.of(real_data / "cosmos80"), Location.of(root / "bank")))
    parent = Location.of(layout / "lrg_parent_0591m305.parquet")
    where = Location.of(root / "run")
    run = run_stages(spark, where, Location.of(layout), parent, CONFIG, generations=(GENERATION,), banks=banks)
    return Made(run, CONFIG, banks)


def test_the_clean_set_passes_all_gates(clean: Made) -> None:
    results = run_gates(clean.run.phase4p5(GENERATION), LIMITS)
    print(f"\n{results_table(results)}")
    assert {r.gate: r.outcome for r in results if r.outcome is not Outcome.PASS} == {}


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_is_found_by_name(clean: Made, name: str, tmp_path: Path) -> None:
    leak = LEAKS[name]
    generation = clean.config.generation(GENERATION)
    leaky = plant(leak, clean.run, generation, clean.banks, clean.config, tmp_path / "run")
    result = run_gates(leaky, LIMITS, only=[leak.gate])[0]
    print(f"\n{name}: {result.gate} {result.outcome}: {result.message}")
    assert result.outcome is Outcome.FAIL
