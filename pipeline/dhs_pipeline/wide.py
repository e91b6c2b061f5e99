"""``dhs wide``: the members of each pair side by side in one row, for loaders that want both stamps at once.

File by file, in the order of the source: the members of a pair lie next to each other, so nothing is shuffled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dhs_gen.paired_controls.kinds import SampleKind
from dhs_pipeline.receipts import Receipt, UnitWriter
from dhs_pipeline.schemas import COMPACTED, STAMPS, wide_schema
from dhs_pipeline.stage import StageError, is_finished, open_stage
from dhs_pipeline.storage import Location

_ROW_GROUP = 512
_Pair = dict[SampleKind, int]
"""Kind of a member → its row in the table."""


def write_wide(path: Location, out: Location, *, force: bool) -> dict[str, Any]:
    """Write the wide layout of a paired set below ``out``; returns the JSON that lies beside it.

    Each pair is one row: the positive's columns, ``ctrl_stamp_npz`` and ``ctrl_status``, and where the set has
    negatives ``neg_stamp_npz``, ``neg_status`` and the ``negative_kind``. A member that failed has a null stamp on its
    side. Tasks that are no pairs (controls of the manifest) are left out and counted.

    Parameters
    ----------
    path
        The stamps of a generation as 4c or 4p5 wrote them; folders ``region_split=<split>`` are kept.
    out
        Folder to make.

    Raises
    ------
    StageError
        If there are no stamps, the set has no pairs, a pair is not whole, or its rows are not next to each other.
    """
    folder = path / "stamps" if (path / "stamps").is_dir() else path
    files = folder.files(".parquet", recursive=True)
    if not files:
        raise StageError(f"{path}: no stamps here")
    kinds = _kinds(folder, files)
    if kinds[SampleKind.CONTROL] == kinds[SampleKind.NEGATIVE] == 0:
        raise StageError(f"{path}: no pairs here: every task has one row (pair with --pairing in stage 4c)")
    with_negatives = kinds[SampleKind.NEGATIVE] > 0
    inputs = {"stamps": folder.uri, "rows": str(kinds.total())}
    stage = open_stage("wide", out, {"with_negatives": with_negatives}, inputs, force=force)
    done = stage.finished_receipts()
    if is_finished(out) and len(done) == len(files):
        return (out / "_stage.json").read_json()
    stage.begin(len(files), kinds.total())
    receipts = []
    for file in files:
        unit = file.name.removeprefix("part-").removesuffix(".parquet")
        where = file.uri[len(folder.uri) + 1 :].rpartition("/")[0] or "stamps"
        fresh = done.get(unit) or _write(file, where, stage.writer(unit), with_negatives=with_negatives)
        receipts.append(fresh)
    return stage.finish(receipts, {"rows_in": kinds.total()})


def _kinds(path: Location, files: Sequence[Location]) -> Counter[str]:
    """Rows by kind, counting controls of pairs alone."""
    kinds: Counter[str] = Counter()
    for file in files:
        with file.open_input() as source:
            names = pq.ParquetFile(source).schema_arrow.names
        if missing := {"pair_id", "sample_kind", "stamp_npz"} - set(names):
            raise StageError(f"{path}: {file.name} has no column {', '.join(sorted(missing))}")
        table = file.read_table(["task_id", "pair_id", "sample_kind"])
        rows = zip(*(table.column(n).to_pylist() for n in ("task_id", "pair_id", "sample_kind")), strict=True)
        kinds.update("alone" if kind == SampleKind.CONTROL and task == pair else kind for task, pair, kind in rows)
    return kinds


def _write(file: Location, folder: str, writer: UnitWriter, *, with_negatives: bool) -> Receipt:
    table = file.read_table()
    narrow = COMPACTED if "region_split_4a" in table.column_names else STAMPS
    pairs, alone = _pairs(table, file)
    wide = _side_by_side(table, pairs, wide_schema(narrow, with_negatives=with_negatives))
    writer.write(folder, wide, row_group_rows=_ROW_GROUP)
    counts = {"rows_left_out": {"not_paired": alone}} if alone else {}
    return writer.finish(wide.num_rows, Counter(wide.column("status").to_pylist()), counts)


def _pairs(table: pa.Table, file: Location) -> tuple[list[_Pair], int]:
    """The pairs of a file in their order, and how many of its rows are in none."""
    pairs: list[_Pair] = []
    seen: set[str] = set()
    alone, last = 0, None
    ids, kinds = table.column("pair_id").to_pylist(), table.column("sample_kind").to_pylist()
    for row, (task_id, pair_id, kind) in enumerate(zip(table.column("task_id").to_pylist(), ids, kinds, strict=True)):
        if kind == SampleKind.CONTROL and task_id == pair_id:
            alone += 1
        elif pair_id == last:
            if SampleKind(kind) in pairs[-1]:
                raise StageError(f"{file}: pair {pair_id} has two rows of kind {kind}")
            pairs[-1][SampleKind(kind)] = row
        elif pair_id in seen:
            raise StageError(f"{file}: the rows of pair {pair_id} are not next to each other")
        else:
            pairs.append({SampleKind(kind): row})
            seen.add(pair_id)
        last = pair_id
    for pair in pairs:
        if SampleKind.POSITIVE not in pair:
            raise StageError(f"{file}: pair {ids[next(iter(pair.values()))]} has no positive")
    return pairs, alone


def _side_by_side(table: pa.Table, pairs: Sequence[_Pair], schema: pa.Schema) -> pa.Table:
    def of(kind: SampleKind) -> pa.Table:
        return table.take(pa.array([pair.get(kind) for pair in pairs], pa.int64()))

    positive, control, negative = of(SampleKind.POSITIVE), of(SampleKind.CONTROL), of(SampleKind.NEGATIVE)
    beside: Mapping[str, pa.ChunkedArray] = {
        "ctrl_stamp_npz": control.column("stamp_npz"),
        "ctrl_status": control.column("status"),
        "neg_stamp_npz": negative.column("stamp_npz"),
        "neg_status": negative.column("status"),
        "negative_kind": negative.column("negative_kind"),
    }
    columns = [beside[name] if name in beside else positive.column(name) for name in schema.names]
    return pa.table(columns, schema=schema)
