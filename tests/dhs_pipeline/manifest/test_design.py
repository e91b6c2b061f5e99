"""Designs: sizes of the named grids, even coverage, and hosts that do not depend on each other."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import qmc

from dhs_pipeline.config import load_run_config
from dhs_pipeline.manifest.design import design_points, points_per_host


@pytest.mark.parametrize(("name", "size"), [("small", 48), ("medium", 360), ("full", 3024), ("sota", 1008)])
def test_named_grids_have_their_known_sizes(name: str, size: int) -> None:
    design = load_run_config("demo", [f"design={name}"]).design
    assert points_per_host(design, None) == size
    points = design_points(design, ["host"], None)
    assert len(set(points.config_ids)) == size
    np.testing.assert_allclose(points.density, 1.0 / size)


def test_few_tasks_per_host_cover_a_grid_evenly_over_many_hosts() -> None:
    design = load_run_config("demo", ["design=small"]).design
    counts = Counter(c for h in range(4000) for c in design_points(design, [f"host{h}"], 6).config_ids)
    assert len(counts) == 48
    expected = 4000 * 6 / 48
    assert max(abs(n - expected) for n in counts.values()) < 5 * np.sqrt(expected)


def test_few_tasks_of_one_host_already_spread_over_theta_e() -> None:
    design = load_run_config("demo", ["design=small"]).design
    for h in range(50):
        theta_e = design_points(design, [f"host{h}"], 9).values["theta_e_arcsec"]
        assert min(Counter(theta_e).values()) >= 2
        assert len(set(theta_e)) == 3


def test_halton_points_fill_the_ranges_more_evenly_than_random_ones() -> None:
    design = load_run_config("demo", ["design=halton"]).design
    axes = design.axes.named()
    points = design_points(design, ["host"], 256)
    unit = np.empty((256, len(axes)))
    for k, (name, axis) in enumerate(axes.items()):
        values = points.values[name]
        assert values.min() >= axis.low
        assert values.max() <= axis.high
        log = np.log if axis.scale == "log" else np.asarray
        unit[:, k] = (log(values) - log(axis.low)) / (log(axis.high) - log(axis.low))
    random = np.random.default_rng(0).random(unit.shape)
    assert qmc.discrepancy(unit) < 0.5 * qmc.discrepancy(random)


def test_hosts_have_points_of_their_own() -> None:
    design = load_run_config("demo", ["design=halton"]).design
    one, two = (design_points(design, [h], 8).values["theta_e_arcsec"] for h in ("a", "b"))
    assert not np.allclose(one, two)
    np.testing.assert_array_equal(one, design_points(design, ["a"], 8).values["theta_e_arcsec"])
