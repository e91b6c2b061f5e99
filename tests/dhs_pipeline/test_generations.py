"""Every generation over the same tasks: the same lenses, its own sources and artifacts, and nothing across a split."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from small_run import SETTINGS, make_run

from dhs_gen.source_banks import BankError
from dhs_gen.stamps import read_stamp
from dhs_gen.status import Status
from dhs_gen.uber.mixer import DEFAULT_UBER, assign_modes
from dhs_pipeline.compare import compare, mosaic
from dhs_pipeline.config import RunConfig
from dhs_pipeline.digest import digest_table
from dhs_pipeline.injection import Renderer, list_shards, read_shard
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.sources import Banks
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location
from drawn_banks import drawn_bank

GENERATIONS = ("control", "gen5", "gen6", "gen7", "gen7a", "gen7b", "gen7c", "gen8a", "gen8b", "gen8c", "uber")


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Banks:
    root = tmp_path_factory.mktemp("banks")
    return Banks(
        cosmos=drawn_bank(root / "cosmos", "hst_cosmos_f814w", 0.03, 12),
        deep=drawn_bank(root / "deep", "deep_ground", 0.084, 8),
    )


@pytest.fixture(scope="module")
def made(banks: Banks, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, RunConfig]:
    hosts = dict.fromkeys([f"host{i}" for i in range(4)])
    settings = [*SETTINGS, "manifest.folds=4"]
    return make_run(
        tmp_path_factory.mktemp("all") / "run", hosts=hosts, generations=GENERATIONS, settings=settings, banks=banks
    )


def stamps_of(run: RunDir, generation: str) -> list[dict[str, Any]]:
    files = (run.phase4c(generation) / "stamps").files(".parquet")
    return pa.concat_tables([f.read_table() for f in files]).to_pylist()


def test_all_tasks_are_rendered_in_every_generation(made: tuple[RunDir, RunConfig]) -> None:
    for name in GENERATIONS:
        rows = stamps_of(made[0], name)
        assert {r["status"] for r in rows} == {Status.OK.value}, name
        if name != "control":
            assert {bool(r["arc_injected"]) for r in rows if not r["is_control"]} == {True}


def test_hosts_masses_positions_and_fluxes_are_the_same(made: tuple[RunDir, RunConfig]) -> None:
    comparison = compare(made[0], GENERATIONS, 12)
    assert {"host_id", "theta_e_arcsec", "src_x_arcsec", "unlensed_flux_r_nmgy"} <= set(comparison.checked)
    pixels = mosaic(comparison).get_size_inches() * 100
    assert len(GENERATIONS) * 64 < pixels[0] < (len(GENERATIONS) + 1) * 70
    assert 12 * 64 < pixels[1] < 13 * 70


@pytest.mark.parametrize("column", ["unlensed_flux_r_nmgy", "theta_e_arcsec"])
def test_a_difference_between_generations_is_found(made: tuple[RunDir, RunConfig], tmp_path: Path, column: str) -> None:
    shutil.copytree(made[0].where.uri, tmp_path / "copy")
    run = RunDir(Location.of(tmp_path / "copy"))
    for file in (run.phase4c("gen8b") / "metrics").files(".parquet"):
        table = file.read_table()
        at = table.column_names.index(column)
        pq.write_table(table.set_column(at, table.schema.field(at), pc.multiply(table.column(at), 1.01)), file.uri)
    with pytest.raises(StageError, match=f"{column} differs between generations"):
        compare(run, ["control", "gen5", "gen8b"], 12)
    with pytest.raises(StageError, match="asked for are 500"):
        compare(run, ["control", "gen5"], 500)


def test_uber_follows_the_manifest_and_the_manifest_follows_the_mixer(made: tuple[RunDir, RunConfig]) -> None:
    rows = stamps_of(made[0], "uber")
    assert {r["gen_variant"] for r in rows} == {"uber_mix"}
    for row in rows:
        wanted = assign_modes(row["task_id"], DEFAULT_UBER)
        assert row["artifact_profile"] == wanted["artifact_profile"]
        assert row["source_mode"] == ("none" if row["is_control"] else wanted["source_mode"])
    assert {r["source_mode"] for r in rows} == {"cosmos", "deep", "hybrid", "none"}


def test_a_row_of_the_mixture_equals_the_generation_it_names(made: tuple[RunDir, RunConfig]) -> None:
    plain = {name: {r["task_id"]: r for r in stamps_of(made[0], name)} for name in ("gen5", "gen6", "gen7", "gen8b")}
    same = 0
    for row in stamps_of(made[0], "uber"):
        twin = {
            ("cosmos", "none"): "gen5",
            ("deep", "none"): "gen6",
            ("hybrid", "none"): "gen7",
            ("cosmos", "mild"): "gen8b",
        }.get((row["source_mode"], row["artifact_profile"]))
        if twin is not None:
            assert row["stamp_npz"] == plain[twin][row["task_id"]]["stamp_npz"]
            assert row["template_id"] == plain[twin][row["task_id"]]["template_id"]
            same += 1
    assert same >= 5


def test_without_artifacts_gen8_is_gen5(made: tuple[RunDir, RunConfig]) -> None:
    pixels = [{r["task_id"]: r["stamp_npz"] for r in stamps_of(made[0], name)} for name in ("gen5", "gen8a", "gen8c")]
    assert pixels[0] == pixels[1]
    assert sum(pixels[0][t] != pixels[2][t] for t in pixels[0]) > 0.5 * len(pixels[0])


def test_artifacts_do_not_depend_on_the_source(made: tuple[RunDir, RunConfig], banks: Banks) -> None:
    """The control under the same profile has the pixels of the positive without its arc, away from its shot noise."""
    run, config = made
    control = Renderer(config.generation("control").with_artifacts("strong"), banks, config)
    positives = {r["task_id"]: r for r in stamps_of(run, "gen8c") if not r["is_control"]}
    for shard in list_shards(run):
        for row in control.render(read_shard(shard), run.cutouts / shard.part).to_pylist():
            if row["task_id"] not in positives:
                continue
            with_arc = read_stamp(positives[row["task_id"]]["stamp_npz"])
            without = read_stamp(row["stamp_npz"])
            dark = with_arc["arc_r"] == 0
            np.testing.assert_array_equal(with_arc["image_r"][dark], without["image_r"][dark])
            np.testing.assert_array_equal(with_arc["maskbits"], without["maskbits"])


def test_only_the_multi_band_generation_has_a_colour_gradient(made: tuple[RunDir, RunConfig]) -> None:
    """Without one, the arcs of two bands with the same PSF are proportional."""
    spread = {}
    for name in ("gen7a", "gen7b", "gen7c"):
        for row in stamps_of(made[0], name):
            if not row["is_control"] and row["psf_fwhm_used_g_arcsec"]:
                arrays = read_stamp(row["stamp_npz"])
                total = {b: arrays[f"arc_{b}"].sum() for b in "gz"}
                spread.setdefault(name, []).append(
                    np.abs(arrays["arc_g"] / total["g"] - arrays["arc_z"] / total["z"]).max() / arrays["arc_g"].max()
                )
    assert np.median(spread["gen7c"]) != pytest.approx(np.median(spread["gen7b"]), rel=1e-3)


def test_templates_keep_to_the_folds_of_their_regions(made: tuple[RunDir, RunConfig]) -> None:
    for name in ("gen5", "gen6"):
        pairs = {(r["template_id"], r["region_fold"]) for r in stamps_of(made[0], name) if r["template_id"]}
        assert len(pairs) == len({t for t, _ in pairs}) > 4
    assert all(r["source_psf_fwhm_arcsec"] > 0 for r in stamps_of(made[0], "gen5") if r["template_id"])


def test_a_bank_smaller_than_the_folds_is_refused(banks: Banks, made: tuple[RunDir, RunConfig]) -> None:
    _, config = made
    tree = config.model_dump()
    tree["manifest"]["folds"] = 9
    with pytest.raises(BankError, match="8 templates, fewer than the 9 folds"):
        Renderer(config.generation("gen6"), banks, RunConfig.model_validate(tree))


def test_a_row_that_names_no_source_is_kept_with_its_reason(made: tuple[RunDir, RunConfig], banks: Banks) -> None:
    run, config = made
    shard = list_shards(run)[0]
    tasks = read_shard(shard)
    unnamed = tasks.set_column(
        tasks.column_names.index("source_mode"),
        tasks.schema.field("source_mode"),
        pa.nulls(tasks.num_rows, pa.string()),
    )
    rows = Renderer(config.generation("uber"), banks, config).render(unnamed, run.cutouts / shard.part).to_pylist()
    lensed = [r for r in rows if not r["is_control"]]
    assert {r["status"] for r in lensed} == {Status.TASK_INVALID.value}
    assert "source_mode must be one of cosmos, deep, hybrid, got None" in lensed[0]["message"]


def test_a_mixture_can_be_paired(made: tuple[RunDir, RunConfig], banks: Banks) -> None:
    run, config = made
    shard = list_shards(run)[0]
    renderer = Renderer(config.generation("uber").with_pairing("prime"), banks, config)
    rows = renderer.render(read_shard(shard), run.cutouts / shard.part).to_pylist()
    alone = {r["task_id"]: r for r in stamps_of(run, "uber")}
    for row in rows:
        task = alone[row["pair_id"]]
        assert (row["status"], row["artifact_profile"]) == ("OK", task["artifact_profile"])
        assert row["source_mode"] == ("none" if row["sample_kind"] == "control" else task["source_mode"])
        assert (row["stamp_npz"] == task["stamp_npz"]) == (row["task_id"] == row["pair_id"])
    assert {r["sample_kind"] for r in rows} == {"positive", "control", "negative"}


def test_a_bank_of_the_other_kind_is_refused(banks: Banks, tmp_path: Path) -> None:
    from dhs_pipeline.banks import prepare_cosmos_bank

    assert banks.deep is not None
    with pytest.raises(StageError, match="is a bank of kind 'deep_ground'"):
        prepare_cosmos_bank(banks.deep, Location.of(tmp_path / "into"))


def test_rows_do_not_depend_on_their_order(made: tuple[RunDir, RunConfig], banks: Banks) -> None:
    run, config = made
    shard = list_shards(run)[0]
    tasks = read_shard(shard)
    renderer = Renderer(config.generation("uber"), banks, config)
    rows = {r["task_id"]: r for r in renderer.render(tasks, run.cutouts / shard.part).to_pylist()}
    backwards = tasks.take(list(range(tasks.num_rows))[::-1])
    again = Renderer(config.generation("uber"), banks, config)
    for row in again.render(backwards, run.cutouts / shard.part).to_pylist():
        assert row == rows[row["task_id"]]


RENDER = """
import sys
from dhs_pipeline.digest import digest_table
from dhs_pipeline.injection import Renderer, list_shards, read_shard
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.sources import Banks
from dhs_pipeline.storage import Location

run, cosmos, deep = RunDir(Location.of(sys.argv[1])), Location.of(sys.argv[2]), Location.of(sys.argv[3])
config = run.config()
renderer = Renderer(config.generation("uber"), Banks(cosmos, deep), config)
shard = list_shards(run)[0]
print(digest_table(renderer.render(read_shard(shard), run.cutouts / shard.part)))
"""


def test_another_hash_seed_gives_the_same_stamps(made: tuple[RunDir, RunConfig], banks: Banks) -> None:
    run, config = made
    assert banks.cosmos is not None
    assert banks.deep is not None
    shard = list_shards(run)[0]
    here = Renderer(config.generation("uber"), banks, config).render(read_shard(shard), run.cutouts / shard.part)
    done = subprocess.run(
        [sys.executable, "-c", RENDER, run.where.uri, banks.cosmos.uri, banks.deep.uri],
        env=os.environ | {"PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(digest_table(here))
