"""The unit of all amplitudes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIGMA_PER_MAD = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""


def mad_sigma(pixels: NDArray[np.floating]) -> float:
    """1.4826 × the median absolute deviation from the median; 0 for no pixels."""
    if pixels.size == 0:
        return 0.0
    values = pixels.astype(np.float64)
    return float(_SIGMA_PER_MAD * np.median(np.abs(values - np.median(values))))
