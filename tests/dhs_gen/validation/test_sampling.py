"""Which rows are decoded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dhs_gen.validation.sampling import Block, choose_rows


def blocks_of(counts: list[tuple[int, int]]) -> list[Block]:
    """Blocks of (rows with a stamp, rows), three to a row group."""
    made, first = [], 0
    for i, (with_stamp, rows) in enumerate(counts):
        first = 0 if i % 3 == 0 else first
        made.append(Block(i // 6, i // 3, first, with_stamp, rows))
        first += with_stamp
    return made


COUNTS = st.lists(st.integers(0, 30).flatmap(lambda n: st.tuples(st.just(n), st.integers(n, n + 10))), max_size=25)


@given(counts=COUNTS, max_rows=st.integers(1, 400), sample_rows=st.integers(1, 200))
def test_rows_are_distinct_exist_and_as_many_as_can_be(
    counts: list[tuple[int, int]], max_rows: int, sample_rows: int
) -> None:
    blocks = blocks_of(counts)
    chosen = choose_rows(blocks, max_rows, sample_rows)
    assert chosen == choose_rows(blocks, max_rows, sample_rows)
    total = sum(n for n, _ in counts)
    picked = sum(len(rows) for rows in chosen.values())
    assert picked <= min(sample_rows, total)
    if sum(rows for _, rows in counts) <= max_rows:
        assert picked == min(sample_rows, total)
    for (file, group), rows in chosen.items():
        here = [b for b in blocks if (b.file, b.group) == (file, group)]
        assert rows == sorted(set(rows))
        assert all(any(b.first <= row < b.first + b.with_stamp for b in here) for row in rows)


def test_max_rows_bounds_the_blocks_that_are_read() -> None:
    blocks = [Block(0, i, 0, 100, 100) for i in range(1000)]
    chosen = choose_rows(blocks, 2000, 500)
    assert len(chosen) == 20
    groups = sorted(group for _, group in chosen)
    assert groups[0] < 200
    assert groups[-1] > 800
