"""The stages on Spark: every row accounted for, and the same bytes whatever the schedule."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dhs_gen.stamps import read_stamp
from dhs_pipeline.config import RunConfig, load_run_config
from dhs_pipeline.cutouts import read_cutouts
from dhs_pipeline.digest import digest_path
from dhs_pipeline.injection import list_shards, run_injection
from dhs_pipeline.manifest.stage import run_manifest
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import CUTOUTS, HOSTS, MANIFEST, METRICS, REJECTS, STAMPS
from dhs_pipeline.simulate import SimulatedSurvey
from dhs_pipeline.sources import Banks
from dhs_pipeline.stage import StageError, _forget_archives
from dhs_pipeline.storage import Location
from tests_support import REPO, SMALL, run_stages

pytestmark = pytest.mark.spark


def rows_of(where: Location) -> list[dict[str, Any]]:
    return [row for file in where.files(".parquet") for row in file.read_table().to_pylist()]


def test_every_row_is_accounted_for(small_run: RunDir, simulated: SimulatedSurvey) -> None:
    parent = pq.read_table(simulated.parent_path).num_rows
    hosts, rejects = rows_of(small_run.hosts), rows_of(small_run.phase4a / "rejects")
    assert len(hosts) + len(rejects) == parent
    assert {r["parent_row"] for r in (*hosts, *rejects)} == set(range(parent))
    assert {r["host_id"] for r in rows_of(small_run.cutouts)} == {h["host_id"] for h in hosts}
    tasks = {r["task_id"] for r in rows_of(small_run.manifest)}
    for generation in ("gen7", "control", "null"):
        for table in ("stamps", "metrics"):
            ids = [r["task_id"] for r in rows_of(small_run.phase4c(generation) / table)]
            assert len(ids) == len(tasks)
            assert set(ids) == tasks


def test_failures_keep_their_rows_without_a_stamp(small_run: RunDir) -> None:
    stamps = rows_of(small_run.phase4c("gen7") / "stamps")
    status_of_host = {r["host_id"]: r["status"] for r in rows_of(small_run.cutouts)}
    for row in stamps:
        assert row["cutout_ok"] == (row["status"] == "OK") == (row["stamp_npz"] is not None)
        assert row["status"] == status_of_host[row["host_id"]]
        assert (row["message"] is None) == (row["status"] == "OK")
    summary = (small_run.phase4c("gen7") / "_stage.json").read_json()
    assert summary["rows_by_status"] == Counter(r["status"] for r in stamps)


@pytest.mark.parametrize(
    ("table", "schema"),
    [
        ("phase4a/hosts", HOSTS),
        ("phase4a/rejects", REJECTS),
        ("phase4a/manifest", MANIFEST),
        ("phase4b/cutouts", CUTOUTS),
        ("phase4c/gen7/stamps", STAMPS),
        ("phase4c/gen7/metrics", METRICS),
    ],
)
def test_files_have_exactly_their_schema(small_run: RunDir, table: str, schema: Any) -> None:
    files = (small_run.where / table).files(".parquet")
    assert files
    for file in files:
        assert pq.read_schema(file.uri).equals(schema, check_metadata=True)


def test_controls_are_the_cutouts_pixels_and_null_injections_are_the_controls(small_run: RunDir) -> None:
    null = {r["task_id"]: r for r in rows_of(small_run.phase4c("null") / "stamps")}
    for shard in list_shards(small_run):
        file = small_run.phase4c("control") / "stamps" / f"part-{shard.unit}.parquet"
        rows = file.read_table().to_pylist()
        cutouts = read_cutouts(small_run.cutouts / shard.part, {r["host_id"] for r in rows}, "grz")
        for row in rows:
            assert row["stamp_npz"] == null[row["task_id"]]["stamp_npz"]
            if row["cutout_ok"]:
                cutout = cutouts[row["host_id"]]
                x = row["stamp_corner_x_pix"] - cutout.corner_xy_pix[0]
                y = row["stamp_corner_y_pix"] - cutout.corner_xy_pix[1]
                stamp = read_stamp(row["stamp_npz"])
                for b in "grz":
                    pixels = cutout.image[b][y : y + 64, x : x + 64]
                    assert stamp[f"image_{b}"].tobytes() == pixels.tobytes()


def test_positives_differ_from_controls_by_arc_and_its_noise_alone(small_run: RunDir) -> None:
    control = {r["task_id"]: r for r in rows_of(small_run.phase4c("control") / "stamps")}
    injected = [r for r in rows_of(small_run.phase4c("gen7") / "stamps") if r["arc_injected"]]
    assert injected
    for row in injected[:40]:
        with_arc, without = read_stamp(row["stamp_npz"]), read_stamp(control[row["task_id"]]["stamp_npz"])
        for b in "grz":
            arc = with_arc[f"arc_{b}"].astype(float)
            noise = with_arc[f"image_{b}"].astype(float) - without[f"image_{b}"] - arc
            sigma = np.sqrt(np.clip(arc, 0, None) / row[f"g_eff_{b}"])
            has_data = without[f"invvar_{b}"] > 0
            assert np.abs(noise[has_data]).max() < 7 * sigma.max() + 1e-5
            np.testing.assert_array_equal(with_arc[f"image_{b}"][~has_data], without[f"image_{b}"][~has_data])
            assert arc.sum() == pytest.approx(row[f"lensed_flux_{b}_nmgy"], rel=1e-4)


@pytest.mark.parametrize("partitions", [1, 3, 17])
def test_partitions_do_not_change_the_result(
    small_run: RunDir, copied_run: RunDir, spark: Any, partitions: int
) -> None:
    generation = copied_run.config().generation("gen7")
    run_injection(
        spark, copied_run, generation, None, copied_run.config(), partitions=partitions, force=True, progress=False
    )
    assert digest_path(copied_run.phase4c("gen7") / "stamps") == digest_path(small_run.phase4c("gen7") / "stamps")


def test_a_run_on_one_core_in_another_process_gives_the_same_digest(
    small_run: RunDir, simulated: SimulatedSurvey, tmp_path: Path
) -> None:
    out = tmp_path / "one"
    overrides = [f"--set={s}" for s in SMALL]
    command = [sys.executable, "-m", "dhs_pipeline.cli", "run", "--out", str(out), "--config", "demo", *overrides]
    command += ["--data", str(simulated.data_dir), "--parent", str(simulated.parent_path)]
    command += ["--master", "local[1]", "--generations", "gen7", "--quiet"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONHASHSEED": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for table in ("phase4a/manifest", "phase4b/cutouts", "phase4c/gen7/stamps", "phase4p5/gen7"):
        assert digest_path(Location.of(out / table)) == digest_path(small_run.where / table), table
    assert (out / "report" / "index.html").is_file()
    assert any(file.stat().st_size > 0 for file in (out / "_spark_events").rglob("*"))


def test_half_of_the_output_deleted_comes_back_the_same(copied_run: RunDir, spark: Any) -> None:
    stamps = copied_run.phase4c("gen7") / "stamps"
    before = digest_path(stamps)
    for file in stamps.files(".parquet")[::2]:
        file.delete()
    config = copied_run.config()
    summary = run_injection(
        spark, copied_run, config.generation("gen7"), Banks(), config, partitions=None, force=False, progress=False
    )
    assert digest_path(stamps) == before
    assert summary["digests"]["stamps"] == str(before)


def test_a_finished_stage_does_nothing(copied_run: RunDir, spark: Any) -> None:
    file = (copied_run.phase4c("gen7") / "stamps").files(".parquet")[0]
    written = Path(file.uri).stat().st_mtime_ns
    config = copied_run.config()
    generation = config.generation("gen7")
    common: dict[str, Any] = {"partitions": None, "progress": False}
    run_injection(spark, copied_run, generation, Banks(), config, force=False, **common)
    assert Path(file.uri).stat().st_mtime_ns == written
    run_injection(spark, copied_run, generation, Banks(), config, force=True, **common)
    assert Path(file.uri).stat().st_mtime_ns != written


def test_another_configuration_does_not_mix_with_what_is_there(copied_run: RunDir, spark: Any) -> None:
    config = load_run_config("demo", [*SMALL, "survey.psf_kernel_size_pix=33"])
    with pytest.raises(StageError, match="psf_kernel_size_pix"):
        run_injection(
            spark, copied_run, config.generation("gen7"), Banks(), config, partitions=None, force=False, progress=False
        )


def test_another_code_version_does_not_mix_with_what_is_there(copied_run: RunDir, spark: Any) -> None:
    plan = copied_run.phase4c("gen7") / "_plan.json"
    plan.write_json(plan.read_json() | {"code_version": "0.0.1"})
    config = copied_run.config()
    with pytest.raises(StageError, match=r"code_version: '0\.0\.1' before"):
        run_injection(
            spark, copied_run, config.generation("gen7"), Banks(), config, partitions=None, force=False, progress=False
        )


def test_an_unfinished_stage_is_asked_for(tmp_path: Path, spark: Any, small_config: RunConfig) -> None:
    run = RunDir(Location.of(tmp_path / "empty"))
    with pytest.raises(StageError, match="stage 4a has not finished"):
        run_injection(
            spark,
            run,
            small_config.generation("gen7"),
            Banks(),
            small_config,
            partitions=None,
            force=False,
            progress=False,
        )


def test_manifest_row_groups_do_not_depend_on_shard_or_part_size(
    small_run: RunDir, simulated: SimulatedSurvey, spark: Any, tmp_path: Path
) -> None:
    config = load_run_config("demo", [*SMALL, "manifest.tasks_per_shard=7", "manifest.hosts_per_part=1000"])
    run = RunDir(Location.of(tmp_path / "other"))
    run_manifest(spark, run, Location.of(simulated.parent_path), config, force=False, progress=False)
    assert digest_path(run.manifest) == digest_path(small_run.manifest)


def test_a_run_on_s3_equals_the_local_one(
    small_run: RunDir, simulated: SimulatedSurvey, small_config: RunConfig, spark: Any, s3_bucket: str
) -> None:
    """Bricks, parent and every output on the S3 server."""
    bucket = Location.of(s3_bucket) / "run"
    for file in sorted(Path(simulated.data_dir).rglob("*")):
        if file.is_file() and "coadd" in file.parts:
            (bucket / "data" / str(file.relative_to(simulated.data_dir))).write_bytes(file.read_bytes())
    (bucket / "parent.parquet").write_bytes(Path(simulated.parent_path).read_bytes())
    run = run_stages(spark, bucket / "out", bucket / "data", bucket / "parent.parquet", small_config)
    for table in ("phase4a/manifest", "phase4b/cutouts", "phase4c/gen7/stamps", "phase4p5/gen7"):
        assert digest_path(run.where / table) == digest_path(small_run.where / table), table


def test_jobs_are_the_stages(tmp_path: Path) -> None:
    for job in sorted((REPO / "jobs").glob("stage_*.py")):
        done = subprocess.run([sys.executable, str(job), "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert "--out" in done.stdout


def test_a_forgotten_archive_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("packed_one.py", "VALUE = 1")
        archive.writestr("packed_two.py", "VALUE = 2")
    monkeypatch.syspath_prepend(str(tmp_path / "some.zip"))
    assert importlib.import_module("packed_one").VALUE == 1
    assert str(tmp_path / "some.zip") in sys.path_importer_cache
    _forget_archives()
    assert str(tmp_path / "some.zip") not in sys.path_importer_cache
    assert importlib.import_module("packed_two").VALUE == 2
