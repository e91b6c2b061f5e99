"""An HTTP proxy between an S3 client and its store that injects faults, and counts requests and bytes.

The store's answer is passed on as it is, but for the faults that a rule asks for. The Host header is passed on too:
requests are signed for the address that the client sees, and the store checks the signature against that header.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding"})


class Fault(StrEnum):
    """What is done to one request or to its answer."""

    NONE = "none"
    SLOW_DOWN = "503 SlowDown instead of asking the store"
    INTERNAL_ERROR = "500 InternalError instead of asking the store"
    TOO_MANY = "429 without a body instead of asking the store"
    CONFLICT = "409 ConditionalRequestConflict instead of asking the store"
    RESET = "the connection is reset before an answer"
    RESET_IN_BODY = "the connection is reset in the middle of the body"
    LOST_ANSWER = "the store does it, and the connection is reset instead of an answer"
    TRUNCATED = "the body ends in the middle, the connection is closed in order"
    SLOW_FIRST_BYTE = "the first byte comes late"
    CORRUPT = "one bit of the body is another"
    SHORT_LENGTH = "Content-Length and body are one byte less than the object"
    LONG_LENGTH = "Content-Length says one byte more than comes"
    DENIED = "403 AccessDenied instead of asking the store"


@dataclass(frozen=True)
class Request:
    """What a rule sees, and what is kept of every request."""

    method: str
    path: str
    byte_range: str | None
    if_match: str | None
    status: int = 0
    body_bytes: int = 0
    fault: Fault = Fault.NONE


Rule = Callable[[Request], Fault]


@dataclass
class FaultyProxy:
    """A running proxy; ``rule`` may be changed at any time.

    Parameters
    ----------
    slow_seconds
        How late SLOW_FIRST_BYTE is.
    """

    endpoint: str
    slow_seconds: float = 1.0
    rule: Rule = lambda _: Fault.NONE
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, *faults: Fault, method: str | None = None) -> None:
        """These faults for the next requests (of one method), one each; none after them."""
        left = list(faults)
        lock = threading.Lock()

        def rule(request: Request) -> Fault:
            with lock:
                return left.pop(0) if left and method in (None, request.method) else Fault.NONE

        self.rule = rule

    def always(self, fault: Fault, method: str | None = None) -> None:
        self.rule = lambda request: fault if method in (None, request.method) else Fault.NONE

    def at_random(self, faults: Sequence[Fault], probability: float, seed: int) -> None:
        """One of the faults now and then."""
        rng, lock = random.Random(seed), threading.Lock()

        def rule(_: Request) -> Fault:
            with lock:
                return rng.choice(faults) if rng.random() < probability else Fault.NONE

        self.rule = rule

    def reset(self) -> None:
        self.rule = lambda _: Fault.NONE
        self.requests.clear()

    def seen(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]


@contextmanager
def faulty_proxy(store: str) -> Iterator[FaultyProxy]:
    """A proxy in front of the store at ``http://host:port``."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy = FaultyProxy(f"http://127.0.0.1:{server.server_address[1]}")
    server.store = urlsplit(store).netloc
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.proxy
    server.shutdown()
    server.server_close()
    thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: FaultyProxy
    store: str

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that went away


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _handle(self) -> None:
        body = self._body()
        request = Request(self.command, self.path, self.headers.get("Range"), self.headers.get("If-Match"))
        proxy = self.server.proxy
        fault = proxy.rule(request)
        self._request = replace(request, fault=fault)
        with proxy.lock:
            self._place = len(proxy.requests)
            proxy.requests.append(self._request)
        self._play(fault, body)

    def _keep(self, status: int, body_bytes: int) -> None:
        """Before the client can know, so that tests find it."""
        proxy = self.server.proxy
        with proxy.lock:
            if self._place < len(proxy.requests):
                proxy.requests[self._place] = replace(self._request, status=status, body_bytes=body_bytes)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815 - names of http.server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            pass  # http.server has said "continue" already
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _play(self, fault: Fault, body: bytes) -> None:
        errors = {
            Fault.SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
            Fault.INTERNAL_ERROR: (500, "InternalError", "We encountered an internal error. Please try again."),
            Fault.CONFLICT: (409, "ConditionalRequestConflict", "The conditional request cannot succeed."),
            Fault.DENIED: (403, "AccessDenied", "Access Denied"),
        }
        if fault in errors:
            return self._error(*errors[fault])
        if fault is Fault.TOO_MANY:
            return self._send(429, [("Content-Length", "0")], b"")
        if fault is Fault.RESET:
            return self._reset()
        if fault is Fault.SLOW_FIRST_BYTE:
            time.sleep(self.server.proxy.slow_seconds)
        status, headers, data = self._ask_store(body)
        if fault is Fault.LOST_ANSWER:
            return self._reset()
        return self._send_faulty(fault, status, headers, data)

    def _ask_store(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        store = http.client.HTTPConnection(self.server.store, timeout=120)
        try:
            store.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in (*_HOP_HEADERS, "expect"):
                    store.putheader(name, value)
            store.endheaders(body or None)
            answer = store.getresponse()
            data = answer.read()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_HEADERS]
        finally:
            store.close()
        if not any(name.lower() == "content-length" for name, _ in headers):
            headers.append(("Content-Length", str(len(data))))
        return answer.status, headers, data

    def _send_faulty(self, fault: Fault, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        if fault is Fault.CORRUPT and data:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]
        if fault is Fault.SHORT_LENGTH and data:
            data = data[:-1]
            headers = _with_length(headers, len(data))
        if fault is Fault.LONG_LENGTH:
            self.close_connection = True
            headers = _with_length(headers, len(data) + 1)
        if fault in (Fault.TRUNCATED, Fault.RESET_IN_BODY) and data:
            self._send(status, headers, data[: len(data) // 2])
            self.close_connection = True
            if fault is Fault.RESET_IN_BODY:
                self._reset()
            return
        self._send(status, headers, data)

    def _send(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self._keep(status, len(data))
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def _error(self, status: int, code: str, message: str) -> None:
        told = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self._send(status, [("Content-Length", str(len(told)))], told)

    def _reset(self) -> None:
        """RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()


def _with_length(headers: Sequence[tuple[str, str]], length: int) -> list[tuple[str, str]]:
    return [(name, str(length) if name.lower() == "content-length" else value) for name, value in headers]
