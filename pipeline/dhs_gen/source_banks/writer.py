"""Writing a source bank, one template at a time; the format is described in :mod:`~.bank`."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BANK_FILE",
    "FORMAT_VERSION",
    "IMAGES_FILE",
    "META_FILE",
    "REJECTS_FILE",
    "BankError",
    "BankWriter",
    "Column",
    "parquet",
    "sha256",
    "write_bank",
]

IMAGES_FILE = "images.npy"
META_FILE = "meta.parquet"
REJECTS_FILE = "rejects.parquet"
BANK_FILE = "bank.json"
FORMAT_VERSION = 1

_CHUNK_BYTES = 1 << 22


class BankError(ValueError):
    """A bank cannot be built or used. One line: what was found, where, and what to do about it."""


@dataclass(frozen=True)
class Column:
    """One column of ``meta.parquet`` or ``rejects.parquet``: pyarrow type name, unit and meaning."""

    name: str
    type_name: str
    unit: str
    description: str


def write_bank(
    out_dir: str | os.PathLike[str],
    images: Iterable[NDArray[np.floating]],
    meta_rows: Iterable[Mapping[str, Any]],
    reject_rows: Iterable[Mapping[str, Any]],
    *,
    columns: Sequence[Column],
    info: Mapping[str, Any],
) -> str:
    """Write a bank that is already in memory; :class:`BankWriter` is the same one template at a time.

    Parameters
    ----------
    images, meta_rows
        Templates (S, S), positive sum, and their rows, in step.
    reject_rows
        Rows of the refused candidates, each with ``reason`` and ``message``.
    columns
        Columns of ``meta.parquet``; must include ``template_id`` and ``hlr_arcsec``.
    info
        What ``bank.json`` says besides counts and digest; must include ``pixscale_arcsec`` and
        ``effective_psf_fwhm_arcsec``.

    Returns
    -------
    str
        SHA-256 of ``images.npy``.
    """
    with BankWriter(out_dir, columns) as writer:
        for image, row in zip(images, meta_rows, strict=True):
            writer.accept(image, row)
        for row in reject_rows:
            writer.reject(row)
        return writer.finish(info)


class BankWriter:
    """Writes a bank one candidate at a time; nothing has its final name before :meth:`finish`.

    The same candidates in the same order give the same bytes: no clock, no random numbers, no machine path.
    Left without :meth:`finish`, the temporary files are removed and an older bank in the folder stays as it was.
    """

    def __init__(self, out_dir: str | os.PathLike[str], columns: Sequence[Column]) -> None:
        self._folder = Path(out_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._columns = tuple(columns)
        self._accepted: list[dict[str, Any]] = []
        self._rejected: list[dict[str, Any]] = []
        self._side: int | None = None
        self._stream: BinaryIO = self._temporary(IMAGES_FILE).open("wb")

    @property
    def n_accepted(self) -> int:
        """Templates accepted so far."""
        return len(self._accepted)

    def counts_by_reason(self) -> dict[str, int]:
        """How many candidates were refused, by reason, in alphabetical order."""
        reasons = [str(row["reason"]) for row in self._rejected]
        return {reason: reasons.count(reason) for reason in sorted(set(reasons))}

    def accept(self, image: NDArray[np.floating], row: Mapping[str, Any]) -> None:
        """Append a template, normalised to unit sum in float64 and stored as float32."""
        side = image.shape[0]
        if image.shape != (side, side) or side != (self._side or side):
            raise BankError(
                f"template {row['template_id']} has shape {image.shape}, the bank's are {(self._side or side,) * 2}: "
                "all templates of a bank are squares of one size"
            )
        pixels = np.asarray(image, dtype=np.float64)
        total = float(pixels.sum())
        if not (np.isfinite(total) and total > 0):
            raise BankError(f"template {row['template_id']} sums to {total!r}: only positive sums can be normalised")
        if self._side is None:
            self._side = side
            self._write_header()
        self._stream.write((pixels / total).astype("<f4").tobytes())
        self._accepted.append(dict(row))

    def reject(self, row: Mapping[str, Any]) -> None:
        """Record a refused candidate; ``row`` holds ``reason``, ``message`` and the numbers known by then."""
        self._rejected.append(dict(row))

    def finish(self, info: Mapping[str, Any]) -> str:
        """Complete the files, give them their names (``bank.json`` last) and return the digest of the images."""
        if not self._accepted:
            raise BankError(
                f"no template was accepted for {self._folder} (refused: {self.counts_by_reason()}): "
                "the input is not usable with these settings"
            )
        self._write_header()
        self._stream.close()
        self._write_table(META_FILE, self._accepted, self._columns)
        self._write_table(REJECTS_FILE, self._rejected, (*self._columns, *_REJECT_COLUMNS))
        digest = sha256(self._temporary(IMAGES_FILE))
        document = {
            **info,
            "format_version": FORMAT_VERSION,
            "n_templates": self.n_accepted,
            "n_rejected": len(self._rejected),
            "rejected_by_reason": self.counts_by_reason(),
            "template_side_px": self._side,
            "images_sha256": digest,
        }
        text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
        self._temporary(BANK_FILE).write_text(text, encoding="utf-8")
        (self._folder / BANK_FILE).unlink(missing_ok=True)  # a bank interrupted here is incomplete, not mixed
        for name in (IMAGES_FILE, META_FILE, REJECTS_FILE, BANK_FILE):
            self._temporary(name).replace(self._folder / name)
        return digest

    def __enter__(self) -> BankWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        for name in (IMAGES_FILE, META_FILE, REJECTS_FILE, BANK_FILE):
            self._temporary(name).unlink(missing_ok=True)

    def _temporary(self, name: str) -> Path:
        return self._folder / f".{name}.tmp"

    def _write_header(self) -> None:
        """(Re)write the .npy header; numpy pads it so that its length does not depend on N (NEP 1, growth axis)."""
        end = self._stream.seek(0, os.SEEK_END)
        self._stream.seek(0)
        side = self._side or 0
        shape = (len(self._accepted), side, side)
        np.lib.format.write_array_header_1_0(self._stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        if end and self._stream.tell() + 4 * math.prod(shape) != end:
            raise BankError(f"the header of {IMAGES_FILE} changed its length while {self._folder} was written")
        self._stream.seek(0, os.SEEK_END)

    def _write_table(self, name: str, rows: list[dict[str, Any]], columns: Sequence[Column]) -> None:
        pa, pq = _arrow(), parquet()
        fields = [
            pa.field(
                c.name,
                pa.type_for_alias(c.type_name),
                metadata={b"unit": c.unit.encode(), b"description": c.description.encode()},
            )
            for c in columns
        ]
        data = {c.name: [row.get(c.name) for row in rows] for c in columns}
        pq.write_table(pa.table(data, schema=pa.schema(fields)), self._temporary(name), compression="zstd")


_REJECT_COLUMNS = (
    Column("reason", "string", "", "why the candidate was refused"),
    Column("message", "string", "", "the number that decided, and its limit"),
)


def sha256(file: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError("a source bank needs pyarrow: pip install dark-halo-scope[banks]") from error
    return pyarrow


def parquet() -> Any:
    """pyarrow.parquet, or an ImportError that says how to get it."""
    _arrow()
    import pyarrow.parquet

    return pyarrow.parquet
