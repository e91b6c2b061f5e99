"""Ray shooting: where the light of a lensed source falls within each pixel.

Rays are shot on a regular odd sub-grid of each pixel, as densely as the source at the other end needs, and the
surface brightness they find is kept as a few Legendre moments of its distribution over the pixel. The moments are
all that a convolution with the PSF needs (see :mod:`dhs_gen.lensing.render`), so the number of rays may differ from
pixel to pixel and costs nothing afterwards. Rays are shot once for all bands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.halo_field import MIN_RAYS, NODES, add_split, node_weights, split_halos
from dhs_gen.lensing.models import MassModel, deflect_row
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.lensing.tnfw import add_halos

_SINGULAR_RADIUS_PIX = 0.75
"""A pixel whose centre is nearer to the lens centre than this may hold it (half a diagonal is 0.71): the deflection
jumps inside, its corners say nothing of its footprint, and it takes the densest rays."""


@dataclass(frozen=True)
class Accuracy:
    """The renderer's knobs, in one place.

    Parameters
    ----------
    rays_per_resolution
        Rays per ``resolution_arcsec`` of the template, measured on the source plane.
    min_supersampling, max_supersampling
        Bounds on the rays per pixel and axis; odd, so that a ray passes through the pixel's centre.
    moment_order
        Highest total order of the Legendre moments kept per pixel. Order 0 is "bin, then convolve".
    """

    rays_per_resolution: float
    min_supersampling: int
    max_supersampling: int
    moment_order: int

    def __post_init__(self) -> None:
        for name in ("min_supersampling", "max_supersampling"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd and positive, got {getattr(self, name)!r}")
        if not self.rays_per_resolution > 0:
            raise ValueError(f"rays_per_resolution must be positive, got {self.rays_per_resolution!r}")
        if self.moment_order < 0:
            raise ValueError(f"moment_order must not be negative, got {self.moment_order!r}")


@lru_cache
def moment_orders(max_order: int) -> NDArray[np.int64]:
    """(K, 2) pairs (m, n) with m + n ≤ max_order; m along columns, n along rows; (0, 0) first."""
    pairs = [(m, n) for n in range(max_order + 1) for m in range(max_order + 1) if m + n <= max_order]
    return np.array(sorted(pairs, key=sum), dtype=np.int64)


@lru_cache
def _legendre_tables(max_order: int, max_supersampling: int) -> NDArray[np.float64]:
    """[s, m, i]: P_m at the i-th of s ray positions in a pixel, which spans [−1, 1]."""
    tables = np.zeros((max_supersampling + 1, max_order + 1, max_supersampling))
    for s in range(1, max_supersampling + 1):
        t = (2 * np.arange(s) + 1) / s - 1
        for m in range(max_order + 1):
            tables[s, m, :s] = np.polynomial.legendre.Legendre.basis(m)(t)
    return tables


def shoot(
    lens: MassModel,
    template: SourceTemplate,
    source_xy_arcsec: tuple[float, float],
    lens_xy_pix: tuple[float, float],
    side_pix: int,
    pixscale_arcsec: float,
    accuracy: Accuracy,
) -> NDArray[np.float64]:
    """Legendre moments of the lensed surface brightness in every pixel of a square grid.

    Parameters
    ----------
    lens, template
        The mass and the source.
    source_xy_arcsec
        Centre of the template relative to the lens centre, on the source plane, (x, y) arcsec.
    lens_xy_pix
        Lens centre on the grid, (column, row) from 0.
    side_pix, pixscale_arcsec
        The grid.
    accuracy
        Ray density and highest moment.

    Returns
    -------
    ndarray
        (channels, K, side, side) float64, K = len(moment_orders(accuracy.moment_order)): the mean over the pixel of
        SB(x, y) P_m(2x) P_n(2y), with x, y in pixels from the pixel's centre and SB in 1/arcsec² (the template has
        unit flux). The (0, 0) moment is the mean surface brightness.
    """
    sign = -1.0 if template.flip else 1.0
    return _shoot(
        tuple(lens.params().tolist()),
        lens.extras(),
        np.ascontiguousarray(template.pixels, dtype=np.float64) / template.pixscale_arcsec**2,
        np.array([source_xy_arcsec[0], source_xy_arcsec[1]], dtype=np.float64),
        np.array(
            [
                math.cos(template.phi_rad) / template.pixscale_arcsec,
                math.sin(template.phi_rad) / template.pixscale_arcsec,
                sign,
            ]
        ),
        np.array([lens_xy_pix[0], lens_xy_pix[1]], dtype=np.float64),
        side_pix,
        pixscale_arcsec,
        lens.reach_arcsec(math.hypot(*source_xy_arcsec) + template.radius_arcsec),
        template.resolution_arcsec / template.pixscale_arcsec / accuracy.rays_per_resolution,
        template.resolution_growth / accuracy.rays_per_resolution,
        _halo_footprints(lens) / template.pixscale_arcsec,
        accuracy.min_supersampling,
        accuracy.max_supersampling,
        moment_orders(accuracy.moment_order),
        _legendre_tables(accuracy.moment_order, accuracy.max_supersampling),
        node_weights(accuracy.max_supersampling),
    )


@numba.njit(cache=True, inline="always")
def _to_template(frame, source, x, y, alpha_x, alpha_y, columns, rows):  # type: ignore[no-untyped-def]
    """Ray at (x, y) arcsec on the sky, deflected by (α_x, α_y) → (column, row) of the template, from 0."""
    dx = x - alpha_x - source[0]
    dy = y - alpha_y - source[1]
    u = (frame[0] * dx + frame[1] * dy) * frame[2]
    v = frame[0] * dy - frame[1] * dx
    return u + 0.5 * (columns - 1), v + 0.5 * (rows - 1)


@numba.njit(cache=True)
def _shoot(  # type: ignore[no-untyped-def]  # noqa: C901
    params,
    extras,
    brightness,
    source_array,
    frame_array,
    lens_xy_pix,
    side,
    pixscale,
    reach,
    pitch,
    pitch_growth,
    footprints,
    min_s,
    max_s,
    orders,
    legendre,
    weights,
):
    channels, rows, columns = brightness.shape
    n_orders = orders.shape[0]
    top = legendre.shape[1]
    out = np.zeros((channels, n_orders, side, side))
    source = (source_array[0], source_array[1])
    frame = (frame_array[0], frame_array[1], frame_array[2])

    # Only pixels that a ray can leave for the source.
    margin = reach / pixscale + 1.0
    first_col = max(0, math.floor(lens_xy_pix[0] - margin))
    last_col = min(side - 1, math.ceil(lens_xy_pix[0] + margin))
    first_row = max(0, math.floor(lens_xy_pix[1] - margin))
    last_row = min(side - 1, math.ceil(lens_xy_pix[1] + margin))
    n_cols = last_col - first_col + 1
    if n_cols <= 0 or last_row < first_row:
        return out

    # Template positions of the pixel corners, two rows at a time, bound each pixel's footprint on the source.
    corners = np.empty((2, n_cols + 1, 2))
    sums = np.empty((channels, top))
    alpha = np.empty((2, max(max_s, n_cols + 1)))
    field = np.empty((NODES, 2, NODES))
    near = np.empty(0 if extras is None else extras[4].shape[0], np.int64)

    for row in range(first_row - 1, last_row + 1):
        corners[0] = corners[1]
        y_edge = (row + 0.5 - lens_xy_pix[1]) * pixscale
        x_first = (first_col - 0.5 - lens_xy_pix[0]) * pixscale
        deflect_row(params, extras, x_first, pixscale, n_cols + 1, y_edge, alpha)
        if extras is not None:
            add_halos(extras[4], extras[5], x_first, pixscale, n_cols + 1, y_edge, alpha)
        for i in range(n_cols + 1):
            x_edge = x_first + pixscale * i
            corners[1, i, 0], corners[1, i, 1] = _to_template(
                frame, source, x_edge, y_edge, alpha[0, i], alpha[1, i], columns, rows
            )
        if row < first_row:
            continue
        y_centre = (row - lens_xy_pix[1]) * pixscale
        for i in range(n_cols):
            col = first_col + i
            x_centre = (col - lens_xy_pix[0]) * pixscale
            bulge = 0.0
            if extras is not None:
                bulge = _bulge(extras[4], footprints, x_centre, y_centre, pixscale)
            s = _supersampling(
                corners, i, columns, rows, math.hypot(x_centre, y_centre) / pixscale,
                pitch, pitch_growth, bulge, min_s, max_s,
            )  # fmt: skip
            if s == 0:
                continue
            weight = 1.0 / (s * s)
            step = pixscale / s
            x_first = x_centre + 0.5 * (step - pixscale)
            n_near = 0
            if extras is not None and near.size > 0 and s >= MIN_RAYS:
                n_near = split_halos(extras[4], extras[5], x_centre, y_centre, pixscale, field, near)
            for b in range(s):
                y = y_centre + 0.5 * (step - pixscale) + step * b
                deflect_row(params, extras, x_first, step, s, y, alpha)
                if extras is not None and near.size > 0:
                    if s >= MIN_RAYS:
                        add_split(
                            extras[4], extras[5], field, near[:n_near], weights[s], b, x_first, step, s, y, alpha
                        )  # fmt: skip
                    else:
                        add_halos(extras[4], extras[5], x_first, step, s, y, alpha)
                sums[:] = 0.0
                lit = False
                for a in range(s):
                    x = x_first + step * a
                    u, v = _to_template(frame, source, x, y, alpha[0, a], alpha[1, a], columns, rows)
                    if not (-1.0 < u < columns and -1.0 < v < rows):
                        continue
                    lit = True
                    for c in range(channels):
                        sb = _bilinear(brightness, c, u, v, rows, columns)
                        for m in range(top):
                            sums[c, m] += sb * legendre[s, m, a]
                if lit:
                    for c in range(channels):
                        for k in range(n_orders):
                            out[c, k, row, col] += weight * sums[c, orders[k, 0]] * legendre[s, orders[k, 1], b]
    return out


@numba.njit(cache=True, inline="always")
def _bilinear(brightness, c, u, v, rows, columns):  # type: ignore[no-untyped-def]
    """Bilinear interpolation between pixel centres, with zeros around the template."""
    u0 = math.floor(u)
    v0 = math.floor(v)
    fu = u - u0
    fv = v - v0
    value = 0.0
    if v0 >= 0:
        if u0 >= 0:
            value += (1 - fu) * (1 - fv) * brightness[c, v0, u0]
        if u0 + 1 < columns:
            value += fu * (1 - fv) * brightness[c, v0, u0 + 1]
    if v0 + 1 < rows:
        if u0 >= 0:
            value += (1 - fu) * fv * brightness[c, v0 + 1, u0]
        if u0 + 1 < columns:
            value += fu * fv * brightness[c, v0 + 1, u0 + 1]
    return value


def _halo_footprints(lens: MassModel) -> NDArray[np.float64]:
    """(N,) how far apart two rays that pass a subhalo on opposite sides can land, arcsec."""
    return np.empty(0) if lens.subhalos is None else 2.0 * lens.subhalos.max_deflections_arcsec()


@numba.njit(cache=True)
def _bulge(geometry, footprints, x_centre, y_centre, pixscale):  # type: ignore[no-untyped-def]
    """Largest footprint of the subhalos within a pixel of (x, y) arcsec, column- and row-wise; 0 without any."""
    largest = 0.0
    for i in range(geometry.shape[0]):
        if abs(geometry[i, 0] - x_centre) < pixscale and abs(geometry[i, 1] - y_centre) < pixscale:
            largest = max(largest, footprints[i])
    return largest


@numba.njit(cache=True, inline="always")
def _supersampling(  # type: ignore[no-untyped-def]
    corners, i, columns, rows, centre_distance_pix, pitch, pitch_growth, bulge, min_s, max_s
):
    """Rays per axis for the pixel between corner columns i and i + 1; 0 where no ray can meet the source.

    ``pitch`` is the distance wanted between rays at the template's centre, in template pixels; it grows by
    ``pitch_growth`` per template pixel of distance from there. ``bulge`` is how far subhalos inside the pixel
    may spread its footprint, unseen by its corners.
    """
    if centre_distance_pix < _SINGULAR_RADIUS_PIX:
        return max_s
    low_u = high_u = corners[0, i, 0]
    low_v = high_v = corners[0, i, 1]
    for j in range(2):
        for k in range(2):
            low_u = min(low_u, corners[j, i + k, 0])
            high_u = max(high_u, corners[j, i + k, 0])
            low_v = min(low_v, corners[j, i + k, 1])
            high_v = max(high_v, corners[j, i + k, 1])
    # The image of a pixel is curved: half its extent is room enough outside the singular core.
    room = 0.5 * max(high_u - low_u, high_v - low_v) + 1.0 + bulge
    if low_u > columns + room or high_u < -1.0 - room or low_v > rows + room or high_v < -1.0 - room:
        return 0
    longest = 0.0
    for k in range(2):
        along_row = math.hypot(corners[k, i + 1, 0] - corners[k, i, 0], corners[k, i + 1, 1] - corners[k, i, 1])
        along_col = math.hypot(corners[1, i + k, 0] - corners[0, i + k, 0], corners[1, i + k, 1] - corners[0, i + k, 1])
        longest = max(longest, along_row, along_col)
    longest += bulge
    off_u = max(low_u - 0.5 * (columns - 1), 0.5 * (columns - 1) - high_u, 0.0)
    off_v = max(low_v - 0.5 * (rows - 1), 0.5 * (rows - 1) - high_v, 0.0)
    s = math.ceil(longest / (pitch + pitch_growth * math.hypot(off_u, off_v)))
    s += 1 - s % 2
    return min(max(s, min_s), max_s)
