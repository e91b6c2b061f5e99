"""Gen6: which template of a NPZ bank a task gets in a notebook.

4c chooses by fold instead (:mod:`dhs_gen.source_banks.folds`), so that no template is on both sides of a split.
"""

from __future__ import annotations

from dhs_gen.streams import blake2b_u64

__all__ = ["choose_index"]


def choose_index(task_id: str, n: int, salt: str = "") -> int:
    """Index of one of ``n`` templates for a task: blake2b-64 of salt and task_id, modulo n.

    The same in every process and on every machine; Python's ``hash()`` is salted per process and would give every
    executor and every retry another source.

    Raises
    ------
    ValueError
        If ``task_id`` is not a string, or ``n`` is not a positive whole number.
    """
    if not isinstance(task_id, str):
        raise ValueError(f"task_id must be a string, got {task_id!r}")
    if isinstance(n, bool) or int(n) != n or n < 1:
        raise ValueError(f"n must be a positive whole number of templates, got {n!r}")
    return blake2b_u64(task_id, salt=salt) % int(n)
