"""The convolutional probe finds a patch and a correlation of noise, is blind in noise, and is the same again."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dhs_pipeline.gates.statistics import auc, chance_standard_error

pytest.importorskip("torch")

from dhs_pipeline.gates.cnn import train_and_score

N, SIDE = 400, 20
Y = np.repeat([0, 1], N // 2)


def noise(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.5, (N, 2, SIDE, SIDE)).astype(np.float32)


def found(train: NDArray[np.float32], new: NDArray[np.float32]) -> float:
    return auc(Y, train_and_score(train, Y, new, seed=1))


def test_a_patch_is_found() -> None:
    pictures = [noise(seed) for seed in (1, 2)]
    for x in pictures:
        x[Y == 1, 0, 8:11, 8:11] += 0.5
    assert found(*pictures) > 0.9


def test_a_correlation_of_the_noise_is_found() -> None:
    """Neighbours correlated, every pixel with the mean and variance of the others: no linear probe can see it."""
    pictures = [noise(seed) for seed in (3, 4)]
    for x in pictures:
        x[Y == 1] = (0.9 * x[Y == 1] + np.sqrt(1 - 0.81) * np.roll(x[Y == 1], 1, axis=3)).astype(np.float32)
    assert found(*pictures) > 0.9


def test_noise_tells_it_nothing() -> None:
    assert abs(found(noise(5), noise(6)) - 0.5) < 3.5 * chance_standard_error(N // 2, N // 2)


def test_it_is_the_same_again() -> None:
    x, new = noise(7)[::8], noise(8)[:10]
    scores = [train_and_score(x, Y[::8], new, seed, epochs=2) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])
