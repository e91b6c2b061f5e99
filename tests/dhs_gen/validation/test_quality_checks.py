"""Dataset checks: a sound dataset is clean, every planted fault is found under its name, and the rest is left alone."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import ndimage
from stamp_datasets import images, npz, sound_rows, stamp, write, write_partitioned

from dhs_gen.stamps import encode_stamp
from dhs_gen.validation import quality_checks
from dhs_gen.validation.quality_checks import decode_stamp_npz, validate_parquet_stamps
from dhs_gen.validation.stamp_checks import clumpiness

Row = dict[str, Any]


def test_a_sound_dataset_is_clean_however_it_is_named(tmp_path: Path) -> None:
    rows = sound_rows()
    flat = write(tmp_path / "flat" / "a.parquet", rows)
    folder = write_partitioned(tmp_path / "hive", rows)
    for pattern in (flat, tmp_path / "flat", str(tmp_path / "flat" / "*.parquet"), folder, f"{folder}/**/*.parquet"):
        result = validate_parquet_stamps(pattern)
        assert result["clean"], result["findings"]
        assert result["rows"] == result["sampled"] == 60
        assert result["not_checked"] == {}
        assert result["split_counts"] == {"train": 24, "val": 18, "test": 18}
    assert result["files"] == 3
    assert result["source_mode_counts"] == {"cosmos": 30, "hybrid": 30}
    assert result["artifact_profile_counts"] == {"mild": 60}
    assert result["rows_by_status"] == {"OK": 60}
    assert [(m["source_mode"], m["rows"], m["sampled"]) for m in result["modes"]] == [
        ("cosmos", 30, 30),
        ("hybrid", 30, 30),
    ]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_earlier_keys_are_there(tmp_path: Path) -> None:
    result = validate_parquet_stamps(str(write(tmp_path / "a.parquet", sound_rows(6))))
    earlier = "sampled bad_decode bad_shape nonfinite mad_zero clumpiness_mean clumpiness_p10 clumpiness_p90"
    assert {*earlier.split(), "source_mode_counts", "artifact_profile_counts"} <= set(result)


def nan_stamp() -> bytes:
    arrays = images()
    arrays["image_r"][3, 4] = np.nan
    return encode_stamp(arrays)


def flat_stamp() -> bytes:
    return encode_stamp(images() | {"image_z": np.full((64, 64), 0.5, np.float32)})


def half_empty_stamp() -> bytes:
    arrays = images()
    arrays["image_g"][:40] = 0
    return encode_stamp(arrays)


@pytest.mark.parametrize(
    ("change", "findings"),
    [
        ({"stamp_npz": b"PK\x03\x04 damaged"}, {"bad_decode": 1}),
        ({"stamp_npz": stamp(size=63)}, {"bad_shape": 1}),
        ({"stamp_npz": nan_stamp()}, {"nonfinite": 1}),
        ({"stamp_npz": flat_stamp()}, {"flat": 1, "mad_zero": 1}),
        ({"stamp_npz": half_empty_stamp()}, {"mad_zero": 1}),
        ({"stamp_npz": encode_stamp({k: v * 1e4 for k, v in images().items()})}, {"out_of_range": 1}),
        ({"stamp_npz": stamp("gz")}, {"band_mismatch": 1}),
        ({"bandset": "r"}, {"band_mismatch": 1}),
        ({"bandset": "r", "stamp_npz": stamp("r")}, {}),
        ({"bandset": "rgz"}, {}),
        ({"stamp_npz": None}, {"missing_stamp": 1}),
        ({"stamp_npz": None, "cutout_ok": 0, "status": "OFF_BRICK"}, {}),
        ({"stamp_npz": npz(image_r=np.zeros((64, 64))), "cutout_ok": 0, "status": "OFF_BRICK"}, {}),
        ({"status": "OFF_BRICK"}, {"status_contradictions": 1}),
        ({"task_id": "task-00007"}, {"duplicate_task_ids": 1}),
        ({"host_id": "host-3"}, {"split_leaks_host": 1}),
        ({"region_id": 1}, {"split_leaks_region": 1}),
        ({"template_id": "val-0", "source_mode": "cosmos"}, {"split_leaks_template": 1}),
        ({"template_id": "val-0", "source_mode": "hybrid"}, {}),
        ({"template_id": None}, {}),
        ({"stamp_npz": npz(img=np.stack(list(images().values())))}, {}),
        ({"stamp_npz": gzip.compress(stamp())}, {}),
    ],
)
def test_a_fault_is_found_under_its_name(tmp_path: Path, change: Row, findings: dict[str, int]) -> None:
    """Row 0 is changed: train, source_mode cosmos."""
    rows = sound_rows()
    rows[0] |= change
    result = validate_parquet_stamps(write(tmp_path / "a.parquet", rows))
    assert result["findings"] == findings
    assert result["clean"] == (not findings)
    for name in findings:
        if name != "status_contradictions":
            assert result["examples"][name]


def test_failed_rows_are_counted_by_status(tmp_path: Path) -> None:
    rows = sound_rows()
    for row in rows[:5]:
        row |= {"cutout_ok": 0, "status": "OFF_BRICK", "stamp_npz": None}
    result = validate_parquet_stamps(write(tmp_path / "a.parquet", rows))
    assert result["clean"]
    assert result["rows_by_status"] == {"OFF_BRICK": 5, "OK": 55}
    assert (result["failed"], result["sampled"]) == (5, 55)
    assert sum(m["failed"] for m in result["modes"]) == 5


def test_a_host_in_two_folders_is_a_leak(tmp_path: Path) -> None:
    rows = sound_rows()
    rows[6] |= {"host_id": "host-0", "region_id": 0}
    result = validate_parquet_stamps(write_partitioned(tmp_path / "d", rows))
    assert result["findings"] == {"split_leaks_host": 1, "split_leaks_region": 1}
    assert result["examples"]["split_leaks_host"] == ["host-0: train, val"]


def test_a_column_that_contradicts_its_folder_is_found(tmp_path: Path) -> None:
    write(tmp_path / "d" / "region_split=test" / "a.parquet", [r for r in sound_rows() if r["region_split"] == "val"])
    result = validate_parquet_stamps(tmp_path / "d")
    assert result["findings"] == {"split_contradictions": 18}
    assert result["split_counts"] == {"test": 18}


def older_rows() -> list[Row]:
    """The 57-column layout: no host_id, no status; a galaxy is its position."""
    keep = ("task_id", "region_id", "region_split", "bandset", "is_control", "cutout_ok", "source_mode")
    made = []
    for i, row in enumerate(sound_rows()):
        place = {"brickname": "0591m305", "ra": 59.1 + i // 3, "dec": -30.5, "cosmos_index": row["region_id"]}
        made.append({k: row[k] for k in keep} | place | {"stamp_npz": npz(**images())})
    return made


def test_older_tables_are_checked_by_position_and_template_index(tmp_path: Path) -> None:
    rows = older_rows()
    result = validate_parquet_stamps(write(tmp_path / "a.parquet", rows))
    assert result["clean"]
    assert result["rows_by_status"] == {"cutout_ok=1": 60}
    rows[0]["ra"], rows[1]["cosmos_index"] = rows[6]["ra"], 1
    result = validate_parquet_stamps(write(tmp_path / "a.parquet", rows))
    assert result["findings"] == {"split_leaks_host": 1, "split_leaks_template": 1}


def test_placeholder_stamps_of_failed_older_rows_are_not_called_bad(tmp_path: Path) -> None:
    rows = older_rows()
    rows[3] |= {"cutout_ok": 0, "stamp_npz": npz(image_r=np.zeros((64, 64), np.float32))}
    result = validate_parquet_stamps(write(tmp_path / "a.parquet", rows))
    assert result["clean"]
    assert result["rows_by_status"] == {"cutout_ok=0": 1, "cutout_ok=1": 59}


def test_paired_controls_are_checked_too(tmp_path: Path) -> None:
    rows = sound_rows()
    for row in rows:
        row["ctrl_stamp_npz"] = stamp(seed=1000)
    path = tmp_path / "a.parquet"
    result = validate_parquet_stamps(write(path, rows))
    assert result["clean"]
    assert result["ctrl"]["sampled"] == 60
    rows[0]["ctrl_stamp_npz"] = nan_stamp()
    rows[1]["ctrl_stamp_npz"] = stamp("r")
    rows[2]["ctrl_stamp_npz"] = None
    rows[3] |= {"ctrl_stamp_npz": None, "is_control": 1}
    result = validate_parquet_stamps(write(path, rows))
    assert result["findings"] == {"ctrl_nonfinite": 1, "ctrl_band_mismatch": 1, "ctrl_missing_stamp": 1}


def test_what_cannot_be_checked_is_said(tmp_path: Path) -> None:
    bare = [{"stamp_npz": row["stamp_npz"]} for row in sound_rows(20)]
    result = validate_parquet_stamps(write(tmp_path / "a.parquet", bare))
    assert result["clean"]
    assert set(result["not_checked"]) == {
        "duplicate_task_ids",
        "split_leaks_host",
        "split_leaks_region",
        "split_leaks_template",
    }
    assert (result["rows"], result["sampled"]) == (20, 20)
    bare[4]["stamp_npz"] = None
    result = validate_parquet_stamps(write(tmp_path / "a.parquet", bare))
    assert result["clean"]
    assert (result["sampled"], result["sampled_without_stamp"]) == (19, 1)


def damaged_footer(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def damaged_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(bytes(content))


def other_table(path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), path)


@pytest.mark.parametrize("damage", [damaged_footer, damaged_pages, other_table])
def test_a_damaged_file_is_a_finding_and_the_others_are_checked(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    rows = sound_rows()
    write(tmp_path / "d" / "a.parquet", rows[:30])
    damage(write(tmp_path / "d" / "b.parquet", rows[30:]))
    result = validate_parquet_stamps(tmp_path / "d")
    assert result["findings"]["unreadable_files"] == 1
    assert "b.parquet" in result["unreadable_files"][0]
    assert result["sampled"] >= 30


def test_a_dataset_without_rows_or_stamps_is_not_clean(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(sound_rows(3))
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    assert validate_parquet_stamps(tmp_path / "empty.parquet")["findings"] == {"no_rows": 1}
    failed = [row | {"cutout_ok": 0, "status": "OFF_BRICK", "stamp_npz": None} for row in sound_rows(3)]
    rows = [row | {"stamp_npz": None} for row in failed] + [sound_rows(4)[3] | {"cutout_ok": 0, "status": "OFF_BRICK"}]
    assert validate_parquet_stamps(write(tmp_path / "failed.parquet", rows))["findings"] == {"no_stamps": 1}


def test_the_sample_is_spread_and_the_same_in_every_run(tmp_path: Path) -> None:
    rows = [row | {"source_mode": f"block-{i // 100}"} for i, row in enumerate(sound_rows(600))]
    one = write(tmp_path / "one" / "a.parquet", rows, 100)
    result = validate_parquet_stamps(one, sample_rows=60)
    assert result["sampled"] == 60
    assert [m["sampled"] for m in result["modes"]] == [10] * 6
    assert validate_parquet_stamps(write(tmp_path / "two" / "b.parquet", rows, 100), sample_rows=60) == result
    assert validate_parquet_stamps(one, max_rows=200, sample_rows=60)["sampled"] == 60
    modes = validate_parquet_stamps(one, max_rows=200, sample_rows=60)["modes"]
    assert sum(m["sampled"] > 0 for m in modes) == 2


def test_flux_is_reported_per_band(tmp_path: Path) -> None:
    rows = sound_rows(40)
    for i, row in enumerate(rows):
        row["stamp_npz"] = encode_stamp({k: v * (i + 1) for k, v in images().items()})
    flux = validate_parquet_stamps(write(tmp_path / "a.parquet", rows))["flux"]
    sums = [images()["image_z"].astype(float).sum() * (i + 1) for i in range(40)]
    assert flux["z"]["sum"]["p50"] == pytest.approx(np.median(sums), rel=1e-5)
    assert flux["z"]["pixel_max"]["max"] == pytest.approx(40 * images()["image_z"].max(), rel=1e-6)
    assert flux["r"]["mad_sigma"]["min"] == pytest.approx(0.0105, rel=0.1)
    assert set(flux) == set("grz")


def test_clumpiness_is_the_light_that_a_mean_takes_away() -> None:
    image = np.random.default_rng(2).uniform(0, 1, (20, 20))
    padded = np.pad(image, 1, mode="edge")
    mean = sum(padded[1 + dy : 21 + dy, 1 + dx : 21 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    assert clumpiness(image) == pytest.approx(np.abs(image - mean).sum() / image.sum())
    assert clumpiness(ndimage.gaussian_filter(image, 3)) < 0.1 * clumpiness(image)
    assert clumpiness(np.zeros((4, 4))) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_rows": 0}, "max_rows must be a positive integer, got 0"),
        ({"sample_rows": -1}, "sample_rows must be a positive integer, got -1"),
        ({"expect_bands": 1.5}, "expect_bands must be a positive integer, got 1.5"),
        ({"expect_hw": (64,)}, r"expect_hw must be two positive integers \(H, W\), got \(64,\)"),
        ({"flux_range_nmgy": (1.0, 1.0)}, "flux_range_nmgy must be"),
        ({"glob": "s3://bucket/stamps"}, "parquet must be a local path, got 's3://bucket/stamps'"),
        ({"glob": "/nonexistent/*.parquet"}, "no Parquet files match '/nonexistent/"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(tmp_path: Path, arguments: Row, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate_parquet_stamps(**({"glob": write(tmp_path / "a.parquet", sound_rows(3))} | arguments))


def test_a_table_without_stamps_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file has a column 'stamp_npz'"):
        validate_parquet_stamps(write(tmp_path / "a.parquet", [{"task_id": "a"}]))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dhs_gen.validation.quality_checks", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})


def test_the_command_writes_json_and_says_by_its_exit_code_what_it_found(tmp_path: Path) -> None:
    path, out = write(tmp_path / "a.parquet", sound_rows(30)), tmp_path / "new" / "result.json"
    clean = run("--parquet", path, "--out-json", out)
    assert (clean.returncode, clean.stderr) == (0, "")
    assert clean.stdout.splitlines()[-1] == "clean"
    assert json.loads(out.read_text())["sampled"] == 30
    write(path, sound_rows(30) + sound_rows(1))
    dirty = run("--parquet", path, "--out-json", out)
    assert dirty.returncode == 1
    assert "FINDING duplicate_task_ids: 1" in dirty.stdout
    assert json.loads(out.read_text())["findings"] == {"duplicate_task_ids": 1}


def test_bad_usage_is_exit_code_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "r.json")
    assert quality_checks.main(["--parquet", str(tmp_path / "none"), "--out-json", out]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    path = str(write(tmp_path / "a.parquet", sound_rows(3)))
    assert quality_checks.main(["--parquet", path, "--out-json", out, "--sample-rows", "0"]) == 2
    assert quality_checks.main(["--parquet", path, "--out-json", path + "/r.json"]) == 2
    with pytest.raises(SystemExit) as end:
        quality_checks.main(["--parquet", path])
    assert end.value.code == 2


def test_there_is_one_decoder() -> None:
    from dhs_gen import stamps, validation

    assert decode_stamp_npz is stamps.decode_stamp_npz is validation.decode_stamp_npz
