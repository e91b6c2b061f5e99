"""Gather, choose, draw and write ``OUT/report/index.html``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.resources import files
from operator import add
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from dhs_gen.paired_controls.kinds import SampleKind
from dhs_gen.stamps import read_stamp
from dhs_gen.status import Status
from dhs_pipeline import __version__
from dhs_pipeline.commit import withdraw
from dhs_pipeline.config import config_hash
from dhs_pipeline.receipts import WrittenFile
from dhs_pipeline.report import data, selection
from dhs_pipeline.report.data import Sample
from dhs_pipeline.report.pictures import colour_image, data_uri, encode_png
from dhs_pipeline.report.plots import distributions_png
from dhs_pipeline.report.selection import Pick
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import BANDS, SPLITS
from dhs_pipeline.stage import StageError, StageRun
from dhs_pipeline.storage import Location

CONTROL = "control"
"""The generation whose stamps are shown beside the lensed ones."""

_MENTIONED_BAD_FRACTION = 0.1


@dataclass(frozen=True)
class Image:
    label: str
    uri: str


@dataclass(frozen=True)
class Card:
    """One task: its pictures and what is written below them."""

    images: tuple[Image, ...]
    lines: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class GenerationSection:
    """What the page shows of one generation."""

    name: str
    about: str
    random: tuple[Card, ...]
    quantiles: tuple[Card, ...]
    plain: tuple[Card, ...]
    negatives: tuple[Card, ...]
    members: tuple[tuple[str, int], ...]
    has_controls: bool
    has_arc_layers: bool


def write_report(run: RunDir) -> Location:
    """Write the page for whatever has finished in the run; returns where it lies.

    The page holds nothing but itself: no script, and pictures inside. The same run gives the same bytes.

    Raises
    ------
    StageError
        If not even 4a has finished.
    """
    started = time.perf_counter()
    summaries = data.read_summaries(run)
    samples = [data.read_sample(run, name, max_rows=data.MAX_ROWS) for name in _in_page_order(run.generations())]
    html = environment().from_string(_template()).render(**_content(run, summaries, samples))
    return _write(run, html, summaries, started)


def _in_page_order(generations: Sequence[str]) -> list[str]:
    """By name, the control last."""
    return sorted(generations, key=lambda name: (name == CONTROL, name))


def _write(run: RunDir, html: str, summaries: Sequence[tuple[str, dict[str, Any]]], started: float) -> Location:
    withdraw(run.report)
    run.report.make_dir()
    page = run.report / "index.html"
    payload = html.encode("utf-8")
    page.write_bytes(payload)
    shown = [s for _, s in summaries if s["stage"] == "4c"]
    statuses: Counter[str] = reduce(add, (Counter(s["rows_by_status"]) for s in shown), Counter())
    inputs = {label: s["config_hash"] for label, s in summaries}
    plan_id = config_hash(inputs)
    stage = StageRun("report", run.report, {}, inputs, plan_id, started)
    extra = {"rows": sum(s["rows"] for s in shown), "rows_by_status": dict(sorted(statuses.items()))}
    stage.finish([], extra, {page.name: WrittenFile.of(payload)})
    return page


def environment() -> Environment:
    """How pages are made: everything is escaped, a name that is not there is an error."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["count"] = lambda n: f"{n:,}".replace(",", "\u202f")
    environment.filters["size"] = _size
    return environment


def style() -> Markup:
    """The style sheet of the pages."""
    return Markup((files("dhs_pipeline.report") / "style.css").read_text(encoding="utf-8").rstrip())


def _template() -> str:
    return (files("dhs_pipeline.report") / "page.html.j2").read_text(encoding="utf-8")


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _content(run: RunDir, summaries: Sequence[tuple[str, dict[str, Any]]], samples: Sequence[Sample]) -> dict[str, Any]:
    by_label = dict(summaries)
    record = run.record.read_json()
    band = selection.snr_band(samples)
    drawn = any(s.ok.any() for s in samples)
    maps = data.read_psfsize_maps(run, samples) if drawn else {}
    return {
        "style": style(),
        "gates": data.read_gates(run),
        "experiment_id": record["config"]["experiment_id"],
        "where": run.where.uri,
        "code_version": __version__,
        "code_versions": sorted({s["code_version"] for s in by_label.values()}),
        "stages": [_stage_row(label, s) for label, s in summaries],
        "inputs": [(label, key, value) for label, s in summaries for key, value in s["inputs"].items()],
        "facts": _facts(by_label),
        "rejects": _with_examples(by_label["4a manifest"]["rejects_by_reason"], data.reject_examples(run)),
        "failures": _failures(run, by_label, samples),
        "generations": [_section(run, s, samples, band) for s in samples],
        "snr_band": band,
        "distributions": data_uri(distributions_png(samples, maps)) if drawn else None,
        "partial": [
            (s.name, s.table.num_rows, s.summary["rows"], s.files_read, s.files) for s in samples if not s.is_whole
        ],
        "splits": [_split_row(s) for _, s in summaries if s["stage"] == "4p5"],
        "config_yaml": yaml.safe_dump(record["config"], sort_keys=False, allow_unicode=True),
        "simulated": (run.where / "simulated").exists(),
        "hubble": any(_uses_bank(s.summary) for s in samples),
    }


def _facts(by_label: Mapping[str, dict[str, Any]]) -> list[tuple[str, int]]:
    """The run in a few numbers."""
    manifest = by_label["4a manifest"]
    facts = [
        ("parent rows", manifest["parent_rows"]),
        ("hosts", manifest["hosts"]),
        ("bricks", manifest["bricks"]),
        ("tasks", manifest["rows"]),
    ]
    rendered = [s for s in by_label.values() if s["stage"] == "4c"]
    if rendered:
        facts.append(("stamps", sum(s["rows_by_status"].get(Status.OK.value, 0) for s in rendered)))
        facts.append(("failed", sum(s["rows"] - s["rows_by_status"].get(Status.OK.value, 0) for s in rendered)))
    return facts


def _stage_row(label: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the table of stages. What 4a counts by status is its parent rows."""
    if summary["stage"] == "4a":
        rows_in = summary["parent_rows"]
        statuses = {"HOST": summary["hosts"], **summary["rejects_by_reason"]}
    else:
        rows_in, statuses = summary.get("manifest_rows", summary["rows"]), summary["rows_by_status"]
    return {
        "label": label,
        "rows_in": rows_in,
        "rows_out": summary["rows"],
        "statuses": statuses,
        "seconds": summary["seconds"],
        "rate": summary["rows_per_second"],
        "bytes": summary["bytes"],
        "files": summary["files"],
        "digests": summary["digests"],
        "code_version": summary["code_version"],
    }


def _split_row(summary: Mapping[str, Any]) -> dict[str, Any]:
    folds = summary["folds_by_split"]
    return {
        "generation": summary["generation"],
        "splits": [{"name": s, "folds": folds.get(s, 0), **summary["split_fractions"][s]} for s in SPLITS],
        "digest": summary["rows_digest"],
    }


def _with_examples(counts: Mapping[str, int], examples: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"name": name, "count": count, "examples": examples.get(name, [])} for name, count in ordered]


def _failures(run: RunDir, by_label: Mapping[str, dict[str, Any]], samples: Sequence[Sample]) -> dict[str, Any]:
    """Status × stage: how many rows failed, and what was said of some."""
    columns = {label: s["rows_by_status"] for label, s in by_label.items() if s["stage"] in ("4b", "4c")}
    names = sorted({status for counts in columns.values() for status in counts} - {Status.OK.value})
    examples: dict[str, list[str]] = {}
    if "4b cutouts" in columns and set(columns["4b cutouts"]) != {Status.OK.value}:
        examples |= data.cutout_examples(run)
    for sample in samples:
        examples = data.task_examples(sample) | examples
    largest = max((columns[c].get(n, 0) for n in names for c in columns), default=0)
    rows = [
        {
            "name": name,
            "cells": [_cell(columns[c].get(name, 0), largest) for c in columns],
            "examples": examples.get(name, []),
        }
        for name in names
    ]
    return {"columns": list(columns), "rows": rows}


def _cell(count: int, largest: int) -> dict[str, Any]:
    """A count and how dark its cell is."""
    return {"count": count, "shade": round(0.08 + 0.42 * (count / largest) ** 0.5, 2) if count else 0}


def _uses_bank(summary: Mapping[str, Any]) -> bool:
    source = summary["config"]["generation"]["source"]
    return source is not None and source["mode"] == "cosmos"


def _section(run: RunDir, sample: Sample, samples: Sequence[Sample], band: str) -> GenerationSection:
    random, plain = selection.random_lenses(sample), selection.random_plain(sample)
    quantiles, negatives = selection.snr_quantiles(sample, band), selection.random_negatives(sample)
    stamps = _read_picks(run, sample, [*random, *plain, *quantiles, *negatives])
    pairing = sample.summary["config"]["generation"]["pairing"]
    has_own = pairing is not None and pairing["control"] is not None
    has_controls = has_own or (sample.name != CONTROL and any(s.name == CONTROL for s in samples))
    read_controls = _read_own_controls if has_own else _read_controls
    controls = read_controls(run, sample, [*random, *quantiles]) if has_controls else {}

    def cards(picks: Sequence[Pick]) -> tuple[Card, ...]:
        return tuple(_card(sample.row(p.index), p.note, stamps, controls, band) for p in picks)

    return GenerationSection(
        name=sample.name,
        about=_about(sample),
        random=cards(random),
        quantiles=cards(quantiles),
        plain=cards(plain),
        negatives=cards(negatives),
        members=_members(sample.summary) if pairing is not None else (),
        has_controls=has_controls,
        has_arc_layers="arc" in sample.summary["config"]["stamp"]["layers"],
    )


def _read_picks(run: RunDir, sample: Sample, picks: Sequence[Pick]) -> dict[str, bytes]:
    wanted = {sample.row(p.index)["task_id"]: sample.places[p.index] for p in picks}
    found = data.read_stamps(run.phase4c(sample.name) / "stamps", wanted)
    if missing := [task_id for task_id, stamp in found.items() if stamp is None]:
        raise StageError(f"{run.phase4c(sample.name)}: task {missing[0]} is {Status.OK} and has no stamp")
    return {task_id: stamp for task_id, stamp in found.items() if stamp is not None}


def _members(summary: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Rows of a paired generation by kind of member, then negatives by what their light is."""
    negatives = summary["rows_by_negative_kind"].items()
    return (*summary["rows_by_sample_kind"].items(), *((name.replace("_", " "), n) for name, n in negatives))


def _read_own_controls(run: RunDir, sample: Sample, picks: Sequence[Pick]) -> dict[str, bytes]:
    """Task id of a positive → stamp of the control of its pair, where it is."""
    members = sample.members(SampleKind.CONTROL, {sample.row(p.index)["pair_id"] for p in picks})
    found = data.read_stamps(run.phase4c(sample.name) / "stamps", dict(members.values()))
    stamps = {pair_id: found[task_id] for pair_id, (task_id, _) in members.items()}
    return {pair_id: stamp for pair_id, stamp in stamps.items() if stamp is not None}


def _read_controls(run: RunDir, sample: Sample, picks: Sequence[Pick]) -> dict[str, bytes]:
    """Stamps of the same tasks without an arc, where they are."""
    wanted = {sample.row(p.index)["task_id"]: sample.places[p.index] for p in picks}
    where = run.phase4c(CONTROL)
    places = data.find_places(where / "metrics", wanted)
    found = data.read_stamps(where / "stamps", places)
    return {task_id: stamp for task_id, stamp in found.items() if stamp is not None}


def _about(sample: Sample) -> str:
    """The source of a generation in words."""
    generation = sample.summary["config"]["generation"]
    source = generation["source"]
    if generation["arc"] == "none":
        return "No arc: the pixels of the hosts as they are."
    kind = (
        "HST COSMOS galaxies from a source bank"
        if source["mode"] == "cosmos"
        else "procedural sources: a Sérsic profile with star-forming clumps"
    )
    if generation["arc"] == "zero_flux":
        return f"Null injection: the whole path of {kind}, with a source of zero flux."
    return f"Arcs of {kind}, added to the pixels of the hosts."


def _card(
    row: Mapping[str, Any], note: str, stamps: Mapping[str, bytes], controls: Mapping[str, bytes], band: str
) -> Card:
    arrays = read_stamp(stamps[row["task_id"]])
    lensed = row["arc_injected"] == 1
    images = [_image("stamp", arrays, "image", row)]
    if row["task_id"] in controls:
        images.append(_image("control", read_stamp(controls[row["task_id"]]), "image", row))
    if lensed and any(key.startswith("arc_") for key in arrays):
        images.append(_image("arc only", arrays, "arc", row))
    return Card(tuple(images), _lines(row, band, lensed), note)


def _image(label: str, arrays: Mapping[str, NDArray[np.generic]], layer: str, row: Mapping[str, Any]) -> Image:
    bands = {b: arrays[f"{layer}_{b}"] for b in BANDS if b in row["bandset"]}
    return Image(label, data_uri(encode_png(colour_image(bands))))


def _lines(row: Mapping[str, Any], band: str, lensed: bool) -> tuple[str, ...]:
    short = row["task_id"][:8]
    if not lensed:
        return (f"r {_number(row['mag_r'], '.1f')} · z {_number(row['z_l'], '.2f')} · {short}",)
    return (
        f"θ_E {_number(row['theta_e_arcsec'], '.2f')}″ · z_l {_number(row['z_l'], '.2f')} · "
        f"z_s {_number(row['z_s'], '.2f')} · source r {_number(row['src_mag_r'], '.1f')}",
        f"μ {_number(row['magnification'], '.1f')} · S/N({band}) {_snr(row[f'arc_snr_{band}'])} · "
        f"{short}{_bad_pixels(row)}",
    )


def _bad_pixels(row: Mapping[str, Any]) -> str:
    """Said where it matters: S/N is measured over good pixels only."""
    fraction = row["bad_pixel_frac"]
    return f" · {fraction:.0%} bad pixels" if fraction is not None and fraction >= _MENTIONED_BAD_FRACTION else ""


def _snr(value: float | None) -> str:
    return _number(value, ".1f" if value is not None and value < 100 else ".0f")


def _number(value: float | None, spec: str) -> str:
    return "—" if value is None else format(value, spec)
