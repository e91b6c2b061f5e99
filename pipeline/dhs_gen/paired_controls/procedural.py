"""Galaxies that look like lenses: a ring and a two-armed logarithmic spiral, as source templates of unit sum.

Both lie in a disc of ellipticity e whose major axis has the position angle φ. In its plane a pixel has the circularised
radius R, R² = q x² + y²/q with q = (1 − e)/(1 + e) and x along the major axis, and the azimuth θ = atan2(y/√q, x√q):
the image of R = θ_E encloses π θ_E², as the critical curve of a lens of that θ_E does. They have one channel; their
colours are those of the source whose flux they are given.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.units import axis_ratio

__all__ = ["ring_template", "spiral_template"]

_PIXELS_PER_SIGMA = 4.0
"""Template pixels per σ of the narrowest structure: values at pixel centres then stand for pixels to 1 %."""
_REACH_SIGMA = 4.0
"""Light beyond this many σ from the ring is not drawn: 6e-5 of it."""
_MAX_SIDE_PIX = 2001
_ARMS = 2


def ring_template(
    theta_e_arcsec: float,
    width_frac: float,
    modulation: float,
    clumps: tuple[int, int],
    clump_flux_frac: float,
    e: float,
    phi_rad: float,
    rng: np.random.Generator,
) -> SourceTemplate:
    """A ring galaxy: Gaussian profile across the ring, smooth azimuthal modulation, clumps.

    I(R, θ) ∝ exp(−(R − θ_E)²/2σ²) [1 + m (w cos(θ − θ₁) + (1 − w) cos 2(θ − θ₂))], σ = width_frac × θ_E, with w and
    the angles drawn; clumps are round Gaussians of the same σ at drawn azimuths on the ring, of drawn shares.

    Parameters
    ----------
    theta_e_arcsec
        Circularised radius of the ring: that of the lens, so that it lies where the arc would.
    width_frac
        σ over the radius.
    modulation
        m, 0 to 1.
    clumps, clump_flux_frac
        Fewest and most clumps, and the fraction of the flux that all hold together if there are any.
    e, phi_rad
        Ellipticity (1−q)/(1+q) of the disc and position angle of its major axis, from +column towards +row.
    rng
        For the modulation, then the clumps.

    Returns
    -------
    SourceTemplate
        One channel; its centre is the centre of the disc.

    Raises
    ------
    ValueError
        If an argument is out of range, or the ring is too narrow to be sampled.
    """
    sigma_arcsec = _positive(theta_e_arcsec, "theta_e_arcsec") * _positive(width_frac, "width_frac")
    if not 0 <= modulation <= 1:
        raise ValueError(f"modulation must be in [0, 1], got {modulation!r}")
    if not 0 <= clump_flux_frac <= 1:
        raise ValueError(f"clump_flux_frac must be in [0, 1], got {clump_flux_frac!r}")
    disc = _Disc(theta_e_arcsec + _REACH_SIGMA * sigma_arcsec, sigma_arcsec, e)
    weight, first, second = rng.uniform(), *rng.uniform(0.0, 2.0 * math.pi, 2)
    waves = weight * np.cos(disc.azimuth - first) + (1.0 - weight) * np.cos(2.0 * (disc.azimuth - second))
    light = np.exp(-0.5 * ((disc.radius_arcsec - theta_e_arcsec) / sigma_arcsec) ** 2) * (1.0 + modulation * waves)
    light /= light.sum()
    n_clumps = int(rng.integers(clumps[0], clumps[1] + 1))
    if n_clumps > 0:
        azimuths, shares = rng.uniform(0.0, 2.0 * math.pi, n_clumps), rng.dirichlet(np.full(n_clumps, 2.0))
        spots = np.zeros_like(light)
        for azimuth, share in zip(azimuths, shares, strict=True):
            x, y = disc.on_sky(theta_e_arcsec, azimuth)
            spot = np.exp(-0.5 * ((disc.x_arcsec - x) ** 2 + (disc.y_arcsec - y) ** 2) / sigma_arcsec**2)
            spots += share * spot / spot.sum()
        light = (1.0 - clump_flux_frac) * light + clump_flux_frac * spots
    return disc.template(light, phi_rad)


def spiral_template(
    theta_e_arcsec: float,
    pitch_deg: float,
    arm_width_frac: float,
    extent_frac: float,
    e: float,
    phi_rad: float,
    rng: np.random.Generator,
) -> SourceTemplate:
    """Two logarithmic arms, ln(R/θ_E) = ± tan(pitch) (θ − θ₀), in a Gaussian of the radius about θ_E.

    A pixel at the azimuth Δ from the nearest arm is R Δ sin(pitch) from it across the arm. Start angle and sense of
    winding are drawn. The light between the arms and in the middle is left out: the host is there.

    Parameters
    ----------
    theta_e_arcsec
        Circularised radius about which the light lies.
    pitch_deg
        Angle between an arm and the circle it crosses, in (0, 90).
    arm_width_frac, extent_frac
        Gaussian σ across an arm, and of the light along the radius, over θ_E.
    e, phi_rad
        As of :func:`ring_template`.
    rng
        For the start angle, then the sense.

    Returns
    -------
    SourceTemplate
        One channel; its centre is the centre of the disc.

    Raises
    ------
    ValueError
        If an argument is out of range, or the arms are too narrow to be sampled.
    """
    width_arcsec = _positive(theta_e_arcsec, "theta_e_arcsec") * _positive(arm_width_frac, "arm_width_frac")
    extent_arcsec = theta_e_arcsec * _positive(extent_frac, "extent_frac")
    if not 0 < pitch_deg < 90:
        raise ValueError(f"pitch_deg must be in (0, 90), got {pitch_deg!r}")
    pitch_rad = math.radians(pitch_deg)
    disc = _Disc(theta_e_arcsec + _REACH_SIGMA * extent_arcsec, min(width_arcsec, extent_arcsec), e)
    start, sense = rng.uniform(0.0, 2.0 * math.pi), 1.0 if rng.uniform() < 0.5 else -1.0
    radius = np.maximum(disc.radius_arcsec, 1e-6 * theta_e_arcsec)  # the centre pixel: the logarithm of 0
    behind = disc.azimuth - start - sense * np.log(radius / theta_e_arcsec) / math.tan(pitch_rad)
    period = 2.0 * math.pi / _ARMS
    behind = (behind + 0.5 * period) % period - 0.5 * period
    across_arcsec = radius * behind * math.sin(pitch_rad)
    light = np.exp(-0.5 * (across_arcsec / width_arcsec) ** 2 - 0.5 * ((radius - theta_e_arcsec) / extent_arcsec) ** 2)
    return disc.template(light, phi_rad)


class _Disc:
    """Pixels of an inclined disc whose major axis lies along the rows.

    Parameters
    ----------
    reach_arcsec
        Largest circularised radius with light.
    sigma_arcsec
        σ of the narrowest structure.
    e
        Ellipticity.
    """

    def __init__(self, reach_arcsec: float, sigma_arcsec: float, e: float) -> None:
        if not 0 <= e < 1:
            raise ValueError(f"e must be in [0, 1), got {e!r}")
        self._stretch = math.sqrt(float(axis_ratio(e)))
        # The minor axis is compressed, and structure on it with it.
        self._sigma_arcsec = sigma_arcsec * self._stretch
        self._pixscale_arcsec = self._sigma_arcsec / _PIXELS_PER_SIGMA
        half_x = math.ceil(reach_arcsec / self._stretch / self._pixscale_arcsec)
        half_y = math.ceil(reach_arcsec * self._stretch / self._pixscale_arcsec)
        if 2 * half_x + 1 > _MAX_SIDE_PIX:
            raise ValueError(
                f"structure of {sigma_arcsec:g} arcsec is too narrow for a disc of {reach_arcsec:g} arcsec, e = {e:g}: "
                f"its template would be {2 * half_x + 1} pixels wide, at most {_MAX_SIDE_PIX} are allowed"
            )
        self.x_arcsec = np.arange(-half_x, half_x + 1) * self._pixscale_arcsec
        self.y_arcsec = np.arange(-half_y, half_y + 1)[:, None] * self._pixscale_arcsec
        major, minor = self.x_arcsec * self._stretch, self.y_arcsec / self._stretch
        self.radius_arcsec = np.hypot(major, minor)
        self.azimuth = np.arctan2(minor, major)

    def on_sky(self, radius_arcsec: float, azimuth: float) -> tuple[float, float]:
        """Where a place of the disc is seen: (x, y) arcsec from the centre, x along the major axis."""
        return (
            radius_arcsec * math.cos(azimuth) / self._stretch,
            radius_arcsec * math.sin(azimuth) * self._stretch,
        )

    def template(self, light: NDArray[np.float64], phi_rad: float) -> SourceTemplate:
        return SourceTemplate(
            pixels=(light / light.sum())[None],
            pixscale_arcsec=self._pixscale_arcsec,
            resolution_arcsec=self._sigma_arcsec,
            phi_rad=phi_rad,
        )


def _positive(value: float, name: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return value
