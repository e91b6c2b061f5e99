"""Gates on whole tables: pairs that are whole, splits that share nothing, pixels that come once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.gates.classes import (
    CONTROL,
    NEGATIVE,
    POSITIVE,
    Index,
    Mask,
    Pairs,
    classes_of,
    has,
    ok_rows,
    pairs_of,
    strings,
    two_classes,
)
from dhs_pipeline.gates.data import GateData
from dhs_pipeline.gates.result import CannotRun, Figure, GateResult, Offender, exact, judge, reported

KEPT_WHOLE = ("host_id", "region_id", "pair_id", "template_id")
"""What a split must not divide."""


def pairs_complete(data: GateData, config: GatesConfig) -> GateResult:
    """Every positive has one control under its pair_id, every control of a pair one positive; failures on both sides.

    Controls whose pair_id is their own task_id are tasks without an arc: nothing belongs to them.
    """
    rows = data.rows
    kinds = classes_of(rows)
    two_classes(kinds)
    pairs = pairs_of(rows)
    positives, controls, negatives = (pairs.counts[kind] for kind in (POSITIVE, CONTROL, NEGATIVE))
    if not controls.any():
        raise CannotRun(f"no control belongs to any of the {int(positives.sum())} positives: the set is not paired")
    lonely, orphans = (positives > 0) & (controls == 0), (positives == 0) & (controls + negatives > 0)
    several = (positives > 1) | (controls > 1)
    torn = whole_same_host(rows, pairs) if has(rows, "status", "host_id") else None
    unequal = np.zeros(pairs.ids.size, bool)
    if torn is not None:
        status = strings(rows, "status")
        unequal[torn] = status[pairs.first[POSITIVE][torn]] != status[pairs.first[CONTROL][torn]]
    hosts = _n_hosts(rows)

    def count(name: str, broken: Mask) -> Figure:
        return exact(name, int(broken.sum()), limit=0, rows=pairs.ids.size, blocks=hosts)

    figures = [
        count("positives without a control", lonely),
        count("pairs without a positive", orphans),
        count("pairs with several positives or controls", several),
        count("pairs on one host that failed on one side only", unequal),
        reported("pairs", int(pairs.whole.sum()), rows=rows.num_rows, blocks=hosts),
        reported("controls that stand alone", int((pairs.pair_of < 0).sum()), rows=rows.num_rows, blocks=hosts),
    ]
    if has(rows, "task_id"):
        ids = strings(rows, "task_id")
        repeated = ids.size - np.unique(ids.astype(str)).size
        figures.append(exact("task ids that are there again", repeated, limit=0, rows=ids.size, blocks=hosts))
    offenders = [
        *_offenders(rows, pairs, lonely, "positive without a control", config),
        *_offenders(rows, pairs, orphans, "no positive under its pair_id", config),
        *_offenders(rows, pairs, several, "pair with several positives or controls", config),
        *_offenders(rows, pairs, unequal, "failed on one side of the pair only", config),
    ]
    if torn is None:
        missing = [n for n in ("status", "host_id") if not has(rows, n)]
        return _cannot_or_fail("pairs_complete", figures, f"the set has no column {', '.join(missing)}", offenders)
    said = f"{int(pairs.whole.sum())} pairs of one positive and one control each"
    return judge("pairs_complete", figures, said, offenders[: config.max_offenders])


def split_disjointness(data: GateData, config: GatesConfig) -> GateResult:
    """A host, a sky region, a pair and a source template lie in one split each."""
    rows = data.rows
    splits = strings(rows, "split")
    names = sorted({s for s in splits if s is not None})
    if (unknown := int(sum(s is None for s in splits))) > 0:
        raise CannotRun(f"{unknown} rows are in no split: no folder region_split=… and no column region_split")
    if len(names) < 2:
        raise CannotRun(f"one split is here ({', '.join(names) or 'none'}): at least two are needed")
    hosts, missing, figures, offenders = _n_hosts(rows), [], [], []
    for column in KEPT_WHOLE:
        if not has(rows, column):
            missing.append(column)
            continue
        crossing = crossing_values(qualified(rows, column), splits)
        figures.append(
            exact(f"{column}s in more than one split", len(crossing), limit=0, rows=rows.num_rows, blocks=hosts)
        )
        offenders += _rows_with(rows, column, crossing, f"{column} in more than one split", config)
    figures.append(reported("splits", len(names), rows=rows.num_rows, blocks=hosts))
    if missing:
        why = f"the set has no column {', '.join(missing)}: whether splits share it cannot be told"
        return _cannot_or_fail("split_disjointness", figures, why, offenders[: config.max_offenders])
    said = f"{', '.join(names)} share no host, region, pair or template"
    return judge("split_disjointness", figures, said, offenders[: config.max_offenders])


def duplicate_pixels(data: GateData, config: GatesConfig) -> GateResult:
    """No pixels under two hosts or in two splits, and no positive whose pixels are another row's.

    Controls of one host without artifacts are all its cutout, and equal: that is reported, not judged.
    """
    rows = data.rows
    kinds, ok = classes_of(rows), ok_rows(rows)
    if not has(rows, "host_id"):
        raise CannotRun("the set has no column host_id: whose pixels are the same cannot be told")
    if not ok.any():
        raise CannotRun("no row has a stamp")
    index = np.flatnonzero(ok)
    hashes, host, split = (strings(rows, name)[index] for name in ("pixels_hash", "host_id", "split"))
    of_hosts, of_splits = crossing_values(hashes, host), crossing_values(hashes, split)
    _, number, times = np.unique(hashes.astype(str), return_inverse=True, return_counts=True)
    again = times[number] > 1
    positive = kinds[index] == POSITIVE
    hosts = _n_hosts(rows)

    def count(name: str, n: int) -> Figure:
        return exact(name, n, limit=0, rows=index.size, blocks=hosts)

    figures = [
        count("pixels under more than one host", len(of_hosts)),
        count("pixels in more than one split", len(of_splits)),
        count("positives with the pixels of another row", int((again & positive).sum())),
        reported(
            "controls with the pixels of another row",
            int((again & (kinds[index] == CONTROL)).sum()),
            rows=index.size,
            blocks=hosts,
        ),
    ]
    same = np.zeros(rows.num_rows, bool)
    same[index[again & positive]] = True
    if has(rows, "pair_id", "sample_kind"):
        pairs = pairs_of(rows)
        own = _equal_to_own_control(rows, pairs, ok)
        figures.insert(2, count("positives with the pixels of their own control", int(own.sum())))
    offenders = [
        *_rows_with(rows, "pixels_hash", of_hosts, "the same pixels under more than one host", config),
        *_rows_with(rows, "pixels_hash", of_splits, "the same pixels in more than one split", config),
        *_rows_at(rows, np.flatnonzero(same), "the pixels of another row", config),
    ]
    said = f"the pixels of {index.size} stamps are those of one host and one split"
    return judge("duplicate_pixels", figures, said, offenders[: config.max_offenders])


def crossing_values(values: NDArray[np.object_], groups: NDArray[np.object_]) -> list[str]:
    """Values that occur in more than one group, sorted; null values and null groups are passed over."""
    seen = pa.table({"value": pa.array(values, pa.string()), "group": pa.array(groups, pa.string())})
    distinct = seen.drop_null().group_by(["value", "group"]).aggregate([])
    counts = distinct.group_by("value").aggregate([("group", "count")])
    return sorted(counts.filter(pc.greater(counts.column("group_count"), 1)).column("value").to_pylist())


def qualified(rows: pa.Table, column: str) -> NDArray[np.object_]:
    """A column's values as text; a template's id is its bank's own, so the kind of source goes with it."""
    values = np.array([None if v is None else str(v) for v in rows.column(column).to_pylist()], dtype=object)
    if column != "template_id" or not has(rows, "source_mode"):
        return values
    modes = strings(rows, "source_mode")
    return np.array([None if v is None else f"{m}:{v}" for v, m in zip(values, modes, strict=True)], dtype=object)


def whole_same_host(rows: pa.Table, pairs: Pairs) -> Index:
    """Whole pairs whose control is on the positive's own host."""
    host, whole = strings(rows, "host_id"), np.flatnonzero(pairs.whole)
    return whole[host[pairs.first[POSITIVE][whole]] == host[pairs.first[CONTROL][whole]]]


def _equal_to_own_control(rows: pa.Table, pairs: Pairs, ok: Mask) -> Mask:
    hashes, whole = strings(rows, "pixels_hash"), np.flatnonzero(pairs.whole)
    positive, control = pairs.first[POSITIVE][whole], pairs.first[CONTROL][whole]
    return ok[positive] & ok[control] & (hashes[positive] == hashes[control])


def _n_hosts(rows: pa.Table) -> int:
    return len(set(strings(rows, "host_id"))) if has(rows, "host_id") else 0


def _cannot_or_fail(gate: str, figures: Sequence[Figure], why: str, offenders: Sequence[Offender]) -> GateResult:
    """What is broken comes before what is missing: FAIL if a figure is, else CannotRun."""
    if all(f.ok for f in figures):
        raise CannotRun(why)
    return judge(gate, figures, why, offenders)


def _offenders(rows: pa.Table, pairs: Pairs, broken: Mask, reason: str, config: GatesConfig) -> list[Offender]:
    some = np.flatnonzero(broken)[: config.max_offenders]
    positive, control, negative = (pairs.first[kind][some] for kind in (POSITIVE, CONTROL, NEGATIVE))
    first = np.where(positive >= 0, positive, np.where(control >= 0, control, negative))
    return _rows_at(rows, first, reason, config)


def _rows_with(rows: pa.Table, column: str, values: Sequence[str], reason: str, config: GatesConfig) -> list[Offender]:
    wanted = set(values[: config.max_offenders])
    held = qualified(rows, column)
    found = {str(v): i for i, v in reversed(list(enumerate(held))) if v is not None and str(v) in wanted}
    return _rows_at(rows, np.array(sorted(found.values()), np.intp), reason, config)


def _rows_at(rows: pa.Table, index: Index, reason: str, config: GatesConfig) -> list[Offender]:
    if not has(rows, "task_id"):
        return []
    ids = rows.column("task_id").take(pa.array(index[: config.max_offenders].astype(np.int64))).to_pylist()
    return [Offender(str(task_id), reason) for task_id in ids]
