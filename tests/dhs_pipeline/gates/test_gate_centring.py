"""arc_centring: arcs about the host have slope 0, arcs about the grid slope 1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_sample import PIXSCALE_ARCSEC, gate_data, make_arc, make_sample, small_config

from dhs_pipeline.gates.centring import _flux_centroids, _measure, arc_centring
from dhs_pipeline.gates.result import CannotRun, GateResult, Outcome

CONFIG = small_config()
SAMPLE = make_sample()


def slopes(result: GateResult) -> list[float]:
    return [f.value for f in result.figures if f.name.startswith("slope")]


def test_arcs_about_their_hosts_pass() -> None:
    result = arc_centring(gate_data(SAMPLE), CONFIG)
    assert result.outcome is Outcome.PASS, result.message
    assert slopes(result) == pytest.approx([0, 0], abs=0.15)
    assert result.offenders == ()
    median = next(f for f in result.figures if f.name.startswith("recorded"))
    assert median.value < 0.1


def test_arcs_about_the_grid_fail_whatever_the_row_says() -> None:
    result = arc_centring(gate_data(make_sample(about_grid=True)), CONFIG)
    assert result.outcome is Outcome.FAIL
    assert slopes(result) == pytest.approx([1, 1], abs=0.15)
    assert len(result.offenders) == CONFIG.max_offenders
    assert "from the grid's centre" in result.offenders[0].reason


def test_one_axis_is_enough_to_fail() -> None:
    sample = SAMPLE
    centres = sample.lens_xy_pix.copy()
    centres[:, 1] = 31.5
    theta_e = sample.column("theta_e_arcsec") / PIXSCALE_ARCSEC
    source = np.stack([sample.column("src_x_arcsec"), sample.column("src_y_arcsec")], axis=1) / PIXSCALE_ARCSEC
    arc = np.stack([make_arc(*of) for of in zip(centres, theta_e, source, strict=True)]).astype(np.float32)
    result = arc_centring(gate_data(replace(sample, arc=arc)), CONFIG)
    assert [f.name[-1] for f in result.figures if not f.ok] == ["y"]


def test_what_is_measured_is_where_it_was_put() -> None:
    places, failures = _measure(gate_data(SAMPLE), CONFIG.arc_centring)
    assert failures == 0
    np.testing.assert_allclose(places.host_xy_pix, SAMPLE.lens_xy_pix, atol=0.15)
    np.testing.assert_allclose(places.grid_xy_pix, 31.5)
    point = np.zeros((2, 64, 64))
    point[0, 10, 20] = 3.0
    point[1, 40, 30] = point[1, 44, 32] = 1.0
    np.testing.assert_allclose(_flux_centroids(point), [[20, 10], [31, 42]])


def test_hosts_without_a_centroid_and_dark_arcs_are_left_out_and_counted() -> None:
    control, arc = SAMPLE.control.copy(), SAMPLE.arc.copy()
    control[:5] = np.random.default_rng(1).normal(size=(5, 3, 64, 64)) * 0.004
    arc[5:12] = 0.0
    result = arc_centring(gate_data(replace(SAMPLE, control=control, arc=arc)), CONFIG)
    left_out = [f.value for f in result.figures if f.name.startswith("pairs left out")]
    assert left_out == [5, 7]
    assert next(f.rows for f in result.figures if f.name.startswith("slope")) == 180 - 12


def test_without_power_there_is_no_result() -> None:
    with pytest.raises(CannotRun, match="interval"):
        arc_centring(
            gate_data(SAMPLE),
            small_config(arc_centring=CONFIG.arc_centring.model_copy(update={"min_power_slope": 1e-3})),
        )
    with pytest.raises(CannotRun, match="hosts"):
        arc_centring(gate_data(SAMPLE), small_config(min_hosts=31))
    for sample in (replace(SAMPLE, arc=None), SAMPLE.take([])):
        with pytest.raises(CannotRun):
            arc_centring(gate_data(sample), CONFIG)
