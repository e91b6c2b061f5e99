"""Distributions against scipy: normalisation by quadrature, and the draw as the inverse of the integrated density."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import quad

from dhs_gen.lensing.populations import (
    Lognormal,
    PowerLawCounts,
    Rayleigh,
    SizeMagnitude,
    VelocityDispersionFunction,
)
from tests_support import REPO

CHOI = VelocityDispersionFunction(2.32, 2.67, 161.0, 100.0, 400.0)
SIZES = SizeMagnitude(0.25, 24.0, -0.1, 0.2, 0.05, 0.8)
Draw = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def require_inverse(draw: Draw, density: Draw, low: float, high: float) -> None:
    """∫ density from low to draw(u) is u, the draws rise, and nothing lies outside."""
    u = np.array([0.0, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0])
    values = draw(u)
    assert (np.diff(values) > 0).all()
    assert values[0] == pytest.approx(low)
    assert values[-1] == pytest.approx(high)
    for quantile, value in zip(u, values, strict=True):
        points = np.linspace(low, value, 9)
        total = sum(quad(lambda x: float(density(np.array(x))), a, b)[0] for a, b in itertools.pairwise(points))
        assert total == pytest.approx(quantile, abs=1e-7)
    assert density(np.array([low - 0.1, high + 0.1])).tolist() == [0.0, 0.0]


@given(st.floats(1.2, 4.0), st.floats(1.5, 4.0), st.floats(100.0, 250.0), st.floats(50.0, 150.0))
@settings(max_examples=15)
def test_velocity_dispersion_function(alpha: float, beta: float, star: float, low: float) -> None:
    vdf = VelocityDispersionFunction(alpha, beta, star, low, low + 200.0)
    require_inverse(vdf.draw, vdf.density, low, low + 200.0)
    frozen = stats.gengamma(a=alpha / beta, c=beta, scale=star)
    u = np.linspace(0.01, 0.99, 9)
    expected = frozen.ppf(frozen.cdf(low) + u * (frozen.cdf(low + 200.0) - frozen.cdf(low)))
    np.testing.assert_allclose(vdf.draw(u), expected, rtol=1e-7)


def test_velocity_dispersion_function_counts_galaxies() -> None:
    """The normalisation β/Γ(α/β) makes φ* the density of all galaxies of the type; few exceed 300 km/s."""
    total = quad(lambda s: float(CHOI.number_density(s, 8e-3)), 0.0, 1500.0)[0]
    assert total == pytest.approx(8e-3, rel=1e-6)
    massive = quad(lambda s: float(CHOI.number_density(s, 8e-3)), 300.0, 1500.0)[0]
    assert 0.003 < massive / total < 0.02


@given(st.floats(-0.5, 1.0), st.floats(18.0, 24.0), st.floats(0.5, 5.0))
@settings(max_examples=15)
def test_counts(slope: float, low: float, width: float) -> None:
    counts = PowerLawCounts(slope, low, low + width)
    require_inverse(counts.draw, counts.density, low, low + width)
    ratio = counts.density(np.array(low + width)) / counts.density(np.array(low))
    assert math.log10(ratio) == pytest.approx(slope * width, abs=1e-9)


def test_flat_counts_are_uniform() -> None:
    assert PowerLawCounts(0.0, 20.0, 24.0).draw(np.array([0.25])).tolist() == [21.0]


@given(st.floats(0.02, 0.6), st.floats(0.05, 2.0))
@settings(max_examples=15)
def test_lognormal(scatter: float, median: float) -> None:
    low, high = 0.1, 1.5
    lognormal = Lognormal(scatter, low, high)
    if scatter * 8 > abs(math.log10(median / 0.4)):
        require_inverse(lambda u: lognormal.draw(u, median), lambda x: lognormal.density(x, median), low, high)
    a, b = (math.log10(edge / median) / scatter for edge in (low, high))
    expected = 10 ** stats.truncnorm(a, b, loc=math.log10(median), scale=scatter).ppf([0.1, 0.5, 0.9])
    np.testing.assert_allclose(lognormal.draw(np.array([0.1, 0.5, 0.9]), median), expected, rtol=1e-6)


def test_median_far_outside_the_bounds_draws_at_the_near_bound() -> None:
    lognormal = Lognormal(0.02, 0.1, 1.5)
    assert (lognormal.draw(np.array([0.1, 0.9]), 0.04) < 0.11).all()
    assert (lognormal.draw(np.array([0.1, 0.9]), 4.0) > 1.4).all()


def test_sizes_follow_the_magnitude() -> None:
    for mag in (22.0, 25.0):
        require_inverse(lambda u, m=mag: SIZES.draw(u, m), lambda x, m=mag: SIZES.density(x, m), 0.05, 0.8)
    assert SIZES.median_arcsec(25.0) == pytest.approx(0.25 * 10**-0.1)
    assert SIZES.draw(np.full(3, 0.5), np.array([22.0, 24.0, 26.0])).tolist() == sorted(
        SIZES.draw(np.full(3, 0.5), np.array([22.0, 24.0, 26.0])).tolist(), reverse=True
    )


@given(st.floats(0.05, 0.5), st.floats(0.1, 0.9))
@settings(max_examples=15)
def test_rayleigh(sigma: float, high: float) -> None:
    require_inverse(Rayleigh(sigma, high).draw, Rayleigh(sigma, high).density, 0.0, high)
    np.testing.assert_allclose(
        Rayleigh(sigma, 50.0).draw(np.array([0.3, 0.9])), stats.rayleigh(scale=sigma).ppf([0.3, 0.9])
    )


def test_quantiles_outside_are_refused() -> None:
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"^u must be in \[0, 1\], got "):
            CHOI.draw(np.array([0.5, bad]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: VelocityDispersionFunction(0.0, 2.67, 161.0, 100.0, 400.0),
            "alpha must be positive and finite, got 0.0",
        ),
        (lambda: VelocityDispersionFunction(2.3, 2.7, 161.0, 400.0, 100.0), "low_km_s must be below high_km_s"),
        (lambda: PowerLawCounts(math.nan, 20.0, 21.0), "slope_dex_per_mag must be finite, got nan"),
        (lambda: PowerLawCounts(0.3, 21.0, 20.0), "low must be below high and both finite, got 21.0 and 20.0"),
        (lambda: Lognormal(-0.1, 0.1, 1.0), "scatter_dex must be positive and finite, got -0.1"),
        (lambda: Rayleigh(0.2, 0.0), "high must be positive and finite, got 0.0"),
        (lambda: SizeMagnitude(0.25, math.nan, -0.1, 0.2, 0.05, 0.8), "pivot_mag must be finite, got nan"),
    ],
)
def test_wrong_parameters_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_values_of_the_configuration_make_distributions() -> None:
    design = yaml.safe_load((REPO / "conf" / "design" / "population.yaml").read_text(encoding="utf-8"))
    made = {
        "powerlaw_counts": PowerLawCounts,
        "lognormal_size_mag": SizeMagnitude,
        "rayleigh": Rayleigh,
    }
    for name in ("src_mag_r", "src_reff", "src_e"):
        values = dict(design[name])
        made[values.pop("dist")](**values)
    shear = design["shear"]
    Lognormal(shear["scatter_dex"], shear["low"], shear["high"]).draw(0.5, shear["median"])
    other = yaml.safe_load((REPO / "conf" / "design" / "population_vdf.yaml").read_text(encoding="utf-8"))["sigma_v"]
    assert VelocityDispersionFunction(**other["vdf"], low_km_s=other["low_km_s"], high_km_s=other["high_km_s"]) == CHOI
