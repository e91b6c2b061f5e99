"""A real HTTP server on a free port that misbehaves on request, and remembers what it was asked."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Request:
    """One request and the status that it was answered with (0: none)."""

    path: str
    range: str | None
    if_range: str | None
    agent: str
    status: int


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: BadServer

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        plays = self.server.plays.get(path.partition("?")[0], [])
        with self.server.lock:
            play = plays.pop(0) if plays else self.server.always
        self.sent_status = 0
        try:
            play(self, self.server.files.get(path.partition("?")[0]))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            asked = self.headers
            entry = Request(path, asked["Range"], asked["If-Range"], asked.get("User-Agent", ""), self.sent_status)
            with self.server.lock:
                self.server.log.append(entry)

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.sent_status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


Play = Callable[[Handler, bytes | None], None]


class BadServer(ThreadingHTTPServer):
    """Serves ``files``; ``plays[path]`` are taken one by one instead of good behaviour."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.plays: dict[str, list[Play]] = {}
        self.always: Play = good
        self.log: list[Request] = []
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, path: str) -> list[Request]:
        return [r for r in self.log if r.path.partition("?")[0] == path]

    def handle_error(self, request: object, client_address: object) -> None:
        pass


def etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def good(handler: Handler, content: bytes | None) -> None:
    """404, the whole, or with a Range that If-Range allows the rest."""
    if content is None:
        handler.start(404, {"Content-Length": "0"})
        return
    wanted, condition = handler.headers["Range"], handler.headers["If-Range"]
    if wanted and condition in (None, etag(content)):
        send_rest(handler, content)
        return
    handler.start(200, {"Content-Length": str(len(content)), "ETag": etag(content)})
    handler.wfile.write(content)


def send_rest(handler: Handler, content: bytes | None) -> None:
    """Honours Range and nothing else: If-Range is not heard."""
    assert content is not None
    first = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))
    if first >= len(content):
        handler.start(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(content)}"})
        return
    span = f"bytes {first}-{len(content) - 1}/{len(content)}"
    rest = content[first:]
    handler.start(206, {"Content-Length": str(len(rest)), "Content-Range": span, "ETag": etag(content)})
    handler.wfile.write(rest)


def whole(handler: Handler, content: bytes | None) -> None:
    """Knows no Range."""
    assert content is not None
    handler.start(200, {"Content-Length": str(len(content)), "ETag": etag(content)})
    handler.wfile.write(content)


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Play:
    def play(handler: Handler, content: bytes | None) -> None:
        handler.start(code, {"Content-Length": str(len(body)), **(headers or {})})
        handler.wfile.write(body)

    return play


def cut_after(sent: int, promised_more: int = 0) -> Play:
    """All headers (with a length that may be too long), some bytes, and the connection closed."""

    def play(handler: Handler, content: bytes | None) -> None:
        assert content is not None
        handler.start(200, {"Content-Length": str(len(content) + promised_more), "ETag": etag(content)})
        handler.wfile.write(content[:sent])
        handler.close_connection = True

    return play


def too_short_a_length(length: int) -> Play:
    """Content-Length says less than the file has, and so much is sent."""

    def play(handler: Handler, content: bytes | None) -> None:
        assert content is not None
        handler.start(200, {"Content-Length": str(length), "ETag": etag(content)})
        handler.wfile.write(content[:length])

    return play


def no_length(sent: int) -> Play:
    """As servers of old: no length, the body ends where the connection does."""

    def play(handler: Handler, content: bytes | None) -> None:
        assert content is not None
        handler.start(200, {"Connection": "close", "ETag": etag(content)})
        handler.wfile.write(content[:sent])
        handler.close_connection = True

    return play


def reset_after(sent: int) -> Play:
    """A connection that is reset in the middle of the body, or before any answer."""

    def play(handler: Handler, content: bytes | None) -> None:
        if sent:
            assert content is not None
            handler.start(200, {"Content-Length": str(len(content)), "ETag": etag(content)})
            handler.wfile.write(content[:sent])
            handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.close_connection = True

    return play


def moved_to(location: str) -> Play:
    return status(302, {"Location": location})


def held_after(sent: int, reached: threading.Event, go_on: threading.Event) -> Play:
    """Some bytes, then nothing until the test says so."""

    def play(handler: Handler, content: bytes | None) -> None:
        assert content is not None
        handler.start(200, {"Content-Length": str(len(content)), "ETag": etag(content)})
        handler.wfile.write(content[:sent])
        handler.wfile.flush()
        reached.set()
        go_on.wait(30)
        handler.close_connection = True

    return play
