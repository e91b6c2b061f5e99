"""Fixtures that all tests share: where the real data lie, an S3 server, and one Spark session per test run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What uses the Spark session, itself or through another fixture, carries the marker ``spark``."""
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.spark)


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
def spark(s3_bucket: str) -> Iterator[SparkSession]:
    """One local session on two cores for the whole run: starting one costs more than most tests.

    It needs the S3 server only so that its workers inherit the server's address.
    """
    from dhs_pipeline.session import start_session

    session = start_session("tests", "local[2]")
    yield session
    session.stop()
