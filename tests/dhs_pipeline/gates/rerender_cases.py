"""A paired run with hard negatives, made without Spark, and rerenderers that tamper with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from small_run import NO_BANKS, InProcessSpark, make_run

from dhs_pipeline.config import Generation, RunConfig
from dhs_pipeline.gates.data import GateData, PairSample
from dhs_pipeline.gates.probes import linear
from dhs_pipeline.gates.rerender import Rerenderer, open_rerenderer
from dhs_pipeline.gates.sample import read_sample
from dhs_pipeline.gates.scan import find_set, scan_here
from dhs_pipeline.injection import run_injection
from dhs_pipeline.rundir import RunDir

SETTINGS = (
    "manifest.control_fraction=0.0",
    "manifest.tasks_per_shard=8",
    "rendering.max_supersampling=3",
)
PAIRED = "gen7_all_negatives"
LOOSE = ("max_standard_error=0.5", "max_host_standard_error=0.5", "min_hosts=3", "resamples=100", "folds=2")
"""Limits under which a few pairs are enough."""

Made = tuple[RunDir, GateData]
"""A run, and its paired set as gates see it."""


def paired_generation(config: RunConfig) -> Generation:
    """Gen7 with a negative of every kind, equally often."""
    tree = config.generation("gen7").with_pairing("prime").model_dump(mode="json")
    weights = tree["pairing"]["negatives"]["weights"]
    tree["pairing"]["negatives"]["weights"] = dict.fromkeys(weights, 1.0 / len(weights))
    return Generation.model_validate(tree | {"name": PAIRED})


def make_paired_run(folder: Path, n_hosts: int, tasks_per_host: int = 4) -> Made:
    """A run whose hosts differ (their noise is seeded by the length of their names), and its set as gates see it."""
    run, config = make_run(
        folder,
        hosts={"h" * (k + 1): None for k in range(n_hosts)},
        generations=(),
        settings=(f"manifest.tasks_per_host={tasks_per_host}", *SETTINGS),
    )
    inject_into(run, paired_generation(config))
    return run, look_at(run, PAIRED)


def inject_into(run: RunDir, generation: Generation) -> None:
    spark: Any = InProcessSpark()
    run_injection(spark, run, generation, NO_BANKS, run.config(), partitions=None, force=False, progress=False)


def look_at(run: RunDir, generation: str) -> GateData:
    stamps = run.phase4c(generation) / "stamps"
    data = find_set(stamps)
    rows = scan_here(data)
    sample, bandset = read_sample(data, rows, 10_000)
    return GateData(rows, sample, bandset, 0.262, open_rerenderer(stamps), "", None)


class Tampered:
    """Another rerenderer, with some of its methods replaced."""

    def __init__(self, honest: Rerenderer, **methods: Any) -> None:
        self._honest, self._methods = honest, methods

    def __getattr__(self, name: str) -> Any:
        return self._methods[name] if name in self._methods else getattr(self._honest, name)


def tampered(data: GateData, **methods: Any) -> GateData:
    assert data.rerender is not None
    return replace(data, rerender=Tampered(data.rerender, **methods))


def with_sample(data: GateData, **arrays: Any) -> GateData:
    return replace(data, sample=replace(data.sample, **arrays))


def half_pixel_right(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear resampling by half a pixel: what a path must not do."""
    return (0.5 * (images + np.roll(images, 1, axis=-1))).astype(np.float32)


class ArcReader:
    """A reference classifier that needs no training: how much more light than the control a picture has.

    Light counts by its weights. Pairs scatter by 1 of themselves; light like the weights adds ``strength``.
    """

    def __init__(self, sample: PairSample, weights: NDArray[np.float32], strength: float = 4.0) -> None:
        norm = (weights.astype(np.float64) ** 2).sum(axis=(1, 2, 3), keepdims=True)
        self._weights, self._host = strength * weights / norm, sample.control
        self._level = np.random.default_rng(5).normal(size=len(sample))
        self._controls = np.sort(self.score(sample.control, np.arange(len(sample))))

    def score(self, images: NDArray[np.float32], pairs: NDArray[np.intp]) -> NDArray[np.float64]:
        more = images.astype(np.float64) - self._host[pairs]
        return (more * self._weights[pairs]).sum(axis=(1, 2, 3)) + self._level[pairs]

    def rank(self, scores: NDArray[np.float64], pairs: NDArray[np.intp]) -> NDArray[np.float64]:
        sides = [np.searchsorted(self._controls, scores, side) for side in ("left", "right")]
        return (sides[0] + sides[1]) / (2.0 * self._controls.size)


def thumbnails(
    x: NDArray[np.float32], y: NDArray[np.intp], x_new: NDArray[np.float32], seed: int
) -> NDArray[np.float64]:
    """A probe of pictures for a few rows: logistic regression on every 16th pixel."""
    return linear(x[..., ::16, ::16], y, x_new[..., ::16, ::16], seed)
