"""What a stamp of a pair is, and which hard negative a pair has: both fixed by the pair's id."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from dhs_gen.streams import categorical_from_hash, stable_id

__all__ = ["NegativeKind", "SampleKind", "member_id", "negative_kind"]


class SampleKind(StrEnum):
    """Members of one pair: the same pixels with an arc, with no light, and with light that is not an arc."""

    POSITIVE = "positive"
    CONTROL = "control"
    NEGATIVE = "negative"


class NegativeKind(StrEnum):
    """Light that resembles an arc in all but its shape or its place.

    ``SHUFFLED_PIXELS`` and ``SHUFFLED_ARC`` keep the arc's radial profile and lose its shape, after the PSF and before
    it; ``RING`` and ``SPIRAL`` are galaxies that look like lenses; ``NEIGHBOUR`` is the source beside the host;
    ``WRONG_CENTRE_ARC`` is a true arc that does not curve about the host.
    """

    SHUFFLED_PIXELS = "shuffled_pixels"
    SHUFFLED_ARC = "shuffled_arc"
    RING = "ring"
    SPIRAL = "spiral"
    NEIGHBOUR = "neighbour"
    WRONG_CENTRE_ARC = "wrong_centre_arc"


def negative_kind(pair_id: str, weights: Mapping[NegativeKind, float]) -> NegativeKind:
    """The kind of a pair's negative.

    Parameters
    ----------
    pair_id
        The key; also the task_id of the pair's positive.
    weights
        Probability of each kind, of sum 1; a kind that is left out has none. The order of the mapping does not matter.

    Raises
    ------
    ValueError
        If a key is no kind, or the weights are negative or do not sum to 1 within 1e-6.
    """
    if unknown := [kind for kind in weights if kind not in list(NegativeKind)]:
        allowed = ", ".join(NegativeKind)
        raise ValueError(f"weights must be given for kinds among {allowed}, got {unknown[0]!r}")
    kinds = list(NegativeKind)
    return kinds[categorical_from_hash(pair_id, [weights.get(kind, 0.0) for kind in kinds], salt="negative_kind")]


def member_id(pair_id: str, kind: SampleKind) -> str:
    """Id of a member of a pair: the pair's own for the positive, else ``stable_id(pair_id, kind)``."""
    return pair_id if kind is SampleKind.POSITIVE else stable_id(pair_id, kind)
