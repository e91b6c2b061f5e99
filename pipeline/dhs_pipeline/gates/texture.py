"""Whether light went through the survey's PSF: its power beyond the PSF's band limit.

Light is not negative, so its spectrum is nowhere above that at 0, its flux F. Through the PSF, |A(k)|² ≤ F²·OTF(k)²,
whatever the light was: a point reaches it, arcs stay far below. Pixels that were moved, cut or painted after the PSF do
not keep to it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma, kv


def moffat_transfer(
    frequency_x: NDArray[np.floating], frequency_y: NDArray[np.floating], fwhm_pix: float, beta: float
) -> NDArray[np.float64]:
    """Transfer function of a Moffat integrated over pixels, in closed form.

    With x = 2πfα and α = FWHM/(2√(2^(1/β) − 1)), the transform of (1 + r²/α²)^−β is
    2^(2−β)/Γ(β−1) x^(β−1) K_{β−1}(x) (Trujillo et al. 2001, MNRAS 328, 977), times sinc f_x sinc f_y for the pixel.

    Parameters
    ----------
    frequency_x, frequency_y
        Cycles per pixel; they broadcast.
    fwhm_pix, beta
        Of the profile before the pixel.
    """
    alpha = fwhm_pix / (2.0 * math.sqrt(2.0 ** (1.0 / beta) - 1.0))
    x = np.maximum(2.0 * math.pi * alpha * np.hypot(frequency_x, frequency_y), 1e-9)
    profile = 2.0 ** (2.0 - beta) / gamma(beta - 1.0) * x ** (beta - 1.0) * kv(beta - 1.0, x)
    return profile * np.sinc(frequency_x) * np.sinc(frequency_y)


def power_beyond_band_limit(
    light: NDArray[np.float32], fwhm_pix: NDArray[np.float64], beta: float, otf_threshold: float
) -> NDArray[np.float64]:
    """(n,) power where the transfer function is below the threshold, over what a point of the same flux has there.

    A Hann window takes the edges away, over which light that is cut off would ring.

    Parameters
    ----------
    light
        (n, H, W) noise-free light of one band, not negative. NaN comes back where there is none.
    fwhm_pix
        (n,) FWHM of each row's Moffat before the pixel.
    beta, otf_threshold
        The band's slope, and where the band ends.
    """
    rows, columns = light.shape[1:]
    window = np.hanning(rows + 2)[1:-1, None] * np.hanning(columns + 2)[None, 1:-1]
    seen = light.astype(np.float64) * window
    power = np.abs(np.fft.fft2(seen)) ** 2
    fy, fx = np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None, :]
    out = np.full(len(light), np.nan)
    for i, fwhm in enumerate(fwhm_pix):
        transfer = moffat_transfer(fx, fy, float(fwhm), beta)
        beyond = transfer < otf_threshold
        allowed = power[i, 0, 0] * (transfer[beyond] ** 2).sum()
        if allowed > 0:
            out[i] = power[i][beyond].sum() / allowed
    return out
