"""Truncated NFW halos (Baltz, Marshall & Oguri 2009, JCAP 01, 015, with their n = 1).

    ρ(r) ∝ 1 / [(r/R_s) (1 + r/R_s)²] · r_t² / (r² + r_t²)

Parameters are lenstronomy's TNFW: the scale radius R_s, the truncation radius r_t and alpha_Rs, the deflection that the
halo *without* truncation has at R_s, all in arcsec. With x = r/R_s and τ = r_t/R_s the deflection is

    α(r) = alpha_Rs / (1 − ln 2) · g(x, τ) / x,

g being the projected mass in units of 4π ρ_0 R_s³ (their eq. A8 and after). Each halo is tabulated once: the table
costs a few microseconds, and then a deflection costs two square roots and a cubic instead of logarithms. The
deflection falls to zero as x ln x at the centre and as 1/x far away; in v, v² = r/(L + r) with L = √(R_s r_t), it is
smooth enough for a cubic Hermite table from the centre to infinity (values from g, slopes from 2κ − α/r).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.compiled import inner_kernel

TRUNCATION_RANGE = (0.05, 500.0)
"""r_t / R_s that the table is fine enough for; a Roche radius is 1 to 30 times the scale radius."""

TABLE_CELLS = 256
"""Cells of a halo's table. The error is below 5e-6 of alpha_Rs (tests), largest in the first."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Subhalos:
    """Truncated NFW halos in the plane of the lens, one per element.

    Parameters
    ----------
    x_arcsec, y_arcsec
        (N,) centres relative to the lens centre.
    rs_arcsec, alpha_rs_arcsec, trunc_arcsec
        (N,) scale radius, deflection of the untruncated halo at the scale radius, truncation radius.

    Raises
    ------
    ValueError
        If the arrays are not one-dimensional and of one length, a value is not finite, a radius is not positive, a
        deflection is negative or a truncation radius is out of ``TRUNCATION_RANGE`` scale radii.
    """

    x_arcsec: Array
    y_arcsec: Array
    rs_arcsec: Array
    alpha_rs_arcsec: Array
    trunc_arcsec: Array

    def __post_init__(self) -> None:
        for name in ("x_arcsec", "y_arcsec", "rs_arcsec", "alpha_rs_arcsec", "trunc_arcsec"):
            values = np.array(getattr(self, name), dtype=np.float64)
            if values.shape != (np.size(self.x_arcsec),):
                raise ValueError(
                    f"subhalo_{name} must be a list as long as subhalo_x_arcsec ({np.size(self.x_arcsec)}), "
                    f"got shape {values.shape}"
                )
            if not np.isfinite(values).all():
                raise ValueError(f"subhalo_{name} must be finite, got {values[~np.isfinite(values)][0]!r}")
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        for name in ("rs_arcsec", "trunc_arcsec"):
            values = getattr(self, name)
            if (values <= 0).any():
                raise ValueError(f"subhalo_{name} must be positive, got {float(values.min())!r}")
        if (self.alpha_rs_arcsec < 0).any():
            raise ValueError(f"subhalo_alpha_rs_arcsec must not be negative, got {float(self.alpha_rs_arcsec.min())!r}")
        ratio = self.trunc_arcsec / self.rs_arcsec
        low, high = TRUNCATION_RANGE
        if ((ratio < low) | (ratio > high)).any():
            worst = ratio[(ratio < low) | (ratio > high)][0]
            raise ValueError(f"subhalo_trunc_arcsec must be {low:g} to {high:g} scale radii, got {float(worst)!r}")

    def __len__(self) -> int:
        return int(self.x_arcsec.size)

    def geometry(self) -> Array:
        """(N, 3): centres and 1/L, for :func:`deflect_halos`."""
        return np.column_stack([self.x_arcsec, self.y_arcsec, 1.0 / np.sqrt(self.rs_arcsec * self.trunc_arcsec)])

    def tables(self) -> Array:
        """(N, TABLE_CELLS + 1, 2): deflection and its slope per cell at every node, arcsec."""
        return _tabulate(self.rs_arcsec, self.alpha_rs_arcsec, self.trunc_arcsec, TABLE_CELLS)

    def max_deflections_arcsec(self) -> Array:
        """(N,) largest deflection by each halo, with 1 % to spare over the nodes of its table."""
        return 1.01 * self.tables()[:, :, 0].max(axis=1, initial=0.0)


@numba.njit(cache=True)
def _nfw_function(x):  # type: ignore[no-untyped-def]
    """F(x) = arccosh(1/x)/√(1 − x²), continued beyond 1; and (1 − F)/(x² − 1)."""
    y = 1.0 - x * x
    if abs(y) < 1e-4:
        f = 1.0 + y / 3.0 + y * y / 5.0
        return f, 1.0 / 3.0 + y / 5.0 + y * y / 7.0
    root = math.sqrt(abs(y))
    f = math.log((1.0 + root) / x) / root if y > 0 else math.atan(root) / root
    return f, (f - 1.0) / y


@numba.njit(cache=True)
def projected_mass(x, tau):  # type: ignore[no-untyped-def]
    """g(x, τ): mass in the cylinder of radius x R_s over 4π ρ_0 R_s³ (Baltz et al. 2009, eq. A8)."""
    f, _ = _nfw_function(x)
    t2 = tau * tau
    root = math.sqrt(t2 + x * x)
    logarithm = math.log(x / (tau + root))
    return (
        t2
        / (t2 + 1.0) ** 2
        * (
            (t2 + 1.0 + 2.0 * (x * x - 1.0)) * f
            + tau * math.pi
            + (t2 - 1.0) * math.log(tau)
            + root * (-math.pi + logarithm * (t2 - 1.0) / tau)
        )
    )


@numba.njit(cache=True)
def projected_density(x, tau):  # type: ignore[no-untyped-def]
    """Σ(x, τ) over 2 ρ_0 R_s (Baltz et al. 2009, eq. A7): κ = alpha_Rs / (2 R_s (1 − ln 2)) times this."""
    f, ratio = _nfw_function(x)
    t2 = tau * tau
    root = math.sqrt(t2 + x * x)
    logarithm = math.log(x / (tau + root))
    return (
        t2 / (t2 + 1.0) ** 2 * ((t2 + 1.0) * ratio + 2.0 * f - math.pi / root + (t2 - 1.0) / (tau * root) * logarithm)
    )


@numba.njit(cache=True)
def total_mass(tau):  # type: ignore[no-untyped-def]
    """g(∞, τ) of a number or an array: the mass of the halo is finite."""
    t2 = tau * tau
    return t2 / (t2 + 1.0) ** 2 * ((t2 - 1.0) * np.log(tau) + tau * math.pi - (t2 + 1.0))


@numba.njit(cache=True)
def _tabulate(rs, alpha_rs, trunc, cells):  # type: ignore[no-untyped-def]
    tables = np.zeros((rs.size, cells + 1, 2))
    for i in range(rs.size):
        tau = trunc[i] / rs[i]
        length = math.sqrt(tau)  # L in scale radii
        scale = alpha_rs[i] / (1.0 - math.log(2.0))
        for k in range(1, cells):
            v = k / cells
            x = length * v * v / (1.0 - v * v)
            alpha = projected_mass(x, tau) / x
            slope = projected_density(x, tau) - alpha / x  # dα/dx
            tables[i, k, 0] = scale * alpha
            tables[i, k, 1] = scale * slope * length * 2.0 * v / (1.0 - v * v) ** 2 / cells
        # dα/dv is 0 at the centre; far away α = g(∞)/x and x = L v²/(1 − v²).
        tables[i, cells, 1] = -2.0 * scale * total_mass(tau) / length / cells
    return tables


@inner_kernel
def add_halo(geometry, tables, i, first_x, step, count, y, out):  # type: ignore[no-untyped-def]
    """Add the deflection by halo ``i`` for rays at x = first_x + k step and one y (arcsec) to ``out`` (2, ≥ count)."""
    cells = tables.shape[1] - 1
    dy = y - geometry[i, 1]
    start = first_x - geometry[i, 0]
    for ray in range(count):
        dx = start + step * ray
        r = math.sqrt(dx * dx + dy * dy)
        if r == 0.0:
            continue
        u = r * geometry[i, 2]
        at = math.sqrt(u / (1.0 + u)) * cells
        k = min(int(at), cells - 1)
        t = at - k
        low, slope_low = tables[i, k, 0], tables[i, k, 1]
        rise, slope_high = tables[i, k + 1, 0] - low, tables[i, k + 1, 1]
        curve = 3.0 * rise - 2.0 * slope_low - slope_high + t * (slope_low + slope_high - 2.0 * rise)
        per_arcsec = (low + t * (slope_low + t * curve)) / r
        out[0, ray] += per_arcsec * dx
        out[1, ray] += per_arcsec * dy


@inner_kernel
def add_halos(geometry, tables, first_x, step, count, y, out):  # type: ignore[no-untyped-def]
    """:func:`add_halo` for every halo."""
    for i in range(geometry.shape[0]):
        add_halo(geometry, tables, i, first_x, step, count, y, out)
