"""Resampling to the survey's pixels by exact overlap: every pixel gives its flux to the pixels that it lies under."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["overlap_resample"]


def overlap_resample(
    image: NDArray[np.floating], pixscale_arcsec: float, out_side_px: int, out_pixscale_arcsec: float
) -> NDArray[np.float64]:
    """A square image on other pixels, with the same centre ((n − 1)/2 of both); flux per pixel.

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
    weights = _overlap(image.shape[0], pixscale_arcsec, out_side_px, out_pixscale_arcsec)
    return weights @ np.asarray(image, dtype=np.float64) @ weights.T


def _overlap(n_in: int, scale_in: float, n_out: int, scale_out: float) -> NDArray[np.float64]:
    """(n_out, n_in): the fraction of each input pixel's length that lies in each output pixel."""
    edges_in = (np.arange(n_in + 1) - n_in / 2) * scale_in
    edges_out = (np.arange(n_out + 1) - n_out / 2) * scale_out
    low = np.maximum(edges_in[None, :-1], edges_out[:-1, None])
    high = np.minimum(edges_in[None, 1:], edges_out[1:, None])
    return np.maximum(high - low, 0.0) / scale_in
