"""Distributions that a configuration may name, and the axes of a design."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dhs_pipeline.config.base import Model, Positive


class Axis(Model):
    """A range that is filled evenly, in value or in logarithm."""

    low: float
    high: float
    scale: Literal["linear", "log"]

    @model_validator(mode="after")
    def _ordered(self) -> Axis:
        if self.high <= self.low or (self.scale == "log" and self.low <= 0):
            raise ValueError(f"axis needs low < high, and low > 0 on a log scale; got {self.low}, {self.high}")
        return self


class Uniform(Model):
    dist: Literal["uniform"]
    low: float
    high: float


class Normal(Model):
    """Normal, truncated to [low, high]."""

    dist: Literal["normal"]
    mean: float
    sigma: Positive
    low: float
    high: float


class Rayleigh(Model):
    """p(x) ∝ x exp(−x²/2σ²), truncated at high."""

    dist: Literal["rayleigh"]
    sigma: Positive
    high: Positive


class Lognormal(Model):
    """Normal in log10, truncated to [low, high]."""

    dist: Literal["lognormal"]
    median: Positive
    scatter_dex: Positive
    low: Positive
    high: Positive


Distribution = Annotated[Uniform | Normal | Rayleigh | Lognormal, Field(discriminator="dist")]


class Smail(Model):
    """p(z) ∝ z^alpha exp(−(z/z0)^beta), truncated at high (Smail, Ellis & Fitchett 1994)."""

    dist: Literal["smail"]
    z0: Positive
    alpha: Positive
    beta: Positive
    high: Positive


class PowerLawCounts(Model):
    """Number counts per magnitude ∝ 10^(slope m) between two magnitudes."""

    dist: Literal["powerlaw_counts"]
    slope_dex_per_mag: float
    low: float
    high: float


class SizeOfMagnitude(Model):
    """Log-normal half-light radius whose median depends on the magnitude, truncated to [low, high]."""

    dist: Literal["lognormal_size_mag"]
    median_arcsec_at_mag: Positive
    pivot_mag: float
    slope_dex_per_mag: float
    scatter_dex: Positive
    low: Positive
    high: Positive


class VelocityDispersionFunction(Model):
    """Modified Schechter function of velocity dispersions."""

    alpha: Positive
    beta: Positive
    sigma_star_km_s: Positive


class SigmaV(Model):
    """Velocity dispersion of a lens: its host's own within a scatter, or drawn from a function; between two values."""

    source: Literal["catalogue", "vdf"]
    scatter_dex: Positive | None
    vdf: VelocityDispersionFunction | None
    low_km_s: Positive
    high_km_s: Positive

    @model_validator(mode="after")
    def _one_source(self) -> SigmaV:
        if (self.source == "catalogue") != (self.scatter_dex is not None):
            raise ValueError("scatter_dex goes with source catalogue and is null otherwise")
        if (self.source == "vdf") != (self.vdf is not None):
            raise ValueError("vdf goes with source vdf and is null otherwise")
        return self
