"""Which member a stamp is and which negative a pair has."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from dhs_gen.paired_controls import Negative, NegativeKind, SampleKind, member_id, negative_kind

WEIGHTS = {
    NegativeKind.SHUFFLED_PIXELS: 0.1,
    NegativeKind.SHUFFLED_ARC: 0.3,
    NegativeKind.RING: 0.2,
    NegativeKind.SPIRAL: 0.0,
    NegativeKind.NEIGHBOUR: 0.15,
    NegativeKind.WRONG_CENTRE_ARC: 0.25,
}
GOOD = {
    "kind": NegativeKind.RING,
    "annulus_width_pix": 1.0,
    "ring_width_frac": 0.15,
    "ring_modulation": 0.5,
    "ring_clumps": (0, 4),
    "ring_clump_flux_frac": 0.2,
    "spiral_pitch_deg": 20.0,
    "spiral_arm_width_frac": 0.15,
    "spiral_extent_frac": 0.3,
    "disc_e_max": 0.3,
    "neighbour_radius_theta_e": (1.0, 2.0),
    "wrong_centre_offset_theta_e": (0.5, 1.0),
}


def by_hand(pair_id: str) -> NegativeKind:
    """The keyed hash of dhs_gen.streams, written out: salt, key, a NUL byte after each; 53 bits; the enum's order."""
    digest = hashlib.blake2b(b"negative_kind\0" + pair_id.encode() + b"\0", digest_size=8).digest()
    u = (int.from_bytes(digest, "little") >> 11) / 2**53
    order = ("shuffled_pixels", "shuffled_arc", "ring", "spiral", "neighbour", "wrong_centre_arc")
    edges = np.cumsum([WEIGHTS[NegativeKind(k)] for k in order])
    return NegativeKind(order[int((u >= edges).sum())])


def test_kind_is_the_hash_of_the_pair_in_the_enums_order() -> None:
    backwards = dict(reversed(WEIGHTS.items()))
    for i in range(300):
        assert negative_kind(f"pair-{i}", WEIGHTS) is negative_kind(f"pair-{i}", backwards) is by_hand(f"pair-{i}")


def test_kinds_come_as_often_as_they_weigh() -> None:
    n = 5000
    kinds = [negative_kind(f"p{i}", WEIGHTS) for i in range(n)]
    for kind, p in WEIGHTS.items():
        assert abs(kinds.count(kind) / n - p) <= 4 * (p * (1 - p) / n) ** 0.5


def test_a_kind_left_out_is_never_chosen() -> None:
    chosen = {negative_kind(f"p{i}", {NegativeKind.SPIRAL: 0.5, NegativeKind.RING: 0.5}) for i in range(200)}
    assert chosen == {NegativeKind.SPIRAL, NegativeKind.RING}


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({}, "sum to 1"),
        ({NegativeKind.RING: 0.5}, "sum to 1"),
        ({NegativeKind.RING: 1.5, NegativeKind.SPIRAL: -0.5}, "non-negative"),
        ({"rings": 1.0}, "kinds among.*ring.*'rings'"),
    ],
)
def test_bad_weights_are_named(weights: dict[NegativeKind, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        negative_kind("p", weights)


def test_members_of_a_pair_have_ids_of_their_own() -> None:
    assert member_id("abc", SampleKind.POSITIVE) == "abc"
    for kind in (SampleKind.CONTROL, SampleKind.NEGATIVE):
        by_hand = hashlib.blake2b(b"id\0abc\0" + kind.value.encode() + b"\0", digest_size=16).hexdigest()
        assert member_id("abc", kind) == by_hand
    assert len({member_id(p, k) for p in ("abc", "abd") for k in SampleKind}) == 6


def test_a_negative_takes_its_kind_by_name() -> None:
    assert Negative(**(GOOD | {"kind": "neighbour"})).kind is NegativeKind.NEIGHBOUR


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "rings"),
        ("annulus_width_pix", 0.0),
        ("annulus_width_pix", float("nan")),
        ("ring_width_frac", -0.1),
        ("ring_modulation", 1.1),
        ("ring_clumps", (3, 2)),
        ("ring_clump_flux_frac", -0.1),
        ("spiral_pitch_deg", 90.0),
        ("spiral_arm_width_frac", 0.0),
        ("spiral_extent_frac", float("inf")),
        ("disc_e_max", 1.0),
        ("neighbour_radius_theta_e", (-1.0, 2.0)),
        ("wrong_centre_offset_theta_e", (0.5, float("inf"))),
    ],
)
def test_strengths_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match="rings" if name == "kind" else name):
        Negative(**(GOOD | {name: value}))
