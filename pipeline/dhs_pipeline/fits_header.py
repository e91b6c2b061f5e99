"""The values of a FITS header whose every card is plainly written, at a tenth of what astropy takes to parse it.

Astropy understands, and mends, much that is not: such a header is left to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

BLOCK_BYTES = 2880
"""Headers and data end at multiples of this (FITS standard 4.0, 3.1)."""

Value: TypeAlias = str | bool | int | float

_CARD_BYTES = 80
_END = b"END".ljust(_CARD_BYTES)

# FITS standard 4.0, 4.1 and 4.2. CONTINUE belongs to a string that is longer than any which is asked for here, HIERARCH
# is a keyword that the standard does not know.
_KEYWORD = re.compile(rb"[A-Z0-9_-]+ *")
_WITHOUT_VALUE = (b"COMMENT ", b"HISTORY ", b"CONTINUE", b"HIERARCH", b" " * 8)
_VALUE = re.compile(
    rb" *(?:'(?P<text>(?:[^']|'')*)'|(?P<truth>[TF])|(?P<whole>[+-]?[0-9]+)"
    rb"|(?P<real>[+-]?(?:[0-9]+\.[0-9]*|\.?[0-9]+)(?:[ED][+-]?[0-9]+)?)|) *(?:/.*)?"
)
_PRINTABLE = re.compile(rb"[ -~]*")


@dataclass(frozen=True)
class PlainHeader:
    """Keyword → value of the cards that have one, and where the data begin."""

    values: dict[str, Value]
    data_start: int


def plain_header(raw: bytes, start: int) -> PlainHeader | None:
    """Parse the header that starts at a byte; None if a card of it is not plain, or a keyword is there twice."""
    values: dict[str, Value] = {}
    for place in range(start, len(raw) - _CARD_BYTES + 1, _CARD_BYTES):
        card = raw[place : place + _CARD_BYTES]
        if card == _END:
            data_start = place + BLOCK_BYTES - (place - start) % BLOCK_BYTES
            is_padded = not raw[place + _CARD_BYTES : data_start].strip(b" ") and data_start <= len(raw)
            return PlainHeader(values, data_start) if is_padded else None
        if not _PRINTABLE.fullmatch(card):
            return None
        if card[:8] in _WITHOUT_VALUE:
            continue
        keyword, found = _KEYWORD.fullmatch(card[:8]), _VALUE.fullmatch(card[10:])
        if keyword is None or found is None or card[8:10] != b"= ":
            return None
        name = keyword[0].decode().rstrip()
        if name in values:
            return None
        if (value := _value(found)) is not None:
            values[name] = value
    return None


def _value(card: re.Match[bytes]) -> Value | None:
    """None for a card without one."""
    if (text := card["text"]) is not None:
        return text.decode().replace("''", "'").rstrip()
    if truth := card["truth"]:
        return truth == b"T"
    if whole := card["whole"]:
        return int(whole)
    if real := card["real"]:
        return float(real.replace(b"D", b"E"))
    return None
