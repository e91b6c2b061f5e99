"""S3 over real HTTP with faults in between: what is tried again, what is noticed, and what is told."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

from dhs_pipeline.config import ConfigError, StorageSettings, load_section
from dhs_pipeline.storage import Location, StorageError, StorageUnavailable, s3_client, write_parquet
from faulty_proxy import Fault, FaultyProxy, Request

SMALL = np.random.default_rng(1).bytes(300_000)  # one request
LARGE = np.random.default_rng(2).bytes(5_300_000)  # read in parts of 1 MiB
HUGE = np.random.default_rng(3).bytes(11 << 20)  # written in parts of 5 MiB too

PASSING = (
    Fault.SLOW_DOWN,
    Fault.INTERNAL_ERROR,
    Fault.TOO_MANY,
    Fault.RESET,
    Fault.RESET_IN_BODY,
    Fault.TRUNCATED,
    Fault.CORRUPT,
    Fault.SHORT_LENGTH,
    Fault.LONG_LENGTH,
)

pytestmark = pytest.mark.usefixtures("quick_retries")


@pytest.fixture
def root(proxy: FaultyProxy, seaweed_bucket: str, tmp_path: Path) -> Location:
    return Location.of(seaweed_bucket) / tmp_path.name


@pytest.fixture
def large(proxy: FaultyProxy, seaweed_bucket: str) -> Location:
    """A file that is read in parts, written once."""
    file = Location.of(seaweed_bucket) / "large.bin"
    if not file.exists():
        file.write_bytes(LARGE)
    proxy.reset()
    return file


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Half a second for the first byte."""
    settings = s3_client.storage_settings().model_copy(update={"read_timeout_seconds": 0.5})
    s3_client.forget()
    with monkeypatch.context() as patch:
        patch.setattr(s3_client, "storage_settings", lru_cache(lambda: settings))
        yield
        s3_client.forget()


def client() -> Any:
    return boto3.session.Session().client("s3")


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name)
def test_a_file_is_read_through_passing_faults(root: Location, proxy: FaultyProxy, fault: Fault) -> None:
    file = root / "x.bin"
    file.write_bytes(SMALL)
    proxy.reset()
    proxy.answer(fault, fault, method="GET")
    assert file.read_bytes() == SMALL
    assert [r.fault for r in proxy.seen("GET")[:2]] == [fault, fault]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name)
def test_a_large_file_is_read_through_passing_faults(large: Location, proxy: FaultyProxy, fault: Fault) -> None:
    proxy.answer(fault, Fault.NONE, fault, method="GET")
    assert large.read_bytes() == LARGE


def test_a_first_byte_that_comes_late_is_not_waited_for(root: Location, proxy: FaultyProxy, impatient: None) -> None:
    (root / "x.bin").write_bytes(SMALL)
    proxy.reset()
    proxy.answer(Fault.SLOW_FIRST_BYTE, method="GET")
    assert (root / "x.bin").read_bytes() == SMALL
    assert len(proxy.seen("GET")) == 2
    proxy.always(Fault.SLOW_FIRST_BYTE)
    with pytest.raises(StorageUnavailable, match=r"ReadTimeoutError.*\(4 requests"):
        (root / "x.bin").read_bytes()


def test_a_body_that_broke_off_goes_on_where_it_stopped(root: Location, proxy: FaultyProxy) -> None:
    file = root / "x.bin"
    file.write_bytes(SMALL)
    proxy.reset()
    proxy.answer(Fault.TRUNCATED, method="GET")
    assert file.read_bytes() == SMALL
    first, second = proxy.seen("GET")
    assert (first.byte_range, second.byte_range) == (None, "bytes=150000-299999")
    assert second.if_match is not None
    assert sum(r.body_bytes for r in proxy.seen("GET")) == len(SMALL)


def test_large_files_come_in_parts_of_one_version(large: Location, proxy: FaultyProxy) -> None:
    assert large.read_bytes() == LARGE
    first, *parts = proxy.seen("GET")
    assert first.byte_range is None
    assert sorted(r.byte_range or "" for r in parts) == sorted(
        f"bytes={at}-{min(at + (1 << 20), len(LARGE)) - 1}" for at in range(1 << 20, len(LARGE), 1 << 20)
    )
    assert len({r.if_match for r in parts}) == 1
    assert parts[0].if_match is not None


def test_a_file_replaced_while_it_is_read_comes_whole_in_its_new_version(root: Location, proxy: FaultyProxy) -> None:
    file, new = root / "x.bin", np.random.default_rng(9).bytes(len(LARGE))
    file.write_bytes(LARGE)
    begun = []

    def replace_after_the_first(request: Request) -> Fault:
        if request.method == "GET" and request.byte_range and not begun:
            begun.append(request)
            proxy.rule = lambda _: Fault.NONE
            file.write_bytes(new)
        return Fault.NONE

    proxy.rule = replace_after_the_first
    assert file.read_bytes() == new
    assert begun


def test_a_corrupt_part_is_noticed_and_read_again(root: Location, proxy: FaultyProxy) -> None:
    file = root / "x.bin"
    file.write_bytes(HUGE)  # in parts: its checksum is over the whole file all the same
    proxy.reset()
    proxy.answer(Fault.NONE, Fault.NONE, Fault.CORRUPT, method="GET")
    assert file.read_bytes() == HUGE
    assert sum(r.byte_range is None for r in proxy.seen("GET")) == 2


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault.SLOW_DOWN, "503 SlowDown: Please reduce your request rate."),
        (Fault.INTERNAL_ERROR, "500 InternalError"),
        (Fault.TOO_MANY, "429"),
        (Fault.RESET, "Connection"),
        (Fault.TRUNCATED, "body ended"),
        (Fault.CORRUPT, "checksum"),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
def test_a_store_that_fails_for_good_is_unavailable_in_one_line(
    root: Location, proxy: FaultyProxy, fault: Fault, told: str
) -> None:
    file = root / "x.bin"
    file.write_bytes(SMALL[:50])
    proxy.reset()
    proxy.always(fault)
    with pytest.raises(StorageUnavailable) as error:
        file.read_bytes()
    text = str(error.value)
    assert text.startswith(f"{file}: cannot read")
    assert told.lower() in text.lower()
    assert re.search(r"\((3|4) requests in \d+ s\)", text)
    assert 3 <= len(proxy.requests) <= 4
    assert "\n" not in text


def test_no_server_at_all_is_unavailable(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageUnavailable, match=r"Could not connect.*\(4 requests"):
        (root / "x.bin").read_bytes()


# --- what is no use to try again ----------------------------------------------------------------------------------


def test_refusals_are_told_at_once(
    root: Location, proxy: FaultyProxy, seaweed_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.always(Fault.DENIED)
    with pytest.raises(StorageError, match=r"access denied.*check the keys") as error:
        (root / "x.bin").read_bytes()
    assert not isinstance(error.value, StorageUnavailable)
    assert len(proxy.requests) == 1
    proxy.reset()
    with pytest.raises(FileNotFoundError):
        (root / "x.bin").read_bytes()
    assert len(proxy.requests) == 1
    for refused in (Location.read_bytes, Location.exists, Location.files, Location.delete):
        proxy.reset()
        with pytest.raises(StorageError, match=r"there is no bucket 'dhs-seaweed-no'") as error:
            refused(Location.of(seaweed_bucket + "-no") / "x" / "y.bin")
        assert len(proxy.requests) <= 2
        assert "\n" not in str(error.value)


def test_wrong_keys(root: Location, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for refused in (Location.read_bytes, Location.files, Location.exists, lambda x: x.write_bytes(b"1")):
        proxy.reset()
        with pytest.raises(StorageError, match=r"AWS_SECRET_ACCESS_KEY|check the keys") as error:
            refused(root / "x.bin")
        assert not isinstance(error.value, StorageUnavailable)
        assert len(proxy.requests) == 1
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nothing")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nothing")
    with pytest.raises(StorageError, match="no AWS credentials"):
        (root / "x.bin").read_bytes()


def test_an_endpoint_that_is_none(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not an address")
    with pytest.raises(StorageError, match="no client can be made"):
        root.exists()


def test_a_bucket_is_no_file_and_is_not_deleted(root: Location, seaweed_bucket: str) -> None:
    bucket = Location.of(seaweed_bucket)
    assert bucket.is_dir()
    with pytest.raises(StorageError, match="whole bucket"):
        bucket.delete()
    with pytest.raises(StorageError, match="is a bucket"):
        bucket.write_bytes(b"1")


# --- writing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [Fault.SLOW_DOWN, Fault.INTERNAL_ERROR, Fault.TOO_MANY, Fault.RESET, Fault.LOST_ANSWER],
    ids=lambda fault: fault.name,
)
def test_a_file_is_written_through_passing_faults(root: Location, proxy: FaultyProxy, fault: Fault) -> None:
    proxy.answer(fault, fault, method="PUT")
    (root / "x.bin").write_bytes(SMALL)
    proxy.reset()
    assert (root / "x.bin").read_bytes() == SMALL


def test_a_huge_file_is_written_through_passing_faults(root: Location, proxy: FaultyProxy) -> None:
    proxy.answer(Fault.SLOW_DOWN, Fault.LOST_ANSWER, Fault.RESET, method="PUT")
    (root / "x.bin").write_bytes(HUGE)
    assert len(proxy.seen("PUT")) == 6
    assert {"partNumber" in r.path for r in proxy.seen("PUT")} == {True}
    proxy.reset()
    assert (root / "x.bin").read_bytes() == HUGE


def test_a_multipart_upload_whose_last_answer_is_lost(root: Location, proxy: FaultyProxy) -> None:
    """POST starts and completes it; asked again the store knows no such upload."""
    proxy.answer(Fault.NONE, Fault.LOST_ANSWER, method="POST")
    (root / "x.bin").write_bytes(HUGE)
    assert [r.fault for r in proxy.seen("POST")][1] is Fault.LOST_ANSWER
    proxy.reset()
    assert (root / "x.bin").read_bytes() == HUGE


def test_a_failed_upload_leaves_nothing(root: Location, proxy: FaultyProxy, seaweed_bucket: str) -> None:
    def fail_second_part(request: Request) -> Fault:
        return Fault.INTERNAL_ERROR if request.method == "PUT" and "partNumber=2" in request.path else Fault.NONE

    proxy.rule = fail_second_part
    with pytest.raises(StorageUnavailable, match=r"x\.bin: cannot write.*500 InternalError.*\(4 requests"):
        (root / "x.bin").write_bytes(HUGE)
    assert [r.status for r in proxy.seen("DELETE")] == [204]
    proxy.reset()
    assert not (root / "x.bin").exists()
    listed = client().list_multipart_uploads(Bucket=seaweed_bucket.removeprefix("s3://"))
    assert not listed.get("Uploads")


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_writes_that_fail_for_good(root: Location, proxy: FaultyProxy, method: str) -> None:
    (root / "a.bin").write_bytes(b"1")
    proxy.always(Fault.SLOW_DOWN, method=method)
    with pytest.raises(StorageUnavailable, match="503 SlowDown"):
        root.delete() if method == "POST" else (root / "a.bin").write_bytes(b"2")
    proxy.reset()
    assert (root / "a.bin").read_bytes() == b"1"


def test_put_if_absent_knows_its_own_write_when_the_answer_is_lost(root: Location, proxy: FaultyProxy) -> None:
    proxy.answer(Fault.LOST_ANSWER, method="PUT")
    assert (root / "_plan.json").put_if_absent(b"mine")
    assert [r.status for r in proxy.seen("PUT")] == [0, 412]
    proxy.answer(Fault.LOST_ANSWER, method="PUT")
    assert not (root / "_plan.json").put_if_absent(b"other")
    assert not (root / "_plan.json").put_if_absent(b"mine")
    assert (root / "_plan.json").read_bytes() == b"mine"


def test_put_if_absent_tries_again_on_a_conflict(root: Location, proxy: FaultyProxy) -> None:
    proxy.answer(Fault.CONFLICT, method="PUT")
    assert (root / "_plan.json").put_if_absent(b"mine")


# --- many objects -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_listing_and_deleting_go_beyond_one_page(root: Location, proxy: FaultyProxy) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: (root / "in" / f"{i:05d}").write_bytes(b""), range(1003)))
    client().put_object(Bucket=root.uri.split("/")[2], Key=f"{(root / 'in').uri.split('/', 3)[3]}/", Body=b"")
    proxy.reset()
    files = (root / "in").files()
    assert [f.name for f in files] == [f"{i:05d}" for i in range(1003)]
    assert len(proxy.requests) == 2
    proxy.reset()
    (root / "in").delete()
    assert len(proxy.seen("POST")) == 2
    assert not (root / "in").exists()


def test_keys_that_cannot_be_deleted_are_told(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (root / name).write_bytes(b"")
    real = s3_client.client()
    answers = [
        {"Errors": [{"Key": "b", "Code": "InternalError", "Message": "again"}]},
        {"Errors": [{"Key": "b", "Code": "AccessDenied", "Message": "never"}]},
    ]
    asked: list[list[str]] = []

    def delete_objects(Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        asked.append([entry["Key"].rpartition("/")[2] for entry in Delete["Objects"]])
        return answers.pop(0)

    monkeypatch.setattr(real, "delete_objects", delete_objects)
    with pytest.raises(StorageError, match=r"1 of 1 objects could not be deleted, the first b \(AccessDenied: never\)"):
        root.delete()
    assert asked == [["a", "b", "c"], ["b"]]


# --- processes ----------------------------------------------------------------------------------------------------


def test_a_forked_child_makes_its_own_client(large: Location) -> None:
    assert large.read_bytes() == LARGE  # client and threads are there now
    mine = id(s3_client.client())
    child = os.fork()
    if child == 0:
        good = large.read_bytes() == LARGE and id(s3_client.client()) != mine
        os._exit(0 if good else 1)
    deadline_s = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)
    assert large.read_bytes() == LARGE


def test_check_writable_tells_unavailable_from_refused(root: Location, proxy: FaultyProxy) -> None:
    root.check_writable()
    assert not root.exists()
    proxy.always(Fault.SLOW_DOWN)
    with pytest.raises(StorageUnavailable, match="cannot write here"):
        root.check_writable()
    proxy.always(Fault.DENIED)
    with pytest.raises(StorageError, match="cannot write here") as error:
        root.check_writable()
    assert type(error.value) is StorageError


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"), [("write_part_mib", 4), ("retry_mode", "legacy"), ("max_connections", 2), ("request_attempts", 0)]
)
def test_settings_that_cannot_be(tmp_path: Path, key: str, value: object) -> None:
    import yaml

    good = yaml.safe_load((Path(__file__).resolve().parents[2] / "conf/storage/default.yaml").read_text())
    StorageSettings.model_validate(good)
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(good | {key: value}))
    with pytest.raises(ConfigError, match=key):
        load_section(StorageSettings, "storage", str(tmp_path / "bad.yaml"))


def test_parquet_goes_up_in_one_piece(root: Location, proxy: FaultyProxy) -> None:
    import pyarrow as pa

    table = pa.table({"x": [1.0, 2.0]})
    write_parquet(table, root / "t.parquet")
    assert [r.method for r in proxy.requests] == ["PUT"]
    assert (root / "t.parquet").read_table().equals(table)
