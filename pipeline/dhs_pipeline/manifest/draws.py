"""Distributions of the priors as inverse CDFs and densities, so that a keyed uniform number decides everything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dhs_gen.lensing import populations
from dhs_pipeline.config import Axis, Distribution, Lognormal, Rayleigh, Smail, Uniform

Array = NDArray[np.float64]


def draw(distribution: Distribution, u: Array) -> tuple[Array, Array]:
    """Values at the quantiles ``u`` and the density there, in 1/unit."""
    if isinstance(distribution, Uniform):
        width = distribution.high - distribution.low
        return distribution.low + width * u, np.full_like(u, 1.0 / width if width > 0 else 1.0)
    if isinstance(distribution, Rayleigh):
        rayleigh = populations.Rayleigh(distribution.sigma, distribution.high)
        values = rayleigh.draw(u)
        return values, rayleigh.density(values)
    if isinstance(distribution, Lognormal):
        lognormal = populations.Lognormal(distribution.scatter_dex, distribution.low, distribution.high)
        values = lognormal.draw(u, distribution.median)
        return values, lognormal.density(values, distribution.median)
    low, high = ((edge - distribution.mean) / distribution.sigma for edge in (distribution.low, distribution.high))
    frozen = stats.truncnorm(low, high, loc=distribution.mean, scale=distribution.sigma)
    values = frozen.ppf(u)
    return values, frozen.pdf(values)


def draw_source_redshift(prior: Smail, z_min: Array, u: Array) -> tuple[Array, Array]:
    """Source redshifts above ``z_min`` and their density.

    p(z) ∝ z^alpha exp(−(z/z0)^beta) is a generalised gamma distribution with a = (alpha+1)/beta, c = beta and scale z0,
    truncated to [z_min, high].

    Raises
    ------
    ValueError
        If a ``z_min`` leaves no room below ``high``.
    """
    if (z_min >= prior.high).any():
        raise ValueError(f"no source redshift between {float(z_min.max()):g} and src_z.high = {prior.high:g}")
    frozen = stats.gengamma(a=(prior.alpha + 1.0) / prior.beta, c=prior.beta, scale=prior.z0)
    low, high = frozen.cdf(z_min), frozen.cdf(prior.high)
    values = np.clip(frozen.ppf(low + u * (high - low)), z_min, prior.high)
    return values, frozen.pdf(values) / (high - low)


def draw_axis(axis: Axis, u: Array) -> tuple[Array, Array]:
    """Values of a design axis at ``u`` in [0, 1) and the density there."""
    if axis.scale == "linear":
        width = axis.high - axis.low
        return axis.low + width * u, np.full_like(u, 1.0 / width)
    log_ratio = np.log(axis.high / axis.low)
    values = axis.low * np.exp(log_ratio * u)
    return values, 1.0 / (values * log_ratio)
