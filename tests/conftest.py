"""Fixtures that all tests share: where the real data lie, an S3 server, and one Spark session per test run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faulty_proxy import FaultyProxy, faulty_proxy
from seaweed import Seaweed, running_seaweed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What uses the Spark session, itself or through another fixture, carries the marker ``spark``.

    These run in one process, one session for all; every other file in whichever of the processes is free.
    """
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.spark)
            item.add_marker(pytest.mark.xdist_group("spark"))
        else:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real inputs; tests that need it are skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data: {REAL_DATA} is absent")
    return REAL_DATA


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """``s3://…`` of an empty bucket on a local server; the environment points every process started later to it."""
    import logging

    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    boto3.client("s3").create_bucket(Bucket="dhs-tests")
    yield "s3://dhs-tests"
    server.stop()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A SeaweedFS server with an empty bucket. Nothing points to it before a test asks for :func:`seaweed_bucket`."""
    with running_seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def seaweed_bucket(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> str:
    """``s3://…`` on SeaweedFS; this process's environment points there until the test ends."""
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    return seaweed.bucket


@pytest.fixture(scope="session")
def running_proxy(seaweed: Seaweed) -> Iterator[FaultyProxy]:
    """A proxy in front of SeaweedFS that injects faults when told. Tests ask for :func:`proxy`."""
    with faulty_proxy(seaweed.endpoint) as running:
        yield running


@pytest.fixture
def proxy(running_proxy: FaultyProxy, seaweed_bucket: str, monkeypatch: pytest.MonkeyPatch) -> FaultyProxy:
    """The proxy without faults; this process goes through it."""
    running_proxy.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL", running_proxy.endpoint)
    return running_proxy


@pytest.fixture(scope="module")
def quick_retries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Few attempts with short pauses, and small parts, so that faults are soon over and small files have many parts."""
    import yaml
    from botocore.retries.standard import ExponentialBackoff

    from dhs_pipeline.config import conf_root
    from dhs_pipeline.storage import s3_client

    folder = tmp_path_factory.mktemp("quick") / "conf"
    shutil.copytree(conf_root(), folder)
    file = folder / "storage" / "default.yaml"
    quick = {"request_attempts": 4, "body_attempts": 3, "backoff_seconds": 0.01}
    quick |= {"parallel_read_above_mib": 1, "read_part_mib": 1, "multipart_above_mib": 6, "write_part_mib": 5}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | quick))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DHS_CONF", str(folder))
        patch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)
        s3_client.forget()
        yield
    s3_client.forget()


@pytest.fixture(scope="session")
def spark(s3_bucket: str) -> Iterator[SparkSession]:
    """One local session on two cores for the whole run: starting one costs more than most tests.

    It needs the S3 server only so that its workers inherit the server's address.
    """
    from dhs_pipeline.session import start_session

    session = start_session("tests", "local[2]")
    yield session
    session.stop()
