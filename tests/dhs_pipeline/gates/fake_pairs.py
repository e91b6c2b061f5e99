"""A small paired set made of noise, in the layout of 4c: what the gates' tests tamper with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dhs_gen.stamps import encode_stamp
from dhs_gen.streams import stable_id
from dhs_pipeline.config import GatesConfig
from dhs_pipeline.gates.data import PAIR_COLUMNS, GateData
from dhs_pipeline.gates.runner import load_limits
from dhs_pipeline.gates.sample import empty_sample
from dhs_pipeline.gates.scan import find_set, scan_here
from dhs_pipeline.schemas import STAMPS
from dhs_pipeline.storage import Location

SIZE = 12
BANDS = "grz"
Row = dict[str, Any]


def limits(*overrides: str) -> GatesConfig:
    return load_limits("default", overrides)


def make_rows(
    n_hosts: int = 40, pairs_per_host: int = 2, *, negatives: bool = False, alone: int = 0, layers: bool = True
) -> list[Row]:
    """Positive, control (and hard negative) of each pair, neighbours; then tasks without an arc, that stand alone."""
    rows: list[Row] = []
    for h in range(n_hosts):
        rng = np.random.default_rng(h)
        host = rng.normal(0, 0.02, (len(BANDS), SIZE, SIZE)).astype(np.float32)
        common = _host(h, rng)
        for p in range(pairs_per_host):
            pair_id = stable_id("pair", h, p)
            arc = _arc(rng)
            rows.append(_row(common, pair_id, pair_id, "positive", host + arc, arc, layers))
            control_id = stable_id(pair_id, "control")
            rows.append(_row(common, pair_id, control_id, "control", host, 0 * arc, layers))
            if negatives:
                light = _arc(rng)
                row = _row(common, pair_id, stable_id(pair_id, "negative"), "negative", host + light, light, layers)
                rows.append(row | {"negative_kind": ("ring", "spiral")[p % 2]})
        for a in range(alone):
            name = stable_id("alone", h, a)
            rows.append(_row(common, name, name, "control", host, 0 * host, layers) | {"is_control": 1})
    return rows


def write_set(folder: Path, rows: Iterable[Row], *, files: int = 3, row_group_rows: int = 8) -> Location:
    """``folder/stamps/part-….parquet``, pairs whole; returns ``folder``."""
    kept = list(rows)
    pairs = sorted({r["pair_id"] for r in kept}, key=[r["pair_id"] for r in kept].index)
    file_of = {pair: k * files // len(pairs) for k, pair in enumerate(pairs)}
    for k in range(files):
        write_file(
            folder / "stamps" / f"part-{k:05d}.parquet", [r for r in kept if file_of[r["pair_id"]] == k], row_group_rows
        )
    return Location.of(folder)


def write_file(path: Path, rows: list[Row], row_group_rows: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=row_group_rows)


def drop_columns(where: Location, *names: str) -> Location:
    """The set without some columns, as a foreign one may be."""
    for file in (where / "stamps").files(".parquet"):
        pq.write_table(pq.read_table(file.uri).drop_columns(list(names)), file.uri)
    return where


def seen(where: Location) -> GateData:
    """The set as gates on tables see it."""
    return look(scan_here(find_set(where)))


def look(rows: pa.Table) -> GateData:
    return GateData(rows, empty_sample(rows), "grz", 0.262, None, "not a run", None, "not read")


def restamp(row: Row, change: Callable[[np.ndarray], np.ndarray]) -> Row:
    """The row with its image changed."""
    from dhs_gen.stamps import read_stamp

    arrays = dict(read_stamp(row["stamp_npz"]))
    for b in BANDS:
        arrays[f"image_{b}"] = change(arrays[f"image_{b}"].copy())
    return row | {"stamp_npz": encode_stamp(arrays)}


def _host(h: int, rng: np.random.Generator) -> Row:
    splits = ("train", "train", "val", "test")
    row: Row = {
        "experiment_id": "fake",
        "host_id": f"host-{h:04d}",
        "brickname": "0591m305",
        "ra_deg": 59.0 + 0.01 * h,
        "dec_deg": -30.5,
        "region_id": 100 + h // 4,
        "region_fold": (h // 4) % 4,
        "region_split": splits[(h // 4) % 4],
        "z_l": float(rng.uniform(0.2, 0.8)),
        "ebv_mag": float(rng.uniform(0, 0.1)),
        "bandset": BANDS,
        "stamp_size_pix": SIZE,
        "lens_x_pix": float(rng.uniform(5, 7)),
        "lens_y_pix": float(rng.uniform(5, 7)),
        "artifact_jitter_x_pix": float(rng.normal()),
        "artifact_cosmic_band": "r",
    }
    for b in BANDS:
        row[f"psfsize_{b}_arcsec"] = float(rng.normal(1.3, 0.1))
        row[f"psfdepth_{b}_mag"] = float(rng.normal(24.0, 0.2))
        row[f"mag_{b}"] = float(rng.normal(20.0, 1.0))
    return row


def _arc(rng: np.random.Generator) -> np.ndarray:
    y, x = np.indices((SIZE, SIZE)) - rng.uniform(4, 8, 2)[:, None, None]
    return (rng.uniform(0.1, 1.0) * np.exp(-(x**2 + y**2) / 4.0) * np.ones((3, 1, 1))).astype(np.float32)


def _schema() -> pa.Schema:
    """Of the columns of STAMPS those that the rows have and a few that tests add: the others cost time."""
    used = {*make_rows(1, 1)[0], "template_id", "bad_pixel_frac", "artifact_n_cosmic_rays"}
    fields = {f.name: f.with_nullable(True) for f in (*STAMPS, *PAIR_COLUMNS) if f.name in {*used, *PAIR_COLUMNS.names}}
    return pa.schema(list(fields.values()))


def _row(common: Row, pair_id: str, task_id: str, kind: str, image: np.ndarray, arc: np.ndarray, layers: bool) -> Row:
    arrays = {f"image_{b}": image[i] for i, b in enumerate(BANDS)}
    if layers:
        arrays |= {f"invvar_{b}": np.full((SIZE, SIZE), 2500.0, np.float32) for b in BANDS}
        arrays |= {f"arc_{b}": arc[i] for i, b in enumerate(BANDS)}
    return common | {
        "task_id": task_id,
        "pair_id": pair_id,
        "sample_kind": kind,
        "is_control": 0,
        "config_id": "c",
        "replicate": 0,
        "gen_variant": "fake",
        "source_mode": "hybrid" if kind != "control" else "none",
        "template_id": f"t-{common['region_fold']}" if kind == "positive" else None,
        "arc_injected": int(kind == "positive"),
        "cutout_ok": 1,
        "status": "OK",
        "stamp_npz": encode_stamp(arrays),
    }


SCHEMA = _schema()
