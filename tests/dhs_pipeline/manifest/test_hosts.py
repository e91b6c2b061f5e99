"""Parent rows become hosts or rejects with the right name; column names of several kinds are understood."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from dhs_pipeline.config import RunConfig, SplitFractions, load_run_config
from dhs_pipeline.manifest.hosts import fold_of_region, normalise, split_of_fold
from dhs_pipeline.manifest.parent import map_columns, plan_parent, read_chunk
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location

GOOD: dict[str, Any] = {
    "brickname": "0591m305",
    "objid": 1,
    "type": "DEV",
    "ra": 59.2,
    "dec": -30.5,
    "flux_g": 2.0,
    "flux_r": 7.0,
    "flux_z": 17.0,
    "psfsize_g": 1.3,
    "psfsize_r": 1.2,
    "psfsize_z": 1.1,
    "psfdepth_g": 2400.0,
    "psfdepth_r": 1500.0,
    "psfdepth_z": 200.0,
    "ebv": 0.012,
    "mw_transmission_g": 0.965,
    "mw_transmission_r": 0.976,
    "mw_transmission_z": 0.987,
    "z_phot": 0.45,
}


def candidates(where: Path, rows: list[dict[str, Any]], config: RunConfig | None = None) -> list[dict[str, Any]]:
    path = where / "parent.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return normalise_file(path, config)


def normalise_file(path: Path, config: RunConfig | None = None) -> list[dict[str, Any]]:
    config = config or load_run_config("demo")
    parent = Location.of(path)
    chunks, names = plan_parent(parent)
    columns = map_columns(parent, names, config.parent)
    return [row for chunk in chunks for row in normalise(read_chunk(chunk, columns), columns, config).to_pylist()]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"type": "PSF"}, "TYPE_EXCLUDED"),
        ({"type": "DUP"}, "TYPE_EXCLUDED"),
        ({"flux_r": math.nan}, "FLUX_NOT_FINITE"),
        ({"flux_g": None}, "FLUX_NOT_FINITE"),
        ({"flux_z": -0.1}, "FLUX_NOT_POSITIVE"),
        ({"psfsize_g": 0.0}, "PSFSIZE_INVALID"),
        ({"psfdepth_z": 0.0}, "PSFDEPTH_INVALID"),
        ({"z_phot": math.nan}, "REDSHIFT_MISSING"),
        ({"z_phot": None}, "REDSHIFT_MISSING"),
        ({"z_phot": 1.9}, "REDSHIFT_OUT_OF_RANGE"),
        ({"brickname": "nowhere"}, "BRICKNAME_INVALID"),
        ({"brickname": None}, "BRICKNAME_INVALID"),
        ({"ra": 400.0}, "POSITION_INVALID"),
        ({"dec": math.nan}, "POSITION_INVALID"),
        ({"mw_transmission_r": 1.4}, "EXTINCTION_MISSING"),
        ({"flux_r": 0.05}, "MAG_OUT_OF_RANGE"),
        ({"flux_z": 7.0}, "COLOR_OUT_OF_RANGE"),
        ({"ebv": 0.5}, "EBV_TOO_HIGH"),
        ({"psfsize_r": 2.5}, "PSFSIZE_TOO_LARGE"),
        ({"psfdepth_r": 5.0}, "DEPTH_TOO_SHALLOW"),
    ],
)
def test_each_bad_row_has_its_name(tmp_path: Path, change: dict[str, Any], reason: str | None) -> None:
    (row,) = candidates(tmp_path, [GOOD | change])
    assert row["reason"] == reason
    assert (row["message"] is None) == (reason is None)


def test_quantities_and_units(tmp_path: Path) -> None:
    (row,) = candidates(tmp_path, [GOOD])
    assert row["mag_r"] == pytest.approx(22.5 - 2.5 * math.log10(7.0))
    assert row["psfdepth_r_mag"] == pytest.approx(22.5 - 2.5 * math.log10(5 / math.sqrt(1500.0)))
    assert (row["z_l"], row["z_l_source"], row["z_l_column"]) == (0.45, "phot", "z_phot")
    assert row["host_id"] == "0591m305-1"
    assert [row[f"mw_transmission_{b}"] for b in "grz"] == [0.965, 0.976, 0.987]
    assert [row[f"psfsize_{b}_arcsec"] for b in "grz"] == [1.3, 1.2, 1.1]


def test_host_ids_use_the_surveys_key_where_it_is_there(tmp_path: Path) -> None:
    (row,) = candidates(tmp_path, [GOOD | {"release": 10000, "brickid": 5}])
    assert row["host_id"] == "10000-5-1"


def test_regions_are_healpix_pixels(tmp_path: Path) -> None:
    """The centre of the region is within a pixel's size of the host, by astropy's own separation."""
    from astropy_healpix import HEALPix

    config = load_run_config("demo", ["manifest.region_nside=64"])
    (row,) = candidates(tmp_path, [GOOD], config)
    grid = HEALPix(nside=64, order="nested", frame="icrs")
    centre = grid.healpix_to_skycoord(row["region_id"])
    assert centre.separation(SkyCoord(59.2, -30.5, unit="deg")).deg < grid.pixel_resolution.to_value("deg")


def test_spectroscopic_redshift_comes_first_and_missing_ones_may_be_assigned(tmp_path: Path) -> None:
    rows = [GOOD | {"z_spec": 0.51}, GOOD | {"z_spec": None}, GOOD | {"z_spec": None, "z_phot": None}]
    config = load_run_config("demo", ["parent.assign_redshift=0.5"])
    found = [(r["z_l"], r["z_l_source"], r["reason"]) for r in candidates(tmp_path, rows, config)]
    assert found == [(0.51, "spec", None), (0.45, "phot", None), (0.5, "assigned", None)]


def test_transmission_from_ebv_is_tractors(tmp_path: Path) -> None:
    rows = [{k: v for k, v in GOOD.items() if not k.startswith("mw_")}]
    (row,) = candidates(tmp_path, rows)
    assert row["mw_transmission_r"] == pytest.approx(10 ** (-0.4 * 2.165 * 0.012))
    assert row["mw_transmission_g"] == pytest.approx(0.965101, abs=1e-6)  # the value of Tractor's own column


def test_extinction_must_be_there_or_assigned(tmp_path: Path) -> None:
    dustless = {k: v for k, v in GOOD.items() if not k.startswith(("mw_", "ebv"))}
    with pytest.raises(StageError, match="no extinction column"):
        candidates(tmp_path, [dustless])
    (row,) = candidates(tmp_path, [dustless], load_run_config("demo", ["parent.assign_ebv_mag=0.05"]))
    assert row["reason"] is None
    assert row["mw_transmission_z"] == pytest.approx(10 ** (-0.4 * 1.211 * 0.05))


def test_a_parent_without_depth_or_type_is_no_reason_to_reject(tmp_path: Path) -> None:
    bare = {k: v for k, v in GOOD.items() if not k.startswith(("psf", "type"))}
    (row,) = candidates(tmp_path, [bare])
    assert row["reason"] is None
    assert row["psfdepth_r_mag"] is None


def test_fits_tables_with_upper_case_names(tmp_path: Path) -> None:
    table = Table({k.upper(): [v, v] for k, v in GOOD.items()})
    table["TYPE"] = ["DEV ", "PSF "]
    table.write(tmp_path / "parent.fits")
    rows = normalise_file(tmp_path / "parent.fits")
    assert [r["reason"] for r in rows] == [None, "TYPE_EXCLUDED"]
    assert [r["parent_row"] for r in rows] == [0, 1]
    assert rows[0]["mag_r"] == pytest.approx(22.5 - 2.5 * math.log10(7.0))


def test_a_folder_of_parquet_files_is_one_parent(tmp_path: Path) -> None:
    for k in range(3):
        pq.write_table(
            pa.Table.from_pylist([GOOD | {"objid": 2 * k}, GOOD | {"objid": 2 * k + 1}]), tmp_path / f"{k}.parquet"
        )
    rows = normalise_file(tmp_path)
    assert [r["parent_row"] for r in rows] == list(range(6))
    assert [r["host_id"] for r in rows] == [f"0591m305-{i}" for i in range(6)]


@pytest.mark.parametrize("missing", ["ra", "flux_z", "brickname", "z_phot"])
def test_a_missing_column_stops_the_stage_in_one_line(tmp_path: Path, missing: str) -> None:
    with pytest.raises(StageError, match="redshift column" if missing == "z_phot" else missing) as error:
        candidates(tmp_path, [{k: v for k, v in GOOD.items() if k != missing}])
    assert "\n" not in str(error.value)


def test_unreadable_parents_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"not parquet at all")
    (tmp_path / "x.fits").write_bytes(b"not fits at all")
    fits.PrimaryHDU(np.zeros((2, 2))).writeto(tmp_path / "image.fits")
    for name in ("x.parquet", "x.fits", "image.fits", "absent.parquet"):
        with pytest.raises(StageError, match=name) as error:
            plan_parent(Location.of(tmp_path / name))
        assert "\n" not in str(error.value)


def test_splits_of_regions_follow_the_fractions_and_nothing_else() -> None:
    fractions = SplitFractions(train=0.7, val=0.1, test=0.2)
    folds = [fold_of_region(r, 10) for r in range(20000)]
    splits = [split_of_fold(f, 10, fractions) for f in folds]
    for split, wanted in fractions.as_dict().items():
        assert splits.count(split) / 20000 == pytest.approx(wanted, abs=0.01)
    assert {split_of_fold(f, 10, fractions): f for f in range(10)} == {"train": 6, "val": 7, "test": 9}
    assert fold_of_region(7, 10) == folds[7]
