"""realism: injected hosts against untouched ones, and injections against real lenses (two-sample tests).

A classifier that tells two samples apart at all shows that they differ (C2ST; Lopez-Paz & Oquab 2017, ICLR).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dhs_gen.streams import unit_intervals
from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.gates.across_hosts import indistinguishable_across, reported_across
from dhs_pipeline.gates.amplitude import arc_signal_to_noise
from dhs_pipeline.gates.data import GateData, PairSample
from dhs_pipeline.gates.host_features import host_features
from dhs_pipeline.gates.pictures import stretch
from dhs_pipeline.gates.probes import (
    FEATURE_PROBES,
    PICTURE_PROBES,
    Contest,
    FitPredict,
    cross_validated,
)
from dhs_pipeline.gates.reference import picture_sigma
from dhs_pipeline.gates.result import CannotRun, Figure, GateResult, Outcome, judge, reported
from dhs_pipeline.gates.statistics import auc_interval

_GATE = "realism"
_CUTOUT_BANDS = "grz"
"""Order of the channels of ``cutout`` arrays, as the Legacy Surveys' viewer gives them."""


def realism(data: GateData, config: GatesConfig) -> GateResult:
    """Two contests, on features (:mod:`dhs_pipeline.gates.host_features`) and on pictures.

    Hosts: positives less their noise-free arc against controls. Of same-host pairs the two differ by the shot noise of
    the arc alone, which is real, so pairs of faint arcs are judged and all are reported. Real lenses, where given:
    against positives of the same r flux in the stamp, judged by the low end of the interval; too few of them end as
    NOT_RUN, with the figures of the hosts. What the arcs themselves look like is in the second contest alone.

    Raises
    ------
    CannotRun
        If the set lacks the layers arc or invvar, or too few pairs have faint arcs.
    """
    sample = data.sample
    if len(sample) == 0 or sample.arc is None:
        raise CannotRun("the set carries no arc layer" if len(sample) else "there are no pairs")
    sigma = picture_sigma(sample)
    faint = np.flatnonzero(arc_signal_to_noise(sample, data.bandset) < config.realism.max_arc_snr)
    if not faint.size:
        raise CannotRun(f"no arc has an S/N below {config.realism.max_arc_snr:g}")
    figures: list[Figure] = []
    dim = sample.take(faint)
    name = f"hosts without arcs of S/N below {config.realism.max_arc_snr:g}"
    figures += indistinguishable_across(_GATE, f"{name}, features", _hosts(dim, sigma, config), FEATURE_PROBES, config)
    figures += indistinguishable_across(_GATE, f"{name}, pictures", _hosts(dim, sigma, None), PICTURE_PROBES, config)
    everyone, name = _hosts(sample, sigma, config), "hosts without any arcs, features"
    figures += [reported_across(_GATE, f"{name}, {n}", everyone, p, config) for n, p in FEATURE_PROBES.items()]
    shown, said = _real_lenses(data, sigma, config)
    message = f"{faint.size} hosts that were injected look like {faint.size} that were not; {said}"
    result = judge(_GATE, [*figures, *shown], message)
    if data.real_lenses is not None and len(shown) == 1 and result.outcome is Outcome.PASS:
        return replace(result, outcome=Outcome.NOT_RUN)  # the comparison that was asked for was not made
    return result


def _hosts(sample: PairSample, sigma: NDArray[np.float64], features: GatesConfig | None) -> Contest:
    """Controls against positives less their arc, as features or as pictures."""
    bare = (sample.positive.astype(np.float64) - _arc(sample)).astype(np.float32)
    if features is None:
        return Contest(stretch(sample.control, sigma), stretch(bare, sigma), sample.control_host_ids, sample.host_ids)
    first, second = (host_features(images, sigma, features) for images in (sample.control, bare))
    return Contest(first, second, sample.control_host_ids, sample.host_ids)


def _arc(sample: PairSample) -> NDArray[np.float32]:
    if sample.arc is None:
        raise CannotRun("the set carries no arc layer")
    return sample.arc


def _real_lenses(data: GateData, sigma: NDArray[np.float64], config: GatesConfig) -> tuple[list[Figure], str]:
    if data.real_lenses is None:
        return [], "no real lenses were given"
    known = np.isfinite(data.real_lenses).all(axis=(1, 2, 3))
    real = data.real_lenses[known]
    lost = f", {int((~known).sum())} with missing pixels left out" if not known.all() else ""
    count = reported("real lenses", len(real), rows=len(real), blocks=len(real))
    if len(real) < config.realism.min_real:
        return [count], f"{len(real)} real lenses are too few to judge ({config.realism.min_real} are needed){lost}"
    positives, index = _of_the_same_flux(data, real, config)
    blocks = tuple(f"real lens {i}" for i in range(len(real)))
    hosts = tuple(data.sample.host_ids[i] for i in index)
    pictures = Contest(stretch(positives, sigma), stretch(real, sigma), hosts, blocks)
    first, second = (host_features(images, sigma, config) for images in (positives, real))
    features = Contest(first, second, hosts, blocks)
    figures = [_judged("real lenses, features", features, n, p, config) for n, p in FEATURE_PROBES.items()]
    figures += [_judged("real lenses, pictures", pictures, n, p, config) for n, p in PICTURE_PROBES.items()]
    return [
        count,
        *figures,
    ], f"{len(real)} real lenses were compared with {len(index)} injections of their r flux{lost}"


def _of_the_same_flux(
    data: GateData, real: NDArray[np.float32], config: GatesConfig
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Positives whose r flux in the stamp is distributed as the real lenses': as many from each of their strata.

    Strata are quantiles of the real lenses' flux; θ_E takes no part, since it is not known of every real lens.
    """
    if "r" not in data.bandset:
        raise CannotRun(f"real lenses are matched in r flux, and the bands are {data.bandset}")
    band = data.bandset.index("r")
    flux, wanted = (images[:, band].sum(axis=(1, 2), dtype=np.float64) for images in (data.sample.positive, real))
    edges = np.quantile(wanted, np.linspace(0.0, 1.0, config.realism.flux_strata + 1))
    strata = np.searchsorted(edges[1:-1], flux), np.searchsorted(edges[1:-1], wanted)
    inside = (flux >= edges[0]) & (flux <= edges[-1])
    there = [np.flatnonzero(inside & (strata[0] == k)) for k in range(config.realism.flux_strata)]
    share = [np.count_nonzero(strata[1] == k) for k in range(config.realism.flux_strata)]
    times = min(len(rows) / n for rows, n in zip(there, share, strict=True) if n)
    if times * len(real) < config.realism.min_real:
        raise CannotRun(f"{int(times * len(real))} positives have the r flux of real lenses, too few to compare")
    order = unit_intervals(data.sample.task_ids, salt=_GATE)
    drawn = [rows[np.argsort(order[rows])][: int(times * n)] for rows, n in zip(there, share, strict=True)]
    index = np.sort(np.concatenate(drawn))
    return data.sample.positive[index], index


def _shown(name: str, contest: Contest, probe_name: str, probe: FitPredict, config: GatesConfig) -> Figure:
    scores = cross_validated(contest, probe, config.folds)
    title = f"{name}, {probe_name}: AUC"
    found = auc_interval(contest.labels, scores, contest.hosts, config.resamples, title)
    blocks = len(set(contest.hosts))
    return reported(title, found.value, rows=len(scores), blocks=blocks, low=found.low, high=found.high)


def _judged(name: str, contest: Contest, probe_name: str, probe: FitPredict, config: GatesConfig) -> Figure:
    """Fails where the interval leaves no doubt that the two differ by more than the limit."""
    found = _shown(name, contest, probe_name, probe, config)
    limit = config.realism.max_lower_bound
    low = found.value if found.low is None else found.low
    return Figure(
        found.name, found.value, low, found.high, f"interval reaching down to {limit:g}", low <= limit, found.rows,
        found.blocks,
    )  # fmt: skip
