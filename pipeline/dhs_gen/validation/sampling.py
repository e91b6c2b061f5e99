"""Which rows of a dataset are decoded: spread over it, and the same in every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dhs_gen.streams import unit_interval

__all__ = ["Block", "choose_rows"]


@dataclass(frozen=True)
class Block:
    """Neighbouring rows of one row group; ``first`` counts the group's rows with a stamp that come before."""

    file: int
    group: int
    first: int
    with_stamp: int
    rows: int


def choose_rows(blocks: Sequence[Block], max_rows: int, sample_rows: int) -> dict[tuple[int, int], list[int]]:
    """(file, row group) → numbers, among the group's rows with a stamp, of those to decode; ascending.

    Blocks are taken in a keyed order until they hold ``max_rows`` rows. The rows of the taken blocks, in the order of
    the dataset, are cut into ``sample_rows`` equal runs, and one keyed row of each is chosen (all of them, if there are
    no more). Nothing but the numbers of blocks and rows matters: not the paths, not the time.
    """
    order = sorted(range(len(blocks)), key=lambda i: unit_interval("block", i, salt="quality_checks"))
    taken: list[int] = []
    rows = 0
    for index in order:
        if rows >= max_rows:
            break
        if blocks[index].with_stamp:
            taken.append(index)
            rows += blocks[index].rows
    pool = [blocks[i] for i in sorted(taken)]
    total = sum(b.with_stamp for b in pool)
    runs = min(sample_rows, total)
    picks = []
    for run in range(runs):
        low, high = run * total // runs, (run + 1) * total // runs
        picks.append(low + int(unit_interval("row", run, salt="quality_checks") * (high - low)))
    chosen: dict[tuple[int, int], list[int]] = {}
    start = 0
    at = 0
    for block in pool:
        while at < len(picks) and picks[at] < start + block.with_stamp:
            chosen.setdefault((block.file, block.group), []).append(block.first + picks[at] - start)
            at += 1
        start += block.with_stamp
    return chosen
