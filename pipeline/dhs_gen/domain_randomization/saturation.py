"""A saturated star: clipped core, bleed trail, wings, diffraction spikes.

Light outside the core follows the PSF; the core is clipped at the level the profile has at its rim, and what does not
fit into the pixels spills along the CCD's columns. DECam's columns lie east-west, so trails run along the rows of a
coadd: the masked columns in the weight maps of the test tile show it. In a coadd of which every exposure is saturated
a pixel has no weight and a painted value (legacypipe ``coadds.py`` paints 10 nanomaggies), and MASKBITS says SATUR and
ALLMASK. A star of r = 14 at 1.1" peaks at about 100 nanomaggies per pixel; a DECam pixel is full at about 22
(1.6e5 e⁻ and 7300 e⁻ per nanomaggy).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

WING_RADIUS_R0 = 5.0
"""Where ``sat_amp`` is measured, in radii of the saturated core."""
_TRAIL_END_FRACTION = 0.4
"""Brightness of a trail's end over that of its start."""
_MASK_GROWTH_PIX = 1


@dataclass(frozen=True)
class SaturatedStar:
    """Where a star lies and how bright its wings are.

    Parameters
    ----------
    x_pix, y_pix
        Centre, (column, row) from 0.
    wing_sigma
        Brightness at ``5 r0_pix`` in MAD sigmas of the band that it saturates.
    r0_pix
        Radius of the saturated core.
    trail_pix
        Lengths of the bleed trail on its two sides, from the centre.
    bleed_angle_deg, spike_angle_deg, spike_fraction
        As in ``ArtifactConfig``.
    """

    x_pix: float
    y_pix: float
    wing_sigma: float
    r0_pix: float
    trail_pix: tuple[float, float]
    bleed_angle_deg: float
    spike_angle_deg: float
    spike_fraction: float


@dataclass(frozen=True)
class StarPsf:
    """Moffat wings of a star: FWHM in pixels, slope, ellipticity (a − b)/(a + b) and its angle."""

    fwhm_pix: float
    beta: float
    e: float = 0.0
    phi_rad: float = 0.0

    def profile(self, dx: NDArray[np.float64], dy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Brightness over that of the centre."""
        cos, sin, q = math.cos(self.phi_rad), math.sin(self.phi_rad), (1.0 - self.e) / (1.0 + self.e)
        along, across = dx * cos + dy * sin, dy * cos - dx * sin
        return self._of(q * along**2 + across**2 / q)

    def at(self, radius_pix: float) -> float:
        """The profile at a circularised radius."""
        return float(self._of(np.array(radius_pix**2)))

    def _of(self, r2: NDArray[np.float64]) -> NDArray[np.float64]:
        alpha2 = self.fwhm_pix**2 / (4.0 * (2.0 ** (1.0 / self.beta) - 1.0))
        return np.exp(-self.beta * np.log1p(r2 / alpha2))


@dataclass(frozen=True, eq=False)
class StarLayer:
    """What a star does to one band.

    Parameters
    ----------
    light
        (rows, columns) light to be added.
    painted
        Saturated pixels: they hold ``paint`` whatever else is there.
    paint
        Value of the painted pixels; 0 elsewhere.
    masked
        Painted pixels and their neighbours, which lose their weight.
    """

    light: NDArray[np.float64]
    painted: NDArray[np.bool_]
    paint: NDArray[np.float64]
    masked: NDArray[np.bool_]


def draw_saturated_star(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    amp_sigma: float,
    r0_pix: float,
    trail_pix: tuple[float, float],
    clear_radius_pix: float,
    bleed_angle_deg: float,
    spike_angle_deg: float,
    spike_fraction: float,
) -> SaturatedStar:
    """A star somewhere on an image of that shape, but not on its centre: no galaxy is catalogued under a star."""
    amplitude = amp_sigma * (0.5 + rng.random())
    trail = (float(rng.uniform(*trail_pix)), float(rng.uniform(*trail_pix)))
    half_x, half_y = 0.5 * shape[1], 0.5 * shape[0]
    radius = min(clear_radius_pix, 0.9 * min(half_x, half_y))
    dx = dy = 0.0
    while math.hypot(dx, dy) < radius or (dx == 0.0 == dy):
        dx, dy = float(rng.uniform(-half_x, half_x)), float(rng.uniform(-half_y, half_y))
    return SaturatedStar(
        x_pix=0.5 * (shape[1] - 1) + dx,
        y_pix=0.5 * (shape[0] - 1) + dy,
        wing_sigma=float(amplitude),
        r0_pix=r0_pix,
        trail_pix=trail,
        bleed_angle_deg=bleed_angle_deg,
        spike_angle_deg=spike_angle_deg,
        spike_fraction=spike_fraction,
    )


def saturation_level_sigma(star: SaturatedStar, psf: StarPsf) -> float:
    """Brightness of the clipped core in MAD sigmas."""
    return star.wing_sigma * psf.at(star.r0_pix) / psf.at(WING_RADIUS_R0 * star.r0_pix)


def render_saturated(
    star: SaturatedStar, shape: tuple[int, int], shift_pix: tuple[float, float], psf: StarPsf, level: float
) -> StarLayer:
    """The star, moved by (x, y) pixels, in the band that it saturates at ``level`` (image units per pixel)."""
    dx, dy = _offsets(star, shape, shift_pix)
    light = _light(star, dx, dy, psf, level / psf.at(star.r0_pix))
    bleed = math.radians(star.bleed_angle_deg)
    along, across = dx * math.cos(bleed) + dy * math.sin(bleed), dy * math.cos(bleed) - dx * math.sin(bleed)
    part = np.abs(along) / np.where(along < 0, *star.trail_pix)
    half_width = 0.5 + max(star.r0_pix - 0.5, 0.0) * np.square(1.0 - np.minimum(part, 1.0))
    trail = (part <= 1.0) & (np.abs(across) <= half_width)
    core = light >= level
    fading = level * (1.0 - (1.0 - _TRAIL_END_FRACTION) * np.square(np.minimum(part, 1.0)))
    painted = core | trail
    paint = np.where(core, level, np.where(trail, np.maximum(fading, np.minimum(light, level)), 0.0))
    masked = binary_dilation(painted, iterations=_MASK_GROWTH_PIX) if painted.any() else painted
    return StarLayer(np.where(painted, 0.0, light), painted, paint, masked)


def render_unsaturated(
    star: SaturatedStar, shape: tuple[int, int], shift_pix: tuple[float, float], psf: StarPsf, peak: float
) -> StarLayer:
    """The same star in a band where it stays below saturation, of that peak (image units per pixel)."""
    light = _light(star, *_offsets(star, shape, shift_pix), psf, peak)
    nothing = np.zeros(shape, dtype=bool)
    return StarLayer(light, nothing, np.zeros(shape), nothing)


def _offsets(
    star: SaturatedStar, shape: tuple[int, int], shift_pix: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    return columns - (star.x_pix + shift_pix[0]), rows - (star.y_pix + shift_pix[1])


def _light(
    star: SaturatedStar, dx: NDArray[np.float64], dy: NDArray[np.float64], psf: StarPsf, peak: float
) -> NDArray[np.float64]:
    """PSF wings and four spikes that fall off as 1/r² along their length and are as wide as the PSF."""
    light = peak * psf.profile(dx, dy)
    if star.spike_fraction > 0:
        reference = WING_RADIUS_R0 * star.r0_pix
        bright = star.spike_fraction * peak * psf.at(reference)
        width2 = 2.0 * (psf.fwhm_pix / 2.3548) ** 2
        for angle in (star.spike_angle_deg, star.spike_angle_deg + 90.0):
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            along, across = dx * cos + dy * sin, dy * cos - dx * sin
            falling = bright * reference**2 / np.maximum(np.square(along), reference**2)
            # Inside the reference radius the spike is as bright as at it: lost under the wings.
            light += falling * np.exp(-np.square(across) / width2)
    return light
