"""Circular multipoles of order 3 and 4, isothermal: κ = a_m/(2r) · cos m(φ − φ_m).

lenstronomy's MULTIPOLE (Xu et al. 2015, MNRAS 447, 3189, eq. B12); a_m is in arcsec, and the models of this package
give it as a fraction of θ_E. About a round isothermal galaxy the fraction is the relative distortion of its contours:
a positive a_4 along the major axis is disky, a negative one boxy. Potential and deflection::

    ψ = r a_m/(1 − m²) cos m(φ − φ_m)
    α = a_m/(1 − m²) [cos m(φ − φ_m) e_r − m sin m(φ − φ_m) e_φ]
"""

from __future__ import annotations

import math

from dhs_gen.lensing.compiled import inner_kernel


def coefficients(order: int, a_arcsec: float, phi_rad: float) -> tuple[float, float]:
    """a_m/(1 − m²) times cos and sin of m φ_m, for :func:`deflect_multipoles`."""
    strength = a_arcsec / (1.0 - order * order)
    return strength * math.cos(order * phi_rad), strength * math.sin(order * phi_rad)


def bound(order: int, a_arcsec: float) -> float:
    """Largest deflection, arcsec: m |a_m| / (m² − 1), between the lobes."""
    return order * abs(a_arcsec) / (order * order - 1.0)


@inner_kernel
def deflect_multipoles(p, x, y):  # type: ignore[no-untyped-def]
    """Deflection (arcsec) by both multipoles; ``p`` holds the :func:`coefficients` of m = 3, then of m = 4.

    (0, 0) at the centre, where the direction is not defined.
    """
    r2 = x * x + y * y
    if r2 == 0.0:
        return 0.0, 0.0
    inverse = 1.0 / math.sqrt(r2)
    c, s = x * inverse, y * inverse
    c3, s3 = c * (4.0 * c * c - 3.0), s * (3.0 - 4.0 * s * s)
    c2, s2 = c * c - s * s, 2.0 * c * s
    c4, s4 = c2 * c2 - s2 * s2, 2.0 * c2 * s2
    radial = p[0] * c3 + p[1] * s3 + p[2] * c4 + p[3] * s4
    around = 3.0 * (p[0] * s3 - p[1] * c3) + 4.0 * (p[2] * s4 - p[3] * c4)
    return c * radial + s * around, s * radial - c * around
