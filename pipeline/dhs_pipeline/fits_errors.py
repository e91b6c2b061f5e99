"""What a damaged FITS file makes astropy raise, and how it is told."""

from __future__ import annotations

import struct
import zlib
from typing import TypeAlias

from astropy.io.fits.hdu.compressed._compression import CfitsioException
from astropy.io.fits.verify import VerifyError

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

Window: TypeAlias = tuple[slice, slice]
"""Rows and columns."""


class MapError(Exception):
    """A map that is not the FITS file it should be; the message is one line."""


def undecodable(window: Window, found: str) -> MapError:
    """The failure of a window some tile of which cannot be decoded."""
    rows, columns = window
    at = f"columns {columns.start}-{columns.stop - 1}, rows {rows.start}-{rows.stop - 1}"
    return MapError(f"tiles of {at} cannot be decoded: {found}")


def told(error: BaseException) -> str:
    """An exception on one line, without the path that OSError repeats."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())}"[:300]
