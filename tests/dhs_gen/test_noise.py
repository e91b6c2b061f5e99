"""Shot noise of the arc: its mean, variance and independence, and the update of the weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2 as chi2_distribution
from scipy.stats import poisson

from dhs_gen.noise import add_arc_variance, arc_shot_noise
from dhs_gen.streams import stream

N = 200_000


@pytest.mark.parametrize("electrons_per_nmgy", [40.0, 7300.0, 31400.0])
@pytest.mark.parametrize("flux_nmgy", [0.002, 0.05, 3.0])
def test_mean_is_zero_and_variance_is_flux_over_gain(flux_nmgy: float, electrons_per_nmgy: float) -> None:
    noise = arc_shot_noise(np.full(N, flux_nmgy), electrons_per_nmgy, np.random.default_rng(1))
    variance = flux_nmgy / electrons_per_nmgy
    assert abs(noise.mean()) < 3.5 * math.sqrt(variance / N)
    # The variance of a Poisson sample's variance: (2 + 1/λ) σ⁴ / N.
    expected_scatter = variance * math.sqrt((2 + 1 / (flux_nmgy * electrons_per_nmgy)) / N)
    assert abs(noise.var() - variance) < 4 * expected_scatter


@pytest.mark.parametrize("mean", [1e-3, 0.3, 2.0, 9.9, 10.0, 60.0])
def test_counts_follow_the_poisson_distribution(mean: float) -> None:
    """Chi-squared against SciPy's probabilities, on both sides of the mean from which NumPy draws."""
    gain = 500.0
    noise = arc_shot_noise(np.full(N, mean / gain), gain, np.random.default_rng(4))
    counts = np.rint(noise * gain + mean)
    np.testing.assert_allclose(noise * gain + mean, counts, atol=1e-9)
    expected = N * poisson.pmf(np.arange(200), mean)
    common = expected > 10
    found = np.bincount(counts.astype(int), minlength=200)[:200]
    rest = np.array([found[~common].sum(), expected[~common].sum()])
    observed, wanted = np.append(found[common], rest[0]), np.append(expected[common], rest[1])
    chi2 = ((observed - wanted) ** 2 / np.maximum(wanted, 1e-9))[wanted > 1].sum()
    assert chi2 < chi2_distribution.ppf(1 - 1e-4, (wanted > 1).sum())


def test_a_pixel_does_not_depend_on_its_faint_neighbours() -> None:
    arc = np.full((64, 64), 1e-4)
    other = arc.copy()
    other[10, 10] = 3e-4
    a, b = (arc_shot_noise(x, 7000.0, np.random.default_rng(5)) for x in (arc, other))
    assert np.argwhere(a != b).tolist() == [[10, 10]]


def test_noise_is_poisson_not_gaussian() -> None:
    """Skewness 1/√λ: arcs of a few electrons per pixel scatter upwards."""
    noise = arc_shot_noise(np.full(N, 0.001), 4000.0, np.random.default_rng(2))
    skewness = np.mean(noise**3) / np.mean(noise**2) ** 1.5
    assert skewness == pytest.approx(1 / math.sqrt(4.0), abs=0.03)


def test_bands_and_tasks_are_independent() -> None:
    arc = np.full((200, 200), 0.5)
    g, r = (arc_shot_noise(arc, 7000.0, stream("task", "arc_shot_noise", band=b)).ravel() for b in "gr")
    other = arc_shot_noise(arc, 7000.0, stream("task2", "arc_shot_noise", band="g")).ravel()
    for pair in ((g, r), (g, other), (g[:-1], g[1:])):
        assert abs(np.corrcoef(*pair)[0, 1]) < 4 / math.sqrt(g.size)


def test_same_stream_gives_the_same_noise() -> None:
    arc = np.linspace(0, 1, 500)
    a, b = (arc_shot_noise(arc, 7000.0, stream("task", "arc_shot_noise", band="g")) for _ in range(2))
    assert a.tobytes() == b.tobytes()


def test_no_light_no_noise() -> None:
    arc = np.array([0.0, -0.0, -0.3, -1e-12, 0.2])
    noise = arc_shot_noise(arc, 7000.0, np.random.default_rng(3))
    assert noise[:4].tolist() == [0.0] * 4
    assert noise[4] != 0


def test_variances_add_in_the_weights() -> None:
    arc = np.array([0.5, 0.01, 0.0, -0.2, 0.5])
    invvar = np.array([4e4, 1e5, 1e5, 1e5, 0.0], np.float32)
    updated = add_arc_variance(invvar, arc, 7300.0)
    assert updated.dtype == np.float32
    np.testing.assert_allclose(1 / updated[:2], 1 / invvar[:2].astype(float) + arc[:2] / 7300.0, rtol=1e-6)
    assert updated[2:].tobytes() == invvar[2:].tobytes()  # no arc, or no weight: the same bits
    assert invvar[0] == np.float32(4e4)  # the host's own map is left alone


@pytest.mark.parametrize("gain", [0.0, -1.0, math.nan, math.inf])
def test_a_wrong_gain_is_an_error_with_its_value(gain: float) -> None:
    message = f"electrons_per_nmgy must be positive and finite, got {gain!r}"
    with pytest.raises(ValueError, match=message):
        arc_shot_noise(np.ones(3), gain, np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        add_arc_variance(np.ones(3, np.float32), np.ones(3), gain)


def test_light_that_is_not_a_number_has_no_noise_made_up() -> None:
    with pytest.raises(ValueError, match="lam"):
        arc_shot_noise(np.array([0.1, np.nan]), 7000.0, np.random.default_rng(0))
