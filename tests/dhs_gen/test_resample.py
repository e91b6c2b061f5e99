"""Resampling and padding: flux, centre and shape, against GalSim's pixel integrals and sums over blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dhs_gen.utils import bilinear_resample, pad_or_crop_center

SCALES = st.floats(0.02, 8.0) | st.sampled_from([0.03 / 0.262, 0.168 / 0.262, 0.5, 1.0, 2.0])


def centroid(image: NDArray[np.floating]) -> tuple[float, float]:
    """(y, x) from the geometric centre, in pixels."""
    y = np.arange(image.shape[0]) - 0.5 * (image.shape[0] - 1)
    x = np.arange(image.shape[1]) - 0.5 * (image.shape[1] - 1)
    return float(image.sum(axis=1) @ y / image.sum()), float(image.sum(axis=0) @ x / image.sum())


@given(rows=st.integers(1, 40), cols=st.integers(1, 40), scale_y=SCALES, scale_x=SCALES, seed=st.integers(0, 2**32))
def test_any_image_keeps_its_sum_and_its_sign_at_any_scale(
    rows: int, cols: int, scale_y: float, scale_x: float, seed: int
) -> None:
    image = np.random.default_rng(seed).uniform(0, 1, (rows, cols))
    made = bilinear_resample(image, scale_y, scale_x)
    assert made.shape == (max(1, round(rows * scale_y)), max(1, round(cols * scale_x)))
    assert made.sum() == pytest.approx(image.sum(), rel=1e-12)
    assert made.min() >= -1e-15


@pytest.mark.parametrize("scale", [0.03 / 0.262, 0.168 / 0.262, 0.5, 0.9, 1.3, 0.262 / 0.168, 0.262 / 0.03])
def test_a_point_source_keeps_its_flux_at_every_phase_and_its_place(scale: float) -> None:
    """Half of a larger pixel is all that it knows of a point; smaller ones sample the triangle that it becomes."""
    side = 41
    for y in range(12, 30):
        image = np.zeros((side, side))
        image[y, 20] = 1.0
        made = bilinear_resample(image, scale, scale)
        assert made.sum() == pytest.approx(1.0, abs=1e-12)
        assert centroid(made)[0] == pytest.approx((y - 20) * scale, abs=0.5 if scale < 1 else 0.02)
        assert centroid(made)[1] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("scale", "interpolant"), [(0.168 / 0.262, "nearest"), (0.3, "nearest"), (1.7, "linear")])
def test_resampling_is_galsims_interpolated_image_with_the_new_pixel(scale: float, interpolant: str) -> None:
    """GalSim's nearest (linear) interpolant, integrated over the new pixel in real space."""
    galsim = pytest.importorskip("galsim")
    image = np.random.default_rng(8).uniform(0, 1, (7, 9))
    image[[0, -1], :] = 0.0  # GalSim's image ends in zeros
    image[:, [0, -1]] = 0.0
    made = bilinear_resample(image, scale, scale)
    source = galsim.InterpolatedImage(galsim.Image(image, scale=1.0), x_interpolant=interpolant, normalization="flux")
    drawn = galsim.Convolve(source, galsim.Pixel(1 / scale), real_space=True)
    rows, cols = made.shape
    for row, col in ((rows // 2, cols // 2), (rows // 2, cols // 2 - 1), (1, cols // 2), (rows - 2, 1)):
        at = galsim.PositionD((col - 0.5 * (cols - 1)) / scale, (row - 0.5 * (rows - 1)) / scale)
        assert made[row, col] == pytest.approx(drawn.xValue(at) / scale**2, abs=2e-5)


def test_whole_factors_are_sums_over_blocks() -> None:
    image = np.random.default_rng(9).standard_normal((12, 18))
    blocks = image.reshape(4, 3, 9, 2).sum(axis=(1, 3))
    np.testing.assert_allclose(bilinear_resample(image, 1 / 3, 1 / 2), blocks, atol=1e-12)


def test_scale_one_is_the_image_itself() -> None:
    image = np.random.default_rng(10).standard_normal((5, 6))
    np.testing.assert_array_equal(bilinear_resample(image, 1, 1.0), image)


@pytest.mark.parametrize("scale", [0.3, 0.64, 1.5, 4.2])
def test_a_flat_image_stays_flat_and_a_slope_straight(scale: float) -> None:
    flat = bilinear_resample(np.full((40, 40), 2.0), scale, scale)
    inner = slice(1, -1)
    np.testing.assert_allclose(flat[inner, inner], 2.0 / scale**2, rtol=1e-12)
    slope = bilinear_resample(np.arange(40.0)[:, None] * np.ones((1, 40)), scale, scale)
    if scale > 1:
        rows = math.ceil(scale)
        np.testing.assert_allclose(np.diff(slope[rows:-rows, 5], n=2), 0.0, atol=1e-12)


def test_a_galaxy_keeps_its_centre_and_gains_only_the_pixels_width() -> None:
    """In new pixels: the galaxy's variance, that of the old pixel's square and that of the new pixel's."""
    t = np.arange(121) - 60.0
    sigma, scale = 9.0, 0.168 / 0.262
    image = np.exp(-0.5 * ((t[:, None] - 3.0) ** 2 + (t + 2.0) ** 2) / sigma**2)
    made = bilinear_resample(image, scale, scale)
    y, x = centroid(made)
    assert (y, x) == (pytest.approx(3.0 * scale, abs=1e-4), pytest.approx(-2.0 * scale, abs=1e-4))
    u = np.arange(made.shape[0]) - 0.5 * (made.shape[0] - 1)
    variance = made.sum(axis=1) @ (u - y) ** 2 / made.sum()
    assert variance == pytest.approx((sigma * scale) ** 2 + (scale**2 + 1) / 12, rel=1e-4)


def test_the_strip_that_the_rounded_side_leaves_out_goes_to_the_outermost_pixels() -> None:
    """64 · 0.03/0.262 = 7.33 pixels become 7: 9 % of a flat image lies outside of them."""
    made = bilinear_resample(np.ones((64, 64)), 0.03 / 0.262, 0.03 / 0.262)
    assert made.shape == (7, 7)
    assert made.sum() == pytest.approx(64**2, rel=1e-12)
    assert made[0, 3] / made[3, 3] == pytest.approx(1 + (64 * 0.03 / 0.262 - 7) / 2, rel=1e-9)


def test_stacks_and_types() -> None:
    stack = np.random.default_rng(11).uniform(0, 1, (2, 3, 10, 8)).astype(np.float32)
    made = bilinear_resample(stack, 0.5, 1.5)
    assert made.dtype == np.float32
    assert made.shape == (2, 3, 5, 12)
    np.testing.assert_array_equal(made[1, 2], bilinear_resample(stack[1, 2], 0.5, 1.5))
    assert bilinear_resample(np.ones((2, 2), int), 1, 1).dtype == np.float64
    assert bilinear_resample(np.ones((2, 2), np.float16), 1, 1).dtype == np.float32


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=f"scale_y must be positive and finite, got {scale}"):
        bilinear_resample(np.ones((3, 3)), scale, 1.0)
    with pytest.raises(ValueError, match=f"scale_x must be positive and finite, got {scale}"):
        bilinear_resample(np.ones((3, 3)), 1.0, scale)


def test_an_image_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"img must have shape .* got \(3,\)"):
        bilinear_resample(np.ones(3), 1.0, 1.0)
    with pytest.raises(ValueError, match="img must be finite, got 1 NaN or infinite pixels of 4"):
        pad_or_crop_center(np.array([[1.0, np.nan], [0.0, 0.0]]), (3, 3))


@given(old=st.tuples(st.integers(1, 12), st.integers(1, 12)), new=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_the_central_pixel_stays_central(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = np.arange(1.0, old[0] * old[1] + 1).reshape(old)
    made = pad_or_crop_center(image, new)
    assert made.shape == new
    assert made[new[0] // 2, new[1] // 2] == image[old[0] // 2, old[1] // 2]
    overlap = tuple(min(o, n) for o, n in zip(old, new, strict=True))
    assert np.count_nonzero(made) == overlap[0] * overlap[1]
    larger = tuple(max(o, n) for o, n in zip(old, new, strict=True))
    np.testing.assert_array_equal(pad_or_crop_center(pad_or_crop_center(image, larger), old), image)


def test_padding_a_stack_leaves_the_source_alone() -> None:
    stack = np.ones((2, 4, 4), np.float32)
    made = pad_or_crop_center(stack, (6, 3))
    assert made.shape == (2, 6, 3)
    assert made.dtype == np.float32
    made[:] = 7
    assert stack.max() == 1


@pytest.mark.parametrize("shape", [(0, 4), (4,), 4, (4.5, 4), (-1, 4), (4, 4, 4), None, (math.inf, 3)])
def test_a_shape_that_is_none_is_refused(shape: object) -> None:
    with pytest.raises(ValueError, match="shape must be two positive integers"):
        pad_or_crop_center(np.ones((3, 3)), shape)  # type: ignore[arg-type]
