"""Sersic profile integrated over pixels."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainccinv, gammaincinv, gammaln

_TOLERANCE = 0.01
"""A cell is halved while its curvature term exceeds this fraction of the midpoint value; what is left out is of the
order of the term's square. Pixels then agree with adaptive quadrature to 1e-3 (docs/gen7.md)."""
_SMALLEST_CELL_RE = 1e-4
_SMALLEST_CELL_PIX = 1e-3
"""Cells smaller than both are not halved: the one about the centre holds 3e-5 of the light for n = 8, else less."""
_DARK_FRACTION = 1e-10
"""Cells outside the ellipse beyond which the profile holds this fraction of its light take the midpoint value."""


def sersic_image(
    shape: tuple[int, int],
    re_pix: float,
    n_sersic: float,
    axis_ratio: float,
    centre_xy_pix: tuple[float, float] | None = None,
    phi_rad: float = 0.0,
) -> NDArray[np.float64]:
    """Sersic profile integrated over pixels, unit flux over the whole plane.

    I(R) ∝ exp(−b (R/re)^(1/n)), R² = q x² + y²/q with x along the major axis, so that re is circularised: the
    half-light ellipse has semi-axes re/√q and re √q. b is from the half-light condition γ(2n, b) = Γ(2n)/2 and the
    total is 2π n re² b^(−2n) Γ(2n) (Ciotti 1991, A&A 249, 99).

    A pixel is the midpoint value with its second-order (curvature) correction; where the correction is not small, near
    the centre, the pixel is halved along its longer side, again and again.

    Parameters
    ----------
    shape
        (rows, columns).
    re_pix
        Circularised effective radius, in pixels; any positive size.
    n_sersic
        Sersic index, 0.2 to 8.
    axis_ratio
        q in (0, 1].
    centre_xy_pix
        (column, row) of the centre, from 0; by default the middle of the image.
    phi_rad
        Position angle of the major axis, from +column towards +row.

    Returns
    -------
    ndarray
        ``shape`` float64; flux per pixel. Light that falls off the image is missing from its sum.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    check_sersic(shape, re_pix, n_sersic, axis_ratio)
    rows, columns = shape
    middle = (0.5 * (columns - 1), 0.5 * (rows - 1))
    x0, y0 = middle if centre_xy_pix is None else centre_xy_pix
    for name, value in (("centre_xy_pix", x0), ("centre_xy_pix", y0), ("phi_rad", phi_rad)):
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value!r}")
    b = float(gammaincinv(2.0 * n_sersic, 0.5))
    log_total = math.log(2.0 * math.pi * n_sersic * re_pix**2) - 2.0 * n_sersic * math.log(b) + gammaln(2.0 * n_sersic)
    cos, sin, stretch = math.cos(phi_rad), math.sin(phi_rad), math.sqrt(axis_ratio)
    # Circularised coordinates in units of re: [u, v] = frame @ [x − x0, y − y0].
    frame = np.array([[cos * stretch, sin * stretch], [-sin / stretch, cos / stretch]]) / re_pix
    smallest2 = min(_SMALLEST_CELL_RE**2, _SMALLEST_CELL_PIX**2 * float((frame**2).sum()))
    dark = float(gammainccinv(2.0 * n_sersic, _DARK_FRACTION))
    upright = (x0, y0) == middle and phi_rad == 0.0  # one quadrant is enough
    out = np.empty(((rows + 1) // 2, (columns + 1) // 2) if upright else shape)
    _integrate(out, frame, x0, y0, 1.0 / n_sersic, b, log_total, smallest2, dark)
    return mirrored(out, shape) if upright else out


def mirrored(quadrant: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """An image that is symmetric about both axes through its middle, from its first rows and columns (halves, rounded
    up)."""
    rows, columns = shape
    out = np.empty(shape)
    out[: (rows + 1) // 2, : (columns + 1) // 2] = quadrant
    out[: (rows + 1) // 2, columns // 2 :] = quadrant[:, ::-1]
    out[rows // 2 :] = out[: (rows + 1) // 2][::-1]
    return out


def elliptical_radius(
    shape: tuple[int, int], axis_ratio: float, centre_xy_pix: tuple[float, float], phi_rad: float
) -> NDArray[np.float64]:
    """R = √(q x² + y²/q) of every pixel's centre, in pixels, about ``centre_xy_pix`` with x along ``phi_rad``."""
    dx = np.arange(shape[1]) - centre_xy_pix[0]
    dy = (np.arange(shape[0]) - centre_xy_pix[1])[:, None]
    along = math.cos(phi_rad) * dx + math.sin(phi_rad) * dy
    across = math.cos(phi_rad) * dy - math.sin(phi_rad) * dx
    return np.sqrt(axis_ratio * along**2 + across**2 / axis_ratio)


def check_sersic(shape: tuple[int, int], re_pix: float, n_sersic: float, axis_ratio: float) -> None:
    """ValueError that names the argument unless a Sersic image of these can be made."""
    for name, side in zip(("H", "W"), shape, strict=True):
        if isinstance(side, bool) or not isinstance(side, int | np.integer) or side < 3:
            raise ValueError(f"{name} must be a whole number of at least 3 pixels, got {side!r}")
    if not (math.isfinite(re_pix) and re_pix > 0):
        raise ValueError(f"re_pix must be positive and finite, got {re_pix!r}")
    if not 0.2 <= n_sersic <= 8:
        raise ValueError(f"n_sersic must be between 0.2 and 8, got {n_sersic!r}")
    if not 0 < axis_ratio <= 1:
        raise ValueError(f"axis ratio q must be in (0, 1], got {axis_ratio!r}")


@numba.njit(cache=True)
def _integrate(out, frame, x0, y0, inv_n, b, log_total, smallest2, dark):  # type: ignore[no-untyped-def]
    """Fill ``out`` with pixel integrals of exp(−b R^(1/n) − log_total), R in effective radii."""
    stack = np.empty((256, 4))
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            value, done = _cell(col - x0, row - y0, 1.0, 1.0, frame, inv_n, b, log_total, smallest2, dark)
            if not done:
                value = _refine(stack, col - x0, row - y0, frame, inv_n, b, log_total, smallest2, dark)
            out[row, col] = value


@numba.njit(cache=True, inline="always")
def _cell(x, y, width, height, frame, inv_n, b, log_total, smallest2, dark):  # type: ignore[no-untyped-def]
    """(integral over the cell about (x, y), whether it is good).

    With L = −b R^(1/n) and s = dL/dlnR, the second derivatives of I over I are (s² + (1/n − 1)s)/R² along R and s/R²
    across. A side m of the cell (in circularised coordinates) adds m·H·m/24 of them to the mean over the cell.
    """
    u = frame[0, 0] * x + frame[0, 1] * y
    v = frame[1, 0] * x + frame[1, 1] * y
    mxu, mxv = frame[0, 0] * width, frame[1, 0] * width
    myu, myv = frame[0, 1] * height, frame[1, 1] * height
    side2 = mxu * mxu + mxv * mxv + myu * myu + myv * myv
    r2 = u * u + v * v
    if r2 == 0.0:
        r2 = 1e-300
    exponent = b * r2 ** (0.5 * inv_n)
    value = math.exp(-exponent - log_total) * width * height
    s = -exponent * inv_n
    radial = s * (s + inv_n - 1.0) / r2
    across = s / r2
    along2 = ((mxu * u + mxv * v) ** 2 + (myu * u + myv * v) ** 2) / r2
    correction = (along2 * radial + (side2 - along2) * across) / 24.0
    size = (along2 * abs(s) * (abs(s) + abs(inv_n - 1.0)) / r2 + (side2 - along2) * abs(across)) / 24.0
    # The series is one about the midpoint: it says nothing if the centre lies in the cell.
    if (size < _TOLERANCE and (r2 > side2 or inv_n >= 2.0)) or side2 < smallest2:
        return value * (1.0 + max(min(correction, _TOLERANCE), -_TOLERANCE)), True
    nearest = math.sqrt(r2) - math.sqrt(side2)  # generous: no point of the cell is nearer to the centre
    if nearest > 0.0 and b * nearest**inv_n > dark:
        return value, True
    return 0.0, False


@numba.njit(cache=True)
def _refine(stack, x, y, frame, inv_n, b, log_total, smallest2, dark):  # type: ignore[no-untyped-def]
    """Integral over the pixel about (x, y) by halving cells along the side that is longer in units of the profile."""
    total = 0.0
    top = 1
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = x, y, 1.0, 1.0
    while top > 0:
        top -= 1
        cx, cy, width, height = stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3]
        value, done = _cell(cx, cy, width, height, frame, inv_n, b, log_total, smallest2, dark)
        if done:
            total += value
            continue
        if width * math.hypot(frame[0, 0], frame[1, 0]) >= height * math.hypot(frame[0, 1], frame[1, 1]):
            dx, dy, width = 0.25 * width, 0.0, 0.5 * width
        else:
            dx, dy, height = 0.0, 0.25 * height, 0.5 * height
        for sign in (-1.0, 1.0):
            stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3] = cx + sign * dx, cy + sign * dy, width, height
            top += 1
    return total
