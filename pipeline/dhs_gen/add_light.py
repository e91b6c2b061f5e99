"""Light and its noise added to one band of a host, with what is measured on the way, in one pass over the pixels.

The same numbers, bit by bit, as :func:`dhs_gen.noise.add_arc_variance` and the products of
:func:`dhs_gen.metrics.arc_snr` give (tests); a stamp has three bands of 4096 pixels, and ten passes over them in NumPy
cost more than the rays.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["AddedLight", "add_light"]


class AddedLight(NamedTuple):
    """One band with its light; images are (H, W) float32.

    ``flux_nmgy`` is the light's on the stamp; ``snr`` and ``peak_snr`` are matched filter and peak over good pixels,
    with the weights before the light's own variance.
    """

    image: NDArray[np.float32]
    invvar: NDArray[np.float32]
    light: NDArray[np.float32]
    flux_nmgy: float
    snr: float
    peak_snr: float


def add_light(
    image: NDArray[np.float32],
    invvar: NDArray[np.float32],
    has_data: NDArray[np.bool_],
    unmasked: NDArray[np.bool_],
    light: NDArray[np.float64],
    noise: NDArray[np.float64],
    electrons_per_nmgy: float,
) -> AddedLight:
    """Host plus light plus noise.

    Pixels without light keep their bits (−0.0 + 0.0 would not). A pixel of which the survey has no data holds no light
    either: an arc there would tell the classes apart. Pixels without weight keep none, others get
    1/ivar′ = 1/ivar + max(f, 0)/G_eff.

    Parameters
    ----------
    image, invvar
        (H, W) host, nanomaggy/pix, and its weights.
    has_data, unmasked
        (H, W) pixels that the survey has data of, and those without a bad MASKBIT.
    light, noise
        (H, W) noise-free light and its shot noise, nanomaggy/pix.
    electrons_per_nmgy
        G_eff of the coadd.

    Raises
    ------
    ValueError
        If G_eff is not positive and finite.
    """
    if not (math.isfinite(electrons_per_nmgy) and electrons_per_nmgy > 0):
        raise ValueError(f"electrons_per_nmgy must be positive and finite, got {electrons_per_nmgy!r}")
    # Copies in one layout, whatever the host's is: one signature of the kernel, which dhs warm can compile.
    summed, weights = np.array(image, order="C"), np.array(invvar, order="C")
    rounded = light.astype(np.float32)
    measured = _add(summed, weights, has_data, unmasked, light, noise, electrons_per_nmgy)
    return AddedLight(summed, weights, rounded, *measured)


@numba.njit(cache=True)
def _add(image, invvar, has_data, unmasked, light, noise, electrons_per_nmgy):  # type: ignore[no-untyped-def]
    """Change image and weights in place; returns the light's flux and the two S/N."""
    rows, columns = image.shape
    flux = snr2 = peak2 = 0.0
    for i in range(rows):
        for j in range(columns):
            f = light[i, j]
            total = f + noise[i, j]
            if total != 0.0 and has_data[i, j]:
                image[i, j] = np.float32(np.float64(image[i, j]) + total)
            weight = invvar[i, j]
            variance = max(f, 0.0) / electrons_per_nmgy
            before = np.float64(weight)
            if weight > 0 and variance > 0.0:
                invvar[i, j] = np.float32(before / (1.0 + before * variance))
            flux += f
            if unmasked[i, j] and weight > 0:
                squared = f * f * before
                snr2 += squared
                peak2 = max(peak2, squared)
    return flux, math.sqrt(snr2), math.sqrt(peak2)
