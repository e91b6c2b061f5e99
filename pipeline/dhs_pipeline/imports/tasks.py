"""Rules for the columns that earlier manifests and earlier stamps share: the task and its host."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dhs_pipeline.imports.mapping import Batch, Rule, converted, taken
from dhs_pipeline.schemas import BANDS, SPLITS

AB_ZERO_POINT_NMGY = 22.5

_AS_IS = "as it is: "
_FRAME = _AS_IS + "whether the earlier x axis pointed West, as here, is not established"
_ELLIPTICITY = _AS_IS + "read here as (1-q)/(1+q); the earlier definition is not established"


def task_rules(extinction_per_ebv: Mapping[str, float]) -> list[Rule]:
    """What both layouts give.

    Parameters
    ----------
    extinction_per_ebv
        A/E(B-V) of each band of the survey.
    """
    return [
        taken("task_id"),
        taken("experiment_id"),
        converted("host_id", ("brickname", "ra", "dec"), "brickname-ra-dec, 6 decimals", host_ids),
        taken("brickname"),
        taken("ra_deg", "ra"),
        taken("dec_deg", "dec"),
        taken("ebv_mag", "ebv"),
        *(_transmission(b, a) for b, a in extinction_per_ebv.items()),
        *(_psfsize(b) for b in BANDS),
        converted("psfdepth_r_mag", ("psfdepth_r",), "a 5-sigma AB magnitude already; 0.0 is null", _depth),
        taken("region_id", how="connected brick components of the earlier survey, not HEALPix pixels"),
        converted("region_split", ("region_split",), "as it is; anything but train, val, test is null", _split),
        taken("config_id"),
        taken("replicate"),
        taken("is_control"),
        taken("bandset"),
        taken("stamp_size_pix", "stamp_size"),
        converted("lens_model", ("lens_model",), "as it is; CONTROL is null", _lens_model),
        taken("theta_e_arcsec"),
        taken("lens_e", how=_ELLIPTICITY),
        taken("lens_phi_rad", how=_FRAME),
        taken("shear"),
        taken("shear_phi_rad", how=_FRAME),
        taken("src_x_arcsec", how=_FRAME),
        taken("src_y_arcsec"),
        taken("src_dmag"),
        taken("src_gr"),
        taken("src_rz"),
        taken("src_reff_arcsec", how=_AS_IS + "read here as circularised; the earlier definition is not established"),
        taken("src_e", how=_ELLIPTICITY),
        taken("src_phi_rad", how=_FRAME),
    ]


TASK_REASONS: Mapping[str, str] = {
    "selection_set_id": "tables here have no selection sets",
    "selection_strategy": "tables here have no selection sets",
    "ranking_mode": "tables here have no selection sets",
    "psf_bin": "means quartiles in one earlier stage and tenths of an arcsec in another",
    "depth_bin": "means quartiles in one earlier stage and half magnitudes in another",
    "task_seed64": "streams here are keyed by task_id",
    "ab_zp_nmgy": "is 22.5 in every row (checked): fluxes here are nanomaggies",
    "pipeline_version": "the version here is that of the code that wrote a table",
}
"""Why the other columns that both layouts have are not taken."""


def check_zero_point(batch: Batch) -> int:
    """Rows whose fluxes are not nanomaggies."""
    if "ab_zp_nmgy" not in batch.table.column_names:
        return 0
    value = batch.floats("ab_zp_nmgy")
    return int((np.isfinite(value) & (value != AB_ZERO_POINT_NMGY)).sum())


def host_ids(batch: Batch) -> pa.Array:
    """As stage 4a names hosts of a parent without object numbers."""
    rows = zip(
        batch.column("brickname").to_pylist(), batch.floats("ra").tolist(), batch.floats("dec").tolist(), strict=True
    )
    return pa.array([f"{brick}-{ra:.6f}-{dec:.6f}" for brick, ra, dec in rows], pa.string())


def _transmission(band: str, extinction: float) -> Rule:
    return converted(
        f"mw_transmission_{band}",
        ("ebv",),
        f"10^(-0.4 x {extinction:g} x ebv)",
        lambda batch: pa.array(10.0 ** (-0.4 * extinction * batch.floats("ebv"))),
    )


def _psfsize(band: str) -> Rule:
    source = f"psfsize_{band}"
    how = "as it is; 0.0 is null" + (
        "" if band == "r" else "; the earlier 4a put psfsize_r where a brick had none, which cannot be told apart"
    )
    return converted(f"psfsize_{band}_arcsec", (source,), how, lambda batch: _zero_is_null(batch, source))


def _depth(batch: Batch) -> pa.Array:
    return _zero_is_null(batch, "psfdepth_r")


def _zero_is_null(batch: Batch, name: str) -> pa.Array:
    values = batch.floats(name)
    batch.count(name, "0.0 (no value) set null", int((values == 0).sum()))
    return pa.array(np.where(values == 0, np.nan, values))


def _split(batch: Batch) -> pa.Array:
    split = batch.column("region_split")
    known = pc.is_in(split, pa.array(SPLITS))
    strange = pc.and_(pc.invert(known), split.is_valid())
    batch.count("region_split", "not one of train, val, test: set null", int(pc.sum(strange).as_py() or 0))
    return pc.if_else(known, split, pa.scalar(None, pa.string()))


def _lens_model(batch: Batch) -> pa.Array:
    model = batch.column("lens_model")
    return pc.if_else(pc.equal(model, "CONTROL"), pa.scalar(None, pa.string()), model)
