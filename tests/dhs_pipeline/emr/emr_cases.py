"""What several tests of EMR share: a place, options of a run, and a server that plays EMR from a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dhs_pipeline.emr.jobs import Job, RunOptions, build_jobs
from dhs_pipeline.emr.requests import Place

PLACE = Place(
    bundle="s3://stage/dhs/1.2.3",
    log_uri="s3://stage/dhs/logs",
    version="1.2.3",
    region="us-east-1",
    banks=("s3://stage/banks/cosmos",),
    subnets=("subnet-0abc",),
    key_name="mine",
    tags={"owner": "someone"},
)

OPTIONS = RunOptions(
    out="s3://stage/runs/big",
    data="s3://bricks/dr10",
    parent="s3://stage/parent, LRG.parquet",
    bank="s3://stage/banks/cosmos",
    deep_bank=None,
    config="data",
    overrides=("design=sota", "manifest.folds=12"),
    artifacts=None,
    pairing=None,
)

CLEAN = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "not-so-secret-0123456789",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
"""An environment in which boto3 finds nothing but this."""


def all_jobs(generations: Sequence[str] = ("gen5", "gen7")) -> list[Job]:
    return build_jobs(OPTIONS, ("4a", "4b", "4c", "4p5"), generations)


Answer = tuple[int, Mapping[str, Any]] | None
"""HTTP status and JSON; None hangs up without an answer."""


def failure(status: int, code: str, message: str = "") -> Answer:
    return status, {"__type": code, "message": message}


@dataclass
class PlayedEmr:
    """What a server answers by operation (the last answer of a list stays), and what it was asked."""

    answers: dict[str, list[Answer] | Callable[[dict[str, Any]], Answer]]
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def answer(self, operation: str, request: dict[str, Any]) -> Answer:
        self.asked.append((operation, request))
        script = self.answers[operation]
        if callable(script):
            return script(request)
        return script.pop(0) if len(script) > 1 else script[0]

    def count(self, operation: str) -> int:
        return sum(asked == operation for asked, _ in self.asked)


@contextmanager
def playing(emr: PlayedEmr) -> Iterator[str]:
    """The URL of a server that speaks EMR's protocol (JSON 1.1)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = emr.answer(self.headers["X-Amz-Target"].rsplit(".", 1)[1], json.loads(body))
            if answer is None:
                self.close_connection = True
                return
            data = json.dumps(answer[1]).encode()
            self.send_response(answer[0])
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
