"""Tasks drawn in vectors: what one host alone gives, and what scipy and a hash give value by value, to the last bit."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from scipy.stats import qmc

from dhs_gen.streams import categorical_from_hash, stable_id, stream, unit_interval
from dhs_pipeline.config import load_run_config
from dhs_pipeline.manifest import tasks as tasks_module
from dhs_pipeline.manifest.tasks import expand
from dhs_pipeline.schemas import HOSTS

CASES = {
    "halton": (),
    "grid": ("design=small", "manifest.tasks_per_host=7", "manifest.replicates=3"),
    "population": ("design=population", "priors=population"),
    "vdf": ("design=population_vdf", "priors=population", "manifest.control_fraction=0"),
    "epl_cdm": ("mass=epl_cdm", "mixture=gen6", "manifest.tasks_per_host=3"),
}


def settings(case: str) -> list[str]:
    return ["manifest.tasks_per_host=11", "manifest.control_fraction=0.15", *CASES[case]]


def hosts(count: int = 9) -> pa.Table:
    rows = [
        {
            "host_id": f"9010-{i}-θ",
            "brickname": "0591m305",
            "parent_row": i,
            "ra_deg": 59.0 + i,
            "z_l": 0.21 + 0.06 * i,
            "mag_r": 19.0 + 0.17 * i,
            "sigma_v_km_s": 190.0 + 13.0 * i,
            "z_l_column": "z_phot" if i % 2 else None,
            "region_split": "train",
        }
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=HOSTS)


@pytest.mark.parametrize("case", CASES)
def test_many_hosts_together_are_each_of_them_alone(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_run_config("survey", settings(case))
    together = expand(hosts(), config)
    alone = pa.concat_tables([expand(hosts().slice(i, 1), config) for i in range(9)])
    assert together.combine_chunks().equals(alone.combine_chunks())
    monkeypatch.setattr(tasks_module, "_TASKS_AT_ONCE", 40)
    assert expand(hosts(), config).combine_chunks().equals(together.combine_chunks())


def test_values_are_those_of_one_task_at_a_time() -> None:
    config = load_run_config("survey", settings("halton"))
    rows, priors, axes = expand(hosts(), config).to_pylist(), config.priors, config.design.axes.named()
    halton = qmc.Halton(len(axes), scramble=False).random(11)
    for row in (rows[0], rows[17], rows[-4]):
        assert not row["is_control"]
        name, host_id = row["task_id"], row["host_id"]
        k = int(row["config_id"].removeprefix("halton_"))
        assert name == stable_id("survey", host_id, row["config_id"], 0)
        point = (halton[k] + stream(host_id, "design_shift", salt="halton").uniform(size=len(axes))) % 1.0
        density = 1.0
        for u, (axis, limits) in zip(point, axes.items(), strict=True):
            width, value = limits.high - limits.low, limits.low + (limits.high - limits.low) * u
            if limits.scale == "log":
                value = limits.low * np.exp(np.log(limits.high / limits.low) * u)
                width = value * math.log(limits.high / limits.low)
            density /= width
            assert row[axis] == value, axis
        assert row["lens_phi_rad"] == math.pi * unit_interval(name, salt="lens_phi_rad")
        assert row["template_u"] == unit_interval(name, salt="template_u")
        assert row["src_flip"] == (unit_interval(name, salt="src_flip") < 0.5)
        assert (
            row["source_mode"]
            == config.mixture.source_modes[categorical_from_hash(name, config.mixture.source_probs, salt="uber_v1_src")]
        )
        radius = priors.source_offset_max_theta_e * row["theta_e_arcsec"]
        density *= 0.5 / (math.pi * radius**2) / math.pi**2 / (2 * math.pi) / 0.35 / 2.0
        for colour in ("src_gr", "src_rz"):
            prior = getattr(priors, colour)
            low, high = (prior.low - prior.mean) / prior.sigma, (prior.high - prior.mean) / prior.sigma
            normal = stats.truncnorm(low, high, loc=prior.mean, scale=prior.sigma)
            assert row[colour] == normal.ppf(unit_interval(name, salt=colour))
            density *= normal.pdf(row[colour])
        smail = stats.gengamma(a=2.0, c=1.5, scale=1.0)
        low, high = smail.cdf(row["z_l"] + 0.1), smail.cdf(5.0)
        assert row["z_s"] == smail.ppf(low + unit_interval(name, salt="z_s") * (high - low))
        density *= smail.pdf(row["z_s"]) / (high - low)
        assert row["proposal_density"] == pytest.approx(density, rel=1e-13)
        assert row["src_dmag"] == row["src_mag_r"] - row["mag_r"]
        assert row["mag_r"] == 19.0 + 0.17 * int(host_id.split("-")[1])


@pytest.mark.parametrize("name", ["z_l", "mag_r", "sigma_v_km_s"])
def test_a_host_without_what_its_tasks_need_is_named(name: str) -> None:
    rows = hosts(3).to_pylist()
    rows[1][name] = None
    config = load_run_config("survey", settings("population"))
    with pytest.raises(ValueError, match=rf"host 9010-1-θ has no {name}"):
        expand(pa.Table.from_pylist(rows, schema=HOSTS), config)


def test_no_hosts_have_no_tasks() -> None:
    assert expand(hosts(0), load_run_config("survey", settings("halton"))).num_rows == 0
