"""Runs on the real brick 0591m305 with its 36 hosts and real HST galaxies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from dhs_gen.status import RejectReason, Status
from dhs_pipeline.banks import prepare_cosmos_bank
from dhs_pipeline.config import load_run_config
from dhs_pipeline.digest import digest_table
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import TASK
from dhs_pipeline.sources import Banks
from dhs_pipeline.storage import Location
from tests_support import run_stages

pytestmark = [pytest.mark.spark, pytest.mark.realdata]

CONFIG = load_run_config("data", ["manifest.tasks_per_host=2"])
BAD_ROWS = {
    "0591m305-900": RejectReason.TYPE_EXCLUDED,
    "0591m305-901": Status.OFF_BRICK,
    "0591m305-902": RejectReason.FLUX_NOT_FINITE,
    "0591m305-903": RejectReason.PSFSIZE_INVALID,
    "0591m305-904": RejectReason.REDSHIFT_MISSING,
    "0000p000-905": Status.BRICK_NOT_FOUND,
    "0591m305-6": RejectReason.DUPLICATE_HOST,
}
"""Host → the name that it ends with; what 4a can tell from the catalogue is a reject, the rest a status of 4b."""


@pytest.fixture(scope="module")
def runs(spark: Any, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    root = tmp_path_factory.mktemp("real")
    bank = prepare_cosmos_bank(Location.of(real_data / "cosmos80"), Location.of(root / "bank"))
    layout = real_data / "dr10_layout"
    return {
        name: run_stages(
            spark,
            Location.of(root / name),
            Location.of(layout),
            Location.of(layout / f"{parent}_parent_0591m305.parquet"),
            CONFIG,
            generations=("gen5", "gen7"),
            banks=Banks(cosmos=bank),
        )
        for name, parent in (("clean", "lrg"), ("dirty", "dirty"))
    }


def table(where: Location) -> pa.Table:
    return ds.dataset(where.uri, format="parquet").to_table()


def test_all_real_hosts_are_used_and_every_task_is_rendered(runs: dict[str, RunDir]) -> None:
    assert table(runs["clean"].hosts).num_rows == 36
    for generation in ("gen5", "gen7"):
        stamps = table(runs["clean"].phase4c(generation) / "stamps")
        assert set(stamps.column("status").to_pylist()) == {"OK"}
        assert stamps.num_rows == table(runs["clean"].manifest).num_rows


def test_the_seven_bad_rows_end_under_seven_names(runs: dict[str, RunDir]) -> None:
    run = runs["dirty"]
    ended = {r["host_id"]: r["reason"] for r in table(run.phase4a / "rejects").to_pylist()}
    ended |= {r["host_id"]: r["status"] for r in table(run.cutouts).to_pylist() if r["status"] != "OK"}
    assert ended == {host: str(name) for host, name in BAD_ROWS.items()}
    assert len(set(ended.values())) == 7


def test_tasks_of_bad_hosts_keep_their_rows_and_their_hosts_status(runs: dict[str, RunDir]) -> None:
    stamps = table(runs["dirty"].phase4c("gen7") / "stamps")
    for host in ("0591m305-901", "0000p000-905"):
        rows = stamps.filter(pc.equal(stamps.column("host_id"), host))
        assert rows.num_rows >= 2
        assert set(rows.column("status").to_pylist()) == {str(BAD_ROWS[host])}
        assert rows.column("stamp_npz").null_count == rows.num_rows


@pytest.mark.parametrize("generation", ["gen5", "gen7"])
def test_bad_rows_change_nothing_in_the_good_ones(runs: dict[str, RunDir], generation: str) -> None:
    clean = table(runs["clean"].phase4c(generation) / "stamps")
    dirty = table(runs["dirty"].phase4c(generation) / "stamps")
    good = dirty.filter(pc.equal(dirty.column("status"), "OK"))
    assert digest_table(good) == digest_table(clean)


def test_generations_share_everything_but_the_shape_of_the_source(runs: dict[str, RunDir]) -> None:
    one, two = (
        {r["task_id"]: r for r in table(runs["clean"].phase4c(g) / "metrics").to_pylist()} for g in ("gen5", "gen7")
    )
    assert one.keys() == two.keys()
    for task_id, row in one.items():
        assert all(row[c] == two[task_id][c] for c in TASK.names)
        assert row["unlensed_flux_r_nmgy"] == two[task_id]["unlensed_flux_r_nmgy"]


def test_each_band_has_its_own_psf_gain_and_flux(runs: dict[str, RunDir]) -> None:
    cutouts = {r["host_id"]: r for r in table(runs["clean"].cutouts).to_pylist()}
    electrons = {"g": 7300.0, "r": 7150.0, "z": 7850.0}
    for row in table(runs["clean"].phase4c("gen7") / "metrics").to_pylist():
        for b in "grz":
            assert row[f"psfsize_used_{b}_arcsec"] == pytest.approx(row[f"psfsize_{b}_arcsec"], rel=0.01)
            assert row[f"g_eff_{b}"] == cutouts[row["host_id"]][f"nexp_{b}"] * electrons[b]
        if row["arc_injected"]:
            mags = {"g": row["src_mag_r"] + row["src_gr"], "r": row["src_mag_r"], "z": row["src_mag_r"] - row["src_rz"]}
            by_band = []
            for b, mag in mags.items():
                flux = 10 ** (0.4 * (22.5 - mag)) * row[f"mw_transmission_{b}"]
                assert row[f"unlensed_flux_{b}_nmgy"] == pytest.approx(flux)
                total = row[f"lensed_flux_{b}_nmgy"] / (1 - row[f"off_stamp_frac_{b}"])
                by_band.append(total / flux)
            # A source with a colour gradient is not magnified alike in all bands: the row holds their mean.
            assert sum(by_band) / 3 == pytest.approx(row["magnification"], rel=1e-6)
            assert by_band == pytest.approx([row["magnification"]] * 3, rel=0.2)


def test_templates_come_from_the_bank(runs: dict[str, RunDir]) -> None:
    metrics = table(runs["clean"].phase4c("gen5") / "metrics")
    injected = metrics.filter(pc.equal(metrics.column("arc_injected"), 1))
    assert injected.column("template_id").null_count == 0
    assert pc.count_distinct(injected.column("template_id")).as_py() > 5
