"""Sorting rows by brick in bounded memory: rows go to temporary files by range of brick names, then one file at a time.

A manifest of the earlier layout is in no useful order; a part here holds whole bricks.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MAX_BUCKETS = 400
"""Temporary files open at once."""


def sorted_by_brick(tables: Iterable[pa.Table], rows_of_brick: Mapping[str, int], rows: int) -> Iterator[pa.Table]:
    """The rows of ``tables`` again, in tables of whole bricks, these in the order of their names.

    Parameters
    ----------
    tables
        Tables of one schema with a column ``brickname``; a null counts as "".
    rows_of_brick
        How many rows each brick has.
    rows
        Wanted rows of a table. One brick may exceed it, and very many rows make larger tables, not more files.
    """
    bricks, buckets = _buckets(rows_of_brick, rows)
    with tempfile.TemporaryDirectory(prefix="dhs-import-") as folder:
        paths = [Path(folder) / f"{i}.arrow" for i in range(int(buckets[-1]) + 1)]
        with ExitStack() as stack:
            writers: dict[int, pa.RecordBatchFileWriter] = {}
            for table in tables:
                for bucket, part in _split(table, bricks, buckets):
                    if bucket not in writers:
                        writers[bucket] = stack.enter_context(_writer(paths[bucket], part.schema))
                    writers[bucket].write_table(part)
        for path in paths:
            with pa.OSFile(str(path)) as file:
                yield pa.ipc.open_file(file).read_all()
            path.unlink()


def count_bricks(tables: Iterable[pa.Table]) -> Counter[str]:
    """Rows of each brick."""
    counts: Counter[str] = Counter()
    for table in tables:
        for entry in pc.value_counts(table.column("brickname")).to_pylist():
            counts[entry["values"] or ""] += entry["counts"]
    return counts


def _buckets(rows_of_brick: Mapping[str, int], rows: int) -> tuple[pa.Array, np.ndarray]:
    """Brick names, sorted, and the bucket of each."""
    bricks = sorted(rows_of_brick)
    wanted = max(rows, -(-sum(rows_of_brick.values()) // MAX_BUCKETS))
    buckets, bucket, held = [], 0, 0
    for brick in bricks:
        if held and held + rows_of_brick[brick] > wanted:
            bucket, held = bucket + 1, 0
        buckets.append(bucket)
        held += rows_of_brick[brick]
    return pa.array(bricks, pa.string()), np.array(buckets)


def _split(table: pa.Table, bricks: pa.Array, buckets: np.ndarray) -> Iterator[tuple[int, pa.Table]]:
    names = pc.fill_null(table.column("brickname"), "")
    bucket = buckets[pc.index_in(names, bricks).to_numpy(zero_copy_only=False)]
    order = np.argsort(bucket, kind="stable")
    ordered = table.take(pa.array(order))
    present, starts = np.unique(bucket[order], return_index=True)
    for i, value in enumerate(present):
        end = starts[i + 1] if i + 1 < len(starts) else table.num_rows
        yield int(value), ordered.slice(starts[i], end - starts[i])


def _writer(path: Path, schema: pa.Schema) -> pa.RecordBatchFileWriter:
    return pa.ipc.new_file(str(path), schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))
