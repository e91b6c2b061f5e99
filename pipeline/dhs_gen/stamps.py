"""The stamp contract: NPZ bytes with one float32 array per band and optional layers.

Keys ``image_g``, ``image_r``, ``image_z`` (any subset, named by the row's ``bandset``) and, in the same shape,
``invvar_<b>``, ``arc_<b>`` and ``maskbits``. The archive is not compressed (noise does not compress; Parquet's zstd
packs what does) and carries a fixed date, so equal arrays give equal bytes.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["decode_stamp_npz", "encode_stamp", "read_stamp"]

_EPOCH = (1980, 1, 1, 0, 0, 0)
_GZIP, _ZIP = b"\x1f\x8b", b"PK"
_BAND_ORDER = "ugrizy"


def encode_stamp(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Arrays by key → NPZ bytes, in the order given.

    Stamps of one form differ in pixels and checksums alone, so the archive of a form is made once
    (:func:`_empty_archive`) and filled for each stamp.
    """
    plain = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    empty = _empty_archive(tuple((key, array.dtype, array.shape) for key, array in plain.items()))
    blob = bytearray(empty.blob)
    for member, array in zip(empty.members, plain.values(), strict=True):
        end = member.data_at + array.nbytes
        blob[member.data_at : end] = array.tobytes()
        checksum = zlib.crc32(memoryview(blob)[member.data_at : end], member.header_crc).to_bytes(4, "little")
        for at in member.crc_at:
            blob[at : at + 4] = checksum
    return bytes(blob)


class _Member(NamedTuple):
    """Where the pixels of an array lie in the archive, and its CRC-32 before them and in its two headers."""

    data_at: int
    header_crc: int
    crc_at: tuple[int, int]


class _EmptyArchive(NamedTuple):
    blob: bytes
    members: tuple[_Member, ...]


@lru_cache(maxsize=64)
def _empty_archive(form: tuple[tuple[str, np.dtype[np.generic], tuple[int, ...]], ...]) -> _EmptyArchive:
    """The archive of arrays (key, dtype, shape) of zeros."""
    buffer, sizes = io.BytesIO(), []
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for key, dtype, shape in form:
            member = io.BytesIO()
            np.lib.format.write_array(member, np.zeros(shape, dtype), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{key}.npy", _EPOCH), member.getvalue())
            sizes.append((member.tell(), math.prod(shape) * dtype.itemsize))
        infos = archive.infolist()
    blob = buffer.getvalue()
    members, entry_at = [], archive.start_dir
    for info, (member_size, data_size) in zip(infos, sizes, strict=True):
        name_size, extra_size = struct.unpack_from("<HH", blob, info.header_offset + 26)
        start = info.header_offset + 30 + name_size + extra_size
        data_at = start + member_size - data_size
        crc_at = (info.header_offset + 14, entry_at + 16)  # APPNOTE.TXT 4.3.7 and 4.3.12
        members.append(_Member(data_at, zlib.crc32(blob[start:data_at]), crc_at))
        entry_at += 46 + sum(struct.unpack_from("<HHH", blob, entry_at + 28))
    return _EmptyArchive(blob, tuple(members))


def read_stamp(blob: bytes) -> dict[str, NDArray[np.generic]]:
    """NPZ bytes → arrays by key. A gzip wrapper, as in older data, is taken off.

    Raises
    ------
    ValueError
        If the bytes are not a NPZ archive.
    """
    if not isinstance(blob, bytes | bytearray | memoryview):
        raise ValueError(f"not a stamp: bytes are needed, got {type(blob).__name__}")
    data = bytes(blob)
    try:
        if data[:2] == _GZIP:
            data = gzip.decompress(data)
        if data[:2] != _ZIP:
            raise ValueError(f"not a stamp: starts with {data[:4]!r}, not with a NPZ archive's {_ZIP!r}")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise ValueError(f"not a stamp: {error}") from error
    if foreign := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"not a stamp: {foreign} in the archive are not arrays")
    return arrays


def decode_stamp_npz(blob: bytes) -> tuple[NDArray[np.float32], str]:
    """Stamp bytes → ((bands, H, W) float32, bandset), whatever the layout.

    Layouts: ``image_<b>`` per band, any subset (other layers are left out); a single array, called ``img`` or anything
    else; either of them gzip-wrapped. A single (H, W), (1, H, W) or (H, W, 1) array is taken as the band "r", one of
    three channels as "grz". Pixel values, NaN among them, are handed on as they are.

    Raises
    ------
    ValueError
        If there is no image in the bytes, or its bands differ in shape.
    """
    arrays = read_stamp(blob)
    bandset = "".join(b for b in _BAND_ORDER if f"image_{b}" in arrays)
    if bandset:
        images = [_as_float32(f"image_{b}", arrays[f"image_{b}"]) for b in bandset]
        shapes = {image.shape for image in images}
        if len(shapes) > 1 or images[0].ndim != 2:
            raise ValueError(f"image_<band> must be (H, W) arrays of one shape, got {sorted(shapes)}")
        return np.stack(images), bandset
    if len(arrays) != 1 and "img" not in arrays:
        raise ValueError(f"no image_<band> among the keys {sorted(arrays)}")
    name = "img" if "img" in arrays else next(iter(arrays))
    image = _as_float32(name, arrays[name])
    if image.ndim == 2:
        return image[None], "r"
    for channels, names in ((3, "grz"), (1, "r")):
        if image.ndim == 3 and image.shape[0] == channels:
            return image, names
        if image.ndim == 3 and image.shape[2] == channels:
            return np.moveaxis(image, 2, 0), names
    raise ValueError(f"a single array must be (H, W), or have 1 or 3 channels first or last, got {image.shape}")


def _as_float32(name: str, array: NDArray[np.generic]) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return np.asarray(array, np.float32)
