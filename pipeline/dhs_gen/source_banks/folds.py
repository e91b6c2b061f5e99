"""Which templates a fold of sky regions may use, so that no template is on both sides of a split.

A bank is dealt once into as many folds as the sky has: each fold of regions draws its sources from the templates of the
same number and from no others. Any split made of whole folds then divides neither a region nor a template.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dhs_gen.source_banks.bank import BankError, SourceBank, choose_template
from dhs_gen.streams import blake2b_u64

__all__ = ["check_folds", "fold_members", "template_of"]


def check_folds(bank: SourceBank, folds: int) -> None:
    """Raise :class:`BankError` unless each fold has a template."""
    if len(bank) < folds:
        raise BankError(
            f"{bank.path} holds {len(bank)} templates, fewer than the {folds} folds that may not share one: "
            "give a larger bank or set manifest.folds lower"
        )


@lru_cache(maxsize=256)
def fold_members(bank: SourceBank, fold: int, folds: int) -> NDArray[np.intp]:
    """Indices of the templates of a fold, in the order of the bank.

    Templates are ordered by a hash of their names and dealt in turn, so folds differ by one template at most.

    Raises
    ------
    ValueError
        If ``fold`` is not in [0, folds).
    """
    if not 0 <= fold < folds:
        raise ValueError(f"fold must lie in [0, {folds}), got {fold!r}")
    check_folds(bank, folds)
    order = sorted(range(len(bank)), key=lambda i: (blake2b_u64(bank.template_id[i], salt="template_fold"), i))
    members = np.sort(np.array(order[fold::folds], dtype=np.intp))
    members.setflags(write=False)
    return members


def template_of(bank: SourceBank, u: float, fold: int, folds: int) -> int:
    """Index of the template at ``u`` in [0, 1) among those of the fold."""
    members = fold_members(bank, fold, folds)
    return int(members[choose_template(u, len(members))])
