"""Independent random streams, one per (task, purpose, band), and the keyed hash beneath them.

A stream depends on nothing but its key: not on the order of calls, the process, PYTHONHASHSEED, the number of
partitions or the machine. Each random quantity has a purpose of its own, so adding one never shifts another.
"""

from __future__ import annotations

import hashlib

import numpy as np

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
    key = int.from_bytes(_digest((task_id, purpose, band), salt, 16), "little")
    return np.random.Generator(np.random.Philox(key=key))
