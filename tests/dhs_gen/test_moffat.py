"""Pixel-integrated Moffats against a brute-force integral, GalSim and closed formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dhs_gen.moffat import pixel_integrated_elliptical_moffat, pixel_integrated_moffat
from dhs_gen.psf import nea_psfsize


def by_summing(
    fwhm_pix: float, beta: float, e: float, phi_rad: float, size_pix: int, points: int
) -> NDArray[np.float64]:
    """The profile's definition, summed over points × points per pixel."""
    alpha = fwhm_pix / (2 * math.sqrt(2 ** (1 / beta) - 1))
    q = (1 - e) / (1 + e)
    t = (np.arange(size_pix * points) + 0.5) / points - size_pix / 2
    x, y = np.meshgrid(t, t)
    along = math.cos(phi_rad) * x + math.sin(phi_rad) * y
    across = math.cos(phi_rad) * y - math.sin(phi_rad) * x
    profile = (beta - 1) / (math.pi * alpha**2) * (1 + (q * along**2 + across**2 / q) / alpha**2) ** -beta
    return profile.reshape(size_pix, points, size_pix, points).mean(axis=(1, 3))


@pytest.mark.parametrize(
    ("fwhm_pix", "beta", "e", "phi_rad"),
    [(4.0, 3.5, 0.1, 0.3), (3.0, 2.5, 0.3, 1.2), (2.0, 3.0, 0.2, 2.0), (6.0, 4.765, 0.5, -0.4), (4.0, 3.0, 0.0, 0.0)],
)
def test_elliptical_kernel_is_the_integral_of_its_profile(
    fwhm_pix: float, beta: float, e: float, phi_rad: float
) -> None:
    ours = pixel_integrated_elliptical_moffat(fwhm_pix, beta, e, phi_rad, 17)
    np.testing.assert_allclose(ours, by_summing(fwhm_pix, beta, e, phi_rad, 17, 101), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("e", "phi_rad"), [(0.05, 0.0), (0.1, 0.7), (0.3, 2.1)])
def test_elliptical_kernel_is_galsims_sheared_moffat_with_the_pixel(e: float, phi_rad: float) -> None:
    """GalSim's reduced shear g is (1−q)/(1+q) and keeps the area: the same convention."""
    galsim = pytest.importorskip("galsim")
    exact = galsim.GSParams(folding_threshold=1e-4, maxk_threshold=1e-4, kvalue_accuracy=1e-7, maximum_fft_size=16384)
    profile = galsim.Moffat(beta=3.0, fwhm=4.0, gsparams=exact).shear(g=e, beta=phi_rad * galsim.radians)
    theirs = profile.drawImage(nx=33, ny=33, scale=1.0, dtype=float).array
    ours = pixel_integrated_elliptical_moffat(4.0, 3.0, e, phi_rad, 33)
    assert np.abs(ours - theirs).max() < 1e-4 * theirs.max()


def test_the_major_axis_runs_from_column_towards_row() -> None:
    along_columns = pixel_integrated_elliptical_moffat(4.0, 3.0, 0.3, 0.0, 21)
    assert along_columns[10, 14] > along_columns[14, 10]
    diagonal = pixel_integrated_elliptical_moffat(4.0, 3.0, 0.3, math.pi / 4, 21)
    assert diagonal[13, 13] > diagonal[13, 7]
    np.testing.assert_allclose(pixel_integrated_elliptical_moffat(4.0, 3.0, 0.3, math.pi / 2, 21), along_columns.T)


@given(
    fwhm_pix=st.floats(0.02, 30.0),
    beta=st.floats(1.05, 50.0),
    e=st.floats(0.0, 0.98),
    phi_rad=st.floats(-7.0, 7.0),
    half=st.integers(0, 12),
)
def test_every_ellipse_is_positive_symmetric_and_never_holds_more_than_all_light(
    fwhm_pix: float, beta: float, e: float, phi_rad: float, half: int
) -> None:
    kernel = pixel_integrated_elliptical_moffat(fwhm_pix, beta, e, phi_rad, 2 * half + 1)
    assert np.isfinite(kernel).all()
    assert kernel.min() >= 0
    assert kernel.sum() <= 1 + 1e-12
    np.testing.assert_array_equal(kernel, kernel[::-1, ::-1])
    larger = pixel_integrated_elliptical_moffat(fwhm_pix, beta, e, phi_rad, 2 * half + 3)
    np.testing.assert_allclose(larger[1:-1, 1:-1], kernel, rtol=1e-9, atol=1e-13)


@given(fwhm_pix=st.floats(0.02, 300.0), beta=st.floats(1.05, 50.0))
def test_an_ellipse_of_no_ellipticity_is_the_round_one(fwhm_pix: float, beta: float) -> None:
    round_one = pixel_integrated_moffat(fwhm_pix, beta, 15)
    np.testing.assert_array_equal(pixel_integrated_elliptical_moffat(fwhm_pix, beta, 0.0, 1.0, 15), round_one)
    nearly = pixel_integrated_elliptical_moffat(fwhm_pix, beta, 1e-14, 1.0, 15)
    np.testing.assert_allclose(nearly, round_one, rtol=1e-9, atol=1e-14)


def test_the_flux_of_a_core_far_smaller_than_a_pixel_is_in_it() -> None:
    """F(r) = 1 − (1 + r²/α²)^(1−β): the central pixel holds more than the inscribed circle's flux."""
    for fwhm_pix in (0.3, 0.03, 1e-3):
        alpha = fwhm_pix / (2 * math.sqrt(2 ** (1 / 2.5) - 1))
        inscribed = 1 - (1 + 0.25 / alpha**2) ** -1.5
        circumscribed = 1 - (1 + 0.5 / alpha**2) ** -1.5
        assert inscribed < pixel_integrated_moffat(fwhm_pix, 2.5, 3)[1, 1] < circumscribed


@pytest.mark.parametrize("beta", [2.5, 3.5])
def test_ellipticity_hardly_changes_psfsize(beta: float) -> None:
    for fwhm_pix in (3.0, 4.0, 5.0):
        round_size = nea_psfsize(pixel_integrated_moffat(fwhm_pix, beta, 63), 1.0)
        for phi_rad in (0.0, 0.4, math.pi / 4):
            kernel = pixel_integrated_elliptical_moffat(fwhm_pix, beta, 0.1, phi_rad, 63)
            assert nea_psfsize(kernel, 1.0) == pytest.approx(round_size, rel=6e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 3.0, 0.1, 0.0, 9), "fwhm_pix must be positive and finite, got -1.0"),
        ((3.0, math.inf, 0.1, 0.0, 9), "beta must be finite, got inf"),
        ((3.0, 3.0, -0.1, 0.0, 9), "e must be between 0 and 0.98, got -0.1"),
        ((3.0, 3.0, 1.0, 0.0, 9), "e must be between 0 and 0.98, got 1.0"),
        ((3.0, 3.0, math.nan, 0.0, 9), "e must be between 0 and 0.98, got nan"),
        ((3.0, 3.0, 0.1, math.inf, 9), "phi_rad must be finite, got inf"),
        ((3.0, 3.0, 0.1, 0.0, 8), "size_pix must be odd and positive, got 8"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(
    arguments: tuple[float, float, float, float, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pixel_integrated_elliptical_moffat(*arguments)
