"""``dhs show``: one task again, its truth in print and in a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from dhs_gen.inject import Stamp
from dhs_gen.metrics import good_pixels
from dhs_gen.status import Status
from dhs_gen.task import HostCutout
from dhs_pipeline.config import Generation, RunConfig
from dhs_pipeline.cutouts import read_cutouts
from dhs_pipeline.injection import Renderer, Shard, read_shard
from dhs_pipeline.report.pictures import colour_image
from dhs_pipeline.report.plots import figure_png
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import BANDS, STAMPS
from dhs_pipeline.show_groups import GROUPS
from dhs_pipeline.sources import Banks
from dhs_pipeline.stage import StageError, require_finished
from dhs_pipeline.storage import Location

MIN_PREFIX = 6
"""Characters of a task id that must be given."""

_LENS_COLOUR, _SOURCE_COLOUR = "#d55e00", "#0072b2"


@dataclass(frozen=True)
class _Found:
    """A task, or a member of its pair: the task's shard and its place in it."""

    task_id: str
    shard: Shard
    row: int


@dataclass(frozen=True)
class _Stored:
    """What 4c stored for the row."""

    status: str
    stamp_npz: bytes | None


def show_task(
    run: RunDir,
    config: RunConfig,
    task_id: str,
    *,
    generation: str | None,
    banks: Banks,
    png: Path | None,
) -> None:
    """Render one task again, print its truth and write a picture of it.

    The configuration is the one that 4c stored with the generation, not the one of today.

    Parameters
    ----------
    task_id
        A task id, or the first characters of one (at least six); also that of a control or negative of a pair.
    generation
        Default: the first finished one with arcs, or the first finished one; of a member of a pair, the first paired
        one that has it.
    banks
        Default: the banks that 4c used, where it used any.
    png
        Default: ``OUT/report/<task id>.png``.

    Raises
    ------
    StageError
        If no task, or more than one, has that name, or the generation was never rendered.
    """
    name, found = _find(run, task_id, generation)
    plan = _stored_plan(run, name)
    settings = _stored_config(config, plan)
    stored = _stored_banks(plan)
    opened = Banks(cosmos=banks.cosmos or stored.cosmos, deep=banks.deep or stored.deep)
    renderer = Renderer(Generation.model_validate(plan["config"]["generation"]), opened, settings)
    task = read_shard(found.shard).slice(found.row, 1)
    parts = run.cutouts / found.shard.part, run.hosts / found.shard.part
    rows = renderer.render(task, *parts).to_pylist()
    rendered = next(row for row in rows if row["task_id"] == found.task_id)

    print(_truth(rendered))
    print(_compare(rendered, _read_stored(run.phase4c(name), found), _changes(run, plan)))
    if rendered["status"] != Status.OK:
        print(f"no picture: {rendered['status']}: {rendered['message']}")
        return
    member = next(m for m in renderer.members(task, *parts) if m.task_id == found.task_id)
    cutout = read_cutouts(parts[0], {rendered["host_id"]}, rendered["bandset"])[rendered["host_id"]]
    stamp, _ = renderer.stamp(member, cutout)
    where = Location.of(png) if png else run.report / f"{found.task_id}.png"
    where.write_bytes(_picture(rendered, cutout, stamp, settings))
    print(f"picture: {where}")


# --- what was run -------------------------------------------------------------------------------------------------


def _default_generation(run: RunDir) -> str:
    names = run.generations()
    if not names:
        raise StageError(f"{run.where}: no generation has finished stage 4c; run it, or name one with --generation")
    with_arcs = [n for n in names if _stored_plan(run, n)["config"]["generation"]["arc"] == "rendered"]
    return (with_arcs or names)[0]


def _stored_plan(run: RunDir, generation: str) -> dict[str, Any]:
    """Configuration and inputs that 4c wrote when it began."""
    plan = run.phase4c(generation) / "_plan.json"
    if not plan.exists():
        there = ", ".join((run.where / "phase4c").folders()) or "none"
        raise StageError(f"{run.where}: generation {generation!r} was never rendered here; there are: {there}")
    return dict(plan.read_json())


def _stored_config(config: RunConfig, plan: Mapping[str, Any]) -> RunConfig:
    """The run's configuration with the sections that decided the bytes of the stored stamps."""
    stored = plan["config"]
    tree = config.model_dump(mode="json")
    tree |= {key: stored[key] for key in ("survey", "rendering", "stamp", "artifacts")}
    tree["manifest"]["folds"] = stored["folds"]
    return RunConfig.model_validate(tree)


def _stored_banks(plan: Mapping[str, Any]) -> Banks:
    where = {mode: plan["inputs"].get(f"{mode}_bank") for mode in ("cosmos", "deep")}
    return Banks(**{mode: Location.of(path) for mode, path in where.items() if path})


def _changes(run: RunDir, plan: Mapping[str, Any]) -> list[str]:
    """Inputs of the stored stamps that are not the ones of now."""
    now = require_finished(run.phase4a, "4a")["digests"] | require_finished(run.phase4b, "4b")["digests"]
    return [table for table in ("manifest", "cutouts") if plan["inputs"][table] != now[table]]


# --- where the task lies ------------------------------------------------------------------------------------------


def _find(run: RunDir, wanted: str, generation: str | None) -> tuple[str, _Found]:
    """The generation to look at, and the one task or member of a pair in it whose id begins so."""
    prefix = wanted.strip().lower()
    if len(prefix) < MIN_PREFIX:
        raise StageError(f"task {wanted!r}: give at least {MIN_PREFIX} characters of the task id")
    name = generation or _default_generation(run)
    tasks = [f for file in run.manifest.files(".parquet") for f in _matches(file, prefix)]
    for paired in _paired_generations(run, generation):
        members = _members(run, paired, prefix)
        if members and not tasks:
            name = paired
        tasks += [m for m in members if m.task_id not in {t.task_id for t in tasks}]
    if not tasks:
        raise StageError(f"{run.manifest}: no task id begins with {prefix!r}")
    if len(tasks) > 1:
        some = ", ".join(f.task_id for f in tasks[:3])
        raise StageError(f"{run.manifest}: {len(tasks)} task ids begin with {prefix!r} ({some}…); give more characters")
    return name, tasks[0]


def _paired_generations(run: RunDir, generation: str | None) -> list[str]:
    """The named generation, or all finished ones, as far as they are paired."""
    names = run.generations() if generation is None else [generation]
    return [n for n in names if _stored_plan(run, n)["config"]["generation"]["pairing"] is not None]


def _members(run: RunDir, generation: str, prefix: str) -> list[_Found]:
    """Controls and negatives of pairs whose id begins so: each with the place of its task in the manifest."""
    found = []
    for file in (run.phase4c(generation) / "metrics").files(".parquet"):
        table = file.read_table(["task_id", "pair_id"])
        begins = pc.starts_with(table.column("task_id"), prefix)
        member = pc.not_equal(table.column("task_id"), table.column("pair_id"))
        for row in table.filter(pc.and_(begins, member)).to_pylist():
            part, _, group = file.name.removesuffix(".parquet").rpartition("-")
            tasks = _matches(run.manifest / f"{part}.parquet", row["pair_id"])
            found += [_Found(row["task_id"], t.shard, t.row) for t in tasks if t.shard.row_group == int(group)]
    return found


def _matches(file: Location, prefix: str) -> list[_Found]:
    found = []
    with file.open_input() as source:
        parquet = pq.ParquetFile(source)
        for group in range(parquet.num_row_groups):
            ids = parquet.read_row_group(group, columns=["task_id"]).column("task_id").combine_chunks()
            shard = Shard(file.uri, group, len(ids))
            rows = np.flatnonzero(pc.starts_with(ids, prefix).to_numpy(zero_copy_only=False))
            found += [_Found(ids[int(row)].as_py(), shard, int(row)) for row in rows]
    return found


def _read_stored(where: Location, found: _Found) -> _Stored | None:
    """The stored row of the task, or None where its file has not been written."""
    file = where / f"stamps/part-{found.shard.unit}.parquet"
    if not file.exists():
        return None
    with file.open_input() as source:
        parquet = pq.ParquetFile(source)
        for group in range(parquet.num_row_groups):
            ids = parquet.read_row_group(group, columns=["task_id"]).column("task_id").to_pylist()
            if found.task_id in ids:
                table = parquet.read_row_group(group, columns=["status", "stamp_npz"])
                row = table.slice(ids.index(found.task_id), 1).to_pylist()[0]
                return _Stored(row["status"], row["stamp_npz"])
    raise StageError(f"{file}: holds no task {found.task_id}, which the manifest has at that place")


# --- in print -----------------------------------------------------------------------------------------------------


def _truth(row: Mapping[str, Any]) -> str:
    """The row as aligned text, by subject."""
    bands = [b for b in BANDS if b in row["bandset"]]
    lines: list[str] = []
    for title, names in GROUPS.items():
        lines += ["", title.upper(), *_scalar_lines(row, [n for n in names if "{b}" not in n])]
        lines += _band_lines(row, [n for n in names if "{b}" in n], bands)
    return "\n".join(lines[1:])


def _scalar_lines(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [f"  {name:<28}{_text(row[name])} {_unit(STAMPS.field(name))}".rstrip() for name in names]


def _band_lines(row: Mapping[str, Any], templates: Sequence[str], bands: Sequence[str]) -> list[str]:
    """One line per quantity, one column per band."""
    if not templates:
        return []
    lines = ["  " + " " * 28 + "".join(f"{b:>14}" for b in bands)]
    for template in templates:
        values = "".join(f"{_text(row[template.format(b=b)]):>14}" for b in bands)
        label = template.replace("_{b}", "")
        lines.append(f"  {label:<28}{values}  {_unit(STAMPS.field(template.format(b=bands[0])))}".rstrip())
    return lines


def _unit(field: pa.Field) -> str:
    return (field.metadata or {}).get(b"unit", b"").decode()


def _text(value: object) -> str:
    if value is None:
        return "—"
    if isinstance(value, list):
        return f"{len(value)} values"
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _compare(rendered: Mapping[str, Any], stored: _Stored | None, changed: Sequence[str]) -> str:
    """Whether the stamp came out as it was stored."""
    if stored is None:
        return "\nnot stored yet: 4c has not written this task"
    same = stored.stamp_npz == rendered["stamp_npz"] and stored.status == rendered["status"]
    if same and stored.stamp_npz is None:
        return f"\nas stored: the same status, {stored.status}, and no stamp"
    if same:
        return f"\nidentical: the stored stamp, byte for byte ({len(stored.stamp_npz or b'')} bytes)"
    why = f"; made from another {' and '.join(changed)}" if changed else ""
    return f"\nDIFFERENT from the stored stamp (stored {stored.status}, now {rendered['status']}{why})"


# --- in a picture -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """Axes of every panel: arcsec from the lens centre, +x West and +y North."""

    extent: tuple[float, float, float, float]

    @classmethod
    def about(cls, stamp: Stamp, size_pix: int, pixscale_arcsec: float) -> _Frame:
        x, y = stamp.lens_xy_pix
        low_x, low_y = (-(c + 0.5) * pixscale_arcsec for c in (x, y))
        side = size_pix * pixscale_arcsec
        return cls((low_x, low_x + side, low_y, low_y + side))

    def draw(self, ax: Axes, image: NDArray[Any], **style: Any) -> Any:
        return ax.imshow(image, origin="lower", extent=self.extent, interpolation="nearest", **style)


def _window(stamp: Stamp, cutout: HostCutout, size_pix: int) -> tuple[slice, slice]:
    """Rows and columns of the stamp on its cutout, whole pixels of a jitter included."""
    col, row = (s - c for s, c in zip(stamp.corner_xy_pix, cutout.corner_xy_pix, strict=True))
    return slice(row, row + size_pix), slice(col, col + size_pix)


def _picture(row: Mapping[str, Any], cutout: HostCutout, stamp: Stamp, config: RunConfig) -> bytes:
    """Bands × (host, arc, stamp, S/N of the arc), and colours with the geometry."""
    bands = list(row["bandset"])
    window = _window(stamp, cutout, row["stamp_size_pix"])
    frame = _Frame.about(stamp, row["stamp_size_pix"], config.survey.pixscale_arcsec)
    rows = max(len(bands), 3)
    height_inch = 3.2 * rows + 1.1
    figure = Figure(figsize=(18.0, height_inch), dpi=90)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.035, right=0.985, bottom=0.45 / height_inch, top=1 - 0.9 / height_inch, wspace=0.34, hspace=0.14
    )
    axes = figure.subplots(rows, 5, squeeze=False)
    for line, band in zip(axes, bands, strict=False):
        _draw_band(figure, line, frame, band, cutout, stamp, window, config)
    for line in axes[len(bands) :]:
        for ax in line[:4]:
            ax.set_axis_off()
    host = {b: cutout.image[b][window] for b in bands}
    image = {b: stamp.bands[b].image for b in bands}
    for ax, title, layers in ((axes[0, 4], "host", host), (axes[1, 4], "stamp", image)):
        frame.draw(ax, colour_image(layers)[::-1])
        ax.set_title(f"{title}, {''.join(bands)}", fontsize=10)
    reference = "r" if "r" in bands else bands[0]
    frame.draw(axes[2, 4], stamp.bands[reference].arc, cmap="gray_r")
    axes[2, 4].set_title(f"truth on the arc, {reference}", fontsize=10)
    _draw_geometry(axes[2, 4], row)
    _label_axes(axes)
    figure.suptitle(_headline(row), fontsize=12)
    return figure_png(figure)


def _headline(row: Mapping[str, Any]) -> str:
    head = f"{row['gen_variant']} · task {row['task_id']} · host {row['host_id']} · z_l {_text(row['z_l'])}"
    if not row["arc_injected"]:
        return f"{head} · no arc"
    return (
        f"{head}\nθ_E {row['theta_e_arcsec']:.3g}″ · z_s {_text(row['z_s'])} · source r {row['src_mag_r']:.2f} · "
        f"magnification {row['magnification']:.1f}"
    )


def _draw_band(
    figure: Figure,
    axes: Sequence[Axes],
    frame: _Frame,
    band: str,
    cutout: HostCutout,
    stamp: Stamp,
    window: tuple[slice, slice],
    config: RunConfig,
) -> None:
    """Host and stamp on one scale, the arc on its own, and its S/N per pixel over good pixels."""
    host, invvar, result = cutout.image[band][window], cutout.invvar[band][window], stamp.bands[band]
    noise = 1.0 / np.sqrt(np.median(invvar[invvar > 0])) if (invvar > 0).any() else 1e-3
    brightest = max(float(np.max(result.image)), 10 * noise)
    shared = {"norm": AsinhNorm(linear_width=3 * noise, vmin=-3 * noise, vmax=brightest), "cmap": "gray"}
    arc_peak = max(float(result.arc.max()), noise)
    good = good_pixels(stamp.maskbits, invvar, config.survey.bad_mask)
    snr = result.arc * np.sqrt(np.maximum(invvar, 0.0))
    if good is not None:
        snr = np.where(good, snr, np.nan)
    snr_peak = max(float(np.nanmax(snr, initial=0.0)), 1.0)
    drawn = (
        ("host", host, shared, "nanomaggy/pix"),
        ("arc", result.arc, {"vmin": 0.0, "vmax": arc_peak, "cmap": "gray"}, "nanomaggy/pix"),
        ("stamp", result.image, shared, "nanomaggy/pix"),
        ("S/N of the arc", snr, {"vmin": 0.0, "vmax": snr_peak, "cmap": "magma"}, "per pixel; no colour: bad"),
    )
    for ax, (title, image, style, unit) in zip(axes, drawn, strict=False):
        mappable = frame.draw(ax, image, **style)
        ax.set_title(f"{title}, {band}", fontsize=10)
        bar = figure.colorbar(mappable, cax=ax.inset_axes((1.02, 0.0, 0.05, 1.0)))
        bar.ax.tick_params(labelsize=7)
        bar.set_label(unit, fontsize=7)
        if style is shared:
            bar.ax.yaxis.set_major_locator(FixedLocator(_asinh_ticks(noise, brightest)))
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            bar.ax.yaxis.set_minor_locator(NullLocator())


def _asinh_ticks(noise: float, brightest: float) -> list[float]:
    """Zero, and powers of ten that stand clear of the noise."""
    low, high = math.ceil(math.log10(5 * noise)), math.floor(math.log10(brightest))
    return [0.0, *(10.0**k for k in range(low, high + 1))]


def _draw_geometry(ax: Axes, row: Mapping[str, Any]) -> None:
    """Lens centre; and where there is an arc, the circle of θ_E and the unlensed source."""
    ax.plot(0, 0, "+", color=_LENS_COLOUR, ms=11, mew=1.4, label="lens centre")
    if row["arc_injected"]:
        radius = row["theta_e_arcsec"]
        ax.add_patch(Circle((0, 0), radius, fill=False, color=_LENS_COLOUR, lw=1.2, ls="--"))
        ax.plot([], [], color=_LENS_COLOUR, lw=1.2, ls="--", label="θ_E")
        ax.plot(
            row["src_x_arcsec"], row["src_y_arcsec"], "x", color=_SOURCE_COLOUR, ms=8, mew=1.6, label="source, unlensed"
        )
    ax.legend(fontsize=7, loc="upper right", frameon=False)


def _label_axes(axes: NDArray[Any]) -> None:
    for ax in axes.flat:
        ax.tick_params(labelsize=7)
        ax.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 4, 10]))
        ax.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 4, 10]))
    for ax in axes[-1]:
        ax.set_xlabel("x, to the West (arcsec)", fontsize=8)
    for ax in axes[:, 0]:
        ax.set_ylabel("y, to the North (arcsec)", fontsize=8)
