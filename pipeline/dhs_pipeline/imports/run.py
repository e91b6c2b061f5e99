"""``dhs import``: find out what the source is, and import it."""

from __future__ import annotations

from typing import Any

from dhs_pipeline.config import RunConfig, load_section
from dhs_pipeline.imports.banks import import_cosmos_bank, import_deep_bank
from dhs_pipeline.imports.config import ManifestImport, StampsImport
from dhs_pipeline.imports.layouts import MANIFEST_44, METRICS, PAIRED, STAMPS
from dhs_pipeline.imports.manifest import import_manifest
from dhs_pipeline.imports.source import open_source
from dhs_pipeline.imports.stamps import METRICS_KIND, PAIRED_KIND, STAMPS_KIND, Kind, import_stamps
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location

KINDS = ("manifest", "stamps", "metrics", "paired", "cosmos-bank", "deep-bank")
_TABLES: dict[str, Kind] = {"stamps": STAMPS_KIND, "metrics": METRICS_KIND, "paired": PAIRED_KIND}
_SUFFIXES = {".h5": "cosmos-bank", ".hdf5": "cosmos-bank", ".npz": "deep-bank"}


def run_import(
    source: Location,
    out: Location,
    config: RunConfig,
    *,
    kind: str,
    rules: str | None,
    force: bool,
    psf_fwhm_arcsec: float | None = None,
) -> dict[str, Any]:
    """Import ``source`` to ``out``; returns the report.

    Parameters
    ----------
    kind
        One of KINDS, or "auto" to tell from the files.
    rules
        Name in conf/imports or a YAML file; None takes that of the kind.
    psf_fwhm_arcsec
        Seeing of a deep bank that does not state it.

    Raises
    ------
    StageError, ConfigError
        If the source cannot be imported; nothing was written to ``out``, unless a file turned out to be damaged.
    """
    found = detect_kind(source) if kind == "auto" else kind
    if found == "cosmos-bank":
        return import_cosmos_bank(source, out)
    if found == "deep-bank":
        return import_deep_bank(source, out, psf_fwhm_arcsec)
    if found == "manifest":
        name = rules or "manifest"
        settings = load_section(ManifestImport, "imports", name)
        return import_manifest(source, RunDir(out), config, settings, rules_file=_file(name), force=force)
    name = rules or ("stamps" if found == "metrics" else found)
    stamps = load_section(StampsImport, "imports", name)
    return import_stamps(source, out, _TABLES[found], config.survey, stamps, rules_file=_file(name), force=force)


def detect_kind(source: Location) -> str:
    """What the files are: banks by their names, tables by their columns.

    Raises
    ------
    StageError
        If they are none of the earlier layouts; says what the nearest one lacks.
    """
    for suffix, kind in _SUFFIXES.items():
        if source.name.endswith(suffix):
            return kind
    columns = open_source(source).columns
    if "ctrl_stamp_npz" in columns:
        return "paired"
    if "stamp_npz" in columns:
        return "stamps"
    if {"cutout_ok", "metrics_only"} <= columns:
        return "metrics"
    if not MANIFEST_44.missing(columns):
        return "manifest"
    nearest = min((MANIFEST_44, STAMPS, METRICS, PAIRED), key=lambda layout: len(layout.missing(columns)))
    missing = nearest.missing(columns)
    raise StageError(
        f"{source}: in none of the earlier layouts; nearest is {nearest.name}, of which {len(missing)} required "
        f"column(s) are absent: {', '.join(missing)}"
    )


def _file(rules: str) -> str:
    return rules if rules.endswith((".yaml", ".yml")) else f"conf/imports/{rules}.yaml"
