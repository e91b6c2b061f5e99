"""The loops over pixels and rays, compiled.

Where a pixel takes many rays, the deflection is evaluated at a few nodes and interpolated (:mod:`dhs_gen.lensing.
pixel_field`). A pixel that may hold the lens centre is cut into cells, each with the rays that it needs.

A lens comes as :meth:`MassModel.params`, a tuple, and :meth:`MassModel.extras`. Where ``extras`` is None, the compiler
leaves out the branches that need it.

What these call lies in other files, whose changes numba's cache does not notice: run ``make clean`` after one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.compiled import inner_kernel
from dhs_gen.lensing.models import deflect_one, deflect_row
from dhs_gen.lensing.pixel_field import (
    MIN_RAYS,
    NEAR_SIDES,
    NODE_POSITIONS,
    NODES,
    add_galaxy,
    interpolate,
    split_halos,
)
from dhs_gen.lensing.tnfw import add_halo, add_halos

_SINGULAR_RADIUS = 0.75
"""A square whose centre is nearer to the lens centre than this, in its own sides, may hold it (half a diagonal is
0.71): the deflection jumps inside, and its corners say nothing of its footprint."""

_CELLS = 5
"""A pixel about the lens centre is cut into 5 × 5 cells."""

_MIN_RAYS_FOR_CELLS = 15
"""Rays per axis from which cells pay."""


class Source(NamedTuple):
    """A template as rays meet it.

    Parameters
    ----------
    planes
        (channels, (rows + 3) (columns + 3)) surface brightness, 1/arcsec², with a border of zeros: one row and column
        before, two after.
    rows, columns
        Of the template, without the border.
    x_arcsec, y_arcsec
        Its centre relative to the lens centre, on the source plane.
    cos, sin
        Of its position angle, over its pixel scale (arcsec).
    mirror
        −1.0 if it is flipped, else 1.0.
    """

    planes: NDArray[np.float64]
    rows: int
    columns: int
    x_arcsec: float
    y_arcsec: float
    cos: float
    sin: float
    mirror: float


class Sampling(NamedTuple):
    """How densely to shoot, and the tables for it.

    Parameters
    ----------
    pitch, pitch_growth
        Distance wanted between rays at the template's centre, in template pixels, and its growth per template pixel of
        distance from there.
    min_s, max_s
        Bounds on the rays per pixel and axis (odd).
    orders
        (K, 2) orders of the Legendre moments along columns and rows.
    legendre
        [s, m, i]: P_m at the i-th of s ray positions in a pixel.
    weights
        [s, k, i]: :func:`dhs_gen.lensing.pixel_field.node_weights`.
    footprints
        (N,) how far apart two rays that pass a subhalo on opposite sides can land, template pixels.
    """

    pitch: float
    pitch_growth: float
    min_s: int
    max_s: int
    orders: NDArray[np.int64]
    legendre: NDArray[np.float64]
    weights: NDArray[np.float64]
    footprints: NDArray[np.float64]


class _Room(NamedTuple):
    """Scratch, made once for a stamp.

    Parameters
    ----------
    at, alpha
        (2, S) where a row of rays lands on the template (column, row), and its deflections.
    where, found
        (S,) template pixel and brightness that each ray of a row reads.
    sums
        (channels, orders, S) light times the rows' Legendre polynomials, by ray column.
    edges
        (2, columns + 1, 2) landings of the pixel corners of two rows.
    cell_corners
        (cells + 1, cells + 1, 2) landings of the corners of a pixel's cells.
    field, landing
        (NODES, 2, NODES) deflections of a pixel and landings of a cell at the nodes.
    near
        (N,) the subhalos that are near a pixel.
    """

    at: NDArray[np.float64]
    alpha: NDArray[np.float64]
    where: NDArray[np.int64]
    found: NDArray[np.float64]
    sums: NDArray[np.float64]
    edges: NDArray[np.float64]
    cell_corners: NDArray[np.float64]
    field: NDArray[np.float64]
    landing: NDArray[np.float64]
    near: NDArray[np.int64]


@numba.njit(cache=True)
def shoot_box(params, extras, source, sampling, lens_xy_pix, shape, pixscale):  # type: ignore[no-untyped-def]
    """Moments (channels, K, *shape) of the pixels of a box in which the lens centre lies at ``lens_xy_pix``.

    Parameters
    ----------
    params, extras
        The lens.
    source, sampling
        :class:`Source` and :class:`Sampling`.
    lens_xy_pix
        (column, row) from 0, sub-pixel.
    shape
        (rows, columns) of the box.
    pixscale
        Arcsec.
    """
    channels, n_cols, max_s = source.planes.shape[0], shape[1], sampling.max_s
    out = np.zeros((channels, sampling.orders.shape[0], shape[0], n_cols))
    room = _Room(
        np.empty((2, max_s)),
        np.empty((2, max_s)),
        np.empty(max_s, np.int64),
        np.empty(max_s),
        np.empty((channels, sampling.legendre.shape[1], max_s)),
        np.empty((2, n_cols + 1, 2)),
        np.empty((_CELLS + 1, _CELLS + 1, 2)),
        np.empty((NODES, 2, NODES)),
        np.empty((NODES, 2, NODES)),
        np.empty(sampling.footprints.size, np.int64),
    )
    _shoot_rows(params, extras, source, sampling, lens_xy_pix, pixscale, room, out)
    return out


@inner_kernel
def _shoot_rows(params, extras, source, sampling, lens_xy_pix, pixscale, room, out):  # type: ignore[no-untyped-def]
    """Row after row of pixels; the landings of two rows of their corners bound each pixel's footprint on the source."""
    n_rows, n_cols = out.shape[2], out.shape[3]
    x_edge = (-0.5 - lens_xy_pix[0]) * pixscale
    for row in range(-1, n_rows):
        for i in range(n_cols + 1):
            room.edges[0, i, 0], room.edges[0, i, 1] = room.edges[1, i, 0], room.edges[1, i, 1]
        _land(
            params, extras, source, x_edge, pixscale, n_cols + 1, (row + 0.5 - lens_xy_pix[1]) * pixscale, room.edges[1]
        )
        if row < 0:
            continue
        y_centre = (row - lens_xy_pix[1]) * pixscale
        for col in range(n_cols):
            x_centre = (col - lens_xy_pix[0]) * pixscale
            distance = math.sqrt(x_centre * x_centre + y_centre * y_centre) / pixscale
            bulge = 0.0
            if extras is not None:
                bulge = _bulge(extras[4], sampling.footprints, x_centre, y_centre, pixscale)
            s = _supersampling(room.edges, col, source, distance, bulge, sampling, sampling.min_s, sampling.max_s)
            if s > 0:
                _add_pixel(
                    params,
                    extras,
                    source,
                    sampling,
                    x_centre,
                    y_centre,
                    distance,
                    pixscale,
                    s,
                    bulge,
                    room,
                    out[:, :, row, col],
                )


@inner_kernel
def _add_pixel(  # type: ignore[no-untyped-def]
    params, extras, source, sampling, x_centre, y_centre, distance, pixscale, s, bulge, room, out
):
    """Shoot the s × s rays of a pixel and add them to its moments ``out`` (channels, K)."""
    n_near = 0
    if s >= MIN_RAYS:
        room.field[:] = 0.0
        if extras is not None:
            n_near = split_halos(extras[4], extras[5], x_centre, y_centre, pixscale, room.field, room.near)
    if s >= MIN_RAYS and distance >= NEAR_SIDES and n_near == 0:
        add_galaxy(params, extras, x_centre, y_centre, pixscale, room.field)
        _land_nodes(source, x_centre, y_centre, pixscale, room.field)
        _add_smooth_rays(source, sampling, s, 0, 0, s, room.field, room, out)
    elif s < _MIN_RAYS_FOR_CELLS or sampling.max_s < 3 * _CELLS:
        _add_rays(params, extras, source, sampling, x_centre, y_centre, pixscale, s, 0, 0, s, n_near, room, out)
    else:
        _add_cells(params, extras, source, sampling, x_centre, y_centre, pixscale, bulge, n_near, room, out)


@inner_kernel
def _add_cells(  # type: ignore[no-untyped-def]
    params, extras, source, sampling, x_centre, y_centre, pixscale, bulge, n_near, room, out
):
    """Cut a pixel into cells, shoot into each as many rays as it needs, and add them to the pixel's moments ``out``."""
    densest = sampling.max_s // _CELLS - (1 - sampling.max_s // _CELLS % 2)
    thinnest = min((sampling.min_s + _CELLS - 1) // _CELLS // 2 * 2 + 1, densest)
    corners = room.cell_corners
    cell = pixscale / _CELLS
    for p in range(_CELLS + 1):
        y_edge = y_centre - 0.5 * pixscale + cell * p
        _land(params, extras, source, x_centre - 0.5 * pixscale, cell, _CELLS + 1, y_edge, corners[p])
    for p in range(_CELLS):
        y_cell = y_centre + (p - 0.5 * (_CELLS - 1)) * cell
        for q in range(_CELLS):
            x_cell = x_centre + (q - 0.5 * (_CELLS - 1)) * cell
            distance = math.sqrt(x_cell * x_cell + y_cell * y_cell) / cell
            s = _supersampling(corners[p : p + 2], q, source, distance, bulge, sampling, thinnest, densest)
            if s == 0:
                continue
            if s >= MIN_RAYS and distance >= NEAR_SIDES and (sampling.footprints.size == 0):
                room.landing[:] = 0.0
                add_galaxy(params, extras, x_cell, y_cell, cell, room.landing)
                _land_nodes(source, x_cell, y_cell, cell, room.landing)
                _add_smooth_rays(source, sampling, s * _CELLS, s * p, s * q, s, room.landing, room, out)
            else:
                _add_rays(
                    params,
                    extras,
                    source,
                    sampling,
                    x_centre,
                    y_centre,
                    pixscale,
                    s * _CELLS,
                    s * p,
                    s * q,
                    s,
                    n_near,
                    room,
                    out,
                )


@inner_kernel
def _land(params, extras, source, x_first, step, count, y, out):  # type: ignore[no-untyped-def]
    """(column, row) of the template, from 0, that ``count`` rays in a row land on; out is (≥ count, 2)."""
    for i in range(count):
        x = x_first + step * i
        out[i, 0], out[i, 1] = deflect_one(params, extras, x, y)
    if extras is not None:
        add_halos(extras[4], extras[5], x_first, step, count, y, out.T)
    for i in range(count):
        x = x_first + step * i - out[i, 0]
        out[i, 0], out[i, 1] = _on_template(source, x, y - out[i, 1])


@inner_kernel
def _on_template(source, x, y):  # type: ignore[no-untyped-def]
    """(column, row) of the template, from 0, at a point of the source plane (arcsec from the lens centre)."""
    dx, dy = x - source.x_arcsec, y - source.y_arcsec
    column = (source.cos * dx + source.sin * dy) * source.mirror + 0.5 * (source.columns - 1)
    return column, source.cos * dy - source.sin * dx + 0.5 * (source.rows - 1)


@inner_kernel
def _land_nodes(source, x_centre, y_centre, pixscale, field):  # type: ignore[no-untyped-def]
    """Turn the deflections at a square's nodes (NODES, 2, NODES) into the (column, row) of the template that they land
    on. The nodes of a cubic, so a row of rays lands on a cubic too."""
    for j in range(NODES):
        y = y_centre + NODE_POSITIONS[j] * pixscale
        for k in range(NODES):
            x = x_centre + NODE_POSITIONS[k] * pixscale
            field[j, 0, k], field[j, 1, k] = _on_template(source, x - field[j, 0, k], y - field[j, 1, k])


@inner_kernel
def _misses(landing, source):  # type: ignore[no-untyped-def]
    """True if no ray of the square can meet the template: its nodes, and a quarter more on each side, lie beside."""
    for axis in range(2):
        low = high = landing[0, axis, 0]
        for j in range(NODES):
            for k in range(NODES):
                low = min(low, landing[j, axis, k])
                high = max(high, landing[j, axis, k])
        margin = 0.25 * (high - low)
        if high + margin <= -1.0 or low - margin >= (source.columns if axis == 0 else source.rows):
            return True
    return False


@inner_kernel
def _add_smooth_rays(source, sampling, s, first_b, first_a, count, landing, room, out):  # type: ignore[no-untyped-def]
    """As :func:`_add_rays` for a square of ``count`` × ``count`` rays that land where its nodes say."""
    if _misses(landing, source):
        return
    weights = sampling.weights
    room.sums[:, :, :count] = 0.0
    for b in range(count):
        for axis in range(2):
            n0 = n1 = n2 = n3 = 0.0
            for j in range(NODES):
                across = weights[count, j, b]
                n0 += across * landing[j, axis, 0]
                n1 += across * landing[j, axis, 1]
                n2 += across * landing[j, axis, 2]
                n3 += across * landing[j, axis, 3]
            for a in range(count):
                room.at[axis, a] = (
                    weights[count, 0, a] * n0
                    + weights[count, 1, a] * n1
                    + weights[count, 2, a] * n2
                    + weights[count, 3, a] * n3
                )
        _read(source, sampling.legendre, s, first_b + b, count, room)
    _sum_up(sampling, s, first_a, count, room.sums, out)


@inner_kernel
def _add_rays(  # type: ignore[no-untyped-def]
    params, extras, source, sampling, x_centre, y_centre, pixscale, s, first_b, first_a, count, n_near, room, out
):
    """Add ``count`` × ``count`` of the s × s rays of a pixel, from row ``first_b`` and column ``first_a``, to its
    moments ``out`` (channels, K)."""
    at, alpha, weights = room.at, room.alpha, sampling.weights
    step = pixscale / s
    x_first = x_centre + 0.5 * (step - pixscale) + step * first_a
    room.sums[:, :, :count] = 0.0
    for b in range(first_b, first_b + count):
        y = y_centre + 0.5 * (step - pixscale) + step * b
        deflect_row(params, extras, x_first, step, count, y, alpha)
        if extras is not None:
            if s >= MIN_RAYS:
                interpolate(room.field, weights[s, :, b], weights[s, :, first_a : first_a + count], count, alpha)
                for i in range(n_near):
                    add_halo(extras[4], extras[5], room.near[i], x_first, step, count, y, alpha)
            else:
                add_halos(extras[4], extras[5], x_first, step, count, y, alpha)
        for a in range(count):
            at[0, a], at[1, a] = _on_template(source, x_first + step * a - alpha[0, a], y - alpha[1, a])
        _read(source, sampling.legendre, s, b, count, room)
    _sum_up(sampling, s, first_a, count, room.sums, out)


@inner_kernel
def _read(source, legendre, s, row, count, room):  # type: ignore[no-untyped-def]
    """Read the template where a row of rays lands, by bilinear interpolation between pixel centres, and add the light
    times the row's Legendre polynomials to the sums. Rays beside the template read its border of zeros."""
    at, where, found, sums = room.at, room.where, room.found, room.sums
    planes, width = source.planes, source.columns + 3
    low_u = high_u = at[0, 0]
    low_v = high_v = at[1, 0]
    for a in range(1, count):
        low_u, high_u = min(low_u, at[0, a]), max(high_u, at[0, a])
        low_v, high_v = min(low_v, at[1, a]), max(high_v, at[1, a])
    if high_u <= -1.0 or low_u >= source.columns or high_v <= -1.0 or low_v >= source.rows:
        return
    for a in range(count):
        u = min(max(at[0, a], -1.0), 1.0 * source.columns) + 1.0
        v = min(max(at[1, a], -1.0), 1.0 * source.rows) + 1.0
        u0, v0 = int(u), int(v)
        at[0, a], at[1, a] = u - u0, v - v0
        where[a] = v0 * width + u0
    for c in range(planes.shape[0]):
        for a in range(count):
            i, fu, fv = where[a], at[0, a], at[1, a]
            low = planes[c, i] + fu * (planes[c, i + 1] - planes[c, i])
            high = planes[c, i + width] + fu * (planes[c, i + width + 1] - planes[c, i + width])
            found[a] = low + fv * (high - low)
        for n in range(sums.shape[1]):
            for a in range(count):
                sums[c, n, a] += legendre[s, n, row] * found[a]


@inner_kernel
def _sum_up(sampling, s, first_a, count, sums, out):  # type: ignore[no-untyped-def]
    """Sums by ray column → moments ``out`` (channels, K)."""
    orders, legendre = sampling.orders, sampling.legendre
    weight = 1.0 / (s * s)
    for c in range(sums.shape[0]):
        for k in range(orders.shape[0]):
            m, n = orders[k, 0], orders[k, 1]
            total = 0.0
            for a in range(count):
                total += legendre[s, m, first_a + a] * sums[c, n, a]
            out[c, k] += weight * total


@inner_kernel
def _bulge(geometry, footprints, x_centre, y_centre, pixscale):  # type: ignore[no-untyped-def]
    """Largest footprint of the subhalos within a pixel of (x, y) arcsec, column- and row-wise; 0 without any."""
    largest = 0.0
    for i in range(geometry.shape[0]):
        if abs(geometry[i, 0] - x_centre) < pixscale and abs(geometry[i, 1] - y_centre) < pixscale:
            largest = max(largest, footprints[i])
    return largest


@inner_kernel
def _supersampling(corners, i, source, centre_distance, bulge, sampling, min_s, max_s):  # type: ignore[no-untyped-def]
    """Rays per axis for the square between corner columns i and i + 1; 0 where no ray can meet the source.

    ``bulge`` is how far subhalos inside the square may spread its footprint, unseen by its corners.
    ``centre_distance`` from the lens is in sides of the square.
    """
    if centre_distance < _SINGULAR_RADIUS:
        return max_s
    columns, rows = source.columns, source.rows
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
    s = math.ceil(longest / (sampling.pitch + sampling.pitch_growth * math.sqrt(off_u * off_u + off_v * off_v)))
    s += 1 - s % 2
    return min(max(s, min_s), max_s)
