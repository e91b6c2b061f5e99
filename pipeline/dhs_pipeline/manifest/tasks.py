"""From hosts and a design to tasks; the random numbers of a task come from streams of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dhs_gen.streams import stable_ids, unit_interval, unit_intervals, unit_intervals_by_salt
from dhs_gen.uber.mixer import assign_modes_many
from dhs_pipeline.config import PopulationDesign, RunConfig
from dhs_pipeline.manifest.design import DesignPoints, design_points, points_per_host
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

_TASKS_AT_ONCE = 16_384
"""Hosts are expanded together up to about this many tasks: more gain nothing and take memory."""

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


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

    Raises
    ------
    ValueError
        If a host has no z_l, no mag_r, or no sigma_v_km_s where the design takes it.
    """
    at_once = max(1, _TASKS_AT_ONCE // tasks_per_host(config))
    tables = [_expand_together(hosts.slice(i, at_once), config) for i in range(0, hosts.num_rows, at_once)]
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


@dataclass(frozen=True, eq=False)
class _Rows:
    """Which task each row is.

    Parameters
    ----------
    host
        (n,) row of the task's host.
    config_ids, replicate, task_ids
        Its name.
    positive
        (n,) whether it is none of the controls.
    """

    host: Indices
    config_ids: list[str]
    replicate: Indices
    task_ids: list[str]
    positive: NDArray[np.bool_]


def _expand_together(hosts: pa.Table, config: RunConfig) -> pa.Table:
    host_ids = hosts.column("host_id").to_pylist()
    points = design_points(config.design, host_ids, config.manifest.tasks_per_host)
    rows = _rows(host_ids, points, config)
    positives = _positives(hosts, rows, points, config)
    return _assemble(hosts, rows, positives, config)


def _rows(host_ids: list[str], points: DesignPoints, config: RunConfig) -> _Rows:
    """The points of a host, each with its replicates, then the host's controls.

    Neither the generation nor the split is in a task's name: generations compare pair by pair, re-splits keep names.
    """
    replicates = config.manifest.replicates
    per_host = len(points.config_ids) // len(host_ids) * replicates
    names = [name for name in points.config_ids for _ in range(replicates)]
    config_ids: list[str] = []
    replicate: list[int] = []
    task_ids: list[str] = []
    n_tasks = []
    for i, host_id in enumerate(host_ids):
        n_controls = _number_of_controls(host_id, per_host, config)
        of_host = [*names[i * per_host : (i + 1) * per_host], *[CONTROL] * n_controls]
        numbers = [*[k % replicates for k in range(per_host)], *range(n_controls)]
        task_ids += stable_ids((config.experiment_id, host_id), zip(of_host, numbers, strict=True))
        config_ids += of_host
        replicate += numbers
        n_tasks.append(len(of_host))
    host = np.repeat(np.arange(len(host_ids)), n_tasks)
    place = np.arange(host.size) - np.repeat(np.cumsum(n_tasks) - n_tasks, n_tasks)
    return _Rows(host, config_ids, np.array(replicate), task_ids, place < per_host)


def _number_of_controls(host_id: str, n_positives: int, config: RunConfig) -> int:
    """f/(1−f) of the positives on average: the fraction of a task is decided by a number of the host's own."""
    fraction = config.manifest.control_fraction
    expected = n_positives * fraction / (1.0 - fraction)
    whole = math.floor(expected)
    return whole + int(unit_interval(host_id, config.experiment_id, salt="n_controls") < expected - whole)


def _positives(hosts: pa.Table, rows: _Rows, points: DesignPoints, config: RunConfig) -> dict[str, object]:
    """Columns of the positives alone, a value for each of them."""
    replicates, cosmology = config.manifest.replicates, config.cosmology.kernel()
    task_ids = list(compress(rows.task_ids, rows.positive.tolist()))
    facts = _facts(hosts, rows.host[rows.positive])
    z_s, p_z = _source_redshifts(task_ids, facts, config)
    design: dict[str, Array] = {axis: np.repeat(values, replicates) for axis, values in points.values.items()}
    density = np.repeat(points.density, replicates) * p_z
    if isinstance(config.design, PopulationDesign):
        design, p_population = draw_population(config.design, task_ids, facts, z_s, cosmology)
        density = density * p_population
    drawn, p_drawn = _draw(task_ids, design["theta_e_arcsec"], config)
    mass, p_mass = draw_mass(config.mass, cosmology, task_ids, facts.z_l, z_s, design["theta_e_arcsec"])
    columns: dict[str, object] = {**design, **drawn, **mass, **_brightness(design, facts), "z_s": z_s}
    columns["lens_model"] = [config.mass.model] * len(task_ids)
    columns["proposal_density"] = density * p_drawn * p_mass
    return columns


def _facts(hosts: pa.Table, of_task: Indices) -> HostFacts:
    """What the draws need of each task's host; ``of_task`` is its row."""
    host_id = hosts.column("host_id").to_numpy()
    found = {name: hosts.column(name).to_numpy() for name in ("mag_r", "z_l", "sigma_v_km_s")}
    for name in ("mag_r", "z_l"):
        if (missing := np.isnan(found[name])).any():
            raise ValueError(f"host {host_id[missing][0]} has no {name}, which its tasks are drawn with")
    return HostFacts(host_id[of_task], **{name: values[of_task] for name, values in found.items()})


def _source_redshifts(task_ids: list[str], hosts: HostFacts, config: RunConfig) -> tuple[Array, Array]:
    priors = config.priors
    z_min = hosts.z_l + priors.src_z_min_above_lens
    return draw_source_redshift(priors.src_z, z_min, unit_intervals(task_ids, salt="z_s"))


def _brightness(design: Mapping[str, Array], hosts: HostFacts) -> dict[str, Array]:
    """The source's magnitude, absolute and relative to the host's; the design gives one of them."""
    src_mag_r = design["src_mag_r"] if "src_mag_r" in design else hosts.mag_r + design["src_dmag"]
    return {"src_mag_r": src_mag_r, "src_dmag": src_mag_r - hosts.mag_r}


def _draw(task_ids: list[str], theta_e_arcsec: Array, config: RunConfig) -> tuple[dict[str, object], Array]:
    """What design, mass model and redshifts leave open, and its density."""
    priors = config.priors
    u = unit_intervals_by_salt(task_ids, _PURPOSES)

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


def _assemble(hosts: pa.Table, rows: _Rows, positives: Mapping[str, object], config: RunConfig) -> pa.Table:
    """Each task's own columns, its host's, and those of the positives, which are null in controls."""
    count = len(rows.task_ids)
    everywhere: dict[str, object] = {
        "task_id": rows.task_ids,
        "config_id": rows.config_ids,
        "replicate": rows.replicate,
        "is_control": (~rows.positive).astype(np.int32),
        **assign_modes_many(rows.task_ids, config.mixture.mixer()),
    }
    constant: dict[str, object] = {
        "experiment_id": config.experiment_id,
        "bandset": config.stamp.bandset,
        "stamp_size_pix": config.survey.stamp_size_pix,
        "gen_variant": config.mixture.gen_variant,
    }
    host = pa.array(rows.host)
    positive = pa.array(np.cumsum(rows.positive) - 1, mask=~rows.positive)
    arrays = []
    for field in MANIFEST:
        if field.name in everywhere:
            arrays.append(pa.array(everywhere[field.name], field.type))
        elif field.name in constant:
            arrays.append(pa.repeat(pa.scalar(constant[field.name], field.type), count))
        elif field.name in positives:
            arrays.append(pa.array(positives[field.name], field.type).take(positive))
        elif field.name in hosts.column_names:
            arrays.append(hosts.column(field.name).combine_chunks().take(host))
        else:
            arrays.append(pa.nulls(count, field.type))
    return pa.table(arrays, schema=MANIFEST)
