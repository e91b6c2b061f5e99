"""host_only: is the class told by the host alone, without any arc?

With controls on the positives' own hosts it cannot be by pixels; it still can by which hosts the other rows have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dhs_gen.streams import unit_intervals
from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.gates.data import GateData, PairSample
from dhs_pipeline.gates.pictures import stretch
from dhs_pipeline.gates.probes import FEATURE_PROBES, PICTURE_PROBES, Contest, indistinguishable
from dhs_pipeline.gates.regions import n_hosts, need_pairs, noise_scale
from dhs_pipeline.gates.result import CannotRun, Figure, GateResult, exact, judge, reported

GATE = "host_only"

PROPERTIES = (
    *(f"mag_{b}" for b in "grz"),
    *(f"psfsize_{b}_arcsec" for b in "grz"),
    *(f"psfdepth_{b}_mag" for b in "grz"),
    "z_l",
)
"""Columns that a host has without being looked at."""


def host_only(data: GateData, config: GatesConfig) -> GateResult:
    """Hosts of positives against those of controls and of negatives, by their properties and by their pixels.

    Properties are those of all rows with a stamp, also of manifest controls and negatives outside the sample. Pixels
    are those of the sample: with controls on the same hosts both classes have the same pictures; with matched hosts the
    positives' hosts are rendered without their arcs.

    Raises
    ------
    CannotRun
        If classes, hosts or properties are not in the rows, rows are too few, or hosts cannot be rendered.
    """
    sample = data.sample
    need_pairs(sample)
    figures = _by_properties(data.rows, config)
    if sample.same_host:
        name = "pictures of the hosts of both classes, which are the same: AUC"
        figures.append(exact(name, 0.5, limit=0.5, rows=2 * len(sample), blocks=n_hosts(sample)))
        message = "controls are the positives' own hosts, and no property of the hosts tells the classes of all rows"
    else:
        figures += _by_pictures(data, config)
        message = "neither properties nor pictures of the hosts tell the classes"
    return judge(GATE, figures, message)


def classes(rows: pa.Table) -> dict[str, NDArray[np.bool_]]:
    """Rows with a stamp by class: "positive", "control" and, where the set has them, "negative".

    Raises
    ------
    CannotRun
        If neither ``sample_kind`` nor ``arc_injected`` is there.
    """
    ok = np.ones(rows.num_rows, np.bool_)
    if "cutout_ok" in rows.column_names:
        ok = _numbers(rows, "cutout_ok") == 1
    if "sample_kind" in rows.column_names:
        kinds = np.asarray(rows.column("sample_kind").to_pylist(), dtype=object)
        return {
            str(kind): ok & (kinds == kind) for kind in ("positive", "control", "negative") if (kinds == kind).any()
        }
    if "arc_injected" not in rows.column_names:
        raise CannotRun("the rows have neither sample_kind nor arc_injected, so their classes are not known")
    arc = _numbers(rows, "arc_injected") == 1
    return {"positive": ok & arc, "control": ok & ~arc}


def _by_properties(rows: pa.Table, config: GatesConfig) -> list[Figure]:
    if "host_id" not in rows.column_names:
        raise CannotRun("the rows have no host_id, so rows of one host would teach a probe the host")
    kinds = classes(rows)
    names = [n for n in PROPERTIES if n in rows.column_names and rows.column(n).null_count < rows.num_rows]
    if not names:
        raise CannotRun("the rows have no property of the hosts")
    features = np.stack([_numbers(rows, name) for name in names], axis=1)
    known = np.isfinite(features).all(axis=1)
    hosts = np.asarray(rows.column("host_id").to_pylist(), dtype=object)
    drawn = _some_hosts(hosts, config.spark_above_rows)
    figures = []
    for other in [kind for kind in ("control", "negative") if kind in kinds]:
        groups = [np.flatnonzero(kinds[kind] & known & drawn) for kind in (other, "positive")]
        first, second = (features[group].astype(np.float32) for group in groups)
        first_hosts, second_hosts = (tuple(hosts[group]) for group in groups)
        contest = Contest(first, second, first_hosts, second_hosts)
        name = f"properties of the hosts, positives against {other}s"
        figures += indistinguishable(GATE, name, contest, FEATURE_PROBES, config)
    for kind, where in kinds.items():
        left_out = int((where & ~known).sum())
        figures.append(reported(f"{kind}s left out: a property is missing", left_out, rows=int(where.sum()), blocks=0))
    return figures


def _some_hosts(hosts: NDArray[np.object_], most: int) -> NDArray[np.bool_]:
    """(n) rows of whole hosts, drawn by a hash, that are about ``most`` at most: pairs must not be divided."""
    if hosts.size <= most:
        return np.ones(hosts.size, np.bool_)
    names, index = np.unique(hosts.astype(str), return_inverse=True)
    return (unit_intervals(names, salt=GATE) < most / hosts.size)[index]


def _by_pictures(data: GateData, config: GatesConfig) -> list[Figure]:
    sample = data.sample
    if data.rerender is None:
        raise CannotRun(f"hosts of positives cannot be rendered without their arcs: {data.no_rerender}")
    sigma = noise_scale(sample)
    hosts = data.rerender.controls(_pair_ids(sample))
    contest = Contest(stretch(sample.control, sigma), stretch(hosts, sigma), sample.control_host_ids, sample.host_ids)
    return indistinguishable(GATE, "pictures of the hosts", contest, PICTURE_PROBES, config)


def _pair_ids(sample: PairSample) -> Sequence[str]:
    """Names of the pairs; a set from before there were pairs names them by their positives."""
    name = "pair_id" if "pair_id" in sample.pairs.column_names else "task_id"
    return sample.pairs.column(name).to_pylist()


def _numbers(rows: pa.Table, name: str) -> NDArray[np.float64]:
    return pc.cast(rows.column(name), pa.float64()).to_numpy(zero_copy_only=False)
