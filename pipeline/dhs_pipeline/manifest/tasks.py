"""From hosts and a design to tasks; the random numbers of a task come from streams of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dhs_gen.streams import stable_id, unit_interval, unit_intervals
from dhs_gen.uber.mixer import assign_modes_many
from dhs_pipeline.config import PopulationDesign, RunConfig
from dhs_pipeline.manifest.design import design_points, points_per_host
from dhs_pipeline.manifest.draws import draw, draw_source_redshift
from dhs_pipeline.manifest.mass import MASS_DENSITY_AXES, draw_mass
from dhs_pipeline.manifest.population import POPULATION_DENSITY_AXES, HostFacts, draw_population
from dhs_pipeline.schemas import MANIFEST

CONTROL = "CONTROL"

DENSITY_AXES = {
    "design point": "probability of a grid's configuration, or density over the design's axes in their units",
    "src_x_arcsec, src_y_arcsec": "uniform over the disc, 1/arcsec^2",
    "lens_e": "1",
    "lens_phi_rad": "1/rad",
    "shear_phi_rad": "1/rad",
    "src_phi_rad": "1/rad",
    "src_flip": "probability",
    "src_n_sersic": "1",
    "src_gr": "1/mag",
    "src_rz": "1/mag",
    "z_s": "1, given z_l",
}
"""What proposal_density is the product of, whatever the design and the mass model."""

_PURPOSES = (
    "lens_e",
    "lens_phi_rad",
    "shear_phi_rad",
    "src_offset",
    "src_azimuth",
    "src_phi_rad",
    "src_flip",
    "src_n_sersic",
    "src_gr",
    "src_rz",
    "template_u",
)

Array = NDArray[np.float64]


def expand(hosts: pa.Table, config: RunConfig) -> pa.Table:
    """All tasks of the hosts, in their order: the positives of a host, then its controls.

    Parameters
    ----------
    hosts
        Rows of the HOSTS table.
    config
        The run.

    Returns
    -------
    pyarrow.Table
        Rows of the MANIFEST table.
    """
    tables = [_expand_host(hosts.slice(i, 1), config) for i in range(hosts.num_rows)]
    return pa.concat_tables(tables) if tables else MANIFEST.empty_table()


def density_axes(config: RunConfig) -> dict[str, str]:
    """What proposal_density is the product of in this run; written to the stage's JSON."""
    axes = dict(DENSITY_AXES)
    if isinstance(config.design, PopulationDesign):
        del axes["design point"]
        axes |= POPULATION_DENSITY_AXES
    return axes | {name: text for name, text in MASS_DENSITY_AXES.items() if getattr(config.mass, name) is not None}


def tasks_per_host(config: RunConfig) -> int:
    """Mean number of tasks of a host, controls included."""
    settings = config.manifest
    points = points_per_host(config.design, settings.tasks_per_host)
    return round(points * settings.replicates / (1.0 - settings.control_fraction))


def _expand_host(host: pa.Table, config: RunConfig) -> pa.Table:
    host_id = host.column("host_id")[0].as_py()
    positives = _positives(host, host_id, config)
    n_controls = _number_of_controls(host_id, positives.num_rows, config)
    return pa.concat_tables([positives, _controls(host, host_id, n_controls, config)])


def _number_of_controls(host_id: str, n_positives: int, config: RunConfig) -> int:
    """f/(1−f) of the positives on average: the fraction of a task is decided by a number of the host's own."""
    fraction = config.manifest.control_fraction
    expected = n_positives * fraction / (1.0 - fraction)
    whole = math.floor(expected)
    return whole + int(unit_interval(host_id, config.experiment_id, salt="n_controls") < expected - whole)


def _positives(host: pa.Table, host_id: str, config: RunConfig) -> pa.Table:
    replicates = config.manifest.replicates
    points = design_points(config.design, host_id, config.manifest.tasks_per_host)
    config_ids = [c for c in points.config_ids for _ in range(replicates)]
    replicate = np.tile(np.arange(replicates), len(points.config_ids))
    task_ids = _task_ids(config, host_id, config_ids, replicate)
    facts = HostFacts(*(host.column(name)[0].as_py() for name in ("host_id", "mag_r", "z_l", "sigma_v_km_s")))
    z_s, p_z = _source_redshifts(task_ids, facts, config)
    design: dict[str, Array] = {axis: np.repeat(values, replicates) for axis, values in points.values.items()}
    density = np.repeat(points.density, replicates) * p_z
    if isinstance(config.design, PopulationDesign):
        design, p_population = draw_population(config.design, task_ids, facts, z_s, config.cosmology.kernel())
        density = density * p_population
    drawn, p_drawn = _draw(task_ids, design["theta_e_arcsec"], config)
    mass, p_mass = draw_mass(config.mass, config.cosmology.kernel(), task_ids, facts.z_l, z_s, design["theta_e_arcsec"])
    columns: dict[str, object] = {**design, **drawn, **mass, **_brightness(design, facts), "z_s": z_s}
    columns["proposal_density"] = density * p_drawn * p_mass
    return _assemble(host, task_ids, config_ids, replicate, is_control=0, columns=columns, config=config)


def _source_redshifts(task_ids: list[str], host: HostFacts, config: RunConfig) -> tuple[Array, Array]:
    priors = config.priors
    z_min = np.full(len(task_ids), host.z_l + priors.src_z_min_above_lens)
    return draw_source_redshift(priors.src_z, z_min, unit_intervals(task_ids, salt="z_s"))


def _brightness(design: Mapping[str, Array], host: HostFacts) -> dict[str, Array]:
    """The source's magnitude, absolute and relative to the host's; the design gives one of them."""
    src_mag_r = design["src_mag_r"] if "src_mag_r" in design else host.mag_r + design["src_dmag"]
    return {"src_mag_r": src_mag_r, "src_dmag": src_mag_r - host.mag_r}


def _controls(host: pa.Table, host_id: str, count: int, config: RunConfig) -> pa.Table:
    replicate = np.arange(count)
    config_ids = [CONTROL] * count
    task_ids = _task_ids(config, host_id, config_ids, replicate)
    return _assemble(host, task_ids, config_ids, replicate, is_control=1, columns={}, config=config)


def _task_ids(config: RunConfig, host_id: str, config_ids: list[str], replicate: NDArray[np.int64]) -> list[str]:
    """Neither the generation nor the split is in the name: generations compare pair by pair, re-splits keep names."""
    return [
        stable_id(config.experiment_id, host_id, name, int(r)) for name, r in zip(config_ids, replicate, strict=True)
    ]


def _draw(task_ids: list[str], theta_e_arcsec: Array, config: RunConfig) -> tuple[dict[str, object], Array]:
    """What design, mass model and redshifts leave open, and its density."""
    priors = config.priors
    u = {p: unit_intervals(task_ids, salt=p) for p in _PURPOSES}

    offset_max = priors.source_offset_max_theta_e * theta_e_arcsec
    radius, azimuth = offset_max * np.sqrt(u["src_offset"]), 2.0 * math.pi * u["src_azimuth"]
    lens_e, p_lens_e = draw(priors.lens_e, u["lens_e"])
    n_sersic, p_n = draw(priors.src_n_sersic, u["src_n_sersic"])
    gr, p_gr = draw(priors.src_gr, u["src_gr"])
    rz, p_rz = draw(priors.src_rz, u["src_rz"])

    p_disc = 1.0 / (math.pi * offset_max**2)
    p_angles = (1.0 / math.pi) ** 2 / (2.0 * math.pi)  # mass and shear over [0, pi), source over [0, 2 pi)
    drawn: dict[str, object] = {
        "lens_e": lens_e,
        "lens_phi_rad": math.pi * u["lens_phi_rad"],
        "shear_phi_rad": math.pi * u["shear_phi_rad"],
        "src_x_arcsec": radius * np.cos(azimuth),
        "src_y_arcsec": radius * np.sin(azimuth),
        "src_gr": gr,
        "src_rz": rz,
        "src_n_sersic": n_sersic,
        "src_phi_rad": 2.0 * math.pi * u["src_phi_rad"],
        "src_flip": (u["src_flip"] < 0.5).astype(np.int32),
        "template_u": u["template_u"],
    }
    return drawn, p_disc * p_angles * 0.5 * p_lens_e * p_n * p_gr * p_rz


def _assemble(
    host: pa.Table,
    task_ids: list[str],
    config_ids: list[str],
    replicate: NDArray[np.int64],
    *,
    is_control: int,
    columns: Mapping[str, object],
    config: RunConfig,
) -> pa.Table:
    """Host columns repeated, task columns beside them, null where a control has none."""
    count = len(task_ids)
    known: dict[str, object] = {
        "task_id": task_ids,
        "experiment_id": [config.experiment_id] * count,
        "config_id": config_ids,
        "replicate": replicate,
        "is_control": np.full(count, is_control, np.int32),
        "bandset": [config.stamp.bandset] * count,
        "stamp_size_pix": np.full(count, config.survey.stamp_size_pix, np.int32),
        "lens_model": [None if is_control else config.mass.model] * count,
        **assign_modes_many(task_ids, config.mixture.mixer()),
        "gen_variant": [config.mixture.gen_variant] * count,
        **columns,
    }
    arrays = []
    for field in MANIFEST:
        if field.name in known:
            arrays.append(pa.array(known[field.name], field.type))
        elif field.name in host.column_names:
            arrays.append(pa.repeat(host.column(field.name)[0], count))
        else:
            arrays.append(pa.nulls(count, field.type))
    return pa.table(arrays, schema=MANIFEST)
