"""Draws follow their distributions, and the stored density is theirs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from dhs_pipeline.config import Axis, Normal, Smail, Uniform
from dhs_pipeline.manifest.draws import draw, draw_axis, draw_source_redshift

U = (np.arange(4000) + 0.5) / 4000
SMAIL = Smail(dist="smail", z0=1.0, alpha=2.0, beta=1.5, high=5.0)


@pytest.mark.parametrize(
    "distribution",
    [
        Uniform(dist="uniform", low=-1.0, high=3.0),
        Normal(dist="normal", mean=0.2, sigma=0.3, low=-0.5, high=0.6),
    ],
)
def test_density_is_the_derivative_of_the_quantiles(distribution: Uniform | Normal) -> None:
    values, density = draw(distribution, U)
    assert np.all((values >= distribution.low) & (values <= distribution.high))
    np.testing.assert_allclose(density[1:-1], 1.0 / np.gradient(values, U)[1:-1], rtol=2e-3)


def test_truncated_normal_matches_scipy() -> None:
    wanted = Normal(dist="normal", mean=0.2, sigma=0.3, low=-0.5, high=0.6)
    a, b = (-0.5 - 0.2) / 0.3, (0.6 - 0.2) / 0.3
    assert stats.kstest(draw(wanted, U)[0], stats.truncnorm(a, b, 0.2, 0.3).cdf).statistic < 1e-3


@pytest.mark.parametrize("z_min", [0.2, 0.8, 2.0])
def test_source_redshifts_follow_smail_above_the_lens(z_min: float) -> None:
    def shape(z: float) -> float:
        return z**2.0 * np.exp(-(z**1.5))

    norm = integrate.quad(shape, z_min, 5.0)[0]
    values, density = draw_source_redshift(SMAIL, np.full(U.size, z_min), U)
    assert values.min() >= z_min
    assert values.max() <= 5.0
    np.testing.assert_allclose(density, [shape(z) / norm for z in values], rtol=1e-6)
    below = [integrate.quad(shape, z_min, z)[0] / norm for z in values[::400]]
    np.testing.assert_allclose(below, U[::400], atol=1e-6)


def test_no_room_for_a_source_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"between 5\.2 and src_z\.high = 5"):
        draw_source_redshift(SMAIL, np.array([5.2]), np.array([0.5]))


@pytest.mark.parametrize("axis", [Axis(low=0.4, high=2.5, scale="linear"), Axis(low=0.05, high=0.5, scale="log")])
def test_axis_densities_integrate_to_one(axis: Axis) -> None:
    values, density = draw_axis(axis, np.linspace(0, 1, 20001))
    assert integrate.trapezoid(density, values) == pytest.approx(1.0, abs=1e-6)
    assert values[0] == pytest.approx(axis.low)
    assert values[-1] == pytest.approx(axis.high)
