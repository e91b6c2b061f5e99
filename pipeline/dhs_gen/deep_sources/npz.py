"""The deep bank as a NPZ file: the layout that users own, and what is added to it.

==================  ==========================================================================================
``images``          (N, S, S) float32, **flux per pixel** at ``target_pixscale_arcsec``, in the units of the cutouts
``meta``            JSON in a 0-d array: lists ``file``, ``pixscale_arcsec``, ``filter``, ``sum_flux``, one entry per
                    image, and scalars ``target_pixscale_arcsec``, ``stamp_size``
``fine_images``     added: (N, F, F) float32, unit sum, at ``meta["fine_pixscale_arcsec"]``: what is to be lensed
==================  ==========================================================================================

Files of the earlier layout have no ``fine_images``. Neither array is surface brightness: a renderer that takes flux per
arcsec² must be given ``to_surface_brightness(image, pixscale_arcsec)`` with the pixel scale of that image.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dhs_gen.source_banks.bank import BankError

__all__ = ["META_LISTS", "META_SCALARS", "NpzWriter", "load_bank", "load_fine_images"]

META_LISTS = ("file", "pixscale_arcsec", "filter", "sum_flux")
META_SCALARS = ("target_pixscale_arcsec", "stamp_size")
FINE_SCALAR = "fine_pixscale_arcsec"


def load_bank(npz: str | os.PathLike[str]) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Images and metadata of a deep bank, of this layout or the earlier one.

    .. warning:: The images are flux per pixel at ``meta["target_pixscale_arcsec"]``. lenstronomy's ``INTERPOL`` takes
       flux per arcsec²: pass ``to_surface_brightness(images[i], meta["target_pixscale_arcsec"])``. And they are too
       coarse to be lensed: :func:`load_fine_images` gives the templates for that.

    Parameters
    ----------
    npz
        The file.

    Returns
    -------
    images : ndarray
        (N, S, S) float32.
    meta : dict
        See the module.

    Raises
    ------
    BankError
        A ValueError: the file is missing, is no such NPZ, or its arrays and lists do not fit together.
    """
    file, arrays = Path(npz), _read(Path(npz), ("images", "meta"))
    images, meta = arrays["images"], _meta(arrays["meta"], file)
    if images.ndim != 3 or images.shape[1] != images.shape[2] or 0 in images.shape:
        raise BankError(f"images of {file} has shape {images.shape}, not (N, S, S)")
    for name in META_LISTS:
        if not isinstance(meta.get(name), list) or len(meta[name]) != len(images):
            raise BankError(f"meta of {file}: {name} must be a list of {len(images)}, one entry per image")
    for name in META_SCALARS:
        value = meta.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise BankError(f"meta of {file}: {name} is {value!r}, not a positive number")
    if meta["stamp_size"] != images.shape[1]:
        raise BankError(
            f"meta of {file}: stamp_size is {meta['stamp_size']!r} but images are {images.shape[1]} px wide"
        )
    return images.astype(np.float32, copy=False), meta


def load_fine_images(npz: str | os.PathLike[str]) -> tuple[NDArray[np.float32], float] | None:
    """((N, F, F) float32 templates of unit sum, their pixel scale in arcsec), or None in a bank of the earlier layout.

    Raises
    ------
    BankError
        As :func:`load_bank`.
    """
    file = Path(npz)
    if "fine_images" not in _names(file):
        return None
    arrays = _read(file, ("fine_images", "meta"))
    fine, scale = arrays["fine_images"], _meta(arrays["meta"], file).get(FINE_SCALAR)
    if fine.ndim != 3 or fine.shape[1] != fine.shape[2] or 0 in fine.shape:
        raise BankError(f"fine_images of {file} has shape {fine.shape}, not (N, F, F)")
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0:
        raise BankError(f"meta of {file}: {FINE_SCALAR} is {scale!r}, not a positive number")
    return fine.astype(np.float32, copy=False), float(scale)


def _names(file: Path) -> list[str]:
    if not file.is_file():
        raise BankError(f"no deep bank at {file}: correct the path")
    try:
        with np.load(file, allow_pickle=False) as archive:
            return list(archive.files)
    except (ValueError, OSError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise BankError(f"{file} is not a NPZ file ({' '.join(str(error).split())})") from error


def _read(file: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    missing = sorted(set(names) - set(_names(file)))
    if missing:
        raise BankError(f"{file} has no {missing}: it does not have the layout of a deep bank")
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise BankError(f"{file} cannot be read without pickle ({' '.join(str(error).split())})") from error


def _meta(array: NDArray[Any], file: Path) -> dict[str, Any]:
    try:
        meta = json.loads(str(array.item()))
    except ValueError as error:
        raise BankError(f"meta of {file} is not JSON in a 0-d array ({error})") from error
    if not isinstance(meta, dict):
        raise BankError(f"meta of {file} holds a {type(meta).__name__}, not an object")
    return meta


class NpzWriter:
    """Collects images on disk, so that a bank of 20,000 needs no memory, and packs them at :meth:`finish`.

    The same images in the same order give the same bytes. Left without :meth:`finish`, nothing is changed.
    """

    def __init__(self, out_npz: Path, side_px: int, fine_side_px: int) -> None:
        # numpy.savez, with which these files have always been written, adds the suffix.
        self.path = out_npz if out_npz.suffix == ".npz" else out_npz.with_name(f"{out_npz.name}.npz")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._sides = {"images": side_px, "fine_images": fine_side_px}
        self._files: dict[str, BinaryIO] = {name: self._temporary(name).open("wb") for name in self._sides}
        self._n = 0

    def append(self, image: NDArray[np.float64], fine_image: NDArray[np.float64]) -> None:
        """Add one source, as float32."""
        for name, pixels in (("images", image), ("fine_images", fine_image)):
            side = self._sides[name]
            if pixels.shape != (side, side) or not np.isfinite(pixels).all():
                raise ValueError(f"{name} must be finite and of shape {(side, side)}, got {pixels.shape}")
            self._files[name].write(pixels.astype("<f4").tobytes())
        self._n += 1

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Write the file under its name."""
        arrays: dict[str, Any] = {}
        for name, side in self._sides.items():
            self._files[name].close()
            shape = (self._n, side, side)
            arrays[name] = np.memmap(self._temporary(name), dtype="<f4", mode="r", shape=shape)
        text = json.dumps(meta, sort_keys=True, allow_nan=False)
        with self._temporary("npz").open("wb") as stream:
            np.savez_compressed(stream, meta=np.array(text), **arrays)
        self._temporary("npz").replace(self.path)

    def __enter__(self) -> NpzWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, file in self._files.items():
            file.close()
            self._temporary(name).unlink(missing_ok=True)
        self._temporary("npz").unlink(missing_ok=True)

    def _temporary(self, name: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{name}.tmp")
