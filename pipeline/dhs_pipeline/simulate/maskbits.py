"""MASKBITS of a simulated brick (bits as in DR10)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dhs_pipeline.config.base import Band
from dhs_pipeline.simulate.render import BandMaps
from dhs_pipeline.simulate.scene import Scene, mask_radius_px
from dhs_pipeline.simulate.settings import SimulationSettings

NPRIMARY, BRIGHT, MEDIUM = 1 << 0, 1 << 1, 1 << 11
SATUR = {"g": 1 << 2, "r": 1 << 3, "z": 1 << 4}
ALLMASK = {"g": 1 << 5, "r": 1 << 6, "z": 1 << 7}

_BRIGHT_LIMIT_MAG, _MEDIUM_LIMIT_MAG = 13.0, 16.0  # Gaia G (DR10 bitmasks page)


def build_maskbits(scene: Scene, maps: dict[Band, BandMaps], settings: SimulationSettings) -> NDArray[np.int32]:
    """(N, N) int32. Sky without exposures has no bit of its own: only nexp and invvar tell."""
    n, border = settings.brick_size_px, settings.nprimary_border_px
    bits = np.full((n, n), NPRIMARY, dtype=np.int32)
    bits[border : n - border, border : n - border] = 0
    y, x = np.ogrid[:n, :n]
    for star in scene.of_kind("bright_star"):
        distance, radius = np.hypot(x - star.x_px, y - star.y_px), mask_radius_px(star.mag_r, settings)
        if star.mag_r < _MEDIUM_LIMIT_MAG:
            bits[distance < radius] |= MEDIUM
        if star.mag_r < _BRIGHT_LIMIT_MAG:
            bits[distance < 0.5 * radius] |= BRIGHT
    for band, band_maps in maps.items():
        bits[band_maps.saturated] |= SATUR[band] | ALLMASK[band]
    return bits
