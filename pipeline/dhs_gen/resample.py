"""Cut, pad and resample images so that flux stays where it is and none is lost.

Images are flux per pixel, index order [..., y, x].

.. warning::
    Resampling keeps the *sum*: the pixels of a coarser image are brighter. Surface brightness (flux per arcsec²) keeps
    its *mean*; convert with :func:`dhs_gen.units.from_surface_brightness` first, and back with the new pixel scale.

.. warning::
    Never resample a source to the survey's pixel before lensing it: magnified pixels show. The lens comes first.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dhs_gen.images import as_image

__all__ = ["bilinear_resample", "overlap_resample", "pad_or_crop_center"]


def pad_or_crop_center(img: ArrayLike, shape: tuple[int, int]) -> NDArray[np.floating]:
    """Pad with zeros or crop, each axis for itself, so that the central pixel stays the central pixel.

    The central pixel of n pixels is number n // 2, counted from 0. Between sides of equal parity the geometric centre
    stays too; between an even and an odd side it cannot, and moves by half a pixel. Padding and cropping back gives
    the image back, whatever the sides.

    Parameters
    ----------
    img
        (..., h, w), finite.
    shape
        (H, W) of the result.

    Returns
    -------
    ndarray
        (..., H, W), a new array; float32 stays float32.

    Raises
    ------
    ValueError
        If the image has no two axes or is not finite, or the shape is not two positive integers.
    """
    image = as_image("img", img)
    try:
        height, width = shape
        sound = height == int(height) >= 1 and width == int(width) >= 1
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        raise ValueError(f"shape must be two positive integers (H, W), got {shape!r}")
    out = np.zeros((*image.shape[:-2], int(height), int(width)), image.dtype)
    take, put = [], []
    for old, new in zip(image.shape[-2:], out.shape[-2:], strict=True):
        shift = new // 2 - old // 2
        first, last = max(0, shift), min(new, old + shift)
        put.append(slice(first, last))
        take.append(slice(first - shift, last - shift))
    out[..., put[0], put[1]] = image[..., take[0], take[1]]
    return out


def bilinear_resample(img: ArrayLike, scale_y: float, scale_x: float) -> NDArray[np.floating]:
    """Resample by any factor about the centre of the image, conserving flux to rounding error.

    A scale is the old pixel scale over the new one (0.168″ → 0.262″: 0.168/0.262 = 0.64): below 1 the result has
    fewer, larger pixels. The new side is ``round(side · scale)``, at least 1; the scale itself is kept exactly, and the
    geometric centre of the image stays the geometric centre. Each axis is treated for itself:

    - scale < 1: exact overlap. An old pixel is a flat square, and its flux is shared among the new pixels in
      proportion to the area that they cover. No old pixel is skipped or counted twice, as point sampling does: a
      point source keeps its flux at every phase.
    - scale = 1: unchanged.
    - scale > 1: the surface brightness is interpolated linearly between the old pixel centres (constant beyond the
      outermost) and integrated over each new pixel. It conserves flux, keeps straight slopes, and never overshoots
      or turns negative.

    Neither knows more than the old pixels do: the light, which went through the old pixel once, goes through it a
    second time (scale < 1) or a second and a third time (scale > 1), and through the new pixel. Each pass through the
    old pixel adds 1/12 old pixel² to the variance along each axis.

    Where the rounded size covers less than the image, by up to a quarter of a new pixel on each side, that strip's flux
    goes to the outermost new pixels. Pad first if light reaches the border.

    Parameters
    ----------
    img
        (..., H, W) flux per pixel, finite; not surface brightness.
    scale_y, scale_x
        Positive and finite.

    Returns
    -------
    ndarray
        (..., round(H·scale_y), round(W·scale_x)), flux per new pixel; computed in float64, float32 if ``img`` is.

    Raises
    ------
    ValueError
        If the image is not finite or has no two axes, or a scale is not positive and finite.
    """
    image = as_image("img", img)
    for name, scale in (("scale_y", scale_y), ("scale_x", scale_x)):
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"{name} must be positive and finite, got {scale!r}")
    rows = _shares(image.shape[-2], float(scale_y))
    cols = _shares(image.shape[-1], float(scale_x))
    return (rows @ image.astype(np.float64) @ cols.T).astype(image.dtype)


def overlap_resample(
    image: NDArray[np.floating], pixscale_arcsec: float, out_side_px: int, out_pixscale_arcsec: float
) -> NDArray[np.float64]:
    """A square image on a given grid of other pixels with the same centre, by exact overlap at every scale.

    Parameters
    ----------
    image
        (F, F) flux per pixel of ``pixscale_arcsec``.
    out_side_px, out_pixscale_arcsec
        Grid of the result. Where it reaches further than the image it is 0; where it is smaller, flux is cut off.

    Returns
    -------
    ndarray
        (S, S) flux per pixel; the sum is that of the image if the grid covers it.
    """
    side = image.shape[0]
    new_pixel = out_pixscale_arcsec / pixscale_arcsec
    edges = 0.5 * (side - 1) + (np.arange(out_side_px + 1) - 0.5 * out_side_px)[:, None] * new_pixel
    shares = np.diff(_covered(edges, side), axis=0)
    return shares @ np.asarray(image, dtype=np.float64) @ shares.T


def _shares(n_old: int, scale: float) -> NDArray[np.float64]:
    """(new, old): the share of each old pixel's flux that each new pixel takes; every column sums to 1."""
    n_new = max(1, round(n_old * scale))
    if scale == 1:
        return np.eye(n_old)
    centre = 0.5 * (n_old - 1)
    edges = centre + (np.arange(n_new + 1) - 0.5 * n_new) / scale  # in old pixels, whose centres are 0, 1, …
    edges[0], edges[-1] = -0.5, n_old - 0.5
    edges = np.clip(edges, -0.5, n_old - 0.5)[:, None]
    if scale < 1:
        below = _covered(edges, n_old)
    else:
        inner = np.clip(edges, 0.0, n_old - 1.0)
        below = _below_triangle(inner - np.arange(n_old))
        below[:, :1] += np.minimum(edges, 0.0)
        below[:, -1:] += np.maximum(edges - (n_old - 1.0), 0.0)
    return np.diff(below, axis=0)


def _covered(edges: NDArray[np.float64], n_old: int) -> NDArray[np.float64]:
    """(edges, old): the part of each old pixel below each edge (a column), both in old pixels with centres 0, 1, …"""
    return np.clip(edges - np.arange(n_old) + 0.5, 0.0, 1.0)


def _below_triangle(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """∫ of the unit triangle max(0, 1 − |t|) up to u."""
    u = np.clip(u, -1.0, 1.0)
    return np.where(u < 0, 0.5 * (1.0 + u) ** 2, 1.0 - 0.5 * (1.0 - u) ** 2)
