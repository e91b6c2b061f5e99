"""Files on a disk: what a killed writer or a full disk leaves behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dhs_pipeline.storage import Location, StorageError, StorageUnavailable, local


def test_leftovers_of_killed_writers_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "part-0.parquet").write_bytes(b"1")
    (tmp_path / ".part-1.parquet.0123456789abcdef").write_bytes(b"half")
    assert [f.name for f in Location.of(tmp_path).files(recursive=True)] == ["part-0.parquet"]


def test_a_writer_killed_at_any_point_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    """Killed before the rename, the file has its old content; and its bytes are on the disk before the rename."""
    file = Location.of(tmp_path / "x.bin")
    file.write_bytes(b"old")
    child = os.fork()
    if child == 0:
        os.replace = lambda *_: os._exit(9)
        file.write_bytes(b"new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert file.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    assert [f.name for f in Location.of(tmp_path).files()] == ["x.bin"]


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: order.append("fsync") or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda a, b: order.append("replace") or replace(a, b))
    Location.of(tmp_path / "x.bin").write_bytes(b"1")
    assert order == ["fsync", "replace"]


def test_the_disk_gets_every_byte_once_while_a_file_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, start, size, advice: given.append((start, size)), raising=False)
    pieces = [bytes([i]) * (3 << 20) for i in range(7)]
    with Location.of(tmp_path / "x.bin").writing() as file:
        for piece in pieces:
            assert file.write(piece) == len(piece)
    assert (tmp_path / "x.bin").read_bytes() == b"".join(pieces)
    assert given == [(0, 6 << 20), (6 << 20, 6 << 20), (12 << 20, 6 << 20)]


@pytest.mark.parametrize("write", [Location.write_bytes, Location.put_if_absent])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    """Where blocks are given out late, it is fsync that finds the disk full."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    file = Location.of(tmp_path / "x.bin")
    with pytest.raises(StorageError, match=r"x\.bin: no space left on this disk") as error:
        write(file, b"data")  # type: ignore[operator]
    assert "\n" not in str(error.value)
    assert not isinstance(error.value, StorageUnavailable)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_is_full_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write to /dev/full fails as on a full disk."""
    import builtins

    opened = builtins.open
    monkeypatch.setattr(local, "open", lambda _path, _mode: opened("/dev/full", "wb"), raising=False)
    with pytest.raises(StorageError, match="no space left"):
        Location.of(tmp_path / "x.bin").write_bytes(b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_network_disk_that_hangs_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(self: Path) -> bytes:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self))

    monkeypatch.setattr(Path, "read_bytes", stale)
    with pytest.raises(StorageUnavailable, match="Stale file handle"):
        Location.of(tmp_path / "x.bin").read_bytes()


def test_a_file_system_without_hard_links_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageError, match="no hard links"):
        Location.of(tmp_path / "x.bin").put_if_absent(b"1")


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.bin").write_bytes(b"12")
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "top" / "gone.bin").symlink_to(tmp_path / "nothing")
    found = Location.of(tmp_path / "top").files_with_sizes(recursive=True)
    assert [(f.name, size) for f, size in found] == [("a.bin", 2)]
    (Location.of(tmp_path / "top") / "link").delete()
    assert (tmp_path / "real" / "a.bin").exists()
