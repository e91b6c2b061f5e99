"""A tilted background: what is left of the sky after an imperfect subtraction."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def background_plane(shape: tuple[int, int], phi_rad: float) -> NDArray[np.float64]:
    """Plane of zero mean that rises towards ``phi_rad`` (from +column to +row) with height 1 at half a side's distance.

    Half a side is half the longer one; a corner may be higher by up to √2.
    """
    rows, cols = shape
    half = 0.5 * max(max(rows, cols) - 1, 1)
    along_y = (np.arange(rows) - 0.5 * (rows - 1)) * (math.sin(phi_rad) / half)
    along_x = (np.arange(cols) - 0.5 * (cols - 1)) * (math.cos(phi_rad) / half)
    return along_y[:, None] + along_x[None, :]
