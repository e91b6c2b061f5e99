"""Which stamps the report shows; the choice depends on the task ids and the measured S/N alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dhs_gen.paired_controls.kinds import SampleKind
from dhs_pipeline.report.data import Sample
from dhs_pipeline.schemas import BANDS

N_RANDOM = 12
N_RANDOM_PLAIN = 12
N_RANDOM_NEGATIVES = 12
N_QUANTILES = 8


@dataclass(frozen=True)
class Pick:
    """A row of a sample, and why it is shown."""

    index: int
    note: str = ""


def random_lenses(sample: Sample, count: int = N_RANDOM) -> list[Pick]:
    """Stamps with an arc, in the order of the hash."""
    return [Pick(int(i)) for i in np.flatnonzero(sample.lensed)[:count]]


def random_plain(sample: Sample, count: int = N_RANDOM_PLAIN) -> list[Pick]:
    """Stamps without an arc, in the order of the hash; controls and negatives of pairs are shown with their pairs."""
    return [Pick(int(i)) for i in np.flatnonzero(sample.ok & sample.tasks & ~sample.lensed)[:count]]


def random_negatives(sample: Sample, count: int = N_RANDOM_NEGATIVES) -> list[Pick]:
    """Hard negatives in the order of the hash, with their kind."""
    kinds = sample.table.column("negative_kind")
    rows = np.flatnonzero(sample.of_kind(SampleKind.NEGATIVE))[:count]
    return [Pick(int(i), kinds[int(i)].as_py().replace("_", " ")) for i in rows]


def snr_quantiles(sample: Sample, band: str, count: int = N_QUANTILES) -> list[Pick]:
    """The brightest arc of each of ``count`` groups of equal size in S/N, faintest group first."""
    snr = sample.values(f"arc_snr_{band}")
    rows = np.flatnonzero(sample.lensed & np.isfinite(snr))
    ranked = rows[np.argsort(snr[rows], kind="stable")]
    groups = [g for g in np.array_split(ranked, count) if g.size]
    edges = np.cumsum([g.size for g in groups]) / max(ranked.size, 1)
    return [Pick(int(g[-1]), f"{edge:.1%} of all arcs are no brighter") for g, edge in zip(groups, edges, strict=True)]


def snr_band(samples: Sequence[Sample]) -> str:
    """r, or the first band in which arcs were measured if r was not asked for."""
    for band in ("r", *BANDS):
        if any(np.isfinite(s.values(f"arc_snr_{band}")).any() for s in samples):
            return band
    return "r"
