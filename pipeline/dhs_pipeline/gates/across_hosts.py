"""AUC over comparisons of rows on different hosts alone.

The members of a same-host pair hold the very same noise, so on one host the least difference, such as the wing of an
arc far below the noise, orders them without fail. Folds of H hosts have 1/H of their comparisons there: with 12 hosts
that makes an AUC of 0.54, of which a finder, which sees a host once, has nothing. What lies within a host is for
:mod:`dhs_pipeline.gates.identity`; here these comparisons are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dhs_gen.streams import stream
from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.gates.probes import Contest, FitPredict, check_power, cross_validated, judged
from dhs_pipeline.gates.result import Figure, reported
from dhs_pipeline.gates.statistics import Interval


def auc_across(labels: ArrayLike, scores: ArrayLike, hosts: Sequence[str], resamples: int, name: str) -> Interval:
    """AUC of rows of label 1 against rows of label 0 on other hosts, with a percentile interval over whole hosts.

    Parameters
    ----------
    labels, scores
        (n,) 0 or 1, and finite numbers; ties count one half.
    hosts
        (n,) host of each row.
    resamples, name
        Number of bootstrap samples, and the name of their random stream.

    Raises
    ------
    ValueError
        If no two rows of different classes lie on different hosts, or a score is not finite.
    """
    is_one, values = np.asarray(labels).astype(bool), np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"scores must be finite, got {int((~np.isfinite(values)).sum())} that are not")
    _, host = np.unique(np.asarray(hosts), return_inverse=True)
    n, blocks = int(host.max()) + 1, _Comparisons(is_one, values, host)
    value = blocks.auc(np.ones(n))
    if not np.isfinite(value):
        raise ValueError("labels must hold both classes on different hosts, got none")
    times = stream(name, "gate_bootstrap").multinomial(n, np.full(n, 1.0 / n), resamples)
    drawn = np.array([blocks.auc(row.astype(np.float64)) for row in times])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high), float(drawn.std(ddof=1)))


class _Comparisons:
    """Comparisons that label 1 wins: all, less those within each host; a host counts as often as it is drawn."""

    def __init__(self, is_one: NDArray[np.bool_], scores: NDArray[np.float64], host: NDArray[np.intp]) -> None:
        distinct, self._step = np.unique(scores, return_inverse=True)
        self._steps, self._is_one, self._host = distinct.size, is_one, host
        within = [self._compare((host == h).astype(np.float64)) for h in range(int(host.max()) + 1)]
        self._won_within, self._pairs_within = np.array(within).T

    def auc(self, times: NDArray[np.float64]) -> float:
        """NaN if no comparison is left."""
        won, pairs = self._compare(times[self._host])
        pairs -= float(times**2 @ self._pairs_within)
        return (won - float(times**2 @ self._won_within)) / pairs if pairs > 0 else float("nan")

    def _compare(self, weights: NDArray[np.float64]) -> tuple[float, float]:
        """Weighted number of comparisons that label 1 wins, ties as one half, and of all."""
        up = np.bincount(self._step, weights * self._is_one, self._steps)
        down = np.bincount(self._step, weights * ~self._is_one, self._steps)
        return float(up @ (np.cumsum(down) - 0.5 * down)), float(up.sum() * down.sum())


def indistinguishable_across(
    gate: str, name: str, contest: Contest, probes: dict[str, FitPredict], config: GatesConfig, by_right: float = 0.5
) -> list[Figure]:
    """:func:`dhs_pipeline.gates.probes.indistinguishable` without the comparisons within a host.

    ``by_right`` is the AUC that the ideal observer has of what the groups may differ by; 0.5 where that is nothing.

    Raises
    ------
    CannotRun
        If the rows or hosts are too few for the limit to mean something.
    """
    check_power(name, contest, config)
    return [
        judged(
            f"{name}, {probe_name}",
            measured_across(gate, f"{name}, {probe_name}", contest, probe, config),
            contest,
            config,
            by_right,
        )
        for probe_name, probe in probes.items()
    ]


def measured_across(gate: str, name: str, contest: Contest, probe: FitPredict, config: GatesConfig) -> Interval:
    """Cross-validated AUC of one probe across hosts."""
    scores = cross_validated(contest, probe, config.folds)
    return auc_across(contest.labels, scores, contest.hosts, config.resamples, f"{gate} {name}")


def reported_across(gate: str, name: str, contest: Contest, probe: FitPredict, config: GatesConfig) -> Figure:
    """The same as a figure that is not judged."""
    found = measured_across(gate, name, contest, probe, config)
    rows, blocks = contest.labels.size, len(set(contest.hosts))
    return reported(f"{name}: AUC", found.value, low=found.low, high=found.high, rows=rows, blocks=blocks)
