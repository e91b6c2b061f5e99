"""Dark borders of a template: cut alike on all four sides, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhs_gen.source_banks.sampler import trim


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    lit=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=4),
)
def test_all_light_is_kept_and_one_frame_more_would_cut_some(
    shape: tuple[int, int], lit: list[tuple[int, int]]
) -> None:
    pixels = np.zeros(shape)
    for row, column in lit:
        pixels[row % shape[0], column % shape[1]] = -2.5
    trimmed = trim(pixels)
    border = (shape[0] - trimmed.shape[0]) // 2
    assert trimmed.shape == (shape[0] - 2 * border, shape[1] - 2 * border)
    assert trimmed.sum() == pixels.sum()
    np.testing.assert_array_equal(trimmed, pixels[border : shape[0] - border, border : shape[1] - border])
    inner = trimmed[1:-1, 1:-1]
    assert np.count_nonzero(inner) < np.count_nonzero(trimmed)


@pytest.mark.parametrize("shape", [(1, 1), (4, 6), (5, 5)])
def test_without_light_nothing_is_cut(shape: tuple[int, int]) -> None:
    assert trim(np.zeros(shape)).shape == shape
