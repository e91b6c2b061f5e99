"""Earlier stamp bytes → the current contract, pixel values unchanged, or the reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhs_gen.stamps import decode_stamp_npz, encode_stamp, read_stamp

_KEPT = ("image_", "invvar_", "arc_", "maskbits")


class PixelsUnusableError(ValueError):
    """A stamp that cannot be taken; the message says what was found."""


@dataclass(frozen=True)
class Pixels:
    """A re-encoded stamp.

    Parameters
    ----------
    npz
        Bytes in the current contract.
    left_out
        Arrays that the contract has no place for.
    rounded
        Whether the images were not float32 and had to become it.
    """

    npz: bytes
    left_out: tuple[str, ...]
    rounded: bool


def reencode(blob: bytes | None, bandset: str, size_pix: int) -> Pixels:
    """Read a stamp in any earlier layout and write it in the current one.

    Parameters
    ----------
    blob
        NPZ bytes, gzip-wrapped or not, with image_<b> arrays or one single array.
    bandset, size_pix
        What the row says that the stamp holds.

    Raises
    ------
    PixelsUnusableError
        If there are no bytes, they do not decode, or bands, shape or values are not what the row says.
    """
    if blob is None:
        raise PixelsUnusableError("no stamp")
    try:
        arrays = read_stamp(blob)
        cube, bands = decode_stamp_npz(blob)
    except ValueError as error:
        raise PixelsUnusableError(f"the stamp does not decode: {error}") from error
    _check(cube, bands, bandset, size_pix)
    images: dict[str, NDArray[np.generic]] = {f"image_{b}": cube[i] for i, b in enumerate(bands)}
    layers = {k: a for k, a in arrays.items() if k.startswith(_KEPT) and not k.startswith("image_")}
    single = not any(k.startswith("image_") for k in arrays)
    left_out = tuple(sorted(k for k in arrays if not k.startswith(_KEPT)))
    return Pixels(encode_stamp(images | layers), () if single else left_out, _is_rounded(arrays, single))


def _check(cube: NDArray[np.float32], bands: str, bandset: str, size_pix: int) -> None:
    if bands != bandset:
        raise PixelsUnusableError(f"the stamp holds band(s) {bands}, bandset says {bandset}")
    if cube.shape[1:] != (size_pix, size_pix):
        raise PixelsUnusableError(f"the stamp is {cube.shape[1]}x{cube.shape[2]} px, stamp_size says {size_pix}")
    if bad := int((~np.isfinite(cube)).sum()):
        raise PixelsUnusableError(f"{bad} pixels are not finite")
    if blank := "".join(b for b, image in zip(bands, cube, strict=True) if not image.any()):
        raise PixelsUnusableError(f"band(s) {blank} hold zeros only")


def _is_rounded(arrays: Mapping[str, NDArray[np.generic]], single: bool) -> bool:
    images = [a for k, a in arrays.items() if single or k.startswith("image_")]
    return any(a.dtype.itemsize > 4 and np.issubdtype(a.dtype, np.floating) for a in images)
