"""PSF kernels of unit sum for notebooks and kernels of this package: Gaussian, Moffat, elliptical Moffat.

Every kernel is *effective*: the profile is integrated over the pixel, so the pixel response is in it exactly once.

.. warning::
    Convolve light that is *sampled at pixel centres* (surface brightness × pixel area) with these kernels. Light that
    is already integrated over the pixel gets the pixel a second time, which lowers the peak of an arc by 1 to 2 %.

.. warning::
    ``fwhm_pix`` is in **pixels** of the image to be convolved and is the FWHM of the profile before the pixel. The
    survey's ``psfsize`` is neither: it is in arcsec, noise-equivalent and after the pixel. A Moffat drawn with
    ``fwhm_pix = psfsize / pixscale`` is 20 to 40 % too wide; use :func:`dhs_gen.psf.moffat_for_psfsize`.

.. warning::
    Unit sum means that the flux outside the kernel is pushed into it: of a Moffat of FWHM 1.2″ in 15 pixels of 0.262″,
    3.4 % for β = 3.5 and 8.4 % for β = 2.5. The functions of :mod:`dhs_gen.moffat` do not normalise and show how much.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from dhs_gen.moffat import pixel_integrated_elliptical_moffat, pixel_integrated_moffat

__all__ = ["elliptical_moffat_kernel", "gaussian_kernel", "moffat_kernel"]

_SIGMA_PER_FWHM = 1.0 / (2.0 * math.sqrt(2.0 * math.log(2.0)))
_WIDEST_PIX = 1e6
"""Beyond this a kernel of any usable size is flat to ten digits, and a Gaussian's pixels drown in rounding."""


def gaussian_kernel(fwhm_pix: float, size: int = 33, max_size: int | None = None) -> NDArray[np.float64]:
    """Round Gaussian integrated over pixels.

    Parameters
    ----------
    fwhm_pix
        FWHM before the pixel, in pixels.
    size
        Side of the kernel; an even one is lowered by 1.
    max_size
        Largest side allowed, as that of the stamp; an even one rounds down.

    Returns
    -------
    ndarray
        (side, side) float64, odd, finite, non-negative, unit sum.

    Raises
    ------
    ValueError
        If the width is not positive and finite (or beyond 1e6 px), or a size is not a positive integer.
    """
    side = _side(size, max_size)
    sigma = _width(fwhm_pix) * _SIGMA_PER_FWHM
    distance = np.abs(np.arange(side) - side // 2)
    # Upper tails: differences of ndtr near 1 would lose the wings.
    profile = ndtr((0.5 - distance) / sigma) - ndtr((-0.5 - distance) / sigma)
    return _unit_sum(np.outer(profile, profile))


def moffat_kernel(
    fwhm_pix: float, beta: float = 3.5, size: int = 33, max_size: int | None = None
) -> NDArray[np.float64]:
    """Round Moffat integrated over pixels; parameters and result as of :func:`gaussian_kernel`, ``beta`` above 1."""
    side = _side(size, max_size)
    return _unit_sum(pixel_integrated_moffat(_width(fwhm_pix), beta, side))


def elliptical_moffat_kernel(
    fwhm_pix: float, beta: float, e: float, phi: float, size: int = 33, max_size: int | None = None
) -> NDArray[np.float64]:
    """Elliptical Moffat integrated over pixels.

    Parameters
    ----------
    fwhm_pix
        Geometric mean of the FWHM along both axes, before the pixel, in pixels.
    beta
        Slope, above 1.
    e
        Ellipticity (1−q)/(1+q), from 0 to 0.98.
    phi
        Position angle of the major axis in **radians**, from +column towards +row.
    size, max_size
        As of :func:`gaussian_kernel`.

    Returns
    -------
    ndarray
        (side, side) float64, odd, finite, non-negative, unit sum.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    side = _side(size, max_size)
    if not math.isfinite(phi):
        raise ValueError(f"phi must be finite, got {phi!r}")
    return _unit_sum(pixel_integrated_elliptical_moffat(_width(fwhm_pix), beta, e, phi, side))


def _side(size: int, max_size: int | None) -> int:
    """The odd side: ``size``, but no more than ``max_size``, lowered by 1 if even."""
    for name, value in (("size", size), ("max_size", max_size)):
        if value is not None and (value != int(value) or value < 1):
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
    side = int(size) if max_size is None else min(int(size), int(max_size))
    return side if side % 2 == 1 else side - 1


def _width(fwhm_pix: float) -> float:
    if not 0 < fwhm_pix <= _WIDEST_PIX:  # NaN and infinity too
        raise ValueError(f"fwhm_pix must be positive and finite, at most {_WIDEST_PIX:g}, got {fwhm_pix!r}")
    return float(fwhm_pix)


def _unit_sum(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    return kernel / kernel.sum()
