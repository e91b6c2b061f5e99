"""AUCs and intervals against scikit-learn, closed formulas and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from dhs_pipeline.gates.statistics import (
    auc,
    auc_interval,
    chance_standard_error,
    ideal_auc,
    mean_interval,
    ranks_by_fold,
)


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_that_of_scikit_learn(ties: bool) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    scores = rng.normal(size=400) + 0.5 * labels
    scores = np.round(scores) if ties else scores
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auc_needs_two_classes_and_finite_scores() -> None:
    with pytest.raises(ValueError, match="both classes"):
        auc([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="finite"):
        auc([0, 1], [0.1, np.nan])


def test_standard_error_by_chance_is_that_of_simulation() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([1, 0], [60, 90])
    found = [auc(labels, rng.normal(size=150)) for _ in range(2000)]
    assert chance_standard_error(60, 90) == pytest.approx(np.std(found), rel=0.06)
    assert chance_standard_error(500, 500) == pytest.approx(math.sqrt(1001 / (12 * 500**2)), rel=1e-12)


def blocks_of_scores(
    rng: np.random.Generator, n_blocks: int, per_block: int, separation: float
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores that share a term within their block: variance 1/2 of the block, 1/2 of the row, for either class."""
    labels = np.tile([0, 1], n_blocks * per_block)
    block = np.repeat(np.arange(n_blocks), 2 * per_block)
    # One term per block and class: positives of a host are alike, and so are its controls.
    common = rng.normal(size=(n_blocks, 2))[block, labels]
    scores = math.sqrt(0.5) * (common + rng.normal(size=labels.size)) + separation * labels
    return labels, scores, [f"b{b}" for b in block]


def coverage(simulations: int, resamples: int) -> tuple[float, float]:
    """How often the 95 % interval holds the true AUC, and how often one that takes rows for independent does."""
    truth = float(norm.cdf(0.6 / math.sqrt(2.0)))
    held, naive = [], []
    for k in range(simulations):
        labels, scores, blocks = blocks_of_scores(np.random.default_rng(k), 60, 8, 0.6)
        by_block = auc_interval(labels, scores, blocks, resamples, f"simulation {k}")
        held.append(by_block.low <= truth <= by_block.high)
        error = 1.96 * chance_standard_error(480, 480)
        naive.append(abs(by_block.value - truth) <= error)
    return float(np.mean(held)), float(np.mean(naive))


def test_interval_holds_the_truth_where_rows_depend_on_each_other() -> None:
    held, naive = coverage(simulations=100, resamples=200)
    assert 0.88 <= held <= 1.0  # 3 standard deviations of 100 draws at 0.94
    assert naive < 0.85


@pytest.mark.slow
def test_coverage_of_the_interval() -> None:
    held, _ = coverage(simulations=1500, resamples=400)
    assert 0.93 <= held <= 0.97


def test_mean_interval_has_the_width_of_its_blocks() -> None:
    """k equal rows per block: the standard error is that of the blocks, √k larger than that of the rows."""
    rng = np.random.default_rng(4)
    values = np.repeat(rng.normal(3.0, 1.0, 200), 10)
    blocks = [str(b) for b in np.repeat(np.arange(200), 10)]
    found = mean_interval(values, blocks, 2000, "mean")
    assert found.value == pytest.approx(values.mean(), abs=1e-12)
    assert found.standard_error == pytest.approx(values.std() / math.sqrt(200), rel=0.08)
    assert (found.high - found.low) == pytest.approx(2 * 1.96 * found.standard_error, rel=0.1)


def test_intervals_are_the_same_again_and_named() -> None:
    labels, scores, blocks = blocks_of_scores(np.random.default_rng(5), 20, 3, 0.5)
    assert auc_interval(labels, scores, blocks, 200, "a") == auc_interval(labels, scores, blocks, 200, "a")
    assert auc_interval(labels, scores, blocks, 200, "a") != auc_interval(labels, scores, blocks, 200, "b")


def test_ideal_observer_is_a_known_signal_in_white_noise() -> None:
    """Matched filter scores of a signal of S/N d: AUC Φ(d/√2), by simulation."""
    rng = np.random.default_rng(6)
    signal = rng.normal(size=50)
    signal *= 1.3 / np.linalg.norm(signal)
    noise = rng.normal(size=(20000, 50))
    labels = np.repeat([1, 0], 10000)
    scores = (noise + labels[:, None] * signal) @ signal
    assert ideal_auc([1.3]) == pytest.approx(auc(labels, scores), abs=0.012)
    assert ideal_auc([0.0, 100.0]) == pytest.approx(0.75, abs=1e-12)


def test_ranks_take_each_folds_scale_away() -> None:
    scores = np.array([1.0, 2.0, 3.0, 100.0, 300.0, 200.0])
    ranks = ranks_by_fold(scores, np.array([0, 0, 0, 1, 1, 1]))
    np.testing.assert_allclose(ranks, [1 / 6, 1 / 2, 5 / 6, 1 / 6, 5 / 6, 1 / 2])
