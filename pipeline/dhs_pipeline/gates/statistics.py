"""AUC with intervals for rows that come in blocks, and what to expect of it by chance.

Injections on one host are correlated, so intervals come from resampling whole hosts, never rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr
from scipy.stats import rankdata

from dhs_gen.streams import stream

CROSS_VALIDATED = math.sqrt(2.0)
"""By how much the AUC of cross-validated scores that know nothing varies more than that of scores fixed beforehand.

What a fold has by chance trains the models of the other folds, and what they have trains its own: each product of two
folds comes twice, which doubles the variance, for any number of folds. It is exact for linear scores (1.41 +- 0.04 by
simulation); boosted trees and a convolutional network stay below it (1.2).
"""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval and standard error."""

    value: float
    low: float
    high: float
    standard_error: float


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Probability that a row of label 1 scores higher than one of label 0; ties count one half.

    Parameters
    ----------
    labels, scores
        (n,) 0 or 1, and finite numbers.

    Raises
    ------
    ValueError
        If one class is missing or a score is not finite.
    """
    return _WeightedAuc(labels, scores).of(np.ones(np.size(scores)))


def chance_standard_error(n_positive: int, n_negative: int) -> float:
    """√((n₁+n₀+1)/(12 n₁ n₀)): standard error of the AUC of independent rows whose scores know nothing."""
    return math.sqrt((n_positive + n_negative + 1) / (12.0 * n_positive * n_negative))


def auc_interval(labels: ArrayLike, scores: ArrayLike, blocks: Sequence[str], resamples: int, name: str) -> Interval:
    """AUC with a percentile interval from resampling whole blocks.

    Parameters
    ----------
    labels, scores
        (n,) as in :func:`auc`.
    blocks
        (n,) block (host) of each row. All rows of a block are drawn together.
    resamples
        Number of bootstrap samples.
    name
        Names the random stream, so that the interval is the same again.
    """
    weighted = _WeightedAuc(labels, scores)
    _, block = np.unique(np.asarray(blocks), return_inverse=True)
    n_blocks = int(block.max()) + 1
    rng = stream(name, "gate_bootstrap")
    values = np.full(resamples, np.nan)
    for i in range(resamples):
        times = np.bincount(rng.integers(0, n_blocks, n_blocks), minlength=n_blocks)
        values[i] = weighted.of(times[block].astype(np.float64))
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(weighted.of(np.ones(block.size)), float(low), float(high), float(values.std(ddof=1)))


def mean_interval(values: ArrayLike, blocks: Sequence[str], resamples: int, name: str) -> Interval:
    """Mean of numbers with a percentile interval from resampling whole blocks; arguments as :func:`auc_interval`."""
    x = np.asarray(values, dtype=np.float64)
    _, block = np.unique(np.asarray(blocks), return_inverse=True)
    totals, counts = np.bincount(block, weights=x), np.bincount(block)
    drawn = stream(name, "gate_bootstrap").integers(0, counts.size, (resamples, counts.size))
    means = totals[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(x.mean()), float(low), float(high), float(means.std(ddof=1)))


def ideal_auc(signal_to_noise: ArrayLike) -> float:
    """AUC of the ideal observer of known signals in known noise: the mean of Φ(d/√2), d the matched-filter S/N.

    Nothing that sees the same pixels can do better on average (Barrett & Myers 2004, Foundations of
    Image Science, ch. 13).
    """
    return float(np.mean(ndtr(np.asarray(signal_to_noise, dtype=np.float64) / math.sqrt(2.0))))


def ranks_by_fold(scores: NDArray[np.float64], folds: NDArray[np.intp]) -> NDArray[np.float64]:
    """Scores as ranks in (0, 1) within their fold: models of different folds share no scale."""
    out = np.empty(scores.size)
    for fold in np.unique(folds):
        rows = folds == fold
        out[rows] = (rankdata(scores[rows]) - 0.5) / rows.sum()
    return out


class _WeightedAuc:
    """AUC of fixed scores under varying row weights: the scores are sorted once."""

    def __init__(self, labels: ArrayLike, scores: ArrayLike) -> None:
        self._positive = np.asarray(labels).astype(bool)
        values = np.asarray(scores, dtype=np.float64)
        if self._positive.all() or not self._positive.any():
            raise ValueError(
                f"labels must hold both classes, got {self._positive.sum()} of {self._positive.size} positive"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"scores must be finite, got {int((~np.isfinite(values)).sum())} that are not")
        distinct, self._step = np.unique(values, return_inverse=True)
        self._steps = distinct.size

    def of(self, weights: NDArray[np.float64]) -> float:
        """NaN if a class has no weight."""
        up = np.bincount(self._step, weights * self._positive, self._steps)
        down = np.bincount(self._step, weights * ~self._positive, self._steps)
        total = up.sum() * down.sum()
        if total == 0:
            return math.nan
        return float((up * (np.cumsum(down) - 0.5 * down)).sum() / total)
