"""The light centroid of a host on its cutout: windowed, like SExtractor's XWIN_IMAGE, and never silently wrong.

``sep.winpos`` hands back its starting point when there is no light, when everything is masked and when it does
not converge, mostly with flag 0, and a masked patch pulls its answer by up to a pixel. :func:`light_centroid`
turns each of these into a :class:`CentroidError`.

On drawn de Vaucouleurs galaxies (half-light radius 0.6-1.8", seeing 0.95", sky sigma 0.008 nanomaggy) the scatter
per axis is 0.06/0.14/0.24 px at r = 20.0/20.9/21.5, with and without a fainter neighbour at 3-5".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BACKGROUND_INNER_RADIUS_SIGMA = 8.0
"""The background is taken beyond this many window sigmas from the start (4.8" at sigma 0.6")."""

MIN_BACKGROUND_PIX = 100
"""Fewer unmasked pixels do not give a background (its error would exceed a tenth of the sky noise)."""

MIN_SIGNIFICANCE = 5.0
"""Least S/N of the window-weighted flux, against the scatter of the background pixels."""

MAX_MASKED_WEIGHT = 0.05
"""Largest part of the window's weight that may fall on masked pixels.

A masked column through the centre takes 17 %; at 5 % a masked column shifts the centroid by 0.02 px rms, 0.11 at
most, at 10 % by 0.08 px rms, 0.43 at most (300 drawn galaxies).
"""

MAX_RESTART_SHIFT_PIX = 0.02
"""Largest step of a second run from where the first one ended; more means that it had not converged."""

_APERTURE_SIGMA = 4.0  # sep.winpos sums over a circle of this radius
_CLIP_SIGMA = 3.0
_CLIP_ROUNDS = 5


class CentroidError(ValueError):
    """No trustworthy centroid; the message is one line that says what was found."""


def light_centroid(
    image: NDArray[np.floating],
    mask: NDArray[np.bool_],
    x_pix: float,
    y_pix: float,
    window_sigma_pix: float,
    max_shift_pix: float,
) -> tuple[float, float]:
    """Windowed centroid of the light near a starting position.

    Iterates the flux- and Gaussian-weighted mean position (``sep.winpos``, SExtractor's XWIN_IMAGE) on the image
    less a local background: the clipped median of the unmasked pixels beyond ``BACKGROUND_INNER_RADIUS_SIGMA``
    windows from the start.

    Parameters
    ----------
    image
        (rows, columns), any float type and flux unit; masked pixels may hold anything, NaN included.
    mask
        Same shape; true where a pixel must not be used.
    x_pix, y_pix
        Start, column and row from 0 (pixel centres at integers).
    window_sigma_pix
        Sigma of the Gaussian window, pixels.
    max_shift_pix
        Largest accepted distance between start and centroid, pixels.

    Returns
    -------
    tuple of float
        Column and row of the centroid, from 0.

    Raises
    ------
    CentroidError
        If the window leaves the image or too much of it is masked, if an unmasked pixel is not finite, if
        there is no background or no significant light, if the iteration does not converge or shifts too far.
    ValueError
        If image and mask differ in shape.
    """
    if image.shape != mask.shape:
        raise ValueError(f"image {image.shape} and mask {mask.shape} differ in shape")
    _check_window(mask, x_pix, y_pix, window_sigma_pix)
    level, scatter = _background(image, mask, x_pix, y_pix, window_sigma_pix)
    light = np.where(mask, 0.0, image - level)
    x, y = _windowed_position(light, mask, x_pix, y_pix, window_sigma_pix)
    shift_pix = float(np.hypot(x - x_pix, y - y_pix))
    if not shift_pix <= max_shift_pix:
        raise CentroidError(f"centroid is {shift_pix:.2f} px from the start, limit {max_shift_pix:.2f}")
    _check_window(mask, x, y, window_sigma_pix)
    _check_light(light, mask, scatter, x, y, window_sigma_pix)
    again = _windowed_position(light, mask, x, y, window_sigma_pix)
    if not float(np.hypot(again[0] - x, again[1] - y)) <= MAX_RESTART_SHIFT_PIX:
        raise CentroidError(f"centroid does not converge: ({x:.2f}, {y:.2f}), then ({again[0]:.2f}, {again[1]:.2f})")
    return x, y


def _windowed_position(
    light: NDArray[np.float64], mask: NDArray[np.bool_], x_pix: float, y_pix: float, window_sigma_pix: float
) -> tuple[float, float]:
    import sep

    x, y, _ = sep.winpos(light, x_pix, y_pix, window_sigma_pix, mask=mask)
    return float(x), float(y)


def _background(
    image: NDArray[np.floating], mask: NDArray[np.bool_], x_pix: float, y_pix: float, window_sigma_pix: float
) -> tuple[float, float]:
    """Clipped median and scatter (1.4826 MAD) of the unmasked pixels far from the start."""
    far = _distance_squared(image.shape, x_pix, y_pix) > (BACKGROUND_INNER_RADIUS_SIGMA * window_sigma_pix) ** 2
    if not np.isfinite(image[~mask]).all():
        raise CentroidError("unmasked pixels are not finite")
    values = image[far & ~mask].astype(np.float64)
    for _ in range(_CLIP_ROUNDS):
        if values.size < MIN_BACKGROUND_PIX:
            raise CentroidError(f"{values.size} background pixels, at least {MIN_BACKGROUND_PIX} are needed")
        level = _median(values)
        deviation = np.abs(values - level)
        scatter = 1.4826 * _median(deviation)
        values = values[deviation <= _CLIP_SIGMA * scatter]
    return level, scatter


def _median(values: NDArray[np.float64]) -> float:
    """``np.median`` of finite values in a sixth of its time: it partitions about three places, this about one."""
    half = values.size // 2
    parted = np.partition(values, half)
    upper = float(parted[half])
    return upper if values.size % 2 else (float(parted[:half].max()) + upper) / 2


def _check_window(mask: NDArray[np.bool_], x_pix: float, y_pix: float, window_sigma_pix: float) -> None:
    radius = _APERTURE_SIGMA * window_sigma_pix
    rows, columns = mask.shape
    # Written so that a position that is not a number fails too.
    if not (radius <= x_pix <= columns - 1 - radius and radius <= y_pix <= rows - 1 - radius):
        raise CentroidError(f"window of {radius:.1f} px about ({x_pix:.2f}, {y_pix:.2f}) px leaves the image")
    weight = _window(mask.shape, x_pix, y_pix, window_sigma_pix)
    masked = float(weight[mask].sum() / weight.sum())
    if masked > MAX_MASKED_WEIGHT:
        raise CentroidError(f"{masked:.0%} of the window is masked, limit {MAX_MASKED_WEIGHT:.0%}")


def _check_light(
    light: NDArray[np.float64],
    mask: NDArray[np.bool_],
    scatter: float,
    x_pix: float,
    y_pix: float,
    window_sigma_pix: float,
) -> None:
    weight = np.where(mask, 0.0, _window(mask.shape, x_pix, y_pix, window_sigma_pix))
    flux = float((weight * light).sum())
    noise = scatter * float(np.sqrt((weight**2).sum()))
    if flux <= 0 or flux < MIN_SIGNIFICANCE * noise:
        found = f"S/N {flux / noise:.1f}" if noise > 0 else f"flux {flux:g}"
        raise CentroidError(f"no light in the window: {found}, limit {MIN_SIGNIFICANCE:g}")


def _window(shape: tuple[int, ...], x_pix: float, y_pix: float, window_sigma_pix: float) -> NDArray[np.float64]:
    """The Gaussian weight, cut at the radius of ``sep.winpos``."""
    distance2 = _distance_squared(shape, x_pix, y_pix)
    weight = np.exp(-distance2 / (2 * window_sigma_pix**2))
    weight[distance2 > (_APERTURE_SIGMA * window_sigma_pix) ** 2] = 0.0
    return weight


def _distance_squared(shape: tuple[int, ...], x_pix: float, y_pix: float) -> NDArray[np.float64]:
    rows, columns = shape
    return (np.arange(rows) - y_pix)[:, None] ** 2 + (np.arange(columns) - x_pix)[None, :] ** 2
