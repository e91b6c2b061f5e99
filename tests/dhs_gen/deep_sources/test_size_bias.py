"""A small version of benchmarks/deep_size_bias.py, and the PSFs behind it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from deep_cases import PIXSCALE_ARCSEC, SEEING, drawn, galsim

from dhs_gen.deep_sources.psf import deconvolver, psf_from_fwhm, psf_from_image
from dhs_gen.source_banks.rejects import Rejected
from tests_support import REPO

SIZE_TOLERANCE = 0.06  # noise at i 22, and wings beyond isophote, growth and taper


@pytest.mark.parametrize(("target", "radius", "ratio"), [(None, 0.3, 1.85), (0.45, 0.3, 1.30), (0.45, 0.6, 1.09)])
def test_what_remains_of_the_seeing_in_the_size(target: float | None, radius: float, ratio: float) -> None:
    """Oracle: the half-light radius of the same profile behind the effective PSF, drawn by GalSim without noise."""
    sys.path.insert(0, str(REPO / "benchmarks"))
    try:
        from deep_size_bias import galaxies, measure
    finally:
        sys.path.pop(0)
    made = list(galaxies("Sersic n 1", radius, 10.0**2, 2, Path()))
    measured = measure("Sersic n 1", radius, made, target)
    left = SEEING
    if target is not None:
        left = deconvolver(psf_from_fwhm(0.6, "moffat", 2.5, ""), target, 0.02)[1].profile
    assert len(measured) == 2
    for galaxy in measured:
        scene = galsim.Convolve(galsim.Exponential(half_light_radius=radius), left)
        expected = scene.calculateHLR(size=256, scale=0.05) / radius
        assert expected == pytest.approx(ratio, abs=0.03)  # the figure that docs/gen6.md quotes
        assert galaxy.hlr_arcsec / radius == pytest.approx(expected, rel=SIZE_TOLERANCE)


def test_psf_picture_is_centred_and_its_width_is_that_of_the_profile() -> None:
    picture = drawn(SEEING.shift(0.3, -0.2), 41)
    psf = psf_from_image(7.0 * picture, PIXSCALE_ARCSEC, "x")
    assert psf.fwhm_arcsec == pytest.approx(0.6, rel=0.03)
    assert psf.profile.flux == pytest.approx(1.0)
    centred = drawn(psf.profile, 41)
    np.testing.assert_allclose(centred, drawn(SEEING, 41), atol=0.01 * centred.max())


@pytest.mark.parametrize("target", [0.6, 0.5, 0.45])
def test_the_psf_left_is_the_target_but_for_the_cap(target: float) -> None:
    """With hardly a cap the Gaussian itself; with the configured one a little wider."""
    seeing = psf_from_fwhm(0.6, "moffat", 2.5, "x")
    _, left = deconvolver(seeing, target, 1e-4)
    gaussian = drawn(galsim.Gaussian(fwhm=target), 41)
    np.testing.assert_allclose(drawn(left.profile, 41), gaussian, atol=0.01 * gaussian.max())
    assert left.fwhm_arcsec == pytest.approx(target, rel=0.03)
    _, capped = deconvolver(seeing, target, 0.02)
    assert left.fwhm_arcsec <= capped.fwhm_arcsec < 1.08 * target


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.ones((2, 5, 5)), "not 2-D"),
        (np.full((9, 9), np.nan), "not finite"),
        (np.zeros((9, 9)), "sums to 0"),
        (np.ones((3, 3)), "5 pixels or more"),
    ],
)
def test_a_picture_that_is_no_psf_is_refused(picture: np.ndarray, says: str) -> None:
    with pytest.raises(Rejected, match=says):
        psf_from_image(picture, PIXSCALE_ARCSEC, "HDU PSF")


def test_psf_of_unknown_profile_or_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"profile must be one of .* got 'airy'"):
        psf_from_fwhm(0.6, "airy", 2.5, "x")
    with pytest.raises(Rejected, match="not a positive number of arcsec"):
        psf_from_fwhm(float("nan"), "moffat", 2.5, "header SEEING")
