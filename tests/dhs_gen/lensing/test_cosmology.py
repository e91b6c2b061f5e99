"""Distances and Einstein radii against astropy and lenstronomy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhs_gen.lensing.cosmology import (
    Cosmology,
    arcsec_per_mpc,
    d_theta_e_d_sigma,
    distance_ratio,
    sigma_crit_msun_mpc2,
    sigma_v_km_s,
    theta_e_sis_arcsec,
)

PLANCK18 = Cosmology(67.66, 0.30966)
COSMOLOGIES = st.builds(Cosmology, st.floats(50.0, 90.0), st.floats(0.1, 1.0))
REDSHIFTS = st.floats(0.01, 3.0)
CONSTANTS = 5e-4
"""lenstronomy's G and solar mass are older than astropy's: 3e-4 in a surface density."""


@settings(max_examples=12)
@given(COSMOLOGIES, st.floats(0.0, 20.0))
def test_distances_are_astropys(cosmology: Cosmology, z: float) -> None:
    expected = cosmology.astropy().comoving_distance(z).to_value("Mpc")
    assert float(cosmology.comoving_distance_mpc(z)) == pytest.approx(expected, rel=1e-8, abs=1e-9)
    density = cosmology.astropy().critical_density(z).to_value("Msun / Mpc3")
    assert float(cosmology.critical_density_msun_mpc3(z)) == pytest.approx(density, rel=1e-8)


@settings(max_examples=12)
@given(COSMOLOGIES, st.floats(50.0, 500.0), REDSHIFTS, st.floats(0.05, 4.0))
def test_einstein_radius_is_lenstronomys(cosmology: Cosmology, sigma: float, z_l: float, behind: float) -> None:
    from lenstronomy.Cosmo.lens_cosmo import LensCosmo

    z_s = z_l + behind
    oracle = LensCosmo(z_l, z_s, cosmology.astropy())
    theta = theta_e_sis_arcsec(sigma, z_l, z_s, cosmology)
    assert float(theta) == pytest.approx(float(oracle.sis_sigma_v2theta_E(sigma)), rel=1e-5)
    assert float(sigma_v_km_s(theta, z_l, z_s, cosmology)) == pytest.approx(sigma, rel=1e-12)
    assert float(sigma_crit_msun_mpc2(z_l, z_s, cosmology)) == pytest.approx(float(oracle.sigma_crit), rel=CONSTANTS)
    assert float(arcsec_per_mpc(z_l, cosmology)) == pytest.approx(float(oracle.phys2arcsec_lens(1.0)), rel=1e-7)


def test_a_known_lens() -> None:
    """250 km/s at z = 0.5, source at 2: 4π (σ/c)² = 1.80 arcsec, 0.63 of it left by the distances."""
    full = 4 * math.pi * (250 / 299792.458) ** 2 / math.radians(1 / 3600)
    assert full == pytest.approx(1.803, abs=0.001)
    ratio = float(distance_ratio(0.5, 2.0, PLANCK18))
    assert ratio == pytest.approx(0.634, abs=0.001)
    assert float(theta_e_sis_arcsec(250.0, 0.5, 2.0, PLANCK18)) == pytest.approx(full * ratio)


def test_slope_of_the_einstein_radius() -> None:
    sigma, step = np.array([150.0, 300.0]), 1e-3
    theta = theta_e_sis_arcsec(sigma, 0.4, 1.5, PLANCK18)
    high = theta_e_sis_arcsec(sigma + step, 0.4, 1.5, PLANCK18)
    np.testing.assert_allclose(d_theta_e_d_sigma(sigma, theta), (high - theta) / step, rtol=1e-5)


def test_rows_are_worked_on_at_once() -> None:
    z_l = np.linspace(0.1, 0.8, 5)
    together = theta_e_sis_arcsec(np.full(5, 230.0), z_l, z_l + 1.0, PLANCK18)
    alone = [float(theta_e_sis_arcsec(230.0, z, z + 1.0, PLANCK18)) for z in z_l]
    np.testing.assert_array_equal(together, alone)


def test_wrong_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"^z_s must exceed z_l, got z_s 0.3 behind z_l 0.5$"):
        theta_e_sis_arcsec(200.0, np.array([0.2, 0.5]), 0.3, PLANCK18)
    with pytest.raises(ValueError, match=r"^sigma_v_km_s must be positive and finite, got np.float64\(-1.0\)$"):
        theta_e_sis_arcsec(np.array([200.0, -1.0]), 0.3, 1.0, PLANCK18)
    with pytest.raises(ValueError, match=r"^theta_e_arcsec must be positive and finite"):
        sigma_v_km_s(math.nan, 0.3, 1.0, PLANCK18)
    with pytest.raises(ValueError, match=r"^z must be in \[0, 20\], got nan$"):
        PLANCK18.comoving_distance_mpc(math.nan)
    with pytest.raises(ValueError, match=r"^om0 must be in \(0, 1\], got 1.5$"):
        Cosmology(70.0, 1.5)
    with pytest.raises(ValueError, match=r"^h0_km_s_mpc must be in \[10, 200\], got nan$"):
        Cosmology(math.nan, 0.3)
