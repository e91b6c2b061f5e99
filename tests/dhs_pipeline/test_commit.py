"""Output appears whole or not at all: commits, second drivers, left-over workers, lost files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_run import InProcessSpark

from dhs_pipeline.commit import MANIFEST, CommitError, commit, committed, committed_files, is_finished, is_whole, verify
from dhs_pipeline.logs import MAX_ROWS_PER_UNIT
from dhs_pipeline.receipts import Receipt, SupersededError, WrittenFile
from dhs_pipeline.stage import StageError, StageRun, open_stage, run_units
from dhs_pipeline.storage import Location, encode_parquet

CONFIG: Mapping[str, Any] = {"depth": 1}


@pytest.fixture(params=["local", "s3"])
def where(request: pytest.FixtureRequest, tmp_path: Any) -> Location:
    if request.param == "local":
        return Location.of(tmp_path / "stage")
    return Location.of(request.getfixturevalue("s3_bucket")) / tmp_path.name


def table_of(unit: int) -> pa.Table:
    return pa.table({"task_id": [f"t{unit}-{i}" for i in range(3)], "status": ["OK", "OK", "NO_COVERAGE"]})


def write_unit(stage: StageRun, unit: int) -> Receipt:
    writer = stage.writer(f"{unit:03d}")
    writer.write("stamps", table_of(unit), row_group_rows=8)
    return writer.finish(3, {"OK": 2, "NO_COVERAGE": 1})


def run_all(stage: StageRun, units: list[int], done: Mapping[str, Receipt]) -> dict[str, Any]:
    fresh = run_units(
        InProcessSpark(),  # type: ignore[arg-type]
        stage,
        "test",
        units,
        lambda part: (write_unit(stage, unit) for unit in part),
        done=done.values(),
        partitions=None,
        rows_of=lambda unit: 3,
        progress=False,
    )
    return stage.finish([*done.values(), *fresh], {})


def opened(where: Location, *, force: bool = False, config: Mapping[str, Any] = CONFIG) -> StageRun:
    return open_stage("test", where, config, {"input": "x"}, force=force)


def test_nothing_is_committed_before_the_end_and_everything_after_it(where: Location) -> None:
    stage = opened(where)
    receipts = [write_unit(stage, unit) for unit in range(2)]
    assert not is_finished(where)
    with pytest.raises(CommitError, match="nothing is committed here"):
        committed_files(where, "stamps")
    summary = stage.finish(receipts, {})
    assert [f.name for f in committed_files(where, "stamps")] == ["part-000.parquet", "part-001.parquet"]
    assert summary["rows"] == 6
    assert summary["rows_by_status"] == {"NO_COVERAGE": 2, "OK": 4}
    assert summary["units"] == 2
    assert summary["worker_peak_rss_mb"] > 10
    assert stage.finished_summary() == summary
    assert verify(where) == []


def test_a_killed_driver_continues_with_what_is_not_done(where: Location) -> None:
    write_unit(opened(where), 0)
    again = opened(where)
    done = again.finished_receipts()
    assert set(done) == {"000"}
    summary = run_all(again, [1, 2], done)
    assert summary["rows"] == 9
    assert (where / "_units.json").read_json()["units"] == 3
    assert is_whole(where)


def test_a_driver_killed_between_commit_and_success_commits_the_same_again(where: Location) -> None:
    stage = opened(where)
    run_all(stage, [0, 1], {})
    (where / "_SUCCESS").delete()
    again = opened(where)
    again.finish(list(again.finished_receipts().values()), {})
    assert is_whole(where)


def test_a_second_driver_with_the_same_files_agrees_and_one_with_others_is_told(where: Location) -> None:
    stage = opened(where)
    receipts = [write_unit(stage, unit) for unit in range(2)]
    stage.finish(receipts, {})
    opened(where).finish(receipts, {})
    other = {path: WrittenFile(1, "0") for path in committed(where)}
    with pytest.raises(CommitError, match=r"another run has committed other output.*part-000"):
        commit(where, stage.plan_id, other)


@pytest.mark.parametrize("cut", [(3, 3, 3, 3), (12,), (1, 7, 0, 4), (0,), ()])
def test_a_stream_of_tables_is_the_file_of_all_of_them(where: Location, cut: tuple[int, ...]) -> None:
    table = pa.concat_tables([table_of(unit) for unit in range(4)]).slice(0, sum(cut))
    starts = np.cumsum([0, *cut])
    stage = opened(where)
    whole, streamed = stage.writer("whole"), stage.writer("streamed")
    whole.write("stamps", table, row_group_rows=5)
    pieces = (table.slice(int(first), n) for first, n in zip(starts, cut, strict=False))
    assert streamed.write_stream("stamps", pieces, table.schema, row_group_rows=5) == table.num_rows
    assert list(streamed.files.values()) == list(whole.files.values())
    assert streamed.digests == whole.digests
    file = where / "stamps" / "part-streamed.parquet"
    assert WrittenFile.of(file.read_bytes()) == streamed.files["stamps/part-streamed.parquet"]


@pytest.mark.parametrize(("row_group_rows", "limit_mb"), [(64, 4), (32, 4), (48, 10)])
def test_a_stream_holds_no_table_that_it_has_written(where: Location, row_group_rows: int, limit_mb: float) -> None:
    """While the next table (6.4 MB) is made, there is the last one only if its rows do not fill a row group."""
    held_mb: list[float] = []

    def tables() -> Iterator[pa.Table]:
        rng = np.random.default_rng(1)
        before = pa.total_allocated_bytes()
        for _ in range(4):
            held_mb.append((pa.total_allocated_bytes() - before) / 1e6)
            yield pa.table({"status": ["OK"] * 64, "stamp_npz": pa.array([rng.bytes(100_000) for _ in range(64)])})

    schema = pa.schema([("status", pa.string()), ("stamp_npz", pa.binary())])
    opened(where).writer("000").write_stream("stamps", tables(), schema, row_group_rows=row_group_rows)
    assert max(held_mb) < limit_mb  # the writer itself keeps the buffers of a page


def test_pages_of_stamps_stay_small() -> None:
    """A page, not a whole row group, is what writer and reader hold beside the rows."""
    stamps = [np.random.default_rng(i).bytes(150_000) for i in range(64)]
    data = encode_parquet(pa.table({"stamp_npz": pa.array(stamps)}), row_group_rows=64)
    assert data.count(b"\x28\xb5\x2f\xfd") >= 8  # each page is a zstd frame: 64 x 0.15 MB in pages of 1.2 MB
    assert pq.read_table(io.BytesIO(data)).column("stamp_npz").to_pylist() == stamps


def test_a_stream_that_breaks_leaves_no_file(where: Location) -> None:
    def breaks() -> Iterator[pa.Table]:
        yield table_of(0)
        raise RuntimeError("a shard is gone")

    writer = opened(where).writer("000")
    with pytest.raises(RuntimeError, match="a shard is gone"):
        writer.write_stream("stamps", breaks(), table_of(0).schema, row_group_rows=2)
    assert (where / "stamps").files() == []
    assert writer.files == {}


def test_files_of_no_receipt_are_not_part_of_the_output(where: Location) -> None:
    stage = opened(where)
    receipts = [write_unit(stage, 0)]
    write_unit(stage, 7)
    stage.finish(receipts, {})
    assert [f.name for f in (where / "stamps").files()] == ["part-000.parquet"]


def test_a_worker_left_behind_by_force_cannot_write(where: Location) -> None:
    left_behind = opened(where)
    run_all(opened(where, force=True, config={"depth": 2}), [0], {})
    before = committed(where)
    with pytest.raises(SupersededError, match="has given way to"):
        write_unit(left_behind, 0)
    assert committed(where) == before
    assert verify(where) == []


def test_a_retried_attempt_writes_the_same_bytes(where: Location) -> None:
    """So a late copy changes nothing, even after the commit."""
    stage = opened(where)
    run_all(stage, [0, 1], {})
    late = write_unit(stage, 1)
    assert late.files["stamps/part-001.parquet"] == committed(where)["stamps/part-001.parquet"]
    assert is_whole(where)
    assert verify(where) == []


def test_a_lost_file_takes_the_commit_back_until_it_is_there_again(where: Location) -> None:
    stage = opened(where)
    run_all(stage, [0, 1], {})
    (where / "stamps" / "part-001.parquet").delete()
    assert not is_whole(where)
    with pytest.raises(CommitError, match="1 of 2 committed files are gone"):
        committed_files(where, "stamps")
    again = opened(where)
    seen = []
    fresh = run_units(
        InProcessSpark(),  # type: ignore[arg-type]
        again,
        "test",
        [1],
        lambda part: (seen.append(is_finished(where)) or write_unit(again, unit) for unit in part),  # type: ignore[func-returns-value]
        done=again.finished_receipts().values(),
        partitions=None,
        rows_of=lambda unit: 3,
        progress=False,
    )
    assert seen == [False]
    again.finish([*again.finished_receipts().values()], {})
    assert len(fresh) == 1
    assert is_whole(where)


def test_changed_bytes_of_the_same_size_are_found_by_verify(where: Location) -> None:
    stage = opened(where)
    run_all(stage, [0, 1], {})
    file = where / "stamps" / "part-000.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    assert is_whole(where)
    assert verify(where) == ["stamps/part-000.parquet"]


def test_two_configurations_cannot_share_a_folder(where: Location) -> None:
    opened(where)
    with pytest.raises(StageError, match="depth: 1 before, 2 now"):
        opened(where, config={"depth": 2})


def test_failed_rows_are_logged_with_their_names(
    where: Location, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DHS_LOG", "info")
    stage = opened(where)
    write_unit(stage, 4)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    failed, done = lines
    assert (failed["event"], failed["task_id"], failed["status"]) == ("row failed", "t4-2", "NO_COVERAGE")
    assert failed["level"] == "warning"
    assert (done["event"], done["unit"], done["rows"], done["OK"]) == ("unit done", "004", 3, 2)
    monkeypatch.setenv("DHS_LOG", "off")
    write_unit(stage, 5)
    assert capfd.readouterr().err == ""


def test_a_unit_of_failures_does_not_flood_the_log(
    where: Location, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DHS_LOG", "warning")
    rows = 3 * MAX_ROWS_PER_UNIT
    table = pa.table({"task_id": [str(i) for i in range(rows)], "status": ["FILE_UNREADABLE"] * rows})
    opened(where).writer("000").write("stamps", table, row_group_rows=8)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert len(lines) == MAX_ROWS_PER_UNIT + 1
    assert lines[-1]["failed_rows"] == rows


def test_the_manifest_is_plain_json(where: Location) -> None:
    stage = opened(where)
    run_all(stage, [0], {})
    tree = (where / MANIFEST).read_json()
    assert tree["plan_id"] == stage.plan_id
    assert set(tree["files"]["stamps/part-000.parquet"]) == {"size_bytes", "sha256"}
