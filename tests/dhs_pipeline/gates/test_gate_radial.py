"""radial_profile: profiles of shuffled arcs are those of arcs, until someone changes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_sample import gate_data, make_sample, small_config, with_negatives
from numpy.typing import NDArray

from dhs_pipeline.gates import radial
from dhs_pipeline.gates.data import PairSample
from dhs_pipeline.gates.probes import linear
from dhs_pipeline.gates.radial import annular_means, radial_profile
from dhs_pipeline.gates.regions import distance_pix
from dhs_pipeline.gates.result import CannotRun, Outcome

CONFIG = small_config()
SAMPLE = make_sample()


def shuffled(sample: PairSample) -> NDArray[np.float64]:
    """Arcs permuted within annuli of 2 px, the same in all bands: the gate's annuli keep their flux."""
    assert sample.arc is not None
    rng, out = np.random.default_rng(4), np.empty(sample.arc.shape)
    for i, (arc, distance) in enumerate(zip(sample.arc, distance_pix(sample), strict=True)):
        annulus = (distance.ravel() / 2.0).astype(int)
        order = np.empty(annulus.size, int)
        order[np.argsort(annulus, kind="stable")] = np.lexsort((rng.random(annulus.size), annulus))
        out[i] = arc.reshape(3, -1)[:, order].reshape(arc.shape)
    return out


LIGHT = shuffled(SAMPLE)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radial, "cnn", linear)
    monkeypatch.setattr(radial, "FEATURE_PROBES", {"linear": linear})


def test_annular_means_of_a_radial_function() -> None:
    y, x = np.mgrid[:64, :64]
    distance = np.hypot(x - 31.2, y - 30.9)
    images = np.stack([distance, np.full((64, 64), 2.0)])[None].astype(np.float32)
    means = annular_means(images, distance[None], CONFIG.radial_profile)
    assert means.shape == (1, 2, 5)
    # The mean radius of an annulus between a and b is 2/3 (b³ − a³)/(b² − a²); pixels sample it.
    a, b = 4.0 * np.arange(5), 4.0 * np.arange(1, 6)
    np.testing.assert_allclose(means[0, 0], 2 / 3 * (b**3 - a**3) / (b**2 - a**2), atol=0.08)
    np.testing.assert_allclose(means[0, 1], 2.0, rtol=1e-7)


def test_an_empty_annulus_is_an_error() -> None:
    limits = CONFIG.radial_profile.model_copy(update={"bin_width_pix": 0.1})
    with pytest.raises(ValueError, match="bin_width_pix"):
        annular_means(SAMPLE.control[:1], distance_pix(SAMPLE)[:1], limits)


@pytest.mark.usefixtures("quick")
def test_shuffled_arcs_have_the_profile_of_arcs() -> None:
    result = radial_profile(gate_data(with_negatives(SAMPLE, "shuffled_arc", LIGHT)), CONFIG)
    assert result.outcome is Outcome.PASS, result.message
    judged = [f for f in result.figures if f.limit]
    assert len(judged) == 1
    assert all("shuffled_arc, profiles" in f.name for f in judged)
    against_controls = [f for f in result.figures if f.name.startswith("positives against controls, profiles")]
    assert max(f.value for f in against_controls) > 0.8


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["shuffled_arc", "shuffled_pixels"])
def test_negatives_of_other_flux_are_seen(kind: str) -> None:
    result = radial_profile(gate_data(with_negatives(SAMPLE, kind, 0.3 * LIGHT)), CONFIG)
    assert result.outcome is Outcome.FAIL
    assert kind in result.message


def test_what_is_missing_is_named() -> None:
    for sample in (SAMPLE, with_negatives(SAMPLE, "ring", LIGHT)):
        with pytest.raises(CannotRun, match="shuffled_arc or shuffled_pixels"):
            radial_profile(gate_data(sample), CONFIG)
    some = with_negatives(SAMPLE, "shuffled_arc", LIGHT)
    with pytest.raises(CannotRun, match="no power"):
        radial_profile(gate_data(some), small_config(max_standard_error=0.02))
    with pytest.raises(CannotRun, match="invvar"):
        radial_profile(gate_data(replace(some, control_invvar=None)), CONFIG)


@pytest.mark.slow
def test_the_network_gains_on_the_profile() -> None:
    sample = make_sample(360, flux=2.0)
    result = radial_profile(gate_data(with_negatives(sample, "shuffled_arc", shuffled(sample))), CONFIG)
    assert result.outcome is Outcome.PASS, result.message
    gap = next(f for f in result.figures if "pictures over profiles" in f.name)
    assert gap.value > 0.1
