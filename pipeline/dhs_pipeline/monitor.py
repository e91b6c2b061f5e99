"""``dhs status``: how far a run is, how fast, what failed; of a running run or a finished one, local or on S3.

It reads what stages leave behind (plan, unit count, receipts, commit), never Spark: so it works from any machine that
sees the run directory, while the cluster runs and after it is gone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from dhs_pipeline.commit import is_finished, is_whole, verify
from dhs_pipeline.receipts import Receipt
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location

STALLED_AFTER_S = 600.0
"""Without a receipt for so long a stage that has not finished counts as stopped: units take seconds to minutes."""


class StageState(StrEnum):
    STARTED = "started"
    RUNNING = "running"
    STOPPED = "stopped"
    FINISHED = "finished"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class StageProgress:
    """One stage of a run.

    Parameters
    ----------
    name, where
        Such as ``4c gen7``, and its folder.
    state
        ``started`` has no receipt yet, ``stopped`` none for :data:`STALLED_AFTER_S`, ``damaged`` has finished and
        lost files since.
    units_done, units, rows_done, rows
        So far, and in all; None where that is not known.
    rows_by_status
        Of the units done.
    rows_per_s, remaining_s
        Over the last units, and what is left at that rate; None if it cannot be told.
    ms_per_row, peak_rss_mb, units_retried, hosts
        From the receipts: median time in a worker, the largest worker, units that took more than one attempt, machines.
    """

    name: str
    where: str
    state: StageState
    units_done: int
    units: int | None
    rows_done: int
    rows: int | None
    rows_by_status: dict[str, int]
    rows_per_s: float | None
    remaining_s: float | None
    ms_per_row: float | None
    peak_rss_mb: float
    units_retried: int
    hosts: int

    @property
    def failed_rows(self) -> int:
        good = {"OK", "TASK"}
        return sum(n for status, n in self.rows_by_status.items() if status not in good)


@dataclass
class Monitor:
    """Looks at one run again and again; receipts once read are kept."""

    run: RunDir
    seen: dict[str, Receipt] = field(default_factory=dict)

    def look(self, now_unix_s: float | None = None) -> list[StageProgress]:
        """The stages that have been started, in the order of the data.

        Raises
        ------
        StageError
            If this is no run directory.
        """
        if not self.run.record.exists():
            raise StageError(f"{self.run.where}: not a run directory (no run.json)")
        now = time.time() if now_unix_s is None else now_unix_s
        folders = [self.run.phase4a, self.run.phase4b]
        for parent in ("phase4c", "phase4p5"):
            folders += [self.run.where / parent / name for name in (self.run.where / parent).folders()]
        return [self._stage(folder, now) for folder in folders if (folder / "_plan.json").exists()]

    def _stage(self, where: Location, now: float) -> StageProgress:
        plan: dict[str, Any] = (where / "_plan.json").read_json()
        todo = (where / "_units.json").read_json() if (where / "_units.json").exists() else {}
        receipts = [r for r in self._receipts(where) if r.plan_id == plan.get("plan_id")]
        statuses: Counter[str] = Counter()
        for receipt in receipts:
            statuses.update(receipt.statuses)
        rows_done = sum(r.rows for r in receipts)
        state = _state(where, receipts, todo.get("started_unix_s"), now)
        rate = _rows_per_s(receipts, todo.get("started_unix_s"))
        rows = None if todo.get("rows") is None else max(int(todo["rows"]), rows_done)
        per_row = sorted(1e3 * r.effort.seconds / r.rows for r in receipts if r.rows)
        return StageProgress(
            name=_name(plan, where),
            where=where.uri,
            state=state,
            units_done=len(receipts),
            units=todo.get("units"),
            rows_done=rows_done,
            rows=rows_done if state is StageState.FINISHED else rows,
            rows_by_status=dict(sorted(statuses.items())),
            rows_per_s=rate,
            remaining_s=(rows - rows_done) / rate if rate and rows and state is StageState.RUNNING else None,
            ms_per_row=per_row[len(per_row) // 2] if per_row else None,
            peak_rss_mb=max((r.effort.peak_rss_mb for r in receipts), default=0.0),
            units_retried=sum(r.effort.attempt > 0 for r in receipts),
            hosts=len({r.effort.host for r in receipts}),
        )

    def _receipts(self, where: Location) -> list[Receipt]:
        files = (where / "_receipts").files(".json")
        new = [f for f in files if f.uri not in self.seen]
        with ThreadPoolExecutor(16) as pool:
            self.seen |= {f.uri: r for f, r in zip(new, pool.map(_read_receipt, new), strict=True)}
        return [self.seen[f.uri] for f in files]


def _read_receipt(file: Location) -> Receipt:
    return Receipt.from_json(file.read_json())


def _name(plan: dict[str, Any], where: Location) -> str:
    return str(plan["stage"]) if plan["stage"] in ("4a", "4b") else f"{plan['stage']} {where.name}"


def _state(where: Location, receipts: Sequence[Receipt], started: float | None, now: float) -> StageState:
    if is_finished(where):
        return StageState.FINISHED if is_whole(where) else StageState.DAMAGED
    last = max([r.effort.finished_unix_s for r in receipts] + ([started] if started else []), default=None)
    if last is not None and now - last > STALLED_AFTER_S:
        return StageState.STOPPED
    return StageState.RUNNING if receipts else StageState.STARTED


def _rows_per_s(receipts: Sequence[Receipt], started: float | None) -> float | None:
    """Over the later half of the units that this start of the stage has done."""
    recent = sorted((r for r in receipts if r.effort.finished_unix_s >= (started or 0)), key=_finished)
    if len(recent) < 2:
        return None
    later = recent[(len(recent) - 1) // 2 :]
    seconds = _finished(later[-1]) - _finished(later[0])
    return sum(r.rows for r in later[1:]) / seconds if seconds > 0 else None


def _finished(receipt: Receipt) -> float:
    return receipt.effort.finished_unix_s


def as_table(stages: Sequence[StageProgress]) -> str:
    """One line a stage, then the rows that failed by status."""
    if not stages:
        return "nothing has been started yet"
    head = f"{'stage':<16}{'state':<10}{'units':>13}{'rows':>21}{'rows/s':>9}{'left':>8}{'ms/row':>8}{'MB':>6}  failed"
    return "\n".join([head, *(_line(stage) for stage in stages), *_failures(stages)])


def _line(stage: StageProgress) -> str:
    units = f"{stage.units_done}/{'?' if stage.units is None else stage.units}"
    rows = f"{stage.rows_done}/{'?' if stage.rows is None else stage.rows}"
    rate = "" if stage.rows_per_s is None else f"{stage.rows_per_s:.1f}"
    left = "" if stage.remaining_s is None else _duration(stage.remaining_s)
    ms = "" if stage.ms_per_row is None else f"{stage.ms_per_row:.1f}"
    return (
        f"{stage.name:<16}{stage.state:<10}{units:>13}{rows:>21}{rate:>9}{left:>8}{ms:>8}{stage.peak_rss_mb:>6.0f}"
        f"  {stage.failed_rows}" + (f"  ({stage.units_retried} units retried)" if stage.units_retried else "")
    )


def _failures(stages: Sequence[StageProgress]) -> list[str]:
    lines = []
    for stage in stages:
        if stage.failed_rows:
            named = ", ".join(f"{n} {s}" for s, n in stage.rows_by_status.items() if s not in ("OK", "TASK"))
            lines.append(f"{stage.name}: {named}")
        if stage.state is StageState.DAMAGED:
            lines.append(f"{stage.name}: committed files are gone; run the stage again and it makes them")
        if stage.state is StageState.STOPPED:
            lines.append(f"{stage.name}: no unit for {STALLED_AFTER_S / 60:.0f} min; the same command continues it")
    return lines


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def as_json(stages: Sequence[StageProgress]) -> list[dict[str, Any]]:
    return [{**asdict(stage), "failed_rows": stage.failed_rows} for stage in stages]


def changed_files(run: RunDir) -> list[str]:
    """Read every committed file of a run again; those whose bytes are not what was committed."""
    stages = Monitor(run).look()
    finished = [Location.of(s.where) for s in stages if s.state in (StageState.FINISHED, StageState.DAMAGED)]
    return [f"{where}/{path}" for where in finished for path in verify(where)]
