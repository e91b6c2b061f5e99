"""An elliptical PSF: how it is drawn, and the small kernel that makes a finished image's PSF elliptical."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from dhs_gen.psf import pixel_integrated_elliptical_moffat

PSF_MODELS = ("moffat", "gaussian")
_MAX_E = 0.3
_REGULARISATION = 0.05
"""Transfer of the round PSF below which frequencies are left alone: the image holds only noise there."""
_CUT_PIX = 15
"""Largest radius of the differential kernel."""


@dataclass(frozen=True)
class Ellipticity:
    """e1 = e cos 2φ, e2 = e sin 2φ with e = (a − b)/(a + b) and φ from +column towards +row."""

    e1: float
    e2: float

    @property
    def e(self) -> float:
        return math.hypot(self.e1, self.e2)

    @property
    def phi_rad(self) -> float:
        return 0.5 * math.atan2(self.e2, self.e1) % math.pi


ROUND = Ellipticity(0.0, 0.0)


def draw_ellipticity(rng: np.random.Generator, sigma: float) -> Ellipticity:
    """Normal components, shortened to |e| = 0.3 where they exceed it."""
    e1, e2 = rng.normal(0.0, 1.0, 2) * sigma
    shorten = min(1.0, _MAX_E / max(math.hypot(e1, e2), 1e-12))
    return Ellipticity(float(e1 * shorten), float(e2 * shorten))


def differential_kernel(
    fwhm_pix: float, ellipticity: Ellipticity, psf_model: str, beta: float, max_size_pix: int
) -> NDArray[np.float64]:
    """The kernel that takes a round PSF to the elliptical one of equal noise-equivalent area.

    In Fourier space it is 1 + (E − R) R/(R² + ε²) with R and E the transforms of the round and the elliptical PSF
    and ε = 0.05: a Wiener quotient for the *difference*, so that frequencies that the seeing has removed keep their
    noise instead of having it amplified. 96 % of the ellipticity arrives (second moments of the core). The kernel sums
    to 1 and reaches no farther than 15 px.

    Parameters
    ----------
    fwhm_pix, psf_model, beta
        The round PSF before the pixel: "moffat" (with β) or "gaussian".
    max_size_pix
        Odd; the kernel is never larger.
    """
    half = 2 * _CUT_PIX
    round_psf = _psf(fwhm_pix, ROUND, psf_model, beta, half)
    elliptical_psf = _psf(fwhm_pix, ellipticity, psf_model, beta, half)
    r = scipy.fft.rfft2(scipy.fft.ifftshift(round_psf)).real
    e = scipy.fft.rfft2(scipy.fft.ifftshift(elliptical_psf)).real
    change = scipy.fft.fftshift(scipy.fft.irfft2((e - r) * r / (r**2 + _REGULARISATION**2), s=round_psf.shape))
    keep = min(_CUT_PIX, (max_size_pix - 1) // 2)
    kernel = change[half - keep : half + keep + 1, half - keep : half + keep + 1].copy()
    kernel -= kernel.mean()
    kernel[keep, keep] += 1.0
    return kernel


def convolve_mirrored(image: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convolution with the image continued by its mirror image."""
    from scipy.signal import fftconvolve  # its import takes longer than a worker's first hundred stamps

    half = kernel.shape[0] // 2
    return fftconvolve(np.pad(image, half, mode="symmetric"), kernel, mode="valid")


def _psf(fwhm_pix: float, ellipticity: Ellipticity, model: str, beta: float, half: int) -> NDArray[np.float64]:
    """(2 half + 1)² effective PSF of unit sum."""
    if model == "moffat":
        kernel = pixel_integrated_elliptical_moffat(fwhm_pix, beta, ellipticity.e, ellipticity.phi_rad, 2 * half + 1)
    else:
        kernel = _gaussian(fwhm_pix / 2.3548, ellipticity, half)
    return kernel / kernel.sum()


def _gaussian(sigma_pix: float, ellipticity: Ellipticity, half: int) -> NDArray[np.float64]:
    """Gaussian sampled at the mean of 5 × 5 points per pixel."""
    fine = (np.arange(5 * (2 * half + 1)) - 2) / 5.0 - half
    cos, sin = math.cos(ellipticity.phi_rad), math.sin(ellipticity.phi_rad)
    q = (1.0 - ellipticity.e) / (1.0 + ellipticity.e)
    along, across = fine[None, :] * cos + fine[:, None] * sin, fine[:, None] * cos - fine[None, :] * sin
    values = np.exp(-0.5 * (q * along**2 + across**2 / q) / sigma_pix**2)
    return values.reshape(2 * half + 1, 5, 2 * half + 1, 5).mean(axis=(1, 3))
