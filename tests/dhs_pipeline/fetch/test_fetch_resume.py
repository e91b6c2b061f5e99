"""Killed, stopped, run again: nothing is fetched twice, nothing is lost, every file has its row."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import bad_server as bad
import pyarrow.parquet as pq
import pytest
from bad_server import BadServer
from fetch_cases import (
    BRICK,
    IMAGE,
    ONE_BAND,
    OTHER,
    SURVEY,
    fetch,
    files_below,
    fits_map,
    partials_below,
    rows_of,
    serve,
    serve_sums,
    statuses_of,
)

from dhs_pipeline.fetch.files import Shard, chosen_bricks, files_of
from dhs_pipeline.fetch.partial import claimed
from dhs_pipeline.fetch.record import FETCH, FetchRow, FetchStatus, Recorder, compact, read_not_ok, utc_now
from dhs_pipeline.storage import Location, StorageError
from tests_support import REPO


def parts_of(where: Path) -> list[str]:
    return sorted(p.name for p in (where / "_fetch").glob("*.parquet"))


def test_what_is_done_is_not_asked_for_again(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    serve_sums(server)
    del server.files[IMAGE]
    first = fetch(server, tmp_path)
    server.log.clear()
    again = fetch(server, tmp_path)
    assert server.log == []
    assert again["files_by_status"] == first["files_by_status"] == {"NOT_FOUND": 1, "OK": 4}
    assert (again["files_done_before"], again["bytes_fetched"], again["bytes"]) == (5, 0, first["bytes"])
    assert again["bricks_with_files_not_in_release"] == {BRICK: 1}
    assert len(rows_of(tmp_path)) == 5


def test_only_what_failed_is_asked_for_again(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    server.plays[IMAGE] = [bad.status(403)]
    fetch(server, tmp_path, checksums_path="null")
    server.log.clear()
    assert fetch(server, tmp_path, checksums_path="null")["files_by_status"] == {"OK": 5}
    assert [r.path for r in server.log] == [IMAGE]


def test_404_is_asked_again_on_request_or_of_another_server(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    image = server.files.pop(IMAGE)
    fetch(server, tmp_path)
    server.log.clear()
    fetch(server, tmp_path, base_url=f"{server.url}/other")
    assert {r.path for r in server.log if r.path.endswith(".fz")} == {f"other/{IMAGE}"}
    server.files[IMAGE] = image
    assert fetch(server, tmp_path, ask_again=True)["files_by_status"] == {"OK": 5}


def test_file_that_is_gone_or_shorter_is_fetched_again(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    fetch(server, tmp_path)
    maps = files_below(tmp_path)
    mask = next(p for p in maps if "maskbits" in p)
    (tmp_path / IMAGE).unlink()
    (tmp_path / mask).write_bytes(maps[mask][:-2880])
    server.log.clear()
    fetch(server, tmp_path, checksums_path="null")
    assert [r.path for r in server.log] == [IMAGE, mask]
    assert files_below(tmp_path) == maps


def test_file_without_a_row_is_checked_and_kept(server: BadServer, tmp_path: Path) -> None:
    """As after a kill, or from another tool: a good one is not fetched, a damaged one is replaced."""
    serve(server)
    serve_sums(server)
    files = [f.path for f in files_of(BRICK, ONE_BAND)]
    for path in files:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(server.files[path])
    damaged = bytearray(server.files[IMAGE])
    damaged[-3000] ^= 1
    (tmp_path / IMAGE).write_bytes(damaged)
    (tmp_path / files[1]).write_bytes(b"<html>")
    fetch(server, tmp_path)
    assert {r.path for r in server.log if r.path.endswith(".fz")} == {IMAGE, files[1]}
    rows = rows_of(tmp_path)
    assert set(statuses_of(tmp_path).values()) == {"OK"}
    assert rows[files[2]]["message"] == "was there already"
    assert (rows[files[2]]["attempts"], rows[files[2]]["verified"]) == (0, True)
    assert rows[files[2]]["sha256"] == hashlib.sha256(server.files[files[2]]).hexdigest()
    assert files_below(tmp_path) == {p: server.files[p] for p in files}


def run_command(server: BadServer, dest: Path, bricks: Path, *more: str) -> subprocess.Popen[str]:
    changes = {"base_url": server.url, "start_jitter_s": 0, "chunk_kilobytes": 1, "requests_per_second": 1000}
    settings = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "dhs_pipeline.cli", "bricks", "fetch", "--bricks", str(bricks), "--jobs", "1"]
    return subprocess.Popen(
        [*command, "--data", str(dest), "--quiet", *settings, *more],
        env=os.environ | {"PYTHONPATH": str(REPO / "pipeline")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(happened: Callable[[], bool]) -> None:
    for _ in range(3000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen in 30 s")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_of_a_file(server: BadServer, tmp_path: Path, how: signal.Signals) -> None:
    serve(server, (BRICK, OTHER), SURVEY)
    maps = dict(server.files)
    serve_sums(server)
    order = [f.path for f in files_of(BRICK, SURVEY)]
    held = order[4]
    reached, go_on = threading.Event(), threading.Event()
    server.plays[held] = [bad.held_after(5000, reached, go_on)]
    (tmp_path / "list.txt").write_text(f"# two\n{OTHER}\n{BRICK}  # twice\n{BRICK}\n")
    process = run_command(server, tmp_path / "d", tmp_path / "list.txt", "--set", "read_timeout_s=20")
    assert reached.wait(30)
    wait_until(lambda: any(p.stat().st_size == 5000 for p in (tmp_path / "d").rglob("*.part")))
    process.send_signal(how)
    if how == signal.SIGINT:
        go_on.set()
    _, told = process.communicate(timeout=30)
    go_on.set()
    assert process.returncode == (-9 if how == signal.SIGKILL else 130), told

    there = files_below(tmp_path / "d")
    assert sorted(there) == sorted(order[:4])
    assert all(there[p] == maps[p] for p in there)
    assert len(rows_of(tmp_path / "d")) == (0 if how == signal.SIGKILL else 4)
    partial = next((tmp_path / "d").rglob("*.part"))
    assert partial.stat().st_size == 5000

    wait_until(lambda: bool(server.asked(held)))  # the held answer has ended too
    server.log.clear()
    summary = fetch(server, tmp_path / "d", (BRICK, OTHER), survey=SURVEY)
    assert files_below(tmp_path / "d") == maps
    assert not {r.path for r in server.log} & set(order[:4])
    assert [r.range for r in server.asked(held)] == ["bytes=5000-"]
    assert partials_below(tmp_path / "d") == []
    assert summary["files_by_status"] == {"OK": 26}
    assert set(statuses_of(tmp_path / "d")) == set(maps)
    assert set(statuses_of(tmp_path / "d").values()) == {"OK"}


def test_partial_file_of_another_server_is_not_continued(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    server.files[f"x/{IMAGE}"] = server.files[IMAGE]
    server.plays[f"x/{IMAGE}"] = [bad.cut_after(5000)]
    fetch(server, tmp_path, base_url=f"{server.url}/x", retries=0)
    assert len(partials_below(tmp_path)) == 2
    fetch(server, tmp_path)
    assert server.asked(IMAGE)[0].range is None
    assert statuses_of(tmp_path)[IMAGE] == "OK"


def test_whole_partial_file_needs_no_request(server: BadServer, tmp_path: Path) -> None:
    """Killed between the last byte and the name."""
    serve(server)
    server.plays[IMAGE] = [bad.cut_after(5000)]
    fetch(server, tmp_path, retries=0)
    part = next((tmp_path / "_fetch/partial").rglob("*.part"))
    part.write_bytes(server.files[IMAGE])
    server.log.clear()
    fetch(server, tmp_path)
    assert server.asked(IMAGE) == []
    assert files_below(tmp_path)[IMAGE] == server.files[IMAGE]


@pytest.mark.parametrize("damage", ["", "{", '{"total": 1}', "[]"])
def test_partial_file_that_says_not_what_it_is_of(server: BadServer, tmp_path: Path, damage: str) -> None:
    serve(server)
    server.plays[IMAGE] = [bad.cut_after(5000)]
    fetch(server, tmp_path, retries=0)
    next((tmp_path / "_fetch/partial").rglob("*.json")).write_text(damage)
    server.log.clear()
    fetch(server, tmp_path)
    assert server.asked(IMAGE)[0].range is None
    assert files_below(tmp_path)[IMAGE] == server.files[IMAGE]


def test_one_process_per_shard_and_machine(tmp_path: Path) -> None:
    with claimed(tmp_path / "0of1"):
        with pytest.raises(StorageError, match="another `dhs bricks fetch`"), claimed(tmp_path / "0of1"):
            pass
        with claimed(tmp_path / "0of2"):
            pass
    with claimed(tmp_path / "0of1"):
        pass


def test_shards_share_everything_out_and_nothing_twice(server: BadServer, tmp_path: Path) -> None:
    bricks = [f"059{i}m{j}05" for i in range(5) for j in range(3)]
    serve(server, bricks)
    mine = [chosen_bricks(bricks, Shard(i, 3), None) for i in range(3)]
    assert all(mine)
    assert sorted(b for m in mine for b in m) == bricks
    for i in range(3):
        fetch(server, tmp_path, mine[i], shard=Shard(i, 3), checksums_path="null")
    assert len(server.log) == len(bricks) * 5
    assert sorted({n.split("-")[1] for n in parts_of(tmp_path)}) == ["0of3", "1of3", "2of3"]
    assert (tmp_path / "_fetch/summary-1of3.json").exists()
    assert len(rows_of(tmp_path)) == len(bricks) * 5
    server.log.clear()
    assert fetch(server, tmp_path, bricks)["files_done_before"] == len(bricks) * 5
    assert server.log == []


def test_record_is_a_few_parts_and_ends_as_two(server: BadServer, tmp_path: Path) -> None:
    bricks = [f"059{i}m305" for i in range(4)]
    serve(server, bricks)
    del server.files[IMAGE]
    seen: list[int] = []
    inner = server.always

    def count(handler: bad.Handler, content: bytes | None) -> None:
        seen.append(len(parts_of(tmp_path)))
        inner(handler, content)

    server.always = count
    fetch(server, tmp_path, bricks, record_rows=3)
    assert max(seen) > 2
    assert [n.rsplit("-", 1)[1] for n in parts_of(tmp_path)] == ["ok.parquet", "rest.parquet"]
    assert len(rows_of(tmp_path)) == 20
    schema = pq.read_schema(tmp_path / "_fetch" / parts_of(tmp_path)[0])
    assert schema.equals(FETCH, check_metadata=False)
    assert schema.field("bytes").metadata[b"unit"] == b"byte"
    assert schema.field("status").metadata[b"values"].decode().split("|") == [s.value for s in FetchStatus]


def row(path: str, status: FetchStatus) -> FetchRow:
    return FetchRow(path, BRICK, status, "http://x", utc_now(), 1)


def test_latest_row_holds_whatever_the_order_of_parts(tmp_path: Path) -> None:
    where = Location.of(tmp_path)
    for path, statuses in {"a": ["FAILED", "OK"], "b": ["OK", "FAILED"], "c": ["NOT_FOUND"]}.items():
        for status in statuses:
            recorder = Recorder(where, "0of1")
            recorder.add(row(path, FetchStatus(status)))
            recorder.flush()
    expected = {"a": "OK", "b": "FAILED", "c": "NOT_FOUND"}
    assert statuses_of(tmp_path) == expected
    assert read_not_ok(where, ["path"]).column("path").to_pylist() == ["b", "c"]
    compact(where, "0of1")
    assert statuses_of(tmp_path) == expected
    assert len(parts_of(tmp_path)) == 2
    rest = read_not_ok(where, ["path", "status"])
    assert dict(zip(*rest.to_pydict().values(), strict=True)) == {"b": "FAILED", "c": "NOT_FOUND"}


def test_killed_while_parts_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between writing the new part and deleting the old ones: rows twice, each file once."""
    where = Location.of(tmp_path)
    for path in "abc":
        recorder = Recorder(where, "0of1")
        recorder.add(row(path, FetchStatus.OK))
        recorder.flush()

    def killed(self: Location) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Location, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            compact(where, "0of1")
    assert len(parts_of(tmp_path)) == 4
    assert statuses_of(tmp_path) == dict.fromkeys("abc", "OK")
    compact(where, "0of1")
    assert len(parts_of(tmp_path)) == 1
    assert statuses_of(tmp_path) == dict.fromkeys("abc", "OK")


def test_empty_record(tmp_path: Path) -> None:
    assert rows_of(tmp_path) == {}
    compact(Location.of(tmp_path), "0of1")


def test_destination_that_cannot_be_written_ends_the_run(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    (tmp_path / "coadd").write_bytes(b"a file")
    with pytest.raises(StorageError, match="coadd"):
        fetch(server, tmp_path)


def test_destination_that_cannot_be_read_ends_the_run(
    server: BadServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store does not answer while a file that is there is looked at: no file's fault, so no row."""
    serve(server)
    (tmp_path / IMAGE).parent.mkdir(parents=True)
    (tmp_path / IMAGE).write_bytes(server.files[IMAGE])

    def silent(self: Location) -> bytes:
        raise OSError("When reading information: AWS Error SLOW_DOWN")

    with monkeypatch.context() as patch:
        patch.setattr(Location, "read_bytes", silent)
        with pytest.raises(StorageError, match="SLOW_DOWN"):
            fetch(server, tmp_path)
    assert rows_of(tmp_path) == {}
    assert fetch(server, tmp_path)["files_by_status"] == {"OK": 5}


def test_to_a_bucket(server: BadServer, tmp_path: Path, s3_bucket: str) -> None:
    """Objects appear whole, what is not whole stays on the local disk, and a second run asks for nothing."""
    serve(server)
    serve_sums(server)
    where = Location.of(f"{s3_bucket}/bricks")
    server.plays[IMAGE] = [bad.cut_after(5000)]
    fetch(server, where.uri, scratch=tmp_path, retries=0)
    assert not (where / IMAGE).exists()
    assert next(tmp_path.rglob("*.part")).stat().st_size > 0
    summary = fetch(server, where.uri, scratch=tmp_path)
    assert server.asked(IMAGE)[-1].range is not None
    assert summary["files_by_status"] == {"OK": 5}
    for file in files_of(BRICK, ONE_BAND):
        assert (where / file.path).read_bytes() == fits_map(file.path)
    assert len((where / "_fetch").files(".parquet")) == 1
    assert [p for p in tmp_path.rglob("*") if p.suffix in (".part", ".json")] == []
    server.log.clear()
    assert fetch(server, where.uri, scratch=tmp_path)["files_done_before"] == 5
    assert server.log == []
