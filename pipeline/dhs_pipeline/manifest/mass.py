"""What 4a draws for the mass of a lens beside θ_E, ellipticity and shear: slope, multipoles, subhalos."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.cosmology import Cosmology
from dhs_gen.lensing.models import ISOTHERMAL
from dhs_gen.lensing.subhalos import draw_subhalos
from dhs_gen.streams import stream, unit_intervals
from dhs_pipeline.config import Mass
from dhs_pipeline.manifest.draws import draw

MASS_DENSITY_AXES = {
    "gamma": "lens_gamma, 1",
    "a3_frac": "lens_a3_frac, 1, and lens_a3_phi_rad over its period, 1/rad",
    "a4_frac": "lens_a4_frac, 1, and lens_a4_phi_rad over its period, 1/rad",
    "subhalos": "not in the density: marginalised over the population that the configuration states",
}
"""Field of the mass model's configuration → what it adds to the proposal density."""

Array = NDArray[np.float64]


def draw_mass(
    mass: Mass, cosmology: Cosmology, task_ids: Sequence[str], z_l: Array, z_s: Array, theta_e_arcsec: Array
) -> tuple[dict[str, object], Array]:
    """Columns of the mass model and their density.

    Parameters
    ----------
    mass, cosmology
        Model and distributions; the cosmology in which subhalos have angles.
    task_ids
        The key of every draw.
    z_l, z_s, theta_e_arcsec
        Redshifts and Einstein radius of each task, for the subhalos' masses and number.
    """
    count = len(task_ids)
    density = np.ones(count)
    columns: dict[str, object] = {"lens_gamma": np.full(count, ISOTHERMAL)}
    if mass.gamma is not None:
        columns["lens_gamma"], density = draw(mass.gamma, unit_intervals(task_ids, salt="lens_gamma"))
    for m, distribution in ((3, mass.a3_frac), (4, mass.a4_frac)):
        if distribution is None:
            continue
        values, p = draw(distribution, unit_intervals(task_ids, salt=f"lens_a{m}_frac"))
        period = 2.0 * math.pi / m
        columns[f"lens_a{m}_frac"] = values
        columns[f"lens_a{m}_phi_rad"] = period * unit_intervals(task_ids, salt=f"lens_a{m}_phi_rad")
        density = density * p / period
    if mass.subhalos is not None:
        population = mass.subhalos.kernel()
        drawn = [
            draw_subhalos(population, theta_e, lens, source, cosmology, stream(task_id, "subhalos"), slope)
            for task_id, theta_e, lens, source, slope in zip(
                task_ids,
                theta_e_arcsec.tolist(),
                z_l.tolist(),
                z_s.tolist(),
                np.asarray(columns["lens_gamma"]).tolist(),
                strict=True,
            )
        ]
        for name in ("x_arcsec", "y_arcsec", "rs_arcsec", "alpha_rs_arcsec", "trunc_arcsec"):
            columns[f"subhalo_{name}"] = [getattr(halos, name) for halos in drawn]
    return columns, density
