"""Many stamps at once: an Arrow column of NPZ archives seen as strided arrays, without decoding one by one.

An archive that is not compressed keeps its pixels at fixed places, the same in every archive of equal keys, shapes and
dtypes. So one archive is taken apart (:class:`StampLayout`), and every other one of its length is compared with it byte
for byte, pixels, checksums and dates excepted; those that are equal are the same arrays at the same places. What
differs is taken apart in its turn, and what cannot be seen this way (gzip-wrapped and compressed archives of older
data, damaged ones) is named, for :func:`dhs_gen.stamps.read_stamp` to read or to refuse.

Checksums: the archive a layout is found from is verified whole, the header of each array included, so no header is
ever trusted unverified. In every other archive the two places that hold a member's CRC-32 are compared with each other;
the pixels themselves are verified with ``verify=True`` (25 µs for three bands) or by Parquet's own page checksums.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LayoutError", "Member", "StampColumn", "StampGroup", "StampLayout", "view_column"]

Bytes = NDArray[np.uint8]

_END = struct.Struct("<4s4H2IH")  # end of the central directory
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_LOCAL_CRC, _CENTRAL_CRC = 14, 16  # where they hold the CRC-32; the four bytes before it are time and date
_ENCRYPTED_OR_STREAMED = 0x1 | 0x8
_MAX_LAYOUTS = 64


class LayoutError(ValueError):
    """An archive whose arrays have no fixed places, or a damaged one."""


@dataclass(frozen=True)
class Member:
    """Where one array lies in the archive.

    ``data_byte`` is that of the first pixel and ``start_byte`` that of the ``.npy`` header before it; ``crc_byte`` are
    the places of its CRC-32 in the local and in the central header.
    """

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    start_byte: int
    data_byte: int
    crc_byte: tuple[int, int]

    @property
    def data_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def end_byte(self) -> int:
        return self.data_byte + self.data_bytes


@dataclass(frozen=True)
class StampLayout:
    """Places of the arrays in an archive of ``size_bytes``, and the bytes that all archives of this layout share.

    ``fixed`` are (first, behind the last) of the stretches that hold neither pixels nor checksums nor dates, in order,
    and ``fixed_bytes`` what stands there, one after another.
    """

    size_bytes: int
    members: dict[str, Member]
    fixed: tuple[tuple[int, int], ...]
    fixed_bytes: bytes

    @classmethod
    def of(cls, blob: bytes | Bytes) -> StampLayout:
        """The layout of one archive, all of which is verified.

        Raises
        ------
        LayoutError
            If it is not a plain archive of uncompressed arrays in C order, one behind the other, or a CRC-32 is wrong.
        """
        data = bytes(blob)
        members: dict[str, Member] = {}
        free: list[tuple[int, int]] = []
        behind = 0
        for central, local, name, start, size in _entries(data):
            if local != behind:
                raise LayoutError(f"{name}: its header is at byte {local}, not at {behind}")
            behind = start + size
            key = name.removesuffix(".npy")
            if key == name or key in members:
                raise LayoutError(f"{name}: not an array, or there twice")
            crc_byte = (local + _LOCAL_CRC, central + _CENTRAL_CRC)
            members[key] = _member(name, data, start, size, crc_byte)
            free += [(crc - 4, crc + 4) for crc in crc_byte]
            free.append((members[key].data_byte, behind))
        if not members or data[behind : behind + 4] != b"PK\x01\x02":
            raise LayoutError(f"no arrays, or bytes between the last one and the directory at byte {behind}")
        fixed = tuple(_between(sorted(free), len(data)))
        return cls(len(data), members, fixed, b"".join(data[a:b] for a, b in fixed))

    def same(self, blobs: Bytes) -> NDArray[np.bool_]:
        """(n,) whether each row of ``blobs``, (n, size_bytes), has this layout and agrees with itself on its CRCs."""
        good = np.ones(len(blobs), np.bool_)
        expected, used = np.frombuffer(self.fixed_bytes, np.uint8), 0
        for first, behind in self.fixed:
            good &= (blobs[:, first:behind] == expected[used : used + behind - first]).all(axis=1)
            used += behind - first
        for member in self.members.values():
            local, central = member.crc_byte
            good &= (blobs[:, local : local + 4] == blobs[:, central : central + 4]).all(axis=1)
        return good

    def whole(self, blobs: Bytes) -> NDArray[np.bool_]:
        """(n,) whether every CRC-32 of each row of ``blobs``, (n, size_bytes), is right."""
        good = np.ones(len(blobs), np.bool_)
        for member in self.members.values():
            at = member.crc_byte[1]
            stored = np.ascontiguousarray(blobs[:, at : at + 4]).view("<u4")[:, 0]
            found = [zlib.crc32(blob[member.start_byte : member.end_byte]) for blob in blobs]
            good &= stored == np.array(found, np.uint32)
        return good


@dataclass(frozen=True)
class StampGroup:
    """Stamps of one layout.

    ``rows`` are (n,) rows of the column, ascending; ``blobs`` (n, size_bytes) their bytes, a view of the column where
    its stamps follow each other evenly, else a copy.
    """

    layout: StampLayout
    rows: NDArray[np.int64]
    blobs: Bytes

    def __getitem__(self, key: str) -> NDArray[np.generic]:
        """(n, *shape) array of one key in its own dtype: a view, neither contiguous nor aligned."""
        member = self.layout.members[key]
        flat = self.blobs[:, member.data_byte : member.end_byte].view(member.dtype)
        return flat.reshape(len(self.blobs), *member.shape)


@dataclass(frozen=True)
class StampColumn:
    """A column as groups of equal layout, and the rows that only :func:`dhs_gen.stamps.read_stamp` can read."""

    groups: tuple[StampGroup, ...]
    one_by_one: NDArray[np.int64]


def view_column(
    data: Bytes,
    offsets: NDArray[np.int32] | NDArray[np.int64],
    valid: NDArray[np.bool_] | None = None,
    *,
    verify: bool = False,
    known: Sequence[StampLayout] = (),
) -> StampColumn:
    """See an Arrow column of stamps as arrays.

    Parameters
    ----------
    data, offsets
        Buffers of the column: stamp i is ``data[offsets[i]:offsets[i + 1]]``; offsets are (n + 1,).
    valid
        (n,), False where the stamp is null; None: none is.
    verify
        Check the CRC-32 of all pixels; a row with a wrong one goes to ``one_by_one``, where ``read_stamp`` refuses it.
    known
        Layouts to try first, for instance those of the row group before.

    Raises
    ------
    ValueError
        If the offsets are not ascending or lie outside ``data``.
    """
    starts = np.asarray(offsets, np.int64)
    lengths = np.diff(starts)
    if starts.size == 0 or starts[0] < 0 or starts[-1] > len(data) or (lengths < 0).any():
        raise ValueError(f"offsets must ascend within the {len(data)} bytes of the column")
    left = np.arange(len(lengths)) if valid is None else np.flatnonzero(valid)
    groups: list[StampGroup] = []
    alone: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    untried = list(known)
    while left.size:
        # of very many kinds each has few stamps: reading them one by one costs no more
        if len(groups) + len(alone) > _MAX_LAYOUTS:
            alone.append(left)
            break
        try:
            first = left[0]
            layout = untried.pop(0) if untried else StampLayout.of(data[starts[first] : starts[first + 1]])
        except LayoutError:
            alone.append(left[:1])
            left = left[1:]
            continue
        rows = left[lengths[left] == layout.size_bytes]
        group, damaged = _group(layout, rows, _blobs(data, starts[rows], layout.size_bytes), verify=verify)
        groups += [group] if group.rows.size else []
        alone += [damaged] if damaged.size else []
        left = np.setdiff1d(left, np.concatenate([group.rows, damaged]), assume_unique=True)
    return StampColumn(tuple(groups), np.sort(np.concatenate(alone)))


def _group(
    layout: StampLayout, rows: NDArray[np.int64], blobs: Bytes, *, verify: bool
) -> tuple[StampGroup, NDArray[np.int64]]:
    """The rows that have the layout, and those that have it but for a wrong CRC-32; rows of neither are left."""
    same = layout.same(blobs)
    if not same.all():
        rows, blobs = rows[same], blobs[same]
    damaged = rows[:0]
    if verify and not (whole := layout.whole(blobs)).all():
        damaged, rows, blobs = rows[~whole], rows[whole], blobs[whole]
    return StampGroup(layout, rows, blobs), damaged


def _blobs(data: Bytes, starts: NDArray[np.int64], size: int) -> Bytes:
    """(n, size) bytes from each start: a view where the starts are evenly spaced, else a copy."""
    if not starts.size:
        return np.empty((0, size), np.uint8)
    steps = np.diff(starts)
    if steps.size == 0 or (steps == steps[0]).all():
        step = int(steps[0]) if steps.size else size
        return np.lib.stride_tricks.as_strided(
            data[starts[0] :], (len(starts), size), (step * data.strides[0], data.strides[0]), writeable=False
        )
    return np.lib.stride_tricks.sliding_window_view(data, size)[starts]


def _entries(data: bytes) -> Iterator[tuple[int, int, str, int, int]]:
    """Of each entry of the directory: bytes of its central and local header, name, first byte and size."""
    if len(data) < _END.size:
        raise LayoutError(f"{len(data)} bytes are no archive")
    magic, disk, disk_start, here, entries, size, at, comment = _END.unpack_from(data, len(data) - _END.size)
    if magic != b"PK\x05\x06" or disk or disk_start or here != entries or comment:
        raise LayoutError("no end of an archive's directory where it must be")
    if at + size + _END.size != len(data):
        raise LayoutError("the directory is not where its end says")
    for _ in range(entries):
        if at + _CENTRAL.size > len(data):
            raise LayoutError("the directory ends early")
        head = _CENTRAL.unpack_from(data, at)
        flags, method, packed, size, name_bytes, extra_bytes, note_bytes, local = (
            head[i] for i in (3, 4, 8, 9, 10, 11, 12, 16)
        )
        if head[0] != b"PK\x01\x02" or method or flags & _ENCRYPTED_OR_STREAMED or packed != size:
            raise LayoutError("an entry is compressed, encrypted or damaged")
        name = data[at + _CENTRAL.size : at + _CENTRAL.size + name_bytes]
        start = _start(data, local, name)
        if start + size > len(data):
            raise LayoutError(f"{name!r} ends behind the archive")
        yield at, local, name.decode("utf-8", "replace"), start, size
        at += _CENTRAL.size + name_bytes + extra_bytes + note_bytes
    if at + _END.size != len(data):
        raise LayoutError("the directory has another length than it says")


def _start(data: bytes, local: int, name: bytes) -> int:
    """First byte of an entry's content, behind its local header."""
    if local + _LOCAL.size > len(data):
        raise LayoutError(f"the local header of {name!r} is not in the archive")
    head = _LOCAL.unpack_from(data, local)
    if head[0] != b"PK\x03\x04" or data[local + _LOCAL.size : local + _LOCAL.size + head[9]] != name:
        raise LayoutError(f"no local header of {name!r} at byte {local}")
    return local + _LOCAL.size + int(head[9]) + int(head[10])


def _member(name: str, data: bytes, start: int, size: int, crc_byte: tuple[int, int]) -> Member:
    content = data[start : start + size]
    stored = [int.from_bytes(data[at : at + 4], "little") for at in crc_byte]
    if stored != [zlib.crc32(content)] * 2:
        raise LayoutError(f"{name}: its CRC-32 is wrong")
    stream = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise LayoutError(f"{name}: not of version 1.0 of the format")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    except ValueError as error:
        raise LayoutError(f"{name}: {error}") from error
    member = Member(dtype, shape, start, start + stream.tell(), crc_byte)
    if fortran_order or dtype.hasobject or not dtype.itemsize or member.end_byte != start + size:
        raise LayoutError(f"{name}: not {shape} plain {dtype} in C order")
    return member


def _between(free: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """The stretches of 0 … size that are not in ``free``, (first, behind the last), ascending and apart."""
    at = 0
    for first, behind in [*free, (size, size)]:
        if first > at:
            yield at, first
        at = behind
