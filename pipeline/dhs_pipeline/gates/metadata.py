"""metadata_only: can the class be told before a stamp is opened?"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dhs_gen.streams import unit_intervals
from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.gates.classes import (
    CONTROL,
    NEGATIVE,
    POSITIVE,
    Index,
    classes_of,
    has,
    numbers,
    ok_rows,
    strings,
    two_classes,
)
from dhs_pipeline.gates.data import GateData
from dhs_pipeline.gates.probes import FEATURE_PROBES, Contest, indistinguishable
from dhs_pipeline.gates.result import CannotRun, GateResult, judge

GATE = "metadata_only"


def metadata_only(data: GateData, config: GatesConfig) -> GateResult:
    """Classifiers on what a file system, a header or a catalogue tells of a stamp know nothing of its class.

    Positives against controls, and against hard negatives where there are any. Only rows with a stamp: those are what
    a network is given.
    """
    rows = data.rows
    kinds = classes_of(rows)
    two_classes(kinds)
    if not has(rows, "host_id"):
        raise CannotRun("the set has no column host_id: rows of one host are not independent, and cannot be told")
    columns = [c for c in config.metadata_only.columns if has(rows, c)]
    absent = [c for c in config.metadata_only.columns if c not in columns]
    used = _sampled(rows, config.metadata_only.max_rows)
    x = np.stack([numbers(rows, c) for c in columns], axis=1).astype(np.float32)
    hosts = strings(rows, "host_id")
    figures = []
    for other in (CONTROL, NEGATIVE):
        if other == NEGATIVE and not (kinds == NEGATIVE).any():
            continue
        contest = _contest(x, hosts, used[kinds[used] == other], used[kinds[used] == POSITIVE])
        figures += indistinguishable(GATE, f"positives against {other}s", contest, FEATURE_PROBES, config)
    said = f"{len(columns)} columns do not tell the class"
    return judge(GATE, figures, said + (f"; not there: {', '.join(absent)}" if absent else ""))


def _sampled(rows: pa.Table, max_rows: int) -> Index:
    """Rows with a stamp, in the order of the set: of large sets about so many, whole pairs by a hash."""
    ok = np.flatnonzero(ok_rows(rows))
    if ok.size <= max_rows:
        return ok
    key = next(name for name in ("pair_id", "task_id", "host_id") if has(rows, name))
    place = unit_intervals(strings(rows, key)[ok], salt="gate_metadata")
    return ok[place <= np.partition(place, max_rows - 1)[max_rows - 1]]


def _contest(x: NDArray[np.float32], hosts: NDArray[np.object_], first: Index, second: Index) -> Contest:
    return Contest(x[first], x[second], tuple(map(str, hosts[first])), tuple(map(str, hosts[second])))
