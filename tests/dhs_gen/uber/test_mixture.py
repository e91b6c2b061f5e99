"""The mixture: who gets what, from the task_id alone."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendering_cases import configuration
from scipy import stats

from dhs_gen.streams import categorical_from_hash, categorical_from_hashes, stable_id, unit_interval
from dhs_gen.uber.mixer import DEFAULT_UBER, MIXTURES, MixerConfig, assign_modes, assign_modes_many
from dhs_gen.utils import categorical_from_hash as public_categorical_from_hash

IDS = [stable_id("task", n) for n in range(20_000)]


def test_default_is_the_published_mixture() -> None:
    assert DEFAULT_UBER.source_modes == ("cosmos", "deep", "hybrid")
    assert DEFAULT_UBER.source_probs == (0.34, 0.33, 0.33)
    assert DEFAULT_UBER.artifact_profiles == ("none", "mild", "strong")
    assert DEFAULT_UBER.artifact_probs == (0.15, 0.70, 0.15)
    assert DEFAULT_UBER.salt == "uber_v1"
    assert MixerConfig(["deep"], [1], ["none"], [1]).salt == "mix_v1"


@pytest.mark.parametrize("name", sorted(MIXTURES))
def test_configuration_and_code_hold_the_same_mixture(name: str) -> None:
    file = configuration(f"mixtures/{name}")
    assert file.pop("name") == name
    assert file.pop("gen_variant") == MIXTURES[name].gen_variant
    assert MixerConfig(**file) == MIXTURES[name].config


def test_assignment_is_a_keyed_hash_written_out() -> None:
    """blake2b over the salt and the id, each with a NUL; 53 bits of it against the cumulative probabilities."""

    def u(task_id: str, salt: str) -> float:
        digest = hashlib.blake2b(salt.encode() + b"\0" + task_id.encode() + b"\0", digest_size=8).digest()
        return (int.from_bytes(digest, "little") >> 11) / 2**53

    for task_id in IDS[:300]:
        s, a = u(task_id, "uber_v1_src"), u(task_id, "uber_v1_art")
        assert assign_modes(task_id, DEFAULT_UBER) == {
            "source_mode": "cosmos" if s < 0.34 else "deep" if s < 0.67 else "hybrid",
            "artifact_profile": "none" if a < 0.15 else "mild" if a < 0.85 else "strong",
        }


def test_many_is_one_by_one() -> None:
    many = assign_modes_many(IDS[:500], DEFAULT_UBER)
    for position, task_id in enumerate(IDS[:500]):
        assert {name: column[position] for name, column in many.items()} == assign_modes(task_id, DEFAULT_UBER)
    assert assign_modes_many([], DEFAULT_UBER)["source_mode"].shape == (0,)


def test_fractions_are_the_probabilities_and_independent() -> None:
    many = assign_modes_many(IDS, DEFAULT_UBER)
    table = np.array(
        [
            [
                ((many["source_mode"] == s) & (many["artifact_profile"] == a)).sum()
                for a in DEFAULT_UBER.artifact_profiles
            ]
            for s in DEFAULT_UBER.source_modes
        ]
    )
    expected = len(IDS) * np.outer(DEFAULT_UBER.source_probs, DEFAULT_UBER.artifact_probs)
    assert stats.chisquare(table.ravel(), expected.ravel()).pvalue > 1e-3
    assert stats.chi2_contingency(table).pvalue > 1e-3


@settings(max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda p: sum(p) > 0.1), st.text())
def test_a_category_of_probability_0_is_never_drawn(weights: list[float], key: str) -> None:
    probs = np.array(weights) / sum(weights)
    chosen = categorical_from_hash(key, probs, "salt")
    assert probs[chosen] > 0
    assert chosen == categorical_from_hashes([key], probs, "salt")[0]
    below = probs[:chosen].sum()
    assert below - 1e-9 <= unit_interval(key, salt="salt") <= below + probs[chosen] + 1e-9


@pytest.mark.parametrize(
    ("probs", "message"),
    [
        ([], "probs must be a list of at least one probability"),
        ([0.5, math.nan], "probs must be finite and non-negative"),
        ([1.5, -0.5], r"probs must be finite and non-negative, got \[1.5, -0.5\]"),
        ([0.5, 0.4], r"probs must sum to 1 within 1e-6, got \[0.5, 0.4\]"),
        ([0.0, 0.0], "probs must sum to 1"),
    ],
)
def test_wrong_probabilities_are_shown(probs: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        public_categorical_from_hash("key", probs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_modes": ["cosmos", "keep"]}, "source_modes must be some of cosmos, deep, hybrid, got 'keep'"),
        ({"source_modes": ["deep", "deep"]}, "source_modes must name each mode once, got 'deep' twice"),
        ({"source_probs": [1.0]}, "source_probs must have one value for each of the 2 source_modes, got 1"),
        ({"source_probs": [0.5, 0.6]}, r"source_probs must sum to 1 within 1e-6, got \[0.5, 0.6\]"),
        ({"artifact_profiles": ["wild"]}, "artifact_profiles must be some of none, mild, strong, got 'wild'"),
        ({"artifact_probs": [math.inf]}, "artifact_probs must be finite and non-negative"),
        ({"artifact_profiles": [], "artifact_probs": []}, "artifact_probs must be a list of at least one"),
        ({"salt": 3}, "salt must be a string, got 3"),
    ],
)
def test_a_wrong_mixture_is_refused(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "source_modes": ["cosmos", "deep"],
        "source_probs": [0.5, 0.5],
        "artifact_profiles": ["mild"],
        "artifact_probs": [1.0],
    }
    MixerConfig(**good)
    with pytest.raises(ValueError, match=message):
        MixerConfig(**(good | changes))


@pytest.mark.parametrize("task_id", ["", None, 7])
def test_a_task_without_a_name_is_refused(task_id: Any) -> None:
    with pytest.raises(ValueError, match="task_id must be a non-empty string, got"):
        assign_modes(task_id, DEFAULT_UBER)
    with pytest.raises(ValueError, match=r"task_id must be a non-empty string, got .* in row 1"):
        assign_modes_many(["a", task_id], DEFAULT_UBER)


def test_a_mixture_cannot_change_after_it_was_made() -> None:
    probs = [0.5, 0.5]
    mixture = MixerConfig(["cosmos", "deep"], probs, ["mild"], [1.0])
    probs[0] = 9.0
    assert mixture.source_probs == (0.5, 0.5)
    assert {mixture: 1}[MixerConfig(("cosmos", "deep"), (0.5, 0.5), ("mild",), (1.0,))] == 1


def test_assignment_is_the_same_in_processes_with_other_hash_seeds() -> None:
    program = (
        "from dhs_gen.uber import DEFAULT_UBER, assign_modes_many as f; "
        "print(*f([str(n) for n in range(99)], DEFAULT_UBER)['source_mode'])"
    )
    here = " ".join(assign_modes_many([str(n) for n in range(99)], DEFAULT_UBER)["source_mode"])
    for seed in ("0", "1"):
        env = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == here
