"""What a gate found: figures with intervals and limits, the worst rows, and one outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """How a gate ended. Only PASS lets a data set through."""

    PASS = "PASS"
    FAIL = "FAIL"
    NOT_RUN = "NOT_RUN"


class CannotRun(Exception):  # noqa: N818 - it names an outcome, not a defect
    """A gate that the data give too little for; the message says what is missing."""


@dataclass(frozen=True)
class Figure:
    """One measured number of a gate.

    Parameters
    ----------
    name
        What it is, with its unit.
    value
        The number.
    low, high
        95 % interval (block bootstrap over hosts); None where the number is exact.
    limit
        What was allowed, in words, such as "at most 0.517"; empty where the number is only reported.
    ok
        Whether it keeps the limit; True where there is none.
    rows, blocks
        Rows and independent blocks (hosts) it rests on.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    limit: str
    ok: bool
    rows: int
    blocks: int


@dataclass(frozen=True)
class Offender:
    """A row worth looking at, and why; the page shows its stamp."""

    task_id: str
    reason: str


@dataclass(frozen=True)
class Curve:
    """A line for the page: y over x with an interval."""

    name: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class GateResult:
    """One line of the table.

    Parameters
    ----------
    gate
        Its name, as in conf/gates.
    outcome, message
        How it ended, and what was found, in one sentence.
    figures, offenders, curves
        The numbers, the worst rows, and lines for the page.
    seconds
        How long it took; filled in by the runner.
    """

    gate: str
    outcome: Outcome
    message: str
    figures: tuple[Figure, ...] = ()
    offenders: tuple[Offender, ...] = ()
    curves: tuple[Curve, ...] = ()
    seconds: float = field(default=0.0, compare=False)


def judge(
    gate: str, figures: Sequence[Figure], message: str, offenders: Sequence[Offender] = (), curves: Sequence[Curve] = ()
) -> GateResult:
    """PASS if every figure keeps its limit; else FAIL, and the message names the figures that do not."""
    broken = [f for f in figures if not f.ok]
    if not broken:
        return GateResult(gate, Outcome.PASS, message, tuple(figures), tuple(offenders), tuple(curves))
    said = "; ".join(f"{f.name} is {f.value:.4g}, {f.limit} was allowed" for f in broken)
    return GateResult(gate, Outcome.FAIL, said, tuple(figures), tuple(offenders), tuple(curves))


def exact(name: str, value: float, *, limit: float, rows: int, blocks: int) -> Figure:
    """A number without sampling error that may not exceed its limit."""
    return Figure(name, value, None, None, f"at most {limit:g}", value <= limit, rows, blocks)


def reported(
    name: str, value: float, *, rows: int, blocks: int, low: float | None = None, high: float | None = None
) -> Figure:
    """A number that is shown and not judged."""
    return Figure(name, value, low, high, "", True, rows, blocks)


def key_figure(result: GateResult) -> Figure | None:
    """The first figure that breaks its limit, else one with limit and interval, else one with a limit, else any."""
    figures = result.figures
    for wanted in (
        [f for f in figures if not f.ok],
        [f for f in figures if f.limit and f.low is not None],
        [f for f in figures if f.limit],
        list(figures),
    ):
        if wanted:
            return wanted[0]
    return None
