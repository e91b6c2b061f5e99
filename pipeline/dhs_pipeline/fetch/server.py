"""One HTTP server, asked politely: what its answers mean, and when to ask again.

urllib3 keeps the connections, follows redirects and notices bodies that end early; it retries nothing itself, since the
file has to be continued and not begun anew. Messages never hold a query or a user: redirects may be signed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ResponseError

from dhs_pipeline import __version__
from dhs_pipeline.fetch.limits import Backoff, Clock, Pace
from dhs_pipeline.fetch.settings import FetchSettings

USER_AGENT = f"dark-halo-scope/{__version__} (dhs bricks fetch; {urllib3.__name__}/{urllib3.__version__})"

T = TypeVar("T")


class TransientError(Exception):
    """An answer, or none, that another try may better: 429, 5xx, connection errors, bodies that end early."""

    def __init__(self, message: str, http_status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.retry_after_s = retry_after_s


class BeginAnewError(Exception):
    """What there is of the file cannot be continued: ask again, for the whole."""


class GivenUpError(Exception):
    """No file, for a reason: an answer that stands (403, 404, …), or the last try failed."""

    def __init__(self, message: str, http_status: int | None = None, attempts: int = 1) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.attempts = attempts


class StoppedError(Exception):
    """The run is being stopped; nothing is said about the file."""


class Server:
    """Files below a base URL."""

    def __init__(
        self,
        settings: FetchSettings,
        *,
        connections: int,
        clock: Clock,
        uniform: Callable[[], float],
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._stop = stop
        self._requests = Pace(settings.requests_per_second, clock)
        self._bytes = Pace(settings.megabytes_per_second * 1e6, clock)
        self._backoff = Backoff(settings.backoff_first_s, settings.backoff_max_s, settings.backoff_jitter, uniform)
        self._pool = _pool(settings, connections)

    @property
    def base_url(self) -> str:
        return self._settings.base_url

    def close(self) -> None:
        self._pool.clear()

    @contextmanager
    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer 200, 206 or 416 to one GET, its body unread; read it inside with :meth:`chunks`.

        Raises
        ------
        TransientError, GivenUpError, StoppedError
        """
        self._requests.take()
        self._go_on()
        try:
            response = self._pool.request(
                "GET",
                f"{self.base_url}/{quote(path)}",
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})},
                preload_content=False,
                decode_content=False,
            )
        except HTTPError as error:
            raise _unanswered(error) from error
        except ValueError as error:  # of urllib.parse, on a Location that is no URL
            raise GivenUpError(f"redirected to no address: {told(error)}") from error
        try:
            yield self._checked(response)
        except HTTPError as error:
            raise TransientError(f"the body ended early: {told(error)}", response.status) from error
        finally:
            response.close()  # a body that was read to its end has given its connection back before

    def chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        """The body, at the configured pace."""
        for chunk in response.stream(self._settings.chunk_kilobytes * 1000, decode_content=False):
            self._bytes.take(len(chunk))
            self._go_on()
            yield chunk

    def patiently(self, attempt: Callable[[], T]) -> tuple[T, int]:
        """What ``attempt`` returns, tried again as configured; and the number of tries.

        Raises
        ------
        GivenUpError, StoppedError
        """
        tries = 0
        while True:
            tries += 1
            try:
                return attempt(), tries
            except GivenUpError as error:
                raise GivenUpError(str(error), error.http_status, tries) from error
            except BeginAnewError as error:
                if tries > self._settings.retries:
                    raise GivenUpError(str(error), None, tries) from error
            except TransientError as error:
                self._wait(error, tries)

    def _wait(self, error: TransientError, tries: int) -> None:
        """Before the next try; GivenUpError if there is to be none."""
        asked_s = error.retry_after_s or 0.0
        if tries > self._settings.retries:
            raise GivenUpError(f"{error} ({tries} tries)", error.http_status, tries) from error
        if asked_s > self._settings.retry_after_max_s:
            raise GivenUpError(
                f"{error}: the server asks for a pause of {asked_s:.0f} s, more than retry_after_max_s "
                f"= {self._settings.retry_after_max_s:g}",
                error.http_status,
                tries,
            ) from error
        if asked_s:
            self._requests.hold(asked_s)  # the others wait too
        self._clock.sleep(max(asked_s, self._backoff.delay_s(tries)))
        self._go_on()

    def _checked(self, response: urllib3.BaseHTTPResponse) -> urllib3.BaseHTTPResponse:
        status = response.status
        if status == 429 or status >= 500:
            raise TransientError(f"HTTP {status}{_phrase(response)}", status, _retry_after_s(response))
        if status not in (200, 206, 416):
            raise GivenUpError(f"HTTP {status}{_phrase(response)}", status)
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise GivenUpError(f"came with Content-Encoding {encoding[:40]}, which was not asked for", status)
        return response

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise StoppedError


def _pool(settings: FetchSettings, connections: int) -> urllib3.PoolManager:
    """Connections that follow redirects and retry nothing; through the environment's proxy where it names one."""
    timeout = urllib3.Timeout(connect=settings.connect_timeout_s, read=settings.read_timeout_s)
    retries = urllib3.Retry(
        total=None,
        connect=0,
        read=0,
        status=0,
        other=0,
        redirect=settings.max_redirects,
        respect_retry_after_header=False,
    )
    parts = urlsplit(settings.base_url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(proxy, maxsize=connections, timeout=timeout, retries=retries)
    return urllib3.PoolManager(maxsize=connections, timeout=timeout, retries=retries)


def _unanswered(error: HTTPError) -> Exception:
    """A request without an answer: the connection failed, or redirects lead nowhere."""
    cause = error.reason if isinstance(error, MaxRetryError) and error.reason is not None else error
    if isinstance(cause, ResponseError):
        return GivenUpError(f"redirected too often ({told(cause)})")
    if "CERTIFICATE_VERIFY_FAILED" in str(cause):
        return GivenUpError(f"its certificate does not verify: {told(cause)}")
    if isinstance(cause, urllib3.exceptions.LocationValueError):
        return GivenUpError(f"redirected to no address: {told(cause)}")
    return TransientError(f"no answer: {told(cause)}")


def _retry_after_s(response: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds of Retry-After, given as such or as a date (RFC 9110, 10.2.3); None without a readable one."""
    header = response.headers.get("Retry-After")
    if header is None:
        return None
    try:
        return float(urllib3.Retry(retry_after_max=10**9).parse_retry_after(header))
    except (InvalidHeader, ValueError, OverflowError):
        return None


def _phrase(response: urllib3.BaseHTTPResponse) -> str:
    return f" {response.reason[:60]}" if response.reason else ""


def told(error: BaseException) -> str:
    """An exception on one line, without object addresses, users and queries of URLs."""
    text = " ".join(str(error).split())
    text = re.sub(r"<[^>]*object at 0x[0-9a-f]+>:? ?", "", text)
    text = re.sub(r"//[^/@\s]*@", "//", text)
    text = re.sub(r"\?[^\s'\")]*", "", text)
    return f"{type(error).__name__}: {text}"[:200]
