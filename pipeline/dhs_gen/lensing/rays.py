"""Ray shooting: where the light of a lensed source falls within each pixel.

Rays are shot on a regular odd sub-grid of each pixel, as densely as the source at the other end needs, and the
surface brightness they find is kept as a few Legendre moments of its distribution over the pixel. The moments are
all that a convolution with the PSF needs (see :mod:`dhs_gen.lensing.render`), so the number of rays may differ from
pixel to pixel and costs nothing afterwards. Rays are shot once for all bands.

Where a pixel takes many rays, the deflection is evaluated at a few nodes and interpolated (:mod:`dhs_gen.lensing.
pixel_field`). A pixel that may hold the lens centre is cut into cells, each with the rays that it needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.models import MassModel, deflect_row
from dhs_gen.lensing.pixel_field import (
    MIN_RAYS,
    NEAR_SIDES,
    NODE_POSITIONS,
    NODES,
    add_galaxy,
    interpolate,
    node_weights,
    split_halos,
)
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.lensing.tnfw import add_halo, add_halos

_SINGULAR_RADIUS = 0.75
"""A square whose centre is nearer to the lens centre than this, in its own sides, may hold it (half a diagonal is
0.71): the deflection jumps inside, and its corners say nothing of its footprint."""

_CELLS = 5
"""A pixel about the lens centre is cut into 5 × 5 cells."""

_MIN_RAYS_FOR_CELLS = 15
"""Rays per axis from which cells pay."""


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


@dataclass(frozen=True, eq=False)
class PixelLight:
    """Light on a grid of pixels, with its distribution inside each; dark borders are left out.

    Parameters
    ----------
    moments
        (channels, K, rows, columns) float64, K = len(moment_orders(order)): the mean over the pixel of
        SB(x, y) P_m(2x) P_n(2y), with x, y in pixels from the pixel's centre and SB in 1/arcsec² (the source has unit
        flux). The (0, 0) moment is the mean surface brightness.
    first_col, first_row
        Where the first pixel lies on the grid; all other pixels of the grid are dark.
    """

    moments: NDArray[np.float64]
    first_col: int
    first_row: int

    def on_grid(self, side_pix: int) -> NDArray[np.float64]:
        """(channels, K, side, side): the moments of every pixel of the grid."""
        channels, n_moments, rows, columns = self.moments.shape
        grid = np.zeros((channels, n_moments, side_pix, side_pix))
        grid[:, :, self.first_row : self.first_row + rows, self.first_col : self.first_col + columns] = self.moments
        return grid

    def lit(self) -> PixelLight:
        """The same light from its first to its last row and column that hold any."""
        has_light = (self.moments[:, 0] != 0).any(axis=0)
        rows, columns = np.flatnonzero(has_light.any(axis=1)), np.flatnonzero(has_light.any(axis=0))
        if rows.size == 0:
            return PixelLight(self.moments[:, :, :0, :0], self.first_col, self.first_row)
        inner = self.moments[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return PixelLight(inner, self.first_col + int(columns[0]), self.first_row + int(rows[0]))


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
) -> PixelLight:
    """The lensed surface brightness in every pixel of a square grid.

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
    """
    reach_pix = lens.reach_arcsec(math.hypot(*source_xy_arcsec) + template.radius_arcsec) / pixscale_arcsec + 1.0
    first_col, last_col = _reached(lens_xy_pix[0], reach_pix, side_pix)
    first_row, last_row = _reached(lens_xy_pix[1], reach_pix, side_pix)
    orders = moment_orders(accuracy.moment_order)
    if last_col < first_col or last_row < first_row:
        return PixelLight(np.zeros((len(template.pixels), len(orders), 0, 0)), 0, 0)
    scale = 1.0 / template.pixscale_arcsec
    moments = _shoot(
        tuple(lens.params().tolist()),
        lens.extras(),
        _bordered(template),
        (float(source_xy_arcsec[0]), float(source_xy_arcsec[1])),
        (math.cos(template.phi_rad) * scale, math.sin(template.phi_rad) * scale, -1.0 if template.flip else 1.0),
        (float(lens_xy_pix[0] - first_col), float(lens_xy_pix[1] - first_row)),
        (last_row - first_row + 1, last_col - first_col + 1),
        float(pixscale_arcsec),
        template.resolution_arcsec / template.pixscale_arcsec / accuracy.rays_per_resolution,
        template.resolution_growth / accuracy.rays_per_resolution,
        _halo_footprints(lens) / template.pixscale_arcsec,
        accuracy.min_supersampling,
        accuracy.max_supersampling,
        orders,
        _legendre_tables(accuracy.moment_order, accuracy.max_supersampling),
        node_weights(accuracy.max_supersampling),
    )
    return PixelLight(moments, first_col, first_row)


def _reached(centre_pix: float, reach_pix: float, side_pix: int) -> tuple[int, int]:
    """First and last pixel along an axis that a ray can leave for the source."""
    return max(0, math.floor(centre_pix - reach_pix)), min(side_pix - 1, math.ceil(centre_pix + reach_pix))


def _bordered(template: SourceTemplate) -> NDArray[np.float64]:
    """Surface brightness, 1/arcsec², with the zeros about it that a ray beside the template reads: one row and column
    before, two after."""
    channels, rows, columns = template.pixels.shape
    bordered = np.zeros((channels, rows + 3, columns + 3))
    np.multiply(template.pixels, 1.0 / template.pixscale_arcsec**2, out=bordered[:, 1 : rows + 1, 1 : columns + 1])
    return bordered


def _halo_footprints(lens: MassModel) -> NDArray[np.float64]:
    """(N,) how far apart two rays that pass a subhalo on opposite sides can land, arcsec."""
    return np.empty(0) if lens.subhalos is None else 2.0 * lens.subhalos.max_deflections_arcsec()


@numba.njit(cache=True)
def _shoot(  # type: ignore[no-untyped-def]
    params,
    extras,
    brightness,
    source,
    frame,
    lens_xy_pix,
    shape,
    pixscale,
    pitch,
    pitch_growth,
    footprints,
    min_s,
    max_s,
    orders,
    legendre,
    weights,
):
    """Moments (channels, K, *shape) of the pixels of a box in which the lens centre lies at ``lens_xy_pix``."""
    channels, rows, columns = brightness.shape[0], brightness.shape[1] - 3, brightness.shape[2] - 3
    n_rows, n_cols = shape
    out = np.zeros((channels, orders.shape[0], n_rows, n_cols))

    # Template positions of the pixel corners, two rows at a time, bound each pixel's footprint on the source.
    corners = np.empty((2, n_cols + 1, 2))
    alpha = np.empty((2, max(max_s, n_cols + 1)))
    room = (
        np.empty((2, max_s)),
        np.empty((2, max_s)),
        np.empty(max_s, np.int64),
        np.empty(max_s),
        np.empty((channels, legendre.shape[1], max_s)),
    )
    field = np.empty((NODES, 2, NODES))
    near = np.empty(0 if extras is None else extras[4].shape[0], np.int64)
    densest_cell = max_s // _CELLS - (1 - max_s // _CELLS % 2)
    thinnest_cell = min((min_s + _CELLS - 1) // _CELLS // 2 * 2 + 1, densest_cell)

    for row in range(-1, n_rows):
        corners[0] = corners[1]
        y_edge = (row + 0.5 - lens_xy_pix[1]) * pixscale
        _land(
            params, extras, source, frame, rows, columns, (-0.5 - lens_xy_pix[0]) * pixscale, pixscale, n_cols + 1,
            y_edge, alpha, corners[1],
        )  # fmt: skip
        if row < 0:
            continue
        y_centre = (row - lens_xy_pix[1]) * pixscale
        for col in range(n_cols):
            x_centre = (col - lens_xy_pix[0]) * pixscale
            distance_pix = math.sqrt(x_centre * x_centre + y_centre * y_centre) / pixscale
            bulge = 0.0
            if extras is not None:
                bulge = _bulge(extras[4], footprints, x_centre, y_centre, pixscale)
            s = _supersampling(corners, col, columns, rows, distance_pix, pitch, pitch_growth, bulge, min_s, max_s)
            if s == 0:
                continue
            pixel = out[:, :, row, col]

            # The far subhalos at the nodes, the near ones ray by ray.
            n_near = 0
            if s >= MIN_RAYS:
                field[:] = 0.0
                if extras is not None:
                    n_near = split_halos(extras[4], extras[5], x_centre, y_centre, pixscale, field, near)
            is_near = distance_pix < NEAR_SIDES or n_near > 0
            if s >= MIN_RAYS and not is_near:
                add_galaxy(params, extras, x_centre, y_centre, pixscale, field)
                _land_nodes(source, frame, rows, columns, x_centre, y_centre, pixscale, field)
                _add_smooth_rays(brightness, s, 0, 0, s, field, weights, legendre, orders, room, pixel)
            elif s < _MIN_RAYS_FOR_CELLS or densest_cell < 3:
                _add_rays(
                    params, extras, brightness, source, frame, x_centre, y_centre, pixscale, s, 0, 0, s, field,
                    near[:n_near], weights, legendre, orders, room, pixel,
                )  # fmt: skip
            else:
                _add_cells(
                    params, extras, brightness, source, frame, x_centre, y_centre, pixscale, pitch, pitch_growth,
                    bulge, thinnest_cell, densest_cell, field, near[:n_near], weights, legendre, orders, room, pixel,
                )  # fmt: skip
    return out


@numba.njit(cache=True)
def _add_cells(  # type: ignore[no-untyped-def]
    params, extras, brightness, source, frame, x_centre, y_centre, pixscale, pitch, pitch_growth, bulge, min_s, max_s,
    field, near, weights, legendre, orders, room, out,
):  # fmt: skip
    """Cut a pixel into cells, shoot into each as many rays as it needs, and add them to the pixel's moments ``out``."""
    rows, columns = brightness.shape[1] - 3, brightness.shape[2] - 3
    corners = np.empty((_CELLS + 1, _CELLS + 1, 2))
    landing = np.empty((NODES, 2, NODES))
    cell = pixscale / _CELLS
    for p in range(_CELLS + 1):
        _land(
            params, extras, source, frame, rows, columns, x_centre - 0.5 * pixscale, cell, _CELLS + 1,
            y_centre - 0.5 * pixscale + cell * p, room[1], corners[p],
        )  # fmt: skip
    for p in range(_CELLS):
        y_cell = y_centre + (p - 0.5 * (_CELLS - 1)) * cell
        for q in range(_CELLS):
            x_cell = x_centre + (q - 0.5 * (_CELLS - 1)) * cell
            distance = math.sqrt(x_cell * x_cell + y_cell * y_cell) / cell
            s = _supersampling(
                corners[p : p + 2], q, columns, rows, distance, pitch, pitch_growth, bulge, min_s, max_s
            )  # fmt: skip
            if s == 0:
                continue
            if s >= MIN_RAYS and distance >= NEAR_SIDES and (extras is None or extras[4].shape[0] == 0):
                landing[:] = 0.0
                add_galaxy(params, extras, x_cell, y_cell, cell, landing)
                _land_nodes(source, frame, rows, columns, x_cell, y_cell, cell, landing)
                _add_smooth_rays(
                    brightness, s * _CELLS, s * p, s * q, s, landing, weights, legendre, orders, room, out
                )  # fmt: skip
            else:
                _add_rays(
                    params, extras, brightness, source, frame, x_centre, y_centre, pixscale, s * _CELLS, s * p, s * q,
                    s, field, near, weights, legendre, orders, room, out,
                )  # fmt: skip


@numba.njit(cache=True)
def _land(params, extras, source, frame, rows, columns, x_first, step, count, y, alpha, out):  # type: ignore[no-untyped-def]
    """(column, row) of the template, from 0, that ``count`` rays in a row land on; out is (≥ count, 2)."""
    deflect_row(params, extras, x_first, step, count, y, alpha)
    if extras is not None:
        add_halos(extras[4], extras[5], x_first, step, count, y, alpha)
    for i in range(count):
        dx = x_first + step * i - alpha[0, i] - source[0]
        dy = y - alpha[1, i] - source[1]
        out[i, 0] = (frame[0] * dx + frame[1] * dy) * frame[2] + 0.5 * (columns - 1)
        out[i, 1] = frame[0] * dy - frame[1] * dx + 0.5 * (rows - 1)


@numba.njit(cache=True)
def _land_nodes(source, frame, rows, columns, x_centre, y_centre, pixscale, field):  # type: ignore[no-untyped-def]
    """Turn the deflections at a square's nodes (NODES, 2, NODES) into the (column, row) of the template that they land
    on. The nodes of a cubic, so a row of rays lands on a cubic too."""
    for j in range(NODES):
        dy = y_centre + NODE_POSITIONS[j] * pixscale - source[1]
        for k in range(NODES):
            x = x_centre + NODE_POSITIONS[k] * pixscale - source[0] - field[j, 0, k]
            y = dy - field[j, 1, k]
            field[j, 0, k] = (frame[0] * x + frame[1] * y) * frame[2] + 0.5 * (columns - 1)
            field[j, 1, k] = frame[0] * y - frame[1] * x + 0.5 * (rows - 1)


@numba.njit(cache=True)
def _misses(landing, rows, columns):  # type: ignore[no-untyped-def]
    """True if no ray of the square can meet the template: its nodes, and a quarter more on each side, lie beside."""
    for axis in range(2):
        low = high = landing[0, axis, 0]
        for j in range(NODES):
            for k in range(NODES):
                low = min(low, landing[j, axis, k])
                high = max(high, landing[j, axis, k])
        margin = 0.25 * (high - low)
        if high + margin <= -1.0 or low - margin >= (columns if axis == 0 else rows):
            return True
    return False


@numba.njit(cache=True)
def _add_smooth_rays(  # type: ignore[no-untyped-def]
    brightness, s, first_b, first_a, count, landing, weights, legendre, orders, room, out
):
    """As :func:`_add_rays` for a square of ``count`` × ``count`` rays that land where its nodes say."""
    at, _, _, _, sums = room
    if _misses(landing, brightness.shape[1] - 3, brightness.shape[2] - 3):
        return
    along = weights[count]
    sums[:, :, :count] = 0.0
    for b in range(count):
        across = weights[count, :, b]
        for axis in range(2):
            n0 = n1 = n2 = n3 = 0.0
            for j in range(NODES):
                n0 += across[j] * landing[j, axis, 0]
                n1 += across[j] * landing[j, axis, 1]
                n2 += across[j] * landing[j, axis, 2]
                n3 += across[j] * landing[j, axis, 3]
            for a in range(count):
                at[axis, a] = along[0, a] * n0 + along[1, a] * n1 + along[2, a] * n2 + along[3, a] * n3
        _read(brightness, legendre[s, :, first_b + b], count, room)
    _sum_up(legendre[s], first_a, count, 1.0 / (s * s), orders, sums, out)


@numba.njit(cache=True)
def _add_rays(  # type: ignore[no-untyped-def]
    params, extras, brightness, source, frame, x_centre, y_centre, pixscale, s, first_b, first_a, count, field, near,
    weights, legendre, orders, room, out,
):  # fmt: skip
    """Add ``count`` × ``count`` of the s × s rays of a pixel, from row ``first_b`` and column ``first_a``, to its
    moments ``out`` (channels, K)."""
    at, alpha, _, _, sums = room
    centre_u, centre_v = 0.5 * (brightness.shape[2] - 4), 0.5 * (brightness.shape[1] - 4)
    step = pixscale / s
    x_first = x_centre + 0.5 * (step - pixscale) + step * first_a
    sums[:, :, :count] = 0.0
    for b in range(first_b, first_b + count):
        y = y_centre + 0.5 * (step - pixscale) + step * b
        deflect_row(params, extras, x_first, step, count, y, alpha)
        if extras is not None:
            if s >= MIN_RAYS:
                interpolate(field, weights[s, :, b], weights[s, :, first_a : first_a + count], count, alpha)
                for i in near:
                    add_halo(extras[4], extras[5], i, x_first, step, count, y, alpha)
            else:
                add_halos(extras[4], extras[5], x_first, step, count, y, alpha)
        for a in range(count):
            dx = x_first + step * a - alpha[0, a] - source[0]
            dy = y - alpha[1, a] - source[1]
            at[0, a] = (frame[0] * dx + frame[1] * dy) * frame[2] + centre_u
            at[1, a] = frame[0] * dy - frame[1] * dx + centre_v
        _read(brightness, legendre[s, :, b], count, room)
    _sum_up(legendre[s], first_a, count, 1.0 / (s * s), orders, sums, out)


@numba.njit(cache=True)
def _read(brightness, p_n, count, room):  # type: ignore[no-untyped-def]
    """Read the template where a row of rays lands, by bilinear interpolation between pixel centres, and add the light
    times the row's Legendre polynomials ``p_n`` to the sums. Rays beside the template read its border of zeros."""
    at, _, where, found, sums = room
    height, width = brightness.shape[1], brightness.shape[2]
    low_u = high_u = at[0, 0]
    low_v = high_v = at[1, 0]
    for a in range(1, count):
        low_u, high_u = min(low_u, at[0, a]), max(high_u, at[0, a])
        low_v, high_v = min(low_v, at[1, a]), max(high_v, at[1, a])
    if high_u <= -1.0 or low_u >= width - 3 or high_v <= -1.0 or low_v >= height - 3:
        return
    for a in range(count):
        u = min(max(at[0, a], -1.0), width - 3.0) + 1.0
        v = min(max(at[1, a], -1.0), height - 3.0) + 1.0
        u0, v0 = int(u), int(v)
        at[0, a], at[1, a] = u - u0, v - v0
        where[a] = v0 * width + u0
    for c in range(brightness.shape[0]):
        plane = brightness[c].ravel()
        for a in range(count):
            i, fu, fv = where[a], at[0, a], at[1, a]
            low = plane[i] + fu * (plane[i + 1] - plane[i])
            high = plane[i + width] + fu * (plane[i + width + 1] - plane[i + width])
            found[a] = low + fv * (high - low)
        for n in range(p_n.size):
            for a in range(count):
                sums[c, n, a] += p_n[n] * found[a]


@numba.njit(cache=True)
def _sum_up(p_m, first_a, count, weight, orders, sums, out):  # type: ignore[no-untyped-def]
    """Sums by ray column → moments ``out`` (channels, K)."""
    for c in range(sums.shape[0]):
        for k in range(orders.shape[0]):
            total = 0.0
            for a in range(count):
                total += p_m[orders[k, 0], first_a + a] * sums[c, orders[k, 1], a]
            out[c, k] += weight * total


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
    corners, i, columns, rows, centre_distance, pitch, pitch_growth, bulge, min_s, max_s
):
    """Rays per axis for the square between corner columns i and i + 1; 0 where no ray can meet the source.

    ``pitch`` is the distance wanted between rays at the template's centre, in template pixels; it grows by
    ``pitch_growth`` per template pixel of distance from there. ``bulge`` is how far subhalos inside the square
    may spread its footprint, unseen by its corners. ``centre_distance`` from the lens is in sides of the square.
    """
    if centre_distance < _SINGULAR_RADIUS:
        return max_s
    low_u = high_u = corners[0, i, 0]
    low_v = high_v = corners[0, i, 1]
    for j in range(2):
        for k in range(2):
            low_u = min(low_u, corners[j, i + k, 0])
            high_u = max(high_u, corners[j, i + k, 0])
            low_v = min(low_v, corners[j, i + k, 1])
            high_v = max(high_v, corners[j, i + k, 1])
    # The image of a square is curved: half its extent is room enough outside the singular core.
    room = 0.5 * max(high_u - low_u, high_v - low_v) + 1.0 + bulge
    if low_u > columns + room or high_u < -1.0 - room or low_v > rows + room or high_v < -1.0 - room:
        return 0
    longest = 0.0
    for k in range(2):
        along_row = (corners[k, i + 1, 0] - corners[k, i, 0]) ** 2 + (corners[k, i + 1, 1] - corners[k, i, 1]) ** 2
        along_col = (corners[1, i + k, 0] - corners[0, i + k, 0]) ** 2 + (
            corners[1, i + k, 1] - corners[0, i + k, 1]
        ) ** 2
        longest = max(longest, along_row, along_col)
    longest = math.sqrt(longest) + bulge
    off_u = max(low_u - 0.5 * (columns - 1), 0.5 * (columns - 1) - high_u, 0.0)
    off_v = max(low_v - 0.5 * (rows - 1), 0.5 * (rows - 1) - high_v, 0.0)
    s = math.ceil(longest / (pitch + pitch_growth * math.sqrt(off_u * off_u + off_v * off_v)))
    s += 1 - s % 2
    return min(max(s, min_s), max_s)
