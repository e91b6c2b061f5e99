"""Tiles decoded once, against astropy's sections, and damaged."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dhs_pipeline.fits_errors import MapError, Window
from dhs_pipeline.fits_header import BLOCK_BYTES, plain_header
from dhs_pipeline.fits_maps import OpenMap, open_map, read_windows
from dhs_pipeline.fits_tiles import (
    TileTable,
    _harmless_hcompress,
    _inflated,
    _most_hcompress_bytes,
    read_tiles,
    tile_table,
)

CODECS = ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1", "NOCOMPRESS"]
KNOWN = ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1")
INTEGERS = ["uint8", "int16", "int32", "uint16", "uint32"]
FLOATS = ["float32", "float64"]


def drawn_plane(dtype: str, shape: tuple[int, int], seed: int) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    if dtype in INTEGERS:
        return rng.integers(0, 200, shape).astype(dtype)
    return rng.normal(0, 1, shape).astype(dtype)


def file_of(plane: NDArray[Any], how: str, tile_shape: tuple[int, int], **options: Any) -> bytes:
    out = io.BytesIO()
    hdu = fits.CompImageHDU(plane, compression_type=how, tile_shape=tile_shape, **options)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(out, checksum=True)
    return out.getvalue()


def sections(raw: bytes, windows: Sequence[Window]) -> list[NDArray[Any]]:
    with fits.open(io.BytesIO(raw)) as hdus:
        return [np.array(hdus[1].section[window]) for window in windows]


def assert_as_astropy(raw: bytes, windows: Sequence[Window]) -> OpenMap:
    map_ = open_map(raw)
    found = read_windows(map_, windows)
    for pixels, expected in zip(found, sections(raw, windows), strict=True):
        assert isinstance(pixels, np.ndarray), pixels
        assert pixels.dtype == expected.dtype
        assert pixels.dtype.isnative
        assert pixels.shape == expected.shape
        assert pixels.tobytes() == expected.tobytes()  # bit for bit, NaN as well
    return map_


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], list[Window]]:
    """Shape, tile shape, and windows that may overlap and reach the edges; no side below 4, as HCOMPRESS wants."""
    shape, tile_shape = [], []
    for _ in range(2):
        tile = draw(st.integers(4, 24))
        ragged = draw(st.sampled_from([0, *range(4, tile)]))
        tile_shape.append(tile)
        shape.append(tile * draw(st.integers(1, 3)) + ragged)
    windows = []
    for _ in range(draw(st.integers(1, 5))):
        ends = [sorted((draw(st.integers(0, side)), draw(st.integers(0, side - 1)))) for side in shape]
        rows, columns = (slice(a, max(b, a + 1)) for a, b in ends)
        windows.append((rows, columns))
    windows.append((slice(0, shape[0]), slice(0, shape[1])))
    return (shape[0], shape[1]), (tile_shape[0], tile_shape[1]), windows


@settings(max_examples=150, deadline=None)
@given(layouts(), st.sampled_from(CODECS), st.sampled_from(INTEGERS), st.integers(0, 99))
def test_integers_are_those_of_astropys_section(layout: Any, how: str, dtype: str, seed: int) -> None:
    shape, tile_shape, windows = layout
    dtype = "int16" if how == "PLIO_1" and dtype.startswith("uint") else dtype
    raw = file_of(drawn_plane(dtype, shape, seed), how, tile_shape)
    map_ = assert_as_astropy(raw, windows)
    is_known = how in KNOWN and dtype not in ("uint16", "uint32")
    assert (map_.tiles is not None) == is_known


@settings(max_examples=200, deadline=None)
@given(
    layouts(),
    st.sampled_from(["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"]),
    st.sampled_from(FLOATS),
    st.sampled_from([16, 4]),
    st.sampled_from([-1, 1, 2]),
    st.integers(1, 10_000),
    st.sampled_from(["finite", "some", "whole tile", "constant tile"]),
)
def test_quantized_floats_are_those_of_astropys_section(
    layout: Any, how: str, dtype: str, level: int, method: int, seed: int, content: str
) -> None:
    shape, tile_shape, windows = layout
    plane = drawn_plane(dtype, shape, seed)
    first = (slice(0, tile_shape[0]), slice(0, tile_shape[1]))
    if content == "some" and how != "HCOMPRESS_1":
        plane[:: max(1, shape[0] // 3), ::5] = np.nan
    elif content == "whole tile" and how != "HCOMPRESS_1":
        plane[first] = np.nan
    elif content == "constant tile":
        plane[first] = 0.25  # cannot be quantized, and is kept without loss in a column of its own
    raw = file_of(plane, how, tile_shape, quantize_level=level, quantize_method=method, dither_seed=seed)
    assert assert_as_astropy(raw, windows).tiles is not None


@settings(max_examples=80, deadline=None)
@given(layouts(), st.sampled_from(["GZIP_1", "GZIP_2", "NOCOMPRESS"]), st.sampled_from(FLOATS), st.integers(0, 99))
def test_floats_without_loss_are_those_of_astropys_section(layout: Any, how: str, dtype: str, seed: int) -> None:
    shape, tile_shape, windows = layout
    plane = drawn_plane(dtype, shape, seed)
    plane[0, ::3], plane[-1, -1] = np.nan, np.inf
    map_ = assert_as_astropy(file_of(plane, how, tile_shape, quantize_level=0), windows)
    assert (map_.tiles is not None) == (how in KNOWN)


def rebuilt(raw: bytes, added: dict[str, tuple[str, NDArray[Any]]], widened: bool = False) -> bytes:
    """The same tiles in a table with more columns, or with descriptors of 64 bits."""
    with fits.open(io.BytesIO(raw), disable_image_compression=True) as hdus:
        header, start = hdus[1].header.copy(), hdus.fileinfo(1)["datLoc"]
    table = open_map(raw).tiles
    assert table is not None
    columns: dict[str, tuple[str, NDArray[Any]]] = {}
    for i, name in enumerate(table.rows.dtype.names or (), start=1):
        form = header[f"TFORM{i}"]
        is_wide = widened and "P" in form
        columns[name] = (
            (form.replace("P", "Q"), table.rows[name].astype(">i8")) if is_wide else (form, table.rows[name])
        )
    columns |= added
    rows = np.empty(len(table.rows), [(name, v.dtype, v.shape[1:]) for name, (_, v) in columns.items()])
    header["NAXIS1"], header["TFIELDS"] = rows.itemsize, len(columns)
    for i, (name, (form, values)) in enumerate(columns.items(), start=1):
        header[f"TTYPE{i}"], header[f"TFORM{i}"], rows[name] = name, form, values
    for key in ("CHECKSUM", "DATASUM"):
        del header[key]
    data = rows.tobytes() + bytes(table.heap)
    primary = raw[: raw.index(b"XTENSION")]
    assert start > len(primary)
    return primary + header.tostring().encode() + data.ljust(-(-len(data) // BLOCK_BYTES) * BLOCK_BYTES, b"\0")


WHOLE = (slice(0, 40), slice(0, 40))


def test_blanks_of_each_tile_and_wide_descriptors_are_those_of_astropys_section() -> None:
    raw = file_of(drawn_plane("float32", (40, 40), 1), "RICE_1", (10, 10), quantize_method=2, dither_seed=5)
    table = open_map(raw).tiles
    assert table is not None
    # A blank that is there: the first stored pixel of each tile (the decoder without its dither).
    bare = replace(table, rows=table.rows[["COMPRESSED_DATA"]])
    blanks = np.array([bare.tile(number)[0, 0] for number in range(len(table.rows))], ">i4")
    blanked = rebuilt(raw, {"ZBLANK": ("1J", blanks)})
    assert assert_as_astropy(blanked, [WHOLE, (slice(3, 17), slice(8, 30))]).tiles is not None
    (pixels,) = sections(blanked, [WHOLE])
    assert np.isnan(pixels[::10, ::10]).all()
    assert assert_as_astropy(rebuilt(raw, {}, widened=True), [WHOLE]).tiles is not None
    kept = {"UNCOMPRESSED_DATA": ("1PE", np.zeros((16, 2), ">i4"))}
    assert assert_as_astropy(rebuilt(raw, kept), [WHOLE]).tiles is None


@pytest.mark.parametrize("how", ["RICE_1", "GZIP_2"])
def test_floats_that_are_quantized_without_a_word_on_dither(how: str) -> None:
    raw = file_of(drawn_plane("float32", (40, 40), 1), how, (10, 10), quantize_method=1, dither_seed=5)
    raw = raw.replace(b"'SUBTRACTIVE_DITHER_1'", b"'NONE'                ")
    raw = raw.replace(b"CHECKSUM=", b"NOSUM_1 =").replace(b"DATASUM =", b"NOSUM_2 =")
    assert assert_as_astropy(raw, [WHOLE]).tiles is not None


def test_one_tile_is_decoded_once_however_many_windows_lie_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = file_of(drawn_plane("int16", (40, 40), 1), "RICE_1", (10, 10))
    decoded: list[int] = []
    real = TileTable.tile
    monkeypatch.setattr(TileTable, "tile", lambda self, number: decoded.append(number) or real(self, number))
    assert_as_astropy(raw, [(slice(5, 15), slice(5, 15)), (slice(6, 12), slice(0, 11)), (slice(12, 13), slice(12, 13))])
    assert decoded == [0, 1, 4, 5]


@pytest.mark.parametrize("edge", [(slice(-1, 5), slice(0, 5)), (slice(0, 5), slice(0, 41)), (slice(5, 5), slice(0, 5))])
def test_a_window_that_is_not_on_the_image_is_an_error(edge: Window) -> None:
    table = open_map(file_of(drawn_plane("int16", (40, 40), 1), "RICE_1", (10, 10))).tiles
    assert table is not None
    with pytest.raises(ValueError, match="on an image of 40 pixels"):
        read_tiles(table, [edge])


@settings(max_examples=200, deadline=None)
@given(st.integers(4, 60), st.integers(4, 60), st.integers(0, 30), st.integers(0, 99))
def test_no_hcompress_stream_is_longer_than_the_decoder_may_want(rows: int, columns: int, bits: int, seed: int) -> None:
    plane = np.random.default_rng(seed).integers(0, 1 << bits, (rows, columns)).astype(np.int32)
    table = open_map(file_of(plane, "HCOMPRESS_1", (rows, columns))).tiles
    assert table is not None
    stream = table._bytes_of(0, "COMPRESSED_DATA")
    sides, planes = struct.unpack_from(">ii", stream, 2), list(stream[22:25])
    assert sides in ((rows, columns), (columns, rows))
    assert len(stream) <= _most_hcompress_bytes(*sides, planes)
    assert np.array_equal(table.tile(0), plane)


def test_the_most_that_the_hcompress_decoder_may_want() -> None:
    """Counted by hand: 8x8 pixels, quadrants of 4x4 with 4 + 1 nodes; 8x4, of 4x2 with 2 + 1; one bit plane each."""
    assert _most_hcompress_bytes(8, 8, [1, 1, 1]) == 25 + (4 * (4 + 6 * 5) + 4 + 64) // 8 + 2
    assert _most_hcompress_bytes(8, 4, [1, 0, 2]) == 25 + (3 * (4 + 6 * 3) + 4 + 32) // 8 + 2
    assert _most_hcompress_bytes(2, 2, [3, 0, 0]) == 25 + (3 * (4 + 6) + 4 + 4) // 8 + 2


def hcompress_head(rows: int, columns: int, *planes: int) -> memoryview:
    return memoryview(b"\xdd\x99" + struct.pack(">iiiq3B", rows, columns, 0, 0, *planes))


def test_an_hcompress_stream_is_made_as_long_as_the_decoder_may_want() -> None:
    head = hcompress_head(10, 20, 3, 2, 1)
    assert len(_harmless_hcompress(head, (10, 20))) == _most_hcompress_bytes(10, 20, [3, 2, 1])
    assert len(_harmless_hcompress(head, (20, 10))) == _most_hcompress_bytes(10, 20, [3, 2, 1])
    for rows, columns, shape in ((10, 20, (10, 10)), (0, 0, (10, 20)), (-10, -20, (10, 20)), (200, 1, (10, 20))):
        with pytest.raises(ValueError, match="pixels in a tile of"):
            _harmless_hcompress(hcompress_head(rows, columns, 3, 2, 1), shape)
    with pytest.raises(ValueError, match="65 bit planes"):
        _harmless_hcompress(hcompress_head(10, 20, 3, 65, 1), (10, 20))
    with pytest.raises(struct.error):
        _harmless_hcompress(head[:24], (10, 20))


# --- images that are not known ------------------------------------------------------------------------------------


def changed_table(raw: bytes, **cards: Any) -> TileTable | None:
    primary = plain_header(raw, 0)
    assert primary is not None
    header = plain_header(raw, primary.data_start)
    assert header is not None
    values = {key: value for key, value in (header.values | cards).items() if value is not None}
    return tile_table(values, memoryview(raw)[header.data_start :])


@pytest.mark.parametrize(
    "cards",
    [
        {"BZERO": 32768},
        {"BSCALE": 2.0},
        {"BLANK": -1},
        {"THEAP": 4000},
        {"TZERO1": 1},
        {"TFORM1": "1PJ(12)"},
        {"TTYPE2": "UNCOMPRESSED_DATA"},
        {"TFORM3": "1E"},
        {"TTYPE3": "ZSCALED"},
        {"ZCMPTYPE": "GZIP_3"},
        {"ZCMPTYPE": 7},
        {"ZVAL1": 0},
        {"ZVAL2": 3},
        {"ZVAL2": 4.0},
        {"ZQUANTIZ": "DITHER_9"},
        {"ZDITHER0": 0},
        {"ZDITHER0": -3},
        {"ZDITHER0": 10_001},
        {"ZBLANK": "x"},
        {"ZBITPIX": 16},
        {"ZBITPIX": -16},
        {"ZCMPTYPE": "HCOMPRESS_1", "ZNAME1": "SMOOTH", "ZVAL1": 1},
        {"ZCMPTYPE": "HCOMPRESS_1", "ZTILE1": 20_000, "ZTILE2": 20_000},
        {"ZTILE1": 10.0},
        {"TFIELDS": "4"},
        {"TTYPE1": None},
    ],
    ids=str,
)
def test_what_is_not_known_is_left_to_astropy(cards: dict[str, Any]) -> None:
    raw = file_of(drawn_plane("float32", (40, 40), 1), "RICE_1", (10, 10), quantize_method=2, dither_seed=5)
    assert changed_table(raw) is not None
    assert changed_table(raw, **cards) is None


# --- damaged tiles ------------------------------------------------------------------------------------------------

SHAPE, TILE = (40, 40), (10, 10)
BAD_TILE = 5
ON_IT = [(slice(12, 18), slice(12, 18)), (slice(5, 15), slice(5, 15)), (slice(0, 40), slice(0, 40))]
BESIDE_IT = [(slice(0, 10), slice(0, 40)), (slice(20, 40), slice(0, 40)), (slice(10, 20), slice(20, 40))]


def with_tile(raw: bytes, damage: Callable[[bytes], bytes], column: str = "COMPRESSED_DATA") -> bytes:
    """Put other compressed bytes of the same length into one tile; the sums go."""
    table = open_map(raw).tiles
    assert table is not None
    length, place = (int(number) for number in table.rows[column][BAD_TILE])
    begin = raw.index(bytes(table.heap[:64])) + place
    damaged = damage(raw[begin : begin + length])[:length].ljust(length, b"\0")
    raw = raw[:begin] + damaged + raw[begin + length :]
    return raw.replace(b"CHECKSUM=", b"NOSUM_1 =").replace(b"DATASUM =", b"NOSUM_2 =")


def with_descriptor(raw: bytes, length: int, place: int) -> bytes:
    table = open_map(raw).tiles
    assert table is not None
    begin = raw.index(bytes(table.heap[:64])) - table.rows.nbytes + BAD_TILE * table.rows.itemsize
    raw = raw[:begin] + np.array([length, place], ">i4").tobytes() + raw[begin + 8 :]
    return raw.replace(b"CHECKSUM=", b"NOSUM_1 =").replace(b"DATASUM =", b"NOSUM_2 =")


def assert_only_that_tile(raw: bytes, plane: NDArray[Any], *words: str) -> None:
    map_ = open_map(raw)
    assert map_.tiles is not None
    for window, found in zip(ON_IT, read_windows(map_, ON_IT), strict=True):
        assert isinstance(found, MapError)
        rows, columns = window
        at = f"tiles of columns {columns.start}-{columns.stop - 1}, rows {rows.start}-{rows.stop - 1} cannot be decoded"
        assert str(found).startswith(at)
        assert all(word in str(found) for word in words), str(found)
        assert "\n" not in str(found)
    # One by one as well: the outcome is not a matter of how many are asked for.
    for windows in ([*ON_IT, *BESIDE_IT], *([one] for one in BESIDE_IT)):
        for window, found in zip(windows, read_windows(map_, windows), strict=True):
            if window in BESIDE_IT:
                assert isinstance(found, np.ndarray)
                assert np.array_equal(found, plane[window])


def bomb(member: bytes) -> bytes:
    """A small gzip stream that says it holds 50 MB."""
    return gzip.compress(bytes(50_000_000))[: len(member)]


@pytest.mark.parametrize(
    ("how", "damage", "told"),
    [
        ("RICE_1", lambda data: b"\xff" * len(data), "CfitsioException"),
        ("GZIP_1", lambda data: b"\xff" * len(data), "error: Error -3"),
        ("GZIP_2", lambda data: data[: len(data) // 2], "error: Error -3"),
        ("GZIP_2", lambda data: gzip.compress(bytes(199))[: len(data)], "199 bytes for 100 pixels"),
        ("GZIP_1", lambda data: gzip.compress(bytes(600))[: len(data)], "600 bytes for 100 pixels"),
        ("GZIP_2", bomb, "more than 800 bytes in a gzip stream"),
        ("GZIP_1", bomb, "more than 800 bytes in a gzip stream"),
        ("GZIP_2", lambda data: data[:-9] + bytes(9), "error: Error -3"),
        ("HCOMPRESS_1", lambda data: data[:2] + bytes([0, 0, 0, 9]) + data[6:], "9x10 pixels in a tile of 10x10"),
        ("HCOMPRESS_1", lambda data: b"\xff" * len(data), "-1x-1 pixels"),
        ("HCOMPRESS_1", lambda data: data[:10] + b"\xff" * len(data), "cannot be decoded"),
    ],
)
def test_a_damaged_tile_fails_the_windows_on_it(how: str, damage: Callable[[bytes], bytes], told: str) -> None:
    plane = drawn_plane("int16", SHAPE, 3)
    raw = file_of(plane, how, TILE)
    assert_only_that_tile(with_tile(raw, damage), plane, told)


def test_a_gzip_stream_is_inflated_no_further_than_a_tile_can_be() -> None:
    stream = memoryview(gzip.compress(bytes(50_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than 800 bytes"):
            _inflated(stream, 800)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1e6
    assert _inflated(memoryview(gzip.compress(bytes(800))), 800) == bytes(800)


@pytest.mark.parametrize(
    ("length", "place", "told"),
    [
        (2**31 - 1, 0, "are not within"),
        (50, 2**31 - 1, "are not within"),
        (-50, 0, "are not within"),
        (50, -1, "are not within"),
        (0, 0, "no compressed bytes"),
        (1, 0, "cannot be decoded"),
    ],
)
@pytest.mark.parametrize("how", ["RICE_1", "GZIP_2", "HCOMPRESS_1"])
def test_a_damaged_descriptor_fails_the_windows_on_its_tile(how: str, length: int, place: int, told: str) -> None:
    plane = drawn_plane("int16", SHAPE, 3)
    assert_only_that_tile(with_descriptor(file_of(plane, how, TILE), length, place), plane, told)


def test_a_damaged_tile_that_is_kept_without_loss_fails_the_windows_on_it() -> None:
    plane = drawn_plane("float32", SHAPE, 3)
    plane[10:20, 10:20] = 0.5
    raw = file_of(plane, "RICE_1", TILE, quantize_method=2, dither_seed=5)
    (whole,) = sections(raw, [(slice(0, 40), slice(0, 40))])
    damaged = with_tile(raw, lambda data: b"\xff" * len(data), "GZIP_COMPRESSED_DATA")
    assert_only_that_tile(damaged, whole, "error: Error -3")


def test_a_tile_of_more_than_one_gzip_member_is_read_as_astropy_does() -> None:
    plane = np.zeros(SHAPE, np.int16)
    plane[10:20, 10:20] = drawn_plane("int16", TILE, 3)
    raw = file_of(plane, "GZIP_1", TILE)
    parts = gzip.compress(bytes(80)) + b"\0" + gzip.compress(bytes(120)) + b"\0\0"
    raw = with_tile(raw, lambda data: parts)
    assert_as_astropy(raw, [*ON_IT, *BESIDE_IT])
