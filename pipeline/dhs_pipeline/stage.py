"""What every stage does around its work: plan, resume, receipts, JSON, _SUCCESS.

A stage cuts its work into units whose names and outputs depend on the input alone. A worker writes the files of a unit
under their final names (whole or not at all), then a receipt; a unit with a receipt whose files are all there is done.
So the number of partitions is only scheduling, a killed stage continues where it stopped, and a finished one does
nothing. Layout::

    <stage>/<table>/part-….parquet    _receipts/<unit>.json    _plan.json    _stage.json    _SUCCESS
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
from tqdm import tqdm

from dhs_pipeline import __version__
from dhs_pipeline.config import config_hash
from dhs_pipeline.digest import Digest, digest_table
from dhs_pipeline.storage import Location, write_parquet

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

U = TypeVar("U")


class StageError(RuntimeError):
    """A stage that cannot start or finish; the message is one line for the user."""


@dataclass(frozen=True)
class Receipt:
    """What a worker did for one unit.

    Parameters
    ----------
    unit
        Its name.
    rows
        Rows that went in.
    files
        Relative path → bytes.
    digests
        Table → digest of the rows written to it.
    statuses
        Status → rows.
    seconds
        Time in the worker.
    counts
        Name of a further count → value → rows.
    """

    unit: str
    rows: int
    files: Mapping[str, int]
    digests: Mapping[str, str]
    statuses: Mapping[str, int]
    seconds: float
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass
class UnitWriter:
    """Writes the tables of one unit and makes its receipt."""

    stage_dir: Location
    unit: str
    started: float = field(default_factory=time.perf_counter)
    files: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def write(self, folder: str, table: pa.Table, *, row_group_rows: int) -> None:
        """Write one table as ``<folder>/part-<unit>.parquet``."""
        relative = f"{folder}/part-{self.unit}.parquet"
        size = write_parquet(table, self.stage_dir / relative, row_group_rows=row_group_rows)
        self._record(folder, relative, size, table)

    def adopt(self, folder: str, table: pa.Table) -> None:
        """Count a file of this unit that an earlier step wrote."""
        relative = f"{folder}/part-{self.unit}.parquet"
        self._record(folder, relative, (self.stage_dir / relative).size() or 0, table)

    def _record(self, folder: str, relative: str, size: int, table: pa.Table) -> None:
        self.files[relative] = size
        self.digests[folder] = str(digest_table(table))

    def finish(
        self, rows: int, statuses: Mapping[str, int], counts: Mapping[str, Mapping[str, int]] | None = None
    ) -> Receipt:
        seconds = time.perf_counter() - self.started
        plain = {name: dict(count) for name, count in (counts or {}).items()}
        receipt = Receipt(self.unit, rows, self.files, self.digests, dict(statuses), seconds, plain)
        (self.stage_dir / "_receipts" / f"{self.unit}.json").write_json(asdict(receipt))
        return receipt


@dataclass(frozen=True)
class StageRun:
    """An opened stage."""

    name: str
    where: Location
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    started: float

    def finished_receipts(self) -> dict[str, Receipt]:
        """Receipts whose files are all there, by unit."""
        folder = self.where / "_receipts"
        with ThreadPoolExecutor(16) as pool:
            receipts = list(pool.map(lambda r: Receipt(**r.read_json()), folder.files(".json")))
        sizes = self._file_sizes()
        return {r.unit: r for r in receipts if all(sizes.get(f) == n for f, n in r.files.items())}

    def _file_sizes(self) -> dict[str, int]:
        base = len(self.where.uri) + 1
        return {f.uri[base:]: size for f, size in self.where.files_with_sizes(".parquet", recursive=True)}

    def finish(self, receipts: Sequence[Receipt], extra: Mapping[str, Any]) -> dict[str, Any]:
        """Write the stage's JSON and _SUCCESS; returns the JSON."""
        seconds = time.perf_counter() - self.started
        rows = sum(r.rows for r in receipts)
        statuses: Counter[str] = reduce(add, (Counter(r.statuses) for r in receipts), Counter())
        summary = {
            "stage": self.name,
            "code_version": __version__,
            "config": dict(self.config),
            "config_hash": config_hash(self.config),
            "inputs": dict(self.inputs),
            "rows": rows,
            "rows_by_status": dict(sorted(statuses.items())),
            **_sum_counts(receipts),
            "digests": _sum_digests(receipts),
            "files": sum(len(r.files) for r in receipts),
            "bytes": sum(sum(r.files.values()) for r in receipts),
            "seconds": round(seconds, 3),
            "rows_per_second": round(rows / seconds, 2) if seconds > 0 else None,
            "worker_seconds": round(sum(r.seconds for r in receipts), 3),
            **extra,
        }
        (self.where / "_stage.json").write_json(summary)
        (self.where / "_SUCCESS").write_bytes(b"")
        return summary


def open_stage(
    name: str, where: Location, config: Mapping[str, Any], inputs: Mapping[str, str], *, force: bool
) -> StageRun:
    """Make or resume the folder of a stage.

    Raises
    ------
    StageError
        If the folder holds something else, or the same stage with another configuration, input or code version.
    """
    if force:
        where.delete()
    where.make_dir()
    where.check_writable()
    plan = {
        "stage": name,
        "code_version": __version__,
        "config_hash": config_hash(config),
        "inputs": dict(inputs),
        "config": dict(config),
    }
    existing = where / "_plan.json"
    if existing.exists():
        _check_same_plan(where, existing.read_json(), plan)
    elif where.files(".parquet", recursive=True):
        raise StageError(f"{where}: exists and is not the output of stage {name}; choose another folder or --force")
    else:
        existing.write_json(plan)
    return StageRun(name, where, config, inputs, time.perf_counter())


def _check_same_plan(where: Location, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    if old.get("stage") != new["stage"]:
        raise StageError(f"{where}: holds stage {old.get('stage')}, not {new['stage']}; choose another folder")
    for part in ("code_version", "config", "inputs"):
        if (difference := first_difference(old.get(part), new[part], part)) is not None:
            raise StageError(
                f"{where}: exists and was made otherwise ({difference}); choose another output folder or --force"
            )


def first_difference(old: Any, new: Any, at: str = "") -> str | None:
    """The first key, in order of name, whose values differ, with both; None if none does."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(set(old) | set(new)):
            found = first_difference(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))
            if found is not None:
                return found
        return None
    normal_old, normal_new = (list(v) if isinstance(v, tuple) else v for v in (old, new))
    return None if normal_old == normal_new else f"{at}: {normal_old!r} before, {normal_new!r} now"


def run_units(
    spark: SparkSession,
    label: str,
    units: Sequence[U],
    work: Callable[[Iterator[U]], Iterator[Receipt]],
    *,
    partitions: int | None,
    rows_of: Callable[[U], int],
    progress: bool,
) -> list[Receipt]:
    """mapPartitions over the units, with a progress bar in rows.

    Parameters
    ----------
    units
        In the order of their data, so that neighbours share bricks.
    work
        Runs in a worker: units in, receipts out. It has written what the receipts say.
    partitions
        Spark partitions; None makes one per unit. It changes the schedule, never the output.
    rows_of
        Rows of a unit, for the bar.
    """
    if not units:
        return []
    sc = spark.sparkContext
    done = sc.accumulator(0)

    def counted(part: Iterator[U]) -> Iterator[Receipt]:
        for receipt in work(part):
            done.add(receipt.rows)
            yield receipt

    slices = min(len(units), partitions or len(units))
    sc.setJobDescription(label)
    total = sum(rows_of(u) for u in units)
    with _progress_bar(label, total, lambda: int(done.value), progress):
        return list(sc.parallelize(units, slices).mapPartitions(counted).collect())


class _progress_bar:  # noqa: N801 - a context manager, read as a verb
    """A bar that follows a number which changes elsewhere."""

    def __init__(self, label: str, total: int, value: Callable[[], int], shown: bool) -> None:
        self._bar = tqdm(total=total, desc=label, unit="row", disable=not shown, dynamic_ncols=True)
        self._value = value
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._update()
        self._bar.total = self._bar.n  # totals are estimates where a stage makes its own rows
        self._bar.close()

    def _follow(self) -> None:
        while not self._stop.wait(0.3):
            self._update()

    def _update(self) -> None:
        self._bar.update(min(self._value(), self._bar.total) - self._bar.n)


def is_finished(where: Location) -> bool:
    return (where / "_SUCCESS").exists()


def require_finished(where: Location, name: str) -> dict[str, Any]:
    """The JSON of a stage that another one needs.

    Raises
    ------
    StageError
        If the stage has not finished.
    """
    if not is_finished(where):
        raise StageError(f"{where}: stage {name} has not finished there (no _SUCCESS); run it first")
    return (where / "_stage.json").read_json()


def _sum_counts(receipts: Sequence[Receipt]) -> dict[str, dict[str, int]]:
    totals: dict[str, Counter[str]] = {}
    for receipt in receipts:
        for name, counts in receipt.counts.items():
            totals[name] = totals.get(name, Counter()) + Counter(counts)
    return {name: dict(sorted(total.items())) for name, total in sorted(totals.items())}


def _sum_digests(receipts: Sequence[Receipt]) -> dict[str, str]:
    totals: dict[str, Digest] = {}
    for receipt in receipts:
        for table, text in receipt.digests.items():
            totals[table] = totals.get(table, Digest()) + Digest.parse(text)
    return {table: str(total) for table, total in sorted(totals.items())}
