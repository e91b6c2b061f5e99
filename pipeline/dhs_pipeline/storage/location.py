"""A folder or file, local or on S3, with the same behaviour for both."""

from __future__ import annotations

import json
import os
import posixpath
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from dhs_pipeline.storage import local, s3
from dhs_pipeline.storage.errors import StorageError, StorageUnavailable, reason

Buffer: TypeAlias = bytes | bytearray | memoryview | pa.Buffer


@dataclass(frozen=True)
class Location:
    """A folder or file, local or on S3. Cheap to make and to pickle; the client is made where it is used.

    On S3 a folder is there as long as a key begins with its name and a slash; an empty one is there only on a disk.

    Every method raises :class:`StorageUnavailable` if the store does not answer properly after all retries, and
    StorageError for what the user must mend (keys, bucket, permissions, a full disk).
    """

    uri: str

    @classmethod
    def of(cls, where: str | os.PathLike[str]) -> Location:
        """Normalise: s3:// stays (s3a:// and s3n:// become it), anything else is an absolute local path."""
        text = os.fspath(where)
        for scheme in ("s3a://", "s3n://"):
            if text.startswith(scheme):
                text = "s3://" + text[len(scheme) :]
        if text.startswith("s3://"):
            bare = text.rstrip("/")
            if bare == "s3:" or bare.startswith("s3:///"):
                raise StorageError(f"{text}: names no bucket; write s3://bucket/folder")
            return cls(bare)
        if text.startswith("file://"):
            text = text[len("file://") :]
        if "://" in text:
            raise StorageError(f"{text}: only local paths and s3:// are supported")
        # Without "..", so that the same folder has the same name from wherever the command is run.
        return cls(os.path.abspath(os.path.expanduser(text)))

    @property
    def is_s3(self) -> bool:
        return self.uri.startswith("s3://")

    @property
    def name(self) -> str:
        return posixpath.basename(self.uri)

    def __truediv__(self, child: str) -> Location:
        return Location(posixpath.join(self.uri, child))

    def __str__(self) -> str:
        return self.uri

    def info(self) -> pafs.FileInfo:
        return s3.info(self.uri) if self.is_s3 else local.info(self.uri)

    def exists(self) -> bool:
        return self.info().type != pafs.FileType.NotFound

    def is_dir(self) -> bool:
        return self.info().type == pafs.FileType.Directory

    def size(self) -> int | None:
        """Bytes of a file; None if there is none."""
        info = self.info()
        return info.size if info.type == pafs.FileType.File else None

    def files(self, suffix: str = "", *, recursive: bool = False) -> list[Location]:
        """Files below this folder whose name ends in ``suffix``, sorted; hidden and underscored ones left out."""
        return [file for file, _ in self.files_with_sizes(suffix, recursive=recursive)]

    def files_with_sizes(self, suffix: str = "", *, recursive: bool = False) -> list[tuple[Location, int]]:
        """As :meth:`files`, with the bytes of each, from one listing."""
        kept = [
            (uri, size)
            for uri, size in self._walk(recursive=recursive)
            if uri.endswith(suffix) and _is_visible(uri[len(self.uri) :])
        ]
        return [(Location(uri), size) for uri, size in sorted(kept)]

    def _walk(self, *, recursive: bool) -> Iterator[tuple[str, int]]:
        walk = s3.walk if self.is_s3 else local.walk
        return walk(self.uri, recursive=recursive)

    def folders(self) -> list[str]:
        """Names of the folders directly below this one, sorted."""
        return s3.folders(self.uri) if self.is_s3 else local.folders(self.uri)

    def read_bytes(self) -> bytes:
        """The whole file. FileNotFoundError if there is none."""
        return s3.read(self.uri) if self.is_s3 else local.read(self.uri)

    def open_input(self) -> pa.NativeFile:
        """A seekable file for pyarrow. On S3 only what is asked for is fetched, with some read-ahead."""
        return s3.open_input(self.uri) if self.is_s3 else local.open_input(self.uri)

    def read_json(self) -> Any:
        return json.loads(self.read_bytes())

    def read_table(self, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file, or some of its columns; page checksums are verified where the file has them."""
        with self.open_input() as f:
            return pq.read_table(f, columns=columns, pre_buffer=True, page_checksum_verification=True)

    def make_dir(self) -> None:
        """Create the folder (local only; S3 has none). StorageError if that is not possible."""
        if not self.is_s3:
            local.make_dir(self.uri)

    def check_writable(self) -> None:
        """Write and remove a small file, so that a stage stops before its first task and not after its last."""
        probe = self / f"_probe-{uuid.uuid4().hex}"
        try:
            probe.write_bytes(b"")
            probe.delete()
        except OSError as error:
            kind = StorageUnavailable if isinstance(error, StorageUnavailable) else StorageError
            raise kind(f"{self.uri}: cannot write here ({reason(error)})") from error

    def write_bytes(self, data: Buffer) -> None:
        """Write whole or not at all: S3 shows an object when it is complete, local files are renamed into place."""
        write = s3.write if self.is_s3 else local.write
        write(self.uri, memoryview(data))

    def writing(self) -> AbstractContextManager[BinaryIO]:
        """A file to write into piece by piece; it appears, whole, when the block ends, and not if that raises."""
        return s3.writing(self.uri) if self.is_s3 else local.writing(self.uri)

    def put_if_absent(self, data: Buffer) -> bool:
        """Write unless the name is taken, decided by the store: of several writers one gets True, the others False."""
        write = s3.write_if_absent if self.is_s3 else local.write_if_absent
        return write(self.uri, memoryview(data))

    def write_json(self, value: Any) -> None:
        self.write_bytes((json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

    def delete(self) -> None:
        """Remove a file or a folder with all below it; nothing there is no error."""
        if self.is_s3:
            s3.delete(self.uri)
        else:
            local.delete(self.uri)


def _is_visible(relative: str) -> bool:
    return not any(part.startswith(("_", ".")) for part in relative.strip("/").split("/"))
