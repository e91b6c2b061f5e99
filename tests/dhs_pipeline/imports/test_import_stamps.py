"""Earlier stamps, metrics and pairs: pixels unchanged, failures named, no number under a name that means another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from earlier_cases import (
    MAIN_LINE_COLUMNS,
    METRICS_COLUMNS,
    STAMPS_COLUMNS,
    column_type,
    npz,
    pixels,
    stamp_rows,
    write,
)

from dhs_gen.stamps import read_stamp
from dhs_pipeline.config import load_run_config
from dhs_pipeline.imports.layouts import MAIN_LINE_57, METRICS_53, STAMPS_57
from dhs_pipeline.imports.run import run_import
from dhs_pipeline.schemas import METRICS, STAMPS
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location


def do_import(source: Path, out: Path, **options: Any) -> dict[str, Any]:
    arguments = {"kind": "auto", "rules": None, "force": False} | options
    return run_import(Location.of(source), Location.of(out), load_run_config("data"), **arguments)


def rows_of(out: Path, folder: str = "stamps") -> list[dict[str, Any]]:
    return pq.read_table(out / folder).to_pylist()


def test_layouts_are_the_documented_ones() -> None:
    for layout, columns, count in (
        (STAMPS_57, STAMPS_COLUMNS, 57),
        (METRICS_53, METRICS_COLUMNS, 53),
        (MAIN_LINE_57, MAIN_LINE_COLUMNS, 57),
    ):
        assert list(layout.types) == columns
        assert len(columns) == count
        assert {n: column_type(n) for n in columns} == dict(layout.types)


def test_pixels_are_bit_identical_in_every_earlier_layout(tmp_path: Path) -> None:
    arrays = [pixels(i) for i in range(5)]
    arrays[0]["image_g"][3, 4] = -0.0  # a sign bit must survive
    cube = [np.stack([a[f"image_{b}"] for b in "grz"]) for a in arrays]
    blobs = [
        npz(arrays[0]),
        npz(arrays[1], wrapped=True),
        npz({"img": cube[2]}),
        npz({"arr_0": np.moveaxis(cube[3], 0, 2)}, wrapped=True),
        npz(arrays[4]),
    ]
    source = write(tmp_path / "s.parquet", stamp_rows(5, blobs.__getitem__), STAMPS_COLUMNS)
    report = do_import(source, tmp_path / "out")
    assert report["rows_by_status"] == {"OK": 5}
    for row, wanted in zip(rows_of(tmp_path / "out"), cube, strict=True):
        found = read_stamp(row["stamp_npz"])
        assert list(found) == ["image_g", "image_r", "image_z"]
        for i, b in enumerate("grz"):
            assert found[f"image_{b}"].dtype == np.float32
            assert found[f"image_{b}"].tobytes() == wanted[i].tobytes()


def test_table_is_in_the_schema_and_numbers_keep_their_meaning(tmp_path: Path) -> None:
    rows = stamp_rows(3)
    rows[1]["psf_fwhm_used_z"] = 0.0
    report = do_import(write(tmp_path / "s.parquet", rows, STAMPS_COLUMNS), tmp_path / "out")
    assert pq.read_table(tmp_path / "out/stamps").schema.equals(STAMPS)
    first, second, control = rows_of(tmp_path / "out")
    assert first["arc_peak_snr_r"] == rows[0]["arc_snr"]
    assert first["theta_e_over_fwhm_r"] == pytest.approx(rows[0]["theta_e_arcsec"] / 1.25)
    for name in ("arc_snr_r", "bad_pixel_frac", "magnification", "template_id", "lens_x_pix", "src_mag_r"):
        assert first[name] is None  # the earlier number means something else, or is not there
    assert second["psf_fwhm_used_z_arcsec"] is second["theta_e_over_fwhm_z"] is None
    assert [r["arc_injected"] for r in (first, second, control)] == [1, 1, 0]
    assert [r["sample_kind"] for r in (first, second, control)] == ["positive", "positive", "control"]
    assert all((r["pair_id"], r["negative_kind"]) == (r["task_id"], None) for r in (first, second, control))
    assert control["theta_e_arcsec"] is control["lens_model"] is control["theta_e_over_fwhm_r"] is None
    assert {r["gen_variant"] for r in (first, second, control)} == {"imported"}
    assert report["target_columns"]["gen_variant"] == {"outcome": "assigned", "value": "imported", "null_rows": 0}
    assert report["source_columns"]["arc_snr_sum"]["outcome"] == "not taken"
    assert report["source_columns"]["psf_fwhm_used_z"]["found"] == {"0.0 (no value) set null": 1}
    assert set(report["source_columns"]) == set(STAMPS_COLUMNS)
    assert set(report["target_columns"]) == set(STAMPS.names)
    beside = rows_of(tmp_path / "out", "source_columns")
    assert [b["arc_snr_sum"] for b in beside] == [11.0] * 3
    assert report == json.loads((tmp_path / "out/import_report.json").read_text())


def test_what_failed_has_a_status_a_message_and_no_stamp(tmp_path: Path) -> None:
    placeholder = npz({"image_r": np.zeros((64, 64), np.float32)})
    nan = pixels(1)
    nan["image_z"][5, 5] = np.nan
    damage: list[tuple[dict[str, Any], str]] = [
        ({"cutout_ok": 0, "stamp_npz": placeholder}, "cutout_ok 0 in the earlier run"),
        ({"stamp_npz": placeholder}, "stamp_npz: the stamp holds band(s) r, bandset says grz"),
        ({"bandset": "r", "stamp_npz": placeholder}, "stamp_npz: band(s) r hold zeros only"),
        ({"stamp_npz": b"PK\x03\x04broken"}, "stamp_npz: the stamp does not decode"),
        ({"stamp_npz": None}, "stamp_npz: no stamp"),
        ({"stamp_npz": npz(pixels(2, size=32))}, "stamp_npz: the stamp is 32x32 px, stamp_size says 64"),
        ({"stamp_npz": npz(nan)}, "stamp_npz: 1 pixels are not finite"),
        ({"metrics_only": 1}, "metrics_only 1 in the earlier run"),
        ({"physics_valid": 0, "physics_warnings": "caustic"}, "physics_valid 0 in the earlier run: caustic"),
    ]
    rows = stamp_rows(len(damage) + 2)
    for row, (change, _) in zip(rows, damage, strict=False):
        row |= change
    rows[-2]["physics_warnings"] = "low stretch"
    source = write(tmp_path / "s.parquet", rows, STAMPS_COLUMNS)
    report = do_import(source, tmp_path / "out")
    assert report["rows_by_status"] == {"IMPORTED_FAILED": len(damage), "OK": 2}
    found = rows_of(tmp_path / "out")
    for row, (_, message) in zip(found, damage, strict=False):
        assert (row["status"], row["cutout_ok"], row["arc_injected"]) == ("IMPORTED_FAILED", 0, 0)
        assert row["stamp_npz"] is None
        assert row["message"].startswith(message)
    assert (found[-2]["status"], found[-2]["message"]) == ("OK", "low stretch")
    assert report["source_columns"]["stamp_npz"]["found"] == {"unusable": 6}
    assert report["source_columns"]["cutout_ok"]["found"] == {"not 1: failed in the earlier run": 1}
    rules = tmp_path / "keep.yaml"
    shipped = Path(__file__).parents[3] / "conf/imports/stamps.yaml"
    rules.write_text(shipped.read_text().replace("physics_invalid: fail", "physics_invalid: keep"))
    assert do_import(source, tmp_path / "kept", rules=str(rules))["rows_by_status"]["OK"] == 3


def test_both_57_column_layouts_and_metrics_alone(tmp_path: Path) -> None:
    rows = stamp_rows(3)
    main_line = do_import(write(tmp_path / "m.parquet", rows, MAIN_LINE_COLUMNS), tmp_path / "main")
    assert main_line["kind"] == "stamps"
    assert main_line["source_columns"]["psf_source_g"]["outcome"] == "not taken"
    assert main_line["target_columns"]["source_mode"]["outcome"] == "missing"
    rows[0]["cutout_ok"] = 0
    metrics = do_import(write(tmp_path / "n.parquet", rows, METRICS_COLUMNS), tmp_path / "metrics")
    assert (metrics["kind"], metrics["rows_by_status"]) == ("metrics", {"IMPORTED_FAILED": 1, "OK": 2})
    assert pq.read_table(tmp_path / "metrics/metrics").schema.equals(METRICS)


def test_pairs_keep_the_stamp_of_their_control(tmp_path: Path) -> None:
    rows = stamp_rows(4)
    for i, row in enumerate(rows):
        row["ctrl_stamp_npz"] = npz(pixels(100 + i))
    rows[1]["ctrl_stamp_npz"] = npz(pixels(0, "r"))
    report = do_import(write(tmp_path / "p.parquet", rows, [*STAMPS_COLUMNS, "ctrl_stamp_npz"]), tmp_path / "out")
    assert (report["kind"], report["rows_by_status"]) == ("paired", {"IMPORTED_FAILED": 1, "OK": 3})
    found = rows_of(tmp_path / "out")
    for i in (0, 2, 3):
        wanted = pixels(100 + i)
        control = read_stamp(found[i]["ctrl_stamp_npz"])
        assert all(control[k].tobytes() == a.tobytes() for k, a in wanted.items())
    assert found[1]["stamp_npz"] is found[1]["ctrl_stamp_npz"] is None
    assert found[1]["message"] == "ctrl_stamp_npz: the stamp holds band(s) r, bandset says grz"
    assert pq.read_schema(next((tmp_path / "out/stamps").glob("*"))).names == [*STAMPS.names, "ctrl_stamp_npz"]


def test_batches_follow_neither_files_nor_row_groups(tmp_path: Path) -> None:
    rows = stamp_rows(6)
    one = write(tmp_path / "s.parquet", rows, STAMPS_COLUMNS)
    for i in range(3):
        write(tmp_path / f"many/part-{i}.parquet", rows[2 * i : 2 * i + 2], STAMPS_COLUMNS, row_group_rows=1)
    digests = [do_import(p, tmp_path / n)["digests"] for p, n in ((one, "a"), (tmp_path / "many", "b"))]
    assert digests[0]["stamps"] == digests[1]["stamps"]


def test_float64_stamps_and_strange_arrays_are_counted(tmp_path: Path) -> None:
    wide = {k: a.astype(np.float64) for k, a in pixels(7).items()} | {"extra": np.ones(3)}
    report = do_import(
        write(tmp_path / "s.parquet", stamp_rows(1, lambda _: npz(wide)), STAMPS_COLUMNS), tmp_path / "o"
    )
    assert report["source_columns"]["stamp_npz"]["found"] == {
        "array extra left out": 1,
        "float64 rounded to float32": 1,
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task_id": "same"}, "3 row.s. repeat a task_id of another row, such as same"),
        ({"ab_zp_nmgy": 25.0}, "not nanomaggies"),
        ({"replicate": None}, "4 row.s. have no replicate"),
    ],
)
def test_unusable_stamps(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    rows = [row | change for row in stamp_rows(4)]
    with pytest.raises(StageError, match=says):
        do_import(write(tmp_path / "s.parquet", rows, STAMPS_COLUMNS), tmp_path / "out")
    assert not (tmp_path / "out/_SUCCESS").exists()


def test_unknown_tables_say_what_the_nearest_layout_lacks(tmp_path: Path) -> None:
    rows = stamp_rows(2)
    source = write(tmp_path / "s.parquet", rows, ["task_id", "ra", "dec"])
    with pytest.raises(StageError, match="in none of the earlier layouts; nearest is metrics"):
        do_import(source, tmp_path / "out")
    short = write(tmp_path / "t.parquet", rows, [c for c in STAMPS_COLUMNS if c != "bandset"])
    with pytest.raises(StageError, match=r"1 required column\(s\) absent: bandset"):
        do_import(short, tmp_path / "out")
    assert not (tmp_path / "out").exists()
