"""Earlier stamps, metrics and paired Parquet → this package's STAMPS or METRICS table, one batch of rows a file.

Every source row ends in one row. What failed there, or cannot be used here, carries ``IMPORTED_FAILED`` with what was
found, and its stamp is null: the zeros that the earlier code wrote in its place are not pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dhs_gen.paired_controls.kinds import SampleKind
from dhs_gen.status import Status
from dhs_pipeline.config import Survey
from dhs_pipeline.imports.config import StampsImport
from dhs_pipeline.imports.layouts import METRICS as METRICS_LAYOUT
from dhs_pipeline.imports.layouts import PAIRED, Layout
from dhs_pipeline.imports.layouts import STAMPS as STAMPS_LAYOUT
from dhs_pipeline.imports.mapping import Batch, Plan, Rule, converted, make_plan, taken
from dhs_pipeline.imports.pixels import PixelsUnusableError, reencode
from dhs_pipeline.imports.report import REPORT_FILE, Tally, column_report, write_report
from dhs_pipeline.imports.source import check_layout, check_unique, open_source, read_batches, source_schema
from dhs_pipeline.imports.tasks import TASK_REASONS, check_zero_point, task_rules
from dhs_pipeline.schemas import BANDS, METRICS, STAMPS
from dhs_pipeline.stage import StageError, is_finished, open_stage
from dhs_pipeline.storage import Location

SOURCE_COLUMNS = "source_columns"
CONTROL_STAMP = pa.field(
    "ctrl_stamp_npz",
    pa.binary(),
    True,
    {"description": "NPZ of the paired control: the same host without the arc", "unit": "nanomaggy/pix"},
)
_ROW_GROUP = 512
_METRICS_ROW_GROUP = 65_536
_SCAN_ROWS = 65_536

_REASONS = {
    **TASK_REASONS,
    "arc_snr_sum": "sum of the signal over the noise of all pixels: neither the peak nor the matched filter",
    "bad_pixel_frac": "counts other maskbits than here",
    "wise_brightmask_frac": "tables here have no such column",
    "metrics_ok": "tables here have no such column",
    "magnification": "ratio of fluxes on the stamp; here on the padded grid",
    "tangential_stretch": "tables here have no such column",
    "radial_stretch": "tables here have no such column",
    "expected_arc_radius": "tables here have no such column",
    "cosmos_index": "a row of the earlier bank, not the name of a template (an imported bank has it as hdf5_row)",
    "lensed_hlr_arcsec": "tables here have no such column",
    "total_injected_flux_r": "whether it is the flux on the stamp is not established",
    "psf_source_g": "tables here have no such column",
    "psf_source_r": "tables here have no such column",
    "psf_source_z": "tables here have no such column",
}


@dataclass(frozen=True)
class Kind:
    """What is imported: the layout read, the table written."""

    name: str
    layout: Layout
    target: pa.Schema
    folder: str

    @property
    def has_pixels(self) -> bool:
        return "stamp_npz" in self.target.names

    @property
    def is_paired(self) -> bool:
        return CONTROL_STAMP.name in self.target.names


STAMPS_KIND = Kind("stamps", STAMPS_LAYOUT, STAMPS, "stamps")
METRICS_KIND = Kind("metrics", METRICS_LAYOUT, METRICS, "metrics")
PAIRED_KIND = Kind("paired", PAIRED, STAMPS.append(CONTROL_STAMP), "stamps")


def import_stamps(
    where: Location,
    out: Location,
    kind: Kind,
    survey: Survey,
    settings: StampsImport,
    *,
    rules_file: str,
    force: bool,
) -> dict[str, Any]:
    """Import stamps; returns the report.

    Parameters
    ----------
    where
        A Parquet file or a folder of them.
    out
        Folder to make: ``stamps/`` (or ``metrics/``), ``source_columns/`` with what has no place here, the report.
    kind
        What is there.
    survey
        Gives the extinction coefficients.
    settings, rules_file
        What may be added, and the file that says so.

    Raises
    ------
    StageError
        If the source is not in the layout, repeats a task_id, lacks a value that no row can be without, or its pixels
        are not nanomaggies.
    """
    source = open_source(where)
    check_layout(source, kind.layout)
    plan = plan_stamps(source_schema(source, kind.layout), kind, survey, settings, rules_file)
    check_unique(source, kind.layout, _SCAN_ROWS)
    extinction = survey.model_dump(mode="json")["extinction_per_ebv"]
    config = {"import": settings.model_dump(mode="json"), "extinction_per_ebv": extinction}
    inputs = {"source": where.uri, "rows": str(source.rows)}
    stage = open_stage(f"import {kind.name}", out, config, inputs, force=force)
    if is_finished(out) and (out / REPORT_FILE).exists():
        return (out / REPORT_FILE).read_json()
    stage.begin(None, source.rows)
    tally, receipts = Tally(), []
    for number, table in enumerate(read_batches(source, kind.layout, settings.batch_rows)):
        batch = Batch(table)
        rows = import_rows(batch, plan, kind, settings)
        tally.add_source(batch)
        tally.add_target(rows)
        writer = stage.writer(f"{number:06d}")
        group = _ROW_GROUP if kind.has_pixels else _METRICS_ROW_GROUP
        writer.write(kind.folder, _strict(rows, kind.target, where), row_group_rows=group)
        writer.write(SOURCE_COLUMNS, table.select(["task_id", *plan.not_taken]), row_group_rows=_METRICS_ROW_GROUP)
        receipts.append(writer.finish(rows.num_rows, Counter(rows.column("status").to_pylist())))
    summary = stage.finish(receipts, {})
    extra = {"rows_by_status": summary["rows_by_status"], "digests": summary["digests"]}
    return write_report(out, kind.name, kind.layout.name, source, column_report(plan, tally), extra)


def plan_stamps(source: pa.Schema, kind: Kind, survey: Survey, settings: StampsImport, rules_file: str) -> Plan:
    """What becomes of each column."""
    rules = [
        *task_rules({str(b): a for b, a in survey.extinction_per_ebv.items()}),
        *_result_rules(source, kind, settings),
    ]
    return make_plan(kind.target, source, rules, _REASONS, assign=settings.assign, draw_keyed=(), rules_file=rules_file)


def _result_rules(source: pa.Schema, kind: Kind, settings: StampsImport) -> list[Rule]:
    """Rules for what 4c found; the stamps themselves and what they decide are filled in by :func:`import_rows`."""
    physics = [n for n in ("physics_valid", "physics_warnings") if n in source.names]
    judged = ("cutout_ok", "metrics_only", *(("stamp_npz",) if kind.has_pixels else ()), *physics[:1])
    status_of = " and whether the stamp can be used" if kind.has_pixels else ""
    later = "from cutout_ok, physics_valid" + status_of
    invalid = "fails" if settings.physics_invalid == "fail" else "stays"
    rules = [
        taken("source_mode", how="as it is: sersic has no counterpart here"),
        converted("pair_id", ("task_id",), "the task itself", lambda batch: batch.column("task_id")),
        converted("sample_kind", ("is_control",), "control where is_control is 1, else positive", _sample_kind),
        converted("cutout_ok", judged, later, _null_int),
        converted("status", judged, f"{later}; physics_valid 0 {invalid}", _null_text),
        converted("message", ("cutout_ok", *physics), "physics_warnings, or what was found", _null_text),
        converted("arc_injected", ("is_control", "cutout_ok"), "1 in positives that are there", _null_int),
        taken("arc_peak_snr_r", "arc_snr", how="the earlier arc_snr is the largest S/N of one pixel"),
        *(_fwhm(b) for b in BANDS),
        *(_resolution(b) for b in BANDS),
    ]
    if kind.has_pixels:
        rules.append(converted("stamp_npz", ("stamp_npz",), "encoded anew, pixel values unchanged", _null_bytes))
    if kind.is_paired:
        how = "encoded anew, pixel values unchanged"
        rules.append(converted("ctrl_stamp_npz", ("ctrl_stamp_npz",), how, _null_bytes))
    return rules


def _fwhm(band: str) -> Rule:
    source = f"psf_fwhm_used_{band}"

    def make(batch: Batch) -> pa.Array:
        values = batch.floats(source)
        batch.count(source, "0.0 (no value) set null", int((values == 0).sum()))
        return pa.array(np.where(values == 0, np.nan, values))

    how = "FWHM of the kernel that was drawn, which the earlier code set to psfsize; 0.0 is null"
    return converted(f"psf_fwhm_used_{band}_arcsec", (source,), how, make)


def _resolution(band: str) -> Rule:
    def make(batch: Batch) -> pa.Array:
        fwhm = batch.floats(f"psf_fwhm_used_{band}")
        ratio = batch.floats("theta_e_arcsec") / np.where(fwhm > 0, fwhm, np.nan)
        return pa.array(np.where(batch.equals("is_control", 1), np.nan, ratio))

    sources = ("theta_e_arcsec", f"psf_fwhm_used_{band}")
    return converted(f"theta_e_over_fwhm_{band}", sources, "their ratio, in positives", make)


def _sample_kind(batch: Batch) -> pa.Array:
    is_control = pa.array(batch.equals("is_control", 1))
    return pc.if_else(is_control, SampleKind.CONTROL.value, SampleKind.POSITIVE.value)


def _null_int(batch: Batch) -> pa.Array:
    return pa.nulls(batch.rows, pa.int32())


def _null_text(batch: Batch) -> pa.Array:
    return pa.nulls(batch.rows, pa.string())


def _null_bytes(batch: Batch) -> pa.Array:
    return pa.nulls(batch.rows, pa.binary())


def import_rows(batch: Batch, plan: Plan, kind: Kind, settings: StampsImport) -> pa.Table:
    """Source rows → target rows, in the same order."""
    if other := check_zero_point(batch):
        raise StageError(f"ab_zp_nmgy is not 22.5 in {other} row(s): the pixels are not nanomaggies")
    rows = plan.apply(batch)
    ends = [_end(row, kind, settings, batch) for row in _judged(batch, kind)]
    is_ok = [e.failure is None for e in ends]
    is_control = batch.equals("is_control", 1)
    filled: dict[str, list[Any]] = {
        "cutout_ok": [int(ok) for ok in is_ok],
        "status": [(Status.OK if ok else Status.IMPORTED_FAILED).value for ok in is_ok],
        "message": [e.failure or e.warning for e in ends],
        "arc_injected": [int(ok and not control) for ok, control in zip(is_ok, is_control, strict=True)],
        "stamp_npz": [e.npz for e in ends],
        "ctrl_stamp_npz": [e.control_npz for e in ends],
    }
    for name, values in filled.items():
        if name in rows.column_names:
            at = rows.column_names.index(name)
            rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
    return rows


@dataclass(frozen=True)
class _End:
    """How one row ends; ``failure`` is why it has no stamp."""

    failure: str | None
    warning: str | None = None
    npz: bytes | None = None
    control_npz: bytes | None = None


def _judged(batch: Batch, kind: Kind) -> Iterator[dict[str, Any]]:
    names = ["cutout_ok", "metrics_only", "bandset", "stamp_size", "physics_valid", "physics_warnings"]
    names += ["stamp_npz"] if kind.has_pixels else []
    names += [CONTROL_STAMP.name] if kind.is_paired else []
    present = [n for n in names if n in batch.table.column_names]
    columns = [batch.column(n) for n in present]
    for i in range(batch.rows):
        yield {n: c[i].as_py() for n, c in zip(present, columns, strict=True)}


def _end(row: dict[str, Any], kind: Kind, settings: StampsImport, batch: Batch) -> _End:
    if row["cutout_ok"] != 1:
        batch.count("cutout_ok", "not 1: failed in the earlier run", 1)
        return _End(f"cutout_ok {row['cutout_ok']} in the earlier run")
    warning = row.get("physics_warnings") or None
    if row.get("physics_valid") == 0:
        batch.count("physics_valid", "0", 1)
        if settings.physics_invalid == "fail":
            return _End(f"physics_valid 0 in the earlier run: {warning or 'no warning given'}")
    if not kind.has_pixels:
        return _End(None, warning)
    if row["metrics_only"] == 1:
        return _End("metrics_only 1 in the earlier run: no stamp was written")
    try:
        npz = _pixels(row, "stamp_npz", batch)
        return _End(None, warning, npz, _pixels(row, CONTROL_STAMP.name, batch) if kind.is_paired else None)
    except PixelsUnusableError as error:
        return _End(str(error))


def _pixels(row: dict[str, Any], column: str, batch: Batch) -> bytes:
    try:
        pixels = reencode(row[column], row["bandset"], row["stamp_size"])
    except PixelsUnusableError as error:
        batch.count(column, "unusable", 1)
        raise PixelsUnusableError(f"{column}: {error}") from error
    batch.count(column, "float64 rounded to float32", int(pixels.rounded))
    for key in pixels.left_out:
        batch.count(column, f"array {key} left out", 1)
    return pixels.npz


def _strict(rows: pa.Table, target: pa.Schema, where: Location) -> pa.Table:
    for name in (f.name for f in target if not f.nullable):
        if nulls := rows.column(name).null_count:
            raise StageError(f"{where}: {nulls} row(s) have no {name}, which no row can be without")
    return pa.table([rows.column(n) for n in target.names], schema=target)
