"""Why a candidate did not become a template, and what a build or import sums up. The same names in every bank."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

__all__ = ["BankSummary", "Rejected", "TemplateReject"]


class TemplateReject(StrEnum):
    """Why a candidate did not become a template. Each refused one has exactly one, the first that applies."""

    UNREADABLE = "UNREADABLE"
    PIXEL_SCALE_DISAGREES = "PIXEL_SCALE_DISAGREES"
    NO_PSF = "NO_PSF"
    BAD_CATALOGUE_ROW = "BAD_CATALOGUE_ROW"
    EMPTY = "EMPTY"
    NOT_FINITE = "NOT_FINITE"
    TOO_FEW_SKY_PIXELS = "TOO_FEW_SKY_PIXELS"
    NO_CENTRAL_OBJECT = "NO_CENTRAL_OBJECT"
    NOISE_AMPLIFIED = "NOISE_AMPLIFIED"
    NOISE_DOMINATED = "NOISE_DOMINATED"
    TOUCHES_EDGE = "TOUCHES_EDGE"
    TOO_LARGE = "TOO_LARGE"
    BLENDED = "BLENDED"
    NOT_CENTRED = "NOT_CENTRED"
    UNRESOLVED = "UNRESOLVED"
    FLUX_DISAGREES_WITH_CATALOGUE = "FLUX_DISAGREES_WITH_CATALOGUE"
    HLR_OUT_OF_RANGE = "HLR_OUT_OF_RANGE"
    HLR_DISAGREES_WITH_CATALOGUE = "HLR_DISAGREES_WITH_CATALOGUE"


class Rejected(Exception):  # noqa: N818 - a decision about one galaxy, not an error of the program
    """Raised inside the making of one template; carries the named reason and a one-line message."""

    def __init__(self, reason: TemplateReject, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class BankSummary:
    """What a build or import did: where, how many of how many, and why not the rest."""

    path: Path
    n_candidates: int
    n_accepted: int
    rejected_by_reason: dict[str, int]
    digest: str
