"""Strengths of the simulated artifacts, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class ArtifactConfig:
    """How often and how strongly each artifact appears.

    Brightness is in MAD sigmas of the image that an artifact lands on (1.4826 × median absolute deviation), never in
    nanomaggies: the same profile then means the same in a shallow g stamp and in a deep z stamp. Amplitudes of single
    artifacts are uniform between half and one and a half times the value given here, which is their mean.

    Parameters
    ----------
    enable_psf_anisotropy, psf_e_sigma
        Standard deviation of each of the two components of the PSF's ellipticity, e = (a − b)/(a + b).
    enable_bg_plane, bg_plane_amp
        Tilted background: height above the centre, in MAD sigmas, at half a side's distance along the gradient.
    enable_cosmic_rays, cosmic_rate, cosmic_amp, cosmic_length_pix
        Probability of one residual per image (in 4c: per three-band stamp), brightness of its brightest pixel in MAD
        sigmas, and range of the lengths of its path in pixels.
    enable_sat_wings, sat_rate, sat_amp, sat_r0_pix
        Probability of a saturated star per image, the brightness of its wings in MAD sigmas at ``5 sat_r0_pix`` from
        its centre, and the radius of its saturated core in pixels. The profile between the two is the PSF's, so these
        two numbers fix the level at which it saturates.
    enable_astrom_jitter, jitter_sigma_pix
        Standard deviation of the shift along each axis, pixels.
    cosmic_worm_fraction, cosmic_spot_fraction
        Shares of wandering electron tracks and of compact spots (0.5 to 2 px whatever ``cosmic_length_pix``); the rest
        are straight muon tracks.
    sat_trail_pix
        Range of the length of the bleed trail on each side of the star, pixels.
    sat_bleed_angle_deg
        Direction of the CCD columns on the image, from the row direction: 0 is along rows.
    sat_spike_fraction, sat_spike_angle_deg
        Brightness of the diffraction spikes over that of the wings at ``5 sat_r0_pix``, and the angle of the first of
        the four from the row direction.
    sat_clear_radius_pix
        No star is centred nearer than this to the centre of the image.
    sat_other_band_ratio
        Range of the same star's brightness in the other bands, where it does not saturate: over that which gives it
        the same brightness in *their* MAD sigmas.

    Raises
    ------
    ValueError
        Naming the field and the value found.
    """

    enable_psf_anisotropy: bool = True
    psf_e_sigma: float = 0.05
    enable_bg_plane: bool = True
    bg_plane_amp: float = 0.02
    enable_cosmic_rays: bool = True
    cosmic_rate: float = 0.15
    cosmic_amp: float = 8.0
    cosmic_length_pix: tuple[float, float] = (8, 24)
    enable_sat_wings: bool = True
    sat_rate: float = 0.08
    sat_amp: float = 12.0
    sat_r0_pix: float = 2.0
    enable_astrom_jitter: bool = True
    jitter_sigma_pix: float = 0.25
    cosmic_worm_fraction: float = 0.3
    cosmic_spot_fraction: float = 0.15
    sat_trail_pix: tuple[float, float] = (4, 24)
    sat_bleed_angle_deg: float = 0.0
    sat_spike_fraction: float = 0.02
    sat_spike_angle_deg: float = 45.0
    sat_clear_radius_pix: float = 12.0
    sat_other_band_ratio: tuple[float, float] = (0.5, 1.2)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.startswith("enable_"):
                if not isinstance(value, bool):
                    raise ValueError(f"{field.name} must be True or False, got {value!r}")
            elif field.name in _RANGES:
                _check_range(field.name, value)
            else:
                _check_number(field.name, value)
        if self.cosmic_worm_fraction + self.cosmic_spot_fraction > 1:
            raise ValueError(
                "cosmic_worm_fraction + cosmic_spot_fraction must not exceed 1, got "
                f"{self.cosmic_worm_fraction + self.cosmic_spot_fraction!r}"
            )

    @property
    def any_enabled(self) -> bool:
        """Whether any artifact can appear."""
        return any(getattr(self, field.name) for field in fields(self) if field.name.startswith("enable_"))


_RANGES = ("cosmic_length_pix", "sat_trail_pix", "sat_other_band_ratio")
_FRACTIONS = ("cosmic_rate", "sat_rate", "cosmic_worm_fraction", "cosmic_spot_fraction")
_MAX_LENGTH_PIX = 1000.0


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    if name.endswith("_deg"):
        return
    if value < 0 or (name == "sat_r0_pix" and value == 0):
        raise ValueError(f"{name} must be {'positive' if name == 'sat_r0_pix' else 'at least 0'}, got {value!r}")
    if name in _FRACTIONS and value > 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r}")
    if name == "psf_e_sigma" and value > 0.3:
        raise ValueError(f"psf_e_sigma must be at most 0.3, got {value!r}")


def _check_range(name: str, value: object) -> None:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name} must be a pair (low, high), got {value!r}")
    for end in value:
        _check_number(name, end)
    low, high = value
    if not 0 < low <= high <= _MAX_LENGTH_PIX:
        raise ValueError(f"{name} must satisfy 0 < low <= high <= {_MAX_LENGTH_PIX:g}, got {value!r}")
