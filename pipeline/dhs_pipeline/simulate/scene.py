"""What is on the sky of a simulated brick: hosts, their neighbours, field galaxies, stars. No pixels here.

Positions are 0-indexed pixels as Tractor's bx, by; fluxes are observed (reddened) nanomaggies; ellipticity is
Tractor's: e = (a - b)/(a + b), (e1, e2) = e (cos 2 phi, sin 2 phi), phi from north through east.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dhs_gen.streams import stream
from dhs_gen.units import mag_to_nmgy
from dhs_pipeline.simulate.settings import BrickSettings, Color, LogNormal, SimulationSettings

_MAX_TRIES = 20_000
_MAX_ELLIPTICITY = 0.6
_STELLAR_LOCUS = ([0.0, 0.6, 1.0], [0.25, 1.35, 1.50], [0.05, 0.60, 1.90])
"""Position along the locus, g - r and r - z (AB mag): K dwarfs to M dwarfs; by eye from DECam colours."""


_REDDEST_STAR = ([16.5, 20.0], [0.65, 1.0])
"""r magnitude, and how far along the locus stars of it reach: M dwarfs are faint."""


@dataclass(frozen=True)
class Source:
    """One object. ``sersic_n`` is 0 for a star; ``shape_r_arcsec`` is the half-light semi-major axis."""

    kind: Literal["host", "neighbour", "field", "star", "bright_star"]
    x_px: float
    y_px: float
    mag_r: float
    flux_nmgy: Mapping[str, float]
    sersic_n: float = 0.0
    shape_r_arcsec: float = 0.0
    e1: float = 0.0
    e2: float = 0.0
    z_phot: float = np.nan
    sigma_v_km_s: float = np.nan


@dataclass(frozen=True)
class Scene:
    """Sources of a brick, and the first column of the strip that one band does not cover."""

    sources: tuple[Source, ...]
    strip_x0_px: int

    def of_kind(self, kind: str) -> tuple[Source, ...]:
        return tuple(s for s in self.sources if s.kind == kind)


def build_scene(brick: BrickSettings, settings: SimulationSettings) -> Scene:
    """Draw every source of a brick. Raises ValueError if the hosts do not fit."""
    strip_x0 = _place_strip(brick, settings)
    stars = _bright_stars(brick, settings, strip_x0)
    hosts = _hosts(brick, settings, stars, strip_x0)
    rest = (
        *_neighbours(brick, settings, hosts),
        *_field_galaxies(brick, settings),
        *_field_stars(brick, settings),
    )
    return Scene((*hosts, *stars, *rest), strip_x0)


def mask_radius_px(mag_r: float, settings: SimulationSettings) -> float:
    """Radius of the MEDIUM circle of a star, px; BRIGHT has half of it (legacypipe reference.py)."""
    star = settings.bright_stars
    return star.mask_radius_arcsec * star.mask_radius_base**-mag_r / settings.pixscale_arcsec


def _rng(brick: BrickSettings, settings: SimulationSettings, purpose: str) -> np.random.Generator:
    return stream(brick.name, purpose, salt=str(settings.seed))


def _place_strip(brick: BrickSettings, settings: SimulationSettings) -> int:
    n = settings.brick_size_px
    return int(_rng(brick, settings, "strip").uniform(0.15, 0.30) * n)


def _bright_stars(brick: BrickSettings, settings: SimulationSettings, strip_x0: int) -> tuple[Source, ...]:
    """Right of the strip, far from each other and from the edges."""
    n, star = settings.brick_size_px, settings.bright_stars
    rng = _rng(brick, settings, "bright-stars")
    found: list[Source] = []
    for mag in star.mag_r:
        for _ in range(_MAX_TRIES):
            x, y = rng.uniform(strip_x0 + 0.12 * n, 0.88 * n), rng.uniform(0.12 * n, 0.88 * n)
            if all(np.hypot(s.x_px - x, s.y_px - y) > 0.4 * n for s in found):
                break
        else:
            raise ValueError(f"brick {brick.name}: no room for the bright stars")
        flux = _fluxes(mag, star.color_g_minus_r_mag, star.color_r_minus_z_mag)
        found.append(Source("bright_star", x, y, mag, flux))
    return tuple(found)


def _hosts(
    brick: BrickSettings, settings: SimulationSettings, stars: tuple[Source, ...], strip_x0: int
) -> tuple[Source, ...]:
    h = settings.hosts
    rng = _rng(brick, settings, "hosts")
    positions = _host_positions(brick, settings, stars, strip_x0)
    return tuple(_host(x, y, rng, settings) for x, y in positions[: h.per_brick])


def _host(x: float, y: float, rng: np.random.Generator, settings: SimulationSettings) -> Source:
    h = settings.hosts
    mag = _power_law_mag(rng, h.mag_r, h.mag_r_slope)
    g_r = np.interp(mag, h.color_mag_r, h.color_g_minus_r_mag) + rng.normal(0, h.color_scatter_mag)
    r_z = np.interp(mag, h.color_mag_r, h.color_r_minus_z_mag) + rng.normal(0, h.color_scatter_mag)
    is_ser, n_ser = rng.random() < h.fraction_ser, float(rng.choice(h.sersic_n_of_ser))
    e1, e2 = _ellipticity(rng, h.ellipticity_sigma)
    return Source(
        "host", x, y, mag, _fluxes(mag, float(g_r), float(r_z)),
        sersic_n=n_ser if is_ser else 4.0,
        shape_r_arcsec=_log_normal(rng, h.shape_r_arcsec),
        e1=e1, e2=e2,
        z_phot=float(np.interp(mag, h.mag_r, h.z_phot) + rng.normal(0, h.z_phot_scatter)),
        sigma_v_km_s=_log_normal(rng, h.sigma_v_km_s),
    )  # fmt: skip


def _host_positions(
    brick: BrickSettings, settings: SimulationSettings, stars: tuple[Source, ...], strip_x0: int
) -> list[tuple[float, float]]:
    """Positions clear of stars and strip, but for the few that the settings put on them."""
    h, n = settings.hosts, settings.brick_size_px
    rng = _rng(brick, settings, "host-positions")
    low, high = h.edge_margin_px, n - 1 - h.edge_margin_px
    strip_mid = strip_x0 + 0.5 * settings.uncovered_strip_px
    found = [_beside(stars[0], rng, settings) for _ in range(h.on_bright_star if stars else 0)]
    found += [(strip_mid + rng.uniform(-4, 4), rng.uniform(low, high)) for _ in range(h.on_uncovered_strip)]
    for _ in range(_MAX_TRIES):
        if len(found) >= h.per_brick:
            return found
        x, y = rng.uniform(low, high, size=2)
        clear_of_hosts = all(np.hypot(x - a, y - b) >= h.min_separation_px for a, b in found)
        if (
            clear_of_hosts
            and abs(x - strip_mid) > 50 + settings.uncovered_strip_px
            and _clear_of(stars, x, y, settings)
        ):
            found.append((float(x), float(y)))
    raise ValueError(f"brick {brick.name}: {h.per_brick} hosts do not fit {h.min_separation_px} px apart")


def _beside(star: Source, rng: np.random.Generator, settings: SimulationSettings) -> tuple[float, float]:
    """Inside the BRIGHT circle, off the saturated core."""
    angle, radius = rng.uniform(0, 2 * np.pi), 0.4 * mask_radius_px(star.mag_r, settings)
    return star.x_px + radius * np.cos(angle), star.y_px + radius * np.sin(angle)


def _clear_of(stars: tuple[Source, ...], x: float, y: float, settings: SimulationSettings) -> bool:
    return all(np.hypot(x - s.x_px, y - s.y_px) > mask_radius_px(s.mag_r, settings) + 40 for s in stars)


def _neighbours(brick: BrickSettings, settings: SimulationSettings, hosts: tuple[Source, ...]) -> Iterator[Source]:
    b, f = settings.neighbours, settings.field
    rng = _rng(brick, settings, "neighbours")
    for host in hosts:
        for _ in range(rng.poisson(b.mean_per_host)):
            low, high = np.asarray(b.distance_arcsec) / settings.pixscale_arcsec
            radius, angle = np.sqrt(rng.uniform(low**2, high**2)), rng.uniform(0, 2 * np.pi)
            mag = host.mag_r + b.mag_below_host[0] + np.ptp(b.mag_below_host) * np.sqrt(rng.random())
            x, y = host.x_px + radius * np.cos(angle), host.y_px + radius * np.sin(angle)
            flux = {band: v * 10 ** (-0.4 * (mag - host.mag_r)) for band, v in host.flux_nmgy.items()}
            red = rng.random() < b.fraction_red
            blue_flux = _random_color_flux(rng, mag, settings)
            e1, e2 = _ellipticity(rng, f.ellipticity_sigma)
            size = _field_size(rng, mag, settings)
            yield Source("neighbour", x, y, mag, flux if red else blue_flux, 4.0 if red else 1.0, size, e1, e2)


def _field_galaxies(brick: BrickSettings, settings: SimulationSettings) -> Iterator[Source]:
    f, n = settings.field, settings.brick_size_px
    rng = _rng(brick, settings, "field-galaxies")
    for _ in range(rng.poisson(f.galaxies_per_arcmin2 * _area_arcmin2(settings))):
        x, y = rng.uniform(-0.5, n - 0.5, size=2)
        mag = _power_law_mag(rng, f.galaxy_mag_r, f.galaxy_mag_slope)
        e1, e2 = _ellipticity(rng, f.ellipticity_sigma)
        flux, size = _random_color_flux(rng, mag, settings), _field_size(rng, mag, settings)
        yield Source("field", float(x), float(y), mag, flux, 1.0, size, e1, e2)


def _field_stars(brick: BrickSettings, settings: SimulationSettings) -> Iterator[Source]:
    f, n = settings.field, settings.brick_size_px
    rng = _rng(brick, settings, "field-stars")
    for _ in range(rng.poisson(f.stars_per_arcmin2 * _area_arcmin2(settings))):
        x, y = rng.uniform(-0.5, n - 0.5, size=2)
        mag = _power_law_mag(rng, f.star_mag_r, f.star_mag_slope)
        along, g_r, r_z = _STELLAR_LOCUS
        t = rng.random() * float(np.interp(mag, *_REDDEST_STAR))
        yield Source("star", float(x), float(y), mag, _fluxes(mag, np.interp(t, along, g_r), np.interp(t, along, r_z)))


def _area_arcmin2(settings: SimulationSettings) -> float:
    return (settings.brick_size_px * settings.pixscale_arcsec / 60.0) ** 2


def _random_color_flux(rng: np.random.Generator, mag_r: float, settings: SimulationSettings) -> dict[str, float]:
    def draw(color: Color, shared: float) -> float:
        return color.mean + color.scatter * (0.7 * shared + 0.714 * rng.normal())

    shared = rng.normal()  # red in g - r is red in r - z
    return _fluxes(
        mag_r,
        draw(settings.field.color_g_minus_r_mag, shared),
        draw(settings.field.color_r_minus_z_mag, shared),
    )


def _fluxes(mag_r: float, g_minus_r: float, r_minus_z: float) -> dict[str, float]:
    mags = {"g": mag_r + g_minus_r, "r": mag_r, "z": mag_r - r_minus_z}
    return {band: float(mag_to_nmgy(mag)) for band, mag in mags.items()}


def _power_law_mag(rng: np.random.Generator, limits: tuple[float, float], slope: float) -> float:
    """Magnitude with counts going as 10^(slope m) between the limits."""
    low, high = 10.0 ** (slope * np.asarray(limits))
    return float(np.log10(low + (high - low) * rng.random()) / slope)


def _log_normal(rng: np.random.Generator, law: LogNormal) -> float:
    return float(law.median * 10.0 ** (law.scatter_dex * rng.normal()))


def _field_size(rng: np.random.Generator, mag_r: float, settings: SimulationSettings) -> float:
    f = settings.field
    dex = f.shape_r_dex_per_mag * (mag_r - 24.0) + f.shape_r_scatter_dex * rng.normal()
    return float(np.clip(f.shape_r_arcsec_at_mag24 * 10.0**dex, 0.1, 4.0))


def _ellipticity(rng: np.random.Generator, sigma: float) -> tuple[float, float]:
    e: NDArray[np.float64] = rng.normal(0.0, sigma, size=2)
    e *= min(1.0, _MAX_ELLIPTICITY / max(float(np.hypot(*e)), 1e-12))
    return float(e[0]), float(e[1])
