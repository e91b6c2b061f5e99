"""A population of subhalos of cold dark matter for one lens.

Masses m = M200 before stripping follow dN/dm ∝ m^slope between two masses. Centres are uniform over the disc of
``radius_theta_e`` Einstein radii: the projected number density of subhalos hardly changes so far inside the host.
Their number is Poisson, with the mean that gives the disc an expected mass in (truncated) subhalos of ``f_sub`` times
the mass of the lens inside it, which for a density slope γ and R = k θ_E is

    M(<R) = π R² Σ_crit κ̄(<R),    κ̄(<R) = (θ_E/R)^(γ−1),

exact for a round lens; for an SIE it is 3 % too large at e = 0.35. Concentrations are lognormal about
c = A (m/m_p)^B (1 + z)^C (Duffy et al. 2008, MNRAS 390, L64; fitted above 1e11 and extrapolated), and the truncation
radius is the Roche radius of an isothermal host, r_t = r_7 (m/1e7)^(1/3) (r/50 kpc)^(2/3) (Cyr-Racine et al. 2016,
PhRvD 94, 043505), at one distance r from the host's centre for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from dhs_gen.lensing.cosmology import Cosmology, arcsec_per_mpc, sigma_crit_msun_mpc2
from dhs_gen.lensing.tnfw import TRUNCATION_RANGE, Subhalos, total_mass

Array = NDArray[np.float64]

_OVERDENSITY = 200.0


@dataclass(frozen=True)
class SubhaloPopulation:
    """Settings of the population (conf/subhalos).

    Parameters
    ----------
    f_sub
        Expected mass in subhalos over the mass of the lens, both projected, inside the disc.
    mass_low_msun, mass_high_msun, mass_slope
        Range and slope of dN/dm, m = M200 before stripping.
    radius_theta_e
        Radius of the disc of centres, in Einstein radii.
    concentration_at_pivot, concentration_pivot_msun_h, concentration_mass_power, concentration_z_power
        A, m_p (solar masses over h), B, C of the concentration.
    concentration_scatter_dex
        Scatter of log10 c.
    trunc_kpc_at_1e7, host_distance_kpc
        r_7 and r of the truncation radius.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    f_sub: float
    mass_low_msun: float
    mass_high_msun: float
    mass_slope: float
    radius_theta_e: float
    concentration_at_pivot: float
    concentration_pivot_msun_h: float
    concentration_mass_power: float
    concentration_z_power: float
    concentration_scatter_dex: float
    trunc_kpc_at_1e7: float
    host_distance_kpc: float

    def __post_init__(self) -> None:
        if not 0 <= self.f_sub < 1:
            raise ValueError(f"f_sub must be in [0, 1), got {self.f_sub!r}")
        for name in (
            "mass_low_msun", "mass_high_msun", "radius_theta_e", "concentration_at_pivot",
            "concentration_pivot_msun_h", "trunc_kpc_at_1e7", "host_distance_kpc",
        ):  # fmt: skip
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)!r}")
        for name in ("mass_slope", "concentration_mass_power", "concentration_z_power"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)!r}")
        if not self.concentration_scatter_dex >= 0:
            raise ValueError(f"concentration_scatter_dex must not be negative, got {self.concentration_scatter_dex!r}")
        if not self.mass_low_msun < self.mass_high_msun:
            raise ValueError(
                f"mass_low_msun must be below mass_high_msun, got {self.mass_low_msun!r} and {self.mass_high_msun!r}"
            )

    def masses(self, u: Array) -> Array:
        """Masses at the quantiles of the mass function, solar masses."""
        power = self.mass_slope + 1.0
        if abs(power) < 1e-9:
            return np.asarray(self.mass_low_msun * (self.mass_high_msun / self.mass_low_msun) ** u)
        low, high = self.mass_low_msun**power, self.mass_high_msun**power
        return np.asarray((low + u * (high - low)) ** (1.0 / power))

    def concentrations(self, mass_msun: Array, z: float, cosmology: Cosmology, normal: Array) -> Array:
        """r200/R_s of halos at ``normal`` standard deviations from the relation; at least 1."""
        mass_h = mass_msun * cosmology.h0_km_s_mpc / 100.0
        mean = (
            self.concentration_at_pivot
            * (mass_h / self.concentration_pivot_msun_h) ** self.concentration_mass_power
            * (1.0 + z) ** self.concentration_z_power
        )
        return np.asarray(np.maximum(mean * 10.0 ** (self.concentration_scatter_dex * normal), 1.0))

    def truncations_kpc(self, mass_msun: Array) -> Array:
        """Roche radii, kpc."""
        return np.asarray(
            self.trunc_kpc_at_1e7 * (mass_msun / 1e7) ** (1.0 / 3.0) * (self.host_distance_kpc / 50.0) ** (2.0 / 3.0)
        )


def nfw_radius_mpc(mass_msun: Array, concentration: Array, z: float, cosmology: Cosmology) -> Array:
    """Scale radius of an NFW halo of M200 (200 times the critical density at z), Mpc."""
    volume = mass_msun / (_OVERDENSITY * cosmology.critical_density_msun_mpc3(z) * 4.0 * math.pi / 3.0)
    return np.asarray(np.cbrt(volume) / concentration)


def nfw_angles(
    mass_msun: Array, concentration: Array, z_l: float, z_s: float, cosmology: Cosmology
) -> tuple[Array, Array]:
    """(R_s, alpha_Rs) in arcsec of NFW halos in the plane of the lens.

    alpha_Rs = 4 ρ_0 R_s² (1 − ln 2)/Σ_crit with ρ_0 = M200/(4π R_s³ m(c)), m(c) = ln(1+c) − c/(1+c).
    """
    rs_mpc = nfw_radius_mpc(mass_msun, concentration, z_l, cosmology)
    alpha_mpc = mass_msun * (1.0 - math.log(2.0)) / (math.pi * rs_mpc * _nfw_mass(concentration))
    scale = arcsec_per_mpc(z_l, cosmology)
    return rs_mpc * scale, alpha_mpc / sigma_crit_msun_mpc2(z_l, z_s, cosmology) * scale


def _nfw_mass(concentration: Array) -> Array:
    return np.asarray(np.log1p(concentration) - concentration / (1.0 + concentration))


def bound_masses_msun(mass_msun: Array, concentration: Array, trunc_over_rs: Array) -> Array:
    """What the truncation leaves of M200: g(∞, τ)/m(c) of it."""
    tau = np.asarray(trunc_over_rs, dtype=np.float64)
    return np.asarray(mass_msun * total_mass(tau) / _nfw_mass(concentration))


def lens_mass_msun(
    theta_e_arcsec: float, radius_theta_e: float, slope: float, z_l: float, z_s: float, cosmology: Cosmology
) -> float:
    """Projected mass of a round lens of density slope γ within ``radius_theta_e`` Einstein radii."""
    theta_e_mpc = theta_e_arcsec / float(arcsec_per_mpc(z_l, cosmology))
    disc = math.pi * theta_e_mpc**2 * float(sigma_crit_msun_mpc2(z_l, z_s, cosmology))
    return disc * radius_theta_e ** (3.0 - slope)


def expected_number(
    population: SubhaloPopulation, theta_e_arcsec: float, slope: float, z_l: float, z_s: float, cosmology: Cosmology
) -> float:
    """Mean number of subhalos: f_sub times the mass of the lens over the mean bound mass."""
    total = lens_mass_msun(theta_e_arcsec, population.radius_theta_e, slope, z_l, z_s, cosmology)
    return population.f_sub * total / _mean_bound_mass_msun(population, z_l, cosmology)


@lru_cache(maxsize=64)  # the tasks of a host follow one another and share its redshift
def _mean_bound_mass_msun(population: SubhaloPopulation, z_l: float, cosmology: Cosmology) -> float:
    u, normal = np.meshgrid((np.arange(2000) + 0.5) / 2000, ndtri((np.arange(10) + 0.5) / 10), indexing="ij")
    return float(bound_masses_msun(*_structure(population, u, normal, z_l, cosmology)).mean())


def _structure(
    population: SubhaloPopulation, u: Array, normal: Array, z_l: float, cosmology: Cosmology
) -> tuple[Array, Array, Array]:
    """Masses, concentrations and r_t/R_s, the last kept within what the profile's table can do."""
    mass = population.masses(u)
    concentration = population.concentrations(mass, z_l, cosmology, normal)
    rs_kpc = 1e3 * nfw_radius_mpc(mass, concentration, z_l, cosmology)
    return mass, concentration, np.clip(population.truncations_kpc(mass) / rs_kpc, *TRUNCATION_RANGE)


def draw_subhalos(
    population: SubhaloPopulation,
    theta_e_arcsec: float,
    z_l: float,
    z_s: float,
    cosmology: Cosmology,
    generator: np.random.Generator,
    slope: float = 2.0,
) -> Subhalos:
    """The subhalos of one lens.

    Parameters
    ----------
    population, cosmology
        Settings.
    theta_e_arcsec, z_l, z_s, slope
        The lens and the redshift of its source.
    generator
        Of the task, for this purpose alone (:func:`dhs_gen.streams.stream`).

    Returns
    -------
    Subhalos
        In the plane of the lens, relative to its centre; possibly none.
    """
    if not (math.isfinite(theta_e_arcsec) and theta_e_arcsec >= 0):
        raise ValueError(f"theta_e_arcsec must not be negative, got {theta_e_arcsec!r}")
    mean = expected_number(population, theta_e_arcsec, slope, z_l, z_s, cosmology)
    count = int(generator.poisson(mean))
    u_mass, u_concentration, u_radius, u_azimuth = generator.uniform(size=(4, count))
    normal = ndtri(np.maximum(u_concentration, 1e-15))
    mass, concentration, tau = _structure(population, u_mass, normal, z_l, cosmology)
    rs, alpha_rs = nfw_angles(mass, concentration, z_l, z_s, cosmology)
    radius = population.radius_theta_e * theta_e_arcsec * np.sqrt(u_radius)
    azimuth = 2.0 * math.pi * u_azimuth
    return Subhalos(radius * np.cos(azimuth), radius * np.sin(azimuth), rs, alpha_rs, tau * rs)
