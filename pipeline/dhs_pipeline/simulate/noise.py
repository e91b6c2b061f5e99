"""Exposure maps and resampled noise: unit variance per pixel, correlated between neighbours as in a coadd."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dhs_gen.streams import stream
from dhs_pipeline.config.base import Band
from dhs_pipeline.simulate.settings import BrickSettings, SimulationSettings


def exposure_map(brick: BrickSettings, band: Band, settings: SimulationSettings) -> NDArray[np.int16]:
    """(N, N) number of exposures: all but one exposure leave a gap between CCDs somewhere in the brick."""
    n = settings.brick_size_px
    rng = stream(brick.name, "ccd-gaps", salt=str(settings.seed), band=band)
    nexp = np.full((n, n), settings.noise.n_exposures[band], dtype=np.int16)
    low, high = settings.noise.ccd_gap_px
    for _ in range(settings.noise.n_exposures[band] - 1):
        width, start = int(rng.integers(low, high + 1)), int(rng.integers(0, n))
        gap, everywhere = slice(start, start + width), slice(None)
        nexp[(gap, everywhere) if rng.random() < 0.5 else (everywhere, gap)] -= 1
    return nexp


def unit_noise(brick: BrickSettings, band: Band, settings: SimulationSettings) -> NDArray[np.float64]:
    """(N, N) Gaussian noise of variance 1 with the correlation of ``noise.correlation_lags``."""
    n = settings.brick_size_px
    white = stream(brick.name, "pixel-noise", salt=str(settings.seed), band=band).standard_normal((n, n))
    amplitude = np.sqrt(_power(n, settings.noise.correlation_lags))
    transfer = amplitude[:, None] * amplitude[None, : n // 2 + 1]
    return np.fft.irfft2(np.fft.rfft2(white) * transfer, s=(n, n))


def _power(n: int, lags: Sequence[float]) -> NDArray[np.float64]:
    """(n,) power spectrum along one axis: 1 + 2 sum_k rho_k cos(2 pi k f). Its mean is the variance, 1."""
    frequency = np.fft.fftfreq(n)
    power = 1.0 + 2.0 * sum(rho * np.cos(2.0 * np.pi * k * frequency) for k, rho in enumerate(lags, start=1))
    if np.min(power) < 0:
        raise ValueError(f"noise.correlation_lags {tuple(lags)} are not the correlation of any noise")
    return np.asarray(power)
