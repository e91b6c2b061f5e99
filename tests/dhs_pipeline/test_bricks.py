"""Cutouts from bricks: the right pixels, and every way to fail provoked on a small synthetic brick."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS
from numpy.typing import NDArray

from dhs_pipeline import bricks, fits_maps
from dhs_pipeline.bricks import HostPosition, cutout_table, read_brick_cutouts
from dhs_pipeline.config import Survey, load_section
from dhs_pipeline.schemas import CUTOUTS, table_from_rows
from dhs_pipeline.storage import Location

BRICK = "0591m305"
FOLDER = f"coadd/059/{BRICK}"
SHAPE = (380, 400)
# Column and row of three hosts that share no 100x100 tile with each other.
HOSTS_PIX = {"a": (80.3, 80.6), "b": (300.2, 89.8), "c": (199.6, 300.4)}
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

needs_layout = pytest.mark.skipif(not (DATA / "dr10_layout").is_dir(), reason="no ../shared/data/dr10_layout")
needs_dr6 = pytest.mark.skipif(not (DATA / "dr6_brick").is_dir(), reason="no ../shared/data/dr6_brick")

Planes = dict[str, NDArray[Any]]
Row = dict[str, Any]


def tan_wcs() -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [59.18, -30.5]
    wcs.wcs.crpix = [200.5, 190.5]
    wcs.wcs.cdelt = [-0.262 / 3600, 0.262 / 3600]
    return wcs


def host(name: str, x_pix: float, y_pix: float) -> HostPosition:
    ra_deg, dec_deg = tan_wcs().wcs_pix2world(x_pix, y_pix, 0)
    return HostPosition(name, BRICK, float(ra_deg), float(dec_deg))


HOSTS = [host(name, *place) for name, place in HOSTS_PIX.items()]


def make_planes() -> Planes:
    return {key: plane.copy() for key, plane in _drawn_planes().items()}


@functools.cache
def _drawn_planes() -> Planes:
    rng = np.random.default_rng(5)
    y, x = np.indices(SHAPE)
    light = sum(np.exp(-((x - hx) ** 2 + (y - hy) ** 2) / 18) for hx, hy in HOSTS_PIX.values())
    planes: Planes = {"maskbits": (rng.random(SHAPE) < 0.01).astype(np.int32) * 2}
    for i, band in enumerate("grz", start=1):
        planes[f"image-{band}"] = (0.3 * i * light + rng.normal(0, 0.01, SHAPE)).astype(np.float32)
        planes[f"invvar-{band}"] = rng.uniform(8e3, 1.2e4, SHAPE).astype(np.float32)
        planes[f"nexp-{band}"] = np.where(x < 250, i, i + 4).astype(np.int16)
        planes[f"psfsize-{band}"] = (1 + 0.1 * i + 1e-4 * x).astype(np.float32)
    return planes


def path_of(root: Path, key: str) -> Path:
    return root / FOLDER / f"legacysurvey-{BRICK}-{key}.fits.fz"


def write_map(root: Path, key: str, plane: NDArray[Any], checksum: bool = False) -> None:
    """As the survey: images Rice with subtractive dither, the rest without loss."""
    if key.startswith("image"):
        how: dict[str, Any] = {
            "compression_type": "RICE_1",
            "quantize_level": 16,
            "quantize_method": 2,
            "dither_seed": 3,
        }
    else:
        how = {"compression_type": "GZIP_2", "quantize_level": 0}
    hdu = fits.CompImageHDU(plane, header=tan_wcs().to_header(), tile_shape=(100, 100), **how)
    where = path_of(root, key)
    where.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(where, overwrite=True, checksum=checksum)


@pytest.fixture(scope="session")
def survey() -> Survey:
    return load_section(Survey, "survey", "dr10")


@pytest.fixture(scope="session")
def good_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good")
    for key, plane in make_planes().items():
        write_map(root, key, plane)
    return root


@pytest.fixture(scope="session")
def good_rows(good_root: Path, survey: Survey) -> list[Row]:
    return read(good_root, survey)


@pytest.fixture
def root(good_root: Path, tmp_path: Path) -> Path:
    """A brick to damage."""
    shutil.copytree(good_root, tmp_path / "data")
    return tmp_path / "data"


def read(root: Path, survey: Survey, hosts: Sequence[HostPosition] = HOSTS) -> list[Row]:
    return read_brick_cutouts(Location.of(root), BRICK, hosts, survey)


def same(one: Row, other: Row) -> bool:
    return all(np.array_equal(one[k], other[k]) if isinstance(one[k], np.ndarray) else one[k] == other[k] for k in one)


def assert_only(rows: Sequence[Row], good_rows: Sequence[Row], failed: str, status: str, *words: str) -> None:
    """The hosts named in ``failed`` have the status and no pixels; the others are what they are undamaged."""
    for row, good in zip(rows, good_rows, strict=True):
        if row["host_id"] in failed:
            assert row["status"] == status, row["message"]
            assert all(word in row["message"] for word in words), row["message"]
            filled = {name for name, value in row.items() if value is not None}
            assert filled <= {*("host_id", "brickname", "status", "message"), *GEOMETRY}
        else:
            assert same(row, good), (row["status"], row["message"])
    assert cutout_table(rows).num_rows == len(rows)


GEOMETRY = ("cutout_size_pix", "corner_x_pix", "corner_y_pix", "catalog_x_pix", "catalog_y_pix")


# --- what a good brick gives ----------------------------------------------------------------------


def test_rows_are_in_order_complete_and_ok(good_rows: list[Row]) -> None:
    assert [r["host_id"] for r in good_rows] == ["a", "b", "c"]
    assert {r["status"] for r in good_rows} == {"OK"}
    for row in good_rows:
        assert list(row) == CUTOUTS.names
        assert {name for name, value in row.items() if value is None} == {"message"}


def test_order_of_the_hosts_is_kept(root: Path, survey: Survey, good_rows: list[Row]) -> None:
    rows = read(root, survey, HOSTS[::-1])
    assert all(same(row, good) for row, good in zip(rows, good_rows[::-1], strict=True))


def test_pixels_equal_an_independent_reading(good_root: Path, good_rows: list[Row], survey: Survey) -> None:
    for row, position in zip(good_rows, HOSTS, strict=True):
        for key, column in {
            **{f"{p}-{b}": f"{p}_{b}" for p in ("image", "invvar") for b in "grz"},
            "maskbits": "maskbits",
        }.items():
            plane, header = fits.getdata(path_of(good_root, key), 1, header=True)
            place = WCS(header).wcs_world2pix(position.ra_deg, position.dec_deg, 0)
            expected = Cutout2D(plane, place, survey.cutout_size_pix, mode="strict").data
            assert np.array_equal(row[column], expected.ravel())
            assert row[column].dtype == (np.int32 if key == "maskbits" else np.float32)
            assert row[column].flags.c_contiguous


def test_geometry_and_centroid_find_the_drawn_light(good_rows: list[Row]) -> None:
    for row, (x_pix, y_pix) in zip(good_rows, HOSTS_PIX.values(), strict=True):
        assert row["corner_x_pix"] == int(x_pix + 0.5) - 50
        assert row["corner_y_pix"] == int(y_pix + 0.5) - 50
        assert row["corner_x_pix"] + row["catalog_x_pix"] == pytest.approx(x_pix, abs=1e-6)
        assert row["corner_y_pix"] + row["catalog_y_pix"] == pytest.approx(y_pix, abs=1e-6)
        assert row["corner_x_pix"] + row["centroid_x_pix"] == pytest.approx(x_pix, abs=0.03)
        assert row["corner_y_pix"] + row["centroid_y_pix"] == pytest.approx(y_pix, abs=0.03)


def test_psfsize_and_nexp_are_the_maps_at_the_host(good_rows: list[Row]) -> None:
    for row, column, more in zip(good_rows, (80, 300, 200), (0, 4, 0), strict=True):
        for i, band in enumerate("grz", start=1):
            assert row[f"psfsize_{band}_map_arcsec"] == pytest.approx(1 + 0.1 * i + 1e-4 * column, abs=1e-6)
            assert row[f"nexp_{band}"] == i + more


def test_right_ascension_increases_to_lower_columns(root: Path, survey: Survey) -> None:
    east = HostPosition("e", BRICK, HOSTS[2].ra_deg + 5 / 3600, HOSTS[2].dec_deg)
    north = HostPosition("n", BRICK, HOSTS[2].ra_deg, HOSTS[2].dec_deg + 5 / 3600)
    base, east_row, north_row = read(root, survey, [HOSTS[2], east, north])
    assert east_row["corner_x_pix"] < base["corner_x_pix"]
    assert north_row["corner_y_pix"] > base["corner_y_pix"]


def test_maps_that_only_astropy_knows_give_the_same(
    good_root: Path, good_rows: list[Row], survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits_maps, "_opened_plainly", lambda raw: None)
    assert all(same(row, good) for row, good in zip(read(good_root, survey), good_rows, strict=True))


def test_each_map_is_read_once(good_root: Path, survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    read_names: list[str] = []
    original = Location.read_bytes
    monkeypatch.setattr(Location, "read_bytes", lambda self: read_names.append(self.name) or original(self))
    read(good_root, survey)
    assert len(read_names) == len(set(read_names)) == 13


def test_bands_that_the_survey_does_not_use_are_neither_needed_nor_filled(
    root: Path, survey: Survey, good_rows: list[Row]
) -> None:
    for product in ("image", "invvar", "nexp", "psfsize"):
        path_of(root, f"{product}-z").unlink()
    rows = read(root, survey.model_copy(update={"bands": ("g", "r")}))
    for row, good in zip(rows, good_rows, strict=True):
        assert row["image_z"] is row["invvar_z"] is row["nexp_z"] is row["psfsize_z_map_arcsec"] is None
        assert np.array_equal(row["image_r"], good["image_r"])


def test_no_hosts_no_rows(tmp_path: Path, survey: Survey) -> None:
    assert read(tmp_path, survey, []) == []


def test_hosts_of_another_brick_are_a_programming_error(good_root: Path, survey: Survey) -> None:
    with pytest.raises(ValueError, match="0000p000"):
        read(good_root, survey, [HostPosition("x", "0000p000", 1.0, 2.0)])


def test_centroid_band_must_be_a_band(good_root: Path, survey: Survey) -> None:
    with pytest.raises(ValueError, match="centroid_band"):
        read(good_root, survey.model_copy(update={"bands": ("g", "z")}))


def test_table_is_the_schema_and_equals_the_slow_way(good_rows: list[Row]) -> None:
    bad = dict.fromkeys(CUTOUTS.names) | {
        "host_id": "x", "status": "OFF_BRICK", "cutout_size_pix": 101
    }  # fmt: skip
    rows = [good_rows[0], bad, good_rows[1]]
    table = cutout_table(rows)
    assert table.schema.equals(CUTOUTS, check_metadata=True)
    assert table.equals(table_from_rows(rows, CUTOUTS))
    assert table.column("image_g").null_count == 1
    table.validate(full=True)
    assert cutout_table([]).equals(CUTOUTS.empty_table())


def test_table_survives_parquet(good_rows: list[Row]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(cutout_table(good_rows), sink)
    back = pq.read_table(pa.BufferReader(sink.getvalue()))
    assert np.array_equal(back.column("invvar_r")[2].values.to_numpy(), good_rows[2]["invvar_r"])


def test_table_refuses_unknown_columns_and_missing_keys(good_rows: list[Row]) -> None:
    with pytest.raises(ValueError, match="bogus"):
        cutout_table([good_rows[0] | {"bogus": 1}])
    with pytest.raises(ValueError, match="host_id"):
        cutout_table([good_rows[0] | {"host_id": None}])


# --- the brick's files ----------------------------------------------------------------------------


def test_brick_without_a_folder(tmp_path: Path, survey: Survey, good_rows: list[Row]) -> None:
    assert_only(read(tmp_path, survey), good_rows, "abc", "BRICK_NOT_FOUND", FOLDER)


def test_brick_with_an_empty_folder(tmp_path: Path, survey: Survey, good_rows: list[Row]) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    assert_only(read(tmp_path, survey), good_rows, "abc", "BRICK_NOT_FOUND", FOLDER)


def test_brick_whose_folder_is_a_file(tmp_path: Path, survey: Survey, good_rows: list[Row]) -> None:
    (tmp_path / FOLDER).parent.mkdir(parents=True)
    (tmp_path / FOLDER).touch()
    assert_only(read(tmp_path, survey), good_rows, "abc", "BRICK_NOT_FOUND", FOLDER)


@pytest.mark.parametrize("key", ["image-g", "invvar-r", "psfsize-z", "nexp-g", "maskbits"])
def test_missing_map(root: Path, survey: Survey, good_rows: list[Row], key: str) -> None:
    path_of(root, key).unlink()
    assert_only(read(root, survey), good_rows, "abc", "FILE_MISSING", path_of(root, key).name)


def test_map_that_vanishes_after_the_listing(
    root: Path, survey: Survey, good_rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bricks, "_check_present", lambda maps, data: None)
    path_of(root, "invvar-z").unlink()
    assert_only(read(root, survey), good_rows, "abc", "FILE_MISSING", "invvar-z")


def primary_only(where: Path) -> None:
    fits.PrimaryHDU(np.ones(SHAPE)).writeto(where, overwrite=True)


def uncompressed(where: Path) -> None:
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones(SHAPE))]).writeto(where, overwrite=True)


def other_shape(where: Path) -> None:
    hdu = fits.CompImageHDU(np.ones((90, 90), np.float32), header=tan_wcs().to_header())
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(where, overwrite=True)


def other_sky(where: Path) -> None:
    with fits.open(where, mode="update") as hdus:
        hdus[1].header["CRVAL1"] = 60.0


def as_folder(where: Path) -> None:
    where.unlink()
    where.mkdir()


def truncate(fraction: float) -> Callable[[Path], None]:
    return lambda where: where.write_bytes(where.read_bytes()[: int(where.stat().st_size * fraction)])


def drop_last_byte(where: Path) -> None:
    where.write_bytes(where.read_bytes()[:-1])


def break_header(where: Path) -> None:
    where.write_bytes(where.read_bytes().replace(b"ZNAXIS1 =", b"ZNAXIS1 x", 1))


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda where: where.write_bytes(b""), "0 bytes"),
        (lambda where: where.write_text("<html>404</html>\n" * 500), "OSError"),
        (lambda where: where.write_bytes(np.random.default_rng(1).bytes(20000)), "OSError"),
        (lambda where: where.write_bytes(where.read_bytes()[:1000]), "bytes"),
        (lambda where: where.write_bytes(where.read_bytes()[:2880]), "no readable HDU 1"),
        (lambda where: where.write_bytes(where.read_bytes()[:4000]), "HDU 1"),
        (truncate(0.5), "truncated"),
        (drop_last_byte, "truncated"),
        (primary_only, "no readable HDU 1"),
        (uncompressed, "not a compressed image"),
        (other_shape, "shape (90, 90)"),
        (other_sky, "CRVAL1 = 60.0"),
        (break_header, "no readable HDU 1"),
        (as_folder, "directory"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_unreadable_map(
    root: Path, survey: Survey, good_rows: list[Row], damage: Callable[[Path], None], word: str
) -> None:
    damage(path_of(root, "invvar-r"))
    assert_only(read(root, survey), good_rows, "abc", "FILE_UNREADABLE", "invvar-r", word)


def test_image_without_a_sky_position(root: Path, survey: Survey, good_rows: list[Row]) -> None:
    hdu = fits.CompImageHDU(make_planes()["image-g"])
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path_of(root, "image-g"), overwrite=True)
    assert_only(read(root, survey), good_rows, "abc", "FILE_UNREADABLE", "image-g", "WCS")


@pytest.mark.parametrize("part", [0.5, 0.9])
def test_checksum_catches_a_flipped_byte(root: Path, survey: Survey, good_rows: list[Row], part: float) -> None:
    write_map(root, "image-r", make_planes()["image-r"], checksum=True)
    assert_only(read(root, survey), good_rows, "", "OK")
    raw = bytearray(path_of(root, "image-r").read_bytes())
    raw[int(len(raw) * part)] ^= 0x40
    path_of(root, "image-r").write_bytes(raw)
    assert_only(read(root, survey), good_rows, "abc", "FILE_UNREADABLE", "image-r", "SUM of HDU 1")


def damage_tile(where: Path, row: int, column: int) -> None:
    """Overwrite the compressed bytes of one 100x100 tile."""
    with fits.open(where, disable_image_compression=True) as hdus:
        header, start = hdus[1].header, hdus.fileinfo(1)["datLoc"]
    raw = bytearray(where.read_bytes())
    width, tiles = header["NAXIS1"], header["NAXIS2"]
    place = start + (row * -(-SHAPE[1] // 100) + column) * width
    length, offset = np.frombuffer(bytes(raw[place : place + 8]), ">i4")
    begin = start + width * tiles + int(offset)
    raw[begin : begin + int(length)] = b"\xff" * int(length)
    where.write_bytes(raw)


@pytest.mark.parametrize("key", ["invvar-z", "maskbits"])
def test_damaged_tile_fails_only_the_host_on_it(root: Path, survey: Survey, good_rows: list[Row], key: str) -> None:
    damage_tile(path_of(root, key), row=0, column=3)
    assert_only(read(root, survey), good_rows, "b", "FILE_UNREADABLE", key, "columns 250-350, rows 40-140")


def test_the_first_of_two_damaged_maps_is_told(root: Path, survey: Survey, good_rows: list[Row]) -> None:
    plane = make_planes()["nexp-g"]
    hdu = fits.CompImageHDU(plane, tan_wcs().to_header(), compression_type="HCOMPRESS_1", tile_shape=(100, 100))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path_of(root, "nexp-g"), overwrite=True)
    assert_only(read(root, survey), good_rows, "", "OK")
    damage_tile(path_of(root, "nexp-g"), row=0, column=3)
    damage_tile(path_of(root, "nexp-g"), row=0, column=2)
    damage_tile(path_of(root, "psfsize-z"), row=0, column=3)
    assert_only(read(root, survey), good_rows, "b", "FILE_UNREADABLE", "nexp-g", "columns 296-304, rows 86-94")


# --- the hosts ------------------------------------------------------------------------------------


OFF_BRICK_DEG = [
    (59.38, -30.5),
    (59.18, -30.4),
    (239.18, 30.5),
    (149.18, -30.5),
    (float("nan"), -30.5),
    (59.18, float("inf")),
    (59.18, -95.0),
]


def test_off_brick(good_root: Path, survey: Survey, good_rows: list[Row]) -> None:
    lost = [HostPosition(f"lost{i}", BRICK, ra, dec) for i, (ra, dec) in enumerate(OFF_BRICK_DEG)]
    rows = read(good_root, survey, [*lost, *HOSTS])
    for row, (ra_deg, dec_deg) in zip(rows, OFF_BRICK_DEG, strict=False):
        assert row["status"] == "OFF_BRICK"
        assert f"({ra_deg:.6f}, {dec_deg:.6f})" in row["message"]
        assert row["corner_x_pix"] is row["catalog_x_pix"] is row["image_r"] is None
    assert_only(rows[len(lost) :], good_rows, "", "OK")


OFF_EDGE_PIX = [(49.4, 190), (349.6, 190), (190, 49.4), (190, 329.6), (0, 0)]


def test_cutout_off_edge(good_root: Path, survey: Survey, good_rows: list[Row]) -> None:
    edge = [host(f"edge{i}", *place) for i, place in enumerate(OFF_EDGE_PIX)]
    rows = read(good_root, survey, [*edge, *HOSTS])
    for row, (x_pix, y_pix) in zip(rows, OFF_EDGE_PIX, strict=False):
        assert row["status"] == "CUTOUT_OFF_EDGE"
        assert row["corner_x_pix"] == int(x_pix + 0.5) - 50
        assert row["corner_y_pix"] == int(y_pix + 0.5) - 50
        assert row["image_r"] is None
    assert_only(rows[len(edge) :], good_rows, "", "OK")


def test_cutouts_that_just_fit_are_taken(good_root: Path, survey: Survey) -> None:
    places = [(49.6, 190), (349.4, 190), (190, 49.6), (190, 329.4)]
    rows = read(good_root, survey, [host(f"edge{i}", *place) for i, place in enumerate(places)])
    assert {r["status"] for r in rows} == {"CENTROID_FAILED"}  # on the brick, but nothing shines there


def changed(root: Path, key: str, value: float, size_pix: int, offset_pix: int = 0) -> None:
    """Write ``value`` into a square of one map about host b."""
    plane = make_planes()[key]
    x, y, half = 300 + offset_pix, 90, size_pix // 2
    plane[y - half : y + half + 1, x - half : x + half + 1] = value
    write_map(root, key, plane)


@pytest.mark.parametrize("key", ["invvar-g", "invvar-z", "nexp-z"])
def test_no_coverage(root: Path, survey: Survey, good_rows: list[Row], key: str) -> None:
    changed(root, key, 0, 9)
    assert_only(read(root, survey), good_rows, "b", "NO_COVERAGE", key)


def test_partial_coverage_is_allowed(root: Path, survey: Survey, good_rows: list[Row]) -> None:
    changed(root, "invvar-g", 0, 7)
    changed(root, "invvar-r", 0, 21, offset_pix=30)
    rows = read(root, survey)
    assert [r["status"] for r in rows] == ["OK"] * 3
    assert (rows[1]["invvar_r"] == 0).sum() == 21 * 21
    assert np.array_equal(rows[1]["image_r"], good_rows[1]["image_r"])


@pytest.mark.parametrize(
    ("key", "value"), [("image-z", np.nan), ("image-g", np.inf), ("invvar-r", np.nan), ("invvar-g", np.inf)]
)
def test_pixels_not_finite(root: Path, survey: Survey, good_rows: list[Row], key: str, value: float) -> None:
    changed(root, key, value, 1, offset_pix=20)
    rows = read(root, survey)
    assert_only(rows, good_rows, "b", "PIXELS_NOT_FINITE", key, "(70, 50)")


def test_nan_where_there_is_no_coverage_stays_nan(root: Path, survey: Survey) -> None:
    changed(root, "image-g", np.nan, 3, offset_pix=20)
    changed(root, "invvar-g", 0, 3, offset_pix=20)
    row = read(root, survey)[1]
    assert row["status"] == "OK"
    assert np.isnan(row["image_g"]).sum() == 9


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_psfsize_zero(root: Path, survey: Survey, good_rows: list[Row], value: float) -> None:
    changed(root, "psfsize-z", value, 1)
    assert_only(read(root, survey), good_rows, "b", "PSFSIZE_ZERO", "psfsize-z")


def test_centroid_failed(root: Path, survey: Survey, good_rows: list[Row]) -> None:
    changed(root, "image-r", 0.0, 31)
    assert_only(read(root, survey), good_rows, "b", "CENTROID_FAILED", "image-r")


# --- real pixels ----------------------------------------------------------------------------------


def parent_hosts(name: str) -> dict[str, list[HostPosition]]:
    table = pq.read_table(DATA / "dr10_layout" / name).to_pylist()
    hosts: dict[str, list[HostPosition]] = {}
    for i, row in enumerate(table):
        hosts.setdefault(row["brickname"], []).append(HostPosition(str(i), row["brickname"], row["ra"], row["dec"]))
    return hosts


@needs_layout
@pytest.mark.realdata
def test_real_hosts_are_ok_and_centred_within_the_rounding_of_the_catalogue(survey: Survey) -> None:
    name = "lrg_parent_0591m305.parquet"
    rows: list[Row] = read_brick_cutouts(
        Location.of(DATA / "dr10_layout"), "0591m305", parent_hosts(name)["0591m305"], survey
    )
    assert [r["status"] for r in rows] == ["OK"] * 36
    parent = pq.read_table(DATA / "dr10_layout" / name).to_pydict()
    # bx and by are whole pixels there, so the difference holds a rounding of 0.29 px rms.
    for axis, column in (("x", "bx"), ("y", "by")):
        shift_pix = np.array([r[f"corner_{axis}_pix"] + r[f"centroid_{axis}_pix"] for r in rows]) - parent[column]
        print(f"{axis}: mean {shift_pix.mean():.3f}, scatter {shift_pix.std():.3f}, max {abs(shift_pix).max():.3f} px")
        assert abs(shift_pix).max() < 0.7
        assert abs(shift_pix.mean()) < 0.2
    assert all(1.0 < r[f"psfsize_{b}_map_arcsec"] < 2.0 and r[f"nexp_{b}"] >= 1 for r in rows for b in "grz")


@needs_layout
@pytest.mark.realdata
def test_dirty_parent(survey: Survey) -> None:
    hosts = parent_hosts("dirty_parent_0591m305.parquet")
    data = Location.of(DATA / "dr10_layout")
    (unknown,) = read_brick_cutouts(data, "0000p000", hosts["0000p000"], survey)
    assert unknown["status"] == "BRICK_NOT_FOUND"
    rows = read_brick_cutouts(data, "0591m305", hosts["0591m305"], survey)
    assert {r["host_id"]: r["status"] for r in rows if r["status"] != "OK"} == {"37": "OFF_BRICK"}


@needs_dr6
@pytest.mark.realdata
def test_genuine_brick_is_nearly_empty_in_z(tmp_path: Path, survey: Survey) -> None:
    brick = "0959p805"
    folder = tmp_path / f"coadd/095/{brick}"
    shutil.copytree(DATA / "dr6_brick", folder, copy_function=lambda source, target: Path(target).symlink_to(source))
    folder.chmod(0o755)
    invvar_g, header = fits.getdata(folder / f"legacysurvey-{brick}-invvar-g.fits.fz", 1, header=True)
    for key, value in {"psfsize-g": np.float32(1.5), "psfsize-z": np.float32(1.5), "maskbits": np.int32(0)}.items():
        plane = np.full(invvar_g.shape, value)
        hdu = fits.CompImageHDU(plane, compression_type="GZIP_1", tile_shape=(400, 400), quantize_level=0)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(folder / f"legacysurvey-{brick}-{key}.fits.fz")
    y_pix, x_pix = np.argwhere(invvar_g[100:-100:50, 100:-100:50] > 0)[::60].T * 50 + 100
    ra_deg, dec_deg = WCS(header).wcs_pix2world(x_pix, y_pix, 0)
    hosts = [HostPosition(str(i), brick, r, d) for i, (r, d) in enumerate(zip(ra_deg, dec_deg, strict=True))]
    assert len(hosts) > 2
    narrow = survey.model_copy(update={"bands": ("g", "z"), "centroid_band": "g"})
    rows: list[Row] = read_brick_cutouts(Location.of(tmp_path), brick, hosts, narrow)
    assert {r["status"] for r in rows} == {"NO_COVERAGE"}
    assert all("invvar-z" in r["message"] for r in rows)
