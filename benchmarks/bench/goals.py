"""The goals of speed, what was measured beside them, and the table of both.

A benchmark is a script of benchmarks/ with a function

    measure(inputs: Inputs) -> list[Measurement]

which `make bench` calls. Times come from :mod:`bench.timing`; every peer and floor is measured in the same call.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

Compare = Literal[">=", "<="]
Verdict = Literal["MET", "MISSED", "WRONG", "not measured"]
_COMPARE: Mapping[Compare, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Goal:
    """One figure that is wanted.

    Parameters
    ----------
    name
        What is measured, as the table says it.
    wanted, unit
        The figure; the unit "x" is a ratio of two figures of one run.
    compare
        ">=" if more is better, "<=" if less is.
    """

    name: str
    wanted: float
    unit: str
    compare: Compare

    def met_by(self, value: float) -> bool:
        return _COMPARE[self.compare](value, self.wanted)  # False for NaN


GOALS: Mapping[str, Goal] = MappingProxyType(
    {
        "kernel-gen5": Goal("gen5 stamp in three bands beside lenstronomy at equal accuracy, per core", 60, "x", ">="),
        "kernel-gen7": Goal("gen7 stamp in three bands beside lenstronomy at equal accuracy, per core", 60, "x", ">="),
        "4c-rate": Goal("4c from reading to writing, 2 cores", 1000, "stamps/s", ">="),
        "4c-peer": Goal("4c beside the same job rendered by lenstronomy, per core", 25, "x", ">="),
        "4c-floor": Goal("4c: cost over the bare kernel and the writing", 2, "x", "<="),
        "4b": Goal("4b beside decompressing the needed tiles alone", 0.5, "x", ">="),
        "4p5": Goal("4p5 beside pyarrow's own copy", 0.5, "x", ">="),
        "4a": Goal("4a, 2 cores", 50_000, "tasks/s", ">="),
        "scaling": Goal("4c: rate on 2 cores over the rate on 1", 1.85, "x", ">="),
        "flat": Goal("4c: cost of a stamp in the largest run over that in the smallest", 1.1, "x", "<="),
        "start-up": Goal("worker from a fresh interpreter to its first stamp", 3, "s", "<="),
        "reader": Goal("reading stamps into float32 arrays, per core", 20_000, "stamps/s", ">="),
    }
)


@dataclass(frozen=True)
class Inputs:
    """What every benchmark is given.

    Parameters
    ----------
    work
        An existing empty folder for this benchmark alone.
    data, parent, bank
        Real bricks, parent catalogue and source bank; None: the benchmark simulates or draws what it needs.
    full
        Long sizes and more repeats instead of those of a few minutes (each benchmark: at most about 90 s without).
    """

    work: Path
    data: Path | None = None
    parent: Path | None = None
    bank: Path | None = None
    full: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure beside the measured one: a peer, a floor, a rate behind a ratio."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Check:
    """A result compared with an independent truth: the benchmark fails unless ``error <= tolerance``."""

    name: str
    error: float
    tolerance: float
    unit: str

    @property
    def passes(self) -> bool:
        return self.error <= self.tolerance  # False for NaN


@dataclass(frozen=True)
class Measurement:
    """What was found for one goal.

    Parameters
    ----------
    goal
        A key of :data:`GOALS`.
    value
        In the goal's unit; None if it was not measured (the note says why).
    beside
        Peers, floors and the rates behind a ratio.
    checks
        What was verified about the measured code's results. Fast and wrong is WRONG.
    note
        One line for the reader: sizes, settings, reasons.
    series
        (size, figure) pairs for the plot of cost against size: stamps, and CPU milliseconds per stamp.
    """

    goal: str
    value: float | None
    beside: tuple[Figure, ...] = ()
    checks: tuple[Check, ...] = ()
    note: str = ""
    series: tuple[tuple[float, float], ...] = field(default=())

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise ValueError(f"no goal {self.goal!r}; there are {', '.join(GOALS)}")

    @property
    def verdict(self) -> Verdict:
        if not all(check.passes for check in self.checks):
            return "WRONG"
        if self.value is None:
            return "not measured"
        return "MET" if GOALS[self.goal].met_by(self.value) else "MISSED"

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Measurement:
        """The inverse of ``dataclasses.asdict`` through JSON."""
        return cls(
            goal=tree["goal"],
            value=tree["value"],
            beside=tuple(Figure(**f) for f in tree["beside"]),
            checks=tuple(Check(**c) for c in tree["checks"]),
            note=tree["note"],
            series=tuple((size, figure) for size, figure in tree["series"]),
        )


def not_measured(goals: Sequence[str], reason: str) -> list[Measurement]:
    return [Measurement(goal, None, note=reason) for goal in goals]


def exit_code(found: Sequence[Measurement]) -> int:
    """1 if any result was wrong; a missed goal is a finding and not a failure."""
    return 1 if any(m.verdict == "WRONG" for m in found) else 0


def table(found: Sequence[Measurement]) -> str:
    """Markdown: goal, wanted, measured, beside it, verdict; below it the checks and the notes."""
    lines = ["| goal | wanted | measured | beside it | verdict |", "|---|---|---|---|---|"]
    for m in found:
        goal = GOALS[m.goal]
        beside = "; ".join(f"{f.name} {in_digits(f.value)} {f.unit}" for f in m.beside)
        measured = "–" if m.value is None else f"{in_digits(m.value)} {goal.unit}"
        sign = "≥" if goal.compare == ">=" else "≤"
        lines.append(f"| {goal.name} | {sign} {goal.wanted:g} {goal.unit} | {measured} | {beside} | {m.verdict} |")
    for m in found:
        for c in m.checks:
            told = "ok" if c.passes else "WRONG"
            lines.append(f"\n{told}: {m.goal}: {c.name} {c.error:.3g} {c.unit}, allowed {c.tolerance:g}")
        if m.note:
            lines.append(f"\n{m.goal}: {m.note}")
    return "\n".join(lines)


def in_digits(value: float) -> str:
    """Three digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
