"""A seekable file over ranges of an S3 object, made for the way Parquet is read: the end first, then column chunks.

Opening it asks once, for the last bytes; that answer also gives the size and the ETag that all later ranges are
pinned to. A short read (a light column chunk) fetches what follows it as well, because the next light column usually
lies there; a long one fetches just itself, in parts that travel together.
"""

from __future__ import annotations

import io

from botocore.exceptions import ClientError

from dhs_pipeline.config.storage import KIB, MIB
from dhs_pipeline.storage.errors import StorageError
from dhs_pipeline.storage.s3_client import pool, storage_settings
from dhs_pipeline.storage.s3_errors import ReplacedError, ask, code
from dhs_pipeline.storage.s3_read import Version, fill, get_range, read_body, read_whole, span


class S3Input(io.RawIOBase):
    """An object opened for reading.

    Raises
    ------
    FileNotFoundError
        If there is no such object.
    StorageError
        When it is replaced by another version while it is open; otherwise as :func:`s3_errors.ask`.
    """

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._version, start, tail = _open(uri)
        self._windows = {start: tail}
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._version.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        rest = max(0, self._version.size - self._position)
        length = rest if size is None or size < 0 else min(size, rest)
        data = self._bytes(self._position, self._position + length)
        self._position += length
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, into: object) -> int:
        view = memoryview(into).cast("B")  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _bytes(self, start: int, stop: int) -> bytes:
        if start == stop:
            return b""
        for begin, held in self._windows.items():
            if begin <= start and stop <= begin + len(held):
                return held[start - begin : stop - begin]
        ahead = storage_settings().parquet_read_ahead_kib * KIB
        if stop - start >= ahead:
            return self._fetch(start, stop)
        end = min([start + ahead, self._version.size, *(begin for begin in self._windows if begin >= stop)])
        window = self._fetch(start, end)
        self._keep(start, window)
        return window[: stop - start]

    def _keep(self, start: int, window: bytes) -> None:
        """Hold it, and let go of the oldest; the first, the end of the file, stays."""
        self._windows[start] = window
        later = list(self._windows)[1:]
        excess = sum(map(len, self._windows.values())) - storage_settings().parquet_cache_mib * MIB
        for oldest in later[:-1]:
            if excess <= 0:
                break
            excess -= len(self._windows.pop(oldest))

    def _fetch(self, start: int, stop: int) -> bytes:
        data = bytearray(stop - start)
        view, step = memoryview(data), storage_settings().read_part_mib * MIB
        try:
            others = [
                pool().submit(fill, self._version, start + at, view[at : at + step])
                for at in range(step, len(data), step)
            ]
            fill(self._version, start, view[:step])
            for other in others:
                other.result()
        except ReplacedError as error:
            raise StorageError(f"{error}; run the same command again") from error
        return bytes(data)


def _open(uri: str) -> tuple[Version, int, bytes]:
    """The version of the object, and its last bytes with where they begin."""
    tail_bytes = storage_settings().parquet_tail_kib * KIB

    def read_tail() -> tuple[Version, int, bytes]:
        try:
            response = get_range(uri, f"bytes=-{tail_bytes}")
        except ClientError as error:
            if code(error) != "InvalidRange":
                raise
            return Version(uri, "", 0), 0, read_whole(uri)  # the last bytes of an empty object are no range of it
        if "ContentRange" not in response and int(response["ContentLength"]) == 0:
            return Version(uri, response["ETag"], 0), 0, b""
        start, _, size = span(response, uri)
        data = read_body(response)
        return Version(uri, response["ETag"], size), start, data

    return ask(uri, "open", read_tail)
