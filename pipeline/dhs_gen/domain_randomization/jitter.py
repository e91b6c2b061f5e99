"""Astrometric jitter: a band-limited sub-pixel shift that leaves the noise as it is.

Bilinear interpolation at a random phase lowers the standard deviation of uncorrelated noise to 0.71 and correlates
its neighbours, which a network reads as a label. A Fourier shift multiplies every frequency by a phase: power, and
with it the variance and the correlation of stationary noise, stay what they were.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

_MARGIN_PIX = 16
_FLAT_PIX = 4
_FILL_SIGMA_PIX = 2.0


def split_shift(shift_pix: float) -> tuple[int, float]:
    """Whole pixels and the rest, which lies in [−0.5, 0.5)."""
    whole = math.floor(shift_pix + 0.5)
    return whole, shift_pix - whole


def shift_image(image: NDArray[np.floating], dx_pix: float, dy_pix: float) -> NDArray[np.float64]:
    """Move the content of an image by (dx, dy) pixels: out(x, y) = image(x − dx, y − dy).

    The image is continued by its mirror image, which fades to the median over a margin of at least 16 px plus the
    shift, so that nothing jumps at the border or wraps around. Light that moves in over the border is mirrored light.

    Parameters
    ----------
    image
        (rows, columns), finite. Structure narrower than two pixels rings.
    dx_pix, dy_pix
        Shift along columns and along rows.

    Returns
    -------
    ndarray
        Same shape, float64.
    """
    margin = _MARGIN_PIX + math.ceil(max(abs(dx_pix), abs(dy_pix)))
    sizes = [scipy.fft.next_fast_len(n + 2 * margin, real=True) for n in image.shape]
    before = [(size - n) // 2 for size, n in zip(sizes, image.shape, strict=True)]
    pads = [(b, size - n - b) for b, size, n in zip(before, sizes, image.shape, strict=True)]
    median = float(np.median(image))
    padded = np.pad(image.astype(np.float64) - median, pads, mode="symmetric")
    padded *= _taper(pads[0], image.shape[0], dy_pix)[:, None] * _taper(pads[1], image.shape[1], dx_pix)[None, :]
    spectrum = scipy.fft.rfft2(padded)
    spectrum *= _phase(scipy.fft.fftfreq(sizes[0]), dy_pix)[:, None]
    spectrum *= _phase(scipy.fft.rfftfreq(sizes[1]), dx_pix)[None, :]
    moved = scipy.fft.irfft2(spectrum, s=sizes)
    inner = tuple(slice(b, b + n) for b, n in zip(before, image.shape, strict=True))
    return moved[inner] + median


def shift_pixels_with_weight(
    image: NDArray[np.float32], good: NDArray[np.bool_], dx_pix: float, dy_pix: float
) -> NDArray[np.float32]:
    """As :func:`shift_image`, for survey pixels of which some hold no measurement.

    Pixels outside ``good`` (masked cores, gaps, NaN) would ring over their neighbours. They are bridged from the good
    pixels around them before the shift and get their own value back after it: a masked pixel is not resampled.
    """
    if good.all():
        return shift_image(image, dx_pix, dy_pix).astype(np.float32)
    if not good.any():
        return image.copy()
    typical = float(np.median(image[good]))
    weight = gaussian_filter(good.astype(np.float64), _FILL_SIGMA_PIX)
    light = gaussian_filter(np.where(good, image, typical).astype(np.float64) * good, _FILL_SIGMA_PIX)
    bridge = np.where(weight > 1e-6, light / np.maximum(weight, 1e-6), typical)
    moved = shift_image(np.where(good, image, bridge), dx_pix, dy_pix).astype(np.float32)
    return np.where(good, moved, image)


def _phase(frequency: NDArray[np.float64], shift_pix: float) -> NDArray[np.complex128]:
    """exp(−2πi f d); at the Nyquist frequency, where the sign of f means nothing, its real part."""
    phase = np.exp(-2j * np.pi * frequency * shift_pix)
    at_nyquist = np.abs(frequency) == 0.5
    phase[at_nyquist] = np.cos(np.pi * shift_pix)
    return phase


def _taper(pad: tuple[int, int], size: int, shift_pix: float) -> NDArray[np.float64]:
    """1 on the image and near it, falling to 0 at both ends of the padded axis as a cosine."""
    flat = _FLAT_PIX + math.ceil(abs(shift_pix))
    position = np.arange(-pad[0], size + pad[1], dtype=np.float64)
    outside = np.maximum(np.maximum(-position, position - (size - 1)) - flat, 0.0)
    width = max(min(pad) - flat, 1)
    return 0.5 * (1.0 + np.cos(np.pi * np.minimum(outside / width, 1.0)))
