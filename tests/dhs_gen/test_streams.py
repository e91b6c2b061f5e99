"""Keys and random streams: the same everywhere, different for every key."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dhs_gen.streams import (
    blake2b_u64,
    categorical_from_hash,
    categorical_from_hashes,
    rng_from_hash,
    stable_id,
    stable_ids,
    stream,
    unit_interval,
    unit_intervals,
    unit_intervals_by_salt,
)

_PROGRAM = """
from dhs_gen.streams import blake2b_u64, categorical_from_hash, rng_from_hash, stable_id, stream, unit_interval
stream("somebody", "else").random(1000)
print(blake2b_u64("a", 1), stable_id("h", 2.5), unit_interval("u", 3).hex())
print(rng_from_hash("r", "s").random(), [categorical_from_hash(f"c{i}", [0.2, 0.5, 0.3]) for i in range(9)])
print(stream("task", "purpose", salt="s", band="g").random(4).tobytes().hex())
"""


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_values_do_not_depend_on_the_process(hash_seed: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [
        f"{blake2b_u64('a', 1)} {stable_id('h', 2.5)} {unit_interval('u', 3).hex()}",
        f"{rng_from_hash('r', 's').random()} {[categorical_from_hash(f'c{i}', [0.2, 0.5, 0.3]) for i in range(9)]}",
        stream("task", "purpose", salt="s", band="g").random(4).tobytes().hex(),
    ]
    assert run.stdout.splitlines() == expected


def test_hash_is_blake2b_of_salt_and_parts_each_ended_by_nul() -> None:
    digest = hashlib.blake2b(b"salt\0brick\0" + b"17\0", digest_size=8).digest()
    assert blake2b_u64("brick", 17, salt="salt") == int.from_bytes(digest, "little")
    digest = hashlib.blake2b(b"\0" + "θ".encode() + b"\0", digest_size=8).digest()
    assert blake2b_u64("θ") == int.from_bytes(digest, "little")


def test_stable_id_is_128_bits_of_blake2b() -> None:
    assert stable_id("x", 2) == hashlib.blake2b(b"id\0x\0" + b"2\0", digest_size=16).hexdigest()
    assert len(stable_id()) == 32


def test_many_keys_at_once_are_what_each_is_alone() -> None:
    keys = ["a", "θ", "", 17]
    by_salt = unit_intervals_by_salt(iter(keys), ["", "salt"])
    for salt, values in by_salt.items():
        assert values.tolist() == [unit_interval(k, salt=salt) for k in keys]
        np.testing.assert_array_equal(unit_intervals(keys, salt=salt), values)
    assert stable_ids(("x", 2), [("a", 0), ("θ", 1)]) == [stable_id("x", 2, "a", 0), stable_id("x", 2, "θ", 1)]
    assert stable_ids(("x",), []) == []
    assert unit_intervals([]).shape == (0,)


def test_stream_is_philox_with_the_128_bit_key() -> None:
    digest = hashlib.blake2b(b"salt\0task\0noise\0g\0", digest_size=16).digest()
    expected = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little"))).random(5)
    np.testing.assert_array_equal(stream("task", "noise", salt="salt", band="g").random(5), expected)


def test_unit_interval_is_the_top_53_bits() -> None:
    assert unit_interval("k", 1) == (blake2b_u64("k", 1) >> 11) / 2**53
    assert all(0 <= unit_interval("k", i) < 1 for i in range(1000))


def test_order_of_calls_does_not_matter() -> None:
    keys = [(t, p) for t in ("t1", "t2") for p in ("p1", "p2")]
    forward = {k: stream(*k).random(3).tolist() for k in keys}
    backward = {k: stream(*k).random(3).tolist() for k in reversed(keys)}
    assert forward == backward


def test_every_part_of_the_key_counts() -> None:
    draws = {
        tuple(stream(task, purpose, salt=salt, band=band).random(2))
        for task, purpose, salt, band in itertools.product(("t1", "t2"), ("p1", "p2"), ("", "s"), ("", "g", "r"))
    }
    assert len(draws) == 2 * 2 * 2 * 3


def test_parts_do_not_run_into_each_other() -> None:
    assert len({blake2b_u64("ab", "c"), blake2b_u64("a", "bc"), blake2b_u64("abc"), blake2b_u64("c", salt="ab")}) == 4
    assert stream("t", "p", band="g").random() != stream("t", "pg").random()


def test_unit_interval_is_uniform() -> None:
    u = np.array([unit_interval("uniform", i) for i in range(20_000)])
    assert stats.kstest(u, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / np.sqrt(u.size)


def test_first_draws_of_neighbouring_streams_are_uniform_and_uncorrelated() -> None:
    first = np.array([stream(f"task-{i}", "p").random() for i in range(5000)])
    assert stats.kstest(first, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / np.sqrt(first.size)


def test_rng_from_hash_is_philox_with_the_128_bit_key() -> None:
    digest = hashlib.blake2b(b"salt\0task\0", digest_size=16).digest()
    expected = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little"))).random(5)
    np.testing.assert_array_equal(rng_from_hash("task", "salt").random(5), expected)
    assert rng_from_hash("task").random() != rng_from_hash("task", "salt").random()
    assert rng_from_hash("a").random() != stream("a", "").random()


def test_keys_that_collide_in_32_bits_draw_differently() -> None:
    """A seed taken modulo 2^32 makes one pair in 77,000 keys equal; a 128-bit key does not."""
    first = {rng_from_hash(f"collision-{i}").bit_generator.random_raw() for i in range(20_000)}
    assert len(first) == 20_000


@given(
    weights=st.lists(st.just(0.0) | st.floats(1e-6, 1.0), min_size=1, max_size=8).filter(lambda w: sum(w) > 0),
    key=st.text(max_size=20) | st.integers(),
    salt=st.text(max_size=5),
)
def test_a_class_of_probability_zero_is_never_chosen(weights: list[float], key: str | int, salt: str) -> None:
    probs = np.array(weights) / sum(weights)
    chosen = categorical_from_hash(key, probs, salt)
    assert isinstance(chosen, int)
    assert probs[chosen] > 0
    assert chosen == categorical_from_hash(key, list(probs), salt=salt)
    cumulative = np.cumsum(probs)
    u = unit_interval(key, salt=salt)
    assert (cumulative[chosen - 1] if chosen else 0.0) <= u + 1e-12
    assert u <= cumulative[chosen] + 1e-12


def test_classes_are_chosen_as_often_as_asked() -> None:
    probs = [0.15, 0.70, 0.0, 0.15]
    counts = np.bincount([categorical_from_hash(f"t{i}", probs, "x") for i in range(20_000)], minlength=4)
    assert counts[2] == 0
    assert stats.chisquare(counts[[0, 1, 3]], 20_000 * np.array([0.15, 0.70, 0.15])).pvalue > 0.01


@pytest.mark.parametrize(
    "probs",
    [[], [0.5, 0.6], [0.5, 0.4], [1.5, -0.5], [np.nan, 1.0], [np.inf, 1.0], [[0.5, 0.5]], ["a"], 1.0, [0.5, 0.500002]],
)
def test_probabilities_that_are_none_are_refused(probs: object) -> None:
    with pytest.raises(ValueError, match=r"^probs must .* got "):
        categorical_from_hash("task", probs)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [None, 1.5, b"task", ("a",), True])
def test_a_key_that_may_print_differently_elsewhere_is_refused(key: object) -> None:
    with pytest.raises(ValueError, match="key must be text or an integer"):
        rng_from_hash(key)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="salt must be text, got 3"):
        categorical_from_hash("task", [1.0], salt=3)  # type: ignore[arg-type]


@given(keys=st.lists(st.text(max_size=12), max_size=20), salt=st.text(max_size=4))
def test_many_choices_are_those_made_one_by_one(keys: list[str], salt: str) -> None:
    probs = [0.2, 0.5, 0.0, 0.3]
    assert categorical_from_hashes(keys, probs, salt).tolist() == [categorical_from_hash(k, probs, salt) for k in keys]
