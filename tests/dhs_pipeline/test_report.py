"""The report: everything of the run is in the page, and nothing else."""

from __future__ import annotations

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread
from small_run import NASTY, SETTINGS, make_run

from dhs_pipeline.config import RunConfig
from dhs_pipeline.report import data, write_report
from dhs_pipeline.report.data import Sample, find_places, read_sample, read_stamps
from dhs_pipeline.report.pictures import colour_image, data_uri, encode_png
from dhs_pipeline.report.selection import random_lenses, snr_quantiles
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location

HOSTS = {"a": None, "bb": None, "ccc": None, "dddd": NASTY}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, RunConfig]:
    return make_run(tmp_path_factory.mktemp("report") / "run", hosts=HOSTS)


@pytest.fixture(scope="module")
def page(made: tuple[RunDir, RunConfig]) -> str:
    return write_report(made[0]).read_bytes().decode()


def whole_sample(run: RunDir) -> Sample:
    return read_sample(run, "gen7", max_rows=1_000_000)


def copy_run(run: RunDir, folder: Path) -> RunDir:
    shutil.copytree(run.where.uri, folder / "run")
    return RunDir(Location.of(folder / "run"))


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests do not look at the distributions, which take a second to draw."""
    monkeypatch.setattr("dhs_pipeline.report.page.distributions_png", lambda *_: encode_png(ONE_PIXEL))


ONE_PIXEL = np.zeros((1, 1, 3), np.uint8)


class Reader(HTMLParser):
    """Tags, addresses and text of a page; checks that tags close in order."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.labels: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]
        self.labels += [v or "" for k, v in attrs if k == "alt"]
        if tag not in self.VOID:
            self._open.append(tag)
        self.text += " "

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def images(html: str) -> list[np.ndarray]:
    uris = [a for a in Reader(html).addresses if a.startswith("data:image/png;base64,")]
    return [imread(io.BytesIO(base64.b64decode(uri.partition(",")[2])), format="png") for uri in uris]


def test_page_holds_nothing_from_outside(page: str) -> None:
    reader = Reader(page)
    assert reader.addresses
    assert all(a.startswith("data:image/png;base64,") for a in reader.addresses)
    assert "://" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert not {"script", "link", "iframe", "object", "base"} & set(reader.tags)


def test_images_decode(page: str) -> None:
    *stamps, plots = images(page)
    assert plots.shape[0] > 500
    assert {s.shape[:2] for s in stamps} == {(64, 64)}
    assert all(s.std() > 0 for s in stamps)


def test_numbers_of_every_stage_appear(made: tuple[RunDir, RunConfig], page: str) -> None:
    run, config = made
    text = " ".join(Reader(page).text.replace("\u202f", "").replace("\xa0", " ").split())
    for label, folder in (
        ("4a manifest", run.phase4a),
        ("4b cutouts", run.phase4b),
        ("4c gen7", run.phase4c("gen7")),
        ("4c control", run.phase4c("control")),
        ("4p5 gen7", run.phase4p5("gen7")),
    ):
        summary = (folder / "_stage.json").read_json()
        rows_in = summary.get("parent_rows", summary["rows"])
        assert f"{label} {rows_in} {summary['rows']} " in text
        assert f"{summary['seconds']:.1f}" in text
        assert all(digest in text for digest in summary["digests"].values())
        assert all(value in text for value in summary["inputs"].values())
    compacted = (run.phase4p5("gen7") / "_stage.json").read_json()
    assert compacted["rows_digest"] in text
    for split, numbers in compacted["split_fractions"].items():
        assert f"{split} {100 * numbers['configured']:.1f} % {100 * numbers['achieved']:.1f} %" in text
    assert "FLUX_NOT_FINITE 2" in text
    assert "moffat_beta" in text
    assert f"experiment_id: {config.experiment_id}" in text
    assert "Distributions" in text


def test_messages_are_escaped(page: str) -> None:
    reader = Reader(page)
    assert NASTY in reader.text
    assert "flux_r <b>nan</b>" in reader.text
    assert "<script" not in page


def test_each_positive_stands_beside_its_control_and_its_arc(made: tuple[RunDir, RunConfig], page: str) -> None:
    run, _ = made
    sample = whole_sample(run)
    first = sample.row(random_lenses(sample)[0].index)
    shown = [label for label in Reader(page).labels if first["task_id"][:8] in label]
    assert [label.partition(",")[0] for label in shown[:3]] == ["stamp", "control", "arc only"]
    assert f"θ_E {first['theta_e_arcsec']:.2f}″" in page
    assert f"μ {first['magnification']:.1f}" in page


def test_same_run_gives_the_same_bytes(made: tuple[RunDir, RunConfig], page: str) -> None:
    run, _ = made
    first = page.encode()
    assert write_report(run).read_bytes() == first
    summary = (run.report / "_stage.json").read_json()
    assert (run.report / "_SUCCESS").exists()
    assert summary["stage"] == "report"
    assert summary["bytes"] == len(first)


def test_choice_depends_on_the_tasks_alone(made: tuple[RunDir, RunConfig], tmp_path: Path) -> None:
    """The same rows in one file give the same stamps."""
    run, _ = made
    moved = copy_run(run, tmp_path)
    metrics = moved.phase4c("gen7") / "metrics"
    tables = [f.read_table() for f in metrics.files(".parquet")]
    metrics.delete()
    Path(metrics.uri).mkdir()
    pq.write_table(pa.concat_tables(tables[::-1]), f"{metrics.uri}/part-all.parquet")

    def chosen(of: RunDir) -> list[str]:
        sample = whole_sample(of)
        picks = [*random_lenses(sample), *snr_quantiles(sample, "r")]
        return [sample.row(p.index)["task_id"] for p in picks]

    assert chosen(moved) == chosen(run)


def test_quantiles_are_the_brightest_of_equal_groups(made: tuple[RunDir, RunConfig]) -> None:
    sample = whole_sample(made[0])
    every = np.sort(sample.values("arc_snr_r", sample.lensed))
    shown = [sample.row(p.index)["arc_snr_r"] for p in snr_quantiles(sample, "r", 4)]
    assert shown == [every[every.size * k // 4 - 1] for k in (1, 2, 3, 4)]


@pytest.mark.usefixtures("no_plots")
def test_large_runs_are_read_in_part_and_the_page_says_so(
    made: tuple[RunDir, RunConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = copy_run(made[0], tmp_path)
    part, whole = read_sample(run, "gen7", max_rows=10), whole_sample(run)
    assert whole.is_whole
    assert not part.is_whole
    assert 0 < part.table.num_rows < whole.table.num_rows
    assert part.places == read_sample(run, "gen7", max_rows=10).places
    monkeypatch.setattr(data, "MAX_ROWS", 10)
    html = write_report(run).read_bytes().decode()
    assert f"from {part.files_read} of {part.files} files" in html


def test_stamps_are_found_by_place_and_checked(made: tuple[RunDir, RunConfig]) -> None:
    run, _ = made
    sample = whole_sample(run)
    stamps = run.phase4c("gen7") / "stamps"
    wanted = {sample.row(i)["task_id"]: sample.places[i] for i in range(5)}
    expected = {
        row["task_id"]: row["stamp_npz"]
        for file in stamps.files(".parquet")
        for row in file.read_table(["task_id", "stamp_npz"]).to_pylist()
    }
    assert read_stamps(stamps, wanted) == {task_id: expected[task_id] for task_id in wanted}
    with pytest.raises(StageError, match="not nobody as in the metrics"):
        read_stamps(stamps, {"nobody": sample.places[0]})
    places = find_places(run.phase4c("control") / "metrics", wanted)
    assert places == {t: p for t, p in wanted.items() if expected[t] is not None}


@pytest.mark.usefixtures("no_plots")
def test_without_a_control_generation(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path / "run", hosts={"a": None}, generations=("gen7",))
    html = write_report(run).read_bytes().decode()
    labels = {label.partition(",")[0] for label in Reader(html).labels}
    assert {"stamp", "arc only"} <= labels
    assert "control" not in labels
    assert "no generation “control”" in html


def test_a_generation_whose_every_row_failed(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path / "run", hosts={"a": "gone", "b": "gone too"}, generations=("gen7", "control"))
    html = write_report(run).read_bytes().decode()
    assert images(html) == []
    assert html.count("No row of this generation has a stamp.") == 2
    assert "FILE_MISSING" in html
    assert "gone too" in html


@pytest.mark.usefixtures("no_plots")
def test_one_band_and_no_layers(tmp_path: Path) -> None:
    settings = (*SETTINGS, "stamp.bandset=g", "stamp.layers=[]")
    run, _ = make_run(tmp_path / "run", hosts={"a": None}, generations=("gen7",), settings=settings)
    html = write_report(run).read_bytes().decode()
    assert "S/N(g)" in html
    assert "without their arc layer" in html
    *stamps, _ = images(html)
    assert all(np.array_equal(s[..., 0], s[..., 1]) for s in stamps)


def test_nothing_rendered_yet(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path / "run", hosts={"a": None}, generations=())
    html = write_report(run).read_bytes().decode()
    assert "4a manifest" in html
    assert images(html) == []


def test_before_4a_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="4a has not finished"):
        write_report(RunDir(Location.of(tmp_path)))


@pytest.mark.usefixtures("no_plots")
def test_simulated_pixels_are_called_so(made: tuple[RunDir, RunConfig], page: str, tmp_path: Path) -> None:
    run, _ = made
    assert "Host pixels: DESI Legacy Imaging Surveys" in page
    assert "COSMOS" not in Reader(page).text.partition("Inputs and configuration")[2]
    moved = copy_run(run, tmp_path)
    Path(moved.where.uri, "simulated").mkdir()
    html = write_report(moved).read_bytes().decode()
    assert "Host pixels are simulated" in html
    assert "Host pixels: DESI" not in html


def test_colours_keep_hue_and_orientation() -> None:
    zero = np.zeros((4, 4), np.float32)
    star = zero.copy()
    star[0, 0] = 0.2
    red = colour_image({"g": zero, "r": zero, "z": star})
    assert red.shape == (4, 4, 3)
    assert red[3, 0].argmax() == 0  # the first row is South, so it is at the bottom
    assert red[3, 0, 0] > 3 * red[3, 0, 2]
    blue = colour_image({"g": star, "r": zero, "z": zero})
    assert blue[3, 0].argmax() == 2
    with_hole = star.copy()
    with_hole[1, 1] = np.nan
    assert colour_image({"r": with_hole}).dtype == np.uint8


def test_png_round_trip() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    png = encode_png(pixels)
    assert np.array_equal(np.round(imread(io.BytesIO(png))[..., :3] * 255).astype(np.uint8), pixels)
    assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", data_uri(png))


def test_what_the_gates_found_is_part_of_the_page(
    made: tuple[RunDir, RunConfig], tmp_path: Path, no_plots: None
) -> None:
    run = copy_run(made[0], tmp_path)
    gates = run.phase4c("gen7") / "_gates"
    (gates / "section.html").write_bytes(b"<h2>Gates: phase4c/gen7</h2>")
    assert "<h2>Gates" not in write_report(run).read_bytes().decode()  # half a result is none
    (gates / "gates.json").write_json({"passed": True})
    assert "<h2>Gates: phase4c/gen7</h2>" in write_report(run).read_bytes().decode()
