"""Tile-compressed FITS maps held in memory: their header checked before anything is allocated, windows of pixels out.

Maps of the survey's kind, plainly written, are read by :mod:`dhs_pipeline.fits_header` and
:mod:`dhs_pipeline.fits_tiles`. Whatever these do not know, and every damaged header, is astropy's: what it reads is
read with its sections, window by window, and what it refuses is told in its words.

Rice tiles carry no check of their own: flipped bytes in one decode to wrong pixels in about half the cases. Only
a file with CHECKSUM or DATASUM in HDU 1 is safe from that, so these are verified where they are present.

A damaged HCOMPRESS_1 tile (nexp and maskbits of the survey) can make astropy (8.0.2) read and write past its buffers,
which can end the process. :mod:`dhs_pipeline.fits_tiles` gives astropy's decoder only streams on which it cannot.
Other maps of that kind that have no verified sum are decoded in a forked child; its death by such a signal is a fault
of the file. Death by SIGKILL is not (the machine ran out of memory), nor is MemoryError: both are raised, so that the
task is tried again.
"""

from __future__ import annotations

import faulthandler
import io
import math
import os
import pickle
import re
import resource
import select
import signal
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

from dhs_pipeline.fits_errors import FITS_ERRORS, MapError, Window, told, undecodable
from dhs_pipeline.fits_header import BLOCK_BYTES, plain_header
from dhs_pipeline.fits_tiles import TileTable, read_tiles, tile_table

MAX_SIDE_PIX = 20_000
"""Longest side of a map or a tile; bricks have 3,600 px. A plane of this size takes 1.6 GB."""

CHILD_SECONDS = 120.0
"""Longest time for one map in a child; it takes 0.3 s."""

# What HDU 1 must say to be read without astropy: a table (FITS standard 4.0, 7.3.1) that holds a plane (10.1.1).
_PLAIN_TABLE = {"XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "GCOUNT": 1, "ZIMAGE": True, "ZNAXIS": 2}

# Signals by which a process ends that wrote or read where it must not.
_FAULTS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


@dataclass(frozen=True)
class OpenMap:
    """HDU 1 of a map, header parsed and checked, pixels not yet decoded.

    Parameters
    ----------
    raw
        The file.
    shape
        Rows and columns.
    values
        Of the header's keywords.
    tiles
        None if astropy must read them.
    needs_child
        Whether decoding it can end the process.
    """

    raw: bytes
    shape: tuple[int, int]
    values: Mapping[str, Any]
    tiles: TileTable | None
    needs_child: bool

    def image_header(self) -> fits.Header:
        """The header as of an image that is not compressed. Raises one of FITS_ERRORS."""
        with _astropy(self.raw) as hdus:
            return hdus[1].header


def open_map(raw: bytes) -> OpenMap:
    """Parse a file.

    Raises
    ------
    MapError
        If HDU 1 is no compressed image of a sane size, the file is truncated, or a checksum is wrong.
    """
    return _opened_plainly(raw) or _opened_by_astropy(raw)


def _opened_plainly(raw: bytes) -> OpenMap | None:
    primary = plain_header(raw, 0)
    if primary is None or primary.values.get("SIMPLE") is not True or primary.values.get("NAXIS") != 0:
        return None
    table = plain_header(raw, primary.data_start)
    if table is None or any(table.values.get(key) != value for key, value in _PLAIN_TABLE.items()):
        return None
    values, start = table.values, table.data_start
    sizes = [size for key in ("NAXIS1", "NAXIS2", "PCOUNT") if type(size := values.get(key)) is int and size >= 0]
    if len(sizes) != 3:
        return None
    width, n_rows, heap_bytes = sizes
    end = start + -(-(width * n_rows + heap_bytes) // BLOCK_BYTES) * BLOCK_BYTES
    if end > len(raw):
        return None
    data = memoryview(raw)[start:end]
    try:
        _check_layout(values)
    except MapError:
        return None  # in astropy's words
    tiles = tile_table(values, data)
    if tiles is None:
        return None
    _check_sums(raw[primary.data_start : start], data)
    return OpenMap(raw, tiles.shape, values, tiles, needs_child=False)


@contextmanager
def _astropy(raw: bytes) -> Iterator[fits.HDUList]:
    """The file as astropy opens it; truncation and unreadable cards become errors of whoever asks for them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        warnings.simplefilter("ignore", VerifyWarning)
        with fits.open(io.BytesIO(raw), memmap=False) as hdus:
            yield hdus


def _opened_by_astropy(raw: bytes) -> OpenMap:
    try:
        with _astropy(raw) as hdus:
            return _checked(hdus, raw)
    except FITS_ERRORS as error:
        raise MapError(f"{len(raw)} bytes, {told(error)}") from error


def _checked(hdus: fits.HDUList, raw: bytes) -> OpenMap:
    try:
        hdu = hdus[1]
        span = hdus.fileinfo(1)
        start, data_start, end = span["hdrLoc"], span["datLoc"], span["datLoc"] + span["datSpan"]
        described = f"{type(hdu).__name__} of shape {getattr(hdu, 'shape', None)}"
        is_image = isinstance(hdu, fits.CompImageHDU) and len(hdu.shape) == 2 and min(hdu.shape) > 0
    except FITS_ERRORS as error:
        raise MapError(f"no readable HDU 1 in {len(raw)} bytes: {told(error)}") from error
    if not is_image:
        raise MapError(f"HDU 1 is a {described}, not a compressed image")
    if len(raw) < end:
        raise MapError(f"truncated: {len(raw)} bytes, the header of HDU 1 promises {end}")
    header = raw[start:data_start]
    compression = _check_layout(_cards(header))
    has_sum = _check_sums(header, memoryview(raw)[data_start:end])
    rows, columns = (int(side) for side in hdu.shape)
    needs_child = compression.startswith("HCOMPRESS") and not has_sum
    return OpenMap(raw, (rows, columns), hdu.header, None, needs_child)


def _cards(header: bytes) -> fits.Header:
    try:
        return fits.Header.fromstring(header)
    except FITS_ERRORS as error:
        raise MapError(f"no readable layout of tiles in HDU 1: {told(error)}") from error


def _check_layout(values: Mapping[str, Any]) -> str:
    """Sizes within bounds and in agreement with each other (FITS standard 4.0, 10.1); returns ZCMPTYPE.

    The decoders allocate what these numbers say.
    """
    try:
        sides, tile = ([int(values[f"{key}{axis}"]) for axis in (1, 2)] for key in ("ZNAXIS", "ZTILE"))
        n_tiles, compression = int(values["NAXIS2"]), str(values["ZCMPTYPE"])
    except FITS_ERRORS as error:
        raise MapError(f"no readable layout of tiles in HDU 1: {told(error)}") from error
    described = f"{sides[0]}x{sides[1]} in tiles of {tile[0]}x{tile[1]}"
    if not all(1 <= side <= MAX_SIDE_PIX for side in (*sides, *tile)):
        raise MapError(f"image of {described} pixels: not sizes from 1 to {MAX_SIDE_PIX}")
    expected = math.prod(-(-side // length) for side, length in zip(sides, tile, strict=True))
    if n_tiles != expected:
        raise MapError(f"{n_tiles} tiles, an image of {described} pixels has {expected}")
    return compression


def _check_sums(header: bytes, pixels: memoryview) -> bool:
    """Verify CHECKSUM and DATASUM (FITS standard 4.0, 4.4.2.7) of HDU 1; returns whether it has one of the pixels."""
    cards = [header[i : i + 80] for i in range(0, len(header), 80)]
    has_sum = any(card.startswith(b"CHECKSUM=") for card in cards)
    if has_sum and _ones_sum(header, pixels) != 0xFFFFFFFF:
        raise MapError("CHECKSUM of HDU 1 is wrong")
    for card in cards:
        found = re.match(rb"DATASUM = *'? *(\d+)", card)
        if found and int(found[1]) != (actual := _ones_sum(pixels)):
            raise MapError(f"DATASUM of HDU 1 is {actual}, its header says {int(found[1])}")
        has_sum = has_sum or found is not None
    return has_sum


def _ones_sum(*blocks: bytes | memoryview) -> int:
    """32-bit ones'-complement sum of big-endian words; FITS blocks are whole words."""
    total = sum(int(np.frombuffer(block, dtype=">u4").sum(dtype=np.uint64)) for block in blocks)
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


# --- pixels -------------------------------------------------------------------------------------------------------


def read_windows(map_: OpenMap, windows: Sequence[Window]) -> list[NDArray[Any] | MapError]:
    """The pixels of each window, or why its tiles cannot be decoded.

    Raises
    ------
    MemoryError
        If memory runs out, in the child as well.
    ChildProcessError
        If the child was killed from outside or does not end.
    """
    if map_.tiles is not None:
        return read_tiles(map_.tiles, windows)
    if not map_.needs_child or not windows:
        return _sections(map_.raw, windows)
    return _sections_in_child(map_.raw, windows)


def _sections(raw: bytes, windows: Sequence[Window]) -> list[NDArray[Any] | MapError]:
    """As :func:`read_tiles`, by astropy."""
    try:
        with _astropy(raw) as hdus:
            section = hdus[1].section
            return [_section(section, window) for window in windows]
    except FITS_ERRORS as error:
        return [undecodable(window, told(error)) for window in windows]


def _section(section: fits.CompImageSection, window: Window) -> NDArray[Any] | MapError:
    try:
        return np.array(section[window])
    except FITS_ERRORS as error:
        return undecodable(window, told(error))


# --- the child ----------------------------------------------------------------------------------------------------


class _DiedError(Exception):
    """The child ended by a signal that tells of a fault."""


def _sections_in_child(raw: bytes, windows: Sequence[Window]) -> list[NDArray[Any] | MapError]:
    """As :func:`_sections`, in a forked child; where that dies, each half in a child of its own, down to one window.

    So windows on other tiles go on.
    """
    try:
        return _ask_child(raw, windows)
    except _DiedError as death:
        if len(windows) == 1:
            return [undecodable(windows[0], f"decoding them ends the process ({death})")]
    half = len(windows) // 2
    return _sections_in_child(raw, windows[:half]) + _sections_in_child(raw, windows[half:])


def _ask_child(raw: bytes, windows: Sequence[Window]) -> list[NDArray[Any] | MapError]:
    """Fork, decode there, and take the result from a pipe."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_child(into, raw, windows)
    os.close(into)
    try:
        answer = _read_until(out, time.monotonic() + CHILD_SECONDS)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(out)
    ending = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if -ending in _FAULTS:
        raise _DiedError(signal.Signals(-ending).name)
    if ending != 0:
        raise ChildProcessError(f"the process that decoded a map ended with {ending}: it may have been out of memory")
    found = pickle.loads(answer)
    if isinstance(found, Exception):
        raise found
    return found


def _be_the_child(into: int, raw: bytes, windows: Sequence[Window]) -> NoReturn:
    """Only decodes and answers: no exit handlers, no buffers of the parent's are written twice, no core file."""
    try:
        faulthandler.disable()  # its report would say that the worker has crashed
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            answer: object = _sections(raw, windows)
        except Exception as error:  # noqa: BLE001 - raised in the parent
            answer = error
        with os.fdopen(into, "wb") as pipe:
            pickle.dump(answer, pipe, protocol=pickle.HIGHEST_PROTOCOL)
        os._exit(0)
    finally:
        os._exit(1)


def _read_until(pipe: int, deadline_s: float) -> bytes:
    """All that comes out of a pipe. ChildProcessError if that takes too long."""
    chunks: list[bytes] = []
    while True:
        if not select.select([pipe], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
            raise ChildProcessError(f"the process that decoded a map did not end within {CHILD_SECONDS:.0f} s")
        chunk = os.read(pipe, 1 << 20)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
