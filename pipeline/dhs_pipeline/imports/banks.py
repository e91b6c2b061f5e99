"""Earlier source banks: the HDF5 layout and the deep NPZ layout → a bank folder of this package."""

from __future__ import annotations

from typing import Any

from dhs_pipeline.banks import describe, prepare_bank
from dhs_pipeline.imports.report import REPORT_FILE
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location

_HDF5_COLUMNS: dict[str, dict[str, Any]] = {
    "/images": {"outcome": "converted", "to": ["images.npy"], "how": "unit sum in float64, stored as float32"},
    "/meta/index": {"outcome": "taken", "to": ["template_id", "source_index"]},
    "/meta/hlr_arcsec": {"outcome": "taken", "to": ["stored_hlr_arcsec"], "how": "hlr_arcsec is measured anew"},
    "/meta/clumpiness": {"outcome": "taken", "to": ["clumpiness"]},
    "@src_pixscale_arcsec": {"outcome": "taken", "to": ["pixscale_arcsec"], "how": "checked against the radii"},
    "@stamp_size": {"outcome": "taken", "to": ["hdf5_attributes"]},
    "@created_utc": {"outcome": "taken", "to": ["hdf5_attributes"]},
    "@galaxy_kind": {"outcome": "taken", "to": ["hdf5_attributes"]},
}


def import_cosmos_bank(source: Location, out: Location) -> dict[str, Any]:
    """An HDF5 bank, every template judged anew (see dhs_gen.cosmos_sources.hdf5); returns the report."""
    if not source.exists():
        raise StageError(f"SOURCE: {source} does not exist")
    return _report("cosmos-bank", "HDF5 source bank", source, prepare_bank(source, out), _HDF5_COLUMNS)


def import_deep_bank(source: Location, out: Location) -> dict[str, Any]:
    """A deep NPZ bank; the one place that calls its reader. Returns the report."""
    raise StageError(f"{source}: deep NPZ banks cannot be imported yet; {out} was not made")


def _report(kind: str, layout: str, source: Location, bank: Location, columns: dict[str, Any]) -> dict[str, Any]:
    info = describe(bank)
    report = {
        "kind": kind,
        "layout": layout,
        "source": source.uri,
        "source_rows": info["n_templates"] + info["n_rejected"],
        "templates": info["n_templates"],
        "rejected_by_reason": info["rejected_by_reason"],
        "pixscale_arcsec": info["pixscale_arcsec"],
        "effective_psf_fwhm_arcsec": f"{info['effective_psf_fwhm_arcsec']:g} (assigned: the layout does not state it)",
        "source_columns": {name: {**entry, "null_rows": 0} for name, entry in columns.items()},
    }
    (bank / REPORT_FILE).write_json(report)
    return report
