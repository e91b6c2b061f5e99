"""Tasks: complete, reproducible, independent of their neighbours and of the generation."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats

from dhs_pipeline.config import load_run_config
from dhs_pipeline.manifest.tasks import expand, tasks_per_host
from dhs_pipeline.schemas import HOSTS, MANIFEST

CONFIG = load_run_config("demo", ["manifest.tasks_per_host=24", "manifest.control_fraction=0.25"])


PERTURBATIONS = ("lens_a3", "lens_a4", "subhalo_", "lens_sigma_v")
"""Columns that an SIE of a design does not have."""


def hosts(count: int, start: int = 0) -> pa.Table:
    base = {"brickname": "0591m305", "parent_row": 0, "ra_deg": 59.0, "dec_deg": -30.0, "type": "DEV", "mag_g": 22.0}
    base |= {"mag_r": 20.0, "mag_z": 19.0, "z_l": 0.5, "z_l_source": "phot", "region_id": 3, "region_split": "train"}
    return pa.Table.from_pylist([base | {"host_id": f"h{start + i}"} for i in range(count)], schema=HOSTS)


@pytest.fixture(scope="module")
def tasks() -> pa.Table:
    return expand(hosts(200), CONFIG)


def positives(tasks: pa.Table) -> dict[str, np.ndarray]:
    table = tasks.filter(pc.equal(tasks.column("is_control"), 0))
    return {name: table.column(name).to_numpy() for name in table.column_names}


def test_every_positive_is_complete(tasks: pa.Table) -> None:
    assert tasks.schema.equals(MANIFEST, check_metadata=True)
    table = tasks.filter(pc.equal(tasks.column("is_control"), 0))
    drawn = [n for n in MANIFEST.names[MANIFEST.names.index("lens_model") :] if not n.startswith(PERTURBATIONS)]
    assert not [n for n in (*drawn, "z_l", "region_id", "host_id") if table.column(n).null_count]


def test_controls_have_no_lens_and_no_source(tasks: pa.Table) -> None:
    table = tasks.filter(pc.equal(tasks.column("is_control"), 1))
    assert set(table.column("config_id").to_pylist()) == {"CONTROL"}
    assert table.column("theta_e_arcsec").null_count == table.num_rows
    assert table.num_rows / tasks.num_rows == pytest.approx(0.25, abs=0.01)
    assert tasks.num_rows == 200 * tasks_per_host(CONFIG)


def test_names_are_unique_and_hold_neither_generation_nor_split(tasks: pa.Table) -> None:
    ids = tasks.column("task_id").to_pylist()
    assert len(set(ids)) == len(ids)
    other = load_run_config(
        "demo",
        [
            "manifest.tasks_per_host=24",
            "manifest.control_fraction=0.25",
            "generations=[control]",
            "manifest.split_fractions={train: 0.2, val: 0.2, test: 0.6}",
        ],
    )
    assert expand(hosts(200), other).column("task_id").to_pylist() == ids


def test_a_host_does_not_depend_on_the_others(tasks: pa.Table) -> None:
    alone = expand(hosts(1, start=17), CONFIG)
    among = tasks.filter(pc.equal(tasks.column("host_id"), "h17"))
    assert alone.combine_chunks().equals(among.combine_chunks())


def test_draws_keep_their_ranges_and_distributions(tasks: pa.Table) -> None:
    v = positives(tasks)
    offset = np.hypot(v["src_x_arcsec"], v["src_y_arcsec"]) / v["theta_e_arcsec"]
    assert offset.max() <= CONFIG.priors.source_offset_max_theta_e
    uniform = {
        "area": (offset / CONFIG.priors.source_offset_max_theta_e) ** 2,
        "lens_phi": v["lens_phi_rad"] / math.pi,
        "shear_phi": v["shear_phi_rad"] / math.pi,
        "src_phi": v["src_phi_rad"] / (2 * math.pi),
        "lens_e": v["lens_e"] / CONFIG.priors.lens_e.high,
        "template": v["template_u"],
    }
    for name, u in uniform.items():
        assert stats.kstest(u, "uniform").pvalue > 1e-4, name
    assert abs(v["src_flip"].mean() - 0.5) < 0.05
    assert (v["z_s"] > v["z_l"] + CONFIG.priors.src_z_min_above_lens - 1e-9).all()
    np.testing.assert_allclose(v["src_mag_r"], v["mag_r"] + v["src_dmag"])


def test_draws_are_independent_of_each_other(tasks: pa.Table) -> None:
    v = positives(tasks)
    names = ["lens_e", "lens_phi_rad", "shear_phi_rad", "src_phi_rad", "src_gr", "src_rz", "src_n_sersic", "template_u"]
    correlation = np.corrcoef([v[n] for n in names])
    assert np.abs(correlation - np.eye(len(names))).max() < 5 / math.sqrt(v["lens_e"].size)


def test_density_reweights_to_another_population(tasks: pa.Table) -> None:
    """The mean of 1/q over the draws is the volume of the space that they fill."""
    v = positives(tasks)
    axes = CONFIG.design.axes.named()
    volume = math.prod(a.high - a.low for n, a in axes.items() if n != "theta_e_arcsec")
    theta = axes["theta_e_arcsec"]
    disc = math.pi * CONFIG.priors.source_offset_max_theta_e**2 * (theta.high**3 - theta.low**3) / 3
    volume *= disc * math.pi**2 * 2 * math.pi * 2
    p = CONFIG.priors
    volume *= (p.lens_e.high - p.lens_e.low) * (p.src_n_sersic.high - p.src_n_sersic.low)
    # Unbounded weights are tamed by weighting only the inner part of the two normal colours and of z_s.
    inner = (np.abs(v["src_gr"] - 0.2) < 0.2) & (np.abs(v["src_rz"] - 0.2) < 0.25) & (v["z_s"] > 0.7) & (v["z_s"] < 2)
    volume *= 0.4 * 0.5 * 1.3
    weights = inner / v["proposal_density"]
    error = weights.std() / math.sqrt(weights.size)
    assert weights.mean() == pytest.approx(volume, abs=4 * error)
    assert error / volume < 0.05


def test_a_grids_dmag_is_relative_to_the_host() -> None:
    v = positives(expand(hosts(1), load_run_config("demo", ["design=small"])))
    assert set(np.round(v["src_mag_r"] - 20.0, 12)) == {1.0, 2.0}  # the host has r = 20
    np.testing.assert_allclose(v["src_dmag"], v["src_mag_r"] - 20.0)


def test_replicates_differ_in_what_is_drawn_only() -> None:
    config = load_run_config("demo", ["manifest.tasks_per_host=3", "manifest.replicates=2", "design=small"])
    v = positives(expand(hosts(1), config))
    assert list(v["replicate"]) == [0, 1, 0, 1, 0, 1]
    assert v["theta_e_arcsec"][0] == v["theta_e_arcsec"][1]
    assert v["lens_phi_rad"][0] != v["lens_phi_rad"][1]
