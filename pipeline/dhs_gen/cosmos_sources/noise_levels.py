"""How much of a template is the noise of the exposure it was cut from. The noise stays in; these numbers state it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOISE_COLUMNS", "noise_levels", "summarise_noise"]

NOISE_COLUMNS = ("noise_flux_fraction", "noise_power_fraction", "negative_flux_fraction")


def noise_levels(
    pixels: NDArray[np.float64], numbers: Mapping[str, Any], noise_correlation_pixels: float
) -> dict[str, float]:
    """Noise of a template, relative to its light.

    Parameters
    ----------
    pixels
        (S, S) the template before it is normalised, weights w applied.
    numbers
        ``weight_area_px`` = Σw², and ``sky_rms`` and ``native_sky_rms``: rms of the sky per pixel at the target PSF
        and as observed, in the units of ``pixels``.
    noise_correlation_pixels
        Sum c over the noise correlation function, as observed, over its value at zero lag.

    Returns
    -------
    dict
        ``noise_flux_fraction``: rms of the correlated noise summed under the weights over the template's sum,
        native_sky_rms · √(c Σw²) / Σp. The weights are wide against the PSFs, and replacing one PSF by another leaves
        the noise power at zero frequency alone.
        ``noise_power_fraction``: sky_rms² Σw² / Σp², the part of the template's squared pixels that is noise.
        ``negative_flux_fraction``: flux of the negative pixels over the template's sum.

    Raises
    ------
    ValueError
        If pixels are no image or do not sum to a positive number, or an rms, Σw² or c is not positive.
    """
    if pixels.ndim != 2:
        raise ValueError(f"pixels must have shape (rows, columns), got {pixels.shape}")
    total = float(pixels.sum())
    if not (np.isfinite(total) and total > 0):
        raise ValueError(f"pixels must have a positive, finite sum, got {total!r}")
    area, sky_rms, native_rms = (numbers[name] for name in ("weight_area_px", "sky_rms", "native_sky_rms"))
    for name, value in (
        ("weight_area_px", area),
        ("sky_rms", sky_rms),
        ("native_sky_rms", native_rms),
        ("noise_correlation_pixels", noise_correlation_pixels),
    ):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return {
        "noise_flux_fraction": native_rms * float(np.sqrt(noise_correlation_pixels * area)) / total,
        "noise_power_fraction": sky_rms**2 * area / float((pixels**2).sum()),
        "negative_flux_fraction": float(-pixels[pixels < 0].sum()) / total,
    }


def summarise_noise(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Median and 90th percentile of each noise column over the templates of a bank, for ``bank.json``.

    Raises
    ------
    ValueError
        If there are no rows.
    """
    if not rows:
        raise ValueError("rows must hold at least one template, got none")
    out = {}
    for name in NOISE_COLUMNS:
        values = np.array([row[name] for row in rows], dtype=np.float64)
        out[name] = {"median": float(np.median(values)), "percentile_90": float(np.percentile(values, 90))}
    return out
