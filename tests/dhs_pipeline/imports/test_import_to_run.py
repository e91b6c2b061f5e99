"""From an earlier manifest through 4b, 4c and 4p5, and from an earlier bank to a bank of this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from earlier_cases import MANIFEST_COLUMNS, Rows, manifest_rows, write
from small_run import InProcessSpark

from dhs_gen.source_banks import open_bank
from dhs_pipeline.banks import prepare_cosmos_bank
from dhs_pipeline.cli import main
from dhs_pipeline.compact import run_compaction
from dhs_pipeline.config import load_run_config
from dhs_pipeline.cutouts import run_cutouts
from dhs_pipeline.imports.run import run_import
from dhs_pipeline.injection import run_injection
from dhs_pipeline.report import write_report
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.simulate import SimulatedSurvey
from dhs_pipeline.sources import Banks
from dhs_pipeline.storage import Location

SETTINGS = ("rendering.max_supersampling=5",)


def earlier_manifest_of_the_demo_hosts(simulated: SimulatedSurvey, per_brick: int = 3) -> Rows:
    """A manifest of some well placed hosts of the demo bricks."""
    parent = pq.read_table(simulated.parent_path).to_pylist()
    chosen: dict[str, list[tuple[str, float, float]]] = {}
    for host in parent:
        if host["type"] != "PSF":
            chosen.setdefault(host["brickname"], []).append((host["brickname"], host["ra"], host["dec"]))
    return manifest_rows([h for hosts in chosen.values() for h in hosts[:per_brick]])


def test_imported_run_goes_through_every_later_stage(simulated: SimulatedSurvey, tmp_path: Path) -> None:
    rows = earlier_manifest_of_the_demo_hosts(simulated)
    source = write(tmp_path / "m.parquet", rows, MANIFEST_COLUMNS)
    config = load_run_config("data", SETTINGS)
    out = Location.of(tmp_path / "out")
    run_import(Location.of(source), out, config, kind="auto", rules=None, force=False)
    run, spark = RunDir(out), InProcessSpark()
    stages: dict[str, Any] = {"partitions": None, "force": False, "progress": False}
    cutouts = run_cutouts(spark, run, Location.of(simulated.data_dir), run.config(), **stages)
    assert cutouts["rows"] == 6
    made = run_injection(spark, run, config.generation("gen7"), Banks(), run.config(), **stages)
    compacted = run_compaction(spark, run, "gen7", run.config(), **stages)
    assert compacted["rows"] == made["rows"] == len(rows)
    metrics = pq.read_table(f"{out}/phase4c/gen7/metrics").to_pylist()
    good_hosts = {r["host_id"] for r in pq.read_table(f"{out}/phase4b/cutouts").to_pylist() if r["status"] == "OK"}
    assert len(good_hosts) >= 4
    for row in metrics:
        assert (row["status"] == "OK") == (row["host_id"] in good_hosts), row["message"]
        if row["status"] == "OK":
            assert row["arc_injected"] == 1 - row["is_control"]
    of_task = {r["task_id"]: r for r in rows}
    for row in (r for r in metrics if r["arc_injected"]):
        # Unlensed flux from the earlier columns alone: host magnitude, dmag, colour, extinction.
        earlier = of_task[row["task_id"]]
        mag_g = earlier["rmag"] + earlier["src_dmag"] + earlier["src_gr"]
        flux = 10 ** (0.4 * (22.5 - mag_g)) * 10 ** (-0.4 * 3.214 * earlier["ebv"])
        assert row["unlensed_flux_g_nmgy"] == pytest.approx(flux, rel=1e-9)
    assert Path(write_report(run).uri).is_file()


def test_show_renders_an_imported_task(simulated: SimulatedSurvey, tmp_path: Path, capsys: Any) -> None:
    rows = earlier_manifest_of_the_demo_hosts(simulated, per_brick=1)
    source = write(tmp_path / "m.parquet", rows, MANIFEST_COLUMNS)
    out = tmp_path / "out"
    assert main(["import", str(source), "--out", str(out), "--set", SETTINGS[0]]) == 0
    printed = capsys.readouterr().out
    assert "src_n_sersic                  assigned" in printed
    assert "1.0 in every row" in printed
    run, spark = RunDir(Location.of(out)), InProcessSpark()
    stages: dict[str, Any] = {"partitions": None, "force": False, "progress": False}
    run_cutouts(spark, run, Location.of(simulated.data_dir), run.config(), **stages)
    run_injection(spark, run, run.config().generation("gen7"), Banks(), run.config(), **stages)
    assert main(["show", rows[0]["task_id"], "--out", str(out), "--png", str(tmp_path / "task.png")]) == 0


def test_cosmos_bank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    y, x = np.indices((65, 65)) - 32.0
    images = np.array([np.exp(-np.hypot(x, y) / scale) for scale in (3.0, 4.0, 5.0)], np.float32)
    with h5py.File(tmp_path / "bank.h5", "w") as file:
        file["images"] = images / images.sum(axis=(1, 2), keepdims=True)
        file["meta/index"] = np.array([5, 17, 40])
        file["meta/hlr_arcsec"] = np.array([0.151, 0.2, 0.247], np.float32)
        file["meta/clumpiness"] = np.full(3, 0.1, np.float32)
        file.attrs["src_pixscale_arcsec"] = 0.03
        file.attrs["stamp_size"] = 65
    out = tmp_path / "bank"
    assert main(["import", str(tmp_path / "bank.h5"), "--out", str(out)]) == 0
    assert "/meta/clumpiness" in capsys.readouterr().out
    assert open_bank(out).template_id == ("5", "17", "40")
    assert prepare_cosmos_bank(Location.of(out), Location.of(tmp_path / "unused")) == Location.of(out)
    report = json.loads((out / "import_report.json").read_text())
    assert (report["kind"], report["templates"], report["rejected_by_reason"]) == ("cosmos-bank", 3, {})


def test_deep_bank_of_the_earlier_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0.262″ images with their noise: the seeing has to be stated, and what was done with them is reported."""
    y, x = np.indices((96, 96)) - 47.5
    rng = np.random.default_rng(3)
    images = [40.0 * np.exp(-np.hypot(x, 1.3 * y) / s) + rng.normal(0, 0.05, x.shape) for s in (1.8, 2.2)]
    meta = {"file": ["a.fits", "b.fits"], "pixscale_arcsec": [0.168] * 2, "filter": ["i"] * 2, "sum_flux": [1.0] * 2}
    meta |= {"target_pixscale_arcsec": 0.262, "stamp_size": 96}
    np.savez(tmp_path / "old.npz", images=np.array(images, np.float32), meta=np.array(json.dumps(meta)))
    command = ["import", str(tmp_path / "old.npz"), "--out", str(tmp_path / "bank")]
    assert main(command) == 2
    assert "psf_fwhm_arcsec" in capsys.readouterr().err
    assert main([*command, "--psf-fwhm-arcsec", "0.7"]) == 0
    assert open_bank(tmp_path / "bank").pixscale_arcsec < 0.1
    report = json.loads((tmp_path / "bank" / "import_report.json").read_text())
    assert (report["kind"], report["templates"]) == ("deep-bank", 2)
