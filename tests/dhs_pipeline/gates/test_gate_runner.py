"""``dhs gates``: what it writes and prints, its exit code, and what it says of wrong input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from fake_pairs import BANDS, SIZE, Row, drop_columns, limits, make_rows, write_file, write_set

from dhs_gen.stamps import encode_stamp
from dhs_pipeline.cli import main
from dhs_pipeline.digest import digest_path
from dhs_pipeline.gates import runner
from dhs_pipeline.gates.data import GateData
from dhs_pipeline.gates.page import COLOURS
from dhs_pipeline.gates.plots import curves_png, forest_png, numbers_in
from dhs_pipeline.gates.real import read_real
from dhs_pipeline.gates.result import CannotRun, Curve, Figure, GateResult, Offender, Outcome, judge, key_figure
from dhs_pipeline.gates.runner import GATES, Gate, exit_code, plain, run_gate, run_gates
from dhs_pipeline.storage import Location, StorageError

SMALL = ("resamples=100", "max_standard_error=0.05")
QUICK = "pairs_complete,split_disjointness,duplicate_pixels"


@pytest.fixture
def clean(tmp_path: Path) -> Location:
    return write_set(tmp_path / "phase4c" / "fake", make_rows(40, 2, negatives=True))


@pytest.fixture
def leaky(tmp_path: Path) -> Location:
    rows = make_rows(40, 2, negatives=True)
    rows[1] |= {"artifact_cosmic_band": "<b>g</b>"}
    rows[3] |= {"status": "RENDER_NOT_FINITE", "cutout_ok": 0, "stamp_npz": None}
    return write_set(tmp_path / "phase4c" / "leaky", rows)


def overrides() -> list[str]:
    return [part for key in SMALL for part in ("--set", key)]


def test_a_clean_set_ends_with_0(clean: Location, capsys: pytest.CaptureFixture[str]) -> None:
    before = digest_path(clean)
    assert main(["gates", str(clean), *overrides(), "--only", ",".join(g.name for g in GATES[:5])]) == 0
    assert digest_path(clean) == before  # what the gates write is no data
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all("PASS" in line for line in lines[1:])
    found = json.loads((clean / "_gates/gates.json").read_bytes())
    assert found["passed"] is True
    assert found["rows"] == 240
    assert found["rows_by_kind"] == {"control": 80, "negative": 80, "positive": 80}
    assert found["rows_by_status"] == {"OK": 240}
    assert found["config"]["resamples"] == 100
    assert found["pixscale_arcsec"] == 0.262
    assert [r["gate"] for r in found["results"]] == [g.name for g in GATES[:5]]
    page = (clean / "_gates/gates.html").read_bytes().decode()
    assert "All 5 gates passed" in page
    assert "<img" in page  # the figures with intervals


def test_a_leak_ends_with_1(leaky: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "elsewhere"
    assert main(["gates", str(leaky), "--only", "pairs_complete,class_balance", "--out", str(out)]) == 1
    assert "pairs on one host that failed on one side only is 1" in capsys.readouterr().out
    page = (out / "gates.html").read_text()
    assert "2 of 2 gates did not pass" in page
    assert "no stamp of the control: RENDER_NOT_FINITE" not in page  # it is the positive of the second pair that failed
    assert "no stamp of the positive: RENDER_NOT_FINITE" in page
    assert page.count("<span>light</span>") == 1  # of the pair whose artifacts differ
    assert "<b>g</b>" not in page
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)


def test_a_gate_that_does_not_run_is_a_failure(clean: Location, capsys: pytest.CaptureFixture[str]) -> None:
    drop_columns(clean, "pair_id")
    assert main(["gates", str(clean), "--only", "pairs_complete,metadata_only"]) == 1
    printed = capsys.readouterr().out
    assert "pairs_complete: the set is not paired: it has no column pair_id" in printed
    assert "metadata_only: positives against controls" in printed
    assert "have no power" in printed
    outcomes = [r["outcome"] for r in json.loads((clean / "_gates/gates.json").read_bytes())["results"]]
    assert outcomes == ["NOT_RUN", "NOT_RUN"]


def test_wrong_input_ends_with_2_and_one_line(
    clean: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*argv: str) -> str:
        assert main(["gates", *argv]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        return lines[0]

    assert "no Parquet file here" in said(str(tmp_path / "nothing"))
    assert "no gate is called 'core'; there are pairs_complete" in said(str(clean), "--only", "core")
    assert "nothing is called 'strict'" in said(str(clean), "--config", "strict")
    assert "unknown key" in said(str(clean), "--set", "fold=3")
    assert "folds" in said(str(clean), "--set", "folds=1")
    assert "no stamps of real lenses" in said(str(clean), "--real", str(tmp_path / "no.fits"))
    rows = make_rows(2, 1)
    rows[0] |= {"stamp_npz": b"no stamp"}
    assert "row 0: not a stamp" in said(str(write_set(tmp_path / "damaged", rows, files=1)))
    assert not (clean / "_gates/gates.json").exists()


def test_results_do_not_depend_on_the_schedule(clean: Location) -> None:
    config = limits(*SMALL)
    first, again = (run_gates(clean, config, only=["duplicate_pixels", "metadata_only"]) for _ in range(2))
    assert first == again


def entry(name: str, function, monkeypatch: pytest.MonkeyPatch, **needs: bool) -> Gate:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(runner, "load_function", lambda where: function)
    return Gate(name, "made:up", **needs)


def empty() -> GateData:
    from dhs_pipeline.gates.sample import empty_sample
    from dhs_pipeline.schemas import STAMPS

    rows = STAMPS.empty_table()
    return GateData(rows, empty_sample(rows), "", 0.262, None, "the run is not here", None, "it is not paired")


def test_what_a_gate_may_end_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(data: GateData, config: object) -> GateResult:
        raise CannotRun("no invvar")

    def defect(data: GateData, config: object) -> GateResult:
        raise ValueError("operands could not be broadcast")

    def other_defect(data: GateData, config: object) -> GateResult:
        raise KeyError("x")

    config = limits()
    found = run_gate(entry("g", cannot, monkeypatch), empty(), config)
    assert (found.gate, found.outcome, found.message) == ("g", Outcome.NOT_RUN, "no invvar")
    # A ValueError would end as wrong input, with exit code 2 and without its traceback.
    with pytest.raises(RuntimeError, match="gate g: operands"):
        run_gate(entry("g", defect, monkeypatch), empty(), config)
    with pytest.raises(KeyError):
        run_gate(entry("g", other_defect, monkeypatch), empty(), config)
    needs_pixels = run_gate(entry("g", defect, monkeypatch, needs_sample=True), empty(), config)
    assert needs_pixels.message == "no pixels of pairs: it is not paired"
    needs_run = run_gate(entry("g", defect, monkeypatch, needs_rerender=True), empty(), config)
    assert needs_run.message == "nothing can be rendered again: the run is not here"


def test_exit_codes() -> None:
    results = [GateResult("a", Outcome.PASS, ""), GateResult("b", Outcome.PASS, "")]
    assert exit_code(results) == 0
    assert exit_code([*results, GateResult("c", Outcome.NOT_RUN, "")]) == 1
    assert exit_code([*results, GateResult("c", Outcome.FAIL, "")]) == 1
    assert exit_code([]) == 1


def test_every_gate_of_the_table_is_there() -> None:
    assert len({g.name for g in GATES}) == len(GATES)
    for gate in GATES:
        assert callable(gate.load())


def test_the_key_figure() -> None:
    kept = Figure("kept", 0.5, 0.4, 0.6, "at most 0.7", True, 1, 1)
    plain_one = Figure("reported", 1.0, None, None, "", True, 1, 1)
    out = Figure("broken", 1.0, None, None, "at most 0", False, 1, 1)
    assert key_figure(judge("g", [plain_one, kept, out], "")) is out
    assert key_figure(judge("g", [plain_one, kept], "")) is kept
    assert key_figure(judge("g", [plain_one], "")) is plain_one
    assert key_figure(GateResult("g", Outcome.NOT_RUN, "")) is None


def test_numbers_are_plain_in_json() -> None:
    value = {"a": np.float32(0.5), "b": (np.int64(3), float("nan")), "c": np.bool_(True), "d": Outcome.FAIL, "e": None}
    assert plain(value) == {"a": 0.5, "b": [3, None], "c": True, "d": "FAIL", "e": None}


def test_pictures_of_figures() -> None:
    figures = [
        Figure("linear: AUC", 0.6, 0.55, 0.65, "at most 0.55", False, 9, 3),
        Figure("slope", 0.1, 0.0, 0.2, "at most 0.25", True, 9, 3),
    ]
    curve = Curve("g", "radius (pix)", "AUC", (0.0, 1.0), (0.5, 0.6), (0.4, 0.5), (0.6, 0.7))
    for png in (forest_png(figures), curves_png([curve])):
        assert png is not None
        assert png.startswith(b"\x89PNG")
    assert forest_png([Figure("exact", 0.0, None, None, "at most 0", True, 1, 1)]) is None
    assert numbers_in("at most 0.517") == [0.517]
    assert numbers_in("0.9 to 1.1") == [0.9, 1.1]
    assert set(COLOURS) == set(Outcome)
    assert Offender("a", "b").task_id == "a"


def lens(side: int, bands: str = "grz") -> bytes:
    pixels = np.arange(side * side, dtype=np.float32).reshape(side, side)
    return encode_stamp({f"image_{b}": pixels + 1000 * "grz".index(b) for b in bands})


def test_real_lenses_are_cut_to_the_stamps_of_the_set(tmp_path: Path) -> None:
    from astropy.io import fits

    (tmp_path / "a.npz").write_bytes(lens(SIZE + 4))
    row: Row = make_rows(1, 1)[0]
    write_file(tmp_path / "b.parquet", [row])
    cube = np.arange(3 * 14 * 14, dtype=np.float32).reshape(3, 14, 14)
    scale_deg = 0.262 / 3600
    cards = {"BANDS": "grz", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": -scale_deg, "CD2_2": scale_deg}
    fits.writeto(tmp_path / "c.fits", cube, fits.Header(cards))
    found = read_real([Location.of(tmp_path)], BANDS, SIZE, 0.262)
    assert found.shape == (3, 3, SIZE, SIZE)
    assert found[0, 0, 0, 0] == 2 * (SIZE + 4) + 2
    assert found[0, 2, 0, 0] == 2000 + 2 * (SIZE + 4) + 2
    np.testing.assert_array_equal(found[2], cube[:, 1:13, 1:13])
    red = read_real([Location.of(tmp_path / "a.npz")], "r", SIZE, 0.262)
    np.testing.assert_array_equal(red[0, 0], found[0, 1])
    with pytest.raises(ValueError, match=r"pixels of 0\.262 arcsec, the set's have 0\.2"):
        read_real([Location.of(tmp_path / "c.fits")], BANDS, SIZE, 0.2)
    with pytest.raises(ValueError, match="the set's stamps have 64"):
        read_real([Location.of(tmp_path / "a.npz")], BANDS, 64, 0.262)
    np.savez(tmp_path / "f.npz", cutout=np.moveaxis(cube, 0, 2), meta_ra=np.array(1.0))
    np.testing.assert_array_equal(read_real([Location.of(tmp_path / "f.npz")], BANDS, SIZE, 0.262), found[2:])
    np.savez(tmp_path / "g.npz", cutout=cube[:2])
    with pytest.raises(ValueError, match=r"g\.npz: cutout must be \(H, W, 3\), got \(2, 14, 14\)"):
        read_real([Location.of(tmp_path / "g.npz")], BANDS, SIZE, 0.262)
    (tmp_path / "d.npz").write_bytes(lens(SIZE, "gr"))
    with pytest.raises(ValueError, match="no band z"):
        read_real([Location.of(tmp_path / "d.npz")], BANDS, SIZE, 0.262)
    with pytest.raises(StorageError):
        read_real([Location.of(tmp_path / "e.npz")], BANDS, SIZE, 0.262)
