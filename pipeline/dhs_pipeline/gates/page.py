"""What the gates found as HTML: a page of its own, and the same as a section for the run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from markupsafe import Markup

from dhs_pipeline.gates.classes import CONTROL, NEGATIVE, POSITIVE, Pairs, has, pairs_of, strings
from dhs_pipeline.gates.plots import curves_png, forest_png
from dhs_pipeline.gates.result import CannotRun, GateResult, Outcome, key_figure
from dhs_pipeline.gates.sample import Pixels, decode, read_stamps
from dhs_pipeline.gates.scan import DataSet
from dhs_pipeline.report.page import Card, Image, environment, style
from dhs_pipeline.report.pictures import colour_image, data_uri, encode_png
from dhs_pipeline.storage import Location

COLOURS = {Outcome.PASS.value: "#1b7a3d", Outcome.FAIL.value: "#b3261e", Outcome.NOT_RUN.value: "#8a5a00"}
SECTION = "section.html"
"""Beside gates.html: the part of it that the run's report shows too."""


@dataclass(frozen=True)
class _Shown:
    """A gate as the template shows it."""

    result: GateResult
    cards: tuple[Card, ...]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.result, name)

    @property
    def key(self) -> Any:
        return key_figure(self.result)

    @property
    def forest(self) -> str | None:
        png = forest_png(self.result.figures)
        return None if png is None else data_uri(png)

    @property
    def plot(self) -> str | None:
        return data_uri(curves_png(self.result.curves)) if self.result.curves else None


def write_page(
    where: Location, data: DataSet, rows: pa.Table, summary: Mapping[str, Any], results: Sequence[GateResult]
) -> None:
    """Write ``gates.html`` and ``section.html`` beside ``gates.json``; they hold nothing but themselves."""
    section = section_html(data, rows, summary, results)
    page = environment().from_string(_template("gates.html.j2"))
    html = page.render(
        style=style(),
        section=Markup(section),
        code_version=summary["code_version"],
        config=summary["config"],
        config_yaml=yaml.safe_dump(summary["config"], sort_keys=False, allow_unicode=True),
    )
    (where / SECTION).write_bytes(section.encode())
    (where / "gates.html").write_bytes(html.encode())


def section_html(data: DataSet, rows: pa.Table, summary: Mapping[str, Any], results: Sequence[GateResult]) -> str:
    """Table, figures, curves and worst rows of a set's gates, in the style of the run's report."""
    name = "/".join(data.folder.uri.split("/")[-2:])
    pictures = _Pictures(data, rows, {o.task_id for r in results for o in r.offenders})
    shown = [_Shown(r, tuple(pictures.card(o.task_id, o.reason) for o in r.offenders)) for r in results]
    return (
        environment()
        .from_string(_template("section.html.j2"))
        .render(
            **{k: v for k, v in summary.items() if k != "results"},
            name=name,
            anchor=f"gate-{name.replace('/', '-')}-",
            results=shown,
            failed=sum(r.outcome is not Outcome.PASS for r in results),
            colours=COLOURS,
        )
    )


class _Pictures:
    """Stamps of the pairs of some rows, read once."""

    def __init__(self, data: DataSet, rows: pa.Table, task_ids: set[str]) -> None:
        self._rows = rows
        self._members = _members(rows, task_ids)
        wanted = sorted({row for members in self._members.values() for row in members.values()})
        self._pixels: dict[int, Pixels] = {row: decode(b) for row, b in read_stamps(data, rows, wanted).items()}

    def card(self, task_id: str, reason: str) -> Card:
        """The row (of a control its positive), its control and the light, as far as they are there."""
        images, lines = [], [reason]
        members = self._members.get(task_id, {})
        for label, row in members.items():
            if row in self._pixels:
                images.append(_image(label, self._pixels[row]))
            else:
                lines.append(f"no stamp of the {label}{self._status(row)}")
        light = next((row for label, row in members.items() if label != CONTROL and row in self._pixels), None)
        if light is not None and self._pixels[light].arc is not None:
            images.append(_image("light", self._pixels[light], arc=True))
        return Card(tuple(images), (*lines, task_id), "")

    def _status(self, row: int) -> str:
        return f": {self._rows.column('status')[row].as_py()}" if has(self._rows, "status") else ""


def _members(rows: pa.Table, task_ids: set[str]) -> dict[str, dict[str, int]]:
    """Task → label → row of the members of its pair; of an unpaired row itself alone."""
    if not (task_ids and has(rows, "task_id")):
        return {}
    index = {task_id: i for i, task_id in enumerate(strings(rows, "task_id")) if task_id in task_ids}
    pairs: Pairs | None = None
    with suppress(CannotRun):  # a set without pairs has rows to show all the same
        pairs = pairs_of(rows)
    kinds = strings(rows, "sample_kind") if has(rows, "sample_kind") else None
    found = {}
    for task_id, row in index.items():
        pair = -1 if pairs is None else int(pairs.pair_of[row])
        if pairs is None or pair < 0:
            found[task_id] = {"stamp" if kinds is None else str(kinds[row]): row}
        else:
            of = {kind: int(pairs.first[kind][pair]) for kind in (POSITIVE, CONTROL, NEGATIVE)}
            own = NEGATIVE if of[NEGATIVE] == row else POSITIVE
            found[task_id] = {kind: of[kind] for kind in (own, CONTROL) if of[kind] >= 0}
    return found


def _image(label: str, pixels: Pixels, *, arc: bool = False) -> Image:
    layer = pixels.arc if arc and pixels.arc is not None else pixels.image
    bands: dict[str, np.ndarray] = dict(zip(pixels.bandset, layer, strict=True))
    return Image(label, data_uri(encode_png(colour_image(bands))))


def _template(name: str) -> str:
    return (files("dhs_pipeline.gates") / name).read_text(encoding="utf-8")
