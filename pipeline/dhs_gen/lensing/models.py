"""The mass of a lens: one galaxy, external shear about its centre, and what perturbs them.

Conventions are lenstronomy's: θ_E is circularised (the critical curve of a pure SIE encloses π θ_E²) and
e = (1 − q)/(1 + q). Angles run from +x (increasing column) towards +y (increasing row).

:func:`deflect_row` is compiled into :mod:`dhs_gen.lensing.ray_kernels`, whose cache does not notice a change of
this file or of the profiles it calls: run ``make clean`` after one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from dhs_gen.lensing import multipoles, powerlaw
from dhs_gen.lensing.compiled import inner_kernel
from dhs_gen.lensing.multipoles import deflect_multipoles
from dhs_gen.lensing.powerlaw import deflect_power_law
from dhs_gen.lensing.tnfw import Subhalos, add_halos

ISOTHERMAL = 2.0
"""Slope of the SIE."""

_MIN_FLATTENING = 1e-8
"""√(1−q²) is kept above this; there atan(εu)/ε equals u to double precision, which is the round limit."""

_ROUND = 1e-3
"""√(1−q²) below which the rounding of a logarithm, 1e-16/ε of θ_E, would show."""

_NUMBERS = (
    "theta_e_arcsec", "e", "phi_rad", "shear", "shear_phi_rad",
    "slope", "a3_frac", "a3_phi_rad", "a4_frac", "a4_phi_rad",
)  # fmt: skip

Array = NDArray[np.float64]
Extras = tuple[float, float, Array, tuple[float, float, float, float], Array, Array]


@dataclass(frozen=True)
class MassModel:
    """Elliptical galaxy plus external shear; multipoles and subhalos where they are given.

    Parameters
    ----------
    theta_e_arcsec
        Circularised Einstein radius; 0 is no lens.
    e, phi_rad
        Ellipticity (1 − q)/(1 + q) of the mass in [0, 1) and position angle of its major axis.
    shear, shear_phi_rad
        External shear in [0, 1) and its position angle (period π).
    slope
        Slope γ of the density in three dimensions: 2 is the SIE, other values in [1.5, 2.5] the EPL
        (:mod:`dhs_gen.lensing.powerlaw`), with e of at most 0.9.
    a3_frac, a3_phi_rad, a4_frac, a4_phi_rad
        Circular multipoles m = 3, 4 (:mod:`dhs_gen.lensing.multipoles`): lenstronomy's a_m over θ_E, in (−1, 1), and
        the angle of a lobe (period 2π/m).
    subhalos
        Truncated NFW halos (:mod:`dhs_gen.lensing.tnfw`), or None.

    Raises
    ------
    ValueError
        If a value is not finite or out of range.
    """

    theta_e_arcsec: float
    e: float
    phi_rad: float
    shear: float
    shear_phi_rad: float
    slope: float = ISOTHERMAL
    a3_frac: float = 0.0
    a3_phi_rad: float = 0.0
    a4_frac: float = 0.0
    a4_phi_rad: float = 0.0
    subhalos: Subhalos | None = None

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)!r}")
        if self.theta_e_arcsec < 0:
            raise ValueError(f"theta_e_arcsec must not be negative, got {self.theta_e_arcsec!r}")
        for name in ("e", "shear"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)!r}")
        for name in ("a3_frac", "a4_frac"):
            if not -1 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (-1, 1), got {getattr(self, name)!r}")
        low, high = powerlaw.SLOPE_RANGE
        if not low <= self.slope <= high:
            raise ValueError(f"slope must be in [{low:g}, {high:g}], got {self.slope!r}")
        if self.slope != ISOTHERMAL and self.e > powerlaw.MAX_ELLIPTICITY:
            raise ValueError(f"e must not exceed {powerlaw.MAX_ELLIPTICITY:g} unless the slope is 2, got {self.e!r}")

    def reach_arcsec(self, extent_arcsec: float) -> float:
        """Distance from the lens centre beyond which no ray meets a source.

        Parameters
        ----------
        extent_arcsec
            No light of the source is farther than this from the lens centre, on the source plane.

        Returns
        -------
        float
            The root r of r (1 − shear) = extent + |α|(r), |α|(r) being the largest deflection at distance r. The mass
            of a galaxy grows less than its radius squared, so there is one root, and beyond it the left side is larger.
        """
        stretch = max(1.0 - self.shear, 1e-3)
        extent = extent_arcsec + self._perturbation_bound_arcsec()
        if self.slope == ISOTHERMAL:
            return (extent + self.deflection_bound_arcsec(1.0)) / stretch
        growth, exponent = powerlaw.growth(self.theta_e_arcsec, self.e, self.slope), 2.0 - self.slope
        if growth == 0:
            return extent / stretch
        # Twice what each term alone would need is enough for both.
        high = 2.0 * extent / stretch + (2.0 * growth / stretch) ** (1.0 / (1.0 - exponent)) + 1e-9
        return float(brentq(lambda r: r * stretch - extent - growth * r**exponent, 1e-12, high, xtol=1e-6))

    def deflection_bound_arcsec(self, radius_arcsec: float) -> float:
        """Largest deflection by the galaxy alone at a distance, arcsec; attained on the minor axis by an SIE.

        SIE: θ_E √q/f · artanh f with f² = 1 − q², at any distance.
        """
        if self.slope != ISOTHERMAL:
            return powerlaw.growth(self.theta_e_arcsec, self.e, self.slope) * radius_arcsec ** (2.0 - self.slope)
        q = (1 - self.e) / (1 + self.e)
        f = max(math.sqrt(1 - q * q), _MIN_FLATTENING)
        return self.theta_e_arcsec * math.sqrt(q) / f * math.atanh(f)

    def _perturbation_bound_arcsec(self) -> float:
        """Largest deflection by multipoles and subhalos, anywhere."""
        angular = sum(multipoles.bound(m, a * self.theta_e_arcsec) for m, a in ((3, self.a3_frac), (4, self.a4_frac)))
        return angular + (0.0 if self.subhalos is None else float(self.subhalos.max_deflections_arcsec().sum()))

    def params(self) -> Array:
        """(8,) array for the compiled kernels: θ_E√q/f, q, f, cos φ, sin φ, γ1, γ2, θ_E."""
        q = (1 - self.e) / (1 + self.e)
        f = max(math.sqrt(1 - q * q), _MIN_FLATTENING)
        return np.array(
            [
                self.theta_e_arcsec * math.sqrt(q) / f,
                q,
                f,
                math.cos(self.phi_rad),
                math.sin(self.phi_rad),
                self.shear * math.cos(2 * self.shear_phi_rad),
                self.shear * math.sin(2 * self.shear_phi_rad),
                self.theta_e_arcsec,
            ]
        )

    def extras(self) -> Extras | None:
        """What the kernels need beyond :meth:`params`; None for an SIE with shear, which has kernels of its own.

        Returns
        -------
        tuple
            Scale of the power law, its half exponent (2 − γ)/2 and its series, empty for slope 2; four numbers of the
            multipoles; centres and 1/L of the subhalos (N, 3) and their tables (N, cells + 1, 2).
        """
        a3, a4 = self.a3_frac * self.theta_e_arcsec, self.a4_frac * self.theta_e_arcsec
        halos = self.subhalos if self.subhalos is not None and len(self.subhalos) else None
        isothermal = self.slope == ISOTHERMAL
        if isothermal and a3 == 0 and a4 == 0 and halos is None:
            return None
        return (
            powerlaw.amplitude(self.theta_e_arcsec, self.e, self.slope),
            0.5 * (2.0 - self.slope),
            np.empty(0) if isothermal else powerlaw.series(self.slope, self.e),
            (*multipoles.coefficients(3, a3, self.a3_phi_rad), *multipoles.coefficients(4, a4, self.a4_phi_rad)),
            np.empty((0, 3)) if halos is None else halos.geometry(),
            np.empty((0, 2, 2)) if halos is None else halos.tables(),
        )


SieShear = MassModel
"""A :class:`MassModel` with the parameters of an SIE and shear alone."""


@inner_kernel
def deflect_sie(params, x, y):  # type: ignore[no-untyped-def]
    """Deflection (arcsec) by an SIE in the frame of its major axis.

    Kormann et al. (1994, A&A 284, 285); Keeton (2001, astro-ph/0102341), eqs 31-32, with the core radius zero,
    ψ² = q²x² + y², f² = 1 − q²::

        α_x = θ_E √q/f · arctan(f x/ψ)        α_y = θ_E √q/f · artanh(f y/ψ)

    with artanh z = ½ ln((1 + z)/(1 − z)), which takes half the time of the library's artanh, unless f is small.
    """
    scale, q, f = params[0], params[1], params[2]
    psi = math.sqrt(q * q * x * x + y * y)
    if psi == 0.0:
        return 0.0, 0.0
    if f < _ROUND:
        return scale * math.atan(f * x / psi), scale * math.atanh(f * y / psi)
    return scale * math.atan(f * x / psi), 0.5 * scale * math.log((psi + f * y) / (psi - f * y))


@inner_kernel
def deflect_row(params, extras, first_x, step, count, y, out):  # type: ignore[no-untyped-def]
    """Deflections (arcsec) of ``count`` rays at x = first_x + i step and one y, without the subhalos.

    Parameters
    ----------
    params, extras
        From :meth:`MassModel.params`, as a tuple, and :meth:`MassModel.extras`. Where ``extras`` is None, the compiler
        leaves out the branches that need it.
    first_x, step, y
        Arcsec from the lens centre.
    out
        (2, ≥ count) receives α_x and α_y.
    """
    for i in range(count):
        out[0, i], out[1, i] = deflect_one(params, extras, first_x + step * i, y)


@inner_kernel
def deflect_one(params, extras, x, y):  # type: ignore[no-untyped-def]
    """:func:`deflect_row` of one ray at (x, y)."""
    _, q, _, cos_phi, sin_phi, gamma1, gamma2, _ = params
    major = cos_phi * x + sin_phi * y
    minor = cos_phi * y - sin_phi * x
    if extras is None:
        alpha_major, alpha_minor = deflect_sie(params, major, minor)
    else:
        scale, half_exponent, series, _, _, _ = extras
        if series.size == 0:
            alpha_major, alpha_minor = deflect_sie(params, major, minor)
        else:
            alpha_major, alpha_minor = deflect_power_law(scale, half_exponent, series, q, major, minor)
    alpha_x = cos_phi * alpha_major - sin_phi * alpha_minor + gamma1 * x + gamma2 * y
    alpha_y = sin_phi * alpha_major + cos_phi * alpha_minor + gamma2 * x - gamma1 * y
    if extras is not None:
        angular = extras[3]
        if angular[0] != 0.0 or angular[1] != 0.0 or angular[2] != 0.0 or angular[3] != 0.0:
            more_x, more_y = deflect_multipoles(angular, x, y)
            alpha_x += more_x
            alpha_y += more_y
    return alpha_x, alpha_y


def deflection(lens: MassModel, x_arcsec: Array, y_arcsec: Array) -> tuple[Array, Array]:
    """Deflection angles (arcsec) at positions relative to the lens centre, any shape."""
    x, y = np.broadcast_arrays(np.asarray(x_arcsec, float), np.asarray(y_arcsec, float))
    alpha = _deflect_many(tuple(lens.params().tolist()), lens.extras(), x.ravel(), y.ravel())
    return alpha[0].reshape(x.shape), alpha[1].reshape(x.shape)


@numba.njit(cache=True)
def _deflect_many(params, extras, x, y):  # type: ignore[no-untyped-def]
    alpha = np.empty((2, x.size))
    for i in range(x.size):
        deflect_row(params, extras, x[i], 0.0, 1, y[i], alpha[:, i : i + 1])
        if extras is not None:
            add_halos(extras[4], extras[5], x[i], 0.0, 1, y[i], alpha[:, i : i + 1])
    return alpha
