"""What a scenario finds: one line of the table, and what Spark's logs tell of its jobs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_ground import Found, found, unfinished_files
from standalone import StandaloneCluster

from dhs_pipeline.commit import verify
from dhs_pipeline.storage import Location


@dataclass
class Outcome:
    """One line of the table.

    Parameters
    ----------
    fault
        What was done, to what.
    rows_expected, rows_found
        Of the undisturbed run, and after the fault.
    is_equal
        Whether digests, rows and distinct keys are those of the undisturbed run.
    units, attempts
        Units of the stage, and Spark tasks begun for them in all.
    seconds, undisturbed_s
        Of the job, or of both jobs where it was resumed; and of the same job undisturbed.
    problems
        Everything else that is not as it should be.
    missed
        Why no fault happened, where the moment for it was missed.
    said
        What the user reads, where the job itself says something.
    skipped
        Why the scenario cannot happen here.
    """

    scenario: str
    fault: str = ""
    rows_expected: int = 0
    rows_found: int = 0
    is_equal: bool = False
    units: int = 0
    attempts: int = 0
    seconds: float = 0.0
    undisturbed_s: float | None = None
    problems: list[str] = field(default_factory=list)
    missed: str = ""
    said: str = ""
    skipped: str = ""

    @property
    def is_good(self) -> bool:
        return bool(self.skipped) or (self.is_equal and not self.all_problems)

    @property
    def all_problems(self) -> list[str]:
        return [*self.problems, *([self.missed] if self.missed else [])]

    @property
    def redone(self) -> int:
        return self.attempts - self.units

    @property
    def lost_s(self) -> float | None:
        return None if self.undisturbed_s is None else self.seconds - self.undisturbed_s

    def require(self, holds: object, otherwise: str) -> None:
        if not holds:
            self.problems.append(otherwise)

    def require_fault(self, happened: object, otherwise: str) -> None:
        if not happened:
            self.missed = otherwise

    def compare(self, expected: Found, stage_dir: Path) -> None:
        """Fill in rows and equality; look for what may not be there."""
        self.require((stage_dir / "_SUCCESS").exists(), "no _SUCCESS")
        for name in unfinished_files(stage_dir):
            self.problems.append(f"{name} is not whole")
        actual = found(stage_dir)
        self.rows_expected += expected.rows
        self.rows_found += actual.rows
        self.is_equal = actual == expected
        self.require(actual.rows == actual.distinct, f"{actual.rows - actual.distinct} rows are there twice")
        for name in verify(Location.of(stage_dir)):
            self.problems.append(f"{name} is not what _manifest.json says")
        summary = json.loads((stage_dir / "_stage.json").read_text())
        self.require(
            summary["digests"] == expected.digests, "_stage.json states other digests than the undisturbed run"
        )
        self.require(summary["rows"] == expected.rows, f"_stage.json states {summary['rows']} rows")


class Events:
    """What Spark's logs tell of the jobs since this was made."""

    def __init__(self, cluster: StandaloneCluster) -> None:
        self._cluster = cluster
        self._before = sum(1 for _ in cluster.events())
        self._starts_before = cluster.task_starts()

    def _since(self) -> list[dict[str, Any]]:
        return list(self._cluster.events())[self._before :]

    def attempts(self) -> int:
        return self._cluster.task_starts() - self._starts_before

    def speculative(self) -> int:
        return sum(e["Event"] == "SparkListenerTaskStart" and e["Task Info"]["Speculative"] for e in self._since())

    def ends(self) -> Counter[str]:
        """Task ends by reason: Success, ExceptionFailure, ExecutorLostFailure, TaskKilled."""
        return Counter(e["Task End Reason"]["Reason"] for e in self._since() if e["Event"] == "SparkListenerTaskEnd")

    def failures(self) -> list[str]:
        """Texts of the exceptions that ended tasks."""
        reasons = [e["Task End Reason"] for e in self._since() if e["Event"] == "SparkListenerTaskEnd"]
        return [r.get("Full Stack Trace") or r.get("Description", "") for r in reasons if r["Reason"] != "Success"]
