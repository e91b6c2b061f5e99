"""Headers that are plainly written, against astropy's reading of them."""

from __future__ import annotations

import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from dhs_pipeline.fits_header import BLOCK_BYTES, plain_header

ASCII = st.characters(min_codepoint=32, max_codepoint=126)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(ASCII, max_size=60),
)
KEYWORDS = st.text("ABCXYZ0189-_", min_size=1, max_size=8).filter(lambda key: key not in ("COMMENT", "HISTORY", "END"))


@given(st.dictionaries(KEYWORDS, st.tuples(VALUES, st.text(ASCII, max_size=20)), max_size=60))
def test_values_are_those_that_astropy_reads(cards: dict[str, tuple[str | bool | int | float, str]]) -> None:
    header = fits.Header()
    for key, (value, comment) in cards.items():
        header[key] = value if isinstance(value, str) and len(repr(value)) + len(comment) > 60 else (value, comment)
    header["COMMENT"] = "a = 'comment' / that looks like a value"
    raw = header.tostring().encode()
    found = plain_header(b"before" + raw + b"data", 6)
    assert found is not None
    assert found.data_start == 6 + len(raw)
    if b"CONTINUE" not in raw:
        again = fits.Header.fromstring(raw)
        expected = {key: again[key] for key in cards if not isinstance(again[key], fits.card.Undefined)}
        assert found.values == expected
        assert {key: type(value) for key, value in found.values.items()} == {k: type(v) for k, v in expected.items()}


def header_of(*cards: str) -> bytes:
    return "".join(card.ljust(80) for card in (*cards, "END")).ljust(BLOCK_BYTES).encode("latin-1")


@pytest.mark.parametrize(
    ("card", "value"),
    [
        ("KEY     = 1.5D3", 1500.0),
        ("KEY     =  .5E-1 / half", 0.05),
        ("KEY     = -7", -7),
        ("KEY     = 'it''s  ' / quoted", "it's"),
        ("KEY     =                    F", False),
        ("KEY     =", None),
        ("KEY     = / nothing", None),
    ],
)
def test_ways_to_write_a_value(card: str, value: object) -> None:
    found = plain_header(header_of(card), 0)
    assert found is not None
    assert found.values.get("KEY") == value
    assert fits.Header.fromstring(header_of(card)).get("KEY") == value


@pytest.mark.parametrize(
    "card",
    [
        "KEY     = (1, 2)",
        "KEY     = 'open",
        "KEY     = 1 2",
        "KEY     = 1e",
        "KEY     = NaN",
        "KEY      1",
        "KEY x   = 1",
        "key     = 1",
        "KEY     = 'caf\xe9'",
        "KEY     = 1\t",
        "ENDING",
    ],
)
def test_a_card_that_is_not_plain_is_left_to_astropy(card: str) -> None:
    assert plain_header(header_of("A       = 1", card), 0) is None


def test_a_keyword_twice_no_end_and_bytes_after_it_are_left_to_astropy() -> None:
    good = header_of("A       = 1")
    assert plain_header(good, 0) is not None
    assert plain_header(header_of("A       = 1", "A       = 1"), 0) is None
    assert plain_header(good[:-1], 0) is None
    assert plain_header(good[:-1] + b"x", 0) is None
    assert plain_header(good[:80], 0) is None
    assert plain_header(b"", 0) is None
    assert plain_header(good.replace(b"END", b"   "), 0) is None
