"""dhs status: of a run that is going on, stopped, finished, damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from small_run import make_run

from dhs_pipeline.cli import main
from dhs_pipeline.commit import withdraw
from dhs_pipeline.monitor import STALLED_AFTER_S, Monitor, StageState, _rows_per_s, as_table
from dhs_pipeline.receipts import Receipt
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.stage import read_receipts
from dhs_pipeline.storage import Location

HOSTS = {"h0": None, "h1": "truncated", "h2": None}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made, _ = make_run(tmp_path / "run", hosts=HOSTS, generations=("control",))
    return made


def stop_in_the_middle(run: RunDir) -> int:
    """As if the driver had been killed: one receipt is missing, nothing is committed. Returns the rows it had."""
    stage = run.phase4c("control")
    withdraw(stage)
    last = (stage / "_receipts").files()[-1]
    rows = Receipt.from_json(last.read_json()).rows
    last.delete()
    return int(rows)


def test_a_finished_run(run: RunDir) -> None:
    stages = {s.name: s for s in Monitor(run).look()}
    assert list(stages) == ["4a", "4b", "4c control", "4p5 control"]
    assert {s.state for s in stages.values()} == {StageState.FINISHED}
    control = stages["4c control"]
    assert control.rows_done == control.rows == 30
    assert control.units_done == control.units == 5
    assert control.rows_by_status == {"FILE_MISSING": 10, "OK": 20}
    assert control.failed_rows == 10
    assert stages["4b"].failed_rows == 1
    text = as_table(list(stages.values()))
    assert "4c control: 10 FILE_MISSING" in text


def test_a_run_that_goes_on_and_one_that_was_killed(run: RunDir) -> None:
    missing = stop_in_the_middle(run)
    monitor = Monitor(run)
    control = monitor.look()[2]
    assert control.state is StageState.RUNNING
    assert (control.units_done, control.units) == (4, 5)
    assert (control.rows_done, control.rows) == (30 - missing, 30)
    last = max(r.effort.finished_unix_s for r in read_receipts(run.phase4c("control")))
    stopped = monitor.look(last + STALLED_AFTER_S + 1)[2]
    assert stopped.state is StageState.STOPPED
    assert "the same command continues it" in as_table([stopped])


def test_a_run_that_lost_a_file_is_told_and_fails(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    (run.phase4c("control") / "stamps").files()[0].delete()
    assert main(["status", run.where.uri]) == 1
    assert "committed files are gone" in capsys.readouterr().out


def test_the_rate_is_that_of_the_later_units_since_the_last_start(run: RunDir) -> None:
    one = read_receipts(run.phase4c("control"))[0]

    def done_at(second: float) -> Receipt:
        return replace(one, rows=10, effort=replace(one.effort, finished_unix_s=second))

    before = [done_at(t) for t in (1.0, 2.0)]
    after = [done_at(t) for t in (100.0, 101.0, 102.0, 104.0, 106.0)]
    assert _rows_per_s([*before, *after], 50.0) == pytest.approx(20 / 4)
    assert _rows_per_s(before[:1], None) is None


def test_only_new_receipts_are_read(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor(run)
    first = monitor.look()
    monkeypatch.setattr("dhs_pipeline.monitor._read_receipt", lambda file: pytest.fail(f"{file} again"))
    assert monitor.look() == first


def test_the_command(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", run.where.uri, "--watch", "0.1", "--verify"]) == 0
    assert "byte for byte" in capsys.readouterr().out
    assert main(["status", run.where.uri, "--json"]) == 0
    assert [s["name"] for s in json.loads(capsys.readouterr().out)][:2] == ["4a", "4b"]
    file = Location.of(run.phase4c("control").uri) / "metrics" / "part-00000-0000.parquet"
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(bytes(data))
    assert main(["status", run.where.uri, "--verify"]) == 1
    assert f"changed: {file}" in capsys.readouterr().out
    assert main(["status", str(tmp_path / "nothing")]) == 2
    assert "not a run directory" in capsys.readouterr().err
