"""Deflection angles against lenstronomy, closed forms, and the definition of the Einstein radius."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from dhs_gen.lensing.models import SieShear, deflection

ANGLE = st.floats(0.0, math.pi)
ELLIPTICITY = st.one_of(st.sampled_from([0.0, 1e-12, 1e-9, 1e-6, 1e-4, 1e-2]), st.floats(0.0, 0.6))
LENSES = st.builds(SieShear, st.floats(0.0, 3.0), ELLIPTICITY, ANGLE, st.floats(0.0, 0.1), ANGLE)


def positions(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Points from 0.001 to 16 arcsec of the lens."""
    rng = np.random.default_rng(1)
    r, phi = 10 ** rng.uniform(-3.0, 1.2, n), rng.uniform(0.0, 2.0 * math.pi, n)
    return r * np.cos(phi), r * np.sin(phi)


@given(LENSES)
def test_deflection_is_lenstronomys_to_a_micro_arcsec(lens: SieShear) -> None:
    from lenstronomy.LensModel.lens_model import LensModel

    x, y = positions()
    e1, e2 = lens.e * math.cos(2 * lens.phi_rad), lens.e * math.sin(2 * lens.phi_rad)
    g1, g2 = lens.shear * math.cos(2 * lens.shear_phi_rad), lens.shear * math.sin(2 * lens.shear_phi_rad)
    expected = LensModel(["SIE", "SHEAR"]).alpha(
        x, y, [{"theta_E": lens.theta_e_arcsec, "e1": e1, "e2": e2}, {"gamma1": g1, "gamma2": g2}]
    )
    # lenstronomy's SIE has a core of 1e-10: 3e-7 arcsec at r = 0.001 arcsec.
    assert np.abs(np.array(deflection(lens, x, y)) - expected).max() < 1e-6


@pytest.mark.parametrize("e", [0.0, 1e-14, 1e-11])
def test_round_limit_is_the_singular_isothermal_sphere(e: float) -> None:
    x, y = positions()
    r = np.hypot(x, y)
    alpha_x, alpha_y = deflection(SieShear(1.3, e, 0.4, 0.0, 0.0), x, y)
    np.testing.assert_allclose(alpha_x, 1.3 * x / r, atol=1e-10)
    np.testing.assert_allclose(alpha_y, 1.3 * y / r, atol=1e-10)


def test_point_source_behind_a_round_lens_is_a_ring_of_radius_theta_e() -> None:
    phi = np.linspace(0.0, 2.0 * math.pi, 100)
    x, y = 1.7 * np.cos(phi), 1.7 * np.sin(phi)
    alpha_x, alpha_y = deflection(SieShear(1.7, 0.0, 0.0, 0.0, 0.0), x, y)
    assert np.hypot(x - alpha_x, y - alpha_y).max() < 1e-12


@given(LENSES)
def test_turning_everything_by_90_degrees_turns_the_deflection(lens: SieShear) -> None:
    x, y = positions()
    alpha_x, alpha_y = deflection(lens, x, y)
    turned = dataclasses.replace(
        lens, phi_rad=lens.phi_rad + math.pi / 2, shear_phi_rad=lens.shear_phi_rad + math.pi / 2
    )
    turned_x, turned_y = deflection(turned, -y, x)
    np.testing.assert_allclose(turned_x, -alpha_y, atol=1e-12)
    np.testing.assert_allclose(turned_y, alpha_x, atol=1e-12)


def jacobian(lens: SieShear, x: float, y: float, step: float = 1e-4) -> np.ndarray:
    """∂α/∂θ by central differences."""
    dx = np.array(deflection(lens, np.array(x + step), np.array(y))) - deflection(lens, np.array(x - step), np.array(y))
    dy = np.array(deflection(lens, np.array(x), np.array(y + step))) - deflection(lens, np.array(x), np.array(y - step))
    return np.column_stack([dx, dy]) / (2 * step)


@pytest.mark.parametrize("e", [0.0, 0.1, 0.35, 0.6])
def test_critical_curve_of_a_pure_sie_encloses_pi_theta_e_squared(e: float) -> None:
    theta_e = 1.4
    lens = SieShear(theta_e, e, 0.3, 0.0, 0.0)

    def det(r: float, phi: float) -> float:
        return float(np.linalg.det(np.eye(2) - jacobian(lens, r * math.cos(phi), r * math.sin(phi))))

    phis = np.linspace(0.0, 2.0 * math.pi, 72, endpoint=False)
    radii = np.array([brentq(det, 0.2 * theta_e, 4 * theta_e, args=(phi,), xtol=1e-8) for phi in phis])
    area = 0.5 * np.mean(radii**2) * 2.0 * math.pi
    assert area == pytest.approx(math.pi * theta_e**2, rel=1e-4)


def test_convergence_is_that_of_an_sie_whose_major_axis_is_at_phi() -> None:
    """κ = ½ div α = θ_E / (2 √(q x² + y²/q)) with x along the major axis; the field has no curl."""
    e, phi, theta_e = 0.3, 0.5, 1.2
    q = (1 - e) / (1 + e)
    lens = SieShear(theta_e, e, phi, 0.0, 0.0)
    for x, y in ((0.9, 0.2), (-0.4, 1.1), (0.1, -2.0), (-1.0, -0.7)):
        major, minor = math.cos(phi) * x + math.sin(phi) * y, math.cos(phi) * y - math.sin(phi) * x
        kappa = theta_e / (2.0 * math.sqrt(q * major**2 + minor**2 / q))
        derivatives = jacobian(lens, x, y)
        assert np.trace(derivatives) / 2 == pytest.approx(kappa, rel=1e-5)
        assert derivatives[0, 1] - derivatives[1, 0] == pytest.approx(0.0, abs=1e-6)


def test_shear_stretches_along_its_angle() -> None:
    """A pure shear at angle φ deflects by +γ r along φ and −γ r across it."""
    lens = SieShear(0.0, 0.0, 0.0, 0.05, 0.3)
    along_x, along_y = deflection(lens, np.array(2 * math.cos(0.3)), np.array(2 * math.sin(0.3)))
    assert along_x * math.cos(0.3) + along_y * math.sin(0.3) == pytest.approx(0.1)
    across_x, across_y = deflection(lens, np.array(-2 * math.sin(0.3)), np.array(2 * math.cos(0.3)))
    assert -across_x * math.sin(0.3) + across_y * math.cos(0.3) == pytest.approx(-0.1)


def test_centre_is_not_deflected_and_shapes_broadcast() -> None:
    lens = SieShear(1.0, 0.3, 0.2, 0.02, 1.0)
    assert [float(a) for a in deflection(lens, np.array(0.0), np.array(0.0))] == [0.0, 0.0]
    alpha_x, alpha_y = deflection(lens, np.linspace(-1, 1, 5)[None, :], np.linspace(-1, 1, 3)[:, None])
    assert alpha_x.shape == alpha_y.shape == (3, 5)


@pytest.mark.parametrize("e", [1e-9, 2.4e-7, 2.6e-7, 1e-4, 0.3, 0.9])
def test_deflection_is_exact_to_rounding_however_round_the_lens(e: float) -> None:
    """Kormann et al. (1994) in extended precision; √(1−q²) is 1e-3 at e = 2.5e-7, where the formula changes."""
    x, y = np.random.default_rng(1).uniform(-3, 3, (2, 1000)).astype(np.longdouble)
    ellipticity = np.longdouble(e)
    q = (1 - ellipticity) / (1 + ellipticity)
    f = 2 * np.sqrt(ellipticity) / (1 + ellipticity)
    psi = np.sqrt((q * x) ** 2 + y**2)
    found_x, found_y = deflection(SieShear(1.5, e, 0.0, 0.0, 0.0), x.astype(float), y.astype(float))
    assert np.abs(found_x - 1.5 * np.sqrt(q) / f * np.arctan(f * x / psi)).max() < 1e-12
    assert np.abs(found_y - 1.5 * np.sqrt(q) / f * np.arctanh(f * y / psi)).max() < 1e-12


@pytest.mark.parametrize("e", [0.0, 0.05, 0.35, 0.6])
def test_largest_deflection_is_an_attained_bound(e: float) -> None:
    lens = SieShear(1.1, e, 0.8, 0.0, 0.0)
    phi = np.linspace(0.0, 2.0 * math.pi, 20001)
    largest = np.hypot(*deflection(lens, np.cos(phi), np.sin(phi))).max()
    assert largest <= lens.deflection_bound_arcsec(1.0) * (1 + 1e-12)
    assert largest == pytest.approx(lens.deflection_bound_arcsec(1.0), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("theta_e_arcsec", -0.1),
        ("theta_e_arcsec", math.nan),
        ("e", -0.01),
        ("e", 1.0),
        ("e", math.nan),
        ("phi_rad", math.inf),
        ("shear", -0.02),
        ("shear", 1.5),
        ("shear_phi_rad", math.nan),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} must .* got {value!r}$"):
        dataclasses.replace(SieShear(1.0, 0.1, 0.0, 0.01, 0.0), **{name: value})
