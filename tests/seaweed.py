"""A SeaweedFS server for tests: an S3 store over real HTTP that rejects wrong keys and knows conditional puts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_ACCESS_KEY, _SECRET_KEY = "test-access-key", "test-secret-key"
_START_SECONDS = 60
_MEMORY = "300MiB"


@dataclass(frozen=True)
class Seaweed:
    """A running server.

    Parameters
    ----------
    endpoint
        ``http://127.0.0.1:port``.
    bucket
        ``s3://…`` of an empty bucket.
    pid
        Of its process, the leader of a process group.
    """

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    pid: int

    def environment(self, endpoint: str | None = None) -> Mapping[str, str]:
        """What points a process to it, by way of a proxy at ``endpoint`` if one is given."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def running_seaweed(folder: Path, bucket: str = "dhs-seaweed") -> Iterator[Seaweed]:
    """Start it with its data in ``folder``, and end it with all that it started."""
    import boto3

    weed = Path(sys.executable).parent / "weed"
    data, keys, log = folder / "data", folder / "s3.json", folder / "weed.log"
    data.mkdir(parents=True)
    keys.write_text(json.dumps(_identities()))
    servers = ("master", "volume", "filer", "s3")
    numbers = free_ports(2 * len(servers))
    ports = [
        f"-{server}.{kind}={number}"
        for (server, kind), number in zip(
            ((s, k) for s in servers for k in ("port", "port.grpc")), numbers, strict=True
        )
    ]
    command = [
        *(str(weed), "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}"),
        *("-master.volumeSizeLimitMB=64", "-volume.max=50", "-master.telemetry=false", "-filer", "-s3"),
        *(f"-s3.config={keys}", "-s3.port.iceberg=0", "-s3.port.lance=0", *ports),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, start_new_session=True, env=os.environ | {"GOMEMLIMIT": _MEMORY}
        )
    endpoint = f"http://127.0.0.1:{numbers[servers.index('s3') * 2]}"
    made = Seaweed(endpoint, f"s3://{bucket}", _ACCESS_KEY, _SECRET_KEY, process.pid)
    try:
        _wait_until_it_answers(process, endpoint, log)
        client = boto3.session.Session(_ACCESS_KEY, _SECRET_KEY, region_name="us-east-1").client(
            "s3", endpoint_url=endpoint
        )
        client.create_bucket(Bucket=bucket)
        yield made
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(data)


def free_ports(number: int) -> list[int]:
    """Ports that nothing listens on, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _identities() -> dict[str, object]:
    credentials = [{"accessKey": _ACCESS_KEY, "secretKey": _SECRET_KEY}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "tests", "credentials": credentials, "actions": actions}]}


def _wait_until_it_answers(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    """Any HTTP answer will do; without keys it is 403."""
    deadline_s = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=5)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"SeaweedFS did not start: {log.read_text(errors='replace')[-2000:]}")
