"""Distances, and what a velocity dispersion deflects: flat ΛCDM without radiation.

Distances of many rows come from one spline of astropy's comoving distance per cosmology; they are astropy's to 1e-8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

if TYPE_CHECKING:
    from astropy.cosmology import FlatLambdaCDM

MAX_REDSHIFT = 20.0
_NODES = 2001

_C_KM_S = 299_792.458
"""Speed of light: exact, by the definition of the metre (SI Brochure, 9th edition, section 2.3.1)."""
_ARCSEC = math.pi / 648_000.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cosmology:
    """Flat ΛCDM.

    Parameters
    ----------
    h0_km_s_mpc, om0
        Hubble constant, km/s/Mpc, and matter density over the critical density, both today.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    h0_km_s_mpc: float
    om0: float

    def __post_init__(self) -> None:
        if not 10 <= self.h0_km_s_mpc <= 200:
            raise ValueError(f"h0_km_s_mpc must be in [10, 200], got {self.h0_km_s_mpc!r}")
        if not 0 < self.om0 <= 1:
            raise ValueError(f"om0 must be in (0, 1], got {self.om0!r}")

    def astropy(self) -> FlatLambdaCDM:
        """The same cosmology as astropy has it."""
        from astropy.cosmology import FlatLambdaCDM  # 0.4 s of a worker that needs no distances

        return FlatLambdaCDM(H0=self.h0_km_s_mpc, Om0=self.om0)

    def comoving_distance_mpc(self, z: ArrayLike) -> Array:
        """Comoving distance to redshifts in [0, 20]."""
        redshift = np.asarray(z, dtype=np.float64)
        if not ((redshift >= 0) & (redshift <= MAX_REDSHIFT)).all():  # NaN too
            raise ValueError(f"z must be in [0, {MAX_REDSHIFT:g}], got {_first_outside(redshift)!r}")
        return np.asarray(_distance_spline(self)(np.log1p(redshift)))

    def angular_distance_mpc(self, z: ArrayLike) -> Array:
        """Angular diameter distance."""
        return self.comoving_distance_mpc(z) / (1.0 + np.asarray(z, dtype=np.float64))

    def critical_density_msun_mpc3(self, z: ArrayLike) -> Array:
        """3 H²(z) / (8π G)."""
        h0 = self.h0_km_s_mpc / _C_KM_S  # 1/Mpc
        growth = self.om0 * (1.0 + np.asarray(z, dtype=np.float64)) ** 3 + 1.0 - self.om0
        return np.asarray(1.5 * h0**2 * growth * _c2_over_4pi_g())


@cache
def _c2_over_4pi_g() -> float:
    """c²/(4π G) with astropy's constants, solar masses per Mpc."""
    from astropy import constants, units  # 0.2 s of a worker that needs no masses

    return float((constants.c**2 / (4.0 * math.pi * constants.G)).to_value(units.Msun / units.Mpc))


def _first_outside(z: Array) -> float:
    return float(z[~((z >= 0) & (z <= MAX_REDSHIFT))].ravel()[0])


@lru_cache(maxsize=8)
def _distance_spline(cosmology: Cosmology) -> CubicSpline:
    nodes = np.linspace(0.0, math.log1p(MAX_REDSHIFT), _NODES)
    return CubicSpline(nodes, cosmology.astropy().comoving_distance(np.expm1(nodes)).to_value("Mpc"))


def distance_ratio(z_l: ArrayLike, z_s: ArrayLike, cosmology: Cosmology) -> Array:
    """D_ls/D_s = 1 − χ(z_l)/χ(z_s), which holds in a flat universe.

    Raises
    ------
    ValueError
        If a source is not behind its lens.
    """
    lens, source = np.asarray(z_l, dtype=np.float64), np.asarray(z_s, dtype=np.float64)
    if not (source > lens).all():
        lens, source = np.broadcast_arrays(lens, source)
        worst = ~(source > lens)
        raise ValueError(f"z_s must exceed z_l, got z_s {source[worst][0]:g} behind z_l {lens[worst][0]:g}")
    return 1.0 - cosmology.comoving_distance_mpc(lens) / cosmology.comoving_distance_mpc(source)


def theta_e_sis_arcsec(sigma_v_km_s: ArrayLike, z_l: ArrayLike, z_s: ArrayLike, cosmology: Cosmology) -> Array:
    """θ_E = 4π (σ_v/c)² D_ls/D_s of a singular isothermal sphere, arcsec.

    dθ_E/dσ_v is 2 θ_E/σ_v: :func:`d_theta_e_d_sigma`.
    """
    sigma = _positive(sigma_v_km_s, "sigma_v_km_s")
    return np.asarray(4.0 * math.pi * (sigma / _C_KM_S) ** 2 * distance_ratio(z_l, z_s, cosmology) / _ARCSEC)


def sigma_v_km_s(theta_e_arcsec: ArrayLike, z_l: ArrayLike, z_s: ArrayLike, cosmology: Cosmology) -> Array:
    """The dispersion whose sphere has this Einstein radius: the inverse of :func:`theta_e_sis_arcsec`."""
    theta = _positive(theta_e_arcsec, "theta_e_arcsec")
    return np.asarray(_C_KM_S * np.sqrt(theta * _ARCSEC / (4.0 * math.pi * distance_ratio(z_l, z_s, cosmology))))


def d_theta_e_d_sigma(sigma_v: ArrayLike, theta_e_arcsec: ArrayLike) -> Array:
    """dθ_E/dσ_v, arcsec per km/s: a density in σ_v divided by it is a density in θ_E."""
    return np.asarray(2.0 * np.asarray(theta_e_arcsec, dtype=np.float64) / _positive(sigma_v, "sigma_v"))


def sigma_crit_msun_mpc2(z_l: ArrayLike, z_s: ArrayLike, cosmology: Cosmology) -> Array:
    """Critical surface density c²/(4π G) · D_s/(D_l D_ls) = c²/(4πG) / (D_l · D_ls/D_s), solar masses per Mpc²."""
    d_l = cosmology.angular_distance_mpc(z_l)
    return np.asarray(_c2_over_4pi_g() / (d_l * distance_ratio(z_l, z_s, cosmology)))


def arcsec_per_mpc(z: ArrayLike, cosmology: Cosmology) -> Array:
    """Angle of one Mpc at a redshift."""
    return np.asarray(1.0 / (cosmology.angular_distance_mpc(z) * _ARCSEC))


def _positive(values: ArrayLike, name: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if not (array > 0).all() or not np.isfinite(array).all():
        raise ValueError(f"{name} must be positive and finite, got {array[~((array > 0) & np.isfinite(array))][0]!r}")
    return array
