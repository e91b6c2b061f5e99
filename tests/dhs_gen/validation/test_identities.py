"""Duplicates and leaks against plain sets, in one pass or many."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhs_gen.validation.identities import find_duplicates, find_leaks

IDS = st.lists(st.none() | st.sampled_from([f"id-{i}" for i in range(12)]), max_size=40)
SPLITS = st.sampled_from([None, "train", "val", "test"])


def pieces(values: list[str | None], size: int = 7) -> list[pa.Array]:
    return [pa.array(values[i : i + size], pa.string()) for i in range(0, len(values), size)]


@given(ids=IDS, rows_per_pass=st.sampled_from([1, 5, 1000]))
def test_duplicates_are_those_of_a_counter(ids: list[str | None], rows_per_pass: int) -> None:
    found = find_duplicates(lambda: iter(pieces(ids)), len(ids), rows_per_pass)
    more = {value: n for value, n in Counter(ids).items() if n > 1 and value is not None}
    assert (found.ids, found.rows) == (len(more), sum(more.values()) - len(more))
    assert set(found.examples) <= set(more)
    assert len(found.examples) == min(5, len(more))


@given(
    rows=st.lists(st.tuples(st.none() | st.sampled_from("abcdef"), SPLITS), max_size=40), per_pass=st.integers(1, 50)
)
def test_leaks_are_those_of_plain_sets(rows: list[tuple[str | None, str | None]], per_pass: int) -> None:
    ids, splits = [r[0] for r in rows], [r[1] for r in rows]
    found = find_leaks(lambda: zip(pieces(ids), pieces(splits), strict=True), len(rows), per_pass)
    of_id: dict[str, set[str]] = {}
    for value, split in rows:
        if value is not None and split is not None:
            of_id.setdefault(value, set()).add(split)
    leaks = {value: sorted(s) for value, s in of_id.items() if len(s) > 1}
    assert found.ids == len(leaks)
    assert len(found.examples) == min(5, len(leaks))
    assert found.examples.items() <= leaks.items()


def test_more_splits_than_can_be_told_apart_are_an_error() -> None:
    ids = pa.array(["a"] * 17)
    with pytest.raises(ValueError, match="at most 16 splits"):
        find_leaks(lambda: iter([(ids, pa.array([f"s{i}" for i in range(17)]))]), 17)


def test_many_ids_in_several_passes() -> None:
    def read() -> list[pa.Array]:
        return [
            pa.array([f"task-{i % 199_990}" for i in range(start, start + 20_000)])
            for start in range(0, 200_000, 20_000)
        ]

    found = find_duplicates(lambda: iter(read()), 200_000, 50_000)
    assert (found.ids, found.rows) == (10, 10)
