"""``dhs compare``: the same tasks in several generations, checked to be the same, side by side in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dhs_gen.stamps import read_stamp
from dhs_gen.status import Status
from dhs_gen.streams import unit_interval
from dhs_pipeline.report.data import Place, read_stamps
from dhs_pipeline.report.pictures import colour_image
from dhs_pipeline.report.plots import figure_png
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import BANDS, TASK
from dhs_pipeline.stage import StageError, require_finished
from dhs_pipeline.storage import Location

FLUX_COLUMNS = tuple(f"unlensed_flux_{b}_nmgy" for b in BANDS)
_FLUX_TOLERANCE = 1e-9
_LINES = 16
"""Tasks below each other; further ones stand in blocks beside them, so that the picture is not a tower."""
_GAP_PIX = 2


@dataclass(frozen=True, eq=False)
class Comparison:
    """The same tasks in every generation.

    Parameters
    ----------
    task_ids
        The tasks, in the order of the picture's rows.
    generations
        Names, in the order of its columns.
    stamps
        Generation → NPZ bytes of each task.
    checked
        Columns that were found equal in all generations.
    """

    task_ids: tuple[str, ...]
    generations: tuple[str, ...]
    stamps: Mapping[str, tuple[bytes, ...]]
    checked: tuple[str, ...]


def compare(run: RunDir, generations: Sequence[str], tasks: int) -> Comparison:
    """Pick tasks that every generation has rendered with an arc, and check that they are the same tasks.

    Parameters
    ----------
    generations
        Finished generations of the run; those without arcs (control) may be among them.
    tasks
        How many, picked by a hash of their names.

    Raises
    ------
    StageError
        If a generation is not finished, fewer tasks are there, or a host, mass, position or flux differs.
    """
    for name in generations:
        require_finished(run.phase4c(name), f"4c {name}")
    truth = {name: _truth(run, name) for name in generations}
    chosen = _choose(truth, tasks)
    tables = {name: _rows_of(table, chosen) for name, table in truth.items()}
    _check_same(tables)
    stamps = {name: _stamps(run, name, table) for name, table in tables.items()}
    return Comparison(tuple(chosen), tuple(generations), stamps, (*TASK.names, *FLUX_COLUMNS))


def write_mosaic(comparison: Comparison, where: Location) -> None:
    """One row per task and one column per generation, in a few blocks side by side."""
    where.write_bytes(figure_png(mosaic(comparison)))


def mosaic(comparison: Comparison) -> Figure:
    """The picture of :func:`write_mosaic`: one picture element per stamp pixel."""
    count, columns = len(comparison.task_ids), len(comparison.generations)
    lines = min(count, _LINES)
    blocks = -(-count // lines)
    side = _colour(comparison.stamps[comparison.generations[0]][0]).shape[0]
    pitch = side + _GAP_PIX
    width, height = blocks * (columns * pitch + 4 * _GAP_PIX), lines * pitch
    canvas = np.full((height, width, 3), 255, np.uint8)
    for row in range(count):
        block, line = divmod(row, lines)
        for column, name in enumerate(comparison.generations):
            top, left = line * pitch, block * (columns * pitch + 4 * _GAP_PIX) + column * pitch
            canvas[top : top + side, left : left + side] = _colour(comparison.stamps[name][row])
    return _labelled(canvas, comparison.generations, blocks, pitch)


def _labelled(canvas: NDArray[np.uint8], names: Sequence[str], blocks: int, pitch: int) -> Figure:
    dpi, head = 100, 26
    height, width, _ = canvas.shape
    figure = Figure(figsize=(width / dpi, (height + head) / dpi), dpi=dpi)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, height / (height + head)))
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for block in range(blocks):
        for column, name in enumerate(names):
            x = block * (len(names) * pitch + 4 * _GAP_PIX) + (column + 0.5) * pitch
            figure.text(x / width, (height + head / 2) / (height + head), name, ha="center", va="center", fontsize=8)
    return figure


def _colour(blob: bytes) -> NDArray[np.uint8]:
    arrays = read_stamp(blob)
    return colour_image({key.removeprefix("image_"): image for key, image in arrays.items() if "image_" in key})


def _truth(run: RunDir, generation: str) -> pa.Table:
    """The task and its fluxes of every row, and where the row lies."""
    tables = []
    for file in (run.phase4c(generation) / "metrics").files(".parquet"):
        table = file.read_table([*TASK.names, *FLUX_COLUMNS, "pair_id", "status"])
        table = table.append_column("part", pa.repeat(file.name, table.num_rows))
        tables.append(table.append_column("row", pa.array(np.arange(table.num_rows))))
    return pa.concat_tables(tables)


def _choose(truth: Mapping[str, pa.Table], tasks: int) -> list[str]:
    """Tasks of the manifest; of pairs that is the positive."""
    common: set[str] | None = None
    for table in truth.values():
        good = pc.and_(pc.equal(table.column("status"), Status.OK.value), pc.equal(table.column("is_control"), 0))
        good = pc.and_(good, pc.equal(table.column("task_id"), table.column("pair_id")))
        names = set(table.filter(good).column("task_id").to_pylist())
        common = names if common is None else common & names
    if common is None or len(common) < tasks:
        raise StageError(f"{len(common or ())} tasks are there in all of {', '.join(truth)}, asked for are {tasks}")
    return sorted(common, key=lambda t: unit_interval(t, salt="compare"))[:tasks]


def _rows_of(table: pa.Table, chosen: Sequence[str]) -> pa.Table:
    rows = pc.index_in(pa.array(chosen), table.column("task_id").combine_chunks())
    return table.take(rows)


def _check_same(tables: Mapping[str, pa.Table]) -> None:
    """Every column of the task is the same in all generations, and so are the fluxes where there is an arc."""
    first, *others = tables
    for name in others:
        for column in TASK.names:
            if not tables[name].column(column).equals(tables[first].column(column)):
                raise StageError(f"{column} differs between generations {first} and {name}")
    lensed = {n: t for n, t in tables.items() if t.column(FLUX_COLUMNS[1]).null_count < t.num_rows}
    for column in FLUX_COLUMNS:
        values = [t.column(column).to_numpy() for t in lensed.values()]
        for name, found in zip(lensed, values, strict=True):
            if not np.allclose(found, values[0], rtol=_FLUX_TOLERANCE, equal_nan=True):
                raise StageError(f"{column} differs between generations {next(iter(lensed))} and {name}")


def _stamps(run: RunDir, generation: str, table: pa.Table) -> tuple[bytes, ...]:
    places = {r["task_id"]: Place(r["part"], r["row"]) for r in table.select(["task_id", "part", "row"]).to_pylist()}
    found = read_stamps(run.phase4c(generation) / "stamps", places)
    return tuple(found[task_id] or b"" for task_id in places)
