"""Damaged maps: checked before anything is allocated, and decoded where they can do no harm."""

from __future__ import annotations

import io
import os
import signal
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from dhs_pipeline import fits_maps
from dhs_pipeline.fits_maps import MapError, OpenMap, opened, read_windows

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


def window(row: int, column: int) -> fits_maps.Window:
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
        with pytest.raises(MapError, match=told), opened(damaged):
            pass
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 20e6


@pytest.mark.parametrize("max_sections", [150, 1])
def test_a_tile_that_ends_its_process_costs_its_own_window(max_sections: int) -> None:
    raw, plane = make_map()
    windows = [window(0, 0), window(1, 2), window(3 - 1, 1)]
    with opened(with_no_size(raw, 1 * 4 + 2)) as found:
        assert found.needs_child
        good, bad, also_good = read_windows(found, windows, max_sections)
    assert isinstance(bad, MapError)
    assert "columns 210-289, rows 110-189 cannot be decoded: decoding them ends the process (SIGFPE)" in str(bad)
    for pixels, place in ((good, windows[0]), (also_good, windows[2])):
        assert isinstance(pixels, np.ndarray)
        assert np.array_equal(pixels, plane[place])


def test_random_damage_to_hcompress_never_ends_this_process() -> None:
    raw, _ = make_map()
    rng = np.random.default_rng(7)
    begin, end = tile_span(raw, 5)
    for _ in range(25):
        damaged = bytearray(raw)
        cut = int(rng.integers(begin + 2, end))
        damaged[cut : cut + 40] = rng.bytes(40)
        damaged[begin + 2 + int(rng.integers(0, 20))] = int(rng.integers(0, 256))
        with opened(bytes(damaged)) as found:
            (result,) = read_windows(found, [window(1, 1)], 150)
        assert isinstance(result, MapError | np.ndarray)


@pytest.mark.parametrize(
    ("how", "checksum", "child"),
    [("HCOMPRESS_1", False, True), ("HCOMPRESS_1", True, False), ("RICE_1", False, False), ("GZIP_2", False, False)],
)
def test_only_unverified_hcompress_needs_a_child(
    how: str, checksum: bool, child: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, plane = make_map(how, checksum=checksum)
    forks: list[int] = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: forks.append(1) or fork())
    with opened(raw) as found:
        (pixels,) = read_windows(found, [window(1, 1)], 150)
    assert isinstance(pixels, np.ndarray)
    assert np.array_equal(pixels, plane[window(1, 1)])
    assert len(forks) == int(child)


def decode_with(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    real, parent = fits_maps._decode, os.getpid()

    def decode(hdu: Any, windows: Sequence[fits_maps.Window], max_sections: int) -> Any:
        if os.getpid() != parent:
            act()
        return real(hdu, windows, max_sections)

    monkeypatch.setattr(fits_maps, "_decode", decode)


def no_memory() -> None:
    raise MemoryError("no more")


def test_memory_that_runs_out_in_the_child_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    decode_with(monkeypatch, no_memory)
    with opened(make_map()[0]) as found, pytest.raises(MemoryError, match="no more"):
        read_windows(found, [window(0, 0)], 150)


def test_a_child_killed_from_outside_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    decode_with(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with opened(make_map()[0]) as found, pytest.raises(ChildProcessError, match="-9"):
        read_windows(found, [window(0, 0)], 150)


def test_a_child_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits_maps, "CHILD_SECONDS", 0.3)
    children: list[int] = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: children.append(fork()) or children[-1])
    decode_with(monkeypatch, lambda: signal.pause())
    with opened(make_map()[0]) as found, pytest.raises(ChildProcessError, match="did not end"):
        read_windows(found, [window(0, 0)], 150)
    with pytest.raises(ProcessLookupError):  # killed, and its ending taken note of
        os.kill(children[0], 0)


def test_the_child_leaves_no_files_open(tmp_path: Path) -> None:
    raw, _ = make_map()
    before = len(os.listdir("/proc/self/fd"))
    with opened(raw) as found:
        for _ in range(3):
            read_windows(found, [window(0, 0)], 150)
        in_process = read_windows(replace(found, needs_child=False), [window(0, 0)], 150)
        assert np.array_equal(in_process[0], read_windows(OpenMap(found.hdu, True), [window(0, 0)], 150)[0])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("how", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
@pytest.mark.parametrize("quantized", [True, False])
def test_windows_are_astropys_own_sections(how: str, quantized: bool) -> None:
    """Dithered floats with NaN, scaled integers; windows in one tile, across tiles, and at the ragged edge."""
    rng = np.random.default_rng(3)
    plane = rng.normal(0, 1, SHAPE).astype(np.float32) if quantized else rng.integers(0, 99, SHAPE).astype(np.uint16)
    if quantized and how != "HCOMPRESS_1":
        plane[20:23, 30:40] = np.nan
    options: dict[str, Any] = {"quantize_level": 16, "quantize_method": 2, "dither_seed": 7} if quantized else {}
    hdu = fits.CompImageHDU(plane, compression_type=how, tile_shape=(TILE_PIX, TILE_PIX), **options)
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(out)
    windows = [window(0, 0), window(1, 2), (slice(70, 171), slice(150, 251)), (slice(300, 380), slice(320, 400))]
    with fits.open(io.BytesIO(out.getvalue())) as hdus:
        expected = [np.array(hdus[1].section[w]) for w in windows]
    for max_sections in (150, 0):
        with opened(out.getvalue()) as found:
            for pixels, wanted in zip(read_windows(found, windows, max_sections), expected, strict=True):
                assert isinstance(pixels, np.ndarray)
                assert pixels.dtype == wanted.dtype
                assert np.array_equal(pixels, wanted, equal_nan=quantized)


def test_a_map_asks_each_card_once(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, _ = make_map("RICE_1")
    asked = []
    get = fits.Header.__getitem__
    monkeypatch.setattr(fits.Header, "__getitem__", lambda self, key: asked.append(key) or get(self, key))
    counts = []
    for n in (1, 12):
        with opened(raw) as found:
            asked.clear()
            read_windows(found, [window(1, 1)] * n, 150)
        counts.append(len(asked))
    assert counts[1] == counts[0]
