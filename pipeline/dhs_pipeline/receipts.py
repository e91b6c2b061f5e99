"""What a worker leaves behind for each unit of work: its files, and a receipt that says what is in them."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa

from dhs_pipeline.digest import Digest, digest_table
from dhs_pipeline.logs import log_event, log_failed_rows
from dhs_pipeline.storage import Location, encode_parquet, write_parquet_stream
from dhs_pipeline.storage.parquet import Compression


@dataclass(frozen=True)
class WrittenFile:
    """A file as it was written.

    Parameters
    ----------
    size_bytes
        Its size.
    sha256
        Of its bytes, in hex.
    """

    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> WrittenFile:
        return cls(len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Effort:
    """What a unit cost, for the record: nothing in the data depends on it.

    Parameters
    ----------
    seconds, cpu_seconds
        Wall and processor time in the worker.
    peak_rss_mb
        The most memory that the worker process has held since it started, in 10^6 bytes.
    finished_unix_s
        When the receipt was written.
    host, pid
        Where.
    attempt
        Spark's number of the task's attempt: above 0 after a failure or a speculative copy.
    """

    seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    finished_unix_s: float
    host: str
    pid: int
    attempt: int


@dataclass(frozen=True)
class Receipt:
    """What a worker did for one unit.

    Parameters
    ----------
    unit
        Its name.
    plan_id
        The plan that it belongs to (:func:`dhs_pipeline.stage.open_stage`).
    rows
        Rows that went in.
    files
        Relative path → what was written there.
    digests
        Table → digest of the rows written to it.
    statuses
        Status → rows.
    effort
        What it cost.
    counts
        Name of a further count → value → rows.
    """

    unit: str
    plan_id: str
    rows: int
    files: Mapping[str, WrittenFile]
    digests: Mapping[str, str]
    statuses: Mapping[str, int]
    effort: Effort
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Receipt:
        files = {path: WrittenFile(**file) for path, file in tree["files"].items()}
        return cls(**{**tree, "files": files, "effort": Effort(**tree["effort"])})


class SupersededError(RuntimeError):
    """The stage's folder has been given to another plan since this worker started."""


@dataclass
class UnitWriter:
    """Writes the tables of one unit and makes its receipt."""

    stage_dir: Location
    plan_id: str
    unit: str
    started: float = field(default_factory=time.perf_counter)
    started_cpu: float = field(default_factory=time.process_time)
    files: dict[str, WrittenFile] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def write(self, folder: str, table: pa.Table, *, row_group_rows: int) -> None:
        """Write one table as ``<folder>/part-<unit>.parquet``.

        Raises
        ------
        SupersededError
            If the stage's plan is no longer the one this unit belongs to: a worker that a ``--force`` left behind
            must not write over the new plan's files.
        """
        data = encode_parquet(table, row_group_rows=row_group_rows)
        self._check_plan()
        (self.stage_dir / self._path(folder)).write_bytes(data)
        self._record(folder, data, table)
        log_failed_rows(self.unit, folder, table)

    def write_stream(
        self,
        folder: str,
        tables: Iterable[pa.Table],
        schema: pa.Schema,
        *,
        row_group_rows: int,
        pixel_compression: Compression = "zstd",
    ) -> int:
        """As :meth:`write`, of tables that together would not fit into memory; returns their rows."""
        digest = Digest()

        def noted(table: pa.Table) -> pa.Table:
            nonlocal digest
            digest += digest_table(table)
            log_failed_rows(self.unit, folder, table)
            return table

        self._check_plan()
        with (self.stage_dir / self._path(folder)).writing() as file:
            sink = _Hashed(file)
            rows = write_parquet_stream(
                map(noted, tables), schema, sink, row_group_rows=row_group_rows, pixel_compression=pixel_compression
            )
        self.files[self._path(folder)] = WrittenFile(sink.size_bytes, sink.hash.hexdigest())
        self.digests[folder] = str(digest)
        return rows

    def adopt(self, folder: str, table: pa.Table) -> None:
        """Count a file of this unit that an earlier step wrote."""
        self._record(folder, (self.stage_dir / self._path(folder)).read_bytes(), table)

    def finish(
        self, rows: int, statuses: Mapping[str, int], counts: Mapping[str, Mapping[str, int]] | None = None
    ) -> Receipt:
        """Write the receipt; from here on the unit counts as done."""
        plain = {name: dict(count) for name, count in (counts or {}).items()}
        receipt = Receipt(
            self.unit, self.plan_id, rows, self.files, self.digests, dict(statuses), self._effort(), plain
        )
        (self.stage_dir / "_receipts" / f"{self.unit}.json").write_json(asdict(receipt))
        log_event("unit done", unit=self.unit, rows=rows, seconds=round(receipt.effort.seconds, 3), **statuses)
        return receipt

    def _path(self, folder: str) -> str:
        return f"{folder}/part-{self.unit}.parquet"

    def _check_plan(self) -> None:
        found = (self.stage_dir / "_plan.json").read_json().get("plan_id")
        if found != self.plan_id:
            raise SupersededError(f"{self.stage_dir}: plan {self.plan_id[:12]} has given way to {str(found)[:12]}")

    def _record(self, folder: str, data: bytes, table: pa.Table) -> None:
        self.files[self._path(folder)] = WrittenFile.of(data)
        self.digests[folder] = str(digest_table(table))

    def _effort(self) -> Effort:
        return Effort(
            seconds=time.perf_counter() - self.started,
            cpu_seconds=time.process_time() - self.started_cpu,
            peak_rss_mb=_peak_rss_mb(),
            finished_unix_s=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            attempt=_attempt(),
        )


class _Hashed(io.RawIOBase):
    """A file that is written from start to end, with the checksum of what went in."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.size_bytes = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size_bytes

    def write(self, data: Any) -> int:
        self.hash.update(data)
        written = self._file.write(data)
        self.size_bytes += written
        return written


def _peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def _attempt() -> int:
    """Spark's attempt number; 0 outside a Spark task."""
    if "pyspark" not in sys.modules:
        return 0
    from pyspark import TaskContext

    context = TaskContext.get()
    return 0 if context is None else context.attemptNumber()
