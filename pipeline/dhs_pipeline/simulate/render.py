"""From a scene to the pixels of one band: model, saturation, coverage, noise, inverse variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from dhs_pipeline.config.base import Band
from dhs_pipeline.simulate.noise import exposure_map, unit_noise
from dhs_pipeline.simulate.profiles import TRUNCATION_RE, Ellipse, draw, sersic_transform
from dhs_pipeline.simulate.psf import MoffatSolver, psfsize_map, solve_moffat
from dhs_pipeline.simulate.scene import Scene, Source
from dhs_pipeline.simulate.settings import BrickSettings, SimulationSettings

_SMALLEST_STAMP_RADIUS_PX = 10
_EXPONENTIAL_EXTENT_RE = 4.5
_ALIASING_MATTERS_SIGMA = 3000.0
"""Flux over sky sigma above which aliasing (3e-5 of the flux) would show."""


@dataclass(frozen=True)
class Stamp:
    """Noiseless image of one source in one band, and where its first pixel lies in the brick."""

    pixels: NDArray[np.float64]
    x0_px: int
    y0_px: int

    def overlap(self, n: int) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
        """Slices of an (n, n) brick and of the stamp that coincide, or None."""
        h, w = self.pixels.shape
        y_low, y_high = max(self.y0_px, 0), min(self.y0_px + h, n)
        x_low, x_high = max(self.x0_px, 0), min(self.x0_px + w, n)
        if y_low >= y_high or x_low >= x_high:
            return None
        in_stamp = (
            slice(y_low - self.y0_px, y_high - self.y0_px),
            slice(x_low - self.x0_px, x_high - self.x0_px),
        )
        return (slice(y_low, y_high), slice(x_low, x_high)), in_stamp


@dataclass(frozen=True)
class BandMaps:
    """Maps of one band, all (N, N): nanomaggy, 1/nanomaggy^2, arcsec, counts. ``sky_ivar``: sky alone."""

    image: NDArray[np.float32]
    invvar: NDArray[np.float32]
    psfsize: NDArray[np.float32]
    nexp: NDArray[np.int16]
    saturated: NDArray[np.bool_]
    sky_ivar: NDArray[np.float64]
    noise: NDArray[np.float64]
    host_stamps: tuple[Stamp, ...]


def render_band(brick: BrickSettings, scene: Scene, band: Band, settings: SimulationSettings) -> BandMaps:
    """Pixels of one band of a brick; deterministic."""
    psfsize = psfsize_map(brick, band, settings)
    solver = solve_moffat(band, brick, settings)
    stamps = [draw_source(source, band, psfsize, solver, settings) for source in scene.sources]
    model = _sum_of(stamps, settings.brick_size_px)
    model, saturated = _saturate(model, scene, settings)

    nexp = exposure_map(brick, band, settings)
    if band == brick.uncovered_band:
        nexp[:, scene.strip_x0_px : scene.strip_x0_px + settings.uncovered_strip_px] = 0
    uncovered = nexp == 0
    saturated &= ~uncovered
    nexp[saturated] = 0  # masked in every exposure

    sky_ivar, variance = _variances(model, nexp, band, settings)
    noise = unit_noise(brick, band, settings) * np.sqrt(variance)
    image = np.where(nexp > 0, model + noise, np.where(saturated, model, 0.0))
    hosts = tuple(s for s, source in zip(stamps, scene.sources, strict=True) if source.kind == "host")
    return BandMaps(
        image=image.astype(np.float32),
        invvar=np.where(nexp > 0, 1.0 / np.where(nexp > 0, variance, 1.0), 0.0).astype(np.float32),
        psfsize=np.where(nexp > 0, psfsize, 0.0).astype(np.float32),
        nexp=nexp,
        saturated=saturated,
        sky_ivar=sky_ivar,
        noise=noise,
        host_stamps=hosts,
    )


def draw_source(
    source: Source,
    band: Band,
    psfsize: NDArray[np.float64],
    solver: MoffatSolver,
    settings: SimulationSettings,
) -> Stamp:
    """Draw one source with the PSF at its position; nanomaggies per pixel."""
    pix, n, flux = settings.pixscale_arcsec, settings.brick_size_px, source.flux_nmgy[band]
    x, y = round(source.x_px), round(source.y_px)
    size = float(psfsize[np.clip(y, 0, n - 1), np.clip(x, 0, n - 1)])
    level = settings.psf.wing_cut_sigma * settings.noise.sky_sigma_nmgy[band]
    extent_re = _EXPONENTIAL_EXTENT_RE if source.sersic_n == 1.0 else TRUNCATION_RE
    wing = solver.wing_radius_px(flux, size, level, pix)
    radius = int(np.clip(wing + extent_re * source.shape_r_arcsec / pix, _SMALLEST_STAMP_RADIUS_PX, n // 2))
    galaxy = None
    if source.sersic_n > 0:
        galaxy = Ellipse(sersic_transform(source.sersic_n), source.shape_r_arcsec, source.e1, source.e2)
    offset = (source.x_px - x, source.y_px - y)
    oversample = 2 if flux > _ALIASING_MATTERS_SIGMA * settings.noise.sky_sigma_nmgy[band] else 1
    unit = draw(radius, offset, solver.alpha_arcsec(size), solver.transform, galaxy, pix, oversample)
    return Stamp(flux * unit, x - radius, y - radius)


def _sum_of(stamps: list[Stamp], n: int) -> NDArray[np.float64]:
    total = np.zeros((n, n))
    for stamp in stamps:
        if (where := stamp.overlap(n)) is not None:
            total[where[0]] += stamp.pixels[where[1]]
    return total


def _saturate(
    model: NDArray[np.float64], scene: Scene, settings: SimulationSettings
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Clip at full well; what is lost fills a trail along the row of the star."""
    star, n = settings.bright_stars, settings.brick_size_px
    full = star.saturation_nmgy_per_px
    saturated = model >= full
    excess = float(np.sum(model[saturated] - full))
    clipped = np.minimum(model, full)
    total = sum(s.flux_nmgy["r"] for s in scene.of_kind("bright_star"))
    for source in scene.of_kind("bright_star"):
        share = excess * source.flux_nmgy["r"] / total
        half = round(0.5 * share / (full * star.bleed_width_px))
        x, y = round(source.x_px), round(source.y_px)
        y_low = max(y - star.bleed_width_px // 2, 0)
        trail = (slice(y_low, y_low + star.bleed_width_px), slice(max(x - half, 0), min(x + half + 1, n)))
        if half > 0:
            fading = 1.0 - np.abs(np.arange(trail[1].start, trail[1].stop) - x) / (half + 1.0)
            clipped[trail], saturated[trail] = np.maximum(clipped[trail], full * fading), True
    if saturated.any() and star.saturation_grow_px > 0:
        saturated = binary_dilation(saturated, iterations=star.saturation_grow_px)
    return clipped, saturated


def _variances(
    model: NDArray[np.float64], nexp: NDArray[np.int16], band: Band, settings: SimulationSettings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sky inverse variance (0 without exposures) and variance of sky plus object photons, nanomaggy^2."""
    per_exposure_ivar = 1.0 / (settings.noise.sky_sigma_nmgy[band] ** 2 * settings.noise.n_exposures[band])
    gain = settings.noise.electrons_per_nmgy_per_exposure[band]
    exposures = np.maximum(nexp, 1)
    variance = 1.0 / (exposures * per_exposure_ivar) + np.maximum(model, 0.0) / (exposures * gain)
    return np.asarray(nexp * per_exposure_ivar, dtype=np.float64), variance
