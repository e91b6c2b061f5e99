"""Data sets of small stamps, written with the options of the pipeline's own writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dhs_gen.stamps import encode_stamp
from dhs_pipeline.storage.parquet import encode_parquet

Arrays = dict[str, NDArray[np.generic]]
Maker = Callable[[int], bytes | None]

SCHEMA = pa.schema(
    [
        pa.field("task_id", pa.string(), False),
        pa.field("number", pa.int64(), False),
        pa.field("arc_injected", pa.int32(), False),
        pa.field("fold", pa.int32()),
        pa.field("status", pa.string(), False),
        pa.field("stamp_npz", pa.binary()),
    ]
)


def arrays(number: int, bandset: str = "grz", size: int = 5) -> Arrays:
    """All layers; the first pixel of image_g is the row's number."""
    rng = np.random.default_rng(number)
    made: Arrays = {
        f"{layer}_{band}": rng.standard_normal((size, size)).astype(np.float32)
        for layer in ("image", "invvar", "arc")
        for band in bandset
    }
    made[f"image_{bandset[0]}"][0, 0] = number
    return made | {"maskbits": rng.integers(0, 2**14, (size, size)).astype(np.int32)}


def encoded(number: int) -> bytes:
    return encode_stamp(arrays(number))


def table(first: int, rows: int, failed: Mapping[int, str], make: Maker = encoded) -> pa.Table:
    """Rows ``first`` …; ``failed`` are statuses by number."""
    numbers = range(first, first + rows)
    return pa.table(
        {
            "task_id": [f"task{i}" for i in numbers],
            "number": list(numbers),
            "arc_injected": [i % 2 for i in numbers],
            "fold": [None if i % 3 == 0 else i % 8 for i in numbers],
            "status": [failed.get(i, "OK") for i in numbers],
            "stamp_npz": [None if i in failed else make(i) for i in numbers],
        },
        schema=SCHEMA,
    )


def write_set(
    folder: Path,
    rows_of_files: Sequence[int],
    *,
    row_group_rows: int = 8,
    failed: Mapping[int, str] | None = None,
    make: Maker = encoded,
    compression: str = "zstd",
) -> Path:
    """Files of so many rows below ``region_split=train`` and, every third, ``region_split=val``."""
    first = 0
    for i, rows in enumerate(rows_of_files):
        where = folder / f"region_split={'val' if i % 3 == 2 else 'train'}" / f"part-{i:03d}.parquet"
        where.parent.mkdir(parents=True, exist_ok=True)
        rows_here = table(first, rows, failed or {}, make)
        where.write_bytes(encode_parquet(rows_here, row_group_rows=row_group_rows, pixel_compression=compression))
        first += rows
    return folder
