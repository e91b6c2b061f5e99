"""The members of a pair, and the hosts of matched controls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dhs_gen.paired_controls.kinds import NegativeKind, SampleKind, member_id, negative_kind
from dhs_gen.status import Status
from dhs_gen.streams import stable_id
from dhs_pipeline.config import ConfigError, Generation, MatchedHost, Pairing, load_generation, load_section
from dhs_pipeline.matching import Match, match_hosts
from dhs_pipeline.pairs import members_of
from dhs_pipeline.schemas import ARC_COLUMNS, HOST_COLUMNS, MANIFEST, TASK

RULES = MatchedHost(
    kind="matched_host",
    match_within="region_id",
    mag_r_tolerance_mag=0.5,
    psfsize_r_tolerance_arcsec=0.1,
    psfdepth_r_tolerance_mag=0.2,
)


def task(**columns: object) -> dict[str, Any]:
    """A manifest row; a column that matters nowhere holds its own name."""
    row: dict[str, Any] = {name: name for name in MANIFEST.names}
    return row | {"task_id": "task", "host_id": "own", "is_control": 0} | columns


def paired(pairing: str) -> Generation:
    return load_generation("gen7").with_pairing(pairing)


def test_without_pairing_a_row_is_itself() -> None:
    for name, is_control, kind in (
        ("gen7", 0, SampleKind.POSITIVE),
        ("gen7", 1, SampleKind.CONTROL),
        ("control", 0, SampleKind.CONTROL),
        ("null", 0, SampleKind.CONTROL),
    ):
        (member,) = members_of(task(is_control=is_control), load_generation(name))
        assert (member.kind, member.task_id, member.pair_id, member.is_dark) == (kind, "task", "task", False)


def test_a_prime_positive_has_its_control_and_one_negative() -> None:
    generation = paired("prime")
    assert generation.name == "gen7_prime"
    positive, control, negative = (m.task_columns() | m.pair_columns() for m in members_of(task(), generation))
    assert [m["task_id"] for m in (positive, control, negative)] == [
        "task",
        stable_id("task", "control"),
        stable_id("task", "negative"),
    ]
    for member, kind in zip((positive, control, negative), ("positive", "control", "negative"), strict=True):
        assert (member["pair_id"], member["sample_kind"]) == ("task", kind)
        same = [n for n in TASK.names if n != "task_id"]
        assert [member[n] for n in same] == [task()[n] for n in same]
    assert generation.pairing is not None
    assert generation.pairing.negatives is not None
    assert positive["negative_kind"] is control["negative_kind"] is None
    assert negative["negative_kind"] == negative_kind("task", generation.pairing.negatives.weights)


def test_members_are_rendered_under_the_pairs_id_and_only_the_control_is_dark() -> None:
    members = members_of(task(), paired("prime"))
    assert {m.row["task_id"] for m in members} == {"task"}
    assert [m.is_dark for m in members] == [False, True, False]


def test_controls_of_the_manifest_are_not_paired() -> None:
    for pairing in ("prime", "same_host", "matched_host"):
        (member,) = members_of(task(is_control=1), paired(pairing), lambda _: Match(None))
        assert (member.task_id, member.kind) == ("task", SampleKind.CONTROL)


def test_negatives_follow_the_weights() -> None:
    tree = load_section(Pairing, "pairing", "prime").model_dump(mode="json")
    tree["negatives"]["weights"] = dict.fromkeys(NegativeKind, 0.0) | {"ring": 0.25, "spiral": 0.75}
    generation = paired("prime").model_copy(update={"pairing": Pairing.model_validate(tree)})
    kinds = [members_of(task(task_id=f"t{i}"), generation)[2].negative for i in range(2000)]
    assert set(kinds) == {NegativeKind.RING, NegativeKind.SPIRAL}
    assert kinds.count(NegativeKind.RING) / 2000 == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 2000))


def test_a_matched_control_is_a_control_on_its_own_host() -> None:
    other = {name: f"other {name}" for name in HOST_COLUMNS}
    positive, control = members_of(task(), paired("matched_host"), {"own": Match(other)}.__getitem__)
    row = control.task_columns() | control.pair_columns()
    assert (positive.task_columns() | positive.pair_columns())["host_id"] == "own"
    assert {n: row[n] for n in HOST_COLUMNS} == other
    assert {row[n] for n in ARC_COLUMNS} == {None}
    assert (row["is_control"], row["pair_id"], row["task_id"]) == (1, "task", member_id("task", SampleKind.CONTROL))
    assert row["config_id"] == "config_id"
    assert control.failure is None
    assert control.row["task_id"] == "task"  # artifacts are drawn from it


def test_without_a_match_the_control_keeps_its_row_and_says_why() -> None:
    match = Match(None, Status.NO_MATCHED_HOST, "nobody")
    _, control = members_of(task(), paired("matched_host"), lambda _: match)
    assert control.failure is not None
    assert (control.failure.status, control.failure.message) == (Status.NO_MATCHED_HOST, "nobody")
    assert (control.task_columns() | control.pair_columns())["host_id"] == "own"
    assert (control.task_columns() | control.pair_columns())["is_control"] == 1
    with pytest.raises(ValueError, match="match_of must be given"):
        members_of(task(), paired("matched_host"))


def test_only_generations_with_arcs_are_paired() -> None:
    for name in ("control", "null"):
        with pytest.raises(ConfigError, match="no arcs"):
            load_generation(name).with_pairing("same_host")
    with pytest.raises(ConfigError, match="nothing is called 'twins'; there are matched_host, prime, same_host"):
        load_generation("gen7").with_pairing("twins")


def test_gen5_prime_is_gen5_in_prime_pairs() -> None:
    gen5, prime = load_generation("gen5"), load_generation("gen5_prime")
    assert prime == gen5.with_pairing("prime")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ring": 0.9}, "must sum to 1"),
        ({"ring": None}, "missing: ring"),
        ({"blob": 0.0}, "shuffled_pixels"),
    ],
)
def test_weights_must_be_probabilities_of_every_kind(change: dict[str, float | None], words: str) -> None:
    tree = load_section(Pairing, "pairing", "prime").model_dump(mode="json")
    weights = tree["negatives"]["weights"] | change
    tree["negatives"]["weights"] = {kind: weight for kind, weight in weights.items() if weight is not None}
    with pytest.raises(ValueError, match=words):
        Pairing.model_validate(tree)


# --- matched hosts ------------------------------------------------------------------------------------------------


def sky(count: int, seed: int = 1) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Hosts in four regions of two folds, on a coarse grid so that ties happen; one in six has no cutout."""
    rng = np.random.default_rng(seed)
    hosts, cutouts = [], {}
    for i in range(count):
        region = int(rng.integers(4))
        name = f"h{rng.integers(10**9)}-{i}"
        row: dict[str, Any] = dict.fromkeys(HOST_COLUMNS)
        row |= {"host_id": name, "region_id": region, "region_fold": region % 2}
        row |= {"mag_r": 18 + 0.25 * rng.integers(50), "psfdepth_r_mag": 23.5 + 0.05 * rng.integers(8)}
        failed = rng.random() < 1 / 6
        cutouts[name] = {
            "status": "NO_COVERAGE" if failed else "OK",
            "message": f"{name} is not covered" if failed else None,
            "psfsize_r_map_arcsec": 1.2 + 0.05 * rng.integers(5),
        }
        hosts.append(row)
    return hosts, cutouts


def by_hand(hosts: list[dict[str, Any]], cutouts: dict[str, dict[str, Any]], rules: MatchedHost) -> dict[str, Any]:
    """The match of each host by looking at all others; a status where there is none."""
    found: dict[str, Any] = {}
    limits = np.array([0.5, 0.1, 0.2])
    for own in hosts:
        values = {
            h["host_id"]: np.array([h["mag_r"], cutouts[h["host_id"]]["psfsize_r_map_arcsec"], h["psfdepth_r_mag"]])
            for h in hosts
            if cutouts[h["host_id"]]["status"] == "OK" and h[rules.match_within] == own[rules.match_within]
        }
        if own["host_id"] not in values:
            found[own["host_id"]] = "NO_COVERAGE"
            continue
        mine = values.pop(own["host_id"])
        apart = {name: np.abs(v - mine) / limits for name, v in values.items()}
        near = [(np.sqrt((d**2).sum()), name) for name, d in apart.items() if (d <= 1).all()]
        found[own["host_id"]] = min(near)[1] if near else "NO_MATCHED_HOST"
    return found


@pytest.mark.parametrize("within", ["region_id", "region_fold"])
def test_matches_are_those_found_by_hand(within: str) -> None:
    rules = RULES.model_copy(update={"match_within": within})
    hosts, cutouts = sky(70)
    found = match_hosts(hosts, cutouts, rules)
    plain = {h: m.host["host_id"] if m.host else m.status.value for h, m in found.items()}
    assert plain == by_hand(hosts, cutouts, rules)
    assert {"NO_COVERAGE", "NO_MATCHED_HOST"} < set(plain.values())
    assert match_hosts(hosts[::-1], cutouts, rules).keys() == found.keys()
    again = match_hosts(hosts[::-1], cutouts, rules)
    assert {h: m.host and m.host["host_id"] for h, m in again.items()} == {
        h: m.host and m.host["host_id"] for h, m in found.items()
    }


def test_ties_go_to_the_first_id_and_a_host_is_not_its_own_match() -> None:
    hosts, cutouts = sky(0)
    for name in ("c", "a", "b"):
        hosts.append({**dict.fromkeys(HOST_COLUMNS), "host_id": name, "mag_r": 18.0, "psfdepth_r_mag": 23.0})
        cutouts[name] = {"status": "OK", "message": None, "psfsize_r_map_arcsec": 1.2}
    found = match_hosts(hosts, cutouts, RULES)
    assert {h: m.host["host_id"] for h, m in found.items() if m.host} == {"a": "b", "b": "a", "c": "a"}


def test_no_match_says_what_was_nearest() -> None:
    def host(name: str, mag_r: float, depth: float | None) -> dict[str, Any]:
        return {**dict.fromkeys(HOST_COLUMNS), "host_id": name, "region_id": 7, "mag_r": mag_r, "psfdepth_r_mag": depth}

    hosts = [host("a", 18.0, 23.0), host("b", 18.75, 23.0), host("c", 21.0, 23.0)]
    cutouts: dict[str, dict[str, Any]] = {
        h["host_id"]: {"status": "OK", "message": None, "psfsize_r_map_arcsec": 1.2} for h in hosts
    }
    match = match_hosts(hosts, cutouts, RULES)["a"]
    assert (match.host, match.status) == (None, Status.NO_MATCHED_HOST)
    assert "nearest of 2 hosts in region_id 7 is b: mag_r +0.750 (tolerance 0.5)" in match.message
    assert "no other host with a cutout in region_id 7" in match_hosts(hosts[:1], cutouts, RULES)["a"].message
    hosts[0]["psfdepth_r_mag"] = None
    assert match_hosts(hosts, cutouts, RULES)["a"].message == "psfdepth_r_mag of host a is not known"
    wide = RULES.model_copy(update={"psfdepth_r_tolerance_mag": None, "mag_r_tolerance_mag": 1.0})
    found = match_hosts(hosts, cutouts, wide)["a"].host
    assert found is not None
    assert found["host_id"] == "b"
    del cutouts["a"]
    assert match_hosts(hosts, cutouts, RULES)["a"].status is Status.CUTOUT_MISSING
