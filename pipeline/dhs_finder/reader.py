"""Stamps as batches of float32 arrays, at the rate of the disk: for NumPy, and beneath the PyTorch data set.

    stamps = find_stamps(StampSource(("runs/demo/phase4p5/gen7",), splits=("train",), columns=("arc_injected",)))
    for batch in read_batches(stamps, Epoch(batch_stamps=256, seed=1, number=0)):
        batch.layers["image"]           # (256, 3, 64, 64) float32
        batch.columns["arc_injected"]   # (256,) int32

A row group is read and decompressed by Arrow, its column of stamps seen as strided arrays
(:mod:`dhs_gen.stamp_columns`), and each stamp's pixels are copied once, from Arrow's buffer to their batch.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow.fs import LocalFileSystem

from dhs_finder.stamp_set import Epoch, Piece, RowGroup, Share, StampSet, StampSource
from dhs_gen.stamp_columns import StampLayout, view_column
from dhs_gen.stamps import read_stamp

__all__ = ["StampBatch", "read_batches"]

Array = NDArray[np.generic]
_ARRAYS_KEPT = 64  # that are looked at before a new one is made; a buffer needs about 9 per layer
_PROBE = [np.empty(0)]
_UNUSED = sys.getrefcount(_PROBE[0])  # of an array that only a list holds, counted in the same words as below
_ALONE = Share()
_FOOTERS = 256  # footers kept: parsing one of 140 columns costs as much as decoding some 50 stamps
_DTYPES: Mapping[str, type[np.generic]] = {"maskbits": np.int32}


@dataclass
class StampBatch:
    """Some stamps.

    ``layers`` are C-contiguous: (n, bands, H, W) float32 by layer, (n, H, W) int32 of ``maskbits``. ``columns`` are
    (n,) each: numbers in the dtype of the table, but float64 with NaN for null where the table allows nulls; texts as
    objects, None for null. ``one_by_one`` of the stamps could not be seen as arrays and were decoded alone, which takes
    some ten times as long: gzip-wrapped or compressed ones of older data.
    """

    layers: dict[str, Array]
    columns: dict[str, Array]
    one_by_one: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.layers.values())))

    def band_bytes(self, layer: str, band: int) -> NDArray[np.uint8]:
        """(n, bytes) view of one band of a layer, or of a layer without bands."""
        array = self.layers[layer]
        plane = array[:, band] if array.ndim == 4 else array
        return plane.reshape(len(array), -1).view(np.uint8)


def read_batches(stamps: StampSet, epoch: Epoch, share: Share = _ALONE) -> Iterator[StampBatch]:
    """The stamps of a share, in the order of the epoch; all batches are full but the last.

    The order depends on the set, the epoch and the share alone.

    Raises
    ------
    ValueError
        If a stamp cannot be read, has not the arrays that are asked for or others' shape, or a row group has not as
        many stamps as rows of status OK; the message names file, row group and row.
    """
    opened = _Opened(stamps.source)
    pieces = stamps.pieces(epoch, share)
    first, behind = stamps.share_stamps(epoch, share)
    at_once = 1 if epoch.seed is None else epoch.buffer_row_groups
    filling = _Batches(epoch.batch_stamps, behind - first)
    for number, start in enumerate(range(0, len(pieces), at_once)):
        buffered = pieces[start : start + at_once]
        n = sum(len(piece) for piece in buffered)
        order = epoch.permutation(n, f"rows of {share.number} of {share.readers}, buffer {number}")
        places = np.empty(n, np.int64)
        places[order] = np.arange(n) + filling.planned
        filling.planned += n
        for piece in buffered:
            filling.put(opened.read(piece), places[: len(piece)])
            places = places[len(piece) :]
        yield from filling.done()


@dataclass(frozen=True)
class _Part:
    """Stamps of one layout: ``rows`` are (m,) rows of the piece, ``pixels`` (m, bytes) arrays by layer and band."""

    rows: NDArray[np.int64]
    pixels: dict[str, tuple[NDArray[np.uint8], ...]]
    alone: bool


@dataclass(frozen=True)
class _Read:
    """A piece in memory; ``shapes`` are those of one stamp's layers."""

    parts: tuple[_Part, ...]
    shapes: Mapping[str, tuple[int, ...]]
    columns: dict[str, Array]


class _Batches:
    """Batches that are being filled: stamp ``place`` of the share is stamp ``place % size`` of batch ``place // size``.

    The places of a buffer's stamps are drawn before any is read, so each is copied straight to where it stays, and
    Arrow's memory is free again after each row group.
    """

    def __init__(self, size: int, total: int) -> None:
        self.size, self.total, self.planned, self.given = size, total, 0, 0
        self.open: dict[int, StampBatch] = {}
        self.memory = _Memory()

    def put(self, read: _Read, places: NDArray[np.int64]) -> None:
        """Copy row i of a piece to ``places[i]``."""
        numbers, at = np.divmod(places, self.size)
        for number in np.unique(numbers).tolist():
            batch = self.open.setdefault(number, self._empty(number, read))
            mine = numbers == number
            for name, column in read.columns.items():
                batch.columns[name][at[mine]] = column[mine]
        for part in read.parts:
            of, to = numbers[part.rows].tolist(), at[part.rows].tolist()
            for layer, bands in part.pixels.items():
                for band, pixels in enumerate(bands):
                    out = {number: batch.band_bytes(layer, band) for number, batch in self.open.items()}
                    # one assignment per stamp: a fancy index copies twice, and 16 KB cost more than the call
                    for row, (number, place) in enumerate(zip(of, to, strict=True)):
                        out[number][place] = pixels[row]
            if part.alone:
                for number in of:
                    self.open[number].one_by_one += 1

    def done(self) -> Iterator[StampBatch]:
        """The batches that all planned stamps have filled, in order."""
        while self.given in self.open and min((self.given + 1) * self.size, self.total) <= self.planned:
            yield self.open.pop(self.given)
            self.given += 1

    def _empty(self, number: int, like: _Read) -> StampBatch:
        n = min(self.size, self.total - number * self.size)
        return StampBatch(
            {layer: self.memory.array((n, *shape), _dtype(layer)) for layer, shape in like.shapes.items()},
            {name: np.empty(n, column.dtype) for name, column in like.columns.items()},
        )


class _Memory:
    """Arrays for batches: one that nobody refers to any more is given again, else a new one.

    New memory costs page faults, which take two to three times as long as copying the pixels. Views, tensors and
    buffers of an array refer to it, so as long as one of them is there, it is not given again.
    """

    def __init__(self) -> None:
        self._given: list[Array] = []

    def array(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """An array of any content."""
        for i in range(len(self._given)):
            if sys.getrefcount(self._given[i]) == _UNUSED:
                array = self._given[i]
                if array.shape == shape and array.dtype == dtype:
                    return array
        self._given = [*self._given[-_ARRAYS_KEPT + 1 :], np.empty(shape, dtype)]
        return self._given[-1]


class _Opened:
    """A source with what was learnt while reading it: footers, layouts, shapes."""

    def __init__(self, source: StampSource) -> None:
        self.source = source
        self.filesystem = source.open_filesystem()
        self.local = isinstance(self.filesystem, LocalFileSystem)
        self.footers: OrderedDict[str, pq.FileMetaData] = OrderedDict()
        self.layouts: list[StampLayout] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.keys = {key for layer in source.layers for key in _keys(layer, source.bands)}

    def read(self, piece: Piece) -> _Read:
        table, columns = self._table(piece.group)
        stamps = table.column(self.source.stamp_column)
        valid = np.flatnonzero(stamps.is_valid().to_numpy())
        if len(valid) != piece.group.stamps:
            raise ValueError(
                f"{piece.group}: {len(valid)} rows have a stamp, but {piece.group.stamps} the status OK: the file has "
                f"changed since it was looked through, or {self.source.status_column} is not the status of "
                f"{self.source.stamp_column}"
            )
        rows = valid[piece.first : piece.behind]
        parts = tuple(self._parts(piece.group, stamps, rows))
        return _Read(parts, self.shapes, {name: column[rows] for name, column in columns.items()})

    def _table(self, group: RowGroup) -> tuple[pa.Table, dict[str, Array]]:
        """The row group as read, and its columns beside the stamp as arrays over all rows."""
        with self.filesystem.open_input_file(group.path) as file:
            parquet = pq.ParquetFile(
                file,
                metadata=self.footers.get(group.path),
                pre_buffer=not self.local,
                page_checksum_verification=self.source.page_checksums,
            )
            self.footers[group.path] = parquet.metadata
            self.footers.move_to_end(group.path)
            if len(self.footers) > _FOOTERS:
                self.footers.popitem(last=False)
            there = [name for name in self.source.columns if name in parquet.schema_arrow.names]
            table = parquet.read_row_group(group.index, [self.source.stamp_column, *there], use_threads=False)
        columns = {
            name: _as_array(table, name, group)
            if name in there
            else np.full(table.num_rows, group.split, object)  # region_split, which the folder names
            for name in self.source.columns
        }
        return table, columns

    def _parts(self, group: RowGroup, stamps: pa.ChunkedArray, wanted: NDArray[np.int64]) -> Iterator[_Part]:
        """The wanted rows of the column (ascending), by layout."""
        base = 0
        for chunk in stamps.chunks:
            here = wanted[(wanted >= base) & (wanted < base + len(chunk))] - base
            if not here.size:
                base += len(chunk)
                continue
            data, offsets = _buffers(chunk)
            keep = np.zeros(len(chunk), np.bool_)
            keep[here] = True
            seen = view_column(data, offsets, keep, known=self.layouts)
            self.layouts = [found.layout for found in seen.groups]
            for found in seen.groups:
                views = {key: found[key] for key in found.layout.members if key in self.keys}
                rows = found.rows + base
                yield _Part(np.searchsorted(wanted, rows), self._layers(views, group, int(rows[0])), False)
            for row in (seen.one_by_one + base).tolist():
                arrays = _read_alone(chunk[row - base].as_py(), group, row)
                yield _Part(np.searchsorted(wanted, [row]), self._layers(arrays, group, row), True)
            base += len(chunk)

    def _layers(
        self, arrays: Mapping[str, Array], group: RowGroup, row: int
    ) -> dict[str, tuple[NDArray[np.uint8], ...]]:
        """(m, H, W) arrays by key → layer → (m, bytes) per band, after checking names, dtypes and shapes."""
        layers = {}
        for layer in self.source.layers:
            keys = _keys(layer, self.source.bands)
            if missing := [key for key in keys if key not in arrays]:
                raise ValueError(
                    f"{group}, row {row}: no {', '.join(missing)} in the stamp; ask for what all stamps have"
                )
            shape = arrays[keys[0]].shape[1:]
            expected = self.shapes.setdefault(layer, shape if layer == "maskbits" else (len(keys), *shape))
            if any(arrays[key].shape[1:] != expected[-2:] for key in keys):
                raise ValueError(
                    f"{group}, row {row}: {layer} has shapes {sorted({arrays[key].shape[1:] for key in keys})}, "
                    f"but the stamps before it {expected[-2:]}; read sets of one size"
                )
            layers[layer] = tuple(
                _pixel_bytes(arrays[key], _dtype(layer), f"{group}, row {row}, {key}") for key in keys
            )
        return layers


def _keys(layer: str, bands: str) -> tuple[str, ...]:
    return (layer,) if layer == "maskbits" else tuple(f"{layer}_{band}" for band in bands)


def _dtype(layer: str) -> np.dtype[np.generic]:
    return np.dtype(_DTYPES.get(layer, np.float32))


def _pixel_bytes(array: Array, dtype: np.dtype[np.generic], name: str) -> NDArray[np.uint8]:
    """(m, H, W) → (m, bytes) in the dtype, a view where it has that dtype."""
    if array.ndim != 3 or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"{name}: {array.dtype} of shape {array.shape[1:]} is not an image of {dtype}")
    return array.astype(dtype, copy=False).reshape(len(array), -1).view(np.uint8)


def _read_alone(blob: bytes, group: RowGroup, row: int) -> dict[str, Array]:
    """(1, …) arrays by key."""
    try:
        return {key: array[None] for key, array in read_stamp(blob).items()}
    except ValueError as error:
        raise ValueError(f"{group}, row {row}: {error}") from error


def _buffers(chunk: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Data and offsets of a chunk of a binary column."""
    if not (pa.types.is_binary(chunk.type) or pa.types.is_large_binary(chunk.type)):
        raise ValueError(f"stamps must be a binary column, not {chunk.type}")
    _, offsets, data = chunk.buffers()
    width = np.int64 if pa.types.is_large_binary(chunk.type) else np.int32
    ends = np.frombuffer(offsets, width)[chunk.offset : chunk.offset + len(chunk) + 1].astype(np.int64)
    return np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8), ends


def _as_array(table: pa.Table, name: str, group: RowGroup) -> Array:
    """A column as (n,) array whose dtype follows from the schema alone."""
    field, column = table.schema.field(name), table.column(name)
    if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
        return column.to_numpy()
    if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_boolean(field.type)):
        raise ValueError(f"{group}: {name} is {field.type}; columns beside the stamp must be numbers or texts")
    if field.nullable:
        return column.cast(pa.float64()).to_numpy()
    return column.to_numpy()
