"""Injection designs: which θ_E, source brightness, size, ellipticity and shear each host receives.

A host's points depend on the host alone, never on which other hosts are in the catalogue.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
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
    """Points of hosts, host after host: names, one array per axis, and the probability (or density) of each choice."""

    config_ids: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]]
    density: NDArray[np.float64]


def design_points(design: AnyDesign, host_ids: Sequence[str], tasks_per_host: int | None) -> DesignPoints:
    """The points of hosts, ``tasks_per_host`` of them for each (None: all the design has for one host).

    A population's points have names and no values: these are drawn for each task, given its redshifts.
    """
    count = points_per_host(design, tasks_per_host)
    if isinstance(design, PopulationDesign):
        return DesignPoints(_numbered(design.name, count) * len(host_ids), {}, np.ones(count * len(host_ids)))
    if isinstance(design, GridDesign):
        return _grid_points(design, host_ids, count)
    return _halton_points(design, host_ids, count)


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


def _grid_points(design: GridDesign, host_ids: Sequence[str], count: int) -> DesignPoints:
    """A host takes configurations in steps of about the golden section of the grid from a start of its own, so few
    tasks per host already spread over every axis, and over many hosts each configuration is equally frequent."""
    names, values = _grid(design)
    total = len(names)
    starts = np.array([int(unit_interval(h, design.name, salt="design_start") * total) for h in host_ids], np.int64)
    chosen = ((starts[:, None] + _coprime_step(total) * np.arange(count)) % total).ravel()
    return DesignPoints(
        tuple(names[i] for i in chosen.tolist()),
        {axis: values[chosen, k] for k, axis in enumerate(GRID_AXES)},
        np.full(chosen.size, 1.0 / total),
    )


@lru_cache
def _coprime_step(total: int) -> int:
    step = max(1, round(total * _GOLDEN))
    while np.gcd(step, total) != 1:
        step += 1
    return step


def _halton_points(design: HaltonDesign, host_ids: Sequence[str], count: int) -> DesignPoints:
    """The first ``count`` Halton points, moved by a shift of each host's own modulo 1 (Cranley & Patterson 1976)."""
    axes = design.axes.named()
    shifts = np.array([stream(h, "design_shift", salt=design.name).uniform(size=len(axes)) for h in host_ids])
    points = (_halton(count, len(axes)) + shifts.reshape(-1, 1, len(axes))) % 1.0
    values, density = {}, np.ones(count * len(host_ids))
    for k, (name, axis) in enumerate(axes.items()):
        values[name], axis_density = draw_axis(axis, points[:, :, k].ravel())
        density = density * axis_density
    return DesignPoints(_numbered(design.name, count) * len(host_ids), values, density)


@lru_cache(maxsize=4)
def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{i:06d}" for i in range(count))


@lru_cache(maxsize=4)
def _halton(count: int, dimensions: int) -> NDArray[np.float64]:
    return qmc.Halton(dimensions, scramble=False).random(count)
