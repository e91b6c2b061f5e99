"""One S3 client and one pool of threads per process, made where they are first used.

A client cannot be pickled and must not be shared with a forked child, whose sockets it would read from. Both are
therefore kept by process id, and a fork forgets those of its parent.

Requests that fail are tried again by botocore (https://docs.aws.amazon.com/boto3/latest/guide/retries.html):
connections that cannot be made or break before the body, time-outs, 500, 502, 503, 504, SlowDown and its like, 429,
after a pause drawn between 0 and 1, 2, 4 … 20 seconds.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from dhs_pipeline.config import StorageSettings, load_section
from dhs_pipeline.storage.errors import StorageError

_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_VARIABLES = (
    *_ENDPOINT_VARIABLES,
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
)

_lock = threading.Lock()
_clients: dict[tuple[object, ...], Any] = {}
_pools: dict[int, ThreadPoolExecutor] = {}
_sent = threading.local()


@lru_cache(maxsize=1)
def storage_settings() -> StorageSettings:
    """conf/storage/default.yaml, read once per process. ConfigError if it cannot be used."""
    return load_section(StorageSettings, "storage", "default")


def client() -> Any:
    """This process's client for the endpoint, region and keys that the environment names now.

    Raises
    ------
    StorageError
        If the environment names an endpoint, profile or region that cannot be.
    """
    key = (os.getpid(), *(os.environ.get(name) for name in _VARIABLES))
    with _lock:
        if key not in _clients:
            _clients[key] = _new_client(storage_settings())
        return _clients[key]


def pool() -> ThreadPoolExecutor:
    """Threads for parts of files. What runs in it never waits for it."""
    with _lock:
        pid = os.getpid()
        if pid not in _pools:
            _pools[pid] = ThreadPoolExecutor(storage_settings().parallel_requests, thread_name_prefix="dhs-s3")
        return _pools[pid]


def requests_sent() -> int:
    """HTTP requests that this thread has sent, retries among them."""
    return getattr(_sent, "number", 0)


def _new_client(settings: StorageSettings) -> Any:
    import boto3.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    # Other stores are rarely set up for bucket names in host names; AWS wants them there.
    own_endpoint = any(os.environ.get(name) for name in _ENDPOINT_VARIABLES)
    config = Config(
        connect_timeout=settings.connect_timeout_seconds,
        read_timeout=settings.read_timeout_seconds,
        retries={"mode": settings.retry_mode, "total_max_attempts": settings.request_attempts},
        max_pool_connections=settings.max_connections,
        tcp_keepalive=True,
        request_checksum_calculation="when_supported",
        response_checksum_validation="when_supported",
        s3={"addressing_style": "path" if own_endpoint else "auto"},
    )
    try:
        made = boto3.session.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise StorageError(
            f"S3: no client can be made of the AWS_… variables: {' '.join(str(error).split())}"
        ) from error
    made.meta.events.register("before-send.s3", _count)
    return made


def _count(**_: object) -> None:
    _sent.number = requests_sent() + 1


def forget() -> None:
    """Drop the clients, threads and settings, as a forked child does: what is used next is made anew."""
    global _lock
    _lock = threading.Lock()  # a thread of the parent may have held it
    _clients.clear()
    _pools.clear()
    storage_settings.cache_clear()


os.register_at_fork(after_in_child=forget)
