"""What the survey could see of an arc: S/N, fluxes and bad pixels on one stamp."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ArcSnr:
    """S/N of an arc in one band; None where the mask or the weights are missing."""

    matched_filter: float | None
    peak: float | None


def arc_snr(arc: NDArray[np.float64], invvar: NDArray[np.float32] | None, good: NDArray[np.bool_] | None) -> ArcSnr:
    """Matched-filter and peak S/N over good pixels.

    √Σ(s²·invvar) is the S/N of a filter that knows the noise-free arc (uncorrelated noise). The weights are the
    host's, without the arc's own variance.
    """
    if invvar is None or good is None:
        return ArcSnr(None, None)
    snr2 = np.where(good, np.square(arc) * invvar.astype(np.float64), 0.0)
    return ArcSnr(float(math.sqrt(snr2.sum())), float(math.sqrt(snr2.max())))


def good_pixels(
    maskbits: NDArray[np.int32] | None, invvar: NDArray[np.float32] | None, bad_mask: int
) -> NDArray[np.bool_] | None:
    """Pixels with weight and none of the bad MASKBITS; None if either map is missing."""
    if maskbits is None or invvar is None:
        return None
    return ((maskbits & bad_mask) == 0) & (invvar > 0)
