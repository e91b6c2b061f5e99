"""Mass models: singular isothermal ellipsoid with external shear about the lens centre.

Conventions are lenstronomy's: θ_E is circularised (the critical curve of a pure SIE encloses π θ_E²) and
e = (1 − q)/(1 + q). Angles run from +x (increasing column) towards +y (increasing row).

:func:`deflect` is compiled into the kernels of :mod:`dhs_gen.lensing.rays`, whose cache does not notice a change of
this file: run ``make clean`` after one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

_MIN_FLATTENING = 1e-8
"""√(1−q²) is kept above this; there atan(εu)/ε equals u to double precision, which is the round limit."""


@dataclass(frozen=True)
class SieShear:
    """SIE plus external shear, both centred on the lens.

    Parameters
    ----------
    theta_e_arcsec
        Circularised Einstein radius; 0 is no lens.
    e, phi_rad
        Ellipticity (1 − q)/(1 + q) of the mass in [0, 1) and position angle of its major axis.
    shear, shear_phi_rad
        External shear in [0, 1) and its position angle (period π).

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

    def __post_init__(self) -> None:
        for name in ("theta_e_arcsec", "e", "phi_rad", "shear", "shear_phi_rad"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)!r}")
        if self.theta_e_arcsec < 0:
            raise ValueError(f"theta_e_arcsec must not be negative, got {self.theta_e_arcsec!r}")
        for name in ("e", "shear"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)!r}")

    @property
    def max_deflection_arcsec(self) -> float:
        """Largest deflection by the SIE alone: on its minor axis, where α = θ_E √q/f · artanh f, f² = 1 − q²."""
        q = (1 - self.e) / (1 + self.e)
        f = max(math.sqrt(1 - q * q), _MIN_FLATTENING)
        return self.theta_e_arcsec * math.sqrt(q) / f * math.atanh(f)

    def params(self) -> NDArray[np.float64]:
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


@numba.njit(cache=True, inline="always")
def deflect(params, x, y):  # type: ignore[no-untyped-def]
    """Deflection (arcsec) at (x, y) arcsec from the lens centre; ``params`` from :meth:`SieShear.params`.

    SIE in the frame of the major axis (Kormann et al. 1994, A&A 284, 285; Keeton 2001, astro-ph/0102341, eqs 31-32,
    with the core radius zero), ψ² = q²x² + y², f² = 1 − q²::

        α_x = θ_E √q/f · arctan(f x/ψ)        α_y = θ_E √q/f · artanh(f y/ψ)
    """
    scale, q, f, cos_phi, sin_phi, gamma1, gamma2, _ = params
    major = cos_phi * x + sin_phi * y
    minor = cos_phi * y - sin_phi * x
    psi = math.sqrt(q * q * major * major + minor * minor)
    if psi > 0.0:
        alpha_major = scale * math.atan(f * major / psi)
        alpha_minor = scale * math.atanh(f * minor / psi)
    else:
        alpha_major = 0.0
        alpha_minor = 0.0
    alpha_x = cos_phi * alpha_major - sin_phi * alpha_minor + gamma1 * x + gamma2 * y
    alpha_y = sin_phi * alpha_major + cos_phi * alpha_minor + gamma2 * x - gamma1 * y
    return alpha_x, alpha_y


def deflection(
    lens: SieShear, x_arcsec: NDArray[np.float64], y_arcsec: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Deflection angles (arcsec) at positions relative to the lens centre, any shape."""
    x, y = np.broadcast_arrays(np.asarray(x_arcsec, float), np.asarray(y_arcsec, float))
    alpha_x, alpha_y = _deflect_many(lens.params(), x.ravel(), y.ravel())
    return alpha_x.reshape(x.shape), alpha_y.reshape(x.shape)


@numba.njit(cache=True)
def _deflect_many(params, x, y):  # type: ignore[no-untyped-def]
    alpha_x = np.empty_like(x)
    alpha_y = np.empty_like(y)
    p = (params[0], params[1], params[2], params[3], params[4], params[5], params[6], params[7])
    for i in range(x.size):
        alpha_x[i], alpha_y[i] = deflect(p, x[i], y[i])
    return alpha_x, alpha_y
