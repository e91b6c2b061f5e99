"""Probes find what was planted, nothing in noise, and never train on a host that they are asked about."""

from __future__ import annotations

import numpy as np
import pytest
from fake_pairs import limits
from numpy.typing import NDArray

from dhs_pipeline.gates.probes import (
    FEATURE_PROBES,
    Contest,
    boosting,
    cross_validated,
    host_folds,
    indistinguishable,
    linear,
)
from dhs_pipeline.gates.result import CannotRun
from dhs_pipeline.gates.statistics import CROSS_VALIDATED, auc, chance_standard_error

LIMITS = limits("resamples=200")


def contest(n: int, shift: float, *, per_host: int = 5, features: int = 6) -> Contest:
    """n rows of a class each; the second is shifted in one feature."""
    rng = np.random.default_rng(n)
    first, second = rng.normal(size=(2, n, features)).astype(np.float32)
    second[:, 2] += np.float32(shift)
    hosts = tuple(f"h{i // per_host}" for i in range(n))
    return Contest(first, second, hosts, hosts)


def test_a_planted_signal_is_found_by_every_probe() -> None:
    figures = indistinguishable("gate", "planted", contest(600, 0.5), FEATURE_PROBES, LIMITS)
    assert [f.name for f in figures] == ["planted, linear: AUC", "planted, boosting: AUC"]
    for f in figures:
        assert not f.ok
        assert f.low is not None
        assert f.low > 0.53
        assert (f.rows, f.blocks) == (1200, 120)
    # Normal scores a distance d apart have AUC Φ(d/√2) = 0.638 at best.
    assert figures[0].value == pytest.approx(0.638, abs=0.04)


def test_noise_passes() -> None:
    figures = indistinguishable("gate", "noise", contest(600, 0.0), FEATURE_PROBES, LIMITS)
    assert all(f.ok for f in figures)
    # √((2n + 1)/(12 n²)) is 0.0167 at n = 600; three of it, times √2.
    assert figures[0].limit == "at most 0.571"


def false_alarms(rounds: int) -> tuple[float, float]:
    """Spread of the cross-validated AUC in noise, in standard errors of fixed scores; and how often it is an alarm."""
    rng = np.random.default_rng(9)
    hosts = tuple(f"h{i // 2}" for i in range(150))
    labels, error = np.repeat([0, 1], 150), chance_standard_error(150, 150)
    noise = rng.normal(size=(rounds, 2, 150, 30)).astype(np.float32)
    scores = [cross_validated(Contest(first, second, hosts, hosts), linear, 3) for first, second in noise]
    z = np.array([(auc(labels, s) - 0.5) / error for s in scores])
    return float(z.std()), float((z > 3 * CROSS_VALIDATED).mean())


def test_cross_validation_spreads_the_auc_of_noise() -> None:
    spread, _ = false_alarms(80)
    assert spread == pytest.approx(CROSS_VALIDATED, abs=3 * CROSS_VALIDATED / np.sqrt(2 * 80))
    assert spread > 1.15  # fixed scores have 1


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_stated() -> None:
    spread, alarms = false_alarms(3000)
    assert spread == pytest.approx(CROSS_VALIDATED, rel=0.05)
    assert alarms < 0.005  # 1 in 740 of a normal distribution: 4 of 3000


def test_only_boosting_sees_an_interaction() -> None:
    """Weak probes pass what strong ones catch."""
    base = contest(1000, 0.0)
    first, second = base.first.copy(), base.second.copy()
    for x, sign in ((first, 1), (second, -1)):
        x[:, 1] = np.abs(x[:, 1]) * np.sign(x[:, 0]) * sign
    planted = Contest(first, second, base.first_hosts, base.second_hosts)
    figures = indistinguishable("gate", "xor", planted, FEATURE_PROBES, LIMITS)
    assert [f.ok for f in figures] == [True, False]


def test_hosts_are_never_divided() -> None:
    given = contest(90, 0.0)
    asked: list[tuple[set[float], set[float]]] = []

    def spy(x: NDArray[np.float32], y: NDArray[np.intp], x_new: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
        asked.append((set(x[:, 0]), set(x_new[:, 0])))
        return np.zeros(len(x_new))

    numbers = {h: float(i) for i, h in enumerate(sorted(set(given.hosts)))}
    named = np.array([[numbers[h]] for h in given.hosts], np.float32)
    cross_validated(Contest(named[:90], named[90:], given.first_hosts, given.second_hosts), spy, 3)
    assert len(asked) == 3
    assert all(not (seen & new) for seen, new in asked)
    assert set.union(*(new for _, new in asked)) == set(numbers.values())


def test_a_host_that_gives_itself_away_does_not_help() -> None:
    """Features that name the host, classes on other hosts: only a divided host could be recognised."""
    rng = np.random.default_rng(3)
    host = rng.normal(size=(120, 4)).astype(np.float32)
    of_row = np.repeat(np.arange(120), 10)
    x = host[of_row] + rng.normal(0, 1e-3, (1200, 4)).astype(np.float32)
    names = tuple(f"h{i}" for i in of_row)
    named = Contest(x[:600], x[600:], names[:600], names[600:])
    figures = indistinguishable("gate", "hosts", named, FEATURE_PROBES, LIMITS)
    assert all(f.ok for f in figures)


@pytest.mark.parametrize("probe", [linear, boosting])
def test_missing_features(probe) -> None:  # type: ignore[no-untyped-def]
    """That a number is missing is itself seen; a feature that no row has does no harm."""
    given = contest(300, 0.0)
    first, second = given.first.copy(), given.second.copy()
    second[::2, 4] = np.nan
    first[:, 5], second[:, 5] = np.nan, np.nan
    scores = cross_validated(Contest(first, second, given.first_hosts, given.second_hosts), probe, 3)
    missing = np.zeros(600, bool)
    missing[300::2] = True
    assert scores[missing].min() > np.median(scores[~missing])


def test_too_little_is_said() -> None:
    with pytest.raises(CannotRun, match="have no power"):
        indistinguishable("gate", "few", contest(100, 0.0), FEATURE_PROBES, LIMITS)
    with pytest.raises(CannotRun, match="on 6 hosts"):
        indistinguishable("gate", "few hosts", contest(600, 0.0, per_host=100), FEATURE_PROBES, LIMITS)
    nobody = Contest(np.empty((0, 2), np.float32), np.ones((9, 2), np.float32), (), ("h",) * 9)
    with pytest.raises(CannotRun, match="one of the groups is empty"):
        indistinguishable("gate", "none", nobody, FEATURE_PROBES, LIMITS)
    strict = LIMITS.model_copy(update={"max_host_standard_error": 0.001})
    with pytest.raises(CannotRun, match=r"resampling 40 hosts moves the AUC by 0\.\d+, at most 0\.001"):
        indistinguishable("gate", "apart", contest(600, 0.0, per_host=15), FEATURE_PROBES, strict)
    with pytest.raises(CannotRun, match="too few for 3 folds"):
        host_folds(Contest(np.ones((5, 1)), np.ones((5, 1)), ("a",) * 5, ("b",) * 5), 3)
    with pytest.raises(CannotRun, match="one class only"):
        host_folds(Contest(np.ones((2, 1)), np.ones((8, 1)), ("a", "a"), tuple("bbbbcccc")), 3)
