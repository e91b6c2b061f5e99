"""Which class each row is of, and which rows make a pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dhs_gen.status import Status
from dhs_pipeline.gates.result import CannotRun

POSITIVE, CONTROL, NEGATIVE = "positive", "control", "negative"
CLASSES = (POSITIVE, CONTROL, NEGATIVE)

Mask = NDArray[np.bool_]
Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Pairs:
    """The rows of a set by pair.

    Parameters
    ----------
    ids
        (k) pair ids, sorted.
    counts
        Class → (k) rows of that class.
    first
        Class → (k) the pair's first row of that class; −1 without one.
    pair_of
        (n) pair of each row; −1 for controls that stand alone (tasks without an arc are their own pair).
    """

    ids: NDArray[np.object_]
    counts: dict[str, Index]
    first: dict[str, Index]
    pair_of: Index

    @property
    def whole(self) -> Mask:
        """(k) pairs with exactly one positive and one control."""
        return (self.counts[POSITIVE] == 1) & (self.counts[CONTROL] == 1)


def has(rows: pa.Table, *names: str) -> bool:
    """Whether the table has all these columns."""
    return all(name in rows.column_names for name in names)


def strings(rows: pa.Table, name: str) -> NDArray[np.object_]:
    """A text or integer column as an object array, null as None."""
    return np.array(rows.column(name).to_pylist(), dtype=object)


def numbers(rows: pa.Table, name: str) -> NDArray[np.float64]:
    """A numeric column as float64, null as NaN."""
    return rows.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)


def classes_of(rows: pa.Table) -> NDArray[np.object_]:
    """Class of each row: ``sample_kind``, or in a foreign set what ``arc_injected`` (else ``is_control``) says.

    Raises
    ------
    CannotRun
        If the set has none of these columns, or an unknown ``sample_kind``.
    """
    if has(rows, "sample_kind"):
        kinds = strings(rows, "sample_kind")
        if unknown := sorted({str(k) for k in set(kinds.tolist()) - set(CLASSES)}):
            raise CannotRun(f"sample_kind must be one of {', '.join(CLASSES)}, the set has {unknown[0]!r}")
        return kinds
    for name, positive in (("arc_injected", 1.0), ("is_control", 0.0)):
        if has(rows, name):
            return np.where(numbers(rows, name) == positive, POSITIVE, CONTROL).astype(object)
    raise CannotRun("the classes cannot be told: the set has no column sample_kind, arc_injected or is_control")


def ok_rows(rows: pa.Table) -> Mask:
    """Rows whose stamp is there: cutout_ok = 1 where the set says it, else status OK, and a stamp in any case."""
    there = pc.is_valid(rows.column("stamp_bytes")).to_numpy(zero_copy_only=False)
    if has(rows, "cutout_ok"):
        return there & (numbers(rows, "cutout_ok") == 1.0)
    if has(rows, "status"):
        return there & (strings(rows, "status") == Status.OK.value)
    return there


def two_classes(kinds: NDArray[np.object_]) -> None:
    """CannotRun unless there are positives and controls."""
    counts = {kind: int((kinds == kind).sum()) for kind in CLASSES}
    for kind in (POSITIVE, CONTROL):
        if counts[kind] == 0:
            found = ", ".join(f"{n} {k}s" for k, n in counts.items() if n) or "no rows"
            raise CannotRun(f"the set has no {kind}s ({found}): nothing to compare")


def pairs_of(rows: pa.Table) -> Pairs:
    """The pairs of a set.

    Raises
    ------
    CannotRun
        If the set does not say which rows belong together.
    """
    if not has(rows, "pair_id", "sample_kind"):
        missing = [n for n in ("pair_id", "sample_kind") if not has(rows, n)]
        raise CannotRun(f"the set is not paired: it has no column {' and no column '.join(missing)}")
    kinds, ids = classes_of(rows), strings(rows, "pair_id")
    if (unnamed := int((ids == None).sum())) > 0:  # noqa: E711 - element by element
        raise CannotRun(f"the set is not paired: pair_id is null in {unnamed} rows")
    names, pair = np.unique(ids.astype(str), return_inverse=True)
    sizes = np.bincount(pair, minlength=names.size)
    alone = (kinds == CONTROL) & (sizes[pair] == 1)
    if has(rows, "task_id"):
        alone &= strings(rows, "task_id") == ids
    inside = np.unique(pair[~alone])
    number = np.full(names.size, -1, np.intp)
    number[inside] = np.arange(inside.size)
    pair_of = np.where(alone, -1, number[pair])
    counts, first = {}, {}
    for kind in CLASSES:
        of_kind = np.flatnonzero((kinds == kind) & ~alone)
        counts[kind] = np.bincount(pair_of[of_kind], minlength=inside.size).astype(np.intp)
        first[kind] = np.full(inside.size, -1, np.intp)
        first[kind][pair_of[of_kind][::-1]] = of_kind[::-1]
    return Pairs(names[inside].astype(object), counts, first, pair_of)
