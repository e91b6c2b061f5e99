"""Opt-in: Spark itself reads our output over s3a:// (``pytest -m s3a``; the jars: docs/storage.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dhs_pipeline.session import find_java_home
from dhs_pipeline.storage import Location, write_parquet
from seaweed import Seaweed

JARS = os.environ.get("DHS_S3A_JARS")

pytestmark = [
    pytest.mark.s3a,
    pytest.mark.spark,
    pytest.mark.skipif(
        not JARS, reason="DHS_S3A_JARS does not name the jars of hadoop-aws and the AWS SDK (comma-separated)"
    ),
]

# The connector of Hadoop 3.3 and the libraries of Spark 4 differ: these must be plain numbers, and of the older SDK.
READ = """
import json, sys
from pyspark.sql import SparkSession

endpoint, uri, jars = sys.argv[1:]
settings = {
    "endpoint": endpoint, "path.style.access": "true", "connection.ssl.enabled": "false",
    "aws.credentials.provider": "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
    "threads.keepalivetime": "60", "connection.establish.timeout": "5000", "connection.timeout": "60000",
    "multipart.purge.age": "86400", "connection.request.timeout": "60000",
}
builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").config("spark.jars", jars)
for name, value in settings.items():
    builder = builder.config("spark.hadoop.fs.s3a." + name, value)
spark = builder.getOrCreate()
table = spark.read.parquet(uri.replace("s3://", "s3a://"))
sums = table.selectExpr("sum(x) AS x", "sum(octet_length(stamp_npz)) AS stamp_bytes", "count(*) AS rows")
print("READ " + json.dumps(sums.collect()[0].asDict()))
spark.stop()
"""


def test_spark_reads_what_we_wrote(seaweed: Seaweed, seaweed_bucket: str, tmp_path: Path) -> None:
    import json

    rng = np.random.default_rng(1)
    folder = Location.of(seaweed_bucket) / "s3a" / "region_split=train"
    for part in range(3):
        stamps = [rng.bytes(2000) for _ in range(50)]
        table = pa.table({"x": np.arange(50) + 50 * part, "stamp_npz": stamps})
        write_parquet(table, folder / f"part-{part:05d}.parquet", row_group_rows=20)
    (folder / "_manifest.json").write_json({})  # Spark passes over names that begin with an underscore
    script = tmp_path / "read.py"
    script.write_text(READ)
    environment = {"JAVA_HOME": find_java_home(), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    ended = subprocess.run(
        [sys.executable, str(script), seaweed.endpoint, str(folder), JARS or ""],
        env=os.environ | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("READ ")]
    assert json.loads(line.removeprefix("READ ")) == {"x": sum(range(150)), "stamp_bytes": 300_000, "rows": 150}
