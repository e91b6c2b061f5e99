"""Files on their way: the bytes so far and what they are of, on the local disk, safe against kill -9.

The bytes go to ``<name>.part`` unbuffered; ``<name>.json`` says which version of the file they belong to. The bytes
are cut to nothing before a new version is named, so the two never disagree. One process at a time uses the folder.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from dhs_pipeline.storage import StorageError


@dataclass(frozen=True)
class Version:
    """Which bytes a server was sending.

    Parameters
    ----------
    base_url
        Where from.
    total
        Bytes of the whole file; None if the server did not say.
    etag, last_modified
        Headers of these names.
    """

    base_url: str
    total: int | None
    etag: str | None
    last_modified: str | None

    @property
    def validator(self) -> str | None:
        """For If-Range: a strong ETag, else the date (RFC 9110, 13.1.5); None: the file cannot be continued."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


class Partial:
    """One file on its way."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.part"
        self._version = folder / f"{name}.json"

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> Version | None:
        """What the bytes belong to; None if that is not known."""
        try:
            return Version(**json.loads(self._version.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None  # absent, or written by half: the file is begun anew

    def begin(self, version: Version) -> BinaryIO:
        """Forget what is there, and write from the first byte."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        out = open(self.path, "wb", buffering=0)  # noqa: SIM115 - the caller's, to close
        fresh = self._version.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(version)), encoding="utf-8")
        os.replace(fresh, self._version)
        return out

    def go_on(self) -> BinaryIO:
        """Write behind what is there."""
        return open(self.path, "ab", buffering=0)

    def move_to(self, final: Path) -> None:
        """Give the whole file its name (same file system), bytes on the disk first."""
        with open(self.path, "rb") as content:
            os.fsync(content.fileno())
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.path, final)
        self._version.unlink(missing_ok=True)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """The folder of partial files, for this process alone.

    Raises
    ------
    StorageError
        If another process of this machine has it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The lock file stays: whoever removed it could not know who else has just opened it.
        lock = open(folder.with_name(f"{folder.name}.lock"), "w", encoding="utf-8")  # noqa: SIM115 - held open
    except OSError as error:
        raise StorageError(f"{folder}: cannot keep partial files here ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"{folder}: another `dhs bricks fetch` is at work on this shard; wait for it, or take another --shard"
            ) from error
        yield folder
