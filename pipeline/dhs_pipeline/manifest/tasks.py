"""From hosts and a design to tasks; the random numbers of a task come from streams of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dhs_gen.streams import stable_id, unit_interval
from dhs_pipeline.config import RunConfig
from dhs_pipeline.manifest.design import DesignPoints, design_points, points_per_host
from dhs_pipeline.manifest.draws import draw, draw_source_redshift
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
"""What proposal_density is the product of; written to the stage's JSON."""

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
    "z_s",
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


def tasks_per_host(config: RunConfig) -> int:
    """Mean number of tasks of a host, controls included."""
    settings = config.manifest
    points = points_per_host(config.design, settings.tasks_per_host)
    return round(points * settings.replicates / (1.0 - settings.control_fraction))


def _expand_host(host: pa.Table, config: RunConfig) -> pa.Table:
    host_id = host.column("host_id")[0].as_py()
    points = design_points(config.design, host_id, config.manifest.tasks_per_host)
    positives = _positives(host, host_id, points, config)
    n_controls = _number_of_controls(host_id, len(points.config_ids) * config.manifest.replicates, config)
    return pa.concat_tables([positives, _controls(host, host_id, n_controls, config)])


def _number_of_controls(host_id: str, n_positives: int, config: RunConfig) -> int:
    """f/(1−f) of the positives on average: the fraction of a task is decided by a number of the host's own."""
    fraction = config.manifest.control_fraction
    expected = n_positives * fraction / (1.0 - fraction)
    whole = math.floor(expected)
    return whole + int(unit_interval(host_id, config.experiment_id, salt="n_controls") < expected - whole)


def _positives(host: pa.Table, host_id: str, points: DesignPoints, config: RunConfig) -> pa.Table:
    replicates = config.manifest.replicates
    config_ids = [c for c in points.config_ids for _ in range(replicates)]
    replicate = np.tile(np.arange(replicates), len(points.config_ids))
    task_ids = _task_ids(config, host_id, config_ids, replicate)
    design = {axis: np.repeat(values, replicates) for axis, values in points.values.items()}
    drawn = _draw(task_ids, design, np.repeat(points.density, replicates), host, config)
    return _assemble(host, task_ids, config_ids, replicate, is_control=0, columns=design | drawn, config=config)


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


def _draw(
    task_ids: list[str], design: Mapping[str, Array], density: Array, host: pa.Table, config: RunConfig
) -> dict[str, object]:
    """Everything the design leaves open, and the density of the whole task."""
    priors = config.priors
    u = {p: np.array([unit_interval(t, salt=p) for t in task_ids]) for p in _PURPOSES}
    mag_r, z_l = host.column("mag_r")[0].as_py(), host.column("z_l")[0].as_py()

    src_mag_r = design["src_mag_r"] if "src_mag_r" in design else mag_r + design["src_dmag"]
    offset_max = priors.source_offset_max_theta_e * design["theta_e_arcsec"]
    radius, azimuth = offset_max * np.sqrt(u["src_offset"]), 2.0 * math.pi * u["src_azimuth"]
    lens_e, p_lens_e = draw(priors.lens_e, u["lens_e"])
    n_sersic, p_n = draw(priors.src_n_sersic, u["src_n_sersic"])
    gr, p_gr = draw(priors.src_gr, u["src_gr"])
    rz, p_rz = draw(priors.src_rz, u["src_rz"])
    z_s, p_z = draw_source_redshift(priors.src_z, np.full(len(task_ids), z_l + priors.src_z_min_above_lens), u["z_s"])

    p_disc = 1.0 / (math.pi * offset_max**2)
    p_angles = (1.0 / math.pi) ** 2 / (2.0 * math.pi)  # mass and shear over [0, pi), source over [0, 2 pi)
    return {
        "lens_e": lens_e,
        "lens_phi_rad": math.pi * u["lens_phi_rad"],
        "shear_phi_rad": math.pi * u["shear_phi_rad"],
        "z_s": z_s,
        "src_x_arcsec": radius * np.cos(azimuth),
        "src_y_arcsec": radius * np.sin(azimuth),
        "src_mag_r": src_mag_r,
        "src_dmag": src_mag_r - mag_r,
        "src_gr": gr,
        "src_rz": rz,
        "src_n_sersic": n_sersic,
        "src_phi_rad": 2.0 * math.pi * u["src_phi_rad"],
        "src_flip": (u["src_flip"] < 0.5).astype(np.int32),
        "template_u": u["template_u"],
        "proposal_density": density * p_disc * p_angles * 0.5 * p_lens_e * p_n * p_gr * p_rz * p_z,
    }


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
        "lens_model": [None if is_control else "SIE"] * count,
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
