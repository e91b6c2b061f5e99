"""The windowed centroid on drawn galaxies with known centres, and on everything it must refuse."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dhs_gen.centroid import CentroidError, _median, light_centroid

SIZE_PIX = 101
PIXSCALE_ARCSEC = 0.262
SIGMA_PIX = 0.6 / PIXSCALE_ARCSEC
MAX_SHIFT_PIX = 0.8 / PIXSCALE_ARCSEC
SKY_SIGMA_NMGY = 0.008  # r at the nominal two-exposure depth of DR10
NO_MASK = np.zeros((SIZE_PIX, SIZE_PIX), dtype=bool)


def gaussian(x_pix: float, y_pix: float, flux: float = 10.0, sigma_pix: float = 2.0) -> NDArray[np.float32]:
    y, x = np.indices((SIZE_PIX, SIZE_PIX))
    r2 = (x - x_pix) ** 2 + (y - y_pix) ** 2
    return (flux / (2 * np.pi * sigma_pix**2) * np.exp(-r2 / (2 * sigma_pix**2))).astype(np.float32)


def sky(seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, SKY_SIGMA_NMGY, (SIZE_PIX, SIZE_PIX)).astype(np.float32)


def centroid(
    image: NDArray[np.floating], mask: NDArray[np.bool_] = NO_MASK, x: float = 50.0, y: float = 50.0
) -> tuple[float, float]:
    return light_centroid(image, mask, x, y, SIGMA_PIX, MAX_SHIFT_PIX)


def drawn_errors_pix(neighbours: bool, count: int = 60) -> NDArray[np.float64]:
    """Centroid less true centre, (count, 2), of de Vaucouleurs galaxies with r 18.8-20.5, 0.6-1.8", 0.95" seeing."""
    galsim = pytest.importorskip("galsim")
    rng = np.random.default_rng(20 + neighbours)
    psf = galsim.Moffat(beta=2.85, fwhm=0.95)
    errors = []
    for _ in range(count):
        mag = rng.uniform(18.8, 20.5)
        dx_pix, dy_pix = rng.uniform(-0.5, 0.5, 2)
        galaxy = galsim.DeVaucouleurs(half_light_radius=rng.uniform(0.6, 1.8), flux=10 ** (0.4 * (22.5 - mag)))
        galaxy = galaxy.shear(q=rng.uniform(0.6, 1), beta=rng.uniform(0, np.pi) * galsim.radians)
        scene = galsim.Convolve(galaxy, psf).shift(dx_pix * PIXSCALE_ARCSEC, dy_pix * PIXSCALE_ARCSEC)
        if neighbours:
            r_arcsec, angle = rng.uniform(3, 5), rng.uniform(0, 2 * np.pi)
            other = galsim.Exponential(half_light_radius=0.5, flux=10 ** (0.4 * (22.5 - mag - rng.uniform(0, 3))))
            scene += galsim.Convolve(other, psf).shift(r_arcsec * np.cos(angle), r_arcsec * np.sin(angle))
        image = scene.drawImage(nx=SIZE_PIX, ny=SIZE_PIX, scale=PIXSCALE_ARCSEC).array
        image = image + rng.normal(0, SKY_SIGMA_NMGY, image.shape)
        x, y = centroid(image, x=50 + rng.normal(0, 0.3), y=50 + rng.normal(0, 0.3))
        errors.append((x - 50 - dx_pix, y - 50 - dy_pix))
    return np.array(errors)


def test_a_noiseless_gaussian_is_found_to_a_thousandth_of_a_pixel() -> None:
    assert centroid(gaussian(50.37, 49.21)) == pytest.approx((50.37, 49.21), abs=1e-3)


def test_columns_come_first() -> None:
    x, y = centroid(gaussian(51.5, 50.0))
    assert x == pytest.approx(51.5, abs=1e-3)
    assert y == pytest.approx(50.0, abs=1e-3)


@pytest.mark.parametrize("neighbours", [False, True])
def test_bias_and_scatter_on_drawn_galaxies(neighbours: bool) -> None:
    errors_pix = drawn_errors_pix(neighbours)
    bias, scatter = errors_pix.mean(axis=0), errors_pix.std(axis=0)
    print(f"neighbours={neighbours}: bias {bias.round(4)} px, scatter {scatter.round(3)} px per axis")
    assert np.abs(bias).max() < 0.02
    assert scatter.max() < 0.12


def test_an_added_constant_changes_nothing() -> None:
    image = gaussian(50.3, 49.8) + sky()
    assert centroid(image + np.float32(0.5)) == pytest.approx(centroid(image), abs=1e-3)


def test_a_bright_object_far_off_does_not_set_the_background() -> None:
    image = gaussian(50.3, 49.8) + sky()
    assert centroid(image + gaussian(85, 15, flux=1000)) == pytest.approx(centroid(image), abs=2e-3)


def test_masked_pixels_away_from_the_light_do_not_matter_even_as_nan() -> None:
    image, mask = gaussian(50.3, 49.8) + sky(), NO_MASK.copy()
    expected = centroid(image)
    mask[:, 62:] = True
    image[mask] = np.nan
    assert centroid(image, mask) == pytest.approx(expected, abs=5e-3)


def test_the_arguments_are_left_alone() -> None:
    image, mask = gaussian(50.3, 49.8) + sky(), NO_MASK.copy()
    before = image.copy()
    centroid(image, mask)
    assert np.array_equal(image, before)
    assert not mask.any()


def test_byte_order_and_float64_are_no_matter() -> None:
    image = gaussian(50.3, 49.8) + sky()
    assert centroid(image.astype(">f4")) == centroid(image)
    assert centroid(image.astype(np.float64)) == pytest.approx(centroid(image), abs=1e-6)


def masked(columns: slice) -> NDArray[np.bool_]:
    mask = NO_MASK.copy()
    mask[:, columns] = True
    return mask


def masked_outside(half_pix: int) -> NDArray[np.bool_]:
    mask = ~NO_MASK
    mask[50 - half_pix : 51 + half_pix, 50 - half_pix : 51 + half_pix] = False
    return mask


def with_nan(image: NDArray[np.float32]) -> NDArray[np.float32]:
    image[3, 4] = np.nan
    return image


@pytest.mark.parametrize(
    ("image", "mask", "x", "message"),
    [
        (gaussian(56, 50), NO_MASK, 50.0, "from the start"),
        (sky(), NO_MASK, 50.0, "no light|from the start"),
        (np.zeros((SIZE_PIX, SIZE_PIX), np.float32), NO_MASK, 50.0, "no light"),
        (-gaussian(50, 50) + sky(), NO_MASK, 50.0, "no light|from the start|converge|leaves"),
        (gaussian(50, 50) + sky(), masked(slice(51, 52)), 50.0, "of the window is masked"),
        (gaussian(50, 50) + sky(), ~NO_MASK, 50.0, "of the window is masked"),
        (gaussian(50, 50) + sky(), masked_outside(12), 50.0, "background pixels"),
        (gaussian(50, 50) + sky(), NO_MASK, 5.0, "leaves the image"),
        (gaussian(50, 50) + sky(), NO_MASK, np.nan, "leaves the image"),
        (with_nan(gaussian(50, 50) + sky()), NO_MASK, 50.0, "not finite"),
    ],
    ids=[
        "shift",
        "noise",
        "zero",
        "hole",
        "column",
        "masked",
        "background",
        "edge",
        "nan start",
        "nan pixel",
    ],
)
def test_what_it_refuses(image: NDArray[np.float32], mask: NDArray[np.bool_], x: float, message: str) -> None:
    with pytest.raises(CentroidError, match=message):
        centroid(image, mask, x=x)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        light_centroid(sky(), NO_MASK[1:], 50, 50, SIGMA_PIX, MAX_SHIFT_PIX)


@pytest.mark.parametrize("size", [1, 2, 3, 101, 300, 512, 5000, 8191])
@pytest.mark.parametrize("is_tied", [True, False])
def test_the_median_is_numpys(size: int, is_tied: bool) -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        values = rng.integers(0, 3, size).astype(np.float64) if is_tied else rng.normal(0, 1, size)
        before = values.copy()
        assert _median(values) == np.median(values)
        assert np.array_equal(values, before)
