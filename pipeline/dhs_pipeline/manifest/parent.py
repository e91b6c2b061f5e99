"""Reading a parent catalogue: Parquet or FITS table, Tractor-style or plain column names."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dhs_pipeline.config import ParentColumns
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location, StorageError

_FITS_SUFFIXES = (".fits", ".fit", ".fits.gz", ".fits.fz")
_FITS_CHUNK_ROWS = 100_000


@dataclass(frozen=True)
class ParentChunk:
    """Rows of one file: a Parquet row group, or a range of a FITS table."""

    uri: str
    row_group: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class ColumnMap:
    """Canonical name → column of this parent, and the redshift columns that it has, in order of preference."""

    columns: dict[str, str]
    redshifts: tuple[tuple[str, str], ...]

    @property
    def wanted(self) -> list[str]:
        return sorted({*self.columns.values(), *(name for name, _ in self.redshifts)})


def plan_parent(parent: Location) -> tuple[list[ParentChunk], list[str]]:
    """Cut a parent (one file, or a folder of Parquet files) into chunks, and list its columns.

    Raises
    ------
    StageError
        If there is no such file, it cannot be read, or files of a folder differ in their columns.
    """
    files = [parent] if parent.size() is not None else parent.files(".parquet", recursive=True)
    if not files:
        raise StageError(f"{parent}: no such parent catalogue (a Parquet or FITS table, or a folder of Parquet files)")
    chunks: list[ParentChunk] = []
    columns: list[str] | None = None
    for file in files:
        found, names = _plan_fits(file) if _is_fits(file) else _plan_parquet(file)
        if columns is not None and names != columns:
            raise StageError(f"{file}: its columns differ from those of {files[0].name}")
        columns = names
        offset = chunks[-1].first_row + chunks[-1].rows if chunks else 0
        chunks += [ParentChunk(c.uri, c.row_group, c.first_row + offset, c.rows) for c in found]
    return chunks, columns or []


def map_columns(parent: Location, available: Sequence[str], wanted: ParentColumns) -> ColumnMap:
    """Match canonical names with the parent's columns, upper and lower case alike.

    Raises
    ------
    StageError
        If a required column, or every redshift column, is missing.
    """
    by_lower = {name.lower(): name for name in available}

    def find(names: Sequence[str]) -> str | None:
        return next((by_lower[n.lower()] for n in names if n.lower() in by_lower), None)

    columns: dict[str, str] = {}
    for canonical, names in wanted.required.items():
        match = find(names)
        if match is None:
            raise StageError(
                f"{parent}: no column for {canonical} (looked for {', '.join(names)}); it has "
                f"{', '.join(available[:12])}{', …' if len(available) > 12 else ''}"
            )
        columns[canonical] = match
    columns |= {c: match for c, names in wanted.optional.items() if (match := find(names)) is not None}
    _require_extinction(parent, columns, wanted)
    redshifts = tuple(
        (match, str(r.source)) for r in wanted.redshift_columns if (match := find([r.column])) is not None
    )
    if not redshifts and wanted.assign_redshift is None:
        looked = ", ".join(r.column for r in wanted.redshift_columns)
        raise StageError(
            f"{parent}: no redshift column (looked for {looked}); set parent.assign_redshift to give every host one"
        )
    return ColumnMap(columns, redshifts)


def _require_extinction(parent: Location, columns: dict[str, str], wanted: ParentColumns) -> None:
    transmissions = [c for c in wanted.optional if c.startswith("mw_transmission_")]
    if "ebv_mag" in columns or all(c in columns for c in transmissions) or wanted.assign_ebv_mag is not None:
        return
    looked = ", ".join(name for c in ("ebv_mag", *transmissions) for name in wanted.optional.get(c, ()))
    raise StageError(
        f"{parent}: no extinction column (looked for {looked}); set parent.assign_ebv_mag to give every host one"
    )


def read_chunk(chunk: ParentChunk, columns: ColumnMap) -> pa.Table:
    """The mapped columns of a chunk under the parent's own names, native byte order, plus ``parent_row``."""
    where = Location(chunk.uri)
    table = _read_fits(where, chunk, columns.wanted) if _is_fits(where) else _read_parquet(where, chunk, columns.wanted)
    return table.append_column("parent_row", pa.array(np.arange(chunk.rows) + chunk.first_row, pa.int64()))


def text_column(table: pa.Table, name: str) -> list[str | None]:
    """A string column without padding; bytes become text."""
    column = table.column(name)
    if not pa.types.is_string(column.type):
        column = column.cast(pa.string())
    return [None if v is None else v.strip() for v in column.to_pylist()]


def float_column(table: pa.Table, name: str) -> np.ndarray:
    """A numeric column as float64; null becomes NaN."""
    return pc.fill_null(table.column(name).cast(pa.float64()), float("nan")).to_numpy()


def _is_fits(where: Location) -> bool:
    return where.name.lower().endswith(_FITS_SUFFIXES)


def _plan_parquet(file: Location) -> tuple[list[ParentChunk], list[str]]:
    try:
        with file.open_input() as source:
            metadata = pq.ParquetFile(source)
            names = metadata.schema_arrow.names
            sizes = [metadata.metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    except StorageError:  # a store that does not answer, keys it refuses: not the file's fault
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise StageError(f"{file}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
    ends = np.cumsum(sizes)
    return [ParentChunk(file.uri, i, int(ends[i]) - n, n) for i, n in enumerate(sizes)], names


def _read_parquet(file: Location, chunk: ParentChunk, names: list[str]) -> pa.Table:
    with file.open_input() as source:
        return pq.ParquetFile(source).read_row_group(chunk.row_group, columns=names)


def _plan_fits(file: Location) -> tuple[list[ParentChunk], list[str]]:
    table = _fits_table(file)
    starts = range(0, len(table), _FITS_CHUNK_ROWS)
    return (
        [ParentChunk(file.uri, -1, s, min(_FITS_CHUNK_ROWS, len(table) - s)) for s in starts],
        list(table.dtype.names or ()),
    )


def _fits_table(file: Location) -> np.ndarray:
    """The first binary table of a FITS file."""
    from astropy.io import fits

    try:
        with fits.open(io.BytesIO(file.read_bytes())) as hdus:
            for hdu in hdus:
                if isinstance(hdu, fits.BinTableHDU) and not isinstance(hdu, fits.CompImageHDU):
                    return np.asarray(hdu.data)
    except StorageError:  # a store that does not answer, keys it refuses: not the file's fault
        raise
    except OSError as error:
        raise StageError(f"{file}: not a readable FITS file ({error})") from error
    raise StageError(f"{file}: no table in this FITS file")


def _read_fits(file: Location, chunk: ParentChunk, names: list[str]) -> pa.Table:
    rows = _fits_table(file)[chunk.first_row : chunk.first_row + chunk.rows]
    columns = {}
    for name in names:
        values = rows[name]
        if values.dtype.kind in "SU":
            columns[name] = pa.array(np.char.strip(values.astype(str)))
        else:
            columns[name] = pa.array(values.astype(values.dtype.newbyteorder("=")))
    return pa.table(columns)
