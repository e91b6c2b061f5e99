"""CPU time of pieces of work that take turns, so that a load on the machine meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def take_turns(
    work: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Seconds of each piece of work: one warm-up each, then A B C, A B C, … ``repeats`` times.

    ``process_time`` counts all threads of this process and none of its children; the order turns round every time, so
    that no piece always runs after the same other one.
    """
    names = list(work)
    for name in names:
        work[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        for name in names if turn % 2 == 0 else names[::-1]:
            started = clock()
            work[name]()
            seconds[name].append(clock() - started)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over turns of the ratio within each turn."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
