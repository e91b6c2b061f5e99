"""What a worker leaves out of the collections that Spark asks for."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from dhs_pipeline.stage import _spare_modules_from_collection


class Knot:
    """Garbage that refers to itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def _thaw() -> Iterator[None]:
    _spare_modules_from_collection.cache_clear()
    yield
    gc.unfreeze()
    _spare_modules_from_collection.cache_clear()


def test_modules_are_left_out_and_garbage_of_later_tasks_is_collected() -> None:
    early = weakref.ref(Knot())
    _spare_modules_from_collection(100)
    assert early() is None, "garbage of the first task must not stay for ever"
    assert gc.get_freeze_count() > 10_000
    late = weakref.ref(Knot())
    _spare_modules_from_collection(100)
    gc.collect()
    assert late() is None


def test_modules_imported_later_are_left_out_too() -> None:
    _spare_modules_from_collection(100)
    before = gc.get_freeze_count()
    later = [[i] for i in range(5000)]
    _spare_modules_from_collection(101)
    assert gc.get_freeze_count() >= before + len(later)
