"""arc_amplitude: a classifier that reads arcs loses them as they fade, and calls a host without one by its control.

A network that reads something else in positives (the path, a header of noise) keeps its score when the arc is gone.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.gates.data import GateData, PairSample
from dhs_pipeline.gates.reference import reference_classifier, rerenderer_of, some_pairs
from dhs_pipeline.gates.result import CannotRun, Curve, Figure, GateResult, exact, judge, reported
from dhs_pipeline.gates.statistics import Interval, ideal_auc, mean_interval

_GATE = "arc_amplitude"


def arc_amplitude(data: GateData, config: GatesConfig) -> GateResult:
    """Scores of the reference classifier as the arcs of held-out pairs fade to nothing.

    The score is the fraction of held-out controls that score lower, so its mean is an AUC. It must fall with the flux
    at every step, within the tolerance; fall by so much in all that arcs are read for certain; and end at the score of
    the host itself, exactly.

    Raises
    ------
    CannotRun
        If stamps cannot be made again or the classifier cannot be trained.
    """
    rerender, limits = rerenderer_of(data), config.arc_amplitude
    reference = reference_classifier(data)
    pairs = some_pairs(data.sample, limits.pairs, _GATE)
    chosen = data.sample.take(pairs)
    ids, hosts = chosen.task_ids, chosen.host_ids
    rows, blocks = len(chosen), len(set(hosts))
    if blocks < config.min_hosts:
        raise CannotRun(f"{blocks} hosts among the pairs, {config.min_hosts} are needed for an interval")
    factors = np.linspace(1.0, 0.0, limits.steps + 1)
    scores = np.stack([reference.score(rerender.positives(ids, flux_factor=float(f)), pairs) for f in factors])
    control = reference.score(chosen.control if chosen.same_host else rerender.controls(ids), pairs)
    ranks = np.stack([reference.rank(s, pairs) for s in scores])
    means = [mean_interval(r, hosts, config.resamples, f"{_GATE} {f:.3f}") for f, r in zip(factors, ranks, strict=True)]
    rise = float(np.diff([m.value for m in means]).max())
    fall = mean_interval(ranks[0] - ranks[-1], hosts, config.resamples, f"{_GATE} fall")
    figures = [
        exact(
            "score at no flux less the control's, largest difference",
            float(np.abs(scores[-1] - control).max()),
            limit=0.0,
            rows=rows,
            blocks=blocks,
        ),
        exact(
            "largest rise of the mean score in one step",
            rise,
            limit=limits.tolerance,
            rows=rows,
            blocks=blocks,
        ),
        _least("fall of the mean score from full flux to none", fall, limits.min_fall, rows, blocks),
        _reported("mean score at full flux (AUC)", means[0], rows, blocks),
        _reported("mean score at no flux", means[-1], rows, blocks),
    ]
    curves = (
        Curve(
            "score as the arc fades",
            "flux of the arc / its own",
            "mean score (fraction of controls below)",
            tuple(factors.tolist()),
            tuple(m.value for m in means),
            tuple(m.low for m in means),
            tuple(m.high for m in means),
        ),
        *_against_signal(chosen, data.bandset, factors, ranks, config),
    )
    message = (
        f"the mean score of {rows} pairs falls from {means[0].value:.3f} to {means[-1].value:.3f} as their arcs fade"
    )
    return judge(_GATE, figures, message, curves=curves)


def arc_signal_to_noise(sample: PairSample, bandset: str) -> NDArray[np.float64]:
    """(n,) matched-filter S/N of the arc over all bands, the quadratic sum of ``arc_snr_<b>``."""
    missing = [b for b in bandset if f"arc_snr_{b}" not in sample.pairs.column_names]
    if missing:
        raise CannotRun(f"the set has no column arc_snr_{missing[0]}")
    return np.sqrt(np.sum([sample.column(f"arc_snr_{b}") ** 2 for b in bandset], axis=0))


def _against_signal(
    sample: PairSample, bandset: str, factors: NDArray[np.float64], ranks: NDArray[np.float64], config: GatesConfig
) -> tuple[Curve, ...]:
    """Mean score in bins of S/N, and what the ideal observer of known arcs would reach there."""
    snr = factors[:, None] * arc_signal_to_noise(sample, bandset)[None, :]
    hosts = np.tile(np.asarray(sample.host_ids), factors.size)
    known = np.isfinite(snr.ravel())
    flat_snr, flat_rank, hosts = snr.ravel()[known], ranks.ravel()[known], hosts[known]
    if flat_snr.size == 0:
        return ()
    edges = np.concatenate([[0.0], 2.0 ** np.arange(0, np.ceil(np.log2(max(flat_snr.max(), 2.0))) + 1)])
    x, found, ideal = [], [], []
    for low, high in pairwise(edges):
        here = (flat_snr >= low) & (flat_snr < high)
        if here.sum() >= config.min_hosts:
            x.append(float(flat_snr[here].mean()))
            found.append(mean_interval(flat_rank[here], hosts[here].tolist(), config.resamples, f"{_GATE} snr {low:g}"))
            ideal.append(ideal_auc(flat_snr[here]))
    axes = ("S/N of the arc over all bands", "mean score (fraction of controls below)", tuple(x))
    low_high = tuple(i.low for i in found), tuple(i.high for i in found)
    return (
        Curve("score against S/N", *axes, tuple(i.value for i in found), *low_high),
        Curve("ideal observer of known arcs", *axes, tuple(ideal)),
    )


def _least(name: str, found: Interval, limit: float, rows: int, blocks: int) -> Figure:
    """The interval's low end must reach the limit."""
    return Figure(
        name, found.value, found.low, found.high, f"interval above {limit:g}", found.low >= limit, rows, blocks
    )


def _reported(name: str, found: Interval, rows: int, blocks: int) -> Figure:
    return reported(name, found.value, rows=rows, blocks=blocks, low=found.low, high=found.high)
