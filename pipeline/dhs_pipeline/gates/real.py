"""Stamps of real lenses from files: what realism compares injections with."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dhs_gen.stamps import decode_stamp_npz, read_stamp
from dhs_pipeline.gates.scan import STAMP
from dhs_pipeline.storage import Location, StorageError

_ENDINGS = (".parquet", ".npz", ".fits")
_MAX_SCALE_ERROR = 0.01
_CUTOUT_BANDS = "grz"


def read_real(files: Sequence[Location], bandset: str, size_pix: int, pixscale_arcsec: float) -> NDArray[np.float32]:
    """(m, bands, size, size) nanomaggy/pix: the middle of each real stamp, in the bands of the set.

    Parameters
    ----------
    files
        Parquet files with a column ``stamp_npz``, NPZ files of one stamp or one ``cutout`` (H, W, 3: g, r, z) each, or
        FITS cubes (bands, H, W) in nanomaggies with a header key BANDS, as the Legacy Surveys' cutout service gives
        them; or folders of these.
    bandset, size_pix, pixscale_arcsec
        Of the set.

    Raises
    ------
    StorageError
        If there is no such file.
    ValueError
        If a stamp lacks a band, is smaller than the set's, or has another pixel scale; the message names the file.
    """
    found = [(str(file), *stamp) for file in real_files(files) for stamp in _stamps(file, pixscale_arcsec)]
    return np.stack([_middle(image, bands, bandset, size_pix, name) for name, image, bands in found])


def real_files(given: Sequence[Location]) -> list[Location]:
    """The files, and those in the folders, that are given.

    Raises
    ------
    StorageError
        If there is none at one of the places.
    """
    out = []
    for where in given:
        inside = [where] if where.size() is not None else where.files(recursive=True)
        found = [f for f in inside if f.name.endswith(_ENDINGS)]
        if not found:
            raise StorageError(f"{where}: no stamps of real lenses here ({', '.join(_ENDINGS)})")
        out += found
    return out


def _stamps(file: Location, pixscale_arcsec: float) -> list[tuple[NDArray[np.float32], str]]:
    if file.name.endswith(".fits"):
        return [_read_fits(file, pixscale_arcsec)]
    if file.name.endswith(".npz"):
        return [_read_npz(file)]
    with file.open_input() as source:
        parquet = pq.ParquetFile(source)
        if STAMP not in parquet.schema_arrow.names:
            raise ValueError(f"{file}: no column {STAMP}: not a set of stamps")
        blobs = parquet.read(columns=[STAMP]).column(STAMP).to_pylist()
    return [decode_stamp_npz(blob) for blob in blobs if blob is not None]


def _read_npz(file: Location) -> tuple[NDArray[np.float32], str]:
    blob = file.read_bytes()
    cutout = read_stamp(blob).get("cutout")
    if cutout is None:
        return decode_stamp_npz(blob)
    if cutout.ndim != 3 or cutout.shape[2] != len(_CUTOUT_BANDS):
        raise ValueError(f"{file}: cutout must be (H, W, {len(_CUTOUT_BANDS)}), got {cutout.shape}")
    return np.moveaxis(cutout, 2, 0).astype(np.float32), _CUTOUT_BANDS


def _read_fits(file: Location, pixscale_arcsec: float) -> tuple[NDArray[np.float32], str]:
    from astropy.io import fits
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    with fits.open(io.BytesIO(file.read_bytes())) as hdus:
        image, header = np.asarray(hdus[0].data, np.float32), hdus[0].header
    bands = str(header.get("BANDS", ""))
    if image.ndim != 3 or len(bands) != len(image):
        raise ValueError(f"{file}: needs a cube (bands, H, W) and BANDS, got shape {image.shape} and BANDS {bands!r}")
    scale_arcsec = float(proj_plane_pixel_scales(WCS(header).celestial)[0]) * 3600.0
    if abs(scale_arcsec / pixscale_arcsec - 1.0) > _MAX_SCALE_ERROR:
        raise ValueError(f"{file}: pixels of {scale_arcsec:.4g} arcsec, the set's have {pixscale_arcsec:g}")
    return image, bands


def _middle(image: NDArray[np.float32], bands: str, bandset: str, size_pix: int, name: str) -> NDArray[np.float32]:
    if missing := sorted(set(bandset) - set(bands)):
        raise ValueError(f"{name}: no band {', '.join(missing)}, which the set has")
    if min(image.shape[1:]) < size_pix:
        raise ValueError(f"{name}: {image.shape[1]} x {image.shape[2]} pixels, the set's stamps have {size_pix}")
    y, x = ((side - size_pix) // 2 for side in image.shape[1:])
    return image[[bands.index(b) for b in bandset], y : y + size_pix, x : x + size_pix]
