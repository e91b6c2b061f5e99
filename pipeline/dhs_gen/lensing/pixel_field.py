"""The deflection over one pixel by interpolation: what is far away deflects all rays of a pixel almost alike.

A pixel holds up to thousands of rays. The field of the masses that are farther than ``NEAR_SIDES`` from the pixel's
centre is summed at 4 × 4 Chebyshev nodes of the pixel and interpolated by the cubic through them; what is nearer is
summed for every ray. That costs 16 evaluations of each far mass instead of s². The cubic is wrong by about (h/d)⁴/8
of the deflection of a mass at distance d, h being half a pixel: 5e-4 at ``NEAR_SIDES`` and less beyond (tests).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.compiled import inner_kernel
from dhs_gen.lensing.models import deflect_one
from dhs_gen.lensing.tnfw import add_halo

NEAR_SIDES = 2.0
"""Masses whose centre is nearer to a pixel's centre than this, in sides of the pixel, are summed for every ray."""

MIN_RAYS = 5
"""Rays per axis from which interpolation is cheaper than a sum for every ray."""

NODES = 4

_T = np.cos((2 * np.arange(NODES)[::-1] + 1) * math.pi / (2 * NODES))
NODE_POSITIONS: tuple[float, ...] = tuple((0.5 * _T).tolist())
"""Nodes along an axis, in pixels from the pixel's centre."""


@lru_cache
def node_weights(max_supersampling: int) -> NDArray[np.float64]:
    """[s, k, i]: weight of node k for the i-th of s rays along an axis of a pixel (Lagrange's polynomials)."""
    nodes = np.array(NODE_POSITIONS)
    weights = np.zeros((max_supersampling + 1, NODES, max_supersampling))
    for s in range(1, max_supersampling + 1):
        at = (np.arange(s) + 0.5) / s - 0.5
        for k in range(NODES):
            others = np.delete(nodes, k)
            weights[s, k, :s] = np.prod((at[:, None] - others) / (nodes[k] - others), axis=1)
    weights.setflags(write=False)
    return weights


@inner_kernel
def add_galaxy(params, extras, x_centre, y_centre, pixscale, field):  # type: ignore[no-untyped-def]
    """Add the deflection by all but the subhalos to ``field`` (NODES, 2, NODES), by row of nodes."""
    for row in range(NODES):
        y = y_centre + NODE_POSITIONS[row] * pixscale
        for column in range(NODES):
            alpha_x, alpha_y = deflect_one(params, extras, x_centre + NODE_POSITIONS[column] * pixscale, y)
            field[row, 0, column] += alpha_x
            field[row, 1, column] += alpha_y


@inner_kernel
def split_halos(geometry, tables, x_centre, y_centre, pixscale, field, near):  # type: ignore[no-untyped-def]
    """Add the deflection by the far subhalos to ``field`` (NODES, 2, NODES) and list the others in ``near`` (N,).

    Returns
    -------
    int
        How many are near.
    """
    limit = (NEAR_SIDES * pixscale) ** 2
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


@inner_kernel
def interpolate(field, across, along, count, out):  # type: ignore[no-untyped-def]
    """Add the field to a row of ``count`` rays in ``out`` (2, ≥ count).

    ``across`` (NODES,) are the weights of the row of rays, ``along`` (NODES, count) those of its rays, both from
    :func:`node_weights`.
    """
    for axis in range(2):
        a = b = c = d = 0.0
        for j in range(NODES):
            w = across[j]
            a += w * field[j, axis, 0]
            b += w * field[j, axis, 1]
            c += w * field[j, axis, 2]
            d += w * field[j, axis, 3]
        for ray in range(count):
            out[axis, ray] += along[0, ray] * a + along[1, ray] * b + along[2, ray] * c + along[3, ray] * d
