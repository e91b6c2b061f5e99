"""Files in the earlier layouts, made from scratch: exact columns in their order, exact types."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Rows = list[dict[str, Any]]


def names(text: str) -> list[str]:
    return text.split()


# Typed here a second time, from the description of the earlier tables, so that a slip in layouts.py shows.
MANIFEST_COLUMNS = names("""
task_id experiment_id selection_set_id selection_strategy ranking_mode region_id region_split brickname ra dec
zmag rmag w1mag rz zw1 psfsize_g psfsize_r psfsize_z psfdepth_r ebv psf_bin depth_bin
config_id theta_e_arcsec src_dmag src_reff_arcsec src_e shear stamp_size bandset replicate is_control
task_seed64 src_x_arcsec src_y_arcsec src_phi_rad shear_phi_rad src_gr src_rz
lens_model lens_e lens_phi_rad ab_zp_nmgy pipeline_version
""")
STAMPS_COLUMNS = names("""
task_id experiment_id selection_set_id ranking_mode selection_strategy region_id region_split brickname ra dec
stamp_size bandset config_id theta_e_arcsec src_dmag src_reff_arcsec src_e shear replicate is_control
task_seed64 src_x_arcsec src_y_arcsec src_phi_rad shear_phi_rad src_gr src_rz psf_bin depth_bin ab_zp_nmgy
pipeline_version psfsize_r psfdepth_r ebv stamp_npz cutout_ok arc_snr arc_snr_sum bad_pixel_frac wise_brightmask_frac
metrics_ok psf_fwhm_used_g psf_fwhm_used_r psf_fwhm_used_z metrics_only lens_model lens_e lens_phi_rad magnification
tangential_stretch radial_stretch expected_arc_radius physics_valid physics_warnings source_mode cosmos_index
lensed_hlr_arcsec
""")
_NOT_IN_METRICS = names("stamp_npz source_mode cosmos_index lensed_hlr_arcsec arc_snr_sum")
METRICS_COLUMNS = [*(c for c in STAMPS_COLUMNS if c not in _NOT_IN_METRICS), "total_injected_flux_r"]
MAIN_LINE_COLUMNS = [*METRICS_COLUMNS, "stamp_npz", "psf_source_g", "psf_source_r", "psf_source_z"]

_INT32 = names("""
region_id stamp_size replicate is_control psf_bin depth_bin cutout_ok metrics_ok metrics_only physics_valid cosmos_index
""")
_TEXT = names("""
task_id experiment_id selection_set_id ranking_mode selection_strategy region_split brickname bandset config_id
pipeline_version lens_model physics_warnings source_mode psf_source_g psf_source_r psf_source_z
""")


def column_type(name: str) -> pa.DataType:
    if name in _TEXT:
        return pa.string()
    if name in _INT32:
        return pa.int32()
    if name == "task_seed64":
        return pa.int64()
    return pa.binary() if name.endswith("stamp_npz") else pa.float64()


def table(rows: Rows, columns: Sequence[str]) -> pa.Table:
    schema = pa.schema([(c, column_type(c)) for c in columns])
    return pa.Table.from_pylist([{c: row.get(c) for c in columns} for row in rows], schema=schema)


def write(path: Path, rows: Rows, columns: Sequence[str], *, row_group_rows: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(rows, columns), path, row_group_size=row_group_rows)
    return path


def manifest_rows(hosts: Sequence[tuple[str, float, float]], tasks_per_host: int = 3) -> Rows:
    """``tasks_per_host`` tasks for each (brickname, ra, dec); the last of each host is a control."""
    rows = []
    for number, (brick, ra, dec) in enumerate(hosts):
        for k in range(tasks_per_host):
            control = k == tasks_per_host - 1
            row = _host_columns(number, brick, ra, dec) | _task_columns(number, k, control)
            name = f"exp|set1|{row['region_split']}|{brick}|{ra:.6f}|{dec:.6f}|{row['config_id']}|{row['replicate']}"
            row["task_id"] = hashlib.sha256(name.encode()).hexdigest()
            rows.append(row)
    return rows


def _host_columns(number: int, brick: str, ra: float, dec: float) -> dict[str, Any]:
    return {
        "experiment_id": "train_stamp64_bandsgrz_gridsota",
        "selection_set_id": "set1",
        "selection_strategy": "balanced",
        "ranking_mode": "n_lrg",
        "region_id": 700 + number % 3,
        "region_split": ("train", "val", "test")[number % 3],
        "brickname": brick,
        "ra": ra,
        "dec": dec,
        "zmag": 18.6,
        "rmag": 19.5 + 0.01 * number,
        "w1mag": 17.9,
        "rz": 0.9 + 0.01 * number,
        "zw1": 0.7,
        "psfsize_g": 1.45,
        "psfsize_r": 1.31,
        "psfsize_z": 1.28,
        "psfdepth_r": 24.5,
        "ebv": 0.02 + 0.001 * number,
        "psf_bin": 2,
        "depth_bin": 1,
        "stamp_size": 64,
        "bandset": "grz",
        "ab_zp_nmgy": 22.5,
        "pipeline_version": "2025-12",
    }


def _task_columns(number: int, k: int, control: bool) -> dict[str, Any]:
    drawn = {
        "task_seed64": 1_000_003 * (number + 1) - 7 * k - 2**61,
        "src_x_arcsec": 0.11 + 0.02 * k,
        "src_y_arcsec": -0.17 + 0.01 * number,
        "src_phi_rad": 1.1 + 0.3 * k,
        "shear_phi_rad": 0.4 + 0.2 * k,
        "src_gr": 0.2,
        "src_rz": 0.1,
        "lens_e": 0.15 + 0.01 * k,
        "lens_phi_rad": 0.9 + 0.1 * k,
    }
    if control:
        zeros = dict.fromkeys(("theta_e_arcsec", "src_dmag", "src_reff_arcsec", "src_e", "shear"), 0.0)
        return {**drawn, **zeros, "config_id": "CONTROL", "replicate": k, "is_control": 1, "lens_model": "CONTROL"}
    return {
        **drawn,
        "theta_e_arcsec": 1.0 + 0.25 * k,
        "src_dmag": 1.5,
        "src_reff_arcsec": 0.12,
        "src_e": 0.2,
        "shear": 0.03,
        "config_id": f"sota_{k:04d}_te1.00_dm1.5_rf0.12_e0.20_sh0.03",
        "replicate": 0,
        "is_control": 0,
        "lens_model": "SIE",
    }


def npz(arrays: dict[str, np.ndarray], *, wrapped: bool = False) -> bytes:
    """As the earlier code wrote stamps: savez_compressed."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return gzip.compress(buffer.getvalue()) if wrapped else buffer.getvalue()


def pixels(seed: int, bands: str = "grz", size: int = 64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"image_{b}": rng.normal(0, 0.01, (size, size)).astype(np.float32) for b in bands}


def stamp_rows(count: int, make_stamp: Callable[[int], bytes] | None = None) -> Rows:
    """Good rows, each with a stamp of its own; the last is a control."""
    hosts = [("0301m050", 30.1 + 0.001 * i, -5.0) for i in range(count)]
    rows = manifest_rows(hosts, tasks_per_host=2)[::2]
    rows[-1] |= _task_columns(count, 1, True)
    for i, row in enumerate(rows):
        row |= {
            "stamp_npz": make_stamp(i) if make_stamp else npz(pixels(i)),
            "cutout_ok": 1,
            "arc_snr": 3.5 + i,
            "arc_snr_sum": 11.0,
            "bad_pixel_frac": 0.01,
            "wise_brightmask_frac": 0.0,
            "metrics_ok": 1,
            "psf_fwhm_used_g": 1.45,
            "psf_fwhm_used_r": 1.25,
            "psf_fwhm_used_z": 1.28,
            "metrics_only": 0,
            "magnification": 6.0,
            "tangential_stretch": 4.0,
            "radial_stretch": 1.1,
            "expected_arc_radius": 1.0,
            "physics_valid": 1,
            "physics_warnings": "",
            "source_mode": "sersic",
            "total_injected_flux_r": 4.6,
            "psf_source_g": "map",
            "psf_source_r": "map",
            "psf_source_z": "map",
        }
    return rows
