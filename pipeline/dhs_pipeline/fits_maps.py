"""Tile-compressed FITS maps held in memory: their header checked before anything is allocated, windows of pixels out.

Rice tiles carry no check of their own: flipped bytes in one decode to wrong pixels in about half the cases. Only
a file with CHECKSUM or DATASUM in HDU 1 is safe from that, so these are verified where they are present.

HCOMPRESS_1 tiles (nexp and maskbits of the survey) name their own size, and a damaged one makes astropy (8.0.2) write
past its buffer, which can end the process. Maps of that kind without a verified sum are decoded in a forked child;
its death by such a signal is a fault of the file. Death by SIGKILL is not (the machine ran out of memory), nor is
MemoryError: both are raised, so that the task is tried again.
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
import struct
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, TypeAlias

import numpy as np
from astropy.io import fits
from astropy.io.fits.hdu.compressed._compression import CfitsioException
from astropy.io.fits.verify import VerifyError, VerifyWarning
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

MAX_SIDE_PIX = 20_000
"""Longest side of a map or a tile; bricks have 3,600 px. A plane of this size takes 1.6 GB."""

CHILD_SECONDS = 120.0
"""Longest time for one map in a child; it takes 0.3 s."""

# What astropy raises on damaged files, found by damaging some: OSError (not FITS, empty, header without END, gzip
# CRC), IndexError (no HDU 1), KeyError, TypeError, ValueError and VerifyError (damaged header cards, tile table or
# a heap that ends early), AssertionError (column names), CfitsioException (Rice, HCOMPRESS), zlib.error (gzip).
FITS_ERRORS = (
    OSError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    struct.error,
    zlib.error,
    VerifyError,
    CfitsioException,
)

# Signals by which a process ends that wrote or read where it must not.
_FAULTS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)

Window: TypeAlias = tuple[slice, slice]
"""Rows and columns."""


class MapError(Exception):
    """A map that is not the FITS file it should be; the message is one line."""


@dataclass(frozen=True)
class OpenMap:
    """HDU 1 of a map, header parsed and checked, pixels not yet decoded.

    Parameters
    ----------
    needs_child
        Whether decoding it can end the process.
    """

    hdu: fits.CompImageHDU
    needs_child: bool


@contextmanager
def opened(raw: bytes) -> Iterator[OpenMap]:
    """Parse a file; its pixels can be read while the context lasts.

    Raises
    ------
    MapError
        If HDU 1 is no compressed image of a sane size, the file is truncated, or a checksum is wrong.
    """
    with warnings.catch_warnings():
        # Truncation and unreadable cards become errors here or in the reader.
        warnings.simplefilter("ignore", AstropyUserWarning)
        warnings.simplefilter("ignore", VerifyWarning)
        try:
            hdus = fits.open(io.BytesIO(raw), memmap=False)
        except FITS_ERRORS as error:
            raise MapError(f"{len(raw)} bytes, {told(error)}") from error
        with hdus:
            yield _checked(hdus, raw)


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
    compression = _check_layout(header)
    has_sum = _check_sums(header, memoryview(raw)[data_start:end])
    return OpenMap(hdu, needs_child=compression.startswith("HCOMPRESS") and not has_sum)


def _check_layout(header: bytes) -> str:
    """Sizes within bounds and in agreement with each other (FITS standard 4.0, 10.1); returns ZCMPTYPE.

    Astropy allocates what these numbers say.
    """
    try:
        cards = fits.Header.fromstring(header)
        sides, tile = ([int(cards[f"{key}{axis}"]) for axis in (1, 2)] for key in ("ZNAXIS", "ZTILE"))
        n_tiles, compression = int(cards["NAXIS2"]), str(cards["ZCMPTYPE"])
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


def read_windows(map_: OpenMap, windows: Sequence[Window], max_sections: int) -> list[NDArray[Any] | MapError]:
    """The pixels of each window, or why its tiles cannot be decoded.

    Parameters
    ----------
    max_sections
        Up to this many windows are decoded one by one, more from the whole plane.

    Raises
    ------
    MemoryError
        If memory runs out, in the child as well.
    ChildProcessError
        If the child was killed from outside or does not end.
    """
    if not map_.needs_child or not windows:
        return _decode(map_.hdu, windows, max_sections)
    return _decode_in_child(map_.hdu, windows, max_sections)


def _decode(hdu: fits.CompImageHDU, windows: Sequence[Window], max_sections: int) -> list[NDArray[Any] | MapError]:
    try:
        section = fits.CompImageSection(_Remembering(hdu))
    except FITS_ERRORS as error:
        return [_undecodable(window, told(error)) for window in windows]
    plane = _whole_plane(section) if len(windows) > max_sections else None
    return [_decode_one(section, plane, window) for window in windows]


def _decode_one(section: fits.CompImageSection, plane: NDArray[Any] | None, window: Window) -> NDArray[Any] | MapError:
    try:
        return np.array(section[window] if plane is None else plane[window])
    except FITS_ERRORS as error:
        return _undecodable(window, told(error))


def _undecodable(window: Window, found: str) -> MapError:
    rows, columns = window
    at = f"columns {columns.start}-{columns.stop - 1}, rows {rows.start}-{rows.stop - 1}"
    return MapError(f"tiles of {at} cannot be decoded: {found}")


def _whole_plane(section: fits.CompImageSection) -> NDArray[Any] | None:
    """The decoded map; None if some tile of it cannot be decoded.

    Each window is then read on its own, so that the outcome does not depend on how many there are.
    """
    try:
        return section[...]
    except FITS_ERRORS:
        return None


class _Remembering:
    """An HDU as its section sees it, whose headers are read once.

    Astropy's section asks a header for 65 values per window and three per tile, and parses the card each time: two
    thirds of what 4b took.
    """

    def __init__(self, hdu: fits.CompImageHDU) -> None:
        self._hdu = hdu
        self.header = _RememberingHeader(hdu.header)
        self._bintable = _RememberingTable(hdu._bintable)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hdu, name)


class _RememberingTable:
    def __init__(self, table: fits.BinTableHDU) -> None:
        self._table = table
        self.header = _RememberingHeader(table.header)

    @cached_property
    def _theap(self) -> int:
        return self._table._theap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)


class _RememberingHeader:
    """Values of a header, each read from its card once. One that cannot be read fails each time, and only then."""

    def __init__(self, header: fits.Header) -> None:
        self._header = header
        self._values: dict[str, Any] = {}
        self._there: dict[str, bool] = {}

    def __contains__(self, key: str) -> bool:
        if key not in self._there:
            self._there[key] = key in self._header
        return self._there[key]

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            self._values[key] = self._header[key]
        return self._values[key]

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self:
            return default
        return self[key]


# --- the child ----------------------------------------------------------------------------------------------------


class _DiedError(Exception):
    """The child ended by a signal that tells of a fault."""


def _decode_in_child(
    hdu: fits.CompImageHDU, windows: Sequence[Window], max_sections: int
) -> list[NDArray[Any] | MapError]:
    """As :func:`_decode`, in a forked child; where that dies, once more in a child for each window.

    So hosts on other tiles go on.
    """
    try:
        return _ask_child(hdu, windows, max_sections)
    except _DiedError as death:
        if len(windows) == 1:
            return [_undecodable(windows[0], f"decoding them ends the process ({death})")]
    return [_decode_in_child(hdu, [window], 1)[0] for window in windows]


def _ask_child(hdu: fits.CompImageHDU, windows: Sequence[Window], max_sections: int) -> list[NDArray[Any] | MapError]:
    """Fork, decode there, and take the result from a pipe."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_child(into, hdu, windows, max_sections)
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


def _be_the_child(into: int, hdu: fits.CompImageHDU, windows: Sequence[Window], max_sections: int) -> NoReturn:
    """Only decodes and answers: no exit handlers, no buffers of the parent's are written twice, no core file."""
    try:
        faulthandler.disable()  # its report would say that the worker has crashed
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            answer: object = _decode(hdu, windows, max_sections)
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


def told(error: BaseException) -> str:
    """An exception on one line, without the path that OSError repeats."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())}"[:300]
