"""Classifiers that try to tell two groups of rows apart, cross-validated with whole hosts left out.

Weak probes pass what strong ones catch, so a gate asks several: a linear one and boosted trees of scikit-learn, and
for pictures a small convolutional network (:mod:`dhs_pipeline.gates.cnn`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.gates.result import CannotRun, Figure
from dhs_pipeline.gates.statistics import (
    CROSS_VALIDATED,
    Interval,
    auc_interval,
    chance_standard_error,
    ranks_by_fold,
)

FitPredict = Callable[[NDArray[np.float32], NDArray[np.intp], NDArray[np.float32], int], NDArray[np.float64]]
"""(x of training, labels, x to score, seed) → scores, higher for label 1."""


@dataclass(frozen=True, eq=False)
class Contest:
    """Two groups of rows that a probe tries to tell apart.

    Parameters
    ----------
    first, second
        (n, …) and (m, …) float32 features or pictures; the second group has label 1.
    first_hosts, second_hosts
        Host of each row: folds and bootstrap never divide one.
    """

    first: NDArray[np.float32]
    second: NDArray[np.float32]
    first_hosts: tuple[str, ...]
    second_hosts: tuple[str, ...]

    @property
    def x(self) -> NDArray[np.float32]:
        return np.concatenate([self.first, self.second])

    @property
    def labels(self) -> NDArray[np.intp]:
        return np.repeat([0, 1], [len(self.first), len(self.second)])

    @property
    def hosts(self) -> tuple[str, ...]:
        return self.first_hosts + self.second_hosts


def linear(x: NDArray[np.float32], y: NDArray[np.intp], x_new: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Logistic regression on standardised features (of pictures: on their leading principal components).

    A missing feature (NaN) becomes the median of the training rows, and that it is missing a feature of its own.
    """
    from sklearn.decomposition import PCA
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    flat, flat_new = _flat(x), _flat(x_new)
    steps = [SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()]
    if flat.shape[1] > _COMPONENTS:
        steps += [PCA(_COMPONENTS, random_state=seed, svd_solver="randomized"), StandardScaler()]
    model = make_pipeline(*steps, LogisticRegression(max_iter=500))
    return model.fit(flat, y).decision_function(flat_new)


def boosting(x: NDArray[np.float32], y: NDArray[np.intp], x_new: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Gradient-boosted trees; of pictures, on the leading principal components."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import HistGradientBoostingClassifier

    flat, flat_new = _flat(x), _flat(x_new)
    there = ~np.isnan(flat).all(axis=0)  # trees split on missing values, but cannot bin a feature without any
    flat, flat_new = flat[:, there], flat_new[:, there]
    if flat.shape[1] > _COMPONENTS:
        pca = PCA(_COMPONENTS, random_state=seed, svd_solver="randomized").fit(flat)
        flat, flat_new = pca.transform(flat), pca.transform(flat_new)
    model = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=seed)
    return model.fit(flat, y).decision_function(flat_new)


def cnn(x: NDArray[np.float32], y: NDArray[np.intp], x_new: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """A small convolutional network on (n, channels, H, W) pictures that are scaled to about ±1."""
    from dhs_pipeline.gates.cnn import train_and_score

    return train_and_score(x, y, x_new, seed)


_COMPONENTS = 48
"""Principal components of a picture that scikit-learn's probes see."""

FEATURE_PROBES: dict[str, FitPredict] = {"linear": linear, "boosting": boosting}
PICTURE_PROBES: dict[str, FitPredict] = {"linear": linear, "cnn": cnn}


def cross_validated(contest: Contest, probe: FitPredict, folds: int) -> NDArray[np.float64]:
    """Score of each row (first group, then second) from a model that has not seen its host; ranks within a fold.

    Raises
    ------
    CannotRun
        If there are fewer hosts than folds, or a fold lacks a class.
    """
    fold = host_folds(contest, folds)
    x, y = contest.x, contest.labels
    scores = np.empty(y.size)
    for k in range(folds):
        out = fold == k
        scores[out] = probe(x[~out], y[~out], x[out], k)
    return ranks_by_fold(scores, fold)


def host_folds(contest: Contest, folds: int) -> NDArray[np.intp]:
    """Fold of each row; rows of a host are in one, folds have about equal rows."""
    from sklearn.model_selection import GroupKFold

    hosts, y = np.asarray(contest.hosts), contest.labels
    if (n := np.unique(hosts).size) < folds:
        raise CannotRun(f"{n} hosts are too few for {folds} folds that share no host")
    fold = np.empty(y.size, np.intp)
    for k, (_, out) in enumerate(GroupKFold(folds).split(y, groups=hosts)):
        fold[out] = k
    for k in range(folds):
        for part, where in (("a fold", fold == k), ("the rest of a fold", fold != k)):
            if np.unique(y[where]).size < 2:
                raise CannotRun(f"{part} holds one class only: the classes lie on different hosts that are too few")
    return fold


def indistinguishable(
    gate: str, name: str, contest: Contest, probes: dict[str, FitPredict], config: GatesConfig
) -> list[Figure]:
    """One AUC per probe for two groups that nothing should tell apart, as :func:`judged` judges it.

    Raises
    ------
    CannotRun
        If the rows or hosts are too few for the limit to mean something.
    """
    check_power(name, contest, config)
    figures = []
    for probe_name, probe in probes.items():
        scores = cross_validated(contest, probe, config.folds)
        found = auc_interval(contest.labels, scores, contest.hosts, config.resamples, f"{gate} {name} {probe_name}")
        figures.append(judged(f"{name}, {probe_name}", found, contest, config))
    return figures


def check_power(name: str, contest: Contest, config: GatesConfig) -> None:
    """CannotRun if a contest has too few rows or hosts to be asked."""
    n, m, hosts = len(contest.first), len(contest.second), len(set(contest.hosts))
    if min(n, m) == 0:
        raise CannotRun(f"{name}: one of the groups is empty ({n} and {m} rows)")
    chance = chance_standard_error(n, m)
    if chance > config.max_standard_error or hosts < config.min_hosts:
        raise CannotRun(
            f"{name}: {n} and {m} rows on {hosts} hosts have no power (standard error {chance:.3f}, at most "
            f"{config.max_standard_error:g} is needed, and {config.min_hosts} hosts)"
        )


def judged(name: str, found: Interval, contest: Contest, config: GatesConfig, by_right: float = 0.5) -> Figure:
    """An AUC that may be what it is by right, and ``config.sigmas`` standard errors more.

    The standard error is the larger of that of independent rows and that of the block bootstrap, times √2, for the
    scores are cross-validated (:data:`~dhs_pipeline.gates.statistics.CROSS_VALIDATED`).

    Parameters
    ----------
    by_right
        AUC that the ideal observer has of what the groups may differ by; 0.5 where that is nothing.

    Raises
    ------
    CannotRun
        If the hosts differ so much, or are so few, that the limit would mean nothing.
    """
    n, m = len(contest.first), len(contest.second)
    hosts = len(set(contest.hosts))
    if found.standard_error > config.max_host_standard_error:
        raise CannotRun(
            f"{name}: resampling {hosts} hosts moves the AUC by {found.standard_error:.3f}, at most "
            f"{config.max_host_standard_error:g} is needed: more hosts"
        )
    limit = by_right + config.sigmas * CROSS_VALIDATED * max(chance_standard_error(n, m), found.standard_error)
    return Figure(
        f"{name}: AUC",
        found.value,
        found.low,
        found.high,
        f"at most {limit:.3f}",
        found.value <= limit,
        n + m,
        hosts,
    )


def _flat(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x.reshape(len(x), -1)


def hosts_of(ids: Sequence[str], index: NDArray[np.intp]) -> tuple[str, ...]:
    """Hosts of some of the rows."""
    return tuple(ids[int(i)] for i in index)
