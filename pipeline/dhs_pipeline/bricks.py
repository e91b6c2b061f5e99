"""Host cutouts out of one brick of coadd maps (DR10 "files" page: tile-compressed FITS, data in HDU 1).

:func:`read_brick_cutouts` is what a Spark worker calls; there is no Spark in here. A brick's maps are read one
after another, each file once and whole, and each tile below a cutout is decoded once. Held are the bytes of one file
(15 MB at most in DR10), one decoded tile (40 kB for 100x100 float32) and 0.29 MB of cutouts per host.

Every host gets a row, in the order given, with the first of these that applies:

=================  ==========================================================================================
NOT_IN_RELEASE     a map is not there, and the server that the maps were fetched from has none (all hosts)
BRICK_NOT_FOUND    none of the brick's maps is there (all hosts of the brick)
FILE_MISSING       some of them are not there (all hosts of the brick)
FILE_UNREADABLE    a map is not the FITS file it should be: truncated, garbage, no image in HDU 1, another
                   shape or sky position than the brick's first image, a wrong checksum (all hosts)
OFF_BRICK          the position is not finite or not on the image
CUTOUT_OFF_EDGE    the cutout sticks out over the edge of the image
FILE_UNREADABLE    tiles below this cutout cannot be decoded; hosts on other tiles go on
PIXELS_NOT_FINITE  NaN or infinity in invvar, or in image where invvar > 0
NO_COVERAGE        in a band, none of the central 9x9 pixels has invvar > 0, or none has nexp > 0; gaps
                   elsewhere are allowed and show up in bad_pixel_frac of the stamps
PSFSIZE_ZERO       the psfsize map is not positive and finite at the host's pixel
CENTROID_FAILED    :func:`dhs_gen.centroid.light_centroid` raised
=================  ==========================================================================================

A row that is not OK has null pixels, psfsize, nexp and centroid; its corner and catalogue position are there
unless the failure came before them or is OFF_BRICK.

What a map must be to be read, and how its tiles are decoded, is in :mod:`dhs_pipeline.fits_maps`. A store that does not
answer, keys that it refuses and memory that runs out say nothing about a host: they are raised and fail the task.
"""

from __future__ import annotations

import math
import posixpath
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.wcs import WCS, FITSFixedWarning
from numpy.typing import NDArray

from dhs_gen.centroid import CentroidError, light_centroid
from dhs_gen.status import Status
from dhs_pipeline.config import Survey
from dhs_pipeline.fetch.absent import why_absent
from dhs_pipeline.fits_errors import FITS_ERRORS, MapError, told
from dhs_pipeline.fits_maps import OpenMap, open_map, read_windows
from dhs_pipeline.schemas import CUTOUTS, table_from_rows
from dhs_pipeline.storage import Location, StorageError

CENTRAL_BOX_PIX = 9
"""Side of the box about the host's pixel for coverage and nexp."""

_MAP_PRODUCTS = ("image", "invvar", "nexp", "psfsize")


@dataclass(frozen=True)
class HostPosition:
    """A host as stage 4b needs it."""

    host_id: str
    brickname: str
    ra_deg: float
    dec_deg: float


class _RowError(Exception):
    """Ends one host, or the whole brick, with a status and a message for the row."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class _Map:
    """One file of the brick."""

    product: str
    band: str
    where: Location

    @property
    def key(self) -> str:
        return f"{self.product}_{self.band}" if self.band else self.product

    @property
    def name(self) -> str:
        return self.where.name

    def unreadable(self, found: str) -> _RowError:
        return _RowError(Status.FILE_UNREADABLE, f"{self.name}: {found}")


@dataclass(frozen=True)
class _Grid:
    """Pixel grid that all maps of a brick share."""

    shape: tuple[int, int]
    wcs: WCS
    reference: dict[str, float]


@dataclass
class _Cutout:
    """A host on its way to a row; ``failure`` ends it."""

    host: HostPosition
    corner_x_pix: int | None = None
    corner_y_pix: int | None = None
    catalog_x_pix: float | None = None
    catalog_y_pix: float | None = None
    failure: _RowError | None = None

    def __post_init__(self) -> None:
        self.planes: dict[str, NDArray[Any]] = {}

    def window(self, offset_pix: int, size_pix: int) -> tuple[slice, slice]:
        """Rows and columns of the brick, ``size_pix`` wide, ``offset_pix`` inside the cutout's corner."""
        if self.corner_x_pix is None or self.corner_y_pix is None:
            raise ValueError(f"host {self.host.host_id} has no place on the brick")
        x, y = self.corner_x_pix + offset_pix, self.corner_y_pix + offset_pix
        return slice(y, y + size_pix), slice(x, x + size_pix)


def read_brick_cutouts(
    data: Location, brickname: str, hosts: Sequence[HostPosition], survey: Survey
) -> list[dict[str, object]]:
    """Cut the hosts of one brick out of its maps.

    Parameters
    ----------
    data
        Folder that ``survey.map_path`` and ``survey.maskbits_path`` are relative to.
    brickname
        DR10 brick name, such as 0591m305.
    hosts
        Hosts of this brick.
    survey
        Bands, paths and sizes.

    Returns
    -------
    list of dict
        One row of ``schemas.CUTOUTS`` per host, in order; pixel columns are flat arrays of cutout_size_pix² values
        (float32 in nanomaggy and 1/nanomaggy², int32 MASKBITS). :func:`cutout_table` makes the table.

    Raises
    ------
    ValueError
        If a host belongs to another brick or the survey's centroid band is not one of its bands.
    StorageError
        If the store does not answer (StorageUnavailable) or refuses: nothing is then known about the hosts.
    MemoryError, ChildProcessError
        If memory runs out, here or in a process that decodes a map.
    """
    if strangers := sorted({h.brickname for h in hosts} - {brickname}):
        raise ValueError(f"hosts of brick(s) {strangers} given for brick {brickname}")
    if survey.centroid_band not in survey.bands:
        raise ValueError(f"centroid_band {survey.centroid_band!r} is not one of the bands {survey.bands}")
    if not hosts:
        return []
    cutouts = [_Cutout(host) for host in hosts]
    try:
        _read_maps(data, brickname, cutouts, survey)
    except _RowError as failure:
        for cutout in cutouts:
            cutout.failure = failure
    return [_row(cutout, survey) for cutout in cutouts]


def cutout_table(rows: Sequence[dict[str, object]]) -> pa.Table:
    """Rows of :func:`read_brick_cutouts` → a table of exactly ``schemas.CUTOUTS``.

    Pixels go from array to column as a whole; table_from_rows alone would take them value by value.

    Raises
    ------
    ValueError
        As :func:`dhs_pipeline.schemas.table_from_rows`.
    """
    pixel_fields = [field for field in CUTOUTS if pa.types.is_list(field.type)]
    pixel_names = {field.name for field in pixel_fields}
    table = table_from_rows([{k: v for k, v in r.items() if k not in pixel_names} for r in rows], CUTOUTS)
    columns = {name: table.column(name) for name in CUTOUTS.names}
    for field in pixel_fields:
        columns[field.name] = _list_column([row.get(field.name) for row in rows], field.type)
    return pa.Table.from_arrays([columns[name] for name in CUTOUTS.names], schema=CUTOUTS)


def _list_column(values: Sequence[Any], dtype: pa.ListType) -> pa.Array:
    """Arrays or None → a list column, which holds at most 2^31 values."""
    lengths = np.array([0 if v is None else len(v) for v in values], dtype=np.int64)
    if lengths.sum() > np.iinfo(np.int32).max:
        raise ValueError(f"{len(values)} cutouts are too many for one table; pass fewer at a time")
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    item_dtype = dtype.value_type.to_pandas_dtype()
    present = [np.asarray(v, dtype=item_dtype) for v in values if v is not None]
    flat = np.concatenate(present) if present else np.empty(0, dtype=item_dtype)
    is_null = np.array([v is None for v in values], dtype=bool)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(flat, type=dtype.value_type), type=dtype, mask=pa.array(is_null)
    )


# --- the brick ---------------------------------------------------------------------------------------------------


def _read_maps(data: Location, brickname: str, cutouts: list[_Cutout], survey: Survey) -> None:
    """Fill the planes of the cutouts, map by map; raise what ends all of them."""
    maps = _needed_maps(data, brickname, survey)
    _check_present(maps, data)
    grid: _Grid | None = None
    for map_ in maps:
        found = _opened(map_)
        if grid is None:
            grid = _grid(map_, found)
            _place(cutouts, grid, survey)
        else:
            _check_grid(map_, found, grid)
        _take(map_, found, [c for c in cutouts if c.failure is None], survey)


def _needed_maps(data: Location, brickname: str, survey: Survey) -> list[_Map]:
    """All maps of the brick, the image of the first band first."""
    folder = brickname[:3]

    def where(product: str, band: str) -> Location:
        path = survey.map_path if band else survey.maskbits_path
        return data / path.format(folder=folder, brick=brickname, product=product, band=band)

    names = [(product, band) for product in _MAP_PRODUCTS for band in survey.bands]
    return [_Map(product, band, where(product, band)) for product, band in [*names, ("maskbits", "")]]


def _check_present(maps: Sequence[_Map], data: Location) -> None:
    folders = sorted({posixpath.dirname(m.where.uri) for m in maps})
    listed = {uri for folder in folders for uri in _listed(folder)}
    # A name that is there without being a file (a folder, say) is not missing but unreadable.
    missing = [m for m in maps if m.where.uri not in listed and not m.where.exists()]
    if not missing:
        return
    absence = why_absent(data, [m.where for m in missing])
    if absence.not_in_release:
        raise _RowError(Status.NOT_IN_RELEASE, absence.not_in_release)
    if len(missing) == len(maps):
        where = ", ".join(folder.removeprefix(f"{data}/") for folder in folders)
        found = f"{where}: none of the {len(maps)} maps of the brick is there{absence.failed}"
        raise _RowError(Status.BRICK_NOT_FOUND, found)
    raise _RowError(Status.FILE_MISSING, f"{', '.join(m.name for m in missing)}: no such file{absence.failed}")


def _listed(folder_uri: str) -> list[str]:
    """Files of a folder; a folder that is not there, or is a file, has none."""
    try:
        return [where.uri for where in Location(folder_uri).files()]
    except NotADirectoryError:
        return []


def _opened(map_: _Map) -> OpenMap:
    """HDU 1 of a map, header parsed, pixels not yet decoded."""
    try:
        raw = map_.where.read_bytes()
    except FileNotFoundError as error:
        raise _RowError(Status.FILE_MISSING, f"{map_.name}: no such file") from error
    except StorageError:
        raise  # of the store, not of this map
    except OSError as error:
        raise map_.unreadable(told(error)) from error
    try:
        return open_map(raw)
    except MapError as error:
        raise map_.unreadable(str(error)) from error


# --- positions ------------------------------------------------------------------------------------

_REFERENCE_KEYS = ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2")
_REFERENCE_TOLERANCE = 1e-6  # pixels and degrees: 0.004"


def _grid(map_: _Map, found: OpenMap) -> _Grid:
    try:
        header = found.image_header()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            wcs = WCS(header, naxis=2)
        reference = {key: float(header[key]) for key in _REFERENCE_KEYS}
    except FITS_ERRORS as error:
        raise map_.unreadable(f"no usable WCS: {told(error)}") from error
    if not wcs.has_celestial:
        raise map_.unreadable(f"no celestial WCS, axes {list(wcs.wcs.ctype)}")
    return _Grid(found.shape, wcs, reference)


def _check_grid(map_: _Map, found: OpenMap, grid: _Grid) -> None:
    """Same shape, and where the header gives a sky position the same one, as the brick's first image."""
    if found.shape != grid.shape:
        raise map_.unreadable(f"shape {found.shape}, the brick's first image has {grid.shape}")
    for key, expected in grid.reference.items():
        try:
            differs = key in found.values and not abs(float(found.values[key]) - expected) <= _REFERENCE_TOLERANCE
        except FITS_ERRORS as error:
            raise map_.unreadable(f"{key} is unreadable: {told(error)}") from error
        if differs:
            raise map_.unreadable(f"{key} = {found.values[key]}, the brick's first image has {expected}")


def _place(cutouts: Sequence[_Cutout], grid: _Grid, survey: Survey) -> None:
    """Corner and catalogue position of every cutout; OFF_BRICK and CUTOUT_OFF_EDGE where it has no place."""
    ra_deg = np.array([c.host.ra_deg for c in cutouts], dtype=np.float64)
    dec_deg = np.array([c.host.dec_deg for c in cutouts], dtype=np.float64)
    # Positions that cannot be projected (more than 90 deg away, |dec| > 90, NaN) come back as NaN.
    x_pix, y_pix = grid.wcs.wcs_world2pix(ra_deg, dec_deg, 0)
    for cutout, x, y in zip(cutouts, x_pix.tolist(), y_pix.tolist(), strict=True):
        cutout.failure = _place_one(cutout, x, y, grid.shape, survey.cutout_size_pix)


def _place_one(cutout: _Cutout, x_pix: float, y_pix: float, shape: tuple[int, int], size_pix: int) -> _RowError | None:
    rows, columns = shape
    at = f"({cutout.host.ra_deg:.6f}, {cutout.host.dec_deg:.6f}) deg"
    if not (math.isfinite(x_pix) and math.isfinite(y_pix)):
        return _RowError(Status.OFF_BRICK, f"position {at} has no pixel on the brick's projection")
    column, row = math.floor(x_pix + 0.5), math.floor(y_pix + 0.5)
    where = f"position {at} is pixel ({x_pix:.1f}, {y_pix:.1f})"
    if not (0 <= column < columns and 0 <= row < rows):
        return _RowError(Status.OFF_BRICK, f"{where}, off the {columns}x{rows} image")
    cutout.corner_x_pix, cutout.corner_y_pix = column - size_pix // 2, row - size_pix // 2
    cutout.catalog_x_pix, cutout.catalog_y_pix = x_pix - cutout.corner_x_pix, y_pix - cutout.corner_y_pix
    if not (0 <= cutout.corner_x_pix <= columns - size_pix and 0 <= cutout.corner_y_pix <= rows - size_pix):
        return _RowError(Status.CUTOUT_OFF_EDGE, f"{where}, its {size_pix} px cutout leaves the {columns}x{rows} image")
    return None


# --- pixels ---------------------------------------------------------------------------------------

_WINDOW_PIX = {"nexp": CENTRAL_BOX_PIX, "psfsize": 1}  # the others are taken over the whole cutout
_DTYPE = {"maskbits": np.int32}  # the others are float32


def _take(map_: _Map, found: OpenMap, cutouts: Sequence[_Cutout], survey: Survey) -> None:
    """Give each cutout its window of the map, or FILE_UNREADABLE if its tiles cannot be decoded."""
    size_pix = _WINDOW_PIX.get(map_.product, survey.cutout_size_pix)
    offset_pix = (survey.cutout_size_pix - size_pix) // 2
    dtype = _DTYPE.get(map_.product, np.float32)
    windows = [cutout.window(offset_pix, size_pix) for cutout in cutouts]
    for cutout, pixels in zip(cutouts, read_windows(found, windows), strict=True):
        if isinstance(pixels, MapError):
            cutout.failure = map_.unreadable(str(pixels))
        else:
            cutout.planes[map_.key] = np.asarray(pixels, dtype=dtype, order="C")


# --- rows -----------------------------------------------------------------------------------------


def _row(cutout: _Cutout, survey: Survey) -> dict[str, object]:
    host = cutout.host
    row: dict[str, object] = dict.fromkeys(CUTOUTS.names)
    row |= {
        "host_id": host.host_id,
        "brickname": host.brickname,
        "cutout_size_pix": survey.cutout_size_pix,
        "corner_x_pix": cutout.corner_x_pix,
        "corner_y_pix": cutout.corner_y_pix,
        "catalog_x_pix": cutout.catalog_x_pix,
        "catalog_y_pix": cutout.catalog_y_pix,
    }
    try:
        if cutout.failure is not None:
            raise cutout.failure
        return row | _measured(cutout, survey) | {"status": str(Status.OK)}
    except _RowError as failure:
        return row | {"status": str(failure.status), "message": failure.message}


def _measured(cutout: _Cutout, survey: Survey) -> dict[str, object]:
    """What only a good cutout has: its pixels and what is measured on them. Raises the failure otherwise."""
    planes = cutout.planes
    for check in (_check_finite, _check_coverage, _check_psfsize):
        for band in survey.bands:
            check(planes, band)
    x_pix, y_pix = _centroid(cutout, survey)
    found: dict[str, object] = {"centroid_x_pix": x_pix, "centroid_y_pix": y_pix}
    for band in survey.bands:
        found[f"psfsize_{band}_map_arcsec"] = float(planes[f"psfsize_{band}"][0, 0])
        found[f"nexp_{band}"] = float(np.median(planes[f"nexp_{band}"]))
        found[f"image_{band}"] = planes[f"image_{band}"].ravel()
        found[f"invvar_{band}"] = planes[f"invvar_{band}"].ravel()
    found["maskbits"] = planes["maskbits"].ravel()
    return found


def _check_finite(planes: dict[str, NDArray[Any]], band: str) -> None:
    image, invvar = planes[f"image_{band}"], planes[f"invvar_{band}"]
    for name, bad in (
        (f"invvar-{band}", ~np.isfinite(invvar)),
        (f"image-{band}", ~np.isfinite(image) & (invvar > 0)),
    ):
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise _RowError(
                Status.PIXELS_NOT_FINITE,
                f"{name}: {bad.sum()} of {bad.size} pixels are not finite, the first at ({column}, {row})",
            )


def _check_coverage(planes: dict[str, NDArray[Any]], band: str) -> None:
    size_pix = planes[f"invvar_{band}"].shape[0]
    start = (size_pix - CENTRAL_BOX_PIX) // 2
    centre = slice(start, start + CENTRAL_BOX_PIX)
    for name, values in (
        (f"invvar-{band}", planes[f"invvar_{band}"][centre, centre]),
        (f"nexp-{band}", planes[f"nexp_{band}"]),
    ):
        if not (values > 0).any():
            box = f"{CENTRAL_BOX_PIX}x{CENTRAL_BOX_PIX}"
            raise _RowError(Status.NO_COVERAGE, f"{name}: not above 0 anywhere in the central {box} pixels")


def _check_psfsize(planes: dict[str, NDArray[Any]], band: str) -> None:
    psfsize_arcsec = float(planes[f"psfsize_{band}"][0, 0])
    if not (math.isfinite(psfsize_arcsec) and psfsize_arcsec > 0):
        raise _RowError(Status.PSFSIZE_ZERO, f"psfsize-{band}: {psfsize_arcsec:g} arcsec at the host's pixel")


def _centroid(cutout: _Cutout, survey: Survey) -> tuple[float, float]:
    band = survey.centroid_band
    if cutout.catalog_x_pix is None or cutout.catalog_y_pix is None:
        raise ValueError(f"host {cutout.host.host_id} has no place on the brick")
    try:
        return light_centroid(
            cutout.planes[f"image_{band}"],
            ~(cutout.planes[f"invvar_{band}"] > 0),
            cutout.catalog_x_pix,
            cutout.catalog_y_pix,
            survey.centroid_window_sigma_arcsec / survey.pixscale_arcsec,
            survey.centroid_max_shift_arcsec / survey.pixscale_arcsec,
        )
    except CentroidError as error:
        raise _RowError(Status.CENTROID_FAILED, f"image-{band}: {error}") from error
