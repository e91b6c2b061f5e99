"""What a source looks like before the lens: a pixel template on the source plane."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SourceTemplate:
    """Shape of a source. It carries no flux of its own: the pixels of a channel sum to 1.

    Parameters
    ----------
    pixels
        (channels, rows, columns), flux per template pixel. One channel is an achromatic source; otherwise there
        is one channel per band, in the order of the bands that are rendered.
    pixscale_arcsec
        Pixel scale of the template on the source plane.
    resolution_arcsec
        Smallest structure at the template's centre; sets how densely rays are shot.
    resolution_growth
        How much coarser the structure is per arcsec of distance from the centre: 0 for a template that is equally
        detailed everywhere, about 0.1 for a profile whose scale length grows with radius.
    phi_rad
        The template is rotated by this angle, from +column towards +row.
    flip
        Mirror the columns before rotating.

    Raises
    ------
    ValueError
        If the pixels are not finite or do not sum to 1 within 1e-4, or a scale is not positive.
    """

    pixels: NDArray[np.float64]
    pixscale_arcsec: float
    resolution_arcsec: float
    resolution_growth: float = 0.0
    phi_rad: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3:
            raise ValueError(f"pixels must have shape (channels, rows, columns), got {self.pixels.shape}")
        sums = self.pixels.sum(axis=(1, 2), dtype=np.float64)
        if not (np.abs(sums - 1.0) <= 1e-4).all():  # NaN fails too
            raise ValueError(f"each channel of pixels must be finite and sum to 1, got sums {sums.tolist()}")
        for name in ("pixscale_arcsec", "resolution_arcsec"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value!r}")
        if not self.resolution_growth >= 0:
            raise ValueError(f"resolution_growth must not be negative, got {self.resolution_growth!r}")

    @property
    def radius_arcsec(self) -> float:
        """No light beyond this distance from the centre, whatever the rotation."""
        _, rows, columns = self.pixels.shape
        return 0.5 * math.hypot(rows + 1, columns + 1) * self.pixscale_arcsec
