"""Local paths and ``s3://`` in one place: every stage reads and writes through here.

pyarrow's file systems do the work, so workers need neither Hadoop's S3A nor a JVM to move bytes. The S3 endpoint,
region and credentials are read from the usual AWS environment variables.
"""

from __future__ import annotations

import json
import os
import posixpath
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq


class StorageError(OSError):
    """A path that cannot be read or written; the message is one line for the user."""


@dataclass(frozen=True)
class Location:
    """A folder or file, local or on S3. Cheap to make and to pickle; the client is made where it is used."""

    uri: str

    @classmethod
    def of(cls, where: str | os.PathLike[str]) -> Location:
        """Normalise: s3:// stays (s3a:// and s3n:// become it), anything else is an absolute local path."""
        text = os.fspath(where)
        for scheme in ("s3a://", "s3n://"):
            if text.startswith(scheme):
                text = "s3://" + text[len(scheme) :]
        if text.startswith("s3://"):
            return cls(text.rstrip("/"))
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

    def _target(self) -> tuple[pafs.FileSystem, str]:
        return _filesystem(self.is_s3), self.uri.removeprefix("s3://")

    def info(self) -> pafs.FileInfo:
        fs, path = self._target()
        return fs.get_file_info(path)

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
        fs, path = self._target()
        infos = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=recursive))
        prefix = "s3://" if self.is_s3 else ""
        kept = [
            (prefix + i.path, i.size)
            for i in infos
            if i.type == pafs.FileType.File and i.path.endswith(suffix) and _is_visible(i.path[len(path) :])
        ]
        return [(Location(p), size) for p, size in sorted(kept)]

    def folders(self) -> list[str]:
        """Names of the folders directly below this one, sorted."""
        fs, path = self._target()
        infos = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        return sorted(i.base_name for i in infos if i.type == pafs.FileType.Directory)

    def read_bytes(self) -> bytes:
        fs, path = self._target()
        with fs.open_input_file(path) as f:
            return f.read()

    def open_input(self) -> pa.NativeFile:
        fs, path = self._target()
        return fs.open_input_file(path)

    def read_json(self) -> Any:
        return json.loads(self.read_bytes())

    def read_table(self, columns: list[str] | None = None) -> pa.Table:
        with self.open_input() as f:
            return pq.read_table(f, columns=columns)

    def make_dir(self) -> None:
        """Create the folder (local only; S3 has none). StorageError if that is not possible."""
        if self.is_s3:
            return
        try:
            Path(self.uri).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.uri}: cannot make this folder ({error.strerror})") from error

    def check_writable(self) -> None:
        """Write and remove a small file, so that a stage stops before its first task and not after its last."""
        probe = self / f"_probe-{uuid.uuid4().hex}"
        try:
            probe.write_bytes(b"")
            probe.delete()
        except OSError as error:
            raise StorageError(f"{self.uri}: cannot write here ({_reason(error)})") from error

    def write_bytes(self, data: bytes) -> None:
        """Write whole or not at all: S3 puts are atomic, local files are renamed into place."""
        if self.is_s3:
            fs, path = self._target()
            with fs.open_output_stream(path) as f:
                f.write(data)
            return
        final = Path(self.uri)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
        try:
            partial.write_bytes(data)
            os.replace(partial, final)
        finally:
            partial.unlink(missing_ok=True)

    def put_if_absent(self, data: bytes) -> bool:
        """Write unless there is something already; whether it was written."""
        if self.exists():
            return False
        self.write_bytes(data)
        return True

    def write_json(self, value: Any) -> None:
        self.write_bytes((json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

    def delete(self) -> None:
        """Remove a file or a folder with all below it; nothing there is no error."""
        fs, path = self._target()
        kind = self.info().type
        if kind == pafs.FileType.Directory:
            fs.delete_dir(path)
        elif kind == pafs.FileType.File:
            fs.delete_file(path)


def write_parquet(table: pa.Table, where: Location, *, row_group_rows: int = 1024, compression: str = "zstd") -> int:
    """Write a table as one Parquet file, whole or not at all, and return its bytes."""
    data = encode_parquet(table, row_group_rows=row_group_rows, compression=compression)
    where.write_bytes(data)
    return len(data)


def encode_parquet(table: pa.Table, *, row_group_rows: int = 1024, compression: str = "zstd") -> bytes:
    """A table as the bytes of one Parquet file.

    String columns are dictionary-encoded; floats and stamps are not (their dictionaries never pay).
    """
    text = [f.name for f in table.schema if pa.types.is_string(f.type)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=row_group_rows,
        compression=compression,
        compression_level=1 if compression == "zstd" else None,
        use_dictionary=text,
        write_statistics=[f.name for f in table.schema if not (pa.types.is_binary(f.type) or pa.types.is_list(f.type))],
    )
    return bytes(sink.getvalue().to_pybytes())


def _filesystem(is_s3: bool) -> pafs.FileSystem:
    if not is_s3:
        return pafs.LocalFileSystem()
    return _s3(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))


@lru_cache(maxsize=4)
def _s3(endpoint: str | None) -> pafs.S3FileSystem:
    """One client per process and endpoint: it keeps its connections and retries with back-off."""
    retries = pafs.AwsStandardS3RetryStrategy(max_attempts=8)
    if endpoint is None:
        return pafs.S3FileSystem(retry_strategy=retries)
    return pafs.S3FileSystem(endpoint_override=endpoint, retry_strategy=retries)


def _is_visible(relative: str) -> bool:
    return not any(part.startswith(("_", ".")) for part in relative.strip("/").split("/"))


def _reason(error: OSError) -> str:
    return error.strerror or str(error).splitlines()[0]
