"""One file from the server to its place: continued where it stopped, checked, and whole or not there."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import urllib3

from dhs_pipeline.fetch.checks import ChecksumMismatchError, WrongFileError, check_file, parse_sums
from dhs_pipeline.fetch.files import BrickFile
from dhs_pipeline.fetch.partial import Partial, Version
from dhs_pipeline.fetch.record import FetchRow, FetchStatus, utc_now
from dhs_pipeline.fetch.server import BeginAnewError, GivenUpError, Server, TransientError
from dhs_pipeline.storage import Location, StorageError

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_SUMS_LIMIT_BYTES = 1_000_000  # 58 files of a DR10 brick are listed in 6 kB

Sums = Mapping[str, str] | None


@dataclass(frozen=True)
class _Whole:
    """A file that is all there and has passed its checks."""

    size: int
    sha256: str
    verified: bool
    http_status: int | None
    etag: str | None


class Downloader:
    """Fetches files of one server to one destination, by way of a folder of partial files."""

    def __init__(self, server: Server, destination: Location, partials: Path) -> None:
        self._server = server
        self._destination = destination
        self._partials = partials

    def sums(self, path: str) -> Sums:
        """The release's checksums of a brick; None where it has none (404).

        Raises
        ------
        GivenUpError
            If they cannot be had, or what came is not a list of sums: nothing of the brick could be verified.
        """

        def attempt() -> bytes:
            with self._server.get(path) as response:
                body = b""
                for chunk in self._server.chunks(response):
                    body += chunk
                    if len(body) > _SUMS_LIMIT_BYTES:
                        raise GivenUpError(
                            f"over {_SUMS_LIMIT_BYTES} bytes, not a list of SHA-256 sums", response.status
                        )
                return body

        try:
            body, _ = self._server.patiently(attempt)
            return parse_sums(body.decode("utf-8"))
        except GivenUpError as error:
            if error.http_status == 404:
                return None
            raise
        except ValueError as error:
            raise GivenUpError(f"not a list of SHA-256 sums ({error})", 200) from error

    def fetch(self, file: BrickFile, sums: Sums) -> FetchRow:
        """Bring one file to the destination; whatever comes of it is in the row.

        Raises
        ------
        StorageError
            If the destination or the partial file cannot be written.
        StoppedError
        """
        partial = Partial(self._partials, file.path.rpartition("/")[2])
        try:
            whole, attempts = self._server.patiently(lambda: self._attempt(file, partial, sums))
        except GivenUpError as error:
            return self._failed(file, error)
        self._publish(file, partial)
        return FetchRow(
            path=file.path,
            brick=file.brick,
            status=FetchStatus.OK,
            bytes=whole.size,
            sha256=whole.sha256,
            verified=whole.verified,
            http_status=whole.http_status,
            attempts=attempts,
            etag=whole.etag,
            source=self._server.base_url,
            recorded_at=utc_now(),
        )

    def adopt(self, file: BrickFile, sums: Sums) -> FetchRow | None:
        """The row of a file that is there without one, if it passes the checks."""
        content = (self._destination / file.path).read_bytes()
        try:
            sha256, verified = check_file(io.BytesIO(content), len(content), _name(file), sums)
        except WrongFileError:
            return None
        return FetchRow(
            path=file.path,
            brick=file.brick,
            status=FetchStatus.OK,
            message="was there already",
            bytes=len(content),
            sha256=sha256,
            verified=verified,
            attempts=0,
            source=self._server.base_url,
            recorded_at=utc_now(),
        )

    def not_asked(self, file: BrickFile, error: GivenUpError, what: str) -> FetchRow:
        """The row of a file that was not asked for, since something before it failed."""
        return self._row_of_failure(file, FetchStatus.FAILED, f"{what}: {error}", error)

    def _attempt(self, file: BrickFile, partial: Partial, sums: Sums) -> _Whole:
        """One request at most; afterwards the file is whole and checked, or one of the server's errors is raised."""
        begun = self._begun(partial)
        if begun and partial.size == begun.total:
            return self._check(file, partial, sums, begun, None, continued=True)
        asked = {"Range": f"bytes={partial.size}-", "If-Range": str(begun.validator)} if begun else {}
        with self._server.get(file.path, asked) as response:
            continued = response.status != 200
            version = self._continued(response, partial, begun) if continued else self._version(response)
            try:
                with partial.go_on() if continued else partial.begin(version) as out:
                    for chunk in self._server.chunks(response):
                        out.write(chunk)
            except OSError as error:
                raise StorageError(f"{partial.path}: cannot write ({error.strerror or error})") from error
        if version.total is not None and partial.size != version.total:
            raise TransientError(f"{partial.size} of {version.total} bytes came", response.status)
        return self._check(file, partial, sums, version, response.status, continued=continued)

    def _begun(self, partial: Partial) -> Version | None:
        """What a partial file can be continued as; None if it is to be begun anew."""
        version = partial.version() if partial.size else None
        fits = version is not None and version.base_url == self._server.base_url and version.validator is not None
        return version if fits else None

    def _continued(self, response: urllib3.BaseHTTPResponse, partial: Partial, begun: Version | None) -> Version:
        """The version that a 206 goes on with; BeginAnewError if it is another, begins elsewhere, or is no 206."""
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if begun and found and response.status == 206 and int(found[1]) == partial.size:
            total = begun.total if found[3] == "*" else int(found[3])
            same_size = begun.total in (None, total)
            if same_size and response.headers.get("ETag", begun.etag) == begun.etag:
                return replace(begun, total=total)
        had = partial.size
        partial.discard()
        raise BeginAnewError(f"HTTP {response.status} does not continue the {had} bytes that are here")

    def _check(
        self, file: BrickFile, partial: Partial, sums: Sums, version: Version, status: int | None, *, continued: bool
    ) -> _Whole:
        size = partial.size
        try:
            with open(partial.path, "rb") as content:
                sha256, verified = check_file(content, size, _name(file), sums)
        except WrongFileError as error:
            partial.discard()
            if continued:  # the pieces may be of two versions
                raise BeginAnewError(f"put together of pieces, it is not the file: {error}") from error
            raise _WrongError(error, status) from error
        return _Whole(size, sha256, verified, status, version.etag)

    def _version(self, response: urllib3.BaseHTTPResponse) -> Version:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        headers = response.headers
        return Version(self._server.base_url, total, headers.get("ETag"), headers.get("Last-Modified"))

    def _publish(self, file: BrickFile, partial: Partial) -> None:
        final = self._destination / file.path
        try:
            if final.is_s3:
                final.write_bytes(partial.path.read_bytes())
                partial.discard()
            else:
                partial.move_to(Path(final.uri))
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            reason = error.strerror or " ".join(str(error).split())
            raise StorageError(f"{final}: cannot write ({reason})") from error

    def _failed(self, file: BrickFile, error: GivenUpError) -> FetchRow:
        cause = error.__cause__
        if isinstance(cause, _WrongError):
            return self._row_of_failure(file, cause.status, str(error), error)
        status = FetchStatus.NOT_FOUND if error.http_status == 404 else FetchStatus.FAILED
        return self._row_of_failure(file, status, str(error), error)

    def _row_of_failure(self, file: BrickFile, status: FetchStatus, message: str, error: GivenUpError) -> FetchRow:
        return FetchRow(
            path=file.path,
            brick=file.brick,
            status=status,
            message=message,
            http_status=error.http_status,
            attempts=error.attempts,
            source=self._server.base_url,
            recorded_at=utc_now(),
        )


class _WrongError(GivenUpError):
    """The whole file came, and is not the one that was asked for."""

    def __init__(self, error: WrongFileError, http_status: int | None) -> None:
        super().__init__(str(error), http_status)
        mismatch = isinstance(error, ChecksumMismatchError)
        self.status = FetchStatus.CHECKSUM_MISMATCH if mismatch else FetchStatus.NOT_FITS


def _name(file: BrickFile) -> str:
    return file.path.rpartition("/")[2]
