"""Small Parquet datasets of stamps, sound unless asked otherwise."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dhs_gen.stamps import encode_stamp

SPLITS = ("train", "val", "test")


def images(bandset: str = "grz", size: int = 64, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Sky noise and a source, nanomaggy/pix."""
    rng = np.random.default_rng(seed)
    t = np.arange(size) - size / 2
    source = np.exp(-0.5 * (t[:, None] ** 2 + t**2) / 3.0**2)
    return {f"image_{b}": (0.01 * rng.standard_normal((size, size)) + source).astype(np.float32) for b in bandset}


def stamp(bandset: str = "grz", size: int = 64, seed: int = 0) -> bytes:
    return encode_stamp(images(bandset, size, seed))


def npz(**arrays: NDArray[Any]) -> bytes:
    """As numpy writes it, and as the older data are."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def sound_rows(n: int = 60) -> list[dict[str, Any]]:
    """Rows of today's columns: a host has three tasks, a region two hosts and one split."""
    rows = []
    for i in range(n):
        region = i // 6
        rows.append(
            {
                "task_id": f"task-{i:05d}",
                "host_id": f"host-{i // 3}",
                "region_id": region,
                "region_split": SPLITS[region % 3],
                "template_id": f"{SPLITS[region % 3]}-{i % 4}",
                "gen_variant": "uber",
                "source_mode": ("cosmos", "hybrid")[i % 2],
                "artifact_profile": "mild",
                "bandset": "grz",
                "is_control": 0,
                "cutout_ok": 1,
                "status": "OK",
                "stamp_npz": stamp(seed=i),
            }
        )
    return rows


def write(path: Path, rows: list[dict[str, Any]], row_group_rows: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_rows)
    return path


def write_partitioned(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Hive folders ``region_split=…`` without the column in the files, and the files that Spark leaves beside them."""
    for split in SPLITS:
        here = [{k: v for k, v in row.items() if k != "region_split"} for row in rows if row["region_split"] == split]
        write(folder / f"region_split={split}" / "part-00000.parquet", here)
    (folder / "_SUCCESS").write_text("")
    (folder / "_stage.json").write_text("{}")
    write(folder / "_temporary" / "0" / "part.parquet", [{"x": 1}])
    return folder
