"""Folds of a bank: every template in exactly one, evenly, whatever the order of the bank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dhs_gen.source_banks import BankError, SourceBank
from dhs_gen.source_banks.folds import fold_members, template_of


def bank(names: list[str]) -> SourceBank:
    count = len(names)
    return SourceBank(np.ones((count, 3, 3), np.float32), tuple(names), np.ones(count), 0.03, 0.1, Path("bank"), "")


def test_each_template_is_in_one_fold_and_folds_are_even() -> None:
    b = bank([f"t{i}" for i in range(103)])
    members = [fold_members(b, f, 10) for f in range(10)]
    assert sorted(np.concatenate(members)) == list(range(103))
    assert {len(m) for m in members} == {10, 11}


def test_a_template_keeps_its_fold_when_the_bank_is_in_another_order() -> None:
    names = [f"t{i}" for i in range(60)]
    one, other = bank(names), bank(names[::-1])
    for fold in range(7):
        assert {one.template_id[i] for i in fold_members(one, fold, 7)} == {
            other.template_id[i] for i in fold_members(other, fold, 7)
        }


def test_u_reaches_every_template_of_the_fold_equally() -> None:
    b = bank([f"t{i}" for i in range(40)])
    picked = [template_of(b, u, 3, 10) for u in np.arange(400) / 400]
    assert {picked.count(i) for i in fold_members(b, 3, 10)} == {100}
    assert set(picked) == set(fold_members(b, 3, 10))


def test_a_bank_smaller_than_its_folds_is_refused() -> None:
    with pytest.raises(BankError, match="9 templates, fewer than the 10 folds"):
        fold_members(bank([f"t{i}" for i in range(9)]), 0, 10)
    with pytest.raises(ValueError, match=r"fold must lie in \[0, 10\), got 10"):
        fold_members(bank([f"t{i}" for i in range(20)]), 10, 10)
