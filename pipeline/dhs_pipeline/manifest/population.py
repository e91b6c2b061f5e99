"""The population design: σ_v, magnitude, size and shape as nature draws them, and θ_E from σ_v and the redshifts.

Nothing is cut: a lens too small to be seen is part of the population, stays in the manifest, and counts in the
denominator of a completeness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing import populations
from dhs_gen.lensing.cosmology import Cosmology, d_theta_e_d_sigma, theta_e_sis_arcsec
from dhs_gen.streams import unit_intervals_by_salt
from dhs_pipeline.config import PopulationDesign, PowerLawCounts, SigmaV, SizeOfMagnitude
from dhs_pipeline.manifest.draws import draw

POPULATION_DENSITY_AXES = {
    "theta_e_arcsec": "1/arcsec, given z_l and z_s (and the host's sigma_v, where the design takes it)",
    "src_mag_r": "1/mag",
    "src_reff_arcsec": "1/arcsec, given src_mag_r",
    "src_e": "1",
    "shear": "1",
}
"""What the population design adds to the proposal density."""

_PURPOSES = (
    "population_sigma_v",
    "population_src_mag_r",
    "population_src_reff",
    "population_src_e",
    "population_shear",
)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HostFacts:
    """What the draws of tasks need of their hosts, one element per task; sigma_v is NaN where the parent has none."""

    host_id: NDArray[np.object_]
    mag_r: Array
    z_l: Array
    sigma_v_km_s: Array


def draw_population(
    design: PopulationDesign, task_ids: Sequence[str], hosts: HostFacts, z_s: Array, cosmology: Cosmology
) -> tuple[dict[str, Array], Array]:
    """Values of the design's columns for each task, and their joint density.

    Raises
    ------
    ValueError
        If the design takes σ_v from the catalogue and a host has none.
    """
    u = unit_intervals_by_salt(task_ids, _PURPOSES)
    sigma_v, p_sigma = _velocity_dispersions(design.sigma_v, hosts, u["population_sigma_v"])
    theta_e = theta_e_sis_arcsec(sigma_v, hosts.z_l, z_s, cosmology)
    mag_r, p_mag = _magnitudes(design.src_mag_r, u["population_src_mag_r"])
    reff, p_reff = _sizes(design.src_reff, mag_r, u["population_src_reff"])
    e, p_e = draw(design.src_e, u["population_src_e"])
    shear, p_shear = draw(design.shear, u["population_shear"])
    values = {
        "theta_e_arcsec": theta_e,
        "lens_sigma_v_km_s": sigma_v,
        "src_mag_r": mag_r,
        "src_reff_arcsec": reff,
        "src_e": e,
        "shear": shear,
    }
    return values, p_sigma / d_theta_e_d_sigma(sigma_v, theta_e) * p_mag * p_reff * p_e * p_shear


def _velocity_dispersions(prior: SigmaV, hosts: HostFacts, u: Array) -> tuple[Array, Array]:
    """σ_v, km/s, and its density: draws of the function, or log-normal about each host's own."""
    if prior.vdf is not None:
        vdf = populations.VelocityDispersionFunction(**prior.vdf.model_dump(), **_range(prior))
        values = vdf.draw(u)
        return values, vdf.density(values)
    if prior.scatter_dex is None:
        raise ValueError("sigma_v has neither a vdf nor the scatter of a catalogue")
    if (missing := np.isnan(hosts.sigma_v_km_s)).any():
        raise ValueError(
            f"host {hosts.host_id[missing][0]} has no sigma_v_km_s, which the population design takes from the parent"
        )
    own = populations.Lognormal(prior.scatter_dex, prior.low_km_s, prior.high_km_s)
    values = own.draw(u, hosts.sigma_v_km_s)
    return values, own.density(values, hosts.sigma_v_km_s)


def _range(prior: SigmaV) -> dict[str, float]:
    return {"low_km_s": prior.low_km_s, "high_km_s": prior.high_km_s}


def _magnitudes(prior: PowerLawCounts, u: Array) -> tuple[Array, Array]:
    counts = populations.PowerLawCounts(prior.slope_dex_per_mag, prior.low, prior.high)
    values = counts.draw(u)
    return values, counts.density(values)


def _sizes(prior: SizeOfMagnitude, mag_r: Array, u: Array) -> tuple[Array, Array]:
    sizes = populations.SizeMagnitude(**prior.model_dump(exclude={"dist"}))
    values = sizes.draw(u, mag_r)
    return values, sizes.density(values, mag_r)
