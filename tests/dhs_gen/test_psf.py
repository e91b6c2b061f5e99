"""PSF kernels against the survey's definition of psfsize, GalSim's pixel integral and real coadd PSFs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from rendering_cases import SHARED_DATA

from dhs_gen.psf import (
    PsfError,
    elliptical_moffat_for_psfsize,
    moffat_for_psfsize,
    nea_psfsize,
    pixel_integrated_moffat,
)

PIXSCALE_ARCSEC = 0.262
SIZE_PIX = 63


def psfsize_by_definition(kernel: NDArray[np.float64], pixscale_arcsec: float = PIXSCALE_ARCSEC) -> float:
    """legacypipe: FWHM of the Gaussian whose noise-equivalent area, 4πσ², is 1/Σp² pixels."""
    p = kernel / kernel.sum()
    area_arcsec2 = pixscale_arcsec**2 / np.sum(p**2)
    return math.sqrt(8 * math.log(2)) * math.sqrt(area_arcsec2 / (4 * math.pi))


@pytest.mark.parametrize("beta", [2.5, 3.0, 3.5, 4.765])
@pytest.mark.parametrize("psfsize_arcsec", [0.8, 0.95, 1.2, 1.37, 1.7, 2.5])
def test_drawn_kernel_has_the_psfsize_that_was_asked_for(psfsize_arcsec: float, beta: float) -> None:
    psf = moffat_for_psfsize(psfsize_arcsec, beta, PIXSCALE_ARCSEC, SIZE_PIX)
    assert psfsize_by_definition(psf.kernel) == pytest.approx(psfsize_arcsec, rel=1e-5)
    assert psf.psfsize_arcsec == pytest.approx(psfsize_arcsec, rel=1e-5)


@pytest.mark.parametrize("e", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("psfsize_arcsec", [0.9, 1.3, 1.7])
def test_an_elliptical_kernel_has_the_psfsize_too(psfsize_arcsec: float, e: float) -> None:
    psf = elliptical_moffat_for_psfsize(psfsize_arcsec, 3.0, PIXSCALE_ARCSEC, SIZE_PIX, e, 0.4)
    assert psfsize_by_definition(psf.kernel) == pytest.approx(psfsize_arcsec, rel=2e-4)
    assert psf.kernel.sum() == pytest.approx(1.0)
    y, x = np.mgrid[-10:11, -10:11]
    core = psf.kernel[21:42, 21:42] * (np.hypot(x, y) < 9)
    angle = 0.5 * math.atan2(2 * (core * x * y).sum(), (core * (x**2 - y**2)).sum())
    assert e == 0 or angle == pytest.approx(0.4, abs=0.02)


def test_psfsize_of_a_wide_gaussian_is_its_fwhm() -> None:
    """For a Gaussian the noise-equivalent size is the FWHM, whatever the normalisation."""
    t = np.arange(-40, 41)
    kernel = 7.0 * np.exp(-0.5 * (t[:, None] ** 2 + t**2) / 5.0**2)
    assert nea_psfsize(kernel, 0.3) == pytest.approx(2.354820 * 5.0 * 0.3, rel=1e-6)


@pytest.mark.parametrize(
    ("psfsize_arcsec", "fwhm_by_beta"),
    [
        (1.00, {2.5: 0.703, 3.0: 0.758, 3.5: 0.795}),
        (1.20, {2.5: 0.850, 3.0: 0.916, 3.5: 0.960}),
        (1.30, {2.5: 0.923, 3.0: 0.994, 3.5: 1.042}),
        (1.40, {2.5: 0.996, 3.0: 1.073, 3.5: 1.124}),
        (1.60, {2.5: 1.142, 3.0: 1.229, 3.5: 1.288}),
    ],
)
def test_fwhm_is_that_of_the_reference_table(psfsize_arcsec: float, fwhm_by_beta: dict[float, float]) -> None:
    for beta, fwhm_arcsec in fwhm_by_beta.items():
        psf = moffat_for_psfsize(psfsize_arcsec, beta, PIXSCALE_ARCSEC, SIZE_PIX)
        assert psf.fwhm_arcsec == pytest.approx(fwhm_arcsec, abs=0.005)


@pytest.mark.parametrize("beta", [2.5, 3.0, 3.5])
def test_a_moffat_drawn_with_fwhm_psfsize_is_too_wide(beta: float) -> None:
    """The mistake this module exists to prevent: 25 % at β 3.5, 40 % at 2.5."""
    naive = pixel_integrated_moffat(1.3 / PIXSCALE_ARCSEC, beta, 101)
    expected = {2.5: 1.398, 3.0: 1.300, 3.5: 1.242}[beta]
    assert psfsize_by_definition(naive) / 1.3 == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("fwhm_pix", "beta"), [(2.4, 2.5), (3.5, 3.0), (4.6, 4.765), (6.0, 2.6)])
def test_kernel_is_galsims_moffat_convolved_with_the_pixel(fwhm_pix: float, beta: float) -> None:
    """Real-space integration in GalSim (no FFT)."""
    galsim = pytest.importorskip("galsim")
    ours = pixel_integrated_moffat(fwhm_pix, beta, 21)
    profile = galsim.Convolve(galsim.Moffat(beta=beta, fwhm=fwhm_pix), galsim.Pixel(1.0), real_space=True)
    for x, y in ((0, 0), (1, 0), (0, 2), (3, 2), (5, 5), (0, 10)):
        theirs = profile.xValue(float(x), float(y))
        assert ours[10 + y, 10 + x] == pytest.approx(theirs, rel=1e-4)


def test_flux_outside_the_kernel_is_the_moffats_own() -> None:
    """F(>r) = (1 + r²/α²)^(1−β): the sum lies between the inscribed and the circumscribed circle's flux."""
    fwhm_pix, beta = 1.2 / PIXSCALE_ARCSEC, 2.5
    alpha = fwhm_pix / (2 * math.sqrt(2 ** (1 / beta) - 1))
    for size in (15, 25, 33, 63):
        missing = 1 - pixel_integrated_moffat(fwhm_pix, beta, size).sum()
        inscribed = (1 + (size / 2 / alpha) ** 2) ** (1 - beta)
        circumscribed = (1 + (size / math.sqrt(2) / alpha) ** 2) ** (1 - beta)
        assert circumscribed < missing < inscribed
        assert missing == pytest.approx({15: 0.084, 25: 0.022, 33: 0.010, 63: 0.0016}[size], rel=0.06)


@pytest.mark.parametrize("beta", [2.5, 4.765])
def test_kernel_is_odd_symmetric_centred_and_of_unit_sum(beta: float) -> None:
    psf = moffat_for_psfsize(1.1, beta, PIXSCALE_ARCSEC, SIZE_PIX)
    kernel = psf.kernel
    assert kernel.shape == (SIZE_PIX, SIZE_PIX)
    assert kernel.sum() == pytest.approx(1.0, abs=1e-12)
    assert kernel.min() > 0
    np.testing.assert_array_equal(kernel, kernel.T)
    np.testing.assert_array_equal(kernel, kernel[::-1])
    np.testing.assert_array_equal(kernel, kernel[:, ::-1])
    assert np.unravel_index(kernel.argmax(), kernel.shape) == (SIZE_PIX // 2, SIZE_PIX // 2)
    raw = pixel_integrated_moffat(psf.fwhm_arcsec / PIXSCALE_ARCSEC, beta, SIZE_PIX)
    assert psf.cut_fraction == pytest.approx(1 - raw.sum(), abs=1e-12)
    assert 0 < psf.cut_fraction < 0.01


@pytest.mark.parametrize("psfsize_arcsec", [0.0, -1.2, math.nan, math.inf, 0.05, 30.0])
def test_an_impossible_psfsize_is_a_psf_error_with_its_value(psfsize_arcsec: float) -> None:
    with pytest.raises(PsfError, match=f"psfsize.* {psfsize_arcsec:g}" if psfsize_arcsec > 0.01 else "psfsize must"):
        moffat_for_psfsize(psfsize_arcsec, 3.0, PIXSCALE_ARCSEC, SIZE_PIX)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 3.0, 63), "fwhm_pix must be positive and finite, got 0.0"),
        ((math.nan, 3.0, 63), "fwhm_pix must be positive and finite, got nan"),
        ((4.0, 1.0, 63), "beta must exceed 1, got 1.0"),
        ((4.0, math.nan, 63), "beta must exceed 1, got nan"),
        ((4.0, 3.0, 64), "size_pix must be odd and positive, got 64"),
        ((4.0, 3.0, -1), "size_pix must be odd and positive, got -1"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(arguments: tuple[float, float, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pixel_integrated_moffat(*arguments)


@pytest.mark.realdata
def test_real_coadd_psfs_have_the_surveys_psfsize() -> None:
    """Real coadd PSFs of DR9-south; their half-maximum diameters are 1.05/0.94/0.91″."""
    paths = sorted((SHARED_DATA / "psf").glob("copsf_*.fits"))
    if not paths:
        pytest.skip("no coadd PSFs in ../shared/data/psf")
    from astropy.io import fits

    with fits.open(paths[0]) as hdus:
        for hdu, psfsize_arcsec in zip(hdus, (1.37, 1.25, 1.25), strict=True):
            kernel = np.asarray(hdu.data, dtype=np.float64)
            assert nea_psfsize(kernel, PIXSCALE_ARCSEC) == pytest.approx(psfsize_arcsec, abs=0.01)
            assert psfsize_by_definition(kernel) == pytest.approx(psfsize_arcsec, abs=0.01)
