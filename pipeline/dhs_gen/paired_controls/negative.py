"""How a hard negative is made: its kind and its strengths."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dhs_gen.paired_controls.kinds import NegativeKind

__all__ = ["Negative"]


@dataclass(frozen=True)
class Negative:
    """The kind of a stamp's negative and the strengths of all kinds.

    Parameters
    ----------
    kind
        What is drawn in place of the arc.
    annulus_width_pix
        SHUFFLED_PIXELS and SHUFFLED_ARC: width of the annuli within which pixels change places.
    ring_width_frac
        RING: Gaussian σ of the ring over its radius.
    ring_modulation
        RING: amplitude of the smooth azimuthal modulation, 0 (even) to 1.
    ring_clumps, ring_clump_flux_frac
        RING: fewest and most clumps, and the fraction of the flux that all hold together if there are any.
    spiral_pitch_deg
        SPIRAL: pitch angle of the arms, in (0, 90).
    spiral_arm_width_frac, spiral_extent_frac
        SPIRAL: Gaussian σ across an arm, and of the light along the radius, over θ_E.
    disc_e_max
        RING and SPIRAL: the disc is seen with the host's ellipticity (that of its mass), but of at most this.
    neighbour_radius_theta_e
        NEIGHBOUR: range of the distance of the source from the host, in θ_E.
    wrong_centre_offset_theta_e
        WRONG_CENTRE_ARC: range of the distance from the host about which the arc curves, in θ_E.

    Raises
    ------
    ValueError
        If the kind is none, or a value is not finite or out of range.
    """

    kind: NegativeKind
    annulus_width_pix: float
    ring_width_frac: float
    ring_modulation: float
    ring_clumps: tuple[int, int]
    ring_clump_flux_frac: float
    spiral_pitch_deg: float
    spiral_arm_width_frac: float
    spiral_extent_frac: float
    disc_e_max: float
    neighbour_radius_theta_e: tuple[float, float]
    wrong_centre_offset_theta_e: tuple[float, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", NegativeKind(self.kind))
        _check_number(self.annulus_width_pix, "annulus_width_pix", above=0.0)
        _check_number(self.ring_width_frac, "ring_width_frac", above=0.0)
        _check_number(self.ring_modulation, "ring_modulation", least=0.0, most=1.0)
        _check_number(self.ring_clump_flux_frac, "ring_clump_flux_frac", least=0.0, most=1.0)
        _check_number(self.spiral_pitch_deg, "spiral_pitch_deg", above=0.0, below=90.0)
        _check_number(self.spiral_arm_width_frac, "spiral_arm_width_frac", above=0.0)
        _check_number(self.spiral_extent_frac, "spiral_extent_frac", above=0.0)
        _check_number(self.disc_e_max, "disc_e_max", least=0.0, below=1.0)
        for name in ("ring_clumps", "neighbour_radius_theta_e", "wrong_centre_offset_theta_e"):
            low, high = getattr(self, name)
            if not (math.isfinite(high) and 0 <= low <= high):
                raise ValueError(f"{name} must be a finite range from 0 or more, got {(low, high)!r}")


def _check_number(
    value: float,
    name: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """ValueError unless the value is finite and within its bounds."""
    if not (math.isfinite(value) and least <= value <= most and above < value < below):
        low = f"at least {least:g}" if math.isfinite(least) else f"above {above:g}"
        high = f", at most {most:g}" if math.isfinite(most) else f", below {below:g}" if math.isfinite(below) else ""
        raise ValueError(f"{name} must be finite, {low}{high}, got {value!r}")
