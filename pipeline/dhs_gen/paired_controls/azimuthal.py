"""Permutation of pixels within annuli: the radial profile stays to the last bit, the azimuthal structure goes.

Annulus k holds the pixels whose centres lie at k ≤ r/width < k + 1 from a sub-pixel centre; those that the edge of the
image cuts are permuted among the pixels that are left. Pixels change places and never values, so each annulus keeps
its flux, its histogram and, as all bands move together, the colours of its pixels.

Light is shuffled, never host + light: the host's own ellipticity and the correlation of its noise would be scrambled
with it, and tell the classes apart.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["annulus_index", "annulus_permutation", "shuffle_annuli", "shuffled_difference"]

_Float = TypeVar("_Float", bound=np.floating)


def annulus_index(shape: tuple[int, int], centre_xy_pix: tuple[float, float], width_pix: float) -> NDArray[np.intp]:
    """(H, W) number of the annulus that holds each pixel, from 0.

    Parameters
    ----------
    shape
        (rows, columns).
    centre_xy_pix
        (column, row) of the centre, from 0; on the image or off it.
    width_pix
        Width of the annuli in pixels, positive.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    if not (math.isfinite(width_pix) and width_pix > 0):
        raise ValueError(f"width_pix must be positive and finite, got {width_pix!r}")
    return (distance_pix(shape, centre_xy_pix) / width_pix).astype(np.intp)


def annulus_permutation(
    shape: tuple[int, int], centre_xy_pix: tuple[float, float], width_pix: float, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Flat indices that permute pixels within annuli.

    Parameters
    ----------
    shape, centre_xy_pix, width_pix
        As of :func:`annulus_index`.
    rng
        Consumed by one draw per pixel, whatever the annuli.

    Returns
    -------
    ndarray
        (H·W,) such that pixel i of the shuffled image is pixel ``order[i]`` of the image: ``image.ravel()[order]``.
        Uniform over the permutations of each annulus, independent between annuli.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    annulus = annulus_index(shape, centre_xy_pix, width_pix).ravel()
    order = np.empty(annulus.size, dtype=np.intp)
    order[np.argsort(annulus, kind="stable")] = np.lexsort((rng.random(annulus.size), annulus))
    return order


def shuffle_annuli(
    layers: NDArray[_Float], centre_xy_pix: tuple[float, float], width_pix: float, rng: np.random.Generator
) -> NDArray[_Float]:
    """Permute pixels within annuli, in the same way on every layer.

    Parameters
    ----------
    layers
        (..., H, W); any unit. Values are moved, not touched: NaN may be among them.
    centre_xy_pix, width_pix, rng
        As of :func:`annulus_permutation`.

    Returns
    -------
    ndarray
        Same shape and dtype.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    if layers.ndim < 2:
        raise ValueError(f"layers must have shape (..., H, W), got {layers.shape}")
    rows, columns = layers.shape[-2:]
    return permuted(layers, annulus_permutation((rows, columns), centre_xy_pix, width_pix, rng))


def shuffled_difference(
    positive: NDArray[np.floating],
    control: NDArray[_Float],
    centre_xy_pix: tuple[float, float],
    width_pix: float,
    rng: np.random.Generator,
) -> NDArray[_Float]:
    """Hard negative of a finished pair: control + the shuffled difference of positive and control.

    The difference is the arc with its noise, so both are moved together. It is found in float64 and the result rounded
    once: pixels where positive and control agree and to which no light is moved keep the control's bits.

    Parameters
    ----------
    positive, control
        (bands, H, W), nanomaggy/pix: the same pixels with the arc and without.
    centre_xy_pix, width_pix, rng
        As of :func:`annulus_permutation`; the centre is that of the lens.

    Returns
    -------
    ndarray
        (bands, H, W) in the dtype of ``control``.

    Raises
    ------
    ValueError
        If the shapes differ, are not (bands, H, W), or an argument is out of range.
    """
    if positive.ndim != 3 or positive.shape != control.shape:
        raise ValueError(
            f"positive and control must have one shape (bands, H, W), got {positive.shape} and {control.shape}"
        )
    light = positive.astype(np.float64) - control.astype(np.float64)
    moved = shuffle_annuli(light, centre_xy_pix, width_pix, rng)
    lit = (control.astype(np.float64) + moved).astype(control.dtype)
    return np.where(moved == 0, control, lit)  # −0.0 + 0.0 would be 0.0


def permuted(layers: NDArray[_Float], order: NDArray[np.intp]) -> NDArray[_Float]:
    """(..., H, W) with the pixels of each layer in the order of :func:`annulus_permutation`."""
    flat = layers.reshape(*layers.shape[:-2], order.size)
    return flat[..., order].reshape(layers.shape)


def distance_pix(shape: tuple[int, int], centre_xy_pix: tuple[float, float]) -> NDArray[np.float64]:
    """(H, W) distance of each pixel's centre from ``centre_xy_pix``, (column, row) from 0, in pixels.

    Raises
    ------
    ValueError
        If the shape is not that of an image or the centre is not finite.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape must be (rows, columns), each positive, got {shape!r}")
    x, y = centre_xy_pix
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"centre_xy_pix must be finite, got {centre_xy_pix!r}")
    rows, columns = shape
    return np.hypot(np.arange(columns) - x, (np.arange(rows) - y)[:, None])
