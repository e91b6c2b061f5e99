"""Bricks when the store or the machine fails: that is no status of a host, the task has to fail and be tried again."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from dhs_pipeline import fits_maps
from dhs_pipeline.bricks import HostPosition, read_brick_cutouts
from dhs_pipeline.config import Survey, load_section
from dhs_pipeline.fits_tiles import TileTable
from dhs_pipeline.storage import Location, StorageError, StorageUnavailable
from faulty_proxy import Fault, FaultyProxy, Request

BRICK = "0591m305"
SIZE_PIX = 160
PRODUCTS = [f"{product}-{band}" for product in ("image", "invvar", "nexp", "psfsize") for band in "gr"] + ["maskbits"]


@pytest.fixture(scope="module")
def survey() -> Survey:
    return load_section(Survey, "survey", "dr10").model_copy(update={"bands": ("g", "r")})


def write_brick(root: Location) -> HostPosition:
    """A brick of two bands with one galaxy in its middle, HCOMPRESS where the survey has it."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [59.18, -30.5]
    wcs.wcs.crpix, wcs.wcs.cdelt = [SIZE_PIX / 2 + 0.5] * 2, [-0.262 / 3600, 0.262 / 3600]
    y, x = np.indices((SIZE_PIX, SIZE_PIX)) - (SIZE_PIX - 1) / 2
    galaxy = np.exp(-np.hypot(x, y) / 4).astype(np.float32)
    values = {"image": galaxy, "invvar": np.full_like(galaxy, 1e4), "psfsize": np.full_like(galaxy, 1.3)}
    for name in PRODUCTS:
        whole = name.startswith(("nexp", "maskbits"))
        plane = np.full(galaxy.shape, 3, np.int16) if whole else values[name.partition("-")[0]]
        how = {"compression_type": "HCOMPRESS_1"} if whole else {"compression_type": "GZIP_2", "quantize_level": 0}
        hdu = fits.CompImageHDU(plane, header=wcs.to_header(), tile_shape=(80, 80), **how)
        where = root / "coadd" / BRICK[:3] / BRICK / f"legacysurvey-{BRICK}-{name}.fits.fz"
        where.write_bytes(_bytes(fits.HDUList([fits.PrimaryHDU(), hdu])))
    return HostPosition("h", BRICK, 59.18, -30.5)


def _bytes(hdus: fits.HDUList) -> bytes:
    out = io.BytesIO()
    hdus.writeto(out)
    return out.getvalue()


@pytest.fixture
def on_s3(proxy: FaultyProxy, seaweed_bucket: str, quick_retries: None) -> tuple[Location, HostPosition]:
    root = Location.of(seaweed_bucket) / "bricks"
    return root, write_brick(root)


def test_passing_faults_change_nothing(
    on_s3: tuple[Location, HostPosition], proxy: FaultyProxy, survey: Survey, tmp_path: Path
) -> None:
    root, host = on_s3
    write_brick(Location.of(tmp_path))
    (expected,) = read_brick_cutouts(Location.of(tmp_path), BRICK, [host], survey)
    assert expected["status"] == "OK", expected["message"]
    proxy.at_random((Fault.SLOW_DOWN, Fault.RESET, Fault.TRUNCATED, Fault.CORRUPT, Fault.INTERNAL_ERROR), 0.4, seed=3)
    (row,) = read_brick_cutouts(root, BRICK, [host], survey)
    assert any(r.fault is not Fault.NONE for r in proxy.requests)
    for name, value in expected.items():
        assert np.array_equal(row[name], value) if isinstance(value, np.ndarray) else row[name] == value


@pytest.mark.parametrize("at", ["list", "first map", "a later map"])
@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.RESET, Fault.TRUNCATED, Fault.CORRUPT])
def test_a_store_that_does_not_answer_fails_the_task(
    on_s3: tuple[Location, HostPosition], proxy: FaultyProxy, survey: Survey, at: str, fault: Fault
) -> None:
    root, host = on_s3
    part = {"list": "list-type", "first map": "image-g", "a later map": "maskbits"}[at]
    if at == "list" and fault is Fault.CORRUPT:
        pytest.skip("a list has no checksum")
    proxy.rule = lambda request: fault if part in request.path else Fault.NONE
    with pytest.raises(StorageUnavailable):
        read_brick_cutouts(root, BRICK, [host], survey)


def test_refused_access_fails_the_task_too(
    on_s3: tuple[Location, HostPosition], proxy: FaultyProxy, survey: Survey
) -> None:
    """Rows that say FILE_UNREADABLE of a whole survey would be the result of a wrong policy."""
    root, host = on_s3
    proxy.rule = lambda request: Fault.DENIED if "invvar" in request.path else Fault.NONE
    with pytest.raises(StorageError, match="access denied"):
        read_brick_cutouts(root, BRICK, [host], survey)


def test_a_map_that_vanishes_is_missing(
    on_s3: tuple[Location, HostPosition], proxy: FaultyProxy, survey: Survey
) -> None:
    root, host = on_s3
    gone = root / "coadd" / BRICK[:3] / BRICK / f"legacysurvey-{BRICK}-psfsize-r.fits.fz"

    def vanish(request: Request) -> Fault:
        if "image-g" in request.path:
            proxy.rule = lambda _: Fault.NONE
            gone.delete()
        return Fault.NONE

    proxy.rule = vanish
    (row,) = read_brick_cutouts(root, BRICK, [host], survey)
    assert row["status"] == "FILE_MISSING"
    (row,) = read_brick_cutouts(root, "9999m999", [HostPosition("h", "9999m999", 59.18, -30.5)], survey)
    assert row["status"] == "BRICK_NOT_FOUND"


def test_memory_that_runs_out_fails_the_task(tmp_path: Path, survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    host = write_brick(Location.of(tmp_path))

    def full(*args: object) -> object:
        raise MemoryError

    monkeypatch.setattr(TileTable, "tile", full)
    with pytest.raises(MemoryError):
        read_brick_cutouts(Location.of(tmp_path), BRICK, [host], survey)
    monkeypatch.setattr(fits_maps, "_opened_plainly", lambda raw: None)
    monkeypatch.setattr(fits.CompImageSection, "__getitem__", full)
    with pytest.raises(MemoryError):
        read_brick_cutouts(Location.of(tmp_path), BRICK, [host], survey)


def test_a_damaged_hcompress_map_is_unreadable_for_its_hosts(tmp_path: Path, survey: Survey) -> None:
    host = write_brick(Location.of(tmp_path))
    where = tmp_path / "coadd" / BRICK[:3] / BRICK / f"legacysurvey-{BRICK}-maskbits.fits.fz"
    raw = where.read_bytes()
    at = raw.index(b"\xdd\x99", 5760)
    where.write_bytes(raw[: at + 2] + bytes(20) + raw[at + 22 :])
    (row,) = read_brick_cutouts(Location.of(tmp_path), BRICK, [host], survey)
    assert row["status"] == "FILE_UNREADABLE"
    assert "maskbits" in str(row["message"])
    assert "HCOMPRESS stream of 0x0 pixels" in str(row["message"])
