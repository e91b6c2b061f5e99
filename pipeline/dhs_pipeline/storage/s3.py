"""What :class:`~dhs_pipeline.storage.Location` does on S3.

Writing: files up to ``multipart_above_mib`` go in one request, larger ones in parts that travel together; an upload
that fails is aborted, so that no parts are left (a machine that dies cannot do that: give the bucket a lifecycle rule
that aborts incomplete uploads). Every request carries a CRC32 of its body, a multipart upload also that of the whole
file, and the store refuses what does not agree. Reading: :mod:`s3_read` and :mod:`s3_input`. Errors: :mod:`s3_errors`.
"""

from __future__ import annotations

import mmap
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs
from botocore.exceptions import BotoCoreError, ClientError

from dhs_pipeline.config.storage import MIB
from dhs_pipeline.storage.errors import StorageError, StorageUnavailable
from dhs_pipeline.storage.s3_client import client, storage_settings
from dhs_pipeline.storage.s3_errors import (
    ask,
    code,
    explained,
    is_missing,
    is_taken,
    is_transient_code,
    pause,
)
from dhs_pipeline.storage.s3_input import S3Input
from dhs_pipeline.storage.s3_read import checksum_base64, read_whole, split

_WRITER = "dhs-writer"
"""Metadata key that tells whose write an object is, when the answer to the write was lost."""


def info(uri: str) -> pafs.FileInfo:
    """File, directory (something lies below the name) or not found."""
    bucket, key = split(uri)
    if key and (head := _head(uri)) is not None:
        return pafs.FileInfo(uri, pafs.FileType.File, size=int(head["ContentLength"]))
    listed = ask(
        uri, "list", lambda: client().list_objects_v2(Bucket=bucket, Prefix=f"{key}/" if key else "", MaxKeys=1)
    )
    there = bool(listed.get("Contents")) or not key
    return pafs.FileInfo(uri, pafs.FileType.Directory if there else pafs.FileType.NotFound)


def _head(uri: str) -> dict[str, Any] | None:
    bucket, key = split(uri)

    def head() -> dict[str, Any] | None:
        try:
            return dict(client().head_object(Bucket=bucket, Key=key))
        except ClientError as error:
            if is_missing(error):
                return None
            raise

    return ask(uri, "look at it", head)


# --- reading ------------------------------------------------------------------------------------------------------


def read(uri: str) -> bytes:
    return read_whole(uri)


def open_input(uri: str) -> pa.NativeFile:
    return pa.PythonFile(S3Input(uri), mode="r")


def walk(uri: str, *, recursive: bool) -> Iterator[tuple[str, int]]:
    """URI and bytes of every object below a folder, markers of empty folders left out."""
    bucket, _ = split(uri)
    for page in _pages(uri, delimiter="" if recursive else "/"):
        for entry in page.get("Contents", []):
            if not entry["Key"].endswith("/"):
                yield f"s3://{bucket}/{entry['Key']}", int(entry["Size"])


def folders(uri: str) -> list[str]:
    names = [prefix["Prefix"] for page in _pages(uri, delimiter="/") for prefix in page.get("CommonPrefixes", [])]
    return sorted(name.rstrip("/").rpartition("/")[2] for name in names)


def _pages(uri: str, *, delimiter: str) -> Iterator[dict[str, Any]]:
    """Pages of a listing below ``uri``, 1000 keys each."""
    bucket, key = split(uri)
    token: dict[str, str] = {}
    while True:
        page = ask(
            uri,
            "list",
            lambda token=token: client().list_objects_v2(  # type: ignore[misc]
                Bucket=bucket, Prefix=f"{key}/" if key else "", Delimiter=delimiter, **token
            ),
        )
        yield page
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


# --- writing ------------------------------------------------------------------------------------------------------


def write(uri: str, data: memoryview) -> None:
    _check_key(uri)
    if data.nbytes > storage_settings().multipart_above_mib * MIB:
        _write_parts(uri, data)
        return
    bucket, key = split(uri)
    body = data.tobytes()
    ask(uri, "write", lambda: client().put_object(Bucket=bucket, Key=key, Body=body))


@contextmanager
def writing(uri: str) -> Iterator[BinaryIO]:
    """A local file to write into, which is uploaded when the block ends."""
    with tempfile.TemporaryFile() as file:
        yield file
        file.flush()
        if file.tell() == 0:
            write(uri, memoryview(b""))
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
            write(uri, data)


def write_if_absent(uri: str, data: memoryview) -> bool:
    """Put with If-None-Match: * in one request, whatever its size; True if this call wrote it.

    A put whose answer was lost is tried again and then finds its own object, which the metadata tell.
    """
    _check_key(uri)
    bucket, key = split(uri)
    body, writer = data.tobytes(), uuid.uuid4().hex

    def put() -> bool:
        try:
            client().put_object(Bucket=bucket, Key=key, Body=body, IfNoneMatch="*", Metadata={_WRITER: writer})
        except ClientError as error:
            if is_taken(error):
                return False
            if code(error) == "NotImplemented":
                raise StorageError(f"{uri}: this store has no conditional puts (If-None-Match)") from error
            raise
        return True

    return ask(uri, "write", put) or _is_mine(uri, writer)


def _is_mine(uri: str, writer: str) -> bool:
    head = _head(uri)
    return head is not None and head.get("Metadata", {}).get(_WRITER) == writer


def _write_parts(uri: str, data: memoryview) -> None:
    """boto3's transfer: it sends parts together, and aborts the upload if one fails."""
    from boto3.s3.transfer import TransferConfig

    settings = storage_settings()
    bucket, key = split(uri)
    writer, started = uuid.uuid4().hex, time.monotonic()
    part = settings.write_part_mib * MIB
    config = TransferConfig(
        multipart_threshold=part, multipart_chunksize=part, max_concurrency=settings.parallel_requests
    )
    extra = {"ChecksumCRC32": checksum_base64("crc32", data), "Metadata": {_WRITER: writer}}
    try:
        client().upload_fileobj(pa.BufferReader(pa.py_buffer(data)), bucket, key, ExtraArgs=extra, Config=config)
    except (ClientError, BotoCoreError) as error:
        # The answer to "complete" was lost, and asked again the store knows no such upload: it is done.
        if isinstance(error, ClientError) and code(error) == "NoSuchUpload" and _is_mine(uri, writer):
            return
        retried = error.response["ResponseMetadata"].get("RetryAttempts", 0) if isinstance(error, ClientError) else 0
        raise explained(error, uri, "write", retried + 1, time.monotonic() - started) from error


def _check_key(uri: str) -> None:
    if not split(uri)[1]:
        raise StorageError(f"{uri}: is a bucket, not a file in one")


# --- deleting -----------------------------------------------------------------------------------------------------


def delete(uri: str) -> None:
    """The object, and all below the name as a folder, 1000 keys to a request.

    Raises
    ------
    StorageError
        If ``uri`` is a whole bucket, or some keys could not be deleted: how many, and the first with its reason.
    """
    _, key = split(uri)
    if not key:
        raise StorageError(f"{uri}: is a whole bucket, which is not deleted; name a folder in it")
    if _head(uri) is not None:
        _delete_keys(uri, [key])
    for page in _pages(uri, delimiter=""):
        if keys := [entry["Key"] for entry in page.get("Contents", [])]:
            _delete_keys(uri, keys)


def _delete_keys(uri: str, keys: Sequence[str]) -> None:
    bucket, _ = split(uri)
    attempts = storage_settings().body_attempts
    for attempt in range(1, attempts + 1):
        wanted = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = ask(uri, "delete", lambda wanted=wanted: client().delete_objects(Bucket=bucket, Delete=wanted))  # type: ignore[misc]
        errors = [error for error in answer.get("Errors", []) if error.get("Code") != "NoSuchKey"]
        if not errors:
            return
        final = [error for error in errors if not is_transient_code(error.get("Code", ""))]
        if final or attempt == attempts:
            shown = (final or errors)[0]
            kind = StorageError if final else StorageUnavailable
            raise kind(
                f"{uri}: {len(errors)} of {len(keys)} objects could not be deleted, the first "
                f"{shown.get('Key')} ({shown.get('Code')}: {shown.get('Message', '')})"
            )
        keys = [error["Key"] for error in errors]
        pause(attempt)
