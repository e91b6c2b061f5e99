"""From stamps to what a network looks at: one fixed stretch for both classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def noise_sigma(invvar: NDArray[np.float32]) -> NDArray[np.float64]:
    """(bands,) typical noise of a set, nanomaggy/pix: the median of 1/√invvar over all pixels with a weight.

    One number per band for the whole set: a scale measured on each stamp would know of its arc.

    Parameters
    ----------
    invvar
        (n, bands, H, W), 1/nanomaggy².
    """
    out = []
    for band in range(invvar.shape[1]):
        weights = invvar[:, band]
        out.append(1.0 / np.sqrt(np.median(weights[weights > 0])))
    return np.asarray(out, dtype=np.float64)


def stretch(images: NDArray[np.float32], sigma_nmgy: NDArray[np.float64]) -> NDArray[np.float32]:
    """asinh(x/σ)/3: linear in the noise, logarithmic in bright hosts, of order 1; shape as given, bands at axis −3."""
    scale = sigma_nmgy.astype(np.float32)[:, None, None]
    return (np.arcsinh(images / scale) / np.float32(3.0)).astype(np.float32)
