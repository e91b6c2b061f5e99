"""Independent random streams, one per (task, purpose, band), and the keyed hash beneath them.

A stream depends on nothing but its key: not on the order of calls, the process, PYTHONHASHSEED, the number of
partitions or the machine. Each random quantity has a purpose of its own, so adding one never shifts another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "blake2b_u64",
    "categorical_from_hash",
    "categorical_from_hashes",
    "check_probabilities",
    "rng_from_hash",
    "stable_id",
    "stream",
    "unit_interval",
    "unit_intervals",
]

_SEPARATOR = b"\x00"


def _digest(parts: tuple[object, ...], salt: str, size: int) -> bytes:
    """blake2b over the salt, then each part, each followed by a NUL byte."""
    h = hashlib.blake2b(digest_size=size)
    for part in (salt, *parts):
        h.update(str(part).encode("utf-8"))
        h.update(_SEPARATOR)
    return h.digest()


def blake2b_u64(*parts: object, salt: str = "") -> int:
    """64-bit keyed hash of ``parts`` (salt first, each part followed by NUL; little-endian)."""
    return int.from_bytes(_digest(parts, salt, 8), "little")


def unit_interval(*parts: object, salt: str = "") -> float:
    """A number in [0, 1) fixed by the key, with 53 random bits."""
    return (blake2b_u64(*parts, salt=salt) >> 11) * 2.0**-53


def unit_intervals(keys: Iterable[object], *, salt: str = "") -> NDArray[np.float64]:
    """:func:`unit_interval` of each key; hashing the salt once makes it several times faster than one by one."""
    start = hashlib.blake2b(salt.encode("utf-8") + _SEPARATOR, digest_size=8)
    digests = bytearray()
    for key in keys:
        h = start.copy()
        h.update(str(key).encode("utf-8") + _SEPARATOR)
        digests += h.digest()
    return (np.frombuffer(digests, dtype="<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53


def categorical_from_hash(key: str | int, probs: ArrayLike, salt: str = "") -> int:
    """Index of a category, fixed by the key.

    Parameters
    ----------
    key
        What the choice belongs to, such as a task id.
    probs
        (n,) probabilities of the categories; sum 1 within 1e-6.
    salt
        Separates independent choices for one key.

    Returns
    -------
    int
        The first category whose cumulative probability exceeds :func:`unit_interval` of the key; never one of
        probability 0.

    Raises
    ------
    ValueError
        If the probabilities are empty, not finite, negative or do not sum to 1, or the key is neither text nor an
        integer.
    """
    return int(_category(probs, np.array([unit_interval(_key(key), salt=_salt(salt))]))[0])


def categorical_from_hashes(keys: Sequence[object], probs: ArrayLike, salt: str = "") -> NDArray[np.int64]:
    """:func:`categorical_from_hash` of each key."""
    return _category(probs, unit_intervals(keys, salt=salt))


def check_probabilities(probs: ArrayLike, name: str = "probs") -> NDArray[np.float64]:
    """The probabilities as float64; ValueError unless they are finite, non-negative and sum to 1 within 1e-6."""
    try:
        values = np.asarray(probs, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a list of numbers, got {probs!r}") from None
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name} must be a list of at least one probability, got shape {values.shape}")
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError(f"{name} must be finite and non-negative, got {values.tolist()}")
    if abs(values.sum() - 1.0) > 1e-6:
        raise ValueError(f"{name} must sum to 1 within 1e-6, got {values.tolist()} with sum {values.sum():.9g}")
    return values


def _category(probs: ArrayLike, u: NDArray[np.float64]) -> NDArray[np.int64]:
    """First category whose cumulative probability exceeds u; one of probability 0 is never chosen."""
    cumulative = np.cumsum(check_probabilities(probs))
    return np.searchsorted(cumulative / cumulative[-1], u, side="right")


def stable_id(*parts: object) -> str:
    """32 hexadecimal digits (128 bits) that name ``parts``; used for task ids."""
    return _digest(parts, "id", 16).hex()


def stream(task_id: str, purpose: str, *, salt: str = "", band: str = "") -> np.random.Generator:
    """Counter-based generator for one purpose of one task.

    Parameters
    ----------
    task_id, purpose, salt, band
        The key. Two streams are independent as soon as one of them differs.

    Returns
    -------
    numpy.random.Generator
        Philox4x64 with the 128-bit key blake2b(salt, task_id, purpose, band) (Salmon et al. 2011, SC'11).
    """
    key = _Key(_digest((task_id, purpose, band), salt, 16))
    return np.random.Generator(np.random.Philox(key))  # type: ignore[arg-type]  # any ISeedSequence, says its page


class _Key(ISeedSequence):
    """A Philox key as it is. The argument ``key`` of Philox does the same after a seed has been drawn from the
    operating system for nothing, which costs more than all the rest of a stream."""

    def __init__(self, key: bytes) -> None:
        self._words = np.frombuffer(key, dtype="<u8")

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        if n_words * np.dtype(dtype).itemsize != self._words.nbytes:
            raise ValueError(f"this key has 16 bytes, {n_words} words of {np.dtype(dtype)} were asked for")
        return self._words.view(dtype)


def rng_from_hash(key: str | int, salt: str = "") -> np.random.Generator:
    """Counter-based generator for one key: Philox4x64 with the 128-bit key blake2b(salt, key).

    For notebooks; the package itself draws from :func:`stream`, whose keys carry a purpose.

    Raises
    ------
    ValueError
        If the key is neither text nor an integer (anything else may print differently in another process), or the salt
        is not text.
    """
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest((_key(key),), _salt(salt), 16), "little")))


def _key(key: str | int) -> str:
    if isinstance(key, bool) or not isinstance(key, str | int | np.integer):
        raise ValueError(f"key must be text or an integer, got {key!r}")
    return str(key)


def _salt(salt: str) -> str:
    if not isinstance(salt, str):
        raise ValueError(f"salt must be text, got {salt!r}")
    return str(salt)
