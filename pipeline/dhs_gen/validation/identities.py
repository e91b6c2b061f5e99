"""Ids that are there twice, or in more than one split, among any number of rows in bounded memory.

Ids are hashed to 64 bits (blake2b). So many passes are made over the ids that the hashes of one fit in a fixed number
of rows; each pass keeps the ids of one residue class. Two different ids share a hash with a probability of 3e-4 among
1e8 rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Duplicates", "Leaks", "find_duplicates", "find_leaks"]

_ROWS_PER_PASS = 8_000_000
_EXAMPLES = 5
_MAX_SPLITS = 16
_CODE_BITS = np.uint64(4)


@dataclass(frozen=True)
class Duplicates:
    """How many ids are there more than once, how many rows they are beyond the first, and a few of them."""

    ids: int
    rows: int
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Leaks:
    """How many ids are in more than one split, and a few of them with their splits."""

    ids: int
    examples: dict[str, list[str]] = field(default_factory=dict)


def find_duplicates(read: Callable[[], Iterator[Any]], n_rows: int, rows_per_pass: int = _ROWS_PER_PASS) -> Duplicates:
    """Ids that are there more than once.

    Parameters
    ----------
    read
        Starts a new pass over the ids: Arrow arrays of text; nulls are left out.
    n_rows
        Of all arrays together.
    rows_per_pass
        Hashes held at a time.
    """
    ids = rows = 0
    suspects: list[np.uint64] = []
    n_passes = _passes(n_rows, rows_per_pass)
    for this in range(n_passes):
        held = [hashes[hashes % n_passes == this] for hashes, _ in map(_hash, read())]
        unique, counts = np.unique(np.concatenate(held or [np.empty(0, np.uint64)]), return_counts=True)
        ids += int((counts > 1).sum())
        rows += int((counts - 1).sum())
        suspects += unique[counts > 1][: _EXAMPLES - len(suspects)].tolist()
    examples = {value for array in read() for value in _matching(array, suspects)} if suspects else set()
    return Duplicates(ids, rows, sorted(examples)[:_EXAMPLES])


def find_leaks(
    read: Callable[[], Iterator[tuple[Any, Any]]], n_rows: int, rows_per_pass: int = _ROWS_PER_PASS
) -> Leaks:
    """Ids that are in more than one split.

    Parameters
    ----------
    read
        Starts a new pass: pairs of Arrow arrays of text, the ids and their splits; rows where either is null are left
        out.
    n_rows, rows_per_pass
        As of :func:`find_duplicates`.

    Raises
    ------
    ValueError
        If there are more than 16 splits.
    """
    codes: dict[str, int] = {}
    ids = 0
    suspects: list[np.uint64] = []
    n_passes = _passes(n_rows, rows_per_pass)
    for this in range(n_passes):
        held = [np.empty(0, np.uint64)]
        for values, splits in read():
            pairs = _pairs(values, splits, codes)
            held.append(np.unique(pairs[(pairs >> _CODE_BITS) % n_passes == this]))
            if sum(h.size for h in held[1:]) > rows_per_pass // 4:
                held = [np.unique(np.concatenate(held))]
        unique, counts = np.unique(np.unique(np.concatenate(held)) >> _CODE_BITS, return_counts=True)
        ids += int((counts > 1).sum())
        suspects += unique[counts > 1][: _EXAMPLES - len(suspects)].tolist()
    examples: dict[str, set[str]] = {}
    for values, splits in read() if suspects else ():
        for value, split in set(zip(values.to_pylist(), splits.to_pylist(), strict=True)):
            if value is not None and split is not None and (_u64(value) >> int(_CODE_BITS)) in suspects:
                examples.setdefault(value, set()).add(split)
    return Leaks(ids, {value: sorted(found) for value, found in sorted(examples.items()) if len(found) > 1})


def _passes(n_rows: int, rows_per_pass: int) -> int:
    return max(1, -(-n_rows // rows_per_pass))


def _u64(value: str) -> int:
    return int.from_bytes(hashlib.blake2b(value.encode("utf-8"), digest_size=8).digest(), "little")


def _hash(array: Any) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash of each row without a null, and the numbers of these rows; equal values are hashed once."""
    encoded = array.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    digests = b"".join(hashlib.blake2b(v.encode("utf-8"), digest_size=8).digest() for v in values)
    rows = np.flatnonzero(encoded.is_valid().to_numpy(zero_copy_only=False))
    indices = encoded.indices.drop_null().to_numpy(zero_copy_only=False)
    return np.frombuffer(digests, "<u8").astype(np.uint64)[indices], rows


def _matching(array: Any, suspects: list[np.uint64]) -> Iterator[str]:
    wanted = set(suspects)
    return (value for value in array.unique().to_pylist() if value is not None and _u64(value) in wanted)


def _pairs(values: Any, splits: Any, codes: dict[str, int]) -> NDArray[np.uint64]:
    """60 bits of the id's hash and 4 bits of its split, of the rows that have both."""
    hashes, rows = _hash(values)
    encoded = splits.dictionary_encode()
    for name in encoded.dictionary.to_pylist():
        codes.setdefault(name, len(codes))
    if len(codes) > _MAX_SPLITS:
        raise ValueError(f"at most {_MAX_SPLITS} splits can be told apart, found {sorted(codes)}")
    table = np.array([codes[name] for name in encoded.dictionary.to_pylist()] or [0], np.uint64)
    known = encoded.is_valid().to_numpy(zero_copy_only=False)
    code = table[encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    keep = known[rows]
    return ((hashes >> _CODE_BITS) << _CODE_BITS | code[rows])[keep]
