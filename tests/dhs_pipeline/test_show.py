"""``dhs show``: the right task, its truth, and the same stamp again."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread
from small_run import NASTY, SETTINGS, make_run

from dhs_pipeline import show
from dhs_pipeline.config import RunConfig, load_run_config
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import BANDS, STAMPS
from dhs_pipeline.show import show_task
from dhs_pipeline.show_groups import GROUPS
from dhs_pipeline.sources import Banks
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location

Made = tuple[RunDir, RunConfig]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_run(tmp_path_factory.mktemp("show") / "run", hosts={"a": None, "bb": None, "ccc": NASTY})


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests do not look at the picture, which takes a second to draw."""
    monkeypatch.setattr(show, "_picture", lambda *_: b"a picture")


def copy_run(run: RunDir, folder: Path) -> RunDir:
    shutil.copytree(run.where.uri, folder / "run")
    return RunDir(Location.of(folder / "run"))


def tasks(run: RunDir) -> list[dict]:
    return [row for file in run.manifest.files(".parquet") for row in file.read_table().to_pylist()]


def some_task(run: RunDir, *, host_id: str = "a", is_control: int = 0) -> str:
    return next(t["task_id"] for t in tasks(run) if t["host_id"] == host_id and t["is_control"] == is_control)


def call(made: Made, task_id: str, generation: str | None = None, png: Path | None = None) -> None:
    show_task(*made, task_id, generation=generation, banks=Banks(), png=png)


def test_truth_and_picture(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = made
    task = next(t for t in tasks(run) if t["host_id"] == "bb" and not t["is_control"])
    call(made, task["task_id"][:10], png=tmp_path / "picture.png")
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith("  ") and line.split()}
    assert lines["task_id"] == [task["task_id"]]
    assert lines["theta_e_arcsec"] == [f"{task['theta_e_arcsec']:.7g}", "arcsec"]
    assert lines["gen_variant"] == ["gen7"]
    assert lines["arc_snr"][0] != "—"
    assert lines["unlensed_flux_nmgy"][-1] == "nanomaggy"
    assert "identical: the stored stamp, byte for byte" in out
    picture = imread(io.BytesIO((tmp_path / "picture.png").read_bytes()), format="png")
    assert min(picture.shape[:2]) > 500


@pytest.mark.usefixtures("no_picture")
def test_default_picture_lies_in_the_report_folder(made: Made) -> None:
    run, _ = made
    task_id = some_task(run)
    call(made, task_id)
    assert (run.report / f"{task_id}.png").size()


@pytest.mark.usefixtures("no_picture")
def test_every_task_comes_out_as_stored(made: Made, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run, _ = made
    ids = [some_task(run), some_task(run, is_control=1), some_task(run, host_id="bb")]
    for generation in ("gen7", "control"):
        for task_id in ids:
            call(made, task_id, generation, tmp_path / "x.png")
    assert capsys.readouterr().out.count("byte for byte") == 2 * len(ids)


def test_failed_row_has_its_message_and_no_picture(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = made
    call(made, some_task(run, host_id="ccc"), png=tmp_path / "none.png")
    out = capsys.readouterr().out
    assert f"no picture: FILE_MISSING: {NASTY}" in out
    assert "as stored: the same status, FILE_MISSING" in out
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("abc", "at least 6 characters"),
        ("zzzzzz", "no task id begins with 'zzzzzz'"),
    ],
)
def test_unknown_task(made: Made, wanted: str, message: str) -> None:
    with pytest.raises(StageError, match=message):
        call(made, wanted)


def test_ambiguous_prefix(made: Made, tmp_path: Path) -> None:
    run, config = made
    copy = copy_run(run, tmp_path)
    file = copy.manifest.files(".parquet")[0]
    table = file.read_table()
    ids = [f"abcdef{i:026d}" for i in range(table.num_rows)]
    at = table.schema.get_field_index("task_id")
    pq.write_table(table.set_column(at, table.schema.field(at), [ids]), file.uri)
    with pytest.raises(StageError, match=f"{table.num_rows} task ids begin with 'abcdef'"):
        call((copy, config), "abcdef")
    with pytest.raises(StageError, match="at that place"):
        call((copy, config), ids[0])


def test_unknown_generation(made: Made) -> None:
    with pytest.raises(StageError, match="'gen5' was never rendered here; there are: control, gen7"):
        call(made, some_task(made[0]), "gen5")


@pytest.mark.usefixtures("no_picture")
def test_stored_configuration_counts_not_todays(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = made
    other = load_run_config("demo", [*SETTINGS, "stamp.layers=[]", "survey.psf_kernel_size_pix=31"])
    call((run, other), some_task(run), png=tmp_path / "x.png")
    assert "byte for byte" in capsys.readouterr().out


@pytest.mark.usefixtures("no_picture")
def test_a_difference_is_told(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, config = made
    copy = copy_run(run, tmp_path)
    plan = Path((copy.phase4c("gen7") / "_plan.json").uri)
    tree = json.loads(plan.read_text())
    tree["config"]["survey"]["electrons_per_nmgy_per_exposure"]["r"] *= 2
    tree["inputs"]["cutouts"] = "others"
    plan.write_text(json.dumps(tree))
    call((copy, config), some_task(run), png=tmp_path / "x.png")
    assert "DIFFERENT from the stored stamp (stored OK, now OK; made from another cutouts)" in capsys.readouterr().out


@pytest.mark.usefixtures("no_picture")
def test_task_that_is_not_stored_yet(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, config = made
    copy = copy_run(run, tmp_path)
    (copy.phase4c("gen7") / "stamps").delete()
    call((copy, config), some_task(run), png=tmp_path / "x.png")
    assert "not stored yet" in capsys.readouterr().out


def test_every_column_is_printed_once() -> None:
    named = [n.format(b=b) for names in GROUPS.values() for n in names for b in (BANDS if "{b}" in n else "-")]
    assert sorted(named) == sorted(set(STAMPS.names) - {"stamp_npz"})
