"""The arc's own shot noise; the host image already holds the noise of the sky and of the host."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

_BRIGHT_ELECTRONS = 10.0
"""Mean counts from which NumPy draws (transformed rejection, Hörmann 1993). Below, where most pixels of an arc are, a
uniform number and a few terms of the distribution take half the time."""


def arc_shot_noise(
    arc: NDArray[np.float64], electrons_per_nmgy: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Zero-mean Poisson noise of the arc, variance max(f, 0)/G_eff.

    Every pixel has a uniform number of its own, at which a faint one inverts its distribution; the bright ones are
    drawn after that.

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
    light = arc.ravel()
    noise, bright = _faint_noise(light, electrons_per_nmgy, _BRIGHT_ELECTRONS, rng.random(light.size))
    means = light[bright] * electrons_per_nmgy
    noise[bright] = (rng.poisson(means) - means) / electrons_per_nmgy
    return np.asarray(noise.reshape(arc.shape))


@numba.njit(cache=True)
def _faint_noise(light, electrons_per_nmgy, limit, uniforms):  # type: ignore[no-untyped-def]
    """Noise of the pixels with a mean count below ``limit``, and where the others are.

    The count is the smallest n with P(N ≤ n) ≥ u.
    """
    noise, bright, n_bright = np.zeros(light.size), np.empty(light.size, np.int64), 0
    for i in range(light.size):
        mean, u = light[i] * electrons_per_nmgy if not light[i] <= 0.0 else 0.0, uniforms[i]
        if not mean < limit:  # NaN too, which NumPy refuses
            bright[n_bright] = i
            n_bright += 1
            continue
        count = 0.0
        if u > 1.0 - mean:  # P(N = 0) is at least that
            term = math.exp(-mean)
            below = term
            while u > below and term > 0.0:
                count += 1.0
                term *= mean / count
                below += term
        noise[i] = (count - mean) / electrons_per_nmgy
    return noise, bright[:n_bright]


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
