"""Banks on S3: one checked copy per machine, and what is wrong with one is told in a line."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_run import SETTINGS, make_run

from dhs_gen.source_banks import open_bank
from dhs_pipeline import bank_cache
from dhs_pipeline.bank_cache import cache_root, local_bank
from dhs_pipeline.banks import prepare_banks, prepare_cosmos_bank
from dhs_pipeline.cli import main
from dhs_pipeline.config import load_run_config
from dhs_pipeline.digest import digest_path
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.sources import Banks, _mapped, source_maker
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location, StorageError
from drawn_banks import drawn_bank, upload


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Location:
    return drawn_bank(tmp_path_factory.mktemp("drawn") / "cosmos", "hst_cosmos_f814w", 0.03, 12)


@pytest.fixture
def remote(drawn: Location, s3_bucket: str, tmp_path: Path) -> Location:
    """The bank on S3, where the test may damage it."""
    return upload(drawn, Location.of(s3_bucket) / f"banks-{tmp_path.name}")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DHS_BANK_CACHE", str(tmp_path / "cache" / "banks"))
    return tmp_path / "cache" / "banks"


@pytest.fixture
def requests(s3_bucket: str) -> Iterator[list[str]]:
    """The request lines that the S3 server sees from here on, of all processes."""
    log, level = logging.getLogger("werkzeug"), logging.getLogger("werkzeug").level
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    yield seen
    log.propagate = True
    log.setLevel(level)
    log.removeHandler(handler)


def fetched(requests: list[str], name: str) -> int:
    """How often a file was asked for; a GET of a key has no query of a listing."""
    return sum("GET " in line and f"/{name} " in line for line in requests)


def overwrite(bank: Location, name: str, data: bytes) -> None:
    (bank / name).write_bytes(data)


def describe(bank: Location, **changed: object) -> None:
    overwrite(bank, "bank.json", json.dumps((bank / "bank.json").read_json() | changed).encode())


# --- the copy -----------------------------------------------------------------------------------------------------


def test_a_local_bank_is_itself(drawn: Location, root: Path) -> None:
    assert local_bank(drawn) == Path(drawn.uri)
    assert not root.exists()


def test_a_bank_on_s3_is_copied_once(drawn: Location, remote: Location, root: Path, requests: list[str]) -> None:
    copy = local_bank(remote)
    assert copy.parent == root
    assert copy.name.startswith(open_bank(drawn.uri).digest[:16])
    for file in Path(drawn.uri).iterdir():
        assert (copy / file.name).read_bytes() == file.read_bytes()
    opened = open_bank(copy)
    np.testing.assert_array_equal(opened.images, open_bank(drawn.uri).images)
    assert isinstance(opened.images, np.memmap)
    assert fetched(requests, "images.npy") == 1
    assert local_bank(remote) == copy
    assert fetched(requests, "images.npy") == 1
    assert [p.name for p in root.iterdir() if not p.name.endswith(".lock")] == [copy.name]


def test_the_same_bank_elsewhere_is_the_same_copy(remote: Location, root: Path, requests: list[str]) -> None:
    copy = local_bank(remote)
    again = upload(Location.of(copy), remote / "elsewhere")
    assert local_bank(again) == copy
    assert fetched(requests, "images.npy") == 1


def test_the_same_images_described_anew_are_another_bank(remote: Location, root: Path) -> None:
    first = local_bank(remote)
    describe(remote, effective_psf_fwhm_arcsec=0.1)
    second = local_bank(remote)
    assert first != second
    assert open_bank(first).effective_psf_fwhm_arcsec == 0.12
    assert open_bank(second).effective_psf_fwhm_arcsec == 0.1


def test_two_processes_at_once_fetch_it_once(remote: Location, root: Path, requests: list[str]) -> None:
    """Both are held at the lock, so both have seen that there is no copy before one of them makes it."""
    root.mkdir(parents=True)
    name = bank_cache._describe(remote).name
    command = "import sys; from dhs_pipeline.bank_cache import *; print(local_bank(Location.of(sys.argv[1])))"
    with (root / f".{name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        workers = [
            subprocess.Popen([sys.executable, "-c", command, remote.uri], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        deadline = time.monotonic() + 60
        while not all(waits_for_a_lock(worker.pid) for worker in workers) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert all(waits_for_a_lock(worker.pid) for worker in workers)
        assert fetched(requests, "images.npy") == 0
    printed = [worker.communicate(timeout=60)[0].strip() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert printed == [str(root / name)] * 2
    assert fetched(requests, "images.npy") == 1


def waits_for_a_lock(pid: int) -> bool:
    """/proc/locks marks those that wait with an arrow (proc(5))."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f" {pid} " in line for line in lines)


def test_what_a_killed_process_left_is_not_taken_for_a_bank(remote: Location, root: Path) -> None:
    name = bank_cache._describe(remote).name
    left = root / f".{name}.partial-{os.getuid()}"
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"half")
    assert open_bank(local_bank(remote)).digest.startswith(name[:16])
    assert not left.exists()


def test_the_default_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DHS_BANK_CACHE", raising=False)
    assert cache_root().name == f"dhs-banks-{os.getuid()}"


# --- what is wrong ------------------------------------------------------------------------------------------------


def refused(remote: Location, root: Path, message: str) -> None:
    with pytest.raises(StorageError, match=message) as error:
        local_bank(remote)
    assert remote.uri in str(error.value)
    assert "\n" not in str(error.value)
    assert not [p for p in root.glob("*") if not p.name.endswith(".lock")]


def test_images_that_were_changed(remote: Location, root: Path) -> None:
    data = bytearray((remote / "images.npy").read_bytes())
    data[-1] ^= 1
    overwrite(remote, "images.npy", bytes(data))
    refused(remote, root, r"images.npy: has SHA-256 .* but bank.json says .* copy the bank there again")


@pytest.mark.parametrize("name", ["images.npy", "meta.parquet"])
def test_a_file_that_is_missing(remote: Location, root: Path, name: str) -> None:
    (remote / name).delete()
    refused(remote, root, f"has no {name}: the bank is incomplete")


def test_a_table_that_cannot_be_read(remote: Location, root: Path) -> None:
    overwrite(remote, "meta.parquet", (remote / "meta.parquet").read_bytes()[:-40])
    refused(remote, root, "meta.parquet: cannot be read")


def test_a_table_of_another_bank(remote: Location, root: Path, tmp_path: Path) -> None:
    other = drawn_bank(tmp_path / "other", "hst_cosmos_f814w", 0.03, 8)
    overwrite(remote, "meta.parquet", (other / "meta.parquet").read_bytes())
    refused(remote, root, "has 8 rows but bank.json says 12 templates")


@pytest.mark.parametrize("written", [b"{", b"[]", b"{}"])
def test_a_description_that_says_nothing(remote: Location, root: Path, written: bytes) -> None:
    overwrite(remote, "bank.json", written)
    refused(remote, root, "bank.json: cannot be understood")


@pytest.mark.parametrize("changed", [{"format_version": 99}, {"images_sha256": "../../up"}])
def test_a_description_that_cannot_be_used(remote: Location, root: Path, changed: dict[str, object]) -> None:
    describe(remote, **changed)
    refused(remote, root, "this release reads version 1 with a SHA-256")


def test_a_disk_too_small_is_told_before_the_copy(
    remote: Location, root: Path, requests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1000))
    refused(remote, root, r"needs 0.00 GB, .*banks has 0.00 GB free; set DHS_BANK_CACHE")
    assert fetched(requests, "images.npy") == 0


def test_a_disk_that_fills_up_meanwhile(remote: Location, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Location, target: Path, size: int) -> str:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bank_cache, "_fetch", full)
    refused(remote, root, "set DHS_BANK_CACHE to a folder on a larger disk")


def test_a_folder_that_cannot_be_made(remote: Location, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make this folder for source banks"):
        local_bank(remote, tmp_path / "file" / "below")


# --- where banks are given ----------------------------------------------------------------------------------------


def test_a_built_bank_on_s3_is_used_as_given(remote: Location, tmp_path: Path) -> None:
    run = RunDir(Location.of(tmp_path / "run"))
    assert prepare_banks(remote, None, run) == Banks(cosmos=remote)
    with pytest.raises(StageError, match="is a bank of kind 'hst_cosmos_f814w', wanted is deep_ground"):
        prepare_banks(None, remote, run)


@pytest.mark.parametrize("name", ["galaxies", "bank.h5"])
def test_only_built_banks_may_be_on_s3(s3_bucket: str, tmp_path: Path, name: str) -> None:
    given = Location.of(s3_bucket) / tmp_path.name / name
    (given if name.endswith(".h5") else given / "real_galaxy_catalog.fits").write_bytes(b"x")
    with pytest.raises(StorageError, match=r"no built source bank .*build it with `dhs bank SOURCE FOLDER`") as error:
        prepare_cosmos_bank(given, Location.of(tmp_path / "into"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "into").exists()


def test_a_bank_is_not_built_into_s3(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cosmos").mkdir()
    assert main(["bank", "cosmos", f"{s3_bucket}/{tmp_path.name}/built"]) == 2
    assert "a bank is built on a local disk" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["cosmos"]  # and no folder called "s3:"


def test_stage_4c_reads_it_and_records_what_was_given(
    drawn: Location, remote: Location, root: Path, tmp_path: Path
) -> None:
    made = {}
    for name, bank in (("local", drawn), ("s3", remote)):
        settings = [*SETTINGS, "manifest.folds=4"]
        run, _ = make_run(
            tmp_path / name, hosts={"a": None}, generations=["gen5"], settings=settings, banks=Banks(cosmos=bank)
        )
        made[name] = digest_path(run.phase4c("gen5") / "stamps")
        inputs = (run.phase4c("gen5") / "_stage.json").read_json()["inputs"]
        assert inputs["cosmos_bank"] == bank.uri
        assert inputs["cosmos_bank_digest"] == open_bank(drawn.uri).digest
    assert made["local"] == made["s3"]
    assert pq.read_table(next(root.glob("*/meta.parquet"))).num_rows == 12


# --- the command --------------------------------------------------------------------------------------------------


def test_banks_are_staged_by_a_command(
    drawn: Location, remote: Location, tmp_path: Path, requests: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    into = tmp_path / "into"
    assert main(["bank-stage", remote.uri, drawn.uri, "--into", str(into)]) == 0
    staged = json.loads(capsys.readouterr().out)
    assert staged[drawn.uri] == drawn.uri
    assert Path(staged[remote.uri]).parent == into
    assert local_bank(remote, into) == Path(staged[remote.uri])
    assert fetched(requests, "images.npy") == 1


def test_a_bank_that_is_not_there_is_a_line_and_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bank-stage", str(tmp_path / "none")]) == 2
    assert "none: no built source bank (there is no bank.json)" in capsys.readouterr().err


def test_a_process_maps_a_bank_once_and_a_new_one_anew(tmp_path: Path) -> None:
    """Tasks come one after another in one worker: each would map the file, and deal the folds, again."""
    bank = drawn_bank(tmp_path / "bank", "hst_cosmos_f814w", 0.03, 12)
    generation = load_run_config("demo").generation("gen5")
    makers = [source_maker(generation, Banks(cosmos=bank), 4) for _ in range(2)]
    first, second = (maker.__closure__ for maker in makers)
    assert first is not None
    assert second is not None
    assert [c.cell_contents for c in first] == [c.cell_contents for c in second]
    assert _mapped.cache_info().hits >= 1
    misses = _mapped.cache_info().misses
    os.utime(tmp_path / "bank" / "images.npy")
    source_maker(generation, Banks(cosmos=bank), 4)
    assert _mapped.cache_info().misses == misses + 1
