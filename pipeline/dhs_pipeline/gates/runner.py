"""``dhs gates``: scan a set, ask every gate, write what they found. Only a set that passes all of them has passed."""

from __future__ import annotations

import importlib
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from dhs_pipeline import __version__
from dhs_pipeline.config import ConfigError, GatesConfig, RunConfig, Survey, config_hash, load_section, load_yaml
from dhs_pipeline.config.files import apply_override, find, validate
from dhs_pipeline.digest import digest_table
from dhs_pipeline.gates.classes import has, strings
from dhs_pipeline.gates.data import GateData
from dhs_pipeline.gates.page import write_page
from dhs_pipeline.gates.real import read_real, real_files
from dhs_pipeline.gates.rerender import Rerenderer, open_rerenderer
from dhs_pipeline.gates.result import CannotRun, Figure, GateResult, Outcome, key_figure
from dhs_pipeline.gates.sample import empty_sample, read_sample
from dhs_pipeline.gates.scan import DataSet, count_rows, find_set, scan_here, scan_on_spark
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.session import start_session
from dhs_pipeline.storage import Location

FOLDER = "_gates"
"""Readers of a set pass over folders whose names begin so."""

GateFunction = Callable[[GateData, GatesConfig], GateResult]


@dataclass(frozen=True)
class Gate:
    """An entry of the table.

    Parameters
    ----------
    name
        As in conf/gates.
    function
        ``module:function`` below dhs_pipeline.gates.
    needs_sample, needs_rerender
        Without pixels of pairs, or without the run to render from, the gate does not run.
    """

    name: str
    function: str
    needs_sample: bool = False
    needs_rerender: bool = False

    def load(self) -> GateFunction:
        return load_function(self.function)


GATES = (
    Gate("pairs_complete", "sets:pairs_complete"),
    Gate("split_disjointness", "sets:split_disjointness"),
    Gate("duplicate_pixels", "sets:duplicate_pixels"),
    Gate("class_balance", "balance:class_balance"),
    Gate("metadata_only", "metadata:metadata_only"),
    Gate("host_only", "host_only:host_only", needs_sample=True),
    Gate("pair_identity", "identity:pair_identity", needs_sample=True),
    Gate("null_injection", "null:null_injection", needs_sample=True, needs_rerender=True),
    Gate("arc_centring", "centring:arc_centring", needs_sample=True),
    Gate("border_texture", "border:border_texture", needs_sample=True),
    Gate("radial_profile", "radial:radial_profile", needs_sample=True),
    Gate("core_only", "core:core_only", needs_sample=True),
    Gate("arc_amplitude", "amplitude:arc_amplitude", needs_sample=True, needs_rerender=True),
    Gate("psf_swap", "psf_swap:psf_swap", needs_sample=True, needs_rerender=True),
    Gate("transformed_control", "transforms:transformed_control", needs_sample=True, needs_rerender=True),
    Gate("realism", "realism:realism", needs_sample=True),
)
"""All gates, in the order of the table."""


def run_gates(
    path: Location,
    config: GatesConfig,
    *,
    master: str | None = None,
    run_dir: Location | None = None,
    real: Sequence[Location] = (),
    out: Location | None = None,
    only: Sequence[str] | None = None,
    tell: Callable[[GateResult], None] = lambda result: None,
) -> list[GateResult]:
    """Ask the gates about a set; write ``gates.json`` and ``gates.html``.

    Parameters
    ----------
    path
        A file or folder of stamps, or a generation's folder.
    config
        Limits, declared before the set is seen.
    master
        Spark master; given, or with more than ``config.spark_above_rows`` rows, the set is scanned on Spark.
    run_dir
        The run that made the set, where it does not lie in it.
    real
        Files of real lenses.
    out
        Default: ``_gates`` in the generation's folder.
    only
        Names of the gates to ask; None asks all.
    tell
        Called with each result as it comes.

    Raises
    ------
    ConfigError
        If a gate is unknown.
    StorageError
        If there is no set at the path, or the results cannot be written.
    """
    gates = chosen_gates(only)
    data, lenses = find_set(path), real_files(real)
    where = out or data.folder / FOLDER
    where.make_dir()
    where.check_writable()
    on_spark = master is not None or count_rows(data) > config.spark_above_rows
    if on_spark:
        rows = scan_on_spark(data, where / "_scan", lambda: start_session("dhs gates", master))
    else:
        rows = scan_here(data)
    seen = _look(data, rows, config, gates, run_dir, lenses)
    results = []
    for gate in gates:
        results.append(run_gate(gate, seen, config))
        tell(results[-1])
    summary = _summary(data, seen, config, results)
    (where / "gates.json").write_json(summary)
    write_page(where, data, rows, summary, results)
    return results


def load_limits(where: str, overrides: Sequence[str] = ()) -> GatesConfig:
    """Limits of conf/gates, with ``key.sub=value`` overrides.

    Raises
    ------
    ConfigError
        If the file or a key is not there, or a value is out of range.
    """
    tree, path = load_yaml("gates", where), find("gates", where)
    for override in overrides:
        apply_override(tree, override)
    return validate(GatesConfig, tree, path)


def run_gate(gate: Gate, data: GateData, config: GatesConfig) -> GateResult:
    """One gate, timed. What it cannot do ends as NOT_RUN; any other exception is a defect and is not caught."""
    started = time.perf_counter()
    try:
        if gate.needs_sample and not len(data.sample):
            raise CannotRun(f"no pixels of pairs: {data.no_sample}")
        if gate.needs_rerender and data.rerender is None:
            raise CannotRun(f"nothing can be rendered again: {data.no_rerender}")
        result = gate.load()(data, config)
    except CannotRun as why:
        result = GateResult(gate.name, Outcome.NOT_RUN, str(why))
    except ValueError as defect:  # which the command line would take for wrong input
        raise RuntimeError(f"gate {gate.name}: {defect}") from defect
    return replace(result, seconds=round(time.perf_counter() - started, 3))


def exit_code(results: Sequence[GateResult]) -> int:
    """0 if every gate has passed, else 1: a gate that did not run has failed."""
    return 0 if results and all(r.outcome is Outcome.PASS for r in results) else 1


def chosen_gates(only: Sequence[str] | None) -> list[Gate]:
    """The gates of these names, in the order of the table.

    Raises
    ------
    ConfigError
        If a name is unknown, or there is none.
    """
    names = [g.name for g in GATES]
    wanted = names if only is None else list(only)
    if unknown := [n for n in wanted if n not in names]:
        raise ConfigError(f"no gate is called {unknown[0]!r}; there are {', '.join(names)}")
    if not wanted:
        raise ConfigError("no gate is named")
    return [g for g in GATES if g.name in wanted]


def load_function(where: str) -> Callable[..., Any]:
    """``module:function`` below dhs_pipeline.gates as the function."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(f"dhs_pipeline.gates.{module}"), name)


def results_table(results: Sequence[GateResult]) -> str:
    """Gate, outcome, key figure with interval, limit, rows, seconds; below, why those that did not pass did not."""
    lines = [("gate", "outcome", "key figure", "value", "95 % interval", "limit", "rows", "seconds")]
    for r in results:
        f = key_figure(r)
        cells = ("—", "", "", "", "") if f is None else (f.name, _number(f.value), _interval(f), f.limit, str(f.rows))
        lines.append((r.gate, r.outcome.value, *cells, f"{r.seconds:.1f}"))
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    said = [f"{r.gate}: {r.message}" for r in results if r.outcome is not Outcome.PASS]
    return "\n".join([*table, *said])


def _look(
    data: DataSet,
    rows: pa.Table,
    config: GatesConfig,
    gates: Sequence[Gate],
    run_dir: Location | None,
    real: Sequence[Location],
) -> GateData:
    """What the chosen gates need to see of the set."""
    sample, bandset, no_sample = empty_sample(rows), "", "none of the chosen gates needs them"
    if real or any(g.needs_sample for g in gates):
        try:
            (sample, bandset), no_sample = read_sample(data, rows, config.sample_pairs), ""
        except CannotRun as why:
            no_sample = str(why)
    rerender, no_rerender = _rerenderer(data, run_dir, gates)
    scale = pixscale_arcsec(data, run_dir)
    lenses = read_real(real, bandset, sample.positive.shape[-1], scale) if real and len(sample) else None
    return GateData(rows, sample, bandset, scale, rerender, no_rerender, lenses, no_sample)


def _rerenderer(data: DataSet, run_dir: Location | None, gates: Sequence[Gate]) -> tuple[Rerenderer | None, str]:
    if not any(g.needs_rerender for g in gates):
        return None, "none of the chosen gates needs it"
    try:
        return open_rerenderer(data.stamps, None if run_dir is None else RunDir(run_dir)), ""
    except CannotRun as why:
        return None, str(why)


def pixscale_arcsec(data: DataSet, run_dir: Location | None) -> float:
    """Of the run that the set lies in; of a foreign set that of conf/survey/dr10, whose pixels stamps are."""
    above = data.folder.uri.split("/")
    folders = [run_dir] if run_dir else [Location("/".join(above[: len(above) - k])) for k in range(3)]
    for folder in folders:
        if (folder / "run.json").exists():
            return RunConfig.model_validate((folder / "run.json").read_json()["config"]).survey.pixscale_arcsec
    return load_section(Survey, "survey", "dr10").pixscale_arcsec


def _summary(data: DataSet, seen: GateData, config: GatesConfig, results: Sequence[GateResult]) -> dict[str, Any]:
    stage = data.folder / "_stage.json"
    return {
        "set": data.stamps.uri,
        "code_version": __version__,
        "config": config.model_dump(mode="json"),
        "config_hash": config_hash(config),
        "inputs": {
            "files": len(data.files),
            "pixels_digest": _pixels_digest(seen.rows),
            "stage_digests": stage.read_json().get("digests", {}) if stage.exists() else {},
        },
        "rows": seen.rows.num_rows,
        "rows_by_kind": _counts(seen.rows, "sample_kind"),
        "rows_by_status": _counts(seen.rows, "status"),
        "rows_by_split": _counts(seen.rows, "split"),
        "sample_pairs": len(seen.sample),
        "no_sample": seen.no_sample,
        "bandset": seen.bandset,
        "pixscale_arcsec": seen.pixscale_arcsec,
        "real_lenses": 0 if seen.real_lenses is None else len(seen.real_lenses),
        "passed": exit_code(results) == 0,
        "results": [plain(asdict(r)) for r in results],
    }


def _pixels_digest(rows: pa.Table) -> str:
    """Digest of which pixels each task has: it names the set that was looked at."""
    names = [n for n in ("task_id", "pixels_hash") if has(rows, n)]
    return str(digest_table(rows.select(names)))


def _counts(rows: pa.Table, column: str) -> dict[str, int]:
    return dict(sorted(Counter(str(v) for v in strings(rows, column)).items())) if has(rows, column) else {}


def plain(value: Any) -> Any:
    """Numbers, text, lists and mappings as JSON has them; a number that is not finite as null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return None if value is None else str(value)


def _number(value: float) -> str:
    return f"{value:.4g}"


def _interval(figure: Figure) -> str:
    return "" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"
