"""The stamp contract: what is written comes back, the bytes depend on nothing else, and damage is named."""

from __future__ import annotations

import gzip
import io
import time
import zipfile

import numpy as np
import pytest
from numpy.typing import NDArray

from dhs_gen.stamps import decode_stamp_npz, encode_stamp, read_stamp


def layers(bandset: str = "grz", size: int = 64) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(5)
    arrays: dict[str, NDArray[np.generic]] = {}
    for layer in ("image", "invvar", "arc"):
        arrays |= {f"{layer}_{b}": rng.standard_normal((size, size)).astype(np.float32) for b in bandset}
    arrays["maskbits"] = rng.integers(0, 2**14, (size, size)).astype(np.int32)
    return arrays


@pytest.mark.parametrize("bandset", ["grz", "r", "gz", "g"])
def test_all_layers_come_back(bandset: str) -> None:
    arrays = layers(bandset)
    back = read_stamp(encode_stamp(arrays))
    assert list(back) == list(arrays)
    for key, array in arrays.items():
        assert back[key].dtype == array.dtype
        assert back[key].tobytes() == array.tobytes()
    images, found = decode_stamp_npz(encode_stamp(arrays))
    assert found == bandset
    np.testing.assert_array_equal(images, np.stack([arrays[f"image_{b}"] for b in bandset]))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_bytes_are_those_of_the_zip_library(size: int) -> None:
    """Written the long way, array by array; also after another stamp of the same form."""
    encode_stamp(layers("gz", size))
    every_other = np.arange(6.0).reshape(2, 3).astype(np.float32)[:, ::2]
    for arrays in (layers("gz", size), {"image_r": every_other, "n": np.arange(3)}):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for key, array in arrays.items():
                member = io.BytesIO()
                np.save(member, np.ascontiguousarray(array))
                archive.writestr(zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue())
        assert encode_stamp(arrays) == buffer.getvalue()


def test_special_values_keep_their_bits() -> None:
    image = np.array([[0.0, -0.0], [np.nan, np.inf]], np.float32)
    assert read_stamp(encode_stamp({"image_r": image}))["image_r"].tobytes() == image.tobytes()


def test_numpy_reads_it() -> None:
    arrays = layers()
    with np.load(io.BytesIO(encode_stamp(arrays)), allow_pickle=False) as archive:
        assert archive.files == list(arrays)
        np.testing.assert_array_equal(archive["image_g"], arrays["image_g"])


def test_views_are_stored_like_their_copies() -> None:
    image = layers()["image_r"]
    assert encode_stamp({"image_r": image.T}) == encode_stamp({"image_r": image.T.copy()})


def test_bytes_do_not_depend_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = layers(size=8)
    before = encode_stamp(arrays)
    later = time.time() + 10**8
    monkeypatch.setattr(time, "time", lambda: later)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(later))
    assert encode_stamp(arrays) == before


def test_bands_are_returned_in_order_of_wavelength_whatever_the_archives_order() -> None:
    arrays = {f"image_{b}": np.full((4, 4), i, np.float32) for i, b in enumerate("zrg")}
    images, bandset = decode_stamp_npz(encode_stamp(arrays))
    assert bandset == "grz"
    assert images[:, 0, 0].tolist() == [2, 1, 0]


def npz(**arrays: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def test_older_layouts_are_read() -> None:
    rng = np.random.default_rng(6)
    cube = rng.standard_normal((3, 8, 9)).astype(np.float32)
    for blob, expected, bandset in (
        (npz(img=cube[0]), cube[:1], "r"),
        (npz(img=cube), cube, "grz"),
        (npz(img=np.moveaxis(cube, 0, 2)), cube, "grz"),
        (npz(arr_0=cube[0].astype(np.float64)), cube[:1], "r"),
        (npz(img=cube, other=np.zeros(3)), cube, "grz"),
        (gzip.compress(npz(img=cube)), cube, "grz"),
        (gzip.compress(encode_stamp({"image_r": cube[0]})), cube[:1], "r"),
    ):
        images, found = decode_stamp_npz(blob)
        assert found == bandset
        assert images.dtype == np.float32
        np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("arrays", [{"a": np.zeros((2, 2)), "b": np.zeros((2, 2))}, {"img": np.zeros((4, 8, 9))}])
def test_what_holds_no_image_is_a_value_error(arrays: dict[str, NDArray[np.generic]]) -> None:
    with pytest.raises(ValueError, match=r"image_<band>|single array"):
        decode_stamp_npz(npz(**arrays))


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((3, 3)))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"PK",
        b"not a stamp at all",
        b"\x1f\x8b",
        b"\x1f\x8b not gzip",
        gzip.compress(b"not a stamp"),
        gzip.compress(encode_stamp({"image_r": np.ones((4, 4))}))[:-9],
        gzip.compress(encode_stamp({"image_r": np.ones((4, 4))}))[:60] + b"\xff" * 40,
        npy(),
    ],
    ids=["empty", "two-bytes", "text", "gzip-magic", "bad-gzip", "gzip-text", "cut-gzip", "broken-gzip", "npy"],
)
def test_what_is_no_stamp_is_a_value_error(blob: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - numpy words some of them
        decode_stamp_npz(blob)


def test_every_truncation_is_a_value_error() -> None:
    blob = encode_stamp({"image_r": np.ones((4, 4), np.float32)})
    for length in range(len(blob)):
        with pytest.raises(ValueError):  # noqa: PT011
            decode_stamp_npz(blob[:length])


def test_no_flipped_byte_gives_other_pixels_or_another_exception() -> None:
    """A damaged byte is either harmless (a date, an attribute) or a ValueError; never other pixels."""
    image = np.random.default_rng(7).standard_normal((5, 5)).astype(np.float32)
    blob = encode_stamp({"image_r": image})
    for position in range(len(blob)):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(blob)
            damaged[position] ^= mask
            try:
                images, _ = decode_stamp_npz(bytes(damaged))
            except ValueError:
                continue
            assert images.tobytes() == image.tobytes(), f"byte {position} xor {mask:#x}"
