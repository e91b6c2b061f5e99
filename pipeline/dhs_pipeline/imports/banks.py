"""Earlier source banks: the HDF5 layout and the deep NPZ layout → a bank folder of this package."""

from __future__ import annotations

from typing import Any

from dhs_pipeline.banks import describe, prepare_cosmos_bank, prepare_deep_bank
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

_NPZ_ENTRIES: dict[str, dict[str, Any]] = {
    "images": {"outcome": "converted", "to": ["images.npy"], "how": "to 0.1 arcsec or finer, unit sum, centred"},
    "meta.file": {"outcome": "taken", "to": ["template_id"]},
    "meta.filter": {"outcome": "taken", "to": ["filter"]},
    "meta.sum_flux": {"outcome": "taken", "to": ["sum_flux"]},
    "meta.pixscale_arcsec": {"outcome": "not taken", "how": "of the cutout before it was resampled"},
    "meta.target_pixscale_arcsec": {"outcome": "converted", "to": ["pixscale_arcsec"], "how": "of the finer template"},
    "meta.stamp_size": {"outcome": "not taken", "how": "the array says it"},
}


def import_cosmos_bank(source: Location, out: Location) -> dict[str, Any]:
    """An HDF5 bank, every template judged anew (see dhs_gen.cosmos_sources.hdf5); returns the report."""
    if not source.exists():
        raise StageError(f"SOURCE: {source} does not exist")
    return _report("cosmos-bank", "HDF5 source bank", source, prepare_cosmos_bank(source, out), _HDF5_COLUMNS)


def import_deep_bank(source: Location, out: Location, psf_fwhm_arcsec: float | None) -> dict[str, Any]:
    """A deep NPZ bank, every template judged anew (see dhs_gen.deep_sources.importer); returns the report.

    The earlier layout does not say its seeing: ``psf_fwhm_arcsec`` does, or conf/banks/deep.yaml.
    """
    if not source.exists():
        raise StageError(f"SOURCE: {source} does not exist")
    built = prepare_deep_bank(source, out, psf_fwhm_arcsec=psf_fwhm_arcsec)
    return _report("deep-bank", "deep NPZ source bank", source, built, _NPZ_ENTRIES)


def _report(kind: str, layout: str, source: Location, bank: Location, columns: dict[str, Any]) -> dict[str, Any]:
    info = describe(bank)
    stated_here = kind == "cosmos-bank" or "upsampled_from_arcsec" in info
    report = {
        "kind": kind,
        "layout": layout,
        "source": source.uri,
        "source_rows": info["n_templates"] + info["n_rejected"],
        "templates": info["n_templates"],
        "rejected_by_reason": info["rejected_by_reason"],
        "pixscale_arcsec": info["pixscale_arcsec"],
        "effective_psf_fwhm_arcsec": f"{info['effective_psf_fwhm_arcsec']:g}"
        + (" (assigned: the layout does not state it)" if stated_here else ""),
        "source_columns": {name: {**entry, "null_rows": 0} for name, entry in columns.items()},
    }
    (bank / REPORT_FILE).write_json(report)
    return report
