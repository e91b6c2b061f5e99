"""The stamp contract: NPZ bytes with one float32 array per band and optional layers.

Keys ``image_g``, ``image_r``, ``image_z`` (any subset, named by the row's ``bandset``) and, in the same shape,
``invvar_<b>``, ``arc_<b>`` and ``maskbits``. The archive is not compressed (noise does not compress; Parquet's zstd
packs what does) and carries a fixed date, so equal arrays give equal bytes.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_EPOCH = (1980, 1, 1, 0, 0, 0)
_GZIP, _ZIP = b"\x1f\x8b", b"PK"
_BAND_ORDER = "ugrizy"


def encode_stamp(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Arrays by key → NPZ bytes, in the order given."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for key, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{key}.npy", _EPOCH), member.getvalue())
    return buffer.getvalue()


def read_stamp(blob: bytes) -> dict[str, NDArray[np.generic]]:
    """NPZ bytes → arrays by key. A gzip wrapper, as in older data, is taken off.

    Raises
    ------
    ValueError
        If the bytes are not a NPZ archive.
    """
    data = bytes(blob)
    try:
        if data[:2] == _GZIP:
            data = gzip.decompress(data)
        if data[:2] != _ZIP:
            raise ValueError(f"not a stamp: starts with {data[:4]!r}, not with a NPZ archive's {_ZIP!r}")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise ValueError(f"not a stamp: {error}") from error


def decode_stamp_npz(blob: bytes) -> tuple[NDArray[np.float32], str]:
    """Stamp bytes → ((bands, H, W) float32, bandset); older single-array stamps are read too.

    A single two-dimensional array is taken as one band, "r"; a single (C, H, W) or (H, W, C) array with three
    channels as "grz".

    Raises
    ------
    ValueError
        If there is no image in the bytes.
    """
    arrays = read_stamp(blob)
    bandset = "".join(b for b in _BAND_ORDER if f"image_{b}" in arrays)
    if bandset:
        return np.stack([np.asarray(arrays[f"image_{b}"], np.float32) for b in bandset]), bandset
    if len(arrays) != 1 and "img" not in arrays:
        raise ValueError(f"no image_<band> among the keys {sorted(arrays)}")
    image = np.asarray(arrays["img"] if "img" in arrays else next(iter(arrays.values())), np.float32)
    if image.ndim == 2:
        return image[None], "r"
    if image.ndim == 3 and image.shape[0] == 3:
        return image, "grz"
    if image.ndim == 3 and image.shape[2] == 3:
        return np.moveaxis(image, 2, 0), "grz"
    raise ValueError(f"a single array must be (H, W), (3, H, W) or (H, W, 3), got {image.shape}")
