"""Sersic profile with Gaussian clumps: a procedural source template."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, gammaincinv

from dhs_gen.streams import stream


@dataclass(frozen=True)
class ClumpSettings:
    """How clumpy a source may be.

    Parameters
    ----------
    n_clumps
        Fewest and most clumps.
    sigma_re
        Range of a clump's Gaussian σ, in effective radii.
    flux_fraction
        Range of the fraction of the total flux that all clumps hold together.
    """

    n_clumps: tuple[int, int]
    sigma_re: tuple[float, float]
    flux_fraction: tuple[float, float]

    def __post_init__(self) -> None:
        for name in ("n_clumps", "sigma_re", "flux_fraction"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} must be a range low <= high of non-negative numbers, got {low}, {high}")
        if self.flux_fraction[1] >= 1:
            raise ValueError(f"flux_fraction must stay below 1, got {self.flux_fraction[1]}")


@dataclass(frozen=True, eq=False)
class HybridTemplate:
    """(H, W) float64 of unit sum, and what it was made of."""

    pixels: NDArray[np.float64]
    n_clumps: int
    clump_flux_fraction: float


def hybrid_template(
    key: str, side_pix: int, re_pix: float, n_sersic: float, axis_ratio: float, clumps: ClumpSettings
) -> HybridTemplate:
    """Template of a clumpy Sersic source with its major axis along the columns' direction.

    The smooth part is integrated over each pixel; its effective radius is circularised (the half-light ellipse has
    semi-axes re/√q and re·√q). Clumps lie between 0.4 and 1.6 re of the same ellipse, uniformly in azimuth.

    Parameters
    ----------
    key
        Names the source; clumps come from ``stream(key, "hybrid_clumps")``.
    side_pix
        Side of the template.
    re_pix
        Effective radius in template pixels.
    n_sersic
        Sersic index.
    axis_ratio
        q in (0, 1].
    clumps
        Ranges of the clumps.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    _check(side_pix, re_pix, n_sersic, axis_ratio)
    smooth = sersic_image(side_pix, re_pix, n_sersic, axis_ratio)
    smooth /= smooth.sum()
    rng = stream(key, "hybrid_clumps")
    n_clumps = int(rng.integers(clumps.n_clumps[0], clumps.n_clumps[1] + 1))
    fraction = float(rng.uniform(*clumps.flux_fraction))
    if n_clumps == 0:
        return HybridTemplate(smooth, 0, 0.0)
    radius = re_pix * np.sqrt(rng.uniform(0.4**2, 1.6**2, n_clumps))
    azimuth = rng.uniform(0.0, 2.0 * math.pi, n_clumps)
    sigma = re_pix * rng.uniform(*clumps.sigma_re, n_clumps)
    share = rng.dirichlet(np.full(n_clumps, 2.0))
    stretch = math.sqrt(axis_ratio)
    light = np.zeros_like(smooth)
    for r, phi, s, w in zip(radius, azimuth, sigma, share, strict=True):
        light += w * _gaussian_image(side_pix, r * math.cos(phi) / stretch, r * math.sin(phi) * stretch, s)
    light /= light.sum()
    return HybridTemplate((1.0 - fraction) * smooth + fraction * light, n_clumps, fraction)


def sersic_image(side_pix: int, re_pix: float, n_sersic: float, axis_ratio: float) -> NDArray[np.float64]:
    """Sersic profile integrated over pixels, unit total flux over the plane, major axis along columns.

    I(R) ∝ exp(−b (R/re)^(1/n)), R² = q x² + y²/q, with b from the half-light condition γ(2n, b) = Γ(2n)/2 (Ciotti 1991,
    A&A 249, 99) and total flux 2π n re² b^(−2n) Γ(2n).
    """
    _check(side_pix, re_pix, n_sersic, axis_ratio)
    b = float(gammaincinv(2.0 * n_sersic, 0.5))
    total = 2.0 * math.pi * n_sersic * re_pix**2 * b ** (-2.0 * n_sersic) * math.gamma(2.0 * n_sersic)
    return _integrate_sersic(side_pix, re_pix, n_sersic, axis_ratio, b) / total


def _check(side_pix: int, re_pix: float, n_sersic: float, axis_ratio: float) -> None:
    if side_pix < 3:
        raise ValueError(f"side_pix must be at least 3, got {side_pix!r}")
    if not (math.isfinite(re_pix) and re_pix > 0):
        raise ValueError(f"re_pix must be positive and finite, got {re_pix!r}")
    if not 0.2 <= n_sersic <= 8:
        raise ValueError(f"n_sersic must be between 0.2 and 8, got {n_sersic!r}")
    if not 0 < axis_ratio <= 1:
        raise ValueError(f"axis_ratio must be in (0, 1], got {axis_ratio!r}")


def _gaussian_image(side_pix: int, x0: float, y0: float, sigma_pix: float) -> NDArray[np.float64]:
    """Round Gaussian about (x0, y0) from the centre, integrated over pixels."""
    edges = np.arange(side_pix + 1) - 0.5 * side_pix
    along_x, along_y = (np.diff(erf((edges - c) / (sigma_pix * math.sqrt(2.0)))) for c in (x0, y0))
    return 0.25 * np.outer(along_y, along_x)


@numba.njit(cache=True)
def _integrate_sersic(side, re, n, q, b):  # type: ignore[no-untyped-def]
    """Midpoint rule per pixel, with more points where the profile is steep; one half, mirrored through the centre."""
    out = np.empty((side, side))
    centre = 0.5 * (side - 1)
    power = 0.5 / n
    inv_re2 = 1.0 / (re * re)
    for row in range((side + 1) // 2):
        y = row - centre
        for col in range(side):
            x = col - centre
            distance = math.sqrt(x * x + y * y)
            points = 1
            if distance < 0.6:
                points = 65
            elif distance < 1.6:
                points = 21
            elif distance < 4.0:
                points = 7
            elif distance < re:
                points = 3
            value = 0.0
            for i in range(points):
                ys = y + (i + 0.5) / points - 0.5
                for j in range(points):
                    xs = x + (j + 0.5) / points - 0.5
                    r2 = (q * xs * xs + ys * ys / q) * inv_re2
                    value += math.exp(-b * r2**power)
            value /= points * points
            out[row, col] = value
            out[side - 1 - row, side - 1 - col] = value
    return out
