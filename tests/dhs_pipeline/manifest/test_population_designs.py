"""Population designs and perturbed mass models: θ_E from σ_v, densities that re-weight, subhalos of the task's own."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from lenstronomy.Cosmo.lens_cosmo import LensCosmo
from scipy import stats

from dhs_gen.task import Task
from dhs_pipeline.config import ConfigError, RunConfig, load_run_config
from dhs_pipeline.manifest.tasks import density_axes, expand
from dhs_pipeline.schemas import HOSTS

COUNTS = ("manifest.tasks_per_host=40", "manifest.control_fraction=0.0", "priors=population")
CATALOGUE = load_run_config("demo", [*COUNTS, "design=population"])
FUNCTION = load_run_config("demo", [*COUNTS, "design=population_vdf"])
PERTURBED = load_run_config("demo", ["manifest.tasks_per_host=20", "mass=epl_cdm"])


def hosts(count: int, sigma_v_km_s: float | None = 250.0) -> pa.Table:
    base = {"brickname": "0591m305", "parent_row": 0, "ra_deg": 59.0, "dec_deg": -30.0, "type": "DEV", "mag_g": 22.0}
    base |= {"mag_r": 20.0, "mag_z": 19.0, "z_l": 0.5, "z_l_source": "phot", "region_id": 3, "region_split": "train"}
    base |= {"region_fold": 1, "sigma_v_km_s": sigma_v_km_s}
    return pa.Table.from_pylist([base | {"host_id": f"h{i}"} for i in range(count)], schema=HOSTS)


def columns(table: pa.Table) -> dict[str, np.ndarray]:
    return {f.name: table.column(f.name).to_numpy() for f in table.schema if pa.types.is_floating(f.type)}


@pytest.mark.parametrize("config", [CATALOGUE, FUNCTION], ids=["catalogue", "vdf"])
def test_theta_e_follows_from_the_velocity_dispersion(config: RunConfig) -> None:
    v = columns(expand(hosts(3), config))
    for i in range(0, v["z_s"].size, 7):
        peer = LensCosmo(z_lens=0.5, z_source=v["z_s"][i], cosmo=config.cosmology.kernel().astropy())
        assert v["theta_e_arcsec"][i] == pytest.approx(
            float(peer.sis_sigma_v2theta_E(v["lens_sigma_v_km_s"][i])), rel=1e-6
        )


def test_dispersions_scatter_about_the_hosts_own() -> None:
    v = columns(expand(hosts(20), CATALOGUE))
    logs = np.log10(v["lens_sigma_v_km_s"] / 250.0) / CATALOGUE.design.sigma_v.scatter_dex
    assert stats.kstest(logs, "norm").pvalue > 1e-4


def test_density_reweights_a_population_to_a_flat_one() -> None:
    """The mean of f/q over the draws is the integral of f: here over a box well inside the population."""
    v = columns(expand(hosts(400), FUNCTION))
    box = {
        "theta_e_arcsec": (0.6, 1.4),
        "src_mag_r": (23.0, 25.0),
        "src_reff_arcsec": (0.12, 0.35),
        "src_e": (0.1, 0.4),
        "shear": (0.02, 0.08),
        "z_s": (0.8, 2.0),
        "src_gr": (0.0, 0.4),
        "src_rz": (0.0, 0.8),
        "src_n_sersic": (0.6, 1.6),
        "lens_e": (0.05, 0.3),
    }
    inside = np.ones(v["z_s"].size, bool)
    for name, (low, high) in box.items():
        inside &= (v[name] > low) & (v[name] < high)
    # p over the box: uniform in all of it, and uniform over the angles and the source's disc.
    disc = math.pi * (FUNCTION.priors.source_offset_max_theta_e * v["theta_e_arcsec"]) ** 2
    p = 1.0 / (disc * math.pi**2 * 2 * math.pi * 2) / math.prod(high - low for low, high in box.values())
    weights = np.where(inside, p / v["proposal_density"], 0.0)
    error = weights.std() / math.sqrt(weights.size)
    assert weights.mean() == pytest.approx(1.0, abs=4 * error)
    assert error < 0.25


def test_axes_of_the_density_are_listed() -> None:
    assert "design point" not in density_axes(CATALOGUE)
    assert {"theta_e_arcsec", "src_reff_arcsec"} <= density_axes(CATALOGUE).keys()
    assert {"gamma", "a3_frac", "subhalos"} <= density_axes(PERTURBED).keys()


def test_perturbed_masses_are_what_the_kernels_take() -> None:
    table = expand(hosts(2), PERTURBED)
    rows = [r for r in table.to_pylist() if not r["is_control"]]
    lenses = [Task.from_row(row).lens for row in rows]
    assert {r["lens_model"] for r in rows} == {"EPL"}
    slopes = [lens.slope for lens in lenses]
    assert min(slopes) >= 1.5
    assert max(slopes) <= 2.5
    assert np.std(slopes) > 0.05
    halos = [len(row["subhalo_x_arcsec"]) for row in rows]
    assert max(halos) > 0
    assert [lens.subhalos.x_arcsec.size for lens in lenses if lens.subhalos is not None] == halos


def test_the_mass_model_shifts_no_other_draw() -> None:
    plain = expand(hosts(2), load_run_config("demo", ["manifest.tasks_per_host=20"]))
    perturbed = expand(hosts(2), PERTURBED)
    for name in ("task_id", "theta_e_arcsec", "src_x_arcsec", "lens_e", "z_s", "template_u", "source_mode"):
        assert plain.column(name).equals(perturbed.column(name)), name


def test_density_of_a_perturbed_mass_is_that_of_its_parts() -> None:
    """The same tasks as SIE and as EPL with multipoles: p(γ) p(a3) p(a4) over the periods of the angles."""
    counts = ["manifest.tasks_per_host=20", "manifest.control_fraction=0"]
    plain = columns(expand(hosts(6), load_run_config("demo", counts)))
    config = load_run_config("demo", [*counts, "mass=epl_cdm"])
    v, mass = columns(expand(hosts(6), config)), config.mass
    wanted = np.ones(v["z_s"].size)
    for name, prior in (("lens_gamma", mass.gamma), ("lens_a3_frac", mass.a3_frac), ("lens_a4_frac", mass.a4_frac)):
        low, high = (prior.low - prior.mean) / prior.sigma, (prior.high - prior.mean) / prior.sigma
        wanted *= stats.truncnorm(low, high, prior.mean, prior.sigma).pdf(v[name])
    wanted *= (3 / (2 * math.pi)) * (4 / (2 * math.pi))
    np.testing.assert_allclose(v["proposal_density"] / plain["proposal_density"], wanted, rtol=1e-9)
    for m in (3, 4):
        assert stats.kstest(v[f"lens_a{m}_phi_rad"] * m / (2 * math.pi), "uniform").pvalue > 1e-3


def test_impossible_mass_models_and_designs_are_refused() -> None:
    with pytest.raises(ConfigError, match="gamma is drawn for model EPL"):
        load_run_config("demo", ["mass.model=EPL"])
    with pytest.raises(ConfigError, match="vdf goes with source vdf"):
        load_run_config("demo", ["design=population", "design.sigma_v.source=vdf", "design.sigma_v.scatter_dex=null"])
    with pytest.raises(ConfigError, match="mixture: source_probs must sum to 1"):
        load_run_config("demo", ["mixture.source_probs=[0.5, 0.5, 0.5]"])
