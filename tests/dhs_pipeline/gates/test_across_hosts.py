"""The AUC across hosts is a count of comparisons, and within a host there are none."""

from __future__ import annotations

import numpy as np
import pytest
from fake_sample import small_config

from dhs_pipeline.gates.across_hosts import auc_across, indistinguishable_across
from dhs_pipeline.gates.probes import FEATURE_PROBES, Contest
from dhs_pipeline.gates.result import CannotRun


def test_it_counts_comparisons_of_different_hosts() -> None:
    rng = np.random.default_rng(1)
    labels, scores, hosts = rng.integers(0, 2, 80), rng.integers(0, 12, 80), rng.integers(0, 6, 80)
    wins = pairs = 0.0
    for i in np.flatnonzero(labels == 1):
        for j in np.flatnonzero(labels == 0):
            if hosts[i] != hosts[j]:
                pairs += 1
                wins += 1.0 if scores[i] > scores[j] else 0.5 * float(scores[i] == scores[j])
    found = auc_across(labels, scores, [str(h) for h in hosts], 200, "count")
    assert found.value == pytest.approx(wins / pairs, abs=1e-12)
    assert found.low < found.value < found.high
    assert found == auc_across(labels, scores, [str(h) for h in hosts], 200, "count")


def test_a_last_place_of_difference_within_hosts_is_nothing() -> None:
    host = np.repeat(np.arange(12), 20)
    noise = np.random.default_rng(2).normal(size=12)[host]
    labels = np.tile([0, 1], 120)
    found = auc_across(labels, noise + 1e-9 * labels, [str(h) for h in host], 300, "last place")
    assert found.value == pytest.approx(0.5, abs=1e-12)
    assert found.low == pytest.approx(0.5, abs=1e-12)
    assert found.high == pytest.approx(0.5, abs=1e-12)


def test_scores_must_be_finite_and_hosts_must_differ() -> None:
    with pytest.raises(ValueError, match="finite"):
        auc_across([0, 1], [0.0, np.nan], ["a", "b"], 100, "x")
    with pytest.raises(ValueError, match="different hosts"):
        auc_across([0, 1], [0.0, 1.0], ["a", "a"], 100, "x")


def test_what_is_there_by_right_raises_the_limit() -> None:
    rng = np.random.default_rng(3)
    hosts = tuple(f"h{i % 40}" for i in range(400))
    first, second = rng.normal(size=(2, 400, 2)).astype(np.float32)
    probes = {"linear": FEATURE_PROBES["linear"]}
    contest = Contest(first, second + np.float32(0.5), hosts, hosts)  # AUC Φ(0.5) = 0.69
    (figure,) = indistinguishable_across("g", "n", contest, probes, small_config())
    assert not figure.ok
    assert figure.value == pytest.approx(0.69, abs=0.06)
    (figure,) = indistinguishable_across("g", "n", contest, probes, small_config(), by_right=0.69)
    assert figure.ok
    with pytest.raises(CannotRun, match="no power"):
        indistinguishable_across("g", "n", contest, probes, small_config(max_standard_error=0.02))
