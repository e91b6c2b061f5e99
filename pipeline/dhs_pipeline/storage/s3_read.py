"""Reading objects: whole, in parts, and again from where a body broke off.

What is verified: the length of every body and of every range; that all parts of one reading are of one version of the
object (If-Match with the ETag of the first); and of objects read whole the checksum over all bytes, where the store
sends a CRC32, SHA1 or SHA256 (of objects read in one piece also CRC32C and CRC64NVME, if awscrt is installed). boto3
makes S3 keep a CRC32 of whatever it writes. What is not: ranges alone (S3 sends no checksum with them; the pages of
our Parquet files carry their own), objects whose only checksum is one of checksums of parts, and objects written
without any. Over https TLS guards the bytes on their way.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError
from urllib3.exceptions import HTTPError

from dhs_pipeline.config.storage import MIB
from dhs_pipeline.storage.errors import StorageError
from dhs_pipeline.storage.s3_client import client, pool, storage_settings
from dhs_pipeline.storage.s3_errors import BrokenBodyError, ReplacedError, ask, code, is_taken

Buffer = bytes | bytearray | memoryview

_CHUNK = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Version:
    """One version of an object."""

    uri: str
    etag: str
    size: int


def split(uri: str) -> tuple[str, str]:
    """``s3://bucket/a/b`` → bucket, key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def read_whole(uri: str) -> bytes:
    """All bytes of an object, of one version of it.

    Raises
    ------
    FileNotFoundError, StorageError
        As :func:`s3_errors.ask`.
    """
    return ask(uri, "read", lambda: _read_once(uri))


def _read_once(uri: str) -> bytes:
    bucket, key = split(uri)
    settings = storage_settings()
    response = client().get_object(Bucket=bucket, Key=key)
    version = Version(uri, response["ETag"], int(response["ContentLength"]))
    data = bytearray(version.size)
    first = version.size
    if version.size > settings.parallel_read_above_mib * MIB:
        first = settings.read_part_mib * MIB
    try:
        rest = [pool().submit(fill, version, start, part) for start, part in _parts(data, first)]
        view = memoryview(data)[:first]
        got = _drain(response, view, ends=first == version.size)
        if got < first:
            fill(version, got, view[got:])
        for part in rest:
            part.result()
    except ReplacedError as error:
        raise BrokenBodyError(str(error)) from error  # begin anew: the whole of the new version is as good
    _verify(data, response["ResponseMetadata"]["HTTPHeaders"])
    return bytes(data)


def _parts(data: bytearray, start: int) -> list[tuple[int, memoryview]]:
    view, step = memoryview(data), storage_settings().read_part_mib * MIB
    return [(at, view[at : at + step]) for at in range(start, len(data), step)]


def fill(version: Version, start: int, into: memoryview) -> None:
    """Read ``into`` from ``start`` on, going on where a body breaks off. ReplacedError if the object has changed."""
    got = 0

    def go_on() -> None:
        nonlocal got
        response = get_range(version.uri, f"bytes={start + got}-{start + len(into) - 1}", etag=version.etag)
        begin, end, size = span(response, version.uri)
        if size != version.size:
            raise ReplacedError(f"{version.uri}: has {size} bytes, and had {version.size} when reading began")
        if (begin, end) != (start + got, start + len(into)):
            raise BrokenBodyError(f"a range other than asked for: {response['ContentRange']}")
        got += _drain(response, into[got:], ends=True)
        if got < len(into):
            raise BrokenBodyError(f"the body ended {len(into) - got} bytes early")

    ask(version.uri, f"read bytes {start}-{start + len(into) - 1}", go_on)


def get_range(uri: str, byte_range: str, *, etag: str | None = None) -> Any:
    """Ask for a range, of the version ``etag`` if one is given. ReplacedError if that is gone."""
    bucket, key = split(uri)
    pinned = {} if etag is None else {"IfMatch": etag}
    try:
        return client().get_object(Bucket=bucket, Key=key, Range=byte_range, **pinned)
    except ClientError as error:
        if is_taken(error) or (pinned and code(error) == "InvalidRange"):
            raise ReplacedError(f"{uri}: was replaced while it was being read") from error
        raise


def span(response: Mapping[str, Any], uri: str) -> tuple[int, int, int]:
    """Begin, end and size of the object from Content-Range."""
    found = _CONTENT_RANGE.fullmatch(response.get("ContentRange", ""))
    if found is None:
        raise StorageError(f"{uri}: the store does not answer requests for a range of bytes (no Content-Range)")
    return int(found[1]), int(found[2]) + 1, int(found[3])


def read_body(response: Mapping[str, Any]) -> bytes:
    """A short body, whole. BrokenBodyError if it is not."""
    data = bytearray(int(response["ContentLength"]))
    if (got := _drain(response, memoryview(data), ends=True)) < len(data):
        raise BrokenBodyError(f"the body ended {len(data) - got} bytes early")
    return bytes(data)


def _drain(response: Mapping[str, Any], into: memoryview, *, ends: bool) -> int:
    """Read a body and return how many bytes came before it broke off, if it did.

    A body that ends there is read to its end, so that its connection is used again; else the connection is given up.
    """
    body, got = response["Body"], 0
    try:
        while got < len(into):
            chunk = body.read(min(_CHUNK, len(into) - got))
            if not chunk:
                break
            into[got : got + len(chunk)] = chunk
            got += len(chunk)
        if ends and got == len(into):
            body.read(1)
    except FlexibleChecksumError as error:
        raise BrokenBodyError(str(error)) from error
    except (BotoCoreError, HTTPError, OSError):
        return got
    finally:
        body.close()
    return got


_CHECKSUMS: Mapping[str, Callable[[Buffer], bytes]] = {
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
}


def checksum_base64(name: str, data: Buffer) -> str:
    """As S3 writes it."""
    return base64.b64encode(_CHECKSUMS[name](data)).decode()


def _verify(data: bytearray, headers: Mapping[str, str]) -> None:
    if headers.get("x-amz-checksum-type") == "COMPOSITE":
        return
    for name in _CHECKSUMS:
        sent = headers.get(f"x-amz-checksum-{name}")
        if sent and "-" not in sent and (found := checksum_base64(name, data)) != sent:
            raise BrokenBodyError(f"{name} of the {len(data)} bytes is {found}, the store's is {sent}")
