"""Distributions of lenses and sources, as inverse CDFs and densities.

Each distribution has ``draw(u, …)``, its value at the quantiles ``u`` in [0, 1), and ``density(value, …)``, normalised
over its range: a keyed uniform number decides everything, and the density enters a task's proposal density. Values of
the parameters and their sources are in ``conf/design/population.yaml``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gamma as gamma_function
from scipy.special import gammaincc, gammainccinv, ndtr, ndtri

Array = NDArray[np.float64]

_LN10 = math.log(10.0)


def _quantiles(u: ArrayLike) -> Array:
    quantiles = np.asarray(u, dtype=np.float64)
    if not ((quantiles >= 0) & (quantiles <= 1)).all():  # NaN too
        outside = quantiles[~((quantiles >= 0) & (quantiles <= 1))]
        raise ValueError(f"u must be in [0, 1], got {outside.ravel()[0]!r}")
    return quantiles


def _require_positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")


def _require_ordered(owner: object, low: str, high: str) -> None:
    a, b = getattr(owner, low), getattr(owner, high)
    if not (math.isfinite(a) and math.isfinite(b) and a < b):
        raise ValueError(f"{low} must be below {high} and both finite, got {a!r} and {b!r}")


def _inside(values: Array, low: float, high: float, density: Array) -> Array:
    return np.where((values >= low) & (values <= high), density, 0.0)


@dataclass(frozen=True)
class VelocityDispersionFunction:
    """Velocity dispersions of early-type galaxies: a modified Schechter function, between two dispersions.

    dn/dσ = φ* (σ/σ*)^α exp[−(σ/σ*)^β] β/Γ(α/β) / σ (Choi, Park & Vogeley 2007, ApJ 658, 884). x = (σ/σ*)^β follows a
    gamma distribution of shape α/β.

    Parameters
    ----------
    alpha, beta, sigma_star_km_s
        Of the function.
    low_km_s, high_km_s
        Range of the draws.
    """

    alpha: float
    beta: float
    sigma_star_km_s: float
    low_km_s: float
    high_km_s: float

    def __post_init__(self) -> None:
        _require_positive(self, "alpha", "beta", "sigma_star_km_s", "low_km_s", "high_km_s")
        _require_ordered(self, "low_km_s", "high_km_s")

    def draw(self, u: ArrayLike) -> Array:
        """Dispersions at the quantiles, km/s."""
        above_low, above_high = self._above(self.low_km_s), self._above(self.high_km_s)
        survival = above_low + _quantiles(u) * (above_high - above_low)
        sigma = self.sigma_star_km_s * gammainccinv(self.alpha / self.beta, survival) ** (1.0 / self.beta)
        return np.clip(sigma, self.low_km_s, self.high_km_s)

    def density(self, sigma_km_s: ArrayLike) -> Array:
        """Probability per km/s within the range."""
        sigma = np.asarray(sigma_km_s, dtype=np.float64)
        norm = self._above(self.low_km_s) - self._above(self.high_km_s)
        return _inside(sigma, self.low_km_s, self.high_km_s, self.number_density(sigma, 1.0) / norm)

    def number_density(self, sigma_km_s: ArrayLike, phi_star_mpc3: float) -> Array:
        """dn/dσ in Mpc⁻³ per km/s, without bounds. Choi et al. (2007): φ* = 8.0e-3 h³ Mpc⁻³."""
        x = np.asarray(sigma_km_s, dtype=np.float64) / self.sigma_star_km_s
        norm = self.beta / gamma_function(self.alpha / self.beta) / self.sigma_star_km_s
        return np.asarray(phi_star_mpc3 * norm * x ** (self.alpha - 1.0) * np.exp(-(x**self.beta)))

    def _above(self, sigma_km_s: float) -> float:
        """Fraction of the galaxies with a larger dispersion."""
        return float(gammaincc(self.alpha / self.beta, (sigma_km_s / self.sigma_star_km_s) ** self.beta))


@dataclass(frozen=True)
class PowerLawCounts:
    """Magnitudes of a population whose counts rise as 10^(slope · m), between two magnitudes."""

    slope_dex_per_mag: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.slope_dex_per_mag):
            raise ValueError(f"slope_dex_per_mag must be finite, got {self.slope_dex_per_mag!r}")
        _require_ordered(self, "low", "high")

    def draw(self, u: ArrayLike) -> Array:
        """Magnitudes at the quantiles."""
        quantiles, rise, width = _quantiles(u), self._rise(), self.high - self.low
        if rise == 0:
            return self.low + width * quantiles
        fraction = np.log1p(quantiles * math.expm1(rise)) / rise
        return np.clip(self.low + width * fraction, self.low, self.high)

    def density(self, mag: ArrayLike) -> Array:
        """Probability per magnitude."""
        m, rise, width = np.asarray(mag, dtype=np.float64), self._rise(), self.high - self.low
        height = 1.0 if rise == 0 else rise / math.expm1(rise)
        return _inside(m, self.low, self.high, height / width * np.exp(rise * (m - self.low) / width))

    def _rise(self) -> float:
        """ln of the counts at ``high`` over those at ``low``; flat where that is below rounding."""
        rise = self.slope_dex_per_mag * _LN10 * (self.high - self.low)
        return 0.0 if abs(rise) < 1e-12 else rise


@dataclass(frozen=True)
class Lognormal:
    """log10 of the value is normal with a scatter in dex about the median, between two values.

    The median is given with each draw: a number, or one per row, such as a catalogue's velocity dispersion with its
    error, or the size expected at a magnitude.
    """

    scatter_dex: float
    low: float
    high: float

    def __post_init__(self) -> None:
        _require_positive(self, "scatter_dex", "low", "high")
        _require_ordered(self, "low", "high")

    def draw(self, u: ArrayLike, median: ArrayLike) -> Array:
        """Values at the quantiles."""
        centre = np.log10(np.asarray(median, dtype=np.float64))
        below, above = self._edges(centre)
        # Both tails are kept exact: a median beyond a bound must not draw from the wrong end.
        mirror = below > 0
        a, b = np.where(mirror, -above, below), np.where(mirror, -below, above)
        quantiles = np.where(mirror, 1.0 - _quantiles(u), _quantiles(u))
        z = ndtri(ndtr(a) + quantiles * (ndtr(b) - ndtr(a)))
        return np.clip(10.0 ** (centre + self.scatter_dex * np.where(mirror, -z, z)), self.low, self.high)

    def density(self, value: ArrayLike, median: ArrayLike) -> Array:
        """Probability per unit of the value."""
        x, centre = np.asarray(value, dtype=np.float64), np.log10(np.asarray(median, dtype=np.float64))
        below, above = self._edges(centre)
        inside = np.where(below > 0, ndtr(-below) - ndtr(-above), ndtr(above) - ndtr(below))
        within = np.clip(x, self.low, self.high)
        z = (np.log10(within) - centre) / self.scatter_dex
        density = np.exp(-0.5 * z**2) / (math.sqrt(2.0 * math.pi) * self.scatter_dex * _LN10 * within)
        return _inside(x, self.low, self.high, density / np.maximum(inside, np.finfo(np.float64).tiny))

    def _edges(self, centre: Array) -> tuple[Array, Array]:
        return (math.log10(self.low) - centre) / self.scatter_dex, (math.log10(self.high) - centre) / self.scatter_dex


@dataclass(frozen=True)
class SizeMagnitude:
    """Half-light radius given the magnitude: lognormal about a median that falls with magnitude, arcsec."""

    median_arcsec_at_mag: float
    pivot_mag: float
    slope_dex_per_mag: float
    scatter_dex: float
    low: float
    high: float

    def __post_init__(self) -> None:
        _require_positive(self, "median_arcsec_at_mag", "scatter_dex", "low", "high")
        _require_ordered(self, "low", "high")
        for name in ("pivot_mag", "slope_dex_per_mag"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)!r}")

    def median_arcsec(self, mag: ArrayLike) -> Array:
        """Median radius at a magnitude, before the bounds."""
        dex = self.slope_dex_per_mag * (np.asarray(mag, dtype=np.float64) - self.pivot_mag)
        return np.asarray(self.median_arcsec_at_mag * 10.0**dex)

    def draw(self, u: ArrayLike, mag: ArrayLike) -> Array:
        """Radii at the quantiles, arcsec."""
        return self._scatter().draw(u, self.median_arcsec(mag))

    def density(self, reff_arcsec: ArrayLike, mag: ArrayLike) -> Array:
        """Probability per arcsec, given the magnitude."""
        return self._scatter().density(reff_arcsec, self.median_arcsec(mag))

    def _scatter(self) -> Lognormal:
        return Lognormal(self.scatter_dex, self.low, self.high)


@dataclass(frozen=True)
class Rayleigh:
    """Length of a vector with two normal components of ``sigma``, up to ``high``: ellipticities."""

    sigma: float
    high: float

    def __post_init__(self) -> None:
        _require_positive(self, "sigma", "high")

    def draw(self, u: ArrayLike) -> Array:
        """Values at the quantiles."""
        quantiles, beyond = _quantiles(u), math.exp(-0.5 * (self.high / self.sigma) ** 2)
        outside = np.maximum((1.0 - quantiles) + quantiles * beyond, np.finfo(np.float64).tiny)
        return np.minimum(self.sigma * np.sqrt(-2.0 * np.log(outside)), self.high)

    def density(self, value: ArrayLike) -> Array:
        """Probability per unit."""
        x = np.asarray(value, dtype=np.float64)
        inside = -math.expm1(-0.5 * (self.high / self.sigma) ** 2)
        return _inside(x, 0.0, self.high, x / self.sigma**2 * np.exp(-0.5 * (x / self.sigma) ** 2) / inside)
