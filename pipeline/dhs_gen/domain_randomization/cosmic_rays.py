"""Residuals of cosmic rays on a coadd.

DECam's CCDs are 250 µm thick with 15 µm pixels (DECam characteristics page). In such CCDs muons leave straight
tracks, low-energy electrons (Compton recoils of natural radioactivity) wandering ones, "worms" (Groom 2002,
Exp. Astron. 14, 45); a muon that comes in steeply leaves a spot. A muon at angle θ from the normal crosses
250 µm · tan θ / 15 µm = 16.7 tan θ pixels: 8 to 24 px is θ = 26° to 55°. Charge spreads on its way to the gates, so a
track is wider at the end that lies deeper (diffusion of up to about 7 µm: from memory). A hit belongs to one exposure;
its charge is resampled with Lanczos-3 like any pixel of that exposure, with its negative lobes, and is never
convolved with the PSF: it is sharper than a star. The dilution by 1/nexp is contained in its amplitude, which is given
in sigmas of the coadd. The survey masks what differs from the other exposures by 5 sigma after smoothing
(legacypipe ``outliers.py``); what survives is unmasked, and so is this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

_STEP_PIX = 0.1
_DIFFUSION_PIX = (0.1, 0.45)
"""Gaussian sigma of the charge cloud at the gates and at the far side of the CCD."""
_STRAGGLING_SHAPE = 4.0
"""Shape of the gamma distribution of the charge per pixel of path."""
_WANDER_RAD_PER_SQRT_PIX = 0.25
_SPOT_LENGTH_PIX = (0.5, 2.0)
_LANCZOS_ORDER = 3


@dataclass(frozen=True, eq=False)
class CosmicRay:
    """One hit.

    Parameters
    ----------
    kind
        "track", "worm" or "spot".
    x_pix, y_pix
        Middle of the path, (column, row) from 0.
    length_pix
        Length of the path.
    amplitude_sigma
        Brightest pixel in MAD sigmas.
    path_pix
        (steps, 2) positions relative to the middle.
    charge, diffusion_pix
        (steps,) relative charge and sigma of its cloud.
    phase_pix
        Where the exposure's pixel grid lies on the coadd's, (x, y) in [−0.5, 0.5).
    """

    kind: str
    x_pix: float
    y_pix: float
    length_pix: float
    amplitude_sigma: float
    path_pix: NDArray[np.float64]
    charge: NDArray[np.float64]
    diffusion_pix: NDArray[np.float64]
    phase_pix: tuple[float, float]


def draw_cosmic_ray(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    amp_sigma: float,
    length_pix: tuple[float, float],
    worm_fraction: float,
    spot_fraction: float,
) -> CosmicRay:
    """A hit somewhere on an image of that shape."""
    u = rng.random()
    kind = "spot" if u < spot_fraction else "worm" if u < spot_fraction + worm_fraction else "track"
    length = float(rng.uniform(*(_SPOT_LENGTH_PIX if kind == "spot" else length_pix)))
    amplitude = amp_sigma * (0.5 + rng.random())
    x, y = rng.uniform(-0.5, shape[1] - 0.5), rng.uniform(-0.5, shape[0] - 0.5)
    phase = (float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.5, 0.5)))
    steps = max(round(length / _STEP_PIX), 2)
    along = (np.arange(steps) + 0.5) / steps
    path = _path(rng, kind, length, steps)
    charge = np.repeat(rng.gamma(_STRAGGLING_SHAPE, size=math.ceil(length) + 1), round(1 / _STEP_PIX))[:steps]
    if kind == "worm":
        charge = charge * (1.0 + np.clip((along - 0.8) / 0.2, 0.0, 1.0))  # a stopping electron loses more per pixel
        diffusion = np.full(steps, float(rng.uniform(*_DIFFUSION_PIX)))
    else:
        diffusion = np.hypot(_DIFFUSION_PIX[0], _DIFFUSION_PIX[1] * np.sqrt(along))  # σ² grows with the drift length
    return CosmicRay(kind, float(x), float(y), length, float(amplitude), path, charge, diffusion, phase)


def render_cosmic_ray(ray: CosmicRay, shape: tuple[int, int], shift_pix: tuple[float, float]) -> NDArray[np.float64]:
    """The hit, moved by (x, y) pixels, on an image of that shape; its brightest pixel, on or off the image, is 1.

    The exposure's pixels are integrated, then resampled on the coadd's by Lanczos-3.
    """
    x = ray.x_pix + shift_pix[0] + ray.path_pix[:, 0]
    y = ray.y_pix + shift_pix[1] + ray.path_pix[:, 1]
    reach = math.ceil(4 * float(ray.diffusion_pix.max())) + _LANCZOS_ORDER + 2
    columns = np.arange(math.floor(x.min()) - reach, math.ceil(x.max()) + reach + 1)
    rows = np.arange(math.floor(y.min()) - reach, math.ceil(y.max()) + reach + 1)
    in_x = _in_pixels(columns + ray.phase_pix[0], x, ray.diffusion_pix)
    in_y = _in_pixels(rows + ray.phase_pix[1], y, ray.diffusion_pix)
    exposure = (in_y * ray.charge[:, None]).T @ in_x
    box = _resample_rows(_resample_rows(exposure, ray.phase_pix[1]).T, ray.phase_pix[0]).T
    image = np.zeros(shape)
    into, out_of = _overlap(rows, shape[0]), _overlap(columns, shape[1])
    if into is not None and out_of is not None:
        image[into[0], out_of[0]] = box[into[1], out_of[1]] / box.max()
    return image


def _path(rng: np.random.Generator, kind: str, length_pix: float, steps: int) -> NDArray[np.float64]:
    step = length_pix / steps
    heading = np.full(steps, rng.uniform(0.0, 2.0 * np.pi))
    if kind == "worm":
        heading += np.cumsum(rng.normal(0.0, _WANDER_RAD_PER_SQRT_PIX * math.sqrt(step), steps))
    path = np.cumsum(step * np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    return path - 0.5 * (path.min(axis=0) + path.max(axis=0))


def _in_pixels(
    centres: NDArray[np.float64], positions: NDArray[np.float64], sigma: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(positions, centres) fraction of each Gaussian cloud that falls in each pixel, along one axis."""
    edges = np.append(centres - 0.5, centres[-1] + 0.5)
    below = erf((edges[None, :] - positions[:, None]) / (math.sqrt(2.0) * sigma[:, None]))
    return 0.5 * np.diff(below, axis=1)


def _resample_rows(exposure: NDArray[np.float64], phase_pix: float) -> NDArray[np.float64]:
    """Value at i of rows that lie at i + phase, by Lanczos-3 with unit sum."""
    taps = np.arange(-_LANCZOS_ORDER, _LANCZOS_ORDER + 1)
    distance = taps + phase_pix
    weight = np.where(np.abs(distance) < _LANCZOS_ORDER, np.sinc(distance) * np.sinc(distance / _LANCZOS_ORDER), 0.0)
    weight /= weight.sum()
    padded = np.pad(exposure, ((_LANCZOS_ORDER, _LANCZOS_ORDER), (0, 0)))
    n = exposure.shape[0]
    return sum((w * padded[k : k + n] for k, w in enumerate(weight)), np.zeros_like(exposure))


def _overlap(index: NDArray[np.int64], size: int) -> tuple[slice, slice] | None:
    """Where a run of pixel numbers lies on an axis of that size, and which part of the run that is."""
    low, high = max(int(index[0]), 0), min(int(index[-1]) + 1, size)
    return (slice(low, high), slice(low - int(index[0]), high - int(index[0]))) if low < high else None
