"""Is this the file? Its HDUs, its bytes' SHA-256, and the release's list of those."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping
from io import BufferedReader, BytesIO

from astropy.io import fits
from astropy.io.fits.verify import VerifyError, VerifyWarning
from astropy.utils.exceptions import AstropyUserWarning

_SUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](\S.*)")

# What astropy raises on files that are not FITS, or whose headers are damaged.
_FITS_ERRORS = (OSError, IndexError, KeyError, TypeError, ValueError, AttributeError, VerifyError)


class WrongFileError(Exception):
    """The bytes are not the file they should be."""


class NotFitsError(WrongFileError):
    """Not FITS with an HDU 1, or shorter than its headers say."""


class ChecksumMismatchError(WrongFileError):
    """Not the bytes that the release has listed."""


def check_file(
    content: BufferedReader | BytesIO, size: int, name: str, sums: Mapping[str, str] | None
) -> tuple[str, bool]:
    """SHA-256 of a map, and whether the release lists it with this sum.

    Headers are read, pixels are not: a few milliseconds beside the hash.

    Parameters
    ----------
    content, size
        The file and its bytes.
    name
        Its name in the list.
    sums
        Name → SHA-256 of the release; None if the release has no list.

    Raises
    ------
    NotFitsError, ChecksumMismatchError
    """
    _check_fits(content, size)
    content.seek(0)
    found = hashlib.file_digest(content, "sha256").hexdigest()
    if sums is None or name not in sums:
        return found, False
    if found != sums[name]:
        raise ChecksumMismatchError(f"{size} bytes have SHA-256 {found}, the release lists {sums[name]}")
    return found, True


def _check_fits(content: BufferedReader | BytesIO, size: int) -> None:
    content.seek(0)
    start = content.read(80)
    if not start.startswith(b"SIMPLE  ="):
        begins = "nothing" if not start else repr(start[:24].decode("ascii", "replace"))
        raise NotFitsError(f"{size} bytes that begin with {begins}, not a FITS file")
    content.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        warnings.simplefilter("ignore", VerifyWarning)
        try:
            # Not closed: that would close `content`, which is the caller's.
            hdus = fits.open(content, memmap=False, disable_image_compression=True)
            _ = hdus[1].header
            spans = [hdus.fileinfo(i) for i in range(len(hdus))]
            end = max(span["datLoc"] + span["datSpan"] for span in spans)
        except _FITS_ERRORS as error:
            told = " ".join(str(error).split())[:200]
            raise NotFitsError(f"no readable HDU 1 in {size} bytes ({type(error).__name__}: {told})") from error
    if size < end:
        raise NotFitsError(f"truncated: {size} bytes, its headers promise {end}")


def parse_sums(text: str) -> dict[str, str]:
    """Lines of ``sha256sum`` (``<sum>  <file>``, or `` *<file>``) → file name without folders → sum.

    Raises
    ------
    ValueError
        If a line is anything else.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        found = _SUM_LINE.fullmatch(line.rstrip())
        if not found:
            raise ValueError(f"line {number} is no SHA-256 sum: {line[:60]!r}")
        sums[found[2].rpartition("/")[2]] = found[1].lower()
    return sums
