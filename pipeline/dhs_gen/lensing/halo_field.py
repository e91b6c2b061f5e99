"""Many subhalos over one pixel: the near ones ray by ray, the far ones by interpolation.

A pixel holds up to thousands of rays, and a halo that is far away deflects all of them almost alike. The field of the
halos that are farther than ``NEAR_PIX`` from the pixel's centre is summed at 4 × 4 Chebyshev nodes of the pixel and
interpolated by the cubic through them; the others are summed for every ray. With N halos a pixel costs 16 N
evaluations instead of s² N. The cubic is wrong by about (h/d)⁴/8 of the deflection for a halo at distance d, h being
half a pixel: 5e-4 at ``NEAR_PIX`` and less beyond (tests).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.tnfw import add_halo

NEAR_PIX = 2.0
"""Halos nearer to a pixel's centre than this are summed for every ray."""

MIN_RAYS = 5
"""Rays per axis from which interpolation is cheaper than a sum over all halos."""

NODES = 4

_T = np.cos((2 * np.arange(NODES)[::-1] + 1) * math.pi / (2 * NODES))
NODE_POSITIONS: tuple[float, ...] = tuple((0.5 * _T).tolist())
"""Nodes along an axis, in pixels from the pixel's centre."""


@lru_cache
def node_weights(max_supersampling: int) -> NDArray[np.float64]:
    """[s, i, k]: weight of node k for the i-th of s rays along an axis of a pixel (Lagrange's polynomials)."""
    nodes = np.array(NODE_POSITIONS)
    weights = np.zeros((max_supersampling + 1, max_supersampling, NODES))
    for s in range(1, max_supersampling + 1):
        at = (np.arange(s) + 0.5) / s - 0.5
        for k in range(NODES):
            others = np.delete(nodes, k)
            weights[s, :s, k] = np.prod((at[:, None] - others) / (nodes[k] - others), axis=1)
    weights.setflags(write=False)
    return weights


@numba.njit(cache=True)
def split_halos(geometry, tables, x_centre, y_centre, pixscale, field, near):  # type: ignore[no-untyped-def]
    """Fill ``field`` (NODES, 2, NODES), by row of nodes, from the far halos and list the others in ``near`` (N,).

    Returns
    -------
    int
        How many are near.
    """
    limit = (NEAR_PIX * pixscale) ** 2
    field[:] = 0.0
    count = 0
    for i in range(geometry.shape[0]):
        dx, dy = geometry[i, 0] - x_centre, geometry[i, 1] - y_centre
        if dx * dx + dy * dy < limit:
            near[count] = i
            count += 1
            continue
        for row in range(NODES):
            y = y_centre + NODE_POSITIONS[row] * pixscale
            for column in range(NODES):
                x = x_centre + NODE_POSITIONS[column] * pixscale
                add_halo(geometry, tables, i, x, 0.0, 1, y, field[row, :, column : column + 1])
    return count


@numba.njit(cache=True)
def add_split(geometry, tables, field, near, weights, row, first_x, step, count, y, out):  # type: ignore[no-untyped-def]
    """Add the deflections of a row of ``count`` rays to ``out`` (2, ≥ count).

    ``near`` holds the near halos, ``weights`` is :func:`node_weights` for ``count`` rays and ``row`` the row's number.
    """
    for axis in range(2):
        a = b = c = d = 0.0
        for j in range(NODES):
            w = weights[row, j]
            a += w * field[j, axis, 0]
            b += w * field[j, axis, 1]
            c += w * field[j, axis, 2]
            d += w * field[j, axis, 3]
        for ray in range(count):
            out[axis, ray] += weights[ray, 0] * a + weights[ray, 1] * b + weights[ray, 2] * c + weights[ray, 3] * d
    for i in near:
        add_halo(geometry, tables, i, first_x, step, count, y, out)
