"""Windows of pixels out of a tile-compressed image: every tile below them is decoded once, one at a time.

Astropy's own section decodes a tile again for each window on it, inflates a GZIP_2 tile twice and reads the table of
tiles anew each time. The decoders of Rice and HCOMPRESS and the dither are astropy's; the pixels are the same, bit for
bit.

:func:`tile_table` says which images are known here: those of the survey's kind. Every other one is astropy's to read.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import astropy
import numpy as np
from astropy.io.fits.hdu.base import BITPIX2DTYPE
from astropy.io.fits.hdu.compressed._quantization import DITHER_METHODS, Quantize
from astropy.io.fits.hdu.compressed._tiled_compression import (
    _decompress_tile,
    _finalize_array,
    _header_to_settings,
    _update_tile_settings,
)
from numpy.typing import NDArray

from dhs_pipeline.fits_errors import FITS_ERRORS, MapError, Window, told, undecodable

MAX_DITHER_SEED = 10_000
"""Largest ZDITHER0 (FITS standard 4.0, 10.2.1)."""

HCOMPRESS_EXAMINED = ("8.0.2",)
"""Versions of astropy whose HCOMPRESS decoder was read and tried (docs/throughput.md), for ``_harmless_hcompress``.
With another one such maps are left to astropy's section, in a forked child."""

MAX_HCOMPRESS_PIX = 1 << 24
"""Largest HCOMPRESS tile; astropy counts its bytes, eight a pixel, in 32 bits."""

# Columns of the table of tiles (FITS standard 4.0, 10.1.3) and the forms that are read here: arrays of bytes in the
# heap, described by their length and place; or one number a tile.
_BYTES = re.compile(r"1?([PQ])B(\(\d+\))?")
_NUMBERS = {"ZSCALE": ("D", ">f8"), "ZZERO": ("D", ">f8"), "ZBLANK": ("J", ">i4")}
_ALTERED = ("TSCAL", "TZERO", "TNULL", "TDIM")

# The compressions that are read here, and the values of their settings that are (FITS standard 4.0, 10.4.1 and 10.4.4).
_RICE = {"blocksize": (16, 32), "bytepix": (1, 2, 4)}
_KNOWN_SETTINGS: dict[str, dict[str, tuple[int, ...]]] = {
    "RICE_1": _RICE,
    "RICE_ONE": _RICE,
    "HCOMPRESS_1": {"smooth": (0,)},
    "GZIP_1": {},
    "GZIP_2": {},
}

_Part: TypeAlias = tuple[Window, Window]  # of a window, and of a tile

_GZIP_HEADER_BITS = 16 + zlib.MAX_WBITS  # zlib's way to say that the stream is gzip's
_WIDEST_PIXEL_BYTES = 8


@dataclass(frozen=True)
class TileTable:
    """A tile-compressed image, not yet decoded.

    Parameters
    ----------
    shape, tile_shape
        Rows and columns of the image and of a tile, which may be cut off at the image's upper edges.
    dtype
        Of the pixels.
    compression
        ZCMPTYPE.
    settings
        Of astropy's decoder.
    rows
        The table, a row for each tile.
    heap
        The bytes that its descriptors point into.
    dither_method, dither_seed
        As astropy numbers them.
    blank
        ZBLANK of the header.
    """

    shape: tuple[int, int]
    tile_shape: tuple[int, int]
    dtype: np.dtype[Any]
    compression: str
    settings: dict[str, int]
    rows: NDArray[Any]
    heap: memoryview
    dither_method: int
    dither_seed: int
    blank: int | None

    @property
    def is_quantized(self) -> bool:
        return "ZSCALE" in self._columns

    @property
    def across(self) -> int:
        """How many tiles lie side by side."""
        return -(-self.shape[1] // self.tile_shape[1])

    @property
    def _columns(self) -> tuple[str, ...]:
        return self.rows.dtype.names or ()

    def tile(self, number: int) -> NDArray[Any]:
        """Decode one tile. Raises one of FITS_ERRORS if that cannot be done."""
        shape = self._shape_of(number)
        compressed = self._bytes_of(number, "COMPRESSED_DATA")
        if not compressed:
            # A tile that could not be quantized is kept without loss (FITS standard 4.0, 10.1.3).
            if "GZIP_COMPRESSED_DATA" not in self._columns:
                raise ValueError("no compressed bytes")
            kept = self._bytes_of(number, "GZIP_COMPRESSED_DATA")
            return _inflated_pixels(kept, shape, is_float=self.dtype.kind == "f", is_shuffled=False)
        if self.compression in ("GZIP_1", "GZIP_2"):
            is_float = self.dtype.kind == "f" and not self.is_quantized
            stored = _inflated_pixels(compressed, shape, is_float, is_shuffled=self.compression == "GZIP_2")
        else:
            stored = self._decompressed(compressed, shape)
        return self._dequantized(number, stored) if self.is_quantized else stored

    def _shape_of(self, number: int) -> tuple[int, int]:
        rows, columns = (
            min(side, whole - place * side)
            for side, whole, place in zip(self.tile_shape, self.shape, divmod(number, self.across), strict=True)
        )
        return rows, columns

    def _bytes_of(self, number: int, column: str) -> memoryview:
        length, place = self.rows[column][number].tolist()
        if length == 0:
            return self.heap[:0]
        if not 0 <= place <= place + length <= len(self.heap):
            raise ValueError(f"{length} bytes at {place} are not within the {len(self.heap)} of the heap")
        return self.heap[place : place + length]

    def _decompressed(self, compressed: memoryview, shape: tuple[int, int]) -> NDArray[Any]:
        settings = _update_tile_settings(dict(self.settings), self.compression, shape)
        stream = _harmless_hcompress(compressed, shape) if self.compression == "HCOMPRESS_1" else compressed
        values = _decompress_tile(np.frombuffer(stream, np.uint8), algorithm=self.compression, **settings)
        bitpix = 8 * self.dtype.itemsize * (-1 if self.dtype.kind == "f" else 1)
        return _finalize_array(
            values, bitpix=bitpix, tile_shape=shape, algorithm=self.compression, lossless=not self.is_quantized
        )

    def _dequantized(self, number: int, stored: NDArray[Any]) -> NDArray[Any]:
        blank = self.blank if "ZBLANK" not in self._columns else int(self.rows["ZBLANK"][number])
        dither = Quantize(
            row=number + self.dither_seed if self.dither_method != DITHER_METHODS["NO_DITHER"] else 0,
            dither_method=self.dither_method,
            quantize_level=None,
            bitpix=-8 * self.dtype.itemsize,
        )
        found = dither.decode_quantized(stored, self.rows["ZSCALE"][number], self.rows["ZZERO"][number])
        pixels = np.asarray(found).reshape(stored.shape)
        if blank is not None and (is_blank := stored == blank).any():
            return np.where(is_blank, np.asarray(np.nan, pixels.dtype), pixels)
        return pixels


def read_tiles(table: TileTable, windows: Sequence[Window]) -> list[NDArray[Any] | MapError]:
    """The pixels of each window, or why a tile below it cannot be decoded.

    Raises
    ------
    ValueError
        If a window is empty or not on the image.
    MemoryError
        If memory runs out.
    """
    below: dict[int, list[tuple[int, _Part]]] = {}
    for index, window in enumerate(windows):
        for number, part in _parts(table, window):
            below.setdefault(number, []).append((index, part))
    found: list[NDArray[Any] | MapError] = [
        np.empty((rows.stop - rows.start, columns.stop - columns.start), table.dtype) for rows, columns in windows
    ]
    for number in sorted(below):  # so that it is the first bad tile of a window that is told
        try:
            tile = table.tile(number)
        except FITS_ERRORS as error:
            for index, _ in below[number]:
                if not isinstance(found[index], MapError):
                    found[index] = undecodable(windows[index], told(error))
            continue
        for index, (of_window, of_tile) in below[number]:
            if not isinstance(pixels := found[index], MapError):
                pixels[of_window] = tile[of_tile]
    return found


def _parts(table: TileTable, window: Window) -> Iterator[tuple[int, _Part]]:
    """Number of each tile below a window, and what the two share."""
    rows, columns = (list(_parts_along(*along)) for along in zip(window, table.tile_shape, table.shape, strict=True))
    for row, row_of_window, row_of_tile in rows:
        for column, column_of_window, column_of_tile in columns:
            yield row * table.across + column, ((row_of_window, column_of_window), (row_of_tile, column_of_tile))


def _parts_along(part: slice, tile_side: int, image_side: int) -> Iterator[tuple[int, slice, slice]]:
    if not 0 <= part.start < part.stop <= image_side:
        raise ValueError(f"window of {part.start} to {part.stop} on an image of {image_side} pixels")
    for place in range(part.start // tile_side, (part.stop - 1) // tile_side + 1):
        corner = place * tile_side
        begin, end = max(corner, part.start), min(corner + tile_side, part.stop)
        yield place, slice(begin - part.start, end - part.start), slice(begin - corner, end - corner)


# --- gzip ---------------------------------------------------------------------------------------------------------


def _inflated_pixels(compressed: memoryview, shape: tuple[int, int], is_float: bool, is_shuffled: bool) -> NDArray[Any]:
    """Pixels of a GZIP_1 or GZIP_2 tile (FITS standard 4.0, 10.4.2), whose width its inflated size tells."""
    count = math.prod(shape)
    raw = _inflated(compressed, count * _WIDEST_PIXEL_BYTES)
    width = len(raw) // count
    if width not in (1, 2, 4, 8) or width * count != len(raw):
        raise ValueError(f"{len(raw)} bytes for {count} pixels")
    kind = "u" if width == 1 else "f" if is_float and width >= 4 else "i"
    if not is_shuffled:
        return np.frombuffer(raw, f">{kind}{width}").reshape(shape)
    # All first bytes, then all second bytes: the highest come first.
    planes = np.frombuffer(raw, np.uint8).reshape(width, count)
    pixels = np.empty((count, width), np.uint8)
    for place, plane in enumerate(planes):
        pixels[:, width - 1 - place] = plane
    return pixels.view(f"<{kind}{width}").reshape(shape)


def _inflated(compressed: memoryview, most_bytes: int) -> bytes:
    """Inflate as ``gzip.decompress``, but never to more than a tile can hold: damaged bytes may promise gigabytes."""
    members: list[bytes] = []
    rest: bytes | memoryview = compressed
    left_bytes = most_bytes
    while rest:
        member = zlib.decompressobj(_GZIP_HEADER_BITS)
        members.append(member.decompress(rest, left_bytes + 1))
        left_bytes -= len(members[-1])
        if left_bytes < 0:
            raise ValueError(f"more than {most_bytes} bytes in a gzip stream")
        if not member.eof:
            raise EOFError("a gzip stream ends early")
        rest = member.unused_data.lstrip(b"\0")  # zeros may follow a member, or another member
    return b"".join(members)


# --- HCOMPRESS ----------------------------------------------------------------------------------------------------

# What a stream begins with (decode64 in cfitsio's fits_hdecompress.c): two bytes that say what it is, sides,
# scale, sum of the pixels, and the number of bit planes of the first quadrant, of the next two and of the last.
_HCOMPRESS_HEADER = struct.Struct(">2xii4x8x3B")
_MOST_BIT_PLANES = 64
_CODE_BITS = 6  # of its longest Huffman code
_FORMAT_BITS = 4  # before each bit plane, and after the last


def _harmless_hcompress(stream: memoryview, shape: tuple[int, int]) -> bytes:
    """A stream that astropy's decoder neither reads nor writes out of bounds on, whatever its bytes are.

    The decoder (cfitsio's, as astropy 8.0.2 has it) believes the sides that the stream gives itself, and reads on past
    its end until it has all that it wants. With the sides of the tile it writes within the tile, and with zeros up to
    the most that it can want it reads within its input. The order of the sides is of no consequence.
    """
    rows, columns, *planes = _HCOMPRESS_HEADER.unpack_from(stream)
    if sorted((rows, columns)) != sorted(shape):
        raise ValueError(f"HCOMPRESS stream of {rows}x{columns} pixels in a tile of {shape[0]}x{shape[1]}")
    if max(planes) > _MOST_BIT_PLANES:
        raise ValueError(f"HCOMPRESS stream of {max(planes)} bit planes")
    return stream.tobytes().ljust(_most_hcompress_bytes(rows, columns, planes), b"\0")


def _most_hcompress_bytes(rows: int, columns: int, planes: Sequence[int]) -> int:
    """No decoder wants more bytes than this: all codes there, each the longest, and the sign of every pixel."""
    upper, left = (rows + 1) // 2, (columns + 1) // 2
    bits = planes[0] * _most_plane_bits(upper, left)
    bits += planes[1] * (_most_plane_bits(upper, columns // 2) + _most_plane_bits(rows // 2, left))
    bits += planes[2] * _most_plane_bits(rows // 2, columns // 2)
    bits += _FORMAT_BITS + rows * columns
    # The signs start at a byte of their own, and the last one may leave another unfinished.
    return _HCOMPRESS_HEADER.size + bits // 8 + 2


def _most_plane_bits(rows: int, columns: int) -> int:
    """Of one bit plane of a quadrant: a quadtree whose every node of 2x2 has a code. Without codes it takes less."""
    nodes = 1 if rows == columns == 1 else 0
    while rows > 1 or columns > 1:
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
        nodes += rows * columns
    return _FORMAT_BITS + _CODE_BITS * nodes


# --- what is known ------------------------------------------------------------------------------------------------


def tile_table(header: Mapping[str, Any], data: memoryview) -> TileTable | None:
    """The table of tiles of an image compressed as the survey's; None if some of it is not known here.

    Known are Rice, gzip and HCOMPRESS; integers as they are, and floats that are quantized or gzipped.

    Parameters
    ----------
    header
        Of the table, whose ZNAXISn, ZTILEn and NAXIS2 are sizes that agree.
    data
        Table and heap.
    """
    try:
        return _tile_table(header, data)
    except FITS_ERRORS:
        return None


def _tile_table(header: Mapping[str, Any], data: memoryview) -> TileTable | None:
    compression, bitpix = header["ZCMPTYPE"], header["ZBITPIX"]
    settings, row_dtype = _settings(header, compression), _row_dtype(header)
    if settings is None or row_dtype is None or _is_scaled(header) or bitpix not in BITPIX2DTYPE:
        return None
    names = row_dtype.names or ()
    dither_method = DITHER_METHODS[header.get("ZQUANTIZ", "NO_DITHER")]
    seed, blank = header.get("ZDITHER0", 0), header.get("ZBLANK")
    if "ZSCALE" in names:
        # Astropy's dither reads out of bounds for a seed below 1.
        is_seeded = dither_method == DITHER_METHODS["NO_DITHER"] or 1 <= seed <= MAX_DITHER_SEED
        is_known = bitpix < 0 and "ZZERO" in names and type(seed) is int and is_seeded
    else:
        is_gzip = compression.startswith("GZIP")
        is_known = (bitpix > 0 or is_gzip) and blank is None and not {"ZZERO", "ZBLANK"} & set(names)
    if not is_known or not (blank is None or type(blank) is int):
        return None
    sizes = [header[f"{key}{axis}"] for key in ("ZNAXIS", "ZTILE") for axis in (2, 1)]
    if not all(type(size) is int for size in sizes):
        return None
    rows, columns, tile_rows, tile_columns = sizes
    if compression == "HCOMPRESS_1" and tile_rows * tile_columns > MAX_HCOMPRESS_PIX:
        return None
    table_bytes = header["NAXIS1"] * header["NAXIS2"]
    return TileTable(
        shape=(rows, columns),
        tile_shape=(tile_rows, tile_columns),
        dtype=np.dtype(BITPIX2DTYPE[bitpix]),
        compression=compression,
        settings=settings,
        rows=np.frombuffer(data[:table_bytes], row_dtype),
        heap=data[table_bytes : table_bytes + header["PCOUNT"]],
        dither_method=dither_method,
        dither_seed=seed,
        blank=blank,
    )


def _is_scaled(header: Mapping[str, Any]) -> bool:
    return header.get("BSCALE", 1) != 1 or header.get("BZERO", 0) != 0 or "BLANK" in header


def _settings(header: Mapping[str, Any], compression: str) -> dict[str, int] | None:
    """What astropy's decoder is told; None for a compression, or a setting, that is not known here."""
    if compression not in _KNOWN_SETTINGS:
        return None
    if compression == "HCOMPRESS_1" and astropy.__version__ not in HCOMPRESS_EXAMINED:
        return None
    settings = _header_to_settings(header)
    known = _KNOWN_SETTINGS[compression].items()
    return settings if all(type(settings[key]) is int and settings[key] in values for key, values in known) else None


def _row_dtype(header: Mapping[str, Any]) -> np.dtype[Any] | None:
    """Of a row of the table; None if there is a column that is not known here."""
    fields: list[tuple[Any, ...]] = []
    for i in range(1, header["TFIELDS"] + 1):
        name, form = header[f"TTYPE{i}"], header[f"TFORM{i}"]
        if any(f"{key}{i}" in header for key in _ALTERED):
            return None
        if name in ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA") and (described := _BYTES.fullmatch(form)):
            fields.append((name, ">i4" if described[1] == "P" else ">i8", (2,)))
        elif name in _NUMBERS and form.removeprefix("1") == _NUMBERS[name][0]:
            fields.append((name, _NUMBERS[name][1]))
        else:
            return None
    dtype = np.dtype(fields)
    at_the_end = header["NAXIS1"] * header["NAXIS2"]
    is_plain = dtype.itemsize == header["NAXIS1"] and header.get("THEAP", at_the_end) == at_the_end
    return dtype if is_plain and "COMPRESSED_DATA" in (dtype.names or ()) else None
