"""What is drawn for one key: one purpose, one random stream.

An artifact that is switched off, or whose strength is 0, draws nothing and moves no other.
"""

from __future__ import annotations

import math

from dhs_gen.domain_randomization.anisotropy import ROUND, Ellipticity, draw_ellipticity
from dhs_gen.domain_randomization.config import ArtifactConfig
from dhs_gen.domain_randomization.cosmic_rays import CosmicRay, draw_cosmic_ray
from dhs_gen.domain_randomization.saturation import SaturatedStar, draw_saturated_star
from dhs_gen.streams import stream


def draw_direction(key: str, salt: str, cfg: ArtifactConfig) -> float | None:
    """Direction in which the background rises, radians; the same in every band."""
    if not cfg.enable_bg_plane or cfg.bg_plane_amp == 0:
        return None
    return float(stream(key, "artifact_background_direction", salt=salt).uniform(0.0, 2.0 * math.pi))


def draw_background_amplitude(key: str, salt: str, band: str, cfg: ArtifactConfig) -> float | None:
    """Height of one band's plane in its MAD sigmas."""
    if not cfg.enable_bg_plane or cfg.bg_plane_amp == 0:
        return None
    return cfg.bg_plane_amp * (0.5 + float(stream(key, "artifact_background", salt=salt, band=band).random()))


def draw_jitter(key: str, salt: str, cfg: ArtifactConfig) -> tuple[float, float]:
    """Shift (x, y) in pixels; the same in every band."""
    if not cfg.enable_astrom_jitter or cfg.jitter_sigma_pix == 0:
        return 0.0, 0.0
    dx, dy = stream(key, "artifact_jitter", salt=salt).normal(0.0, 1.0, 2) * cfg.jitter_sigma_pix
    return float(dx), float(dy)


def draw_psf(key: str, salt: str, band: str, cfg: ArtifactConfig) -> Ellipticity:
    """Ellipticity of one band's PSF."""
    if not cfg.enable_psf_anisotropy or cfg.psf_e_sigma == 0:
        return ROUND
    return draw_ellipticity(stream(key, "artifact_psf", salt=salt, band=band), cfg.psf_e_sigma)


def draw_ray(key: str, salt: str, shape: tuple[int, int], cfg: ArtifactConfig) -> CosmicRay | None:
    """A cosmic ray, or none."""
    if not cfg.enable_cosmic_rays or not _happens(key, "artifact_cosmic_ray", salt, cfg.cosmic_rate):
        return None
    return draw_cosmic_ray(
        stream(key, "artifact_cosmic_ray_shape", salt=salt),
        shape,
        amp_sigma=cfg.cosmic_amp,
        length_pix=cfg.cosmic_length_pix,
        worm_fraction=cfg.cosmic_worm_fraction,
        spot_fraction=cfg.cosmic_spot_fraction,
    )


def draw_star(key: str, salt: str, shape: tuple[int, int], cfg: ArtifactConfig) -> SaturatedStar | None:
    """A saturated star, or none."""
    if not cfg.enable_sat_wings or not _happens(key, "artifact_saturation", salt, cfg.sat_rate):
        return None
    return draw_saturated_star(
        stream(key, "artifact_saturation_shape", salt=salt),
        shape,
        amp_sigma=cfg.sat_amp,
        r0_pix=cfg.sat_r0_pix,
        trail_pix=cfg.sat_trail_pix,
        clear_radius_pix=cfg.sat_clear_radius_pix,
        bleed_angle_deg=cfg.sat_bleed_angle_deg,
        spike_angle_deg=cfg.sat_spike_angle_deg,
        spike_fraction=cfg.sat_spike_fraction,
    )


def draw_band(key: str, purpose: str, salt: str, bands: str) -> str:
    """The one band that an artifact belongs to."""
    return bands[int(stream(key, purpose, salt=salt).integers(len(bands)))]


def draw_other_band_ratio(key: str, salt: str, band: str, cfg: ArtifactConfig) -> float:
    """``sat_other_band_ratio`` of a band that a star does not saturate; uniform in magnitudes."""
    low, high = cfg.sat_other_band_ratio
    u = float(stream(key, "artifact_saturation_colour", salt=salt, band=band).random())
    return low * (high / low) ** u


def _happens(key: str, purpose: str, salt: str, rate: float) -> bool:
    return bool(stream(key, purpose, salt=salt).random() < rate)
