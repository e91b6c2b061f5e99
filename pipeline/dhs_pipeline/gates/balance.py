"""class_balance: what a file's layout, its numbers' extremes, its failures and its conditions tell of the class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import binomtest, fisher_exact, ks_2samp

from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.gates.classes import (
    CLASSES,
    CONTROL,
    POSITIVE,
    Index,
    Mask,
    classes_of,
    has,
    numbers,
    ok_rows,
    pairs_of,
    strings,
    two_classes,
)
from dhs_pipeline.gates.data import GateData
from dhs_pipeline.gates.result import CannotRun, Figure, GateResult, Offender, exact, judge, reported
from dhs_pipeline.gates.sets import whole_same_host
from dhs_pipeline.schemas import BANDS

LAYOUT = ("stamp_keys", "stamp_dtypes", "stamp_shapes")
CONDITIONS = tuple(f"{name}_{b}_{unit}" for name, unit in (("psfsize", "arcsec"), ("psfdepth", "mag")) for b in BANDS)
"""What a host's observation was like."""
OF_THE_ARC = ("artifact_psf_",)
"""Artifact columns that belong to the arc's own PSF, which only a row with light need have."""


@dataclass(frozen=True, eq=False)
class _Set:
    """A set as this gate looks at it.

    Parameters
    ----------
    rows, kinds, ok, hosts
        The scan, the class of each row, whether its stamp is there, and its host.
    same_host
        (k, 2) rows of the positive and the control of each whole pair on one host.
    """

    rows: pa.Table
    kinds: NDArray[np.object_]
    ok: Mask
    hosts: NDArray[np.object_]
    same_host: Index
    max_status_difference: float
    min_p_value: float

    @property
    def n_hosts(self) -> int:
        return len(set(self.hosts))

    def of(self, kind: str) -> Mask:
        return self.ok & (self.kinds == kind)

    def both_ok(self) -> Index:
        return self.same_host[self.ok[self.same_host].all(axis=1)]

    def count(self, name: str, n: int, rows: int) -> Figure:
        return exact(name, n, limit=0, rows=rows, blocks=self.n_hosts)

    def tested(self, name: str, p_value: float, rows: int) -> Figure:
        least = self.min_p_value
        return Figure(f"{name}: p", p_value, None, None, f"at least {least:g}", p_value >= least, rows, self.n_hosts)


def class_balance(data: GateData, config: GatesConfig) -> GateResult:
    """Classes have the same layout, missing pixels, zeros, extremes, failures, conditions and artifacts.

    Pairs on one host are compared row by row; where controls are other hosts, their distributions are.
    """
    rows = data.rows
    kinds = classes_of(rows)
    two_classes(kinds)
    if not has(rows, "host_id"):
        raise CannotRun("the set has no column host_id: rows of one host are not independent, and cannot be told")
    balanced = config.class_balance
    seen = _Set(
        rows,
        kinds,
        ok_rows(rows),
        strings(rows, "host_id"),
        _same_host_pairs(rows),
        balanced.max_status_difference,
        balanced.min_p_value,
    )
    if not (seen.of(POSITIVE).any() and seen.of(CONTROL).any()):
        raise CannotRun("positives or controls have no stamps: every one of their rows failed")
    artifacts, unequal = _artifacts(seen)
    figures = [*_layouts(seen), *_pixels(seen), *_statuses(seen), *_conditions(seen), *artifacts]
    missing = [c for c in CONDITIONS if not has(rows, c)]
    if len(missing) == len(CONDITIONS) and all(f.ok for f in figures):
        raise CannotRun("the set has no column of psfsize or psfdepth: conditions of the classes cannot be compared")
    said = "classes are alike in layout, pixels' extremes, failures, conditions and artifacts"
    absent = f"; not compared, for they are not there: {', '.join(missing)}" if missing else ""
    return judge("class_balance", figures, said + absent, unequal[: config.max_offenders])


def _same_host_pairs(rows: pa.Table) -> Index:
    if not has(rows, "pair_id", "sample_kind"):
        return np.empty((0, 2), np.intp)
    pairs = pairs_of(rows)
    same = whole_same_host(rows, pairs)
    return np.stack([pairs.first[POSITIVE][same], pairs.first[CONTROL][same]], axis=1)


def _layouts(seen: _Set) -> list[Figure]:
    """Keys, dtypes and shapes: none of one class alone, none that differs within a pair."""
    parts = [strings(seen.rows, name) for name in LAYOUT]
    layout = np.array(["|".join(map(str, row)) for row in zip(*parts, strict=True)], dtype=object)
    there = [set(layout[seen.of(kind)]) for kind in CLASSES if seen.of(kind).any()]
    alone = set.union(*there) - set.intersection(*there)
    pairs = seen.both_ok()
    return [
        seen.count("layouts (keys, dtypes, shapes) that a class lacks", len(alone), int(seen.ok.sum())),
        seen.count("pairs of two layouts", int((layout[pairs[:, 0]] != layout[pairs[:, 1]]).sum()), len(pairs)),
    ]


def _pixels(seen: _Set) -> list[Figure]:
    """Missing pixels exactly; exact zeros and shared extremes (a fill, a clip) by their share of hosts."""
    nan, zero = numbers(seen.rows, "pixels_nan"), numbers(seen.rows, "pixels_zero")
    pairs, n = seen.both_ok(), int(seen.ok.sum())
    shares = {kind: float((nan[seen.of(kind)] > 0).mean()) for kind in (POSITIVE, CONTROL)}
    figures = [
        seen.count(
            "pairs with different numbers of NaN", int((nan[pairs[:, 0]] != nan[pairs[:, 1]]).sum()), len(pairs)
        ),
        exact(
            "rows with NaN, difference of classes",
            abs(shares[POSITIVE] - shares[CONTROL]),
            limit=0,
            rows=n,
            blocks=seen.n_hosts,
        ),
    ]
    for kind in (POSITIVE, CONTROL):
        share = float((zero[seen.of(kind)] > 0).mean())
        figures.append(reported(f"{kind}s with exact zeros, fraction", share, rows=n, blocks=seen.n_hosts))
    if len(pairs):
        change = np.sign(zero[pairs[:, 0]] - zero[pairs[:, 1]])
        figures.append(seen.tested("zeros within pairs, sign test over hosts", _sign_test(seen, pairs, change), n))
    else:
        figures.append(seen.tested("hosts with zeros, Fisher test", _share_test(seen, lambda k: zero > 0), n))
    for name in ("pixels_min", "pixels_max"):
        value = numbers(seen.rows, name)
        p = _share_test(seen, lambda kind, value=value: value == _commonest(seen, value, kind))  # type: ignore[misc]
        figures.append(seen.tested(f"hosts at the commonest {name[-3:]}imum, Fisher test", p, n))
    return figures


def _statuses(seen: _Set) -> list[Figure]:
    """Fraction of each status: exactly equal in pairs on one host, else by a test over hosts."""
    if not has(seen.rows, "status"):
        return []
    status = strings(seen.rows, "status")
    if not len(seen.same_host):
        failed = {kind: _hosts_where(seen, (seen.kinds == kind), ~seen.ok) for kind in (POSITIVE, CONTROL)}
        p = float(fisher_exact([failed[POSITIVE], failed[CONTROL]]).pvalue)
        return [seen.tested("hosts with failed rows, Fisher test", p, seen.rows.num_rows)]
    positive, control = status[seen.same_host[:, 0]], status[seen.same_host[:, 1]]
    worst = max(abs(float((positive == s).mean() - (control == s).mean())) for s in {*positive, *control})
    limit, n = seen.max_status_difference, 2 * len(seen.same_host)
    return [exact("fraction of a status, largest difference", worst, limit=limit, rows=n, blocks=seen.n_hosts)]


def _conditions(seen: _Set) -> list[Figure]:
    """psfsize and depth: equal within pairs on one host; two-sample Kolmogorov-Smirnov tests, one value per host."""
    figures = []
    for name in (c for c in CONDITIONS if has(seen.rows, c)):
        value, pairs = numbers(seen.rows, name), seen.both_ok()
        differ = ~_equal(value[pairs[:, 0]], value[pairs[:, 1]])
        if differ.any():
            figures.append(seen.count(f"pairs with two values of {name}", int(differ.sum()), len(pairs)))
        first, second = (_per_host(seen, value, kind) for kind in (POSITIVE, CONTROL))
        if min(first.size, second.size):
            p = float(ks_2samp(first, second).pvalue)
            figures.append(seen.tested(f"{name}, Kolmogorov-Smirnov test", p, first.size + second.size))
        elif first.size != second.size:
            figures.append(seen.count(f"classes without {name}", 1, int(seen.ok.sum())))
    return figures


def _artifacts(seen: _Set) -> tuple[list[Figure], list[Offender]]:
    """Artifacts of a pair on one host are the same on both sides: they are drawn from a key without the label."""
    pairs = seen.both_ok()
    columns = [n for n in seen.rows.column_names if n.startswith("artifact_") and not n.startswith(OF_THE_ARC)]
    if not (len(pairs) and columns):
        return [], []
    differ = np.zeros(len(pairs), bool)
    for name in columns:
        if pa.types.is_floating(seen.rows.schema.field(name).type):
            value = numbers(seen.rows, name)
            differ |= ~_equal(value[pairs[:, 0]], value[pairs[:, 1]])
        else:
            word = strings(seen.rows, name)
            differ |= word[pairs[:, 0]] != word[pairs[:, 1]]
    figures = [seen.count("pairs with two kinds of artifacts", int(differ.sum()), len(pairs))]
    if not has(seen.rows, "task_id"):
        return figures, []
    ids = strings(seen.rows, "task_id")[pairs[differ, 0]]
    return figures, [Offender(str(i), "artifacts differ from the control's") for i in ids]


def _sign_test(seen: _Set, pairs: Index, change: NDArray[np.float64]) -> float:
    """Two-sided sign test of one vote per host, so that many tasks of one host count once."""
    _, host = np.unique(seen.hosts[pairs[:, 0]].astype(str), return_inverse=True)
    votes = np.sign(np.bincount(host, weights=change))
    up, down = int((votes > 0).sum()), int((votes < 0).sum())
    return float(binomtest(up, up + down).pvalue) if up + down else 1.0


def _share_test(seen: _Set, marked: Callable[[str], Mask]) -> float:
    """Fisher's exact test of the hosts that have a marked row, between the classes."""
    counts = [_hosts_where(seen, seen.of(kind), marked(kind)) for kind in (POSITIVE, CONTROL)]
    return float(fisher_exact(counts).pvalue)


def _hosts_where(seen: _Set, of_kind: Mask, marked: Mask) -> tuple[int, int]:
    """Hosts of a class with a marked row, and those without."""
    hosts, chosen = set(seen.hosts[of_kind]), set(seen.hosts[of_kind & marked])
    return len(chosen), len(hosts) - len(chosen)


def _commonest(seen: _Set, value: NDArray[np.float64], kind: str) -> float:
    """The value that most hosts of a class share."""
    of_kind = seen.of(kind) & np.isfinite(value)
    if not of_kind.any():
        return float("nan")
    held = np.unique(np.rec.fromarrays([value[of_kind], seen.hosts[of_kind].astype(str)]))
    values, times = np.unique(held["f0"], return_counts=True)
    return float(values[times.argmax()])


def _per_host(seen: _Set, value: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """One value for each host of a class: the mean over its rows."""
    known = seen.of(kind) & np.isfinite(value)
    _, host = np.unique(seen.hosts[known].astype(str), return_inverse=True)
    return np.bincount(host, weights=value[known]) / np.bincount(host)


def _equal(a: NDArray[np.float64], b: NDArray[np.float64]) -> Mask:
    return (a == b) | (np.isnan(a) & np.isnan(b))
