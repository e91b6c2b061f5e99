"""Effective PSFs: a Moffat that has the survey map's noise-equivalent psfsize.

DR10's ``psfsize`` is not a FWHM. It is the FWHM of the Gaussian with the same noise-equivalent area (NEA) as the
pixel-convolved PSF (legacypipe ``coadds.py``)::

    NEA = pix² / Σ p²        psfsize = 2.3548 √(NEA / 4π)

so a Moffat drawn with FWHM = psfsize would be 20-25 % too wide. Kernels here are *effective*: integrated over the
pixel, which is therefore applied exactly once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from dhs_gen.moffat import pixel_integrated_elliptical_moffat, pixel_integrated_moffat

__all__ = [
    "Psf",
    "PsfError",
    "elliptical_moffat_for_psfsize",
    "moffat_for_psfsize",
    "nea_psfsize",
    "pixel_integrated_elliptical_moffat",
    "pixel_integrated_moffat",
]

_FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
_PSFSIZE_TOLERANCE = 2e-4
_TABLE_FWHM_PIX = np.geomspace(0.8, 20.0, 96)
"""FWHM at which psfsize is tabulated: 0.2″ to 5″ at 0.262″ per pixel."""


class PsfError(ValueError):
    """No PSF can be made from what was given."""


@dataclass(frozen=True, eq=False)
class Psf:
    """An effective PSF on the pixel grid.

    Parameters
    ----------
    kernel
        (size, size) float64, odd, unit sum.
    psfsize_arcsec
        Noise-equivalent psfsize of the kernel.
    fwhm_arcsec
        FWHM of the profile before the pixel.
    cut_fraction
        Flux outside the kernel before it was normalised.
    """

    kernel: NDArray[np.float64]
    psfsize_arcsec: float
    fwhm_arcsec: float
    cut_fraction: float


def nea_psfsize(kernel: NDArray[np.float64], pixscale_arcsec: float) -> float:
    """psfsize (arcsec) of a kernel on the pixel grid, by the definition above; any normalisation."""
    total = float(kernel.sum())
    nea_arcsec2 = pixscale_arcsec**2 * total**2 / float((kernel**2).sum())
    return _FWHM_PER_SIGMA * math.sqrt(nea_arcsec2 / (4.0 * math.pi))


def moffat_for_psfsize(psfsize_arcsec: float, beta: float, pixscale_arcsec: float, size_pix: int) -> Psf:
    """The pixel-integrated Moffat of slope ``beta`` whose NEA psfsize is ``psfsize_arcsec``.

    Raises
    ------
    PsfError
        If psfsize is not positive and finite, or no Moffat between 0.8 and 20 px FWHM has it.
    """
    if not (math.isfinite(psfsize_arcsec) and psfsize_arcsec > 0):
        raise PsfError(f"psfsize must be positive and finite, got {psfsize_arcsec!r}")
    inverse, low, high = _fwhm_of_psfsize(beta, size_pix)
    psfsize_pix = psfsize_arcsec / pixscale_arcsec
    if not low <= psfsize_pix <= high:
        raise PsfError(
            f"psfsize {psfsize_arcsec:g} arcsec is outside the {low * pixscale_arcsec:.2f} to "
            f"{high * pixscale_arcsec:.2f} arcsec that a Moffat of beta {beta:g} can have"
        )
    fwhm_pix = float(inverse(psfsize_pix))
    raw = pixel_integrated_moffat(fwhm_pix, beta, size_pix)
    total = float(raw.sum())
    kernel = raw / total
    return Psf(kernel, nea_psfsize(kernel, pixscale_arcsec), fwhm_pix * pixscale_arcsec, 1.0 - total)


def elliptical_moffat_for_psfsize(
    psfsize_arcsec: float, beta: float, pixscale_arcsec: float, size_pix: int, e: float, phi_rad: float
) -> Psf:
    """As :func:`moffat_for_psfsize` with elliptical isophotes of the same NEA psfsize.

    Stretching one axis and squeezing the other by the same factor leaves the noise-equivalent area of the profile as
    it is; the pixel changes psfsize by up to 2e-3 at e = 0.3, which one correction of the width takes back.

    Parameters
    ----------
    psfsize_arcsec, beta, pixscale_arcsec, size_pix
        As for the round one.
    e, phi_rad
        (a − b)/(a + b), and the angle of the major axis from +column towards +row.

    Raises
    ------
    PsfError
        As for the round one.
    ValueError
        If e is outside [0, 0.98] or the angle is not finite.
    """
    if e == 0:
        return moffat_for_psfsize(psfsize_arcsec, beta, pixscale_arcsec, size_pix)
    width_arcsec = psfsize_arcsec
    for _ in range(2):
        inverse, low, high = _fwhm_of_psfsize(beta, size_pix)
        if not low <= width_arcsec / pixscale_arcsec <= high:  # NaN too
            raise PsfError(
                f"psfsize {psfsize_arcsec:g} arcsec is outside the {low * pixscale_arcsec:.2f} to "
                f"{high * pixscale_arcsec:.2f} arcsec that a Moffat of beta {beta:g} can have"
            )
        fwhm_pix = float(inverse(width_arcsec / pixscale_arcsec))
        raw = pixel_integrated_elliptical_moffat(fwhm_pix, beta, e, phi_rad, size_pix)
        total = float(raw.sum())
        kernel = raw / total
        found = nea_psfsize(kernel, pixscale_arcsec)
        if abs(found / psfsize_arcsec - 1.0) < _PSFSIZE_TOLERANCE:
            break
        width_arcsec *= psfsize_arcsec / found
    return Psf(kernel, found, fwhm_pix * pixscale_arcsec, 1.0 - total)


@lru_cache(maxsize=16)
def _fwhm_of_psfsize(beta: float, size_pix: int) -> tuple[PchipInterpolator, float, float]:
    """FWHM as a function of psfsize, both in pixels, and the range of psfsize it holds for."""
    psfsize = np.array([nea_psfsize(pixel_integrated_moffat(f, beta, size_pix), 1.0) for f in _TABLE_FWHM_PIX])
    return PchipInterpolator(psfsize, _TABLE_FWHM_PIX), float(psfsize[0]), float(psfsize[-1])
