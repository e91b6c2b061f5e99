"""Columns of stamps seen as arrays: the same bytes as read one by one, and nothing that is not."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dhs_gen.stamp_columns import LayoutError, StampColumn, StampLayout, view_column
from dhs_gen.stamps import encode_stamp, read_stamp

Arrays = dict[str, NDArray[np.generic]]


def arrays(seed: int, bandset: str = "grz", size: int = 6, *, layers: bool = True) -> Arrays:
    rng = np.random.default_rng(seed)
    names = ("image", "invvar", "arc") if layers else ("image",)
    made: Arrays = {f"{n}_{b}": rng.standard_normal((size, size)).astype(np.float32) for n in names for b in bandset}
    return made | ({"maskbits": rng.integers(0, 2**14, (size, size)).astype(np.int32)} if layers else {})


def savez(**values: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **values)  # type: ignore[arg-type]
    return buffer.getvalue()


def column(blobs: Sequence[bytes | None], dtype: type[np.integer] = np.int32, *, verify: bool = False) -> StampColumn:
    data = np.frombuffer(b"".join(b or b"" for b in blobs), np.uint8)
    offsets = np.concatenate([[0], np.cumsum([len(b or b"") for b in blobs])]).astype(dtype)
    return view_column(data, offsets, np.array([b is not None for b in blobs], bool), verify=verify)


def decoded(seen: StampColumn, blobs: Sequence[bytes | None]) -> dict[int, Arrays]:
    """Row → arrays, of groups and of rows read one by one; a row that is there twice fails."""
    rows: dict[int, Arrays] = {}
    for group in seen.groups:
        views = {key: group[key] for key in group.layout.members}
        for i, row in enumerate(group.rows.tolist()):
            assert row not in rows
            rows[row] = {key: view[i] for key, view in views.items()}
    for row in seen.one_by_one.tolist():
        assert row not in rows
        rows[row] = read_stamp(blobs[row] or b"")
    return rows


def assert_as_read_one_by_one(seen: StampColumn, blobs: Sequence[bytes | None]) -> None:
    rows = decoded(seen, blobs)
    assert sorted(rows) == [i for i, b in enumerate(blobs) if b is not None]
    for row, found in rows.items():
        expected = read_stamp(blobs[row] or b"")
        assert list(found) == list(expected)
        for key, array in expected.items():
            assert found[key].dtype == array.dtype
            assert found[key].shape == array.shape
            assert found[key].tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_column_of_one_layout_is_seen_without_a_copy(dtype: type[np.integer]) -> None:
    blobs = [encode_stamp(arrays(seed)) for seed in range(9)]
    blobs_with_null: list[bytes | None] = [*blobs[:4], None, *blobs[4:]]
    seen = column(blobs_with_null, dtype)
    assert len(seen.groups) == 1
    assert not seen.groups[0].blobs.flags.owndata
    assert not seen.groups[0]["image_g"].flags.owndata
    assert_as_read_one_by_one(seen, blobs_with_null)


KINDS = {
    "grz": lambda seed: encode_stamp(arrays(seed)),
    "r": lambda seed: encode_stamp(arrays(seed, "r")),
    "image": lambda seed: encode_stamp(arrays(seed, layers=False)),
    "size": lambda seed: encode_stamp(arrays(seed, size=7)),
    "same length, other names": lambda seed: encode_stamp(arrays(seed, "gri")),
    "same length, other dtype": lambda seed: encode_stamp({k: v.astype("<i4") for k, v in arrays(seed).items()}),
    "same length, other shape": lambda seed: encode_stamp({k: v.reshape(4, 9) for k, v in arrays(seed).items()}),
    "savez": lambda seed: savez(**arrays(seed)),
    "fortran": lambda seed: savez(**{k: np.asfortranarray(v) for k, v in arrays(seed).items()}),
    "gzip": lambda seed: gzip.compress(encode_stamp(arrays(seed)), mtime=0),
    "null": lambda seed: None,
}
ALONE = {"fortran", "gzip"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=12))
def test_mixed_columns_are_as_read_one_by_one(kinds: list[str]) -> None:
    blobs = [KINDS[kind](seed) for seed, kind in enumerate(kinds)]
    for verify in (False, True):
        seen = column(blobs, verify=verify)
        assert seen.one_by_one.tolist() == [i for i, kind in enumerate(kinds) if kind in ALONE]
        assert_as_read_one_by_one(seen, blobs)


def test_a_slice_of_a_column_starts_where_its_offsets_say() -> None:
    blobs = [encode_stamp(arrays(seed)) for seed in range(5)]
    data = np.frombuffer(b"".join(blobs), np.uint8)
    seen = view_column(data, np.arange(2, 6) * len(blobs[0]))
    assert_as_read_one_by_one(seen, blobs[2:])


def test_no_byte_but_of_pixels_and_dates_can_change_unnoticed() -> None:
    """Every byte of the second of three archives is changed in turn: what comes back is right, or is refused."""
    blobs = [encode_stamp({"image_r": np.float32([[seed, 2], [3, 4]])}) for seed in range(3)]
    member = StampLayout.of(blobs[1]).members["image_r"]
    unnoticed = []
    for at in range(len(blobs[1])):
        changed = bytearray(blobs[1])
        changed[at] ^= 0x10
        seen = column([blobs[0], bytes(changed), blobs[2]])
        try:
            row = decoded(seen, [blobs[0], bytes(changed), blobs[2]])[1]
        except ValueError:
            continue
        if row.keys() != {"image_r"} or row["image_r"].tobytes() != read_stamp(blobs[1])["image_r"].tobytes():
            unnoticed.append(at)
        assert decoded(seen, blobs)[2].keys() == {"image_r"}
    pixels = range(member.data_byte, member.end_byte)
    assert set(unnoticed) <= set(pixels), "pixels are verified on request alone"
    assert unnoticed == list(pixels)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_changed_pixels_are_found_with_verify(row: int) -> None:
    blobs = [encode_stamp(arrays(seed)) for seed in range(3)]
    changed = bytearray(blobs[row])
    changed[StampLayout.of(blobs[row]).members["arc_r"].end_byte - 1] ^= 1
    blobs[row] = bytes(changed)
    seen = column(blobs, verify=True)
    assert seen.one_by_one.tolist() == [row]
    with pytest.raises(ValueError, match="CRC"):
        read_stamp(blobs[row])


def test_truncated_archives_are_refused() -> None:
    blob = encode_stamp(arrays(1))
    for n in (0, 1, 30, len(blob) // 2, len(blob) - 23, len(blob) - 1):
        cut = [blob, blob[:n], blob]
        seen = column(cut)
        assert seen.one_by_one.tolist() == [1]
        with pytest.raises(ValueError, match="not a stamp"):
            read_stamp(cut[1])
        with pytest.raises(LayoutError):
            StampLayout.of(blob[:n])


def test_places_are_those_of_the_zip_directory() -> None:
    made = arrays(3)
    blob = encode_stamp(made)
    for key, member in StampLayout.of(blob).members.items():
        assert blob[member.data_byte : member.end_byte] == made[key].tobytes()
        crc = zlib.crc32(blob[member.start_byte : member.end_byte]).to_bytes(4, "little")
        assert [blob[at : at + 4] for at in member.crc_byte] == [crc, crc]


def test_many_layouts_end_one_by_one() -> None:
    blobs = [encode_stamp({f"image_{i}": np.float32([[i]])}) for i in range(1000, 1100)]
    seen = column(blobs)
    assert len(seen.groups) + len(seen.one_by_one) == 100
    assert len(seen.one_by_one) > 0
    assert_as_read_one_by_one(seen, blobs)


@pytest.mark.parametrize("offsets", [[0, 9, 4], [-1, 3], [0, 99], []])
def test_offsets_outside_the_column_are_errors(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="offsets"):
        view_column(np.zeros(10, np.uint8), np.array(offsets, np.int64))
