"""One line of a parity table: what was compared with whom, how far apart they are, and how far they may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ParityRow:
    """A comparison with an independent oracle.

    Parameters
    ----------
    subject, oracle
        What was compared, and with whom.
    figure
        What the number is.
    measured, tolerance
        The number, and the largest one that is accepted; same unit.
    """

    subject: str
    oracle: str
    figure: str
    measured: float
    tolerance: float
