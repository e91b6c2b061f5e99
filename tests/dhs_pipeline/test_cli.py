"""Wrong input ends with one line and a non-zero exit code, before any work."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhs_pipeline.cli import main
from dhs_pipeline.simulate import SimulatedSurvey


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run the command, check that it fails in one line, and return the line."""
    assert main(argv) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    return lines[0]


@pytest.fixture
def inputs(simulated: SimulatedSurvey) -> list[str]:
    return ["--data", str(simulated.data_dir), "--parent", str(simulated.parent_path), "--quiet"]


def test_unknown_configuration_key(capsys: pytest.CaptureFixture[str], tmp_path: Path, inputs: list[str]) -> None:
    line = fails(capsys, "run", "--out", str(tmp_path / "o"), *inputs, "--set", "manifest.replicate=2")
    assert "manifest.replicate" in line
    assert "replicates" in line


def test_missing_bank(capsys: pytest.CaptureFixture[str], tmp_path: Path, inputs: list[str]) -> None:
    out = ["--out", str(tmp_path / "o")]
    assert "gen5 needs a cosmos source bank; give one with --bank" in fails(
        capsys, "run", *out, *inputs, "--generations", "gen5"
    )
    assert "gen6 needs a deep source bank; give one with --deep-bank" in fails(
        capsys, "run", *out, *inputs, "--generations", "gen7,gen6"
    )
    assert "does not exist" in fails(capsys, "run", *out, *inputs, "--bank", str(tmp_path / "no"))
    assert not (tmp_path / "o").exists()


def test_bank_with_the_wrong_pixel_scale(capsys: pytest.CaptureFixture[str], tmp_path: Path, inputs: list[str]) -> None:
    with h5py.File(tmp_path / "bank.h5", "w") as file:
        images = np.random.default_rng(0).random((4, 65, 65)).astype(np.float32)
        file["images"] = images / images.sum(axis=(1, 2), keepdims=True)
        file["meta/index"] = np.arange(4)
        file["meta/hlr_arcsec"] = np.full(4, 0.3, np.float32)
        file["meta/clumpiness"] = np.full(4, 0.1, np.float32)
        file.attrs["src_pixscale_arcsec"] = 0.262
        file.attrs["stamp_size"] = 65
    line = fails(capsys, "run", "--out", str(tmp_path / "o"), *inputs, "--bank", str(tmp_path / "bank.h5"))
    assert "0.262" in line
    assert "pix" in line.lower()


def test_parent_without_a_required_column(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, simulated: SimulatedSurvey
) -> None:
    table = pq.read_table(simulated.parent_path).drop_columns(["flux_z"])
    pq.write_table(table, tmp_path / "parent.parquet")
    argv = ["--data", str(simulated.data_dir), "--parent", str(tmp_path / "parent.parquet"), "--quiet"]
    line = fails(capsys, "run", "--out", str(tmp_path / "o"), *argv, "--generations", "gen7")
    assert "flux_z" in line


def test_parent_without_one_usable_row(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, simulated: SimulatedSurvey, spark: object
) -> None:
    table = pq.read_table(simulated.parent_path)
    stars = table.set_column(table.column_names.index("type"), "type", pa.array(["PSF"] * table.num_rows))
    pq.write_table(stars, tmp_path / "parent.parquet")
    argv = ["--data", str(simulated.data_dir), "--parent", str(tmp_path / "parent.parquet"), "--quiet"]
    line = fails(capsys, "run", "--out", str(tmp_path / "o"), *argv, "--generations", "gen7")
    assert "none of its rows is a host" in line
    assert "TYPE_EXCLUDED" in line


def test_output_path_that_exists(capsys: pytest.CaptureFixture[str], tmp_path: Path, inputs: list[str]) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "thesis.tex").write_text("precious")
    line = fails(capsys, "run", "--out", str(tmp_path / "o"), *inputs, "--generations", "gen7")
    assert "exists and is not a run directory" in line
    assert (tmp_path / "o" / "thesis.tex").read_text() == "precious"


def test_run_directory_of_another_configuration(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, inputs: list[str]
) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "run.json").write_text(json.dumps({"config": {"experiment_id": "another"}}))
    line = fails(capsys, "run", "--out", str(tmp_path / "o"), *inputs, "--generations", "gen7")
    assert "another configuration" in line


def test_unwritable_path(capsys: pytest.CaptureFixture[str], tmp_path: Path, inputs: list[str]) -> None:
    (tmp_path / "file").write_text("")
    line = fails(capsys, "run", "--out", str(tmp_path / "file" / "o"), *inputs, "--generations", "gen7")
    assert "cannot make this folder" in line


def test_data_without_bricks_and_halves_of_the_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "go together" in fails(capsys, "run", "--out", str(tmp_path / "o"), "--data", str(tmp_path))
    assert "not a run directory" in fails(capsys, "stage-4b", "--out", str(tmp_path), "--data", str(tmp_path))
    assert "no Parquet file" in fails(capsys, "digest", str(tmp_path))
