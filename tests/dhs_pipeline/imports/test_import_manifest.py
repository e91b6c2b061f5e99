"""An earlier manifest becomes a run that 4b and 4c go on from, and no value in it is made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from earlier_cases import MANIFEST_COLUMNS, column_type, manifest_rows, names, write

from dhs_gen.streams import unit_interval
from dhs_pipeline.cli import main
from dhs_pipeline.config import ConfigError, load_run_config
from dhs_pipeline.imports.layouts import MANIFEST_44
from dhs_pipeline.imports.run import run_import
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import HOSTS, MANIFEST
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location

HOSTS_OF_TWO_BRICKS = [(brick, 30.0 + 0.01 * i, -5.0) for i in range(5) for brick in ("0302m050", "0301m050")]


def do_import(source: Path, out: Path, *settings: str, **options: Any) -> dict[str, Any]:
    config = load_run_config("data", ("manifest.hosts_per_part=3", "manifest.tasks_per_shard=4", *settings))
    arguments = {"kind": "auto", "rules": None, "force": False} | options
    return run_import(Location.of(source), Location.of(out), config, **arguments)


def tasks_of(out: Path) -> dict[str, dict[str, Any]]:
    return {r["task_id"]: r for r in pq.read_table(out / "phase4a" / "manifest").to_pylist()}


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return manifest_rows(HOSTS_OF_TWO_BRICKS)


def test_layout_is_the_documented_one() -> None:
    assert list(MANIFEST_44.types) == MANIFEST_COLUMNS
    assert len(MANIFEST_COLUMNS) == 44
    assert {n: column_type(n) for n in MANIFEST_COLUMNS} == dict(MANIFEST_44.types)


def test_every_value_is_where_it_belongs(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    do_import(write(tmp_path / "m.parquet", rows, MANIFEST_COLUMNS), tmp_path / "out")
    tasks = tasks_of(tmp_path / "out")
    assert tasks.keys() == {r["task_id"] for r in rows}
    same = names("experiment_id brickname region_id region_split config_id replicate is_control bandset")
    arc = names("""
        theta_e_arcsec lens_e lens_phi_rad shear shear_phi_rad src_x_arcsec src_y_arcsec src_dmag src_gr src_rz
        src_reff_arcsec src_e src_phi_rad
    """)
    renamed = {"ra": "ra_deg", "dec": "dec_deg", "rmag": "mag_r", "zmag": "mag_z", "ebv": "ebv_mag"}
    renamed |= {"psfdepth_r": "psfdepth_r_mag", "stamp_size": "stamp_size_pix"}
    renamed |= {f"psfsize_{b}": f"psfsize_{b}_arcsec" for b in "grz"}
    for row in rows:
        task = tasks[row["task_id"]]
        assert [task[n] for n in same] == [row[n] for n in same]
        assert [task[new] for new in renamed.values()] == [row[old] for old in renamed]
        assert task["host_id"] == f"{row['brickname']}-{row['ra']:.6f}-{row['dec']:.6f}"
        for band, coefficient in {"g": 3.214, "r": 2.165, "z": 1.211}.items():
            assert task[f"mw_transmission_{band}"] == pytest.approx(10 ** (-0.4 * coefficient * row["ebv"]), rel=1e-12)
        control = row["is_control"] == 1
        assert [task[n] for n in arc] == [None if control else row[n] for n in arc]
        assert task["lens_model"] == (None if control else "SIE")
        assert task["src_mag_r"] == (None if control else pytest.approx(row["rmag"] + row["src_dmag"], abs=1e-12))


def test_what_the_layout_lacks_is_null_assigned_or_drawn(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    report = do_import(write(tmp_path / "m.parquet", rows, MANIFEST_COLUMNS), tmp_path / "out")
    for task in tasks_of(tmp_path / "out").values():
        assert task["z_l"] is task["z_s"] is task["proposal_density"] is task["mag_g"] is None
        if task["is_control"]:
            assert task["src_n_sersic"] is task["template_u"] is task["src_flip"] is None
        else:
            assert task["src_n_sersic"] == 1.0
            assert task["template_u"] == unit_interval(task["task_id"], salt="template_u")
            assert task["src_flip"] == int(unit_interval(task["task_id"], salt="src_flip") < 0.5)
    outcome = {n: e["outcome"] for n, e in report["target_columns"].items()}
    assert set(outcome) == set(MANIFEST.names)
    assert outcome["src_n_sersic"] == "assigned"
    assert outcome["template_u"] == outcome["src_flip"] == "drawn"
    assert outcome["z_l"] == outcome["sigma_v_km_s"] == "missing"
    assert outcome["src_mag_r"] == outcome["host_id"] == "converted"
    assert report == json.loads((tmp_path / "out" / "import_report.json").read_text())


def test_nothing_is_filled_without_rules(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    bare = tmp_path / "bare.yaml"
    bare.write_text("{name: bare, assign: {}, draw_keyed: [], batch_rows: 7, spill_rows: 9}")
    source = write(tmp_path / "m.parquet", rows, MANIFEST_COLUMNS)
    report = do_import(source, tmp_path / "out", rules=str(bare))
    for name in ("src_n_sersic", "src_flip", "template_u"):
        assert report["target_columns"][name] == {"outcome": "missing", "null_rows": len(rows)}


def test_every_source_column_is_in_the_report_and_none_is_lost(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    for row in rows:
        row |= {"my_note": "seen", "z_l": 0.5}
    path = write(tmp_path / "m.parquet", rows, [*MANIFEST_COLUMNS, "z_l"])
    table = pq.read_table(path)
    pq.write_table(table.append_column("my_note", [["seen"] * len(rows)]), path)
    report = do_import(path, tmp_path / "out")
    entries = report["source_columns"]
    assert set(entries) == {*MANIFEST_COLUMNS, "z_l", "my_note"}
    assert entries["z_l"]["to"] == ["z_l"]  # a column that has this package's name is taken
    assert entries["my_note"]["why"] == "not a column of the earlier layout"
    left = {n for n, e in entries.items() if e["outcome"] == "not taken"}
    beside = pq.read_table(tmp_path / "out/phase4a/source_columns").to_pylist()
    assert set(beside[0]) == {"task_id", *left}
    of_task = {r["task_id"]: r for r in rows}
    assert all(of_task[b["task_id"]][n] == b[n] for b in beside for n in left)


def test_sentinels_become_null_and_are_counted(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    rows[0]["psfsize_g"] = rows[1]["psfsize_g"] = rows[3]["psfdepth_r"] = 0.0
    rows[2]["ebv"] = float("nan")
    rows[4]["region_split"] = "all"
    report = do_import(write(tmp_path / "m.parquet", rows, MANIFEST_COLUMNS), tmp_path / "out")
    tasks = tasks_of(tmp_path / "out")
    assert len(tasks) == len(rows)  # the rows stay
    assert tasks[rows[0]["task_id"]]["psfsize_g_arcsec"] is None
    assert tasks[rows[2]["task_id"]]["mw_transmission_r"] is None
    assert report["source_columns"]["psfsize_g"]["found"] == {"0.0 (no value) set null": 2}
    assert report["source_columns"]["psfdepth_r"]["found"] == {"0.0 (no value) set null": 1}
    assert report["source_columns"]["region_split"]["found"] == {"not one of train, val, test: set null": 1}
    assert report["source_columns"]["ebv"]["null_rows"] == 1
    assert report["source_columns"]["theta_e_arcsec"]["found"] == {"placeholder of a control set null": 10}
    assert report["hosts_whose_rows_disagree"]["psfsize_g_arcsec"] == 1


def test_hosts_are_the_distinct_positions_in_parts_of_whole_bricks(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    rows = rows[::-1]
    do_import(write(tmp_path / "m.parquet", rows, MANIFEST_COLUMNS), tmp_path / "out")
    hosts = pq.read_table(tmp_path / "out/phase4a/hosts")
    assert hosts.schema.equals(HOSTS)
    first_row: dict[str, int] = {}
    for i, row in enumerate(rows):
        first_row.setdefault(f"{row['brickname']}-{row['ra']:.6f}-{row['dec']:.6f}", i)
    assert {h["host_id"]: h["parent_row"] for h in hosts.to_pylist()} == first_row
    parts = sorted((tmp_path / "out/phase4a/manifest").glob("*.parquet"))
    bricks = [set(pq.read_table(p).column("brickname").to_pylist()) for p in parts]
    assert bricks == [{"0301m050"}, {"0302m050"}]
    for part in parts:
        of_tasks = set(pq.read_table(part).column("host_id").to_pylist())
        assert of_tasks == set(pq.read_table(tmp_path / "out/phase4a/hosts" / part.name).column("host_id").to_pylist())
        assert pq.ParquetFile(part).metadata.row_group(0).num_rows == 4


def test_digest_depends_on_neither_files_nor_batches(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    one = write(tmp_path / "m.parquet", rows, MANIFEST_COLUMNS)
    do_import(one, tmp_path / "one")
    without = [c for c in MANIFEST_COLUMNS if c != "region_split"]
    for split in ("train", "val", "test"):
        of_split = [r for r in rows if r["region_split"] == split]
        write(tmp_path / f"many/region_split={split}/part-0.parquet", of_split, without, row_group_rows=3)
    fine = tmp_path / "fine.yaml"
    shipped = Path(__file__).parents[3] / "conf/imports/manifest.yaml"
    fine.write_text(shipped.read_text().replace("65536", "2").replace("200000", "5"))
    do_import(tmp_path / "many", tmp_path / "many_out", rules=str(fine))
    first, second = (RunDir(Location.of(tmp_path / n)).phase4a / "_stage.json" for n in ("one", "many_out"))
    assert first.read_json()["digests"]["manifest"] == second.read_json()["digests"]["manifest"]
    splits = {t["task_id"]: t["region_split"] for t in tasks_of(tmp_path / "many_out").values()}
    assert splits == {r["task_id"]: r["region_split"] for r in rows}


def test_rows_that_are_no_task_are_rejects_with_a_reason(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    damage = [("ra", None), ("dec", 91.0), ("brickname", "brick-7"), ("bandset", "gri"), ("stamp_size", None)]
    damage += [("lens_model", "SPEMD"), ("lens_model", "CONTROL"), ("task_id", None), ("is_control", 2)]
    positives = [r for r in rows if not r["is_control"]]
    for (column, value), row in zip(damage, positives, strict=False):
        row[column] = value
    report = do_import(write(tmp_path / "m.parquet", rows, MANIFEST_COLUMNS), tmp_path / "out")
    rejects = pq.read_table(tmp_path / "out/phase4a/rejects").to_pylist()
    assert len(rejects) == len(damage)
    assert len(tasks_of(tmp_path / "out")) == len(rows) - len(damage)
    counts = {"TASK": 21, "BRICKNAME_INVALID": 1, "POSITION_INVALID": 2, "TASK_UNUSABLE": 6}
    assert report["rows_by_status"] == counts
    message = {r["parent_row"]: r["message"] for r in rejects}
    at = rows.index(positives[3])
    assert message[at] == f"task {positives[3]['task_id']}: bandset gri"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda rows: [*rows, rows[4]], "1 row(s) repeat a task_id"),
        (lambda rows: [{**r, "ab_zp_nmgy": 25.0} for r in rows], "not nanomaggies"),
        (lambda rows: [{**r, "brickname": "?"} for r in rows], "none of its rows is a task"),
        (lambda rows: [], "without a row"),
    ],
)
def test_unusable_manifest(rows: list[dict[str, Any]], tmp_path: Path, damage: Any, says: str) -> None:
    source = write(tmp_path / "m.parquet", damage(rows), MANIFEST_COLUMNS)
    with pytest.raises(StageError) as caught:
        do_import(source, tmp_path / "out")
    assert says in str(caught.value)
    assert not (tmp_path / "out/phase4a/_SUCCESS").exists()


def test_wrong_layouts_are_told_in_one_line(
    rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = write(tmp_path / "s.parquet", rows, [c for c in MANIFEST_COLUMNS if c not in ("ebv", "src_gr")])
    text = write(tmp_path / "t.parquet", rows, MANIFEST_COLUMNS)
    table = pq.read_table(text)
    pq.write_table(table.set_column(8, "ra", table.column("ra").cast("string")), text)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(text.read_bytes()[:-500])
    for source, said in (
        (short, "2 required column(s) are absent: ebv, src_gr"),
        (text, "column ra is string, expected double"),
        (cut, "not a readable Parquet file"),
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "empty", "no Parquet file"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert main(["import", str(source), "--out", str(tmp_path / "out")]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert said in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ("assign: {z_lens: 0.5}, draw_keyed: []", "z_lens, which is no column"),
        ("assign: {z_l: high}, draw_keyed: []", "'high' is no double"),
        ("assign: {}, draw_keyed: [z_s]", "draw_keyed knows src_flip, template_u"),
        ("assign: {template_u: 0.5}, draw_keyed: [template_u]", "either assigned or drawn"),
        ("assign: {}, draw_keyed: [], fill: all", "unknown key"),
    ],
)
def test_rules_are_checked(rows: list[dict[str, Any]], tmp_path: Path, rules: str, says: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(f"{{name: x, batch_rows: 9, spill_rows: 9, {rules}}}")
    source = write(tmp_path / "m.parquet", rows, MANIFEST_COLUMNS)
    with pytest.raises((StageError, ConfigError), match=says):
        do_import(source, tmp_path / "out", rules=str(file))


def test_second_import_does_nothing_and_another_source_is_refused(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    source = write(tmp_path / "m.parquet", rows, MANIFEST_COLUMNS)
    first = do_import(source, tmp_path / "out")
    written = (tmp_path / "out/phase4a/_stage.json").stat().st_mtime_ns
    assert do_import(source, tmp_path / "out") == first
    assert (tmp_path / "out/phase4a/_stage.json").stat().st_mtime_ns == written
    other = write(tmp_path / "n.parquet", rows[:9], MANIFEST_COLUMNS)
    with pytest.raises(StageError, match="made otherwise"):
        do_import(other, tmp_path / "out")
    assert do_import(other, tmp_path / "out", force=True)["rows_by_status"] == {"TASK": 9}
