"""What every stage does around its work: plan, resume, receipts, JSON, _SUCCESS.

A stage cuts its work into units whose names and outputs depend on the input alone. A worker writes the files of a unit
under their final names (whole or not at all), then a receipt; a unit with a receipt whose files are all there is done.
So the number of partitions is only scheduling, a killed stage continues where it stopped, and a finished one does
nothing. When all units have receipts the driver commits (:mod:`dhs_pipeline.commit`). Layout::

    <stage>/<table>/part-<unit>.parquet    _receipts/<unit>.json
    <stage>/_plan.json _units.json         before the work
    <stage>/_manifest.json _stage.json _SUCCESS    after it
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
import zipimport
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
from tqdm import tqdm

from dhs_pipeline import __version__
from dhs_pipeline.commit import commit, is_finished, is_whole, mark_finished, sizes_of, withdraw
from dhs_pipeline.config import config_hash
from dhs_pipeline.digest import Digest
from dhs_pipeline.failures import told_in_one_line
from dhs_pipeline.receipts import Receipt, UnitWriter, WrittenFile
from dhs_pipeline.storage import Location

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

U = TypeVar("U")


class StageError(RuntimeError):
    """A stage that cannot start or finish; the message is one line for the user."""


@dataclass(frozen=True)
class StageRun:
    """An opened stage."""

    name: str
    where: Location
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    plan_id: str
    started: float

    def writer(self, unit: str) -> UnitWriter:
        """What a worker writes the tables of one unit with."""
        return UnitWriter(self.where, self.plan_id, unit)

    def finished_summary(self) -> dict[str, Any] | None:
        """The stage's JSON if it has finished and every file that it committed is there."""
        return (self.where / "_stage.json").read_json() if is_whole(self.where) else None

    def finished_receipts(self) -> dict[str, Receipt]:
        """Receipts whose files are all there, by unit."""
        sizes = sizes_of(self.where)
        receipts = [r for r in read_receipts(self.where) if r.plan_id == self.plan_id]
        return {r.unit: r for r in receipts if all(sizes.get(path) == f.size_bytes for path, f in r.files.items())}

    def begin(self, units: int | None, rows: int | None) -> None:
        """Say what there is to do in all (None where it is not known), and take back an earlier commit."""
        withdraw(self.where)
        (self.where / "_units.json").write_json({"units": units, "rows": rows, "started_unix_s": time.time()})

    def finish(
        self, receipts: Sequence[Receipt], extra: Mapping[str, Any], files: Mapping[str, WrittenFile] | None = None
    ) -> dict[str, Any]:
        """Commit the output, write the stage's JSON and _SUCCESS; returns the JSON.

        ``files`` are those that no receipt holds.
        """
        written = dict(files or {}) | {path: file for r in receipts for path, file in r.files.items()}
        commit(self.where, self.plan_id, written)
        seconds = time.perf_counter() - self.started
        rows = sum(r.rows for r in receipts)
        statuses: Counter[str] = reduce(add, (Counter(r.statuses) for r in receipts), Counter())
        summary = {
            "stage": self.name,
            "code_version": __version__,
            "config": dict(self.config),
            "config_hash": config_hash(self.config),
            "plan_id": self.plan_id,
            "inputs": dict(self.inputs),
            "rows": rows,
            "rows_by_status": dict(sorted(statuses.items())),
            **_sum_counts(receipts),
            "digests": _sum_digests(receipts),
            "files": len(written),
            "bytes": sum(file.size_bytes for file in written.values()),
            "seconds": round(seconds, 3),
            "rows_per_second": round(rows / seconds, 2) if seconds > 0 else None,
            **_sum_efforts(receipts),
            **extra,
        }
        (self.where / "_stage.json").write_json(summary)
        mark_finished(self.where)
        return summary


def read_receipts(where: Location) -> list[Receipt]:
    """Every receipt of a stage, in order of unit."""
    folder = where / "_receipts"
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda file: Receipt.from_json(file.read_json()), folder.files(".json")))


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
    plan = {"stage": name, "code_version": __version__, "inputs": dict(inputs), "config": dict(config)}
    plan_id = config_hash(plan)
    existing = where / "_plan.json"
    if not existing.exists() and where.files(".parquet", recursive=True):
        raise StageError(f"{where}: exists and is not the output of stage {name}; choose another folder or --force")
    if not existing.put_if_absent(_as_json({**plan, "plan_id": plan_id, "config_hash": config_hash(config)})):
        _check_same_plan(where, existing.read_json(), plan)
    return StageRun(name, where, config, inputs, plan_id, time.perf_counter())


def _as_json(tree: Mapping[str, Any]) -> bytes:
    return (json.dumps(tree, indent=2, sort_keys=True) + "\n").encode()


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
    stage: StageRun,
    label: str,
    units: Sequence[U],
    work: Callable[[Iterator[U]], Iterator[Receipt]],
    *,
    done: Collection[Receipt],
    partitions: int | None,
    rows_of: Callable[[U], int],
    progress: bool,
) -> list[Receipt]:
    """mapPartitions over the units, with a progress bar in rows.

    Parameters
    ----------
    stage
        The stage that they belong to; an earlier commit of it is taken back.
    units
        In the order of their data, so that neighbours share bricks.
    work
        Runs in a worker: units in, receipts out. It has written what the receipts say.
    done
        Receipts of the units that need no work.
    partitions
        Spark partitions; None makes one per unit. It changes the schedule, never the output.
    rows_of
        Rows of a unit, for the bar.

    Raises
    ------
    JobFailedError
        If Spark gave up for a reason outside the code: a full disk, a store without answer, dying workers.
    """
    if not units:
        return []
    total = sum(rows_of(u) for u in units)
    stage.begin(len(units) + len(done), total + sum(r.rows for r in done))
    sc = spark.sparkContext
    rows_done = sc.accumulator(0)

    def counted(part: Iterator[U]) -> Iterator[Receipt]:
        for receipt in work(part):
            rows_done.add(receipt.rows)
            yield receipt
        _forget_archives()
        _spare_modules_from_collection(len(sys.modules))
        pa.default_memory_pool().release_unused()  # the heap is kept within a task (session.py), not from task to task

    slices = min(len(units), partitions or len(units))
    sc.setJobDescription(label)
    with told_in_one_line(label), _progress_bar(label, total, lambda: int(rows_done.value), progress):
        return list(sc.parallelize(units, slices).mapPartitions(counted).collect())


@cache
def _spare_modules_from_collection(modules: int) -> None:
    """Spark collects garbage after each of its tasks, which walks over all objects of all imported modules and compiled
    kernels (50 ms of processor); what is there after the first task is left out, and again where ``modules`` shows that
    more have been imported. Not after each, or cyclic garbage of later tasks would stay.
    """
    gc.collect()
    gc.freeze()


def _forget_archives() -> None:
    """Spark calls ``importlib.invalidate_caches()`` before each of its tasks, at which every archive that Python
    remembers on its path has its directory read again (0.13 s of processor). One that is forgotten is opened if needed.
    """
    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimport.zipimporter):
            del sys.path_importer_cache[path]


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


def _sum_efforts(receipts: Sequence[Receipt]) -> dict[str, Any]:
    """What the units cost together, and how that is spread."""
    efforts = [r.effort for r in receipts]
    per_row = sorted(1e3 * r.effort.seconds / r.rows for r in receipts if r.rows)
    return {
        "units": len(receipts),
        "units_retried": sum(e.attempt > 0 for e in efforts),
        "worker_seconds": round(sum(e.seconds for e in efforts), 3),
        "worker_cpu_seconds": round(sum(e.cpu_seconds for e in efforts), 3),
        "worker_ms_per_row": {
            name: round(per_row[int(share * (len(per_row) - 1))], 3)
            for name, share in (("p05", 0.05), ("p50", 0.5), ("p95", 0.95))
            if per_row
        },
        "worker_peak_rss_mb": round(max((e.peak_rss_mb for e in efforts), default=0.0), 1),
        "worker_hosts": len({e.host for e in efforts}),
    }
