"""One line of a parity table: what was compared with which oracle, how far apart they are, and how far they may be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ParityRow:
    """One comparison.

    Parameters
    ----------
    subject
        What of ours.
    oracle
        What it is compared with.
    figure
        What the number is, as "largest pixel difference over the peak".
    measured, tolerance
        The number, and the largest that passes.
    """

    subject: str
    oracle: str
    figure: str
    measured: float
    tolerance: float

    @property
    def passes(self) -> bool:
        """NaN does not."""
        return self.measured <= self.tolerance


def markdown(rows: Iterable[ParityRow]) -> str:
    """A table of the rows."""
    lines = ["| what | oracle | figure | measured | tolerance |", "|---|---|---|---|---|"]
    for r in rows:
        measured = f"{r.measured:.1e}" if r.passes else f"**{r.measured:.1e} fails**"
        lines.append(f"| {r.subject} | {r.oracle} | {r.figure} | {measured} | {r.tolerance:.0e} |")
    return "\n".join(lines)
