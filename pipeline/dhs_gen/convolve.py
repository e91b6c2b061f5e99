"""Convolution of a stamp with an odd kernel: same shape, nothing wraps around, nothing is rolled."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from dhs_gen.images import as_image

__all__ = ["fft_convolve2d"]


def fft_convolve2d(img: ArrayLike, kernel: ArrayLike) -> NDArray[np.floating]:
    """Convolve with an odd kernel about its central pixel; the sky outside the image is zero.

    The transform covers image and kernel together, so no light comes back on the other side; light that leaves the
    image is lost. The kernel may be larger than the image. A kernel of one lit pixel at its centre gives the image
    back (to rounding: 1e-15 of the largest pixel).

    .. warning::
        The kernels of :mod:`dhs_gen.psf_kernels` contain the pixel. Blur sampled light with them, not an image that is
        already integrated over pixels, and never a survey stamp: its pixels carry the PSF already.

    Parameters
    ----------
    img
        (..., H, W), finite; any unit.
    kernel
        (odd, odd), finite; its sum scales the flux.

    Returns
    -------
    ndarray
        Same shape and unit as ``img``; computed in float64, float32 if ``img`` is.

    Raises
    ------
    ValueError
        If a shape is wrong, a side of the kernel is even, or a pixel is not finite.
    """
    image = as_image("img", img)
    weights = as_image("kernel", kernel, ndim=2)
    if weights.shape[0] % 2 == 0 or weights.shape[1] % 2 == 0:
        raise ValueError(f"kernel must have odd sides, so that it has a central pixel, got {weights.shape}")
    rows, cols = image.shape[-2:]
    shape = [fft.next_fast_len(n + k - 1, real=True) for n, k in zip((rows, cols), weights.shape, strict=True)]
    spectrum = fft.rfft2(image.astype(np.float64), shape) * fft.rfft2(weights.astype(np.float64), shape)
    full = fft.irfft2(spectrum, shape)
    top, left = weights.shape[0] // 2, weights.shape[1] // 2
    return full[..., top : top + rows, left : left + cols].astype(image.dtype)
