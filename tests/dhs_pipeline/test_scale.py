"""The cost model: closed forms, its own file, wrong input."""

from __future__ import annotations

import pytest

from dhs_pipeline.config import ConfigError
from dhs_pipeline.scale import Capacity, CostModel, StageCost, load_cost_model, predict

COST = StageCost(start_s=10, worker_ms_per_row=5, read_kb_per_row=10, written_kb_per_row=50, rows_per_unit=100)
MODEL = CostModel(measured_on="paper", driver_ms_per_unit=4, worker_ms_per_unit=20, stages={"4c gen7": COST})


def test_rows_are_shared_by_cores_and_the_last_units_are_waited_for() -> None:
    took = predict(MODEL, "4c gen7", 1_000_000, Capacity(nodes=10, vcpus_per_node=8))
    assert took.seconds == pytest.approx(10 + (1_000_000 * 0.005 + 10_000 * 0.02) / 80 + 0.25)
    assert took.bottleneck == "processor"


def test_slow_vcpus_take_longer() -> None:
    fast, slow = (Capacity(nodes=1, vcpus_per_node=2, vcpu_speed=speed) for speed in (1.0, 0.5))
    extra = predict(MODEL, "4c gen7", 10_000, slow).seconds - predict(MODEL, "4c gen7", 10_000, fast).seconds
    assert extra == pytest.approx((10_000 * 0.005 + 100 * 0.02) / 2 + 0.25)


def test_a_thin_network_is_the_bottleneck() -> None:
    took = predict(MODEL, "4c gen7", 1_000_000, Capacity(nodes=2, vcpus_per_node=100, network_mb_per_s=10))
    assert took.bottleneck == "network"
    assert took.seconds == pytest.approx(10 + 1_000_000 * 60e3 / (2 * 10e6) + 0.25)


def test_many_cores_wait_for_the_driver() -> None:
    took = predict(MODEL, "4c gen7", 1_000_000, Capacity(nodes=1000, vcpus_per_node=100))
    assert took.bottleneck == "driver"
    assert took.seconds == pytest.approx(10 + 10_000 * 0.004 + 0.25)


def test_small_runs_are_all_start() -> None:
    assert predict(MODEL, "4c gen7", 200, Capacity(nodes=1, vcpus_per_node=2)).bottleneck == "start"


def test_what_is_not_measured_is_not_guessed() -> None:
    with pytest.raises(ValueError, match=r"4c gen7\), got '4c gen9'"):
        predict(MODEL, "4c gen9", 1, Capacity(nodes=1, vcpus_per_node=1))
    with pytest.raises(ValueError, match="rows must not be negative"):
        predict(MODEL, "4c gen7", -1, Capacity(nodes=1, vcpus_per_node=1))


def test_the_shipped_model_knows_every_stage() -> None:
    assert {"4a", "4b", "4c control", "4c gen5", "4c gen7", "4p5"} <= load_cost_model().stages.keys()
    with pytest.raises(ConfigError, match="nothing is called 'other'"):
        load_cost_model("other")
