"""Injection designs: which θ_E, source brightness, size, ellipticity and shear each host receives.

A host's points depend on the host alone, never on which other hosts are in the catalogue.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from dhs_gen.streams import stream, unit_interval
from dhs_pipeline.config import GridDesign, HaltonDesign, PopulationDesign
from dhs_pipeline.manifest.draws import draw_axis

AnyDesign = GridDesign | HaltonDesign | PopulationDesign

GRID_AXES = ("theta_e_arcsec", "src_dmag", "src_reff_arcsec", "src_e", "shear")
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, eq=False)
class DesignPoints:
    """Points of one host: names, one array per axis, and the probability (or density) each was chosen with."""

    config_ids: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]]
    density: NDArray[np.float64]


def design_points(design: AnyDesign, host_id: str, tasks_per_host: int | None) -> DesignPoints:
    """The points of a host, ``tasks_per_host`` of them (None: all the design has for one host).

    A population's points have names and no values: these are drawn for each task, given its redshifts.
    """
    count = points_per_host(design, tasks_per_host)
    if isinstance(design, PopulationDesign):
        return DesignPoints(tuple(f"{design.name}_{i:06d}" for i in range(count)), {}, np.ones(count))
    if isinstance(design, GridDesign):
        return _grid_points(design, host_id, count)
    return _halton_points(design, host_id, count)


def points_per_host(design: AnyDesign, tasks_per_host: int | None) -> int:
    """How many points a host receives; a grid has no more than its configurations."""
    if isinstance(design, GridDesign):
        total = len(_grid(design)[0])
        return min(tasks_per_host or total, total)
    return tasks_per_host or design.points_per_host


@lru_cache(maxsize=4)
def _grid(design: GridDesign) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names and (configurations, axes) values of a grid."""
    values = np.array(list(itertools.product(*(getattr(design, axis) for axis in GRID_AXES))), dtype=np.float64)
    names = tuple(
        f"{design.name}_{i:04d}_te{t:g}_dm{m:g}_rf{r:g}_e{e:g}_sh{s:g}" for i, (t, m, r, e, s) in enumerate(values)
    )
    return names, values


def _grid_points(design: GridDesign, host_id: str, count: int) -> DesignPoints:
    """A host takes configurations in steps of about the golden section of the grid from a start of its own, so few
    tasks per host already spread over every axis, and over many hosts each configuration is equally frequent."""
    names, values = _grid(design)
    total = len(names)
    start = int(unit_interval(host_id, design.name, salt="design_start") * total)
    chosen = (start + _coprime_step(total) * np.arange(count)) % total
    return DesignPoints(
        tuple(names[i] for i in chosen),
        {axis: values[chosen, k] for k, axis in enumerate(GRID_AXES)},
        np.full(count, 1.0 / total),
    )


@lru_cache
def _coprime_step(total: int) -> int:
    step = max(1, round(total * _GOLDEN))
    while np.gcd(step, total) != 1:
        step += 1
    return step


def _halton_points(design: HaltonDesign, host_id: str, count: int) -> DesignPoints:
    """The first ``count`` Halton points, moved by a shift of the host's own modulo 1 (Cranley & Patterson 1976)."""
    axes = design.axes.named()
    shift = stream(host_id, "design_shift", salt=design.name).uniform(size=len(axes))
    points = (_halton(count, len(axes)) + shift) % 1.0
    values, density = {}, np.ones(count)
    for k, (name, axis) in enumerate(axes.items()):
        values[name], axis_density = draw_axis(axis, points[:, k])
        density = density * axis_density
    return DesignPoints(tuple(f"{design.name}_{i:06d}" for i in range(count)), values, density)


@lru_cache(maxsize=4)
def _halton(count: int, dimensions: int) -> NDArray[np.float64]:
    return qmc.Halton(dimensions, scramble=False).random(count)
