"""Elliptical power law (EPL): κ = (3 − γ)/2 · (θ_E / √(q x² + y²/q))^(γ−1), x along the major axis.

γ is the slope of the density in three dimensions, 2 for an isothermal galaxy, for which
:func:`dhs_gen.lensing.models.deflect` has a closed form. θ_E and e = (1 − q)/(1 + q) are lenstronomy's, as for the SIE.
The deflection is the series of Tessore & Metcalf (2015, A&A 580, A79, eqs 13, 22-26) with b = θ_E √q, t = γ − 1,
R² = q²x² + y² and the elliptical angle φ, R e^{iφ} = q x + i y::

    α = 2 b^t R^(1−t) / (1 + q) · e^{iφ} Σ_n a_n e^{2niφ},    a_n / a_{n−1} = −e (2n − (2 − t)) / (2n + (2 − t)).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.compiled import inner_kernel

SLOPE_RANGE = (1.5, 2.5)
"""Slopes that are accepted: lenstronomy's limits of the profile, four standard deviations of the SLACS lenses."""

MAX_ELLIPTICITY = 0.9
"""The series needs ln(tolerance)/ln(e) terms: 262 at this ellipticity, 26 at 0.35."""

_TOLERANCE = 1e-12
"""Relative size of the terms that are left out."""


def series(slope: float, e: float) -> NDArray[np.float64]:
    """Coefficients a_n of the angular series, a_0 = 1, until they no longer count."""
    terms = 2 if e == 0 else 2 + max(0, math.ceil(math.log(_TOLERANCE) / math.log(e)))
    n, rest = np.arange(1, terms), 3.0 - slope
    return np.concatenate([[1.0], np.cumprod(-e * (2 * n - rest) / (2 * n + rest))])


def amplitude(theta_e_arcsec: float, e: float, slope: float) -> float:
    """2 b^t / (1 + q), in arcsec^t."""
    q = (1.0 - e) / (1.0 + e)
    return 2.0 / (1.0 + q) * (theta_e_arcsec * math.sqrt(q)) ** (slope - 1.0)


def growth(theta_e_arcsec: float, e: float, slope: float) -> float:
    """A with |α(r)| ≤ A r^(2−γ) at distance r in any direction, in arcsec^(γ−1).

    The series is largest on the minor axis, where all its terms have one sign; R is r at most and q r at least.
    """
    q = (1.0 - e) / (1.0 + e)
    largest = float(np.abs(series(slope, e)).sum())
    return amplitude(theta_e_arcsec, e, slope) * largest * (q ** (2.0 - slope) if slope > 2 else 1.0)


@inner_kernel
def deflect_power_law(scale, half_exponent, coefficients, q, major, minor):  # type: ignore[no-untyped-def]
    """Deflection (arcsec) in the frame of the major axis; (0, 0) at the centre, where a slope above 2 diverges.

    ``scale`` from :func:`amplitude`, ``half_exponent`` (2 − γ)/2, ``coefficients`` from :func:`series`. The sum is
    Clenshaw's recurrence in the angle 2φ (DLMF 3.11.15).
    """
    along = q * major
    r2 = along * along + minor * minor
    if r2 == 0.0:
        return 0.0, 0.0
    inverse = 1.0 / math.sqrt(r2)
    cos, sin = along * inverse, minor * inverse
    cos2, sin2 = cos * cos - sin * sin, 2.0 * cos * sin
    twice = 2.0 * cos2
    first = 0.0
    second = 0.0
    for n in range(coefficients.size - 1, 0, -1):
        first, second = coefficients[n] + twice * first - second, first
    real = coefficients[0] + first * cos2 - second
    imaginary = first * sin2
    factor = scale * r2**half_exponent
    return factor * (cos * real - sin * imaginary), factor * (cos * imaginary + sin * real)
