"""Mixing Parquet manifests: streamed, idempotent, and nothing else touched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhs_gen.streams import stable_id
from dhs_gen.uber.manifests import ROW_GROUP_ROWS
from dhs_gen.uber.mixer import (
    DEFAULT_UBER,
    MixerConfig,
    add_modes_to_manifest_pyarrow,
    assign_modes,
    main,
    validate_manifest_distribution,
)

MODES = ["source_mode", "artifact_profile", "gen_variant"]


def manifest(rows: int, first: int = 0) -> pa.Table:
    """A table as 4a writes it: typed columns with units in the metadata."""
    ids = [stable_id("task", n) for n in range(first, first + rows)]
    schema = pa.schema(
        [
            pa.field("task_id", pa.string(), nullable=False, metadata={"description": "names the task"}),
            pa.field("theta_e_arcsec", pa.float64(), metadata={"unit": "arcsec"}),
            pa.field("bandset", pa.dictionary(pa.int32(), pa.string())),
        ],
        metadata={"dhs_stage": "manifest"},
    )
    theta = np.linspace(0.5, 2.0, rows)
    bandsets = [("grz", "gr", "z", "r")[n // 500 % 4] for n in range(rows)]
    return pa.table([ids, theta, pa.array(bandsets).dictionary_encode()], schema=schema)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.parquet"
    pq.write_table(manifest(3000), path, row_group_size=700)
    return path


def mix(source: Path, target: Path, **changes: Any) -> int:
    return add_modes_to_manifest_pyarrow(source, target, DEFAULT_UBER, **changes)


def test_every_row_has_its_modes_and_keeps_everything_else(written: Path, tmp_path: Path) -> None:
    out = tmp_path / "mixed.parquet"
    assert mix(written, out) == 3000
    before, after = pq.read_table(written), pq.read_table(out)
    assert after.column_names == [*before.column_names, *MODES]
    assert after.select(before.column_names).equals(before)
    for name in before.column_names:
        assert after.schema.field(name).equals(before.schema.field(name), check_metadata=True)
    assert after.schema.metadata[b"dhs_stage"] == b"manifest"
    for row in after.slice(0, 200).to_pylist():
        assert {m: row[m] for m in MODES} == assign_modes(row["task_id"], DEFAULT_UBER) | {"gen_variant": "uber_mix"}
    meta = pq.ParquetFile(out).metadata
    assert meta.row_group(0).column(0).compression == "ZSTD"


def test_mixing_again_changes_no_byte(written: Path, tmp_path: Path) -> None:
    once, twice = tmp_path / "once.parquet", tmp_path / "twice.parquet"
    mix(written, once)
    mix(once, twice)
    assert once.read_bytes() == twice.read_bytes()
    mix(written, written)  # in place
    assert once.read_bytes() == written.read_bytes()


def test_row_groups_do_not_depend_on_the_inputs(tmp_path: Path) -> None:
    """Across row-group borders and with more than one output group."""
    rows = ROW_GROUP_ROWS + 1000
    table = manifest(rows)
    outputs = []
    for size in (700, 50_000, rows):
        path = tmp_path / f"{size}.parquet"
        pq.write_table(table, path, row_group_size=size)
        mix(path, path)
        groups = pq.ParquetFile(path).metadata
        assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [ROW_GROUP_ROWS, 1000]
        outputs.append(path.read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]


def test_another_mixture_replaces_the_columns(written: Path, tmp_path: Path) -> None:
    out = tmp_path / "mixed.parquet"
    mix(written, out)
    add_modes_to_manifest_pyarrow(
        out, out, MixerConfig(["deep"], [1.0], ["none"], [1.0], "gen6"), gen_variant="gen6_deep"
    )
    table = pq.read_table(out)
    assert table.column_names.count("source_mode") == 1
    assert {name: table.column(name).unique().to_pylist() for name in MODES} == {
        "source_mode": ["deep"],
        "artifact_profile": ["none"],
        "gen_variant": ["gen6_deep"],
    }


def test_columns_of_the_earlier_manifests_are_replaced_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    old = pa.table({"source_mode": [None, "x"], "task_id": ["a", "b"], "gen_variant": [1, 2]})
    pq.write_table(old, path)
    mix(path, path)
    assert pq.read_table(path).column_names == ["task_id", *MODES]


def test_assignment_is_stable_under_order_and_files(written: Path, tmp_path: Path) -> None:
    table = pq.read_table(written)
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(len(table))))
    folder = tmp_path / "parts"
    for part in range(3):
        inner = folder / f"region_split={part}"
        inner.mkdir(parents=True)
        pq.write_table(shuffled.slice(part * 1000, 1000), inner / "part-0.parquet")
    (folder / "_SUCCESS").touch()
    assert mix(folder, tmp_path / "mixed") == 3000
    mix(written, tmp_path / "one.parquet")
    one = pq.read_table(tmp_path / "one.parquet").sort_by("task_id")
    many = pa.concat_tables([pq.ParquetFile(f).read() for f in sorted((tmp_path / "mixed").rglob("*.parquet"))])
    assert many.sort_by("task_id").select(one.column_names).to_pylist() == one.to_pylist()
    mix(tmp_path / "mixed", tmp_path / "mixed")  # in place: a folder
    report = validate_manifest_distribution(tmp_path / "mixed")
    assert report["rows"] == 3000


def test_an_empty_manifest_gains_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    pq.write_table(manifest(0), path)
    assert mix(path, path) == 0
    assert pq.read_table(path).column_names[-3:] == MODES
    assert validate_manifest_distribution(path)["p_value"]["joint"] is None


def test_what_cannot_be_mixed_is_refused_and_nothing_is_left(written: Path, tmp_path: Path) -> None:
    nulls, numbers = tmp_path / "nulls.parquet", tmp_path / "numbers.parquet"
    pq.write_table(pa.table({"task_id": ["a", None, "c"]}), nulls)
    pq.write_table(pa.table({"task_id": [1, 2]}), numbers)
    blank = tmp_path / "blank.parquet"
    pq.write_table(pa.table({"task_id": ["a", ""]}), blank)
    folder = tmp_path / "folder"
    folder.mkdir()
    out = tmp_path / "out" / "mixed.parquet"
    for source, words, options in (
        (nulls, "nulls.parquet: 1 null task_id among rows 0 to 2", {}),
        (blank, "task_id must be a non-empty string, got '' in row 1", {}),
        (numbers, "column 'task_id' must hold strings, it holds int64", {}),
        (written, "task_id_col 'name' is not a column; there are task_id, theta_e_arcsec", {"task_id_col": "name"}),
        (written, "gen_variant must not be empty", {"gen_variant": ""}),
        (written, "task_id_col must not be one of the columns", {"task_id_col": "source_mode"}),
        (folder, "holds no Parquet file", {}),
    ):
        with pytest.raises(ValueError, match=words):
            mix(source, out, **options)
    with pytest.raises(FileNotFoundError, match=r"gone\.parquet"):
        mix(tmp_path / "gone.parquet", out)
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_a_failure_half_way_leaves_the_old_file(written: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.parquet"
    table = manifest(ROW_GROUP_ROWS + 10)
    ids = table.column("task_id").to_pylist()
    ids[-1] = None
    pq.write_table(pa.table({"task_id": ids}), bad)
    before = bad.read_bytes()
    with pytest.raises(ValueError, match=f"1 null task_id among rows {ROW_GROUP_ROWS} to {ROW_GROUP_ROWS + 9}"):
        mix(bad, bad)
    assert bad.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.parquet", "manifest.parquet"]


def test_files_of_another_manifest_in_the_output_are_noticed(tmp_path: Path) -> None:
    for folder, name in (("in", "a"), ("out", "b")):
        (tmp_path / folder).mkdir()
        pq.write_table(manifest(5), tmp_path / folder / f"{name}.parquet")
    with pytest.raises(ValueError, match=r"holds other Parquet files already, such as b\.parquet"):
        mix(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ValueError, match="out_parquet must be a folder"):
        mix(tmp_path / "in", tmp_path / "in" / "a.parquet")
    with pytest.raises(ValueError, match="out_parquet must be a file"):
        mix(tmp_path / "in" / "a.parquet", tmp_path / "out")


# ------------------------------------------------------------------------------------------------- distribution


def test_a_fair_mixture_passes_and_a_tampered_one_does_not(written: Path, tmp_path: Path) -> None:
    mix(written, written)
    report = validate_manifest_distribution(written)
    assert report["rows"] == 3000
    assert report["gen_variant"] == {"uber_mix": 3000}
    assert sum(entry["count"] for entry in report["source_mode"].values()) == 3000
    assert report["source_mode"]["cosmos"]["expected"] == 0.34
    assert report["artifact_profile"]["mild"]["observed"] == pytest.approx(0.70, abs=0.03)
    assert min(report["p_value"].values()) > 1e-3

    table = pq.read_table(written)
    mild = [m == "mild" for m in table.column("artifact_profile").to_pylist()]
    hybrid = [m == "hybrid" for m in table.column("source_mode").to_pylist()]
    keep = ~(np.array(mild) & np.array(hybrid)) | (np.arange(3000) % 4 > 0)  # a quarter of one cell is lost
    pq.write_table(table.filter(pa.array(keep)), tmp_path / "lost.parquet")
    lost = validate_manifest_distribution(tmp_path / "lost.parquet")
    assert lost["p_value"]["joint"] < 1e-3


def test_expected_fractions_need_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    pq.write_table(pa.table({name: ["x"] for name in MODES}), path)
    report = validate_manifest_distribution(path)
    assert report["source_mode"] == {"x": {"count": 1, "observed": 1.0, "expected": None}}
    assert set(report["p_value"].values()) == {None}
    assert validate_manifest_distribution(path, DEFAULT_UBER)["p_value"]["source_mode"] == 0.0
    pq.write_table(pa.table({"task_id": ["a"]}), path)
    with pytest.raises(ValueError, match="not mixed; it has no column artifact_profile, gen_variant, source_mode"):
        validate_manifest_distribution(path)
    pq.write_table(
        pa.table({"source_mode": ["x", None], "artifact_profile": ["a", "b"], "gen_variant": ["v", "v"]}), path
    )
    with pytest.raises(ValueError, match="column source_mode is null in 1 rows"):
        validate_manifest_distribution(path)


def test_files_of_different_mixtures_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, salt in (("a", "s1"), ("b", "s2")):
        pq.write_table(manifest(10), folder / f"{name}.parquet")
        config = MixerConfig(["deep"], [1.0], ["none"], [1.0], salt)
        add_modes_to_manifest_pyarrow(folder / f"{name}.parquet", folder / f"{name}.parquet", config)
    with pytest.raises(ValueError, match="2 different mixtures"):
        validate_manifest_distribution(folder)


# ------------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize(
    ("mode", "variant", "source", "profile"),
    [
        ("gen6", "gen6_deep", "deep", "none"),
        ("gen7", "gen7_hybrid", "hybrid", "none"),
        ("gen8", "gen8_domain", "cosmos", "mild"),
    ],
)
def test_modes_of_the_command(
    written: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    mode: str,
    variant: str,
    source: str,
    profile: str,
) -> None:
    out = tmp_path / "mixed.parquet"
    assert main(["--in-parquet", str(written), "--out-parquet", str(out), "--mode", mode]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["gen_variant"] == {variant: 3000}
    assert {name: entry["count"] for name, entry in report["source_mode"].items()} == {source: 3000}
    assert {name: entry["count"] for name, entry in report["artifact_profile"].items()} == {profile: 3000}


def test_command_runs_as_a_module_and_tells_mistakes_in_one_line(written: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "dhs_gen.uber.mixer", "--out-parquet", str(tmp_path / "m.parquet")]
    good = subprocess.run([*command, "--in-parquet", str(written), "--salt", "other"], capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    ids = pq.read_table(tmp_path / "m.parquet").to_pylist()
    assert ids[0]["source_mode"] == assign_modes(ids[0]["task_id"], MixerConfig(
        DEFAULT_UBER.source_modes, DEFAULT_UBER.source_probs, ["none"], [1.0], "other"))["source_mode"]  # fmt: skip
    bad = subprocess.run([*command, "--in-parquet", str(tmp_path / "no")], capture_output=True, text=True)
    assert bad.returncode == 1
    assert bad.stderr.count("\n") == 1
    assert "no such file or folder" in bad.stderr


@pytest.mark.slow
def test_memory_does_not_grow_with_the_manifest(tmp_path: Path) -> None:
    """Peak memory of a mixing process at 0.5 and 2 million rows, in one row group each: within 30 MB.

    The high-water mark of the process itself: ``ru_maxrss`` of a child begins with what its parent held.
    """
    program = (
        "import sys; from dhs_gen.uber import *; "
        "add_modes_to_manifest_pyarrow(sys.argv[1], sys.argv[2], DEFAULT_UBER); "
        "print(*(int(line.split()[1]) / 1024 for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    peaks = []
    for rows in (500_000, 2_000_000):
        path = tmp_path / f"{rows}.parquet"
        pq.write_table(manifest(rows), path, row_group_size=rows)
        done = subprocess.run(
            [sys.executable, "-c", program, str(path), str(tmp_path / "out.parquet")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(float(done.stdout))
    print(f"peak MB: {peaks}")
    assert peaks[1] < peaks[0] + 30
