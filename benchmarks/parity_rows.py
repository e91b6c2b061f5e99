"""One line of a parity table: how far something of ours is from an oracle, and how far it may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ParityRow:
    """A measured difference and its tolerance.

    Parameters
    ----------
    subject, oracle
        What is compared with what.
    figure
        What the number is, with its unit.
    measured, tolerance
        The number and the largest it may be.
    """

    subject: str
    oracle: str
    figure: str
    measured: float
    tolerance: float
