"""fft_convolve2d against scipy's direct convolution: centred, not wrapped, not flipped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from dhs_gen.utils import fft_convolve2d, moffat_kernel


@given(
    rows=st.integers(1, 20),
    cols=st.integers(1, 20),
    half_rows=st.integers(0, 12),
    half_cols=st.integers(0, 12),
    seed=st.integers(0, 2**32),
)
def test_any_image_and_odd_kernel_give_the_direct_sum(
    rows: int, cols: int, half_rows: int, half_cols: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((rows, cols))
    kernel = rng.standard_normal((2 * half_rows + 1, 2 * half_cols + 1))
    full = signal.convolve2d(image, kernel, mode="full")
    expected = full[half_rows : half_rows + rows, half_cols : half_cols + cols]
    made = fft_convolve2d(image, kernel)
    assert made.shape == image.shape
    np.testing.assert_allclose(made, expected, atol=1e-11)


def test_same_as_scipys_fftconvolve() -> None:
    rng = np.random.default_rng(3)
    image, kernel = rng.standard_normal((64, 60)), moffat_kernel(4.0, 3.0, 33)
    np.testing.assert_allclose(fft_convolve2d(image, kernel), signal.fftconvolve(image, kernel, "same"), atol=1e-13)


@pytest.mark.parametrize("side", [1, 3, 33, 63, 145])
def test_a_delta_kernel_changes_nothing(side: int) -> None:
    """No roll, whatever the kernel's side; one larger than the image too."""
    image = np.random.default_rng(4).standard_normal((64, 64))
    delta = np.zeros((side, side))
    delta[side // 2, side // 2] = 1.0
    np.testing.assert_allclose(fft_convolve2d(image, delta), image, atol=1e-13)


def test_nothing_comes_back_on_the_other_side() -> None:
    image = np.zeros((32, 32))
    image[0, 31] = 1.0
    made = fft_convolve2d(image, np.full((9, 9), 1 / 81))
    assert np.abs(made[5:, :]).max() < 1e-15
    assert np.abs(made[:, :27]).max() < 1e-15
    assert made.sum() == pytest.approx(25 / 81)


def test_a_stack_is_convolved_image_by_image_and_float32_stays() -> None:
    stack = np.random.default_rng(5).standard_normal((3, 16, 12)).astype(np.float32)
    kernel = moffat_kernel(3.0, size=9)
    made = fft_convolve2d(stack, kernel)
    assert made.dtype == np.float32
    for image, one in zip(stack, made, strict=True):
        np.testing.assert_array_equal(fft_convolve2d(image, kernel), one)


@pytest.mark.parametrize(
    ("image", "kernel", "message"),
    [
        (np.zeros((4, 4)), np.zeros((4, 3)), r"kernel must have odd sides.* got \(4, 3\)"),
        (np.zeros((4, 4)), np.zeros((2, 3, 3)), r"kernel must have shape \(H, W\).* got \(2, 3, 3\)"),
        (np.zeros(4), np.zeros((3, 3)), r"img must have shape.* got \(4,\)"),
        (np.zeros((0, 4)), np.zeros((3, 3)), r"img must have shape.* got \(0, 4\)"),
        (np.full((4, 4), np.nan), np.zeros((3, 3)), "img must be finite, got 16 NaN"),
        (np.zeros((4, 4)), np.full((3, 3), np.inf), "kernel must be finite, got 9 NaN"),
        (np.zeros((4, 4), complex), np.zeros((3, 3)), "img must hold real numbers, got dtype complex128"),
    ],
)
def test_bad_input_is_named(image: np.ndarray, kernel: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fft_convolve2d(image, kernel)
