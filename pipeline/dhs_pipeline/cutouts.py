"""Stage 4b on Spark: the pixels about every host, read once and used by all generations; and their reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dhs_gen.status import Status
from dhs_gen.task import HostCutout
from dhs_pipeline.commit import committed_files
from dhs_pipeline.config import RunConfig, Survey
from dhs_pipeline.receipts import Receipt, UnitWriter
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import CUTOUTS
from dhs_pipeline.stage import StageError, open_stage, require_finished, run_units
from dhs_pipeline.storage import Location

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_CUTOUT_ROW_GROUP = 16
"""Rows per row group: 16 cutouts of 101 px in three bands are about 5 MB, what a 4c unit reads for a few hosts."""


def run_cutouts(
    spark: SparkSession,
    run: RunDir,
    data: Location,
    config: RunConfig,
    *,
    partitions: int | None,
    force: bool,
    progress: bool,
) -> dict[str, Any]:
    """Read every host's cutout from the bricks below ``data``; returns the stage's JSON.

    Every host ends in exactly one row, with a status; a damaged brick costs its own hosts only.

    Raises
    ------
    StageError
        If 4a has not finished or ``data`` has no coadd folder.
    """
    summary_4a = require_finished(run.phase4a, "4a")
    if not (data / "coadd").is_dir():
        raise StageError(f"{data}: no coadd/ folder here; DATA must hold the DR10 layout coadd/<AAA>/<brick>/…")
    inputs = {"data": data.uri, "hosts": summary_4a["digests"]["hosts"]}
    settings = {"survey": config.survey.model_dump(mode="json")}
    stage = open_stage("4b", run.phase4b, settings, inputs, force=force)
    parts = committed_files(run.phase4a, "hosts")
    done = stage.finished_receipts()
    pending = [p for p in parts if _unit(p) not in done]
    if not pending and (finished := stage.finished_summary()) is not None:
        return finished
    rows = {p: _rows(p) for p in pending}
    survey = config.survey

    def work(units: Iterator[Location]) -> Iterator[Receipt]:
        for part in units:
            yield _read_part(part, data, survey, stage.writer(_unit(part)))

    fresh = run_units(
        spark,
        stage,
        "4b cutouts",
        pending,
        work,
        done=done.values(),
        partitions=partitions,
        rows_of=rows.__getitem__,
        progress=progress,
    )
    return stage.finish([*done.values(), *fresh], {})


def _read_part(part: Location, data: Location, survey: Survey, writer: UnitWriter) -> Receipt:
    """All hosts of one part, brick by brick."""
    from dhs_pipeline.bricks import HostPosition, cutout_table, read_brick_cutouts  # 4c reads cutouts without WCS

    hosts = part.read_table(["host_id", "brickname", "ra_deg", "dec_deg"]).to_pylist()
    rows: list[dict[str, object]] = []
    for brickname, group in groupby(hosts, key=lambda h: h["brickname"]):
        positions = [HostPosition(h["host_id"], brickname, h["ra_deg"], h["dec_deg"]) for h in group]
        rows += read_brick_cutouts(data, brickname, positions, survey)
    writer.write("cutouts", cutout_table(rows), row_group_rows=_CUTOUT_ROW_GROUP)
    return writer.finish(len(rows), Counter(str(r["status"]) for r in rows))


def _unit(part: Location) -> str:
    return part.name.removeprefix("part-").removesuffix(".parquet")


def _rows(part: Location) -> int:
    with part.open_input() as source:
        return int(pq.ParquetFile(source).metadata.num_rows)


def read_cutouts(part: Location, host_ids: set[str], bands: str) -> dict[str, HostCutout]:
    """The cutouts of some hosts of one part, reading only the row groups that hold them.

    Parameters
    ----------
    part
        A file of phase4b/cutouts.
    host_ids
        Hosts wanted; those that are not in the file are missing from the result.
    bands
        Bands to load.
    """
    names = [f.name for f in CUTOUTS if not _is_pixels_of_other_band(f, bands)]
    found: dict[str, HostCutout] = {}
    with part.open_input() as source:
        parquet = pq.ParquetFile(source, page_checksum_verification=True)
        for group in range(parquet.num_row_groups):
            ids = parquet.read_row_group(group, columns=["host_id"]).column("host_id").to_pylist()
            wanted = [i for i, host_id in enumerate(ids) if host_id in host_ids]
            if wanted:
                table = parquet.read_row_group(group, columns=names)
                found |= {ids[i]: _to_cutout(table, i, bands) for i in wanted}
    return found


def _is_pixels_of_other_band(field: pa.Field, bands: str) -> bool:
    return pa.types.is_list(field.type) and field.name[:-1] in ("image_", "invvar_") and field.name[-1] not in bands


def _to_cutout(table: pa.Table, i: int, bands: str) -> HostCutout:
    row: dict[str, Any] = {
        field.name: table.column(field.name)[i].as_py() for field in table.schema if not pa.types.is_list(field.type)
    }
    size = row["cutout_size_pix"]

    def pixels(name: str) -> np.ndarray:
        return table.column(name)[i].values.to_numpy(zero_copy_only=False).reshape(size, size)

    status = Status(row["status"])
    there = status is Status.OK
    image: Mapping[str, np.ndarray] = {b: pixels(f"image_{b}") for b in bands} if there else {}
    invvar: Mapping[str, np.ndarray] = {b: pixels(f"invvar_{b}") for b in bands} if there else {}
    return HostCutout(
        host_id=row["host_id"],
        status=status,
        message=row["message"],
        corner_xy_pix=(row["corner_x_pix"], row["corner_y_pix"]) if there else (0, 0),
        centroid_xy_pix=(row["centroid_x_pix"], row["centroid_y_pix"]) if there else (float("nan"), float("nan")),
        image=image,
        invvar=invvar,
        maskbits=pixels("maskbits") if there and table.column("maskbits")[i].is_valid else None,
        psfsize_arcsec={b: row[f"psfsize_{b}_map_arcsec"] for b in bands} if there else {},
        nexp={b: row[f"nexp_{b}"] for b in bands} if there else {},
    )
