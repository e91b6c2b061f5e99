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

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

_FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(7)
_FEW, _FEW_WEIGHTS = np.polynomial.legendre.leggauss(3)
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


def pixel_integrated_moffat(fwhm_pix: float, beta: float, size_pix: int) -> NDArray[np.float64]:
    """Round Moffat of unit total flux, integrated over each pixel of a (size, size) grid about its centre.

    I(r) = (β−1)/(πα²) (1 + r²/α²)^−β with FWHM = 2α√(2^(1/β) − 1) (Moffat 1969, A&A 3, 455). The sum falls short of 1
    by the flux outside the grid.

    Raises
    ------
    ValueError
        If the width is not positive, β ≤ 1 or the size is even.
    """
    return _integrate_moffat(_moffat_alpha_pix(fwhm_pix, beta, size_pix), beta, size_pix // 2, _NODES, _WEIGHTS)


def _moffat_alpha_pix(fwhm_pix: float, beta: float, size_pix: int) -> float:
    """Core radius, after a check of all three."""
    if not (math.isfinite(fwhm_pix) and fwhm_pix > 0):
        raise ValueError(f"fwhm_pix must be positive and finite, got {fwhm_pix!r}")
    if not beta > 1:
        raise ValueError(f"beta must exceed 1, got {beta!r}")
    if size_pix < 1 or size_pix % 2 == 0:
        raise ValueError(f"size_pix must be odd and positive, got {size_pix!r}")
    return fwhm_pix / (2.0 * math.sqrt(2.0 ** (1.0 / beta) - 1.0))


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
        If e is outside [0, 0.5] or an angle is not finite.
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


def pixel_integrated_elliptical_moffat(
    fwhm_pix: float, beta: float, e: float, phi_rad: float, size_pix: int
) -> NDArray[np.float64]:
    """As :func:`pixel_integrated_moffat` with elliptical isophotes: r² → q u² + v²/q, u along the major axis.

    Parameters
    ----------
    fwhm_pix
        Geometric mean of the FWHM along both axes.
    e, phi_rad
        (a − b)/(a + b) = (1 − q)/(1 + q), and the angle of the major axis from +column towards +row.

    Raises
    ------
    ValueError
        As for the round one, and if e is outside [0, 0.5] or the angle is not finite.
    """
    if not 0 <= e <= 0.5:
        raise ValueError(f"e must be between 0 and 0.5, got {e!r}")
    if not math.isfinite(phi_rad):
        raise ValueError(f"phi_rad must be finite, got {phi_rad!r}")
    alpha = _moffat_alpha_pix(fwhm_pix, beta, size_pix)
    q, cos, sin = (1.0 - e) / (1.0 + e), math.cos(phi_rad), math.sin(phi_rad)
    xx, yy, xy = q * cos**2 + sin**2 / q, q * sin**2 + cos**2 / q, 2.0 * (q - 1.0 / q) * sin * cos
    core = math.ceil(2.0 * fwhm_pix)
    return _integrate_elliptical(alpha, beta, xx, yy, xy, size_pix // 2, core, _NODES, _WEIGHTS, _FEW, _FEW_WEIGHTS)


@lru_cache(maxsize=16)
def _fwhm_of_psfsize(beta: float, size_pix: int) -> tuple[PchipInterpolator, float, float]:
    """FWHM as a function of psfsize, both in pixels, and the range of psfsize it holds for."""
    psfsize = np.array([nea_psfsize(pixel_integrated_moffat(f, beta, size_pix), 1.0) for f in _TABLE_FWHM_PIX])
    return PchipInterpolator(psfsize, _TABLE_FWHM_PIX), float(psfsize[0]), float(psfsize[-1])


@numba.njit(cache=True)
def _integrate_moffat(alpha, beta, half, nodes, weights):  # type: ignore[no-untyped-def]
    """Gauss-Legendre over each pixel of one octant; the others follow by symmetry."""
    size = 2 * half + 1
    out = np.empty((size, size))
    norm = (beta - 1.0) / (math.pi * alpha * alpha)
    for j in range(half + 1):
        for i in range(j, half + 1):
            total = 0.0
            for a in range(nodes.size):
                x = i + 0.5 * nodes[a]
                for b in range(nodes.size):
                    y = j + 0.5 * nodes[b]
                    total += weights[a] * weights[b] * (1.0 + (x * x + y * y) / (alpha * alpha)) ** -beta
            value = 0.25 * norm * total
            for p, q in ((i, j), (j, i)):
                out[half + q, half + p] = value
                out[half - q, half + p] = value
                out[half + q, half - p] = value
                out[half - q, half - p] = value
    return out


@numba.njit(cache=True)
def _integrate_elliptical(alpha, beta, xx, yy, xy, half, core, nodes, weights, few, few_weights):  # type: ignore[no-untyped-def]
    """Gauss-Legendre over each pixel of one half-plane, with fewer nodes outside the core; the rest by symmetry."""
    size = 2 * half + 1
    out = np.empty((size, size))
    norm = 0.25 * (beta - 1.0) / (math.pi * alpha * alpha)
    for j in range(half + 1):
        for i in range(-half, half + 1):
            inside = j <= core and -core <= i <= core
            t, w = (nodes, weights) if inside else (few, few_weights)
            total = 0.0
            for a in range(t.size):
                x = i + 0.5 * t[a]
                for b in range(t.size):
                    y = j + 0.5 * t[b]
                    r2 = (xx * x * x + yy * y * y + xy * x * y) / (alpha * alpha)
                    total += w[a] * w[b] * math.exp(-beta * math.log1p(r2))
            out[half + j, half + i] = norm * total
            out[half - j, half - i] = norm * total
    return out
