"""Permutation within annuli: every annulus keeps its pixels, and all bands move together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhs_gen.paired_controls import annulus_permutation, shuffle_annuli, shuffled_difference

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20))
CENTRES = st.tuples(st.floats(-8, 28), st.floats(-8, 28))
WIDTHS = st.floats(0.3, 9)
SEEDS = st.integers(0, 10**6)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def annuli(shape: tuple[int, int], centre: tuple[float, float], width: float) -> dict[int, list[tuple[int, int]]]:
    """Pixels (row, column) of each annulus, one by one."""
    found: dict[int, list[tuple[int, int]]] = {}
    for row in range(shape[0]):
        for column in range(shape[1]):
            r = float(np.hypot(column - centre[0], row - centre[1]))
            found.setdefault(math.floor(r / width), []).append((row, column))
    return found


@given(SHAPES, CENTRES, WIDTHS, SEEDS)
def test_each_annulus_keeps_its_pixels_on_every_layer(
    shape: tuple[int, int], centre: tuple[float, float], width: float, seed: int
) -> None:
    image = rng(seed).normal(size=shape)
    layers = np.stack([image, 3.0 * image, rng(seed + 1).normal(size=shape)]).reshape(3, 1, *shape)
    moved = shuffle_annuli(layers, centre, width, rng(seed))
    assert moved.shape == layers.shape
    np.testing.assert_array_equal(moved[1], 3.0 * moved[0])
    for pixels in annuli(shape, centre, width).values():
        where = tuple(np.transpose(pixels))
        before = sorted(tuple(layers[:, 0, r, c]) for r, c in pixels)
        assert sorted(zip(*moved[:, 0][:, where[0], where[1]].tolist(), strict=True)) == before


@given(SHAPES, CENTRES, WIDTHS, SEEDS)
def test_order_is_a_permutation_fixed_by_the_generator(
    shape: tuple[int, int], centre: tuple[float, float], width: float, seed: int
) -> None:
    order = annulus_permutation(shape, centre, width, rng(seed))
    assert sorted(order) == list(range(shape[0] * shape[1]))
    np.testing.assert_array_equal(order, annulus_permutation(shape, centre, width, rng(seed)))
    image = rng(1).normal(size=shape)
    np.testing.assert_array_equal(shuffle_annuli(image, centre, width, rng(seed)), image.ravel()[order].reshape(shape))


def test_a_pixel_lands_anywhere_on_its_annulus_alike() -> None:
    """χ² of the place of one pixel over 4000 draws, and of the pair of two pixels' places."""
    shape, centre, n = (9, 9), (4.2, 3.7), 4000
    ring = annuli(shape, centre, 1.5)[1]
    flat = [r * 9 + c for r, c in ring]
    generator = rng(0)
    orders = np.array([annulus_permutation(shape, centre, 1.5, generator)[flat] for _ in range(n)])
    for place in (0, len(flat) - 1):
        counts = np.array([(orders[:, place] == f).sum() for f in flat])
        expected = n / len(flat)
        assert counts.sum() == n
        chi2 = ((counts - expected) ** 2 / expected).sum()
        assert chi2 < len(flat) - 1 + 4 * math.sqrt(2 * (len(flat) - 1))
    swapped = ((orders[:, 0] == flat[1]) & (orders[:, 1] == flat[0])).mean()
    p = 1 / (len(flat) * (len(flat) - 1))
    assert abs(swapped - p) < 4 * math.sqrt(p / n)


def test_one_wide_annulus_about_a_far_centre_is_the_whole_image() -> None:
    image = np.arange(64.0).reshape(8, 8)
    moved = shuffle_annuli(image, (-500.0, -500.0), 1000.0, rng(3))
    assert sorted(moved.ravel()) == list(range(64))
    assert (moved != image).sum() > 50


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_are_moved_and_not_touched(dtype: type) -> None:
    image = np.array([[np.nan, -0.0], [1.0, np.inf]], dtype=dtype)
    moved = shuffle_annuli(image, (0.5, 0.5), 5.0, rng(1))
    assert moved.dtype == dtype
    assert sorted(v.tobytes() for v in moved.ravel()) == sorted(v.tobytes() for v in image.ravel())


# ---------------------------------------------------------------------------------------- difference of a pair


def pair() -> tuple[np.ndarray, np.ndarray]:
    """A float32 control with -0.0 and the same with an off-centre blob in three colours."""
    y, x = np.mgrid[:32, :32]
    control = rng(5).normal(scale=0.01, size=(3, 32, 32)).astype(np.float32)
    control[:, :3] = -0.0
    blob = np.where(np.hypot(x - 22, y - 16) < 5, np.exp(-((x - 22) ** 2 + (y - 16) ** 2) / 8.0), 0.0)
    colours = np.array([0.5, 1.0, 2.0])[:, None, None]
    return (control + colours * blob).astype(np.float32), control


def test_difference_keeps_its_flux_in_every_annulus_and_loses_its_place() -> None:
    positive, control = pair()
    centre = (15.3, 15.8)
    negative = shuffled_difference(positive, control, centre, 1.0, rng(9))
    assert negative.dtype == control.dtype
    before, after = (s.astype(float) - control.astype(float) for s in (positive, negative))
    for pixels in annuli((32, 32), centre, 1.0).values():
        where = tuple(np.transpose(pixels))
        for band in range(3):
            np.testing.assert_allclose(
                np.sort(after[band][where]), np.sort(before[band][where]), atol=2e-7 * (1 + abs(before).max())
            )
    lit = after[1] > 0.05
    np.testing.assert_allclose(after[2][lit] / after[0][lit], 4.0, rtol=1e-4)
    columns = np.arange(32)
    assert (before[1] * columns).sum() / before[1].sum() > 21
    assert abs((after[1] * columns).sum() / after[1].sum() - centre[0]) < 1.5


def test_no_difference_gives_the_controls_bytes() -> None:
    _, control = pair()
    assert shuffled_difference(control, control, (15.3, 15.8), 1.0, rng(9)).tobytes() == control.tobytes()


# --------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("shape", "centre", "width", "words"),
    [
        ((8, 8), (4.0, 4.0), 0.0, "width_pix.*0.0"),
        ((8, 8), (4.0, 4.0), -1.0, "width_pix"),
        ((8, 8), (4.0, 4.0), math.nan, "width_pix"),
        ((8, 8), (math.nan, 4.0), 1.0, "centre_xy_pix.*nan"),
        ((8, 8), (4.0, math.inf), 1.0, "centre_xy_pix.*inf"),
        ((0, 8), (4.0, 4.0), 1.0, "shape"),
        ((8,), (4.0, 4.0), 1.0, "shape"),
    ],
)
def test_bad_annuli_are_named(shape: tuple[int, int], centre: tuple[float, float], width: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        annulus_permutation(shape, centre, width, rng(0))


def test_bad_images_are_named() -> None:
    with pytest.raises(ValueError, match=r"layers.*\(8,\)"):
        shuffle_annuli(np.zeros(8), (4.0, 4.0), 1.0, rng(0))
    for positive, control in ((np.zeros((3, 8, 8)), np.zeros((3, 8, 9))), (np.zeros((8, 8)), np.zeros((8, 8)))):
        with pytest.raises(ValueError, match="positive and control"):
            shuffled_difference(positive, control, (4.0, 4.0), 1.0, rng(0))
