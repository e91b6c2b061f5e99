"""From a run's 4a over HTTP to 4b: the maps that it reads, no more, and hosts that know why a map is not there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import bad_server as bad
import pytest
from astropy.table import Table
from bad_server import BadServer
from fetch_cases import BRICK, IMAGE, ONE_BAND, OTHER, SURVEY, fetch, files_below, serve, statuses_of

from dhs_gen.status import Status
from dhs_pipeline.bricks import HostPosition, cutout_table, read_brick_cutouts
from dhs_pipeline.cli import main
from dhs_pipeline.config import RunConfig, Survey
from dhs_pipeline.digest import digest_table
from dhs_pipeline.fetch import absent
from dhs_pipeline.fetch.files import files_of
from dhs_pipeline.manifest.hosts import normalise
from dhs_pipeline.manifest.parent import map_columns, plan_parent, read_chunk
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import HOSTS
from dhs_pipeline.simulate import SimulatedSurvey
from dhs_pipeline.storage import Location, write_parquet
from tests_support import REPO

Row = dict[str, object]


def cutouts_of(data: Path, run: RunDir, survey: Survey) -> list[Row]:
    """What 4b does, brick by brick."""
    hosts: dict[str, list[HostPosition]] = {}
    for part in run.hosts.files(".parquet"):
        for h in part.read_table(["host_id", "brickname", "ra_deg", "dec_deg"]).to_pylist():
            hosts.setdefault(h["brickname"], []).append(HostPosition(**h))
    return [
        row
        for brick, positions in sorted(hosts.items())
        for row in read_brick_cutouts(Location.of(data), brick, positions, survey)
    ]


@pytest.fixture
def finished_4a(simulated: SimulatedSurvey, small_config: RunConfig, tmp_path: Path) -> RunDir:
    """The hosts of the demo bricks, and two on a brick that no release has, as 4a leaves them."""
    parent = Location.of(simulated.parent_path)
    chunks, available = plan_parent(parent)
    columns = map_columns(parent, available, small_config.parent)
    rows = [r for c in chunks for r in normalise(read_chunk(c, columns), columns, small_config).to_pylist()]
    hosts = [{name: row[name] for name in HOSTS.names} for row in rows if row["reason"] is None]
    hosts += [host | {"host_id": f"far-{i}", "brickname": "1234p100"} for i, host in enumerate(hosts[:2])]
    run = RunDir(Location.of(tmp_path / "run"))
    run.start(small_config, force=False)
    write_parquet(HOSTS.empty_table().from_pylist(hosts, schema=HOSTS), run.hosts / "part-0.parquet")
    (run.phase4a / "_stage.json").write_json({"digests": {"hosts": "x"}})
    (run.phase4a / "_SUCCESS").write_bytes(b"")
    return run


def command(server: BadServer, *words: str) -> int:
    changes = {"base_url": server.url, "start_jitter_s": 0, "requests_per_second": 1000, "backoff_first_s": 0.001}
    settings = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    return main(["bricks", "fetch", *words, *settings])


def test_run_fetched_over_http_gives_the_same_cutouts(
    server: BadServer,
    simulated: SimulatedSurvey,
    small_config: RunConfig,
    finished_4a: RunDir,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    survey = small_config.survey
    original = {str(p.relative_to(simulated.data_dir)): p.read_bytes() for p in simulated.data_dir.rglob("*.fits.fz")}
    server.files = original | {"coadd/030/0301m050/legacysurvey-0301m050-ccds.fits": b"not wanted"}
    lost = [p for p in original if "0301m050-image-g" in p or "0301m050-maskbits" in p]
    refused = next(p for p in original if "2102p025-nexp-r" in p)
    for path in lost:
        del server.files[path]
    server.plays[refused] = [bad.status(403)] * 2
    data = tmp_path / "data"

    assert command(server, "--out", finished_4a.where.uri, "--data", str(data)) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["files_by_status"] == {"FAILED": 1, "NOT_FOUND": 15, "OK": 23}
    assert "bricks fetch" in told.err  # the bar
    assert f"dhs: {refused}: FAILED: HTTP 403" in told.err
    rows = cutouts_of(data, finished_4a, survey)
    by_brick = {b: [r for r in rows if r["brickname"] == b] for b in ("0301m050", "1234p100", "2102p025")}
    assert {r["status"] for r in by_brick["0301m050"]} == {"NOT_IN_RELEASE"}
    assert {r["message"] for r in by_brick["0301m050"]} == {
        "legacysurvey-0301m050-image-g.fits.fz, legacysurvey-0301m050-maskbits.fits.fz: 404 at " + server.url
    }
    assert {r["status"] for r in by_brick["1234p100"]} == {"NOT_IN_RELEASE"}
    assert {r["status"] for r in by_brick["2102p025"]} == {"FILE_MISSING"}
    message = str(by_brick["2102p025"][0]["message"])
    assert "legacysurvey-2102p025-nexp-r.fits.fz: no such file; not fetched: " in message
    assert "FAILED (HTTP 403 Forbidden)" in message
    assert main(["bricks", "status", "--data", str(data)]) == 1
    assert json.loads(capsys.readouterr().out)["bricks_with_files_not_in_release"] == ["0301m050", "1234p100"]

    # The server has mended its ways: another run, and 4b says what it says of the original.
    server.plays.clear()
    server.files |= {path: original[path] for path in lost}
    assert command(server, "--out", finished_4a.where.uri, "--data", str(data), "--quiet", "--ask-again") == 0
    assert files_below(data) == original
    rows = cutouts_of(data, finished_4a, survey)
    expected = cutouts_of(simulated.data_dir, finished_4a, survey)
    statuses = Counter(str(r["status"]) for r in rows)
    assert statuses["OK"] > 40
    assert statuses.pop("NOT_IN_RELEASE") == 2
    there, there_too = ([r for r in table if r["brickname"] != "1234p100"] for table in (rows, expected))
    assert str(digest_table(cutout_table(there))) == str(digest_table(cutout_table(there_too)))
    assert main(["bricks", "status", "--data", str(data)]) == 0


def test_4b_needs_every_file_that_is_fetched(server: BadServer, tmp_path: Path) -> None:
    """One away, and its hosts have no cutout: none of them is fetched in vain."""
    serve(server, (BRICK,), SURVEY)
    fetch(server, tmp_path, survey=SURVEY)
    host = [HostPosition("a", BRICK, 59.1, -30.5)]
    files = files_of(BRICK, SURVEY)
    assert len(files) == 13
    for file in files:
        shutil.move(tmp_path / file.path, tmp_path / "away")
        row = read_brick_cutouts(Location.of(tmp_path), BRICK, host, SURVEY)[0]
        assert (row["status"], row["message"]) == ("FILE_MISSING", f"{Path(file.path).name}: no such file")
        shutil.move(tmp_path / "away", tmp_path / file.path)
    row = read_brick_cutouts(Location.of(tmp_path), BRICK, host, SURVEY)[0]
    assert "no usable WCS" in str(row["message"])  # nothing is missing: it reads on


def status_of(data: Path) -> tuple[object, object]:
    row = read_brick_cutouts(Location.of(data), BRICK, [HostPosition("a", BRICK, 59.1, -30.5)], ONE_BAND)[0]
    return row["status"], row["message"]


def test_whole_brick_failed(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    server.always = bad.status(500)
    fetch(server, tmp_path)
    status, message = status_of(tmp_path)
    assert status == "BRICK_NOT_FOUND"
    assert "none of the 5 maps of the brick is there; not fetched: " in str(message)
    assert "HTTP 500" in str(message)


def test_without_a_record_4b_says_what_it_said(tmp_path: Path) -> None:
    (tmp_path / "coadd").mkdir()
    assert status_of(tmp_path) == (
        "BRICK_NOT_FOUND",
        f"coadd/059/{BRICK}: none of the 5 maps of the brick is there",
    )


def test_record_is_read_once_and_again_when_it_has_grown(
    server: BadServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(server, (BRICK, OTHER))
    del server.files[IMAGE]
    fetch(server, tmp_path)
    read = []
    inner = absent.read_not_ok

    def counted(*args: object, **more: object) -> object:
        read.append(args)
        return inner(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(absent, "read_not_ok", counted)
    absent._read.cache_clear()
    assert [status_of(tmp_path)[0] for _ in range(5)] == ["NOT_IN_RELEASE"] * 5
    assert len(read) == 1
    fetch(server, tmp_path, (OTHER,))
    assert status_of(tmp_path)[0] == "NOT_IN_RELEASE"
    assert len(read) == 2
    shutil.rmtree(tmp_path / "_fetch")
    assert status_of(tmp_path)[0] == "FILE_MISSING"


@pytest.mark.slow
def test_reading_a_brick_imports_no_client_of_a_store_and_no_bar() -> None:
    """Workers of 4b on local files need none; urllib3 comes with the names of botocore's errors."""
    code = "import sys, dhs_pipeline.bricks; sys.exit(any(m in sys.modules for m in ('tqdm', 'boto3', 'requests')))"
    environment = {"PYTHONPATH": str(REPO / "pipeline"), "NUMBA_DISABLE_JIT": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_bricks_of_a_catalogue_or_a_list(server: BadServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serve(server, (BRICK, OTHER), SURVEY)
    catalogue = tmp_path / "parent.fits"
    Table({"BRICKNAME": [BRICK, OTHER, BRICK, "nowhere"], "RA": [1.0, 2, 3, 4]}).write(catalogue)
    data = tmp_path / "data"
    assert command(server, "--parent", str(catalogue), "--data", str(data), "--limit", "1", "--quiet") == 0
    assert "1 rows have no brick name" in capsys.readouterr().err
    assert set(statuses_of(data)) == {f.path for f in files_of(BRICK, SURVEY)}
    (tmp_path / "list.txt").write_text(f"{OTHER}\n")
    assert command(server, "--bricks", str(tmp_path / "list.txt"), "--data", str(data), "--quiet") == 0
    assert len(statuses_of(data)) == 26


def test_dry_run_asks_for_nothing(server: BadServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.txt").write_text(f"{BRICK}\n{OTHER}\n")
    words = ("--bricks", str(tmp_path / "list.txt"), "--data", str(tmp_path / "data"))
    assert command(server, *words, "--dry-run") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["bricks"], told["files"], told["files_to_fetch"]) == (2, 26, 26)
    assert told["expected_gigabytes"] == pytest.approx(2 * (3 * (13 + 11 + 0.4 + 0.4) + 0.45) / 1000, abs=1e-3)
    assert server.log == []
    assert not (tmp_path / "data").exists()
    serve(server, (BRICK,), SURVEY)
    assert command(server, *words, "--quiet") == 0
    capsys.readouterr()
    command(server, *words, "--dry-run")
    assert json.loads(capsys.readouterr().out)["files_settled_by_record"] == 26


def test_all_404_is_no_failure_but_is_remarked_on(
    server: BadServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text(BRICK)
    assert command(server, "--bricks", str(tmp_path / "list.txt"), "--data", str(tmp_path / "data"), "--quiet") == 0
    assert f"every file is 404 at {server.url}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--bricks", "{tmp}/none.txt"], "cannot read this list of bricks"),
        (["--bricks", "{tmp}/bad.txt"], "line 2: '12x' is no brick name"),
        (["--bricks", "{tmp}/empty.txt"], "no brick in this list"),
        (["--bricks", "{tmp}/ok.txt", "--shard", "2/2"], "i from 0 to n - 1"),
        (["--bricks", "{tmp}/ok.txt", "--jobs", "0"], "--jobs 0: must be at least 1"),
        (["--bricks", "{tmp}/ok.txt", "--config", "dr99"], "nothing is called 'dr99'"),
        (["--out", "{tmp}"], "not a run directory"),
        (["--parent", "{tmp}/ok.txt"], "not a readable Parquet file"),
    ],
)
def test_user_errors_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], found: str
) -> None:
    (tmp_path / "ok.txt").write_text(BRICK)
    (tmp_path / "bad.txt").write_text(f"{BRICK}\n12x\n")
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    given = [w.format(tmp=tmp_path) for w in words]
    assert main(["bricks", "fetch", *given, "--data", str(tmp_path / "data")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("dhs: ")
    assert told.count("\n") == 1
    assert found in told


def test_status_of_a_folder_without_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bricks", "status", "--data", str(tmp_path)]) == 2
    assert "no record of a fetch here" in capsys.readouterr().err


def test_status_is_one_of_the_house() -> None:
    assert Status("NOT_IN_RELEASE") is Status.NOT_IN_RELEASE
