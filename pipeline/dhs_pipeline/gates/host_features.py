"""What a host looks like, in numbers that have a name: the features of the realism gate.

All are scaled by the noise of the set, never by the stamp's own: a scale measured on a stamp would know of its arc.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dhs_pipeline.config.gates import GatesConfig

_MAD_TO_SIGMA = 1.4826


def host_features(
    images: NDArray[np.float32], sigma_nmgy: NDArray[np.float64], config: GatesConfig
) -> NDArray[np.float32]:
    """(n, features): radial profile, border noise and neighbour correlation, colours, asymmetry; the names below.

    Parameters
    ----------
    images
        (n, bands, H, W), nanomaggy/pix.
    sigma_nmgy
        (bands,) noise of the set.
    config
        Radii of the border, the core and the profile.
    """
    scaled = images / sigma_nmgy.astype(np.float32)[:, None, None]
    radius = _radius(images.shape[-2:])
    return np.concatenate(
        [
            radial_profile(scaled, radius, config.radial_profile.bin_width_pix, config.radial_profile.max_radius_pix),
            border_texture(scaled, config.border_texture.min_radius_pix),
            colours(scaled, radius < config.core_only.radius_pix),
            asymmetry(scaled, radius < config.radial_profile.max_radius_pix),
        ],
        axis=1,
    ).astype(np.float32)


def radial_profile(
    scaled: NDArray[np.float32], radius: NDArray[np.float64], width_pix: float, max_radius_pix: float
) -> NDArray[np.float64]:
    """(n, bands × rings): asinh of the mean in each ring about the stamp's centre, in σ per pixel."""
    ring = np.floor(radius / width_pix).astype(np.intp)
    rings = [ring == k for k in range(int(np.ceil(max_radius_pix / width_pix))) if (ring == k).any()]
    means = np.stack([scaled[..., inside].mean(axis=-1, dtype=np.float64) for inside in rings], axis=-1)
    return np.arcsinh(means).reshape(len(scaled), -1)


def border_texture(scaled: NDArray[np.float32], min_radius_pix: float) -> NDArray[np.float64]:
    """(n, bands × 3): noise of the pixels outside a radius, and how much less neighbours along x and y differ.

    Noise is 1.4826 × the median absolute deviation, in σ; the others are that of the difference of two neighbours over
    √2 times it, which is √(1 − ρ) for a correlation of ρ. Medians do not see stars.
    """
    outside = _radius(scaled.shape[-2:]) >= min_radius_pix
    noise = _mad_sigma(scaled[..., outside])
    along_x = _mad_sigma(np.diff(scaled, axis=-1)[..., outside[:, 1:] & outside[:, :-1]])
    along_y = _mad_sigma(np.diff(scaled, axis=-2)[..., outside[1:] & outside[:-1]])
    safe = np.where(noise > 0, noise, np.nan) * np.sqrt(2.0)
    return np.nan_to_num(np.concatenate([noise, along_x / safe, along_y / safe], axis=1))


def sky_texture(scaled: NDArray[np.float32], min_radius_pix: float) -> NDArray[np.float64]:
    """(4 n, bands × 5): texture of the four quadrants of each stamp's sky, as rows of their own, quadrant by quadrant.

    Noise beyond a radius as in :func:`border_texture`, and how much less neighbours differ along x, y and both
    diagonals. A turn swaps x with y, a mirror the diagonals.
    """
    outside = _radius(scaled.shape[-2:]) >= min_radius_pix
    rows, columns = scaled.shape[-2:]
    right, upper = np.arange(columns) >= columns // 2, (np.arange(rows) >= rows // 2)[:, None]
    quadrants = [outside & (upper == u) & (right == r) for u in (False, True) for r in (False, True)]
    return np.concatenate([_patch_texture(scaled, inside) for inside in quadrants])


def _patch_texture(scaled: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    noise = _mad_sigma(scaled[..., inside])
    steps = []
    for one, other in _NEIGHBOURS:
        both = inside[one] & inside[other]
        steps.append(_mad_sigma((scaled[..., *other] - scaled[..., *one])[..., both]))
    safe = np.where(noise > 0, noise, np.nan) * np.sqrt(2.0)
    return np.nan_to_num(np.concatenate([noise, *(step / safe for step in steps)], axis=1))


_ALL, _BUT_LAST, _BUT_FIRST = slice(None), slice(None, -1), slice(1, None)
_NEIGHBOURS = (
    ((_ALL, _BUT_LAST), (_ALL, _BUT_FIRST)),
    ((_BUT_LAST, _ALL), (_BUT_FIRST, _ALL)),
    ((_BUT_LAST, _BUT_LAST), (_BUT_FIRST, _BUT_FIRST)),
    ((_BUT_LAST, _BUT_FIRST), (_BUT_FIRST, _BUT_LAST)),
)
"""(rows, columns) of a pixel and of its neighbour along x, along y, and along both diagonals."""


def colours(scaled: NDArray[np.float32], core: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n, bands): asinh of the core's flux of the first band, and its differences from band to band."""
    flux = np.arcsinh(scaled[..., core].sum(axis=-1, dtype=np.float64))
    return np.concatenate([flux[:, :1], np.diff(flux, axis=1)], axis=1)


def asymmetry(scaled: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n, bands): Σ|I − I₁₈₀| / Σ|I|, I₁₈₀ turned by half a turn about the stamp's centre (Conselice 2003)."""
    turned = scaled[..., ::-1, ::-1]
    apart = np.abs(scaled - turned)[..., inside].sum(axis=-1, dtype=np.float64)
    light = np.abs(scaled)[..., inside].sum(axis=-1, dtype=np.float64)
    return apart / np.where(light > 0, light, 1.0)


def _radius(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """(H, W) distance of each pixel from the stamp's centre."""
    rows, columns = shape
    return np.hypot(np.arange(columns) - 0.5 * (columns - 1), (np.arange(rows) - 0.5 * (rows - 1))[:, None])


def _mad_sigma(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """(…) robust standard deviation along the last axis."""
    middle = np.median(values, axis=-1, keepdims=True)
    return _MAD_TO_SIGMA * np.median(np.abs(values - middle), axis=-1).astype(np.float64)
