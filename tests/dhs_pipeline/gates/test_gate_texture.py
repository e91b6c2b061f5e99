"""Power beyond the PSF's band limit: what went through the PSF keeps below a point, what did not does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.fft import fft2, ifftshift
from scipy.signal import fftconvolve

from dhs_gen.moffat import pixel_integrated_moffat
from dhs_pipeline.gates.texture import moffat_transfer, power_beyond_band_limit

FWHM_PIX, BETA, LIMIT = 3.8, 3.0, 0.01


def kernel(fwhm_pix: float = FWHM_PIX, size: int = 63) -> np.ndarray:
    drawn = pixel_integrated_moffat(fwhm_pix, BETA, size)
    return drawn / drawn.sum()


def ratio(light: np.ndarray, fwhm_pix: float = FWHM_PIX) -> float:
    return float(power_beyond_band_limit(light[None].astype(np.float32), np.array([fwhm_pix]), BETA, LIMIT)[0])


def blurred(light: np.ndarray) -> np.ndarray:
    return np.maximum(fftconvolve(light, kernel(), mode="same"), 0.0)


def test_the_closed_form_is_the_transform_of_the_kernel() -> None:
    drawn = pixel_integrated_moffat(FWHM_PIX, BETA, 257)
    f = np.fft.fftfreq(257)
    found = fft2(ifftshift(drawn)).real
    wanted = moffat_transfer(f[None, :], f[:, None], FWHM_PIX, BETA)
    inner = (np.abs(f)[:, None] < 0.35) & (np.abs(f)[None, :] < 0.35)  # beyond, the pixel grid folds frequencies
    np.testing.assert_allclose(found[inner], wanted[inner], atol=2e-4)
    assert wanted[0, 0] == pytest.approx(1.0)


def test_a_point_reaches_the_limit_and_extended_light_stays_below() -> None:
    point = np.zeros((64, 64))
    point[31, 33] = 5.0
    y, x = np.indices((64, 64)) - 31.5
    ring = np.exp(-0.5 * ((np.hypot(x, y) - 8.0) / 1.0) ** 2)
    assert ratio(blurred(point)) == pytest.approx(1.0, abs=0.15)
    assert ratio(7.0 * blurred(point)) == pytest.approx(ratio(blurred(point)), rel=1e-4)
    assert ratio(blurred(ring)) < 0.1
    speckle = np.random.default_rng(2).exponential(1.0, (64, 64)) * (np.hypot(x, y) < 12)
    assert ratio(blurred(speckle)) < 0.1  # noise before the PSF went through it all the same


def test_pixels_shuffled_after_the_psf_and_a_sharper_psf_do_not() -> None:
    y, x = np.indices((64, 64)) - 31.5
    light = blurred(np.exp(-0.5 * ((np.hypot(x, y) - 8.0) / 1.0) ** 2) * (x > 0))
    annulus = np.hypot(x, y).astype(int)
    shuffled, rng = light.copy(), np.random.default_rng(3)
    for k in range(annulus.max() + 1):
        shuffled[annulus == k] = rng.permutation(light[annulus == k])
    assert ratio(shuffled) > 100.0
    point = np.zeros((64, 64))
    point[32, 32] = 1.0
    assert ratio(fftconvolve(point, kernel(2.6), mode="same")) > 3.0


def test_no_light_has_no_ratio() -> None:
    assert np.isnan(ratio(np.zeros((64, 64))))
