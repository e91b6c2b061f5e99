"""The arc's own shot noise; the host image already holds the noise of the sky and of the host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def arc_shot_noise(
    arc: NDArray[np.float64], electrons_per_nmgy: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Zero-mean Poisson noise of the arc, variance max(f, 0)/G_eff.

    Parameters
    ----------
    arc
        Noise-free arc, nanomaggy/pix.
    electrons_per_nmgy
        G_eff of the coadd.
    rng
        The stream of this task, purpose and band.

    Returns
    -------
    ndarray
        Same shape, nanomaggy/pix; exactly zero where the arc has no flux.

    Raises
    ------
    ValueError
        If G_eff is not positive and finite.
    """
    _check_gain(electrons_per_nmgy)
    electrons = np.maximum(arc, 0.0) * electrons_per_nmgy
    return (rng.poisson(electrons) - electrons) / electrons_per_nmgy


def add_arc_variance(
    invvar: NDArray[np.float32], arc: NDArray[np.float64], electrons_per_nmgy: float
) -> NDArray[np.float32]:
    """1/ivar′ = 1/ivar + max(f, 0)/G_eff; pixels without weight keep none, pixels without arc keep their bits."""
    _check_gain(electrons_per_nmgy)
    variance = np.maximum(arc, 0.0) / electrons_per_nmgy
    updated = invvar.copy()
    changed = (invvar > 0) & (variance > 0)
    before = invvar[changed].astype(np.float64)
    updated[changed] = before / (1.0 + before * variance[changed])
    return updated


def _check_gain(electrons_per_nmgy: float) -> None:
    if not (np.isfinite(electrons_per_nmgy) and electrons_per_nmgy > 0):
        raise ValueError(f"electrons_per_nmgy must be positive and finite, got {electrons_per_nmgy!r}")
