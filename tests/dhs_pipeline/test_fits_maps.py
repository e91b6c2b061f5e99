"""Damaged maps: checked before anything is allocated, and decoded where they can do no harm."""

from __future__ import annotations

import io
import os
import signal
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from dhs_pipeline import fits_maps, fits_tiles
from dhs_pipeline.fits_errors import MapError, Window
from dhs_pipeline.fits_maps import open_map, read_windows

SHAPE = (380, 400)
TILE_PIX = 100


def make_map(how: str = "HCOMPRESS_1", *, checksum: bool = False) -> tuple[bytes, NDArray[Any]]:
    """A file, and its pixels: whole numbers, which all compressions keep."""
    rng = np.random.default_rng(1)
    plane = (rng.random(SHAPE) < 0.05).astype(np.int16) + np.int16(3)
    hdu = fits.CompImageHDU(plane, compression_type=how, tile_shape=(TILE_PIX, TILE_PIX), quantize_level=0)
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(out, checksum=checksum)
    return out.getvalue(), plane


def tile_span(raw: bytes, number: int) -> tuple[int, int]:
    """Where the compressed bytes of a tile begin and end."""
    with fits.open(io.BytesIO(raw), disable_image_compression=True) as hdus:
        header, start = hdus[1].header, hdus.fileinfo(1)["datLoc"]
    width, tiles = header["NAXIS1"], header["NAXIS2"]
    length, offset = np.frombuffer(raw[start + number * width :][:8], ">i4")
    begin = start + width * tiles + int(offset)
    return begin, begin + int(length)


def with_no_size(raw: bytes, number: int) -> bytes:
    """A HCOMPRESS tile that says it has 0x0 pixels: the decoder divides by that and dies of SIGFPE."""
    begin, end = tile_span(raw, number)
    return raw[: begin + 2] + bytes(end - begin - 2) + raw[end:]


def window(row: int, column: int) -> Window:
    """Well inside the tile in this row and column of tiles."""
    y, x = row * TILE_PIX + 10, column * TILE_PIX + 10
    return slice(y, y + 80), slice(x, x + 80)


def set_card(raw: bytes, key: str, value: int) -> bytes:
    """Change an integer in the header of HDU 1, as a flipped bit would: no other key is put right."""
    at = raw.index(f"{key:<8}=".encode(), 2880)
    return raw[: at + 10] + f"{value:>20}".encode() + raw[at + 30 :]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("ZNAXIS1", 2_000_000_000, "sizes from 1 to"),
        ("ZNAXIS2", 40_000, "sizes from 1 to"),
        ("ZTILE1", 1_500_000_000, "sizes from 1 to"),
        ("ZTILE2", 0, "sizes from 1 to"),
        ("ZTILE2", -100, "sizes from 1 to"),
        ("ZNAXIS1", 19_000, "16 tiles, an image of 19000x380"),
        ("NAXIS2", 15, "15 tiles, an image of 400x380"),
        ("NAXIS2", 2_000_000_000, "truncated"),
        ("NAXIS1", 2_000_000_000, "truncated"),
        ("PCOUNT", 2_000_000_000, "truncated"),
    ],
)
@pytest.mark.parametrize("how", ["RICE_1", "HCOMPRESS_1"])
def test_absurd_sizes_are_refused_before_anything_is_allocated(key: str, value: int, told: str, how: str) -> None:
    raw, _ = make_map(how)
    damaged = set_card(raw, key, value)
    tracemalloc.start()
    try:
        with pytest.raises(MapError, match=told):
            open_map(damaged)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 20e6


def with_card(raw: bytes, card: bytes) -> bytes:
    """One more card at the end of the header of HDU 1, which has room for it."""
    at = raw.index(b"END" + b" " * 77, 2880)
    assert raw[at + 80 : at + 160] == b" " * 80
    return raw[:at] + card.ljust(80) + raw[at : at + 80] + raw[at + 160 :]


def as_astropys(raw: bytes) -> bytes:
    """A map that is left to astropy."""
    return with_card(raw, b"lower   = 1")


def test_a_tile_that_ends_its_process_costs_its_own_windows() -> None:
    raw, plane = make_map()
    found = open_map(as_astropys(with_no_size(raw, 1 * 4 + 2)))
    assert found.needs_child
    windows = [window(0, 0), window(1, 2), window(2, 1), (slice(150, 251), slice(220, 321)), window(2, 3)]
    for i, (pixels, place) in enumerate(zip(read_windows(found, windows), windows, strict=True)):
        if i in (1, 3):
            rows, columns = place
            told = f"columns {columns.start}-{columns.stop - 1}, rows {rows.start}-{rows.stop - 1} cannot be decoded"
            assert str(pixels) == f"tiles of {told}: decoding them ends the process (SIGFPE)"
        else:
            assert isinstance(pixels, np.ndarray)
            assert np.array_equal(pixels, plane[place])


def test_such_a_tile_is_refused_in_this_process_before_it_is_decoded() -> None:
    raw, plane = make_map()
    windows = [window(0, 0), window(1, 2)]
    found = open_map(with_no_size(raw, 1 * 4 + 2))
    assert not found.needs_child
    good, bad = read_windows(found, windows)
    assert isinstance(good, np.ndarray)
    assert np.array_equal(good, plane[windows[0]])
    assert isinstance(bad, MapError)
    assert "HCOMPRESS stream of 0x0 pixels in a tile of 100x100" in str(bad)


def test_the_version_of_astropy_that_is_locked_was_examined_and_others_get_a_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw, plane = make_map()
    assert not open_map(raw).needs_child, "look at its HCOMPRESS decoder before adding it to HCOMPRESS_EXAMINED"
    monkeypatch.setattr(fits_tiles, "HCOMPRESS_EXAMINED", ("0.1",))
    found = open_map(raw)
    assert found.needs_child
    (pixels,) = read_windows(found, [window(1, 1)])
    assert isinstance(pixels, np.ndarray)
    assert np.array_equal(pixels, plane[window(1, 1)])


@pytest.mark.parametrize(("is_plain", "rounds"), [(True, 500), (False, 25)])
def test_random_damage_to_hcompress_never_ends_this_process(is_plain: bool, rounds: int) -> None:
    raw, _ = make_map()
    rng = np.random.default_rng(7)
    begin, end = tile_span(raw, 5)
    for _ in range(rounds):
        damaged = bytearray(raw)
        cut = int(rng.integers(begin + 2, end))
        damaged[cut : cut + 40] = rng.bytes(40)
        damaged[begin + 2 + int(rng.integers(0, 20))] = int(rng.integers(0, 256))
        found = open_map(bytes(damaged) if is_plain else as_astropys(bytes(damaged)))
        assert found.needs_child != is_plain
        (result,) = read_windows(found, [window(1, 1)])
        assert isinstance(result, MapError | np.ndarray)


@pytest.mark.parametrize(
    ("how", "checksum", "is_plain", "child"),
    [
        ("HCOMPRESS_1", False, False, True),
        ("HCOMPRESS_1", True, False, False),
        ("HCOMPRESS_1", False, True, False),
        ("RICE_1", False, False, False),
        ("GZIP_2", False, False, False),
    ],
)
def test_only_unverified_hcompress_that_is_astropys_needs_a_child(
    how: str, checksum: bool, is_plain: bool, child: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, plane = make_map(how, checksum=checksum)
    if not is_plain:
        monkeypatch.setattr(fits_maps, "_opened_plainly", lambda raw: None)
    forks: list[int] = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: forks.append(1) or fork())
    pixels, _ = read_windows(open_map(raw), [window(1, 1), window(0, 0)])
    assert isinstance(pixels, np.ndarray)
    assert np.array_equal(pixels, plane[window(1, 1)])
    assert len(forks) == int(child)


def decode_with(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    real, parent = fits_maps._sections, os.getpid()

    def sections(raw: bytes, windows: Sequence[Window]) -> Any:
        if os.getpid() != parent:
            act()
        return real(raw, windows)

    monkeypatch.setattr(fits_maps, "_sections", sections)


def no_memory() -> None:
    raise MemoryError("no more")


def test_memory_that_runs_out_in_the_child_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    decode_with(monkeypatch, no_memory)
    with pytest.raises(MemoryError, match="no more"):
        read_windows(open_map(as_astropys(make_map()[0])), [window(0, 0)])


def test_a_child_killed_from_outside_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    decode_with(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ChildProcessError, match="-9"):
        read_windows(open_map(as_astropys(make_map()[0])), [window(0, 0)])


def test_a_child_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits_maps, "CHILD_SECONDS", 0.3)
    children: list[int] = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: children.append(fork()) or children[-1])
    decode_with(monkeypatch, lambda: signal.pause())
    with pytest.raises(ChildProcessError, match="did not end"):
        read_windows(open_map(as_astropys(make_map()[0])), [window(0, 0)])
    with pytest.raises(ProcessLookupError):  # killed, and its ending taken note of
        os.kill(children[0], 0)


def test_the_child_leaves_no_files_open() -> None:
    raw, plane = make_map()
    found = open_map(as_astropys(raw))
    before = len(os.listdir("/proc/self/fd"))
    for map_ in (found, found, replace(found, needs_child=False), open_map(raw)):
        (pixels,) = read_windows(map_, [window(0, 0)])
        assert np.array_equal(pixels, plane[window(0, 0)])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("how", ["RICE_1", "GZIP_2", "HCOMPRESS_1"])
def test_the_survey_s_kind_is_read_without_astropy_opening_it(
    how: str, checksum: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, plane = make_map(how, checksum=checksum)
    monkeypatch.setattr(fits, "open", None)
    (pixels,) = read_windows(open_map(raw), [window(1, 1)])
    assert isinstance(pixels, np.ndarray)
    assert np.array_equal(pixels, plane[window(1, 1)])


@pytest.mark.parametrize("card", [b"lower   = 1", b"EXTNAME = 'TWICE'", b"A       = (1, 2)", b"BZERO   = 0.5"])
@pytest.mark.parametrize("how", ["RICE_1", "HCOMPRESS_1"])
def test_what_is_not_plain_is_astropys(how: str, card: bytes) -> None:
    raw = with_card(make_map(how)[0], card)
    found = open_map(raw)
    assert found.tiles is None
    assert found.needs_child == (how == "HCOMPRESS_1")
    with fits.open(io.BytesIO(raw)) as hdus:
        expected = np.array(hdus[1].section[window(1, 1)])
    (pixels,) = read_windows(found, [window(1, 1)])
    assert isinstance(pixels, np.ndarray)
    assert pixels.dtype == expected.dtype
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("how", ["RICE_1", "GZIP_2"])
def test_both_ways_say_the_same_of_a_damaged_tile(how: str) -> None:
    raw, plane = make_map(how)
    begin, end = tile_span(raw, 5)
    damaged = open_map(raw[:begin] + b"\xff" * (end - begin) + raw[end:])
    for map_ in (damaged, replace(damaged, tiles=None)):
        bad, good = read_windows(map_, [window(1, 1), window(0, 0)])
        assert isinstance(bad, MapError)
        assert str(bad).startswith("tiles of columns 110-189, rows 110-189 cannot be decoded: ")
        assert isinstance(good, np.ndarray)
        assert np.array_equal(good, plane[window(0, 0)])
