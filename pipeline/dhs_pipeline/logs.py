"""Structured logs of workers: one JSON object a line on stderr, which Spark and YARN keep for each executor.

The environment variable ``DHS_LOG`` says how much: ``off`` (the default of local sessions), ``warning`` (rows that
failed, with their names) or ``info`` (units done, too). conf/emr sets it for clusters.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

MAX_ROWS_PER_UNIT = 20
"""Failed rows that are named for each unit and table; all of them stand in the table itself."""

_LEVELS = {"off": logging.CRITICAL + 1, "warning": logging.WARNING, "info": logging.INFO}
_ROW_NAMES = ("task_id", "host_id")


class JsonLines(logging.Handler):
    """Each record and its fields as one line of JSON on what sys.stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
            **_where(),
        }
        print(json.dumps(fields, default=str), file=sys.stderr, flush=True)


def log_event(event: str, **fields: object) -> None:
    """Say that something went as it should."""
    _logger().info(event, extra={"fields": fields})


def log_failed_rows(unit: str, table_name: str, table: pa.Table) -> None:
    """Name the rows of a table that are not OK: the first of them, and how many there are."""
    if "status" not in table.column_names or not _logger().isEnabledFor(logging.WARNING):
        return
    failed = table.filter(pc.not_equal(table.column("status"), "OK"))
    names = [n for n in (*_ROW_NAMES, "status", "message") if n in table.column_names]
    for row in failed.slice(0, MAX_ROWS_PER_UNIT).select(names).to_pylist():
        _logger().warning("row failed", extra={"fields": {"unit": unit, "table": table_name, **row}})
    if failed.num_rows > MAX_ROWS_PER_UNIT:
        fields = {"unit": unit, "table": table_name, "failed_rows": failed.num_rows}
        _logger().warning("more rows failed", extra={"fields": fields})


def _logger() -> logging.Logger:
    logger = logging.getLogger("dhs")
    if not logger.handlers:
        logger.addHandler(JsonLines())
        logger.propagate = False
    logger.setLevel(_level(os.environ.get("DHS_LOG", "off")))
    return logger


def _level(name: str) -> int:
    if name not in _LEVELS:
        raise ValueError(f"DHS_LOG must be one of {', '.join(_LEVELS)}, got {name!r}")
    return _LEVELS[name]


def _where() -> dict[str, object]:
    """Process and, inside a Spark task, the task."""
    where: dict[str, object] = {"host": socket.gethostname(), "pid": os.getpid()}
    if "pyspark" in sys.modules:
        from pyspark import TaskContext

        if (context := TaskContext.get()) is not None:
            where |= {
                "spark_stage": context.stageId(),
                "spark_partition": context.partitionId(),
                "spark_attempt": context.attemptNumber(),
            }
    return where
