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

from dhs_gen.domain_randomization.scale import mad_sigma

_FILL_SIGMA_PIX = 2.0
_CAP_SIGMA, _CAP_REACH_PIX, _CAP_DECADE_PIX = 5.0, 12, 4.0


def split_shift(shift_pix: float) -> tuple[int, float]:
    """Whole pixels and the rest, which lies in [−0.5, 0.5)."""
    whole = math.floor(shift_pix + 0.5)
    return whole, shift_pix - whole


def shift_image(image: NDArray[np.floating], dx_pix: float, dy_pix: float) -> NDArray[np.float64]:
    """Move the content of an image by (dx, dy) pixels: out(x, y) = image(x − dx, y − dy).

    Whole pixels are moved as they are; what enters over the border is mirrored. The sub-pixel rest is a Fourier shift
    of the image's periodic component (Moisan 2011, J. Math. Imaging Vis. 39, 161): the image less a harmonic function
    that takes up the jumps between opposite borders and is smooth enough inside for linear interpolation. Nothing
    rings at the border, and the noise keeps its power. Two things that would not do: a mirrored margin (a pixel and
    its mirror image enter the sinc with opposite signs, which takes 1.4 % of the variance at half a pixel), and an
    even number of pixels (its Nyquist frequency has no phase to turn, which takes 1 %).

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
    (whole_x, rest_x), (whole_y, rest_y) = split_shift(dx_pix), split_shift(dy_pix)
    moved = _move_whole(image.astype(np.float64), whole_x, whole_y)
    return moved if rest_x == rest_y == 0 else _move_rest(moved, rest_x, rest_y)


def _move_whole(image: NDArray[np.float64], dx_pix: int, dy_pix: int) -> NDArray[np.float64]:
    rows, columns = image.shape
    pads = ((max(dy_pix, 0), max(-dy_pix, 0)), (max(dx_pix, 0), max(-dx_pix, 0)))
    padded = np.pad(image, pads, mode="symmetric")
    return padded[pads[0][1] :, pads[1][1] :][:rows, :columns]


def _move_rest(image: NDArray[np.float64], dx_pix: float, dy_pix: float) -> NDArray[np.float64]:
    rows, columns = image.shape
    odd = np.pad(image, ((0, 1 - rows % 2), (0, 1 - columns % 2)), mode="symmetric")
    fy, fx = scipy.fft.fftfreq(odd.shape[0])[:, None], scipy.fft.rfftfreq(odd.shape[1])[None, :]
    jumps = np.zeros_like(odd)
    jumps[0] += odd[-1] - odd[0]
    jumps[-1] += odd[0] - odd[-1]
    jumps[:, 0] += odd[:, -1] - odd[:, 0]
    jumps[:, -1] += odd[:, 0] - odd[:, -1]
    laplacian = 2.0 * np.cos(2.0 * np.pi * fy) + 2.0 * np.cos(2.0 * np.pi * fx) - 4.0
    laplacian[0, 0] = 1.0
    smooth_spectrum = scipy.fft.rfft2(jumps) / laplacian
    smooth_spectrum[0, 0] = 0.0
    spectrum = scipy.fft.rfft2(odd) - smooth_spectrum
    spectrum *= np.exp(-2j * np.pi * fy * dy_pix) * np.exp(-2j * np.pi * fx * dx_pix)
    moved = scipy.fft.irfft2(spectrum, s=odd.shape)
    moved += _move_linear(scipy.fft.irfft2(smooth_spectrum, s=odd.shape), dx_pix, dy_pix)
    return moved[:rows, :columns]


def _move_linear(image: NDArray[np.float64], dx_pix: float, dy_pix: float) -> NDArray[np.float64]:
    """Linear interpolation for shifts below one pixel; border values continue."""
    for axis, shift in ((0, dy_pix), (1, dx_pix)):
        last = image.shape[axis] - 1
        neighbour = np.clip(np.arange(last + 1) - int(np.sign(shift)), 0, last)
        image = (1.0 - abs(shift)) * image + abs(shift) * image.take(neighbour, axis=axis)
    return image


def shift_stamp(
    image: NDArray[np.float32], good: NDArray[np.bool_], stamp: tuple[slice, slice], dx_pix: float, dy_pix: float
) -> NDArray[np.float32]:
    """As :func:`shift_image` for the survey's pixels of a stamp, with real pixels about it.

    Two kinds of structure are too sharp for a Fourier shift and would ring across the stamp. Pixels without a
    measurement (masked cores, gaps, NaN) are bridged from those around them and get their own value back afterwards: a
    masked pixel is not resampled. Bright sources outside the stamp are capped, the lower the farther out, so that a
    star that is cut by the margin's end does no harm; the noise there stays.

    Parameters
    ----------
    image, good
        (rows, columns) pixels and which of them hold a measurement.
    stamp
        Rows and columns of the stamp in them.
    dx_pix, dy_pix
        Shift along columns and along rows.

    Returns
    -------
    ndarray
        The stamp's pixels, float32.
    """
    if not good.any():
        return image[stamp].copy()
    filled = image if good.all() else _bridged(image, good)
    moved = shift_image(_capped_outside(filled.astype(np.float64), stamp), dx_pix, dy_pix)[stamp]
    return np.where(good[stamp], moved, image[stamp]).astype(np.float32)


def _bridged(image: NDArray[np.float32], good: NDArray[np.bool_]) -> NDArray[np.float64]:
    typical = float(np.median(image[good]))
    weight = gaussian_filter(good.astype(np.float64), _FILL_SIGMA_PIX)
    light = gaussian_filter(np.where(good, image, 0.0).astype(np.float64), _FILL_SIGMA_PIX)
    bridge = np.where(weight > 1e-6, light / np.maximum(weight, 1e-6), typical)
    return np.where(good, image, bridge)


def _capped_outside(values: NDArray[np.float64], stamp: tuple[slice, slice]) -> NDArray[np.float64]:
    """Values outside the stamp within ± 5 sigma, times 10 for every 4 px that they are nearer than 12 px to it."""
    outside = [
        np.maximum(np.maximum(part.start - index, index - (part.stop - 1)), 0)
        for part, index in zip(stamp, np.ogrid[: values.shape[0], : values.shape[1]], strict=True)
    ]
    distance = np.maximum(outside[0], outside[1])
    median, sigma = float(np.median(values[::2, ::2])), mad_sigma(values[::2, ::2])
    cap = _CAP_SIGMA * sigma * 10.0 ** (np.maximum(_CAP_REACH_PIX - distance, 0) / _CAP_DECADE_PIX)
    return np.where(distance > 0, np.clip(values, median - cap, median + cap), values)
