"""Unit conversions: nanomaggies, AB magnitudes, surface brightness, axis ratios.

Images are nanomaggies per pixel with AB zero point 22.5. Renderers take surface brightness (flux per arcsec²);
the only way from one to the other is :func:`to_surface_brightness`, and the pixel scale it takes is the
*template's*, never the stamp's: dividing a 0.03″ template by 0.262² is wrong by a factor of 76.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "AB_ZERO_POINT_NMGY",
    "axis_ratio",
    "depth_ivar_to_mag",
    "from_surface_brightness",
    "mag_to_nmgy",
    "nmgy_to_mag",
    "to_surface_brightness",
]

AB_ZERO_POINT_NMGY = 22.5
"""AB magnitude of one nanomaggy (legacysurvey.org/dr10/description, "Photometry")."""


def to_surface_brightness(flux_per_pixel: ArrayLike, pixscale_arcsec: float) -> NDArray[np.floating]:
    """Flux per pixel → flux per arcsec².

    Parameters
    ----------
    flux_per_pixel
        Any shape; flux in each pixel of a template.
    pixscale_arcsec
        Pixel scale **of the template**, arcsec per pixel.

    Returns
    -------
    ndarray
        ``flux_per_pixel / pixscale_arcsec**2``, same shape; float32 stays float32.

    Raises
    ------
    ValueError
        If the pixel scale is not positive and finite.
    """
    return _as_float(flux_per_pixel) / _pixel_area(pixscale_arcsec)


def from_surface_brightness(sb: ArrayLike, pixscale_arcsec: float) -> NDArray[np.floating]:
    """Flux per arcsec² → flux per pixel of ``pixscale_arcsec``; the inverse of :func:`to_surface_brightness`."""
    return _as_float(sb) * _pixel_area(pixscale_arcsec)


def _as_float(values: ArrayLike) -> NDArray[np.floating]:
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def _pixel_area(pixscale_arcsec: float) -> float:
    if not np.isfinite(pixscale_arcsec) or pixscale_arcsec <= 0:
        raise ValueError(f"pixscale_arcsec must be positive and finite, got {pixscale_arcsec!r}")
    return float(pixscale_arcsec) ** 2


def mag_to_nmgy(mag: ArrayLike) -> NDArray[np.float64]:
    """AB magnitude → nanomaggies."""
    return 10.0 ** (0.4 * (AB_ZERO_POINT_NMGY - np.asarray(mag, dtype=np.float64)))


def nmgy_to_mag(flux_nmgy: ArrayLike) -> NDArray[np.float64]:
    """Nanomaggies → AB magnitude; NaN where the flux is not positive."""
    flux = np.asarray(flux_nmgy, dtype=np.float64)
    return AB_ZERO_POINT_NMGY - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))


def depth_ivar_to_mag(psfdepth_ivar: ArrayLike) -> NDArray[np.float64]:
    """Tractor psfdepth (1/nanomaggy²) → 5σ point-source AB magnitude (DR10 catalogue description)."""
    ivar = np.asarray(psfdepth_ivar, dtype=np.float64)
    return nmgy_to_mag(5.0 / np.sqrt(np.where(ivar > 0, ivar, np.nan)))


def axis_ratio(ellipticity: ArrayLike) -> NDArray[np.float64]:
    """q = (1 − e)/(1 + e), the inverse of lenstronomy's e = (1 − q)/(1 + q)."""
    e = np.asarray(ellipticity, dtype=np.float64)
    return (1.0 - e) / (1.0 + e)
