"""The core of a stamp: masks, dropout, and how much of an arc they take away (docs/core.md).

A finder that looks at the host's centre alone may have learned the injection and not the lens. Filling the core closes
that way, and takes the signal with it where the arc lies in the core: up to θ_E ≈ 1.25″ in DR10 most of it does.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from dhs_gen.paired_controls.azimuthal import distance_pix
from dhs_gen.streams import unit_interval

__all__ = [
    "CoreFractions",
    "core_dropout",
    "core_fractions",
    "core_is_dropped",
    "core_mask",
    "fill_core",
    "theta_e_core_radius_pix",
]

_Float = TypeVar("_Float", bound=np.floating)

_CLEAR_OF_ARC_FWHM = 1.5
"""A core of θ_E less this many FWHM of the PSF is clear of a thin ring."""


class CoreFractions(NamedTuple):
    """What the core holds of an arc: of its flux, and of its matched-filter S/N."""

    flux: float
    snr: float


def core_mask(shape: tuple[int, int], centre_xy_pix: tuple[float, float], radius_pix: float) -> NDArray[np.bool_]:
    """(H, W) True where a pixel's centre is nearer than ``radius_pix``; nowhere for a radius of 0.

    Parameters
    ----------
    shape
        (rows, columns).
    centre_xy_pix
        (column, row) of the host, from 0.
    radius_pix
        Not negative.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    if not (math.isfinite(radius_pix) and radius_pix >= 0):
        raise ValueError(f"radius_pix must be finite and not negative, got {radius_pix!r}")
    return distance_pix(shape, centre_xy_pix) < radius_pix


def theta_e_core_radius_pix(theta_e_arcsec: float, fwhm_arcsec: float, pixscale_arcsec: float) -> float:
    """Radius of a core that leaves the arc alone: max(0, θ_E − 1.5 FWHM) in pixels.

    It is 0, and the mask empty, below θ_E = 1.5 FWHM: 1.8″ in seeing of 1.2″. There is no core to judge there.

    Parameters
    ----------
    theta_e_arcsec, fwhm_arcsec, pixscale_arcsec
        Einstein radius, not negative; FWHM of the PSF and pixel scale, positive.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    if not (math.isfinite(theta_e_arcsec) and theta_e_arcsec >= 0):
        raise ValueError(f"theta_e_arcsec must be finite and not negative, got {theta_e_arcsec!r}")
    for name, value in (("fwhm_arcsec", fwhm_arcsec), ("pixscale_arcsec", pixscale_arcsec)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return max(0.0, theta_e_arcsec - _CLEAR_OF_ARC_FWHM * fwhm_arcsec) / pixscale_arcsec


def fill_core(images: NDArray[_Float], mask: NDArray[np.bool_], annulus_width_pix: float) -> NDArray[_Float]:
    """Fill the core of each band with the median of the annulus just outside of it.

    The fill is a statement, not data: a flat disc at the level of the host around it, the same in every class.

    Parameters
    ----------
    images
        (..., H, W); pixels that are NaN count for no median.
    mask
        (H, W) True in the core. Where it is empty, the images come back as they are.
    annulus_width_pix
        The annulus holds the pixels outside the mask within this distance of it; at least 1.

    Returns
    -------
    ndarray
        A copy, same shape and dtype.

    Raises
    ------
    ValueError
        If the shapes do not match, the width is below 1, no pixel lies outside the mask, or a band has no finite pixel
        in the annulus.
    """
    if images.ndim < 2 or mask.shape != images.shape[-2:] or mask.dtype != np.bool_:
        raise ValueError(
            f"mask must be boolean with the shape of the images' last two axes, got {mask.dtype} {mask.shape} "
            f"for images {images.shape}"
        )
    if not (math.isfinite(annulus_width_pix) and annulus_width_pix >= 1):
        raise ValueError(f"annulus_width_pix must be finite and at least 1, got {annulus_width_pix!r}")
    filled = images.copy()
    if not mask.any():
        return filled
    if mask.all():
        raise ValueError(f"mask must leave pixels outside of it for the annulus, got all {mask.size} pixels")
    annulus = ~mask & (distance_transform_edt(~mask) <= annulus_width_pix)
    around = images[..., annulus]
    if empty := int(np.isnan(around).all(axis=-1).sum()):
        raise ValueError(f"images must have finite pixels in the annulus, got none in {empty} bands")
    filled[..., mask] = np.nanmedian(around, axis=-1, keepdims=True)
    return filled


def core_is_dropped(key: str, probability: float) -> bool:
    """Whether a pair loses its core: ``unit_interval(key, salt="core_dropout") < probability``.

    Raises
    ------
    ValueError
        If the probability is not in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be in [0, 1], got {probability!r}")
    return unit_interval(key, salt="core_dropout") < probability


def core_dropout(
    images: NDArray[_Float],
    key: str,
    probability: float,
    centre_xy_pix: tuple[float, float],
    radius_pix: float,
    annulus_width_pix: float,
) -> NDArray[_Float]:
    """Fill the core of a fraction of all stamps, for training.

    Parameters
    ----------
    images
        (..., H, W), the bands of one stamp.
    key
        **The pair's id**, never a member's: all classes then lose the core alike.
    probability
        Of losing it, 0 to 1.
    centre_xy_pix, radius_pix, annulus_width_pix
        As of :func:`core_mask` and :func:`fill_core`. A radius that depends on θ_E must be the pair's, for its control
        too: the size of the hole would tell the classes apart.

    Returns
    -------
    ndarray
        A copy, same shape and dtype.

    Raises
    ------
    ValueError
        If an argument is out of range, whether or not the core is dropped.
    """
    mask = core_mask((images.shape[-2], images.shape[-1]), centre_xy_pix, radius_pix)
    filled = fill_core(images, mask, annulus_width_pix)
    return filled if core_is_dropped(key, probability) else images.copy()


def core_fractions(
    arc: NDArray[np.floating],
    invvar: NDArray[np.floating] | None,
    centre_xy_pix: tuple[float, float],
    radius_pix: float,
) -> CoreFractions:
    """Fractions of an arc's flux and of its matched-filter S/N in the core.

    S/N: √(Σ_core s² w / Σ s² w), the S/N of a filter that knows the arc and sees the core alone over that of one that
    sees the stamp.

    Parameters
    ----------
    arc
        (H, W) s, the noise-free light, any unit.
    invvar
        (H, W) w, not negative; None weights all pixels alike.
    centre_xy_pix, radius_pix
        As of :func:`core_mask`.

    Raises
    ------
    ValueError
        If the shapes differ, a weight is negative or a value not finite, or the arc has no flux or no weight: its
        fractions are not defined.
    """
    if arc.ndim != 2 or (invvar is not None and invvar.shape != arc.shape):
        raise ValueError(
            f"arc and invvar must have one shape (H, W), got {arc.shape}"
            + ("" if invvar is None else f" and {invvar.shape}")
        )
    light = arc.astype(np.float64)
    weight = np.ones_like(light) if invvar is None else invvar.astype(np.float64)
    if not (weight >= 0).all():
        raise ValueError(f"invvar must not be negative or NaN, got a minimum of {float(weight.min())!r}")
    flux, signal2 = float(light.sum()), np.square(light) * weight
    total2 = float(signal2.sum())
    if not (math.isfinite(flux) and math.isfinite(total2) and flux > 0 and total2 > 0):
        raise ValueError(f"arc must have finite flux and weight, got a sum of {flux!r} and an S/N² of {total2!r}")
    core = core_mask(light.shape, centre_xy_pix, radius_pix)
    return CoreFractions(float(light[core].sum()) / flux, math.sqrt(float(signal2[core].sum()) / total2))
