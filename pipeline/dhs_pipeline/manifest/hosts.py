"""From parent rows to hosts: one name for each quantity, the cuts, and the reason of every reject."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from astropy import units as u
from astropy_healpix import HEALPix
from numpy.typing import NDArray

from dhs_gen.status import RedshiftSource, RejectReason
from dhs_gen.streams import unit_interval
from dhs_gen.units import depth_ivar_to_mag, nmgy_to_mag
from dhs_pipeline.config import HostCuts, ParentColumns, PopulationDesign, RunConfig, SplitFractions
from dhs_pipeline.manifest.parent import ColumnMap, float_column, text_column
from dhs_pipeline.schemas import BANDS, HOSTS

CANDIDATES = pa.schema(
    [
        *(f.with_nullable(True) for f in HOSTS),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
    ]
)
"""Every parent row as a host, with the reason why it is none (null: it is one)."""

_BRICKNAME = re.compile(r"^\d{4}[pm]\d{3}$")


def normalise(table: pa.Table, columns: ColumnMap, config: RunConfig) -> pa.Table:
    """Parent rows → candidates (see ``CANDIDATES``), each with its quantities, region and the reason of a reject."""
    settings = config.manifest
    values = _quantities(table, columns, config)
    reasons = _Reasons(table.num_rows)
    _apply_cuts(values, columns, config.hosts, reasons)
    if isinstance(config.design, PopulationDesign) and config.design.needs_sigma_v:
        sigma_v = values["sigma_v_km_s"]
        reasons.add(~(sigma_v > 0), RejectReason.SIGMA_V_MISSING, "sigma_v_km_s", sigma_v)
    in_sky = np.isfinite(values["ra_deg"]) & (np.abs(values["dec_deg"]) <= 90)
    values["region_id"] = _regions(values["ra_deg"], values["dec_deg"], in_sky, settings.region_nside)
    values["region_fold"] = [
        fold_of_region(region, settings.folds) if good else None
        for region, good in zip(values["region_id"], in_sky, strict=True)
    ]
    values["region_split"] = [
        None if fold is None else split_of_fold(fold, settings.folds, settings.split_fractions)
        for fold in values["region_fold"]
    ]
    values["reason"], values["message"] = reasons.reason, reasons.message
    return pa.table([_to_array(values[f.name], f.type) for f in CANDIDATES], schema=CANDIDATES)


def fold_of_region(region_id: int, folds: int) -> int:
    """Fold of a region by a hash of its number. The regions of a fold share their source templates with no other."""
    return int(unit_interval(int(region_id), salt="region_fold") * folds)


def split_of_fold(fold: int, folds: int, fractions: SplitFractions) -> str:
    """Split of a fold: the first folds train, then validation, then test, as near to the fractions as folds allow."""
    position = (fold + 0.5) / folds
    edge = 0.0
    for split, fraction in fractions.as_dict().items():
        edge += fraction
        if position < edge:
            return split
    return "test"


class _Reasons:
    """The first reason that applies to each row, with what was found there."""

    def __init__(self, rows: int) -> None:
        self.reason: list[str | None] = [None] * rows
        self.message: list[str | None] = [None] * rows

    def add(self, bad: NDArray[np.bool_], reason: RejectReason, quantity: str, found: Sequence[Any]) -> None:
        for i in np.flatnonzero(bad):
            if self.reason[i] is None:
                value = found[int(i)]
                self.reason[i] = reason.value
                self.message[i] = f"{quantity} {value:.6g}" if isinstance(value, float) else f"{quantity} {value}"


def _quantities(table: pa.Table, columns: ColumnMap, config: RunConfig) -> dict[str, Any]:
    """Canonical columns as float64 arrays (NaN where the parent has none) and lists of text.

    Where the parent has E(B−V) but no transmission, the latter is 10^(−0.4 A E(B−V)) with the survey's coefficients,
    which is how Tractor computes its column.
    """
    rows, parent = table.num_rows, config.parent
    extinction: Mapping[str, float] = {str(b): a for b, a in config.survey.extinction_per_ebv.items()}

    def number(name: str) -> NDArray[np.float64]:
        return float_column(table, columns.columns[name]) if name in columns.columns else np.full(rows, np.nan)

    def text(name: str) -> list[str | None]:
        return text_column(table, columns.columns[name]) if name in columns.columns else [None] * rows

    values: dict[str, Any] = {"brickname": text("brickname"), "type": text("type")}
    for name in ("ra_deg", "dec_deg", "ebv_mag", "sigma_v_km_s"):
        values[name] = number(name)
    if "ebv_mag" not in columns.columns and parent.assign_ebv_mag is not None:
        values["ebv_mag"] = np.full(rows, parent.assign_ebv_mag)
    for b in BANDS:
        values[f"flux_{b}_nmgy"] = number(f"flux_{b}_nmgy")
        values[f"mag_{b}"] = nmgy_to_mag(values[f"flux_{b}_nmgy"])
        values[f"psfsize_{b}_arcsec"] = number(f"psfsize_{b}_arcsec")
        values[f"mw_transmission_{b}"] = (
            number(f"mw_transmission_{b}")
            if f"mw_transmission_{b}" in columns.columns
            else 10.0 ** (-0.4 * extinction.get(b, np.nan) * values["ebv_mag"])
        )
        depth = number(f"psfdepth_{b}")
        values[f"psfdepth_{b}_mag"] = depth_ivar_to_mag(depth) if parent.psfdepth_kind == "ivar" else depth
    values |= _redshifts(table, columns, parent)
    values["parent_row"] = table.column("parent_row").to_numpy()
    values["host_id"] = _host_ids(values, [text(n) for n in ("release", "brickid", "objid")])
    return values


def _redshifts(table: pa.Table, columns: ColumnMap, parent: ParentColumns) -> dict[str, Any]:
    z_l = np.full(table.num_rows, np.nan)
    source: list[str | None] = [None] * table.num_rows
    origin: list[str | None] = [None] * table.num_rows
    for name, kind in columns.redshifts:
        found = float_column(table, name)
        for i in np.flatnonzero(np.isnan(z_l) & np.isfinite(found)):
            z_l[i], source[i], origin[i] = found[i], kind, name
    if parent.assign_redshift is not None:
        for i in np.flatnonzero(np.isnan(z_l)):
            z_l[i], source[i] = parent.assign_redshift, RedshiftSource.ASSIGNED.value
    return {"z_l": z_l, "z_l_source": source, "z_l_column": origin}


def _host_ids(values: dict[str, Any], keys: list[list[str | None]]) -> list[str]:
    """release-brickid-objid is unique in the survey; brickname-objid within one release; else the position."""
    ids = []
    for i, brickname in enumerate(values["brickname"]):
        release, brickid, objid = (column[i] for column in keys)
        if release and brickid and objid:
            ids.append(f"{release}-{brickid}-{objid}")
        elif objid:
            ids.append(f"{brickname}-{objid}")
        else:
            ids.append(f"{brickname}-{values['ra_deg'][i]:.6f}-{values['dec_deg'][i]:.6f}")
    return ids


def _apply_cuts(v: dict[str, Any], columns: ColumnMap, cuts: HostCuts, reasons: _Reasons) -> None:
    ra_deg, dec_deg = v["ra_deg"], v["dec_deg"]
    reasons.add(~((ra_deg >= 0) & (ra_deg < 360)), RejectReason.POSITION_INVALID, "ra_deg", ra_deg)
    reasons.add(~(np.abs(dec_deg) <= 90), RejectReason.POSITION_INVALID, "dec_deg", dec_deg)
    nameless = np.array([n is None or _BRICKNAME.match(n) is None for n in v["brickname"]], dtype=bool)
    reasons.add(nameless, RejectReason.BRICKNAME_INVALID, "brickname", v["brickname"])
    if cuts.types is not None and "type" in columns.columns:
        excluded = np.array([t not in cuts.types for t in v["type"]], dtype=bool)
        reasons.add(excluded, RejectReason.TYPE_EXCLUDED, f"type not in {', '.join(cuts.types)}:", v["type"])
    for band in BANDS:
        _require_band(v, band, columns, reasons)
    _apply_ranges(v, cuts, reasons)


def _require_band(v: dict[str, Any], band: str, columns: ColumnMap, reasons: _Reasons) -> None:
    """A band needs a flux and a transmission; psfsize and depth need to be right where the parent has them."""
    flux, transmission = v[f"flux_{band}_nmgy"], v[f"mw_transmission_{band}"]
    reasons.add(~np.isfinite(flux), RejectReason.FLUX_NOT_FINITE, f"flux_{band}", flux)
    reasons.add(flux <= 0, RejectReason.FLUX_NOT_POSITIVE, f"flux_{band}", flux)
    given = columns.columns
    for column, quantity, reason in (
        (f"psfsize_{band}_arcsec", f"psfsize_{band}_arcsec", RejectReason.PSFSIZE_INVALID),
        (f"psfdepth_{band}", f"psfdepth_{band}_mag", RejectReason.PSFDEPTH_INVALID),
    ):
        if column in given:
            reasons.add(~(v[quantity] > 0), reason, quantity, v[quantity])
    dusty = ~((transmission > 0) & (transmission <= 1))
    reasons.add(dusty, RejectReason.EXTINCTION_MISSING, f"mw_transmission_{band}", transmission)


def _apply_ranges(v: dict[str, Any], cuts: HostCuts, reasons: _Reasons) -> None:
    z_l, mag_r, color_rz = v["z_l"], v["mag_r"], v["mag_r"] - v["mag_z"]
    reasons.add(~np.isfinite(z_l), RejectReason.REDSHIFT_MISSING, "z_l", z_l)
    outside = (z_l < cuts.z_l_range[0]) | (z_l > cuts.z_l_range[1])
    reasons.add(outside, RejectReason.REDSHIFT_OUT_OF_RANGE, "z_l", z_l)
    if cuts.mag_r_range is not None:
        outside = (mag_r < cuts.mag_r_range[0]) | (mag_r > cuts.mag_r_range[1])
        reasons.add(outside, RejectReason.MAG_OUT_OF_RANGE, "mag_r", mag_r)
    if cuts.color_rz_min_mag is not None:
        reasons.add(color_rz < cuts.color_rz_min_mag, RejectReason.COLOR_OUT_OF_RANGE, "r-z", color_rz)
    for column, limit, reason, beyond in (
        ("ebv_mag", cuts.ebv_max_mag, RejectReason.EBV_TOO_HIGH, np.greater),
        ("psfsize_r_arcsec", cuts.psfsize_r_max_arcsec, RejectReason.PSFSIZE_TOO_LARGE, np.greater),
        ("psfdepth_r_mag", cuts.psfdepth_r_min_mag, RejectReason.DEPTH_TOO_SHALLOW, np.less),
    ):
        if limit is not None:
            reasons.add(beyond(v[column], limit), reason, column, v[column])


def _regions(
    ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64], in_sky: NDArray[np.bool_], nside: int
) -> NDArray[np.int64]:
    """HEALPix pixel (nested) of each position; −1 where the position is no position."""
    region = np.full(ra_deg.size, -1, dtype=np.int64)
    if in_sky.any():
        grid = HEALPix(nside=nside, order="nested")
        region[in_sky] = grid.lonlat_to_healpix(ra_deg[in_sky] * u.deg, dec_deg[in_sky] * u.deg)
    return region


def _to_array(values: object, dtype: pa.DataType) -> pa.Array:
    """NaN becomes null in the tables."""
    if pa.types.is_floating(dtype):
        return pa.array(np.asarray(values, dtype=np.float64), dtype, from_pandas=True)
    return pa.array(values, dtype)
