"""What the report reads: stage JSONs, light metric columns, and the few stamps that it shows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dhs_gen.paired_controls.kinds import SampleKind
from dhs_gen.status import Status
from dhs_gen.streams import unit_interval
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import BANDS
from dhs_pipeline.stage import StageError, is_finished, require_finished
from dhs_pipeline.storage import Location

MAX_ROWS = 200_000
"""Rows of a generation that are read for the distributions and the choice of stamps."""
MAX_FILES = 32
"""Files of rejects or cutouts that are read for examples and for the psfsize maps."""
EXAMPLES = 3
"""Messages quoted for each reason or status."""

_READERS = 16
_COLUMNS = [
    "task_id",
    "pair_id",
    "sample_kind",
    "negative_kind",
    "host_id",
    "bandset",
    "is_control",
    "arc_injected",
    "cutout_ok",
    "status",
    "message",
    "theta_e_arcsec",
    "z_l",
    "z_s",
    "mag_r",
    "src_mag_r",
    "magnification",
    "bad_pixel_frac",
    "theta_e_over_fwhm_r",
    "unlensed_flux_r_nmgy",
    "lensed_flux_r_nmgy",
    *(f"arc_snr_{b}" for b in BANDS),
    *(f"psfsize_used_{b}_arcsec" for b in BANDS),
]


@dataclass(frozen=True)
class Place:
    """Where a row lies: a part of a table and the row in it."""

    part: str
    row: int


@dataclass(frozen=True, eq=False)
class Sample:
    """The metrics of one generation, or of a part of it that a hash of the file names picks.

    Parameters
    ----------
    name, summary
        The generation and the JSON of its stage.
    table
        Metric columns, in the order of a hash of the task id.
    places
        Where each row of ``table`` lies.
    files_read, files
        Files read, and files there.
    """

    name: str
    summary: Mapping[str, Any]
    table: pa.Table
    places: Sequence[Place]
    files_read: int
    files: int

    @property
    def is_whole(self) -> bool:
        return self.files_read == self.files

    def values(self, column: str, mask: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """A numeric column with NaN for null, all rows or those of a mask."""
        array = self.table.column(column).combine_chunks().cast(pa.float64())
        numbers = array.fill_null(math.nan).to_numpy(zero_copy_only=False)
        return numbers if mask is None else numbers[mask]

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Rows with a stamp."""
        return self.values("cutout_ok") == 1

    @property
    def lensed(self) -> NDArray[np.bool_]:
        """Rows with a stamp and an arc."""
        return self.ok & (self.values("arc_injected") == 1)

    @property
    def tasks(self) -> NDArray[np.bool_]:
        """Rows that stand for a task of the manifest: all but the controls and negatives of pairs."""
        same = pc.equal(self.table.column("task_id"), self.table.column("pair_id"))
        return np.asarray(same.to_numpy())

    def of_kind(self, kind: SampleKind) -> NDArray[np.bool_]:
        """Rows with a stamp that are positives, controls (those of pairs among them) or negatives."""
        return self.ok & np.asarray(pc.equal(self.table.column("sample_kind"), kind.value).to_numpy())

    @property
    def is_paired(self) -> bool:
        return self.summary["config"]["generation"]["pairing"] is not None

    def members(self, kind: SampleKind, pair_ids: Collection[str]) -> dict[str, tuple[str, Place]]:
        """Pair id → id and place of its member of a kind, of the pairs asked for whose member has a stamp."""
        columns = [self.table.column(name).to_pylist() for name in ("pair_id", "task_id")]
        there = np.flatnonzero(self.of_kind(kind) & ~self.tasks).tolist()
        found = ((columns[0][i], columns[1][i], self.places[i]) for i in there)
        return {pair_id: (task_id, place) for pair_id, task_id, place in found if pair_id in pair_ids}

    def row(self, index: int) -> dict[str, Any]:
        return {name: self.table.column(name)[index].as_py() for name in self.table.column_names}


def read_summaries(run: RunDir) -> list[tuple[str, dict[str, Any]]]:
    """(label, JSON) of every stage that has finished, in the order of the data.

    Raises
    ------
    StageError
        If not even 4a has.
    """
    found = [("4a manifest", require_finished(run.phase4a, "4a"))]
    if is_finished(run.phase4b):
        found.append(("4b cutouts", require_finished(run.phase4b, "4b")))
    for name in run.generations():
        found.append((f"4c {name}", require_finished(run.phase4c(name), f"4c {name}")))
        if is_finished(run.phase4p5(name)):
            found.append((f"4p5 {name}", require_finished(run.phase4p5(name), f"4p5 {name}")))
    return found


def read_sample(run: RunDir, generation: str, *, max_rows: int) -> Sample:
    """Metrics of a finished generation: all of them, or of files chosen by a hash of their names.

    Raises
    ------
    StageError
        If the metrics are gone.
    """
    where = run.phase4c(generation)
    summary = require_finished(where, f"4c {generation}")
    files = (where / "metrics").files(".parquet")
    if not files:
        raise StageError(f"{where / 'metrics'}: no metrics here")
    kept = files
    if summary["rows"] > max_rows:
        count = math.ceil(len(files) * max_rows / summary["rows"])
        kept = sorted(sorted(files, key=lambda f: unit_interval(f.name, salt="report"))[:count], key=str)
    with ThreadPoolExecutor(_READERS) as pool:
        tables = list(pool.map(lambda f: f.read_table(_COLUMNS), kept))
    places = [Place(f.name, i) for f, table in zip(kept, tables, strict=True) for i in range(table.num_rows)]
    table = pa.concat_tables(tables).combine_chunks()
    order = keyed_order(table.column("task_id").to_pylist())
    return Sample(generation, summary, table.take(order), [places[i] for i in order], len(kept), len(files))


def keyed_order(task_ids: Sequence[str]) -> list[int]:
    """Indices in the order of a hash of the task id: a random order that never changes."""
    keys = [unit_interval(task_id, salt="report") for task_id in task_ids]
    return sorted(range(len(keys)), key=keys.__getitem__)


def read_stamps(folder: Location, wanted: Mapping[str, Place]) -> dict[str, bytes | None]:
    """The stamps of some tasks, reading only the row groups that hold them.

    Parameters
    ----------
    folder
        The stamps of a generation.
    wanted
        Task id → place.

    Raises
    ------
    StageError
        If another task lies at that place.
    """
    by_part: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for task_id, place in wanted.items():
        by_part[place.part].append((task_id, place.row))
    found: dict[str, bytes | None] = {}
    for part, tasks in by_part.items():
        found |= _read_stamps_of_part(folder / part, tasks)
    return found


def _read_stamps_of_part(file: Location, tasks: Iterable[tuple[str, int]]) -> dict[str, bytes | None]:
    found = {}
    with file.open_input() as source:
        parquet = pq.ParquetFile(source)
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        firsts = np.concatenate([[0], np.cumsum(sizes)])
        for task_id, row in tasks:
            group = int(np.searchsorted(firsts, row, side="right")) - 1
            if group >= len(sizes):
                raise StageError(f"{file}: has {firsts[-1]} rows, row {row} is wanted")
            table = parquet.read_row_group(group, columns=["task_id", "stamp_npz"]).slice(row - int(firsts[group]), 1)
            if (there := table.column("task_id")[0].as_py()) != task_id:
                raise StageError(f"{file}: row {row} is task {there}, not {task_id} as in the metrics")
            found[task_id] = table.column("stamp_npz")[0].as_py()
    return found


def find_places(folder: Location, wanted: Mapping[str, Place]) -> dict[str, Place]:
    """The same tasks in another generation, whose files are named alike; those that failed or are gone are left out.

    Parameters
    ----------
    folder
        The metrics of the other generation.
    wanted
        Task id → place in this one.
    """
    found: dict[str, Place] = {}
    for part in sorted({place.part for place in wanted.values()}):
        if not (folder / part).exists():
            continue
        table = (folder / part).read_table(["task_id", "cutout_ok"])
        here = zip(table.column("task_id").to_pylist(), table.column("cutout_ok").to_pylist(), strict=True)
        found |= {task_id: Place(part, i) for i, (task_id, ok) in enumerate(here) if ok and task_id in wanted}
    return found


def reject_examples(run: RunDir) -> dict[str, list[str]]:
    """Reason → messages of a few rejected parent rows."""
    files = (run.phase4a / "rejects").files(".parquet")[:MAX_FILES]
    tables = (f.read_table(["reason", "message", "parent_row"]) for f in files)
    return _examples(tables, "reason", lambda row: f"row {row['parent_row']}: {row['message']}")


def cutout_examples(run: RunDir) -> dict[str, list[str]]:
    """Status → messages of a few hosts without a cutout."""
    tables = (f.read_table(["status", "message", "host_id"]) for f in run.cutouts.files(".parquet")[:MAX_FILES])
    return _examples(tables, "status", lambda row: f"host {row['host_id']}: {row['message']}")


def task_examples(sample: Sample) -> dict[str, list[str]]:
    """Status → messages of a few tasks without a stamp."""
    table = sample.table.select(["status", "message", "task_id"])
    return _examples([table], "status", lambda row: f"task {row['task_id'][:8]}: {row['message']}")


def _examples(tables: Iterable[pa.Table], column: str, text: Callable[[dict[str, Any]], str]) -> dict[str, list[str]]:
    """The first few rows under each name of a column but OK, as text."""
    kept: dict[str, list[str]] = defaultdict(list)
    for table in tables:
        for name in pc.unique(table.column(column)).to_pylist():
            missing = EXAMPLES - len(kept[name])
            if name != Status.OK and missing > 0:
                rows = table.filter(pc.equal(table.column(column), name)).slice(0, missing)
                kept[name] += [text(row) for row in rows.to_pylist()]
    return {name: found for name, found in kept.items() if found}


def read_psfsize_maps(run: RunDir, samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Host → band → psfsize of the map, arcsec, for hosts of the samples; from the first files that are needed."""
    columns = [f"psfsize_{b}_map_arcsec" for b in BANDS]
    needed = dict.fromkeys(_cutout_part(place.part) for sample in samples for place in sample.places)
    found: dict[str, dict[str, float]] = {}
    for part in list(needed)[:MAX_FILES]:
        for row in (run.cutouts / part).read_table(["host_id", *columns]).to_pylist():
            found[row["host_id"]] = {b: row[c] for b, c in zip(BANDS, columns, strict=True) if row[c] is not None}
    return found


def _cutout_part(metrics_part: str) -> str:
    """part-<part>-<row group>.parquet of 4c belongs to part-<part>.parquet of 4b."""
    return metrics_part.removesuffix(".parquet").rpartition("-")[0] + ".parquet"
