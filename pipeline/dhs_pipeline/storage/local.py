"""Files on a disk: whole or not at all, and the names of killed writers' leftovers hidden."""

from __future__ import annotations

import errno
import io
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.fs as pafs

from dhs_pipeline.storage.errors import StorageError, local_error, reason

_DISK_STARTS_AFTER_BYTES = 4 << 20


def info(path: str) -> pafs.FileInfo:
    return pafs.LocalFileSystem().get_file_info(path)


def read(path: str) -> bytes:
    with _told(path, "read"):
        return Path(path).read_bytes()


def open_input(path: str) -> pa.NativeFile:
    with _told(path, "open"):
        return pafs.LocalFileSystem().open_input_file(path)


def walk(path: str, *, recursive: bool) -> Iterator[tuple[str, int]]:
    """Path and bytes of every file in a folder, links followed; nothing if there is no folder.

    Raises
    ------
    NotADirectoryError
        If ``path`` is a file.
    """
    with _told(path, "list"):
        if not os.path.lexists(path):
            return
        with os.scandir(path) as entries:
            found = list(entries)
    for entry in found:
        if entry.is_dir():
            if recursive:
                yield from walk(entry.path, recursive=True)
            continue
        try:
            yield entry.path, entry.stat().st_size
        except FileNotFoundError:
            continue  # renamed or removed since the listing, or a link to nowhere: no file


def folders(path: str) -> list[str]:
    with _told(path, "list"):
        if not os.path.isdir(path):
            return []
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())


def make_dir(path: str) -> None:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot make this folder ({reason(error)})") from error


def write(path: str, data: memoryview) -> None:
    """Write beside and rename into place: the name holds the old file, or all of the new one."""
    _write_beside(path, data, os.replace)


def write_if_absent(path: str, data: memoryview) -> bool:
    """As :func:`write`, unless something has the name already; returns whether it was written.

    A hard link is made only where there is no file, by one process alone, and the file behind it is whole.
    """
    try:
        _write_beside(path, data, os.link)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise StorageError(
                f"{path}: this file system has no hard links, which a write of only one process needs"
            ) from error
        raise
    return True


@contextmanager
def writing(path: str) -> Iterator[BinaryIO]:
    """A file to write into, which gets its name when the block ends, and none if that raises.

    The disk starts on what is there while more is made, so that little is left to wait for at the end.
    """
    with _beside(path, os.replace) as file:
        yield cast(BinaryIO, _WriteBehind(file))


class _WriteBehind(io.RawIOBase):
    """A file whose bytes are handed to the disk every few MiB."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._given = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written = self._file.write(data)
        if (end := self._file.tell()) - self._given >= _DISK_STARTS_AFTER_BYTES:
            self._file.flush()
            if hasattr(os, "posix_fadvise"):  # Linux starts to write dirty pages back, and keeps them
                os.posix_fadvise(self._file.fileno(), self._given, end - self._given, os.POSIX_FADV_DONTNEED)
            self._given = end
        return written


def _write_beside(path: str, data: memoryview, put_in_place: Callable[[Path, Path], None]) -> None:
    with _beside(path, put_in_place) as file:
        file.write(data)


@contextmanager
def _beside(path: str, put_in_place: Callable[[Path, Path], None]) -> Iterator[BinaryIO]:
    final = Path(path)
    partial = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
    with _told(path, "write"):
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # else a machine that dies may keep the new name with an empty file behind it
            put_in_place(partial, final)
        finally:
            partial.unlink(missing_ok=True)


def delete(path: str) -> None:
    with _told(path, "delete"):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)


@contextmanager
def _told(path: str, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        told = local_error(error, path, doing)
        if told is error:
            raise
        raise told from error
