"""core_only: the ideal observer of the arc's own light is the limit, and a spot that is no arc exceeds it."""

from __future__ import annotations

from dataclasses import replace
from math import erf

import numpy as np
import pytest
from fake_sample import SIGMA_NMGY, gate_data, make_sample, small_config

from dhs_pipeline.gates import core
from dhs_pipeline.gates.core import core_only, cut_cores
from dhs_pipeline.gates.pictures import stretch
from dhs_pipeline.gates.probes import linear
from dhs_pipeline.gates.regions import distance_pix
from dhs_pipeline.gates.result import CannotRun, Outcome

CONFIG = small_config()
CONFIG = CONFIG.model_copy(update={"core_only": CONFIG.core_only.model_copy(update={"min_pairs": 40})})
SAMPLE = make_sample(flux=0.1)
SPOT = np.zeros((3, 64, 64), np.float32)
SPOT[:, 31:33, 31:33] = 100.0 * SIGMA_NMGY[:, None, None]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "PROBES", {"linear": linear})


def test_cores_are_the_pixels_about_the_lens() -> None:
    cores = cut_cores(SAMPLE, SAMPLE.control, 5.0)
    assert cores.shape == (180, 3, 16, 16)
    scale = SIGMA_NMGY
    for pair in (0, 7):
        x, y = np.rint(SAMPLE.lens_xy_pix[pair]).astype(int)
        whole = stretch(SAMPLE.control[pair], scale) * (distance_pix(SAMPLE)[pair] < 5.0)
        np.testing.assert_allclose(cores[pair, :, 7, 7], whole[:, y, x], rtol=1e-5)
        np.testing.assert_allclose(cores[pair, :, 9, 4], whole[:, y + 2, x - 3], rtol=1e-5)
        assert (cores[pair] != 0).sum() == 3 * (distance_pix(SAMPLE)[pair] < 5.0).sum()


def test_a_core_at_the_edge_of_the_stamp_is_zero_beyond_it() -> None:
    at = SAMPLE.pairs.column_names.index("lens_x_pix")
    pairs = SAMPLE.pairs.set_column(at, "lens_x_pix", [np.full(180, 1.0)])
    cores = cut_cores(replace(SAMPLE, pairs=pairs), SAMPLE.control, 5.0)
    assert (cores[:, :, :, :6] == 0).all()
    assert (cores[:, :, 7, 6:8] != 0).all()


@pytest.mark.usefixtures("quick")
def test_clean_pairs_pass_and_the_ideal_is_the_closed_formula() -> None:
    result = core_only(gate_data(SAMPLE), CONFIG)
    assert result.outcome is Outcome.PASS, result.message
    ideal = next(f for f in result.figures if f.name == "theta_E/FWHM 1 to 1.5, ideal observer: AUC")
    ratio = SAMPLE.column("theta_e_over_fwhm_r")
    expected = []
    for i in np.flatnonzero((ratio >= 1.0) & (ratio < 1.5)):
        light = SAMPLE.arc[i].astype(float) / SIGMA_NMGY[:, None, None]
        snr = np.sqrt((light[:, distance_pix(SAMPLE)[i] < 5.0] ** 2).sum())
        expected.append(0.5 * (1 + erf(snr / 2)))
    assert ideal.value == pytest.approx(np.mean(expected), rel=1e-5)
    assert ideal.rows == 2 * len(expected)
    curves = {c.name: c for c in result.curves}
    assert set(curves) == {"linear", "ideal observer"}
    assert curves["linear"].x == curves["ideal observer"].x
    assert len(curves["linear"].x) >= 2


@pytest.mark.usefixtures("quick")
def test_a_spot_that_is_no_arc_exceeds_the_ideal() -> None:
    sample = make_sample(480, 60, flux=0.1)  # 30 hosts see it in two of three samples
    result = core_only(gate_data(replace(sample, positive=sample.positive + 2 * SPOT)), CONFIG)
    assert result.outcome is Outcome.FAIL
    assert "ideal observer" in result.message
    assert "S/N of the core below 2" in result.message


@pytest.mark.usefixtures("quick")
def test_the_limit_of_wide_arcs_is_the_configurations() -> None:
    strict = CONFIG.core_only.model_copy(update={"max_auc_when_wide": 0.05})
    result = core_only(gate_data(SAMPLE), CONFIG.model_copy(update={"core_only": strict}))
    assert [f.name for f in result.figures if not f.ok] == ['theta_E from 2", linear: AUC']


@pytest.mark.usefixtures("quick")
def test_small_strata_are_reported_and_none_is_no_result() -> None:
    few = CONFIG.core_only.model_copy(update={"min_pairs": 60})
    result = core_only(gate_data(SAMPLE), CONFIG.model_copy(update={"core_only": few}))
    assert any("too few" in f.name and f.value < 60 for f in result.figures)
    with pytest.raises(CannotRun, match="no stratum"):
        core_only(gate_data(SAMPLE), small_config(min_hosts=31))
    for sample in (replace(SAMPLE, arc=None), replace(SAMPLE, control_invvar=None), SAMPLE.take([])):
        with pytest.raises(CannotRun):
            core_only(gate_data(sample), CONFIG)
    wide = CONFIG.core_only.model_copy(update={"radius_pix": 9.0})
    with pytest.raises(CannotRun, match="window"):
        core_only(gate_data(SAMPLE), CONFIG.model_copy(update={"core_only": wide}))


@pytest.mark.slow
def test_the_network_keeps_to_the_ideal_and_sees_the_spot() -> None:
    sample = make_sample(600, flux=0.1)  # 200 rows make 30 steps of learning, which is too few to see anything
    result = core_only(gate_data(sample), CONFIG)
    assert result.outcome is Outcome.PASS, result.message
    leaky = core_only(gate_data(replace(sample, positive=sample.positive + SPOT)), CONFIG)
    assert any("cnn" in f.name for f in leaky.figures if not f.ok)
