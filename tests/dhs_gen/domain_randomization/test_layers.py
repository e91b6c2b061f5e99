"""Each artifact alone: jitter, background, cosmic rays, saturated stars, elliptical PSFs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from astropy.stats import mad_std
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage, signal

from dhs_gen.domain_randomization.anisotropy import ROUND, Ellipticity, _psf, differential_kernel, draw_ellipticity
from dhs_gen.domain_randomization.background import background_plane
from dhs_gen.domain_randomization.cosmic_rays import CosmicRay, draw_cosmic_ray, render_cosmic_ray
from dhs_gen.domain_randomization.jitter import shift_image, shift_stamp, split_shift
from dhs_gen.domain_randomization.saturation import (
    SaturatedStar,
    StarPsf,
    render_saturated,
    render_unsaturated,
    saturation_level_sigma,
)
from dhs_gen.domain_randomization.scale import mad_sigma

RAY = {"amp_sigma": 8.0, "length_pix": (8.0, 24.0), "worm_fraction": 0.3, "spot_fraction": 0.15}
PSF = StarPsf(fwhm_pix=4.0, beta=2.8)


def correlation(pixels: NDArray[np.floating]) -> tuple[float, float]:
    p = pixels - pixels.mean()
    return float((p[:, 1:] * p[:, :-1]).mean() / p.var()), float((p[1:] * p[:-1]).mean() / p.var())


@given(st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
def test_mad_sigma_is_that_of_astropy_and_shrugs_off_sources(sigma: float, sky: float) -> None:
    pixels = (sky + np.random.default_rng(0).normal(0, sigma, (64, 64))).astype(np.float64)
    assert mad_sigma(pixels) == pytest.approx(mad_std(pixels), rel=1e-4)
    pixels[:5] += 1000 * sigma
    assert mad_sigma(pixels) == pytest.approx(sigma, rel=0.15)
    assert mad_sigma(pixels[:0]) == 0.0


# ------------------------------------------------------------------------------------------------------- jitter


@given(st.floats(-4, 4), st.floats(-4, 4))
def test_shift_moves_a_star_where_it_says(dx: float, dy: float) -> None:
    """Against the same Gaussian drawn at the other place; at FWHM 4 px 1e-5 of the peak lies above Nyquist."""
    y, x = np.mgrid[:64, :48]

    def star(cx: float, cy: float) -> NDArray[np.float64]:
        return np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 1.7**2))

    moved = shift_image(star(22.3, 30.8), dx, dy)
    np.testing.assert_allclose(moved, star(22.3 + dx, 30.8 + dy), atol=1e-5)


def test_whole_pixels_are_a_roll() -> None:
    image = np.random.default_rng(1).normal(size=(40, 50))
    moved = shift_image(image, 3.0, -2.0)
    np.testing.assert_allclose(moved[2:-4, 5:-2], image[4:-2, 2:-5], atol=1e-12)


@given(st.floats(-3, 3))
def test_split_shift_is_whole_and_rest(shift: float) -> None:
    whole, rest = split_shift(shift)
    assert whole + rest == pytest.approx(shift, abs=1e-12)
    assert -0.5 <= rest < 0.5


@pytest.mark.parametrize("rho", [0.0, 0.2])
def test_half_pixel_shift_keeps_noise_where_bilinear_smooths_it(rho: float) -> None:
    white = np.random.default_rng(2).normal(size=(512, 512))
    noise = ndimage.convolve(white, np.outer([rho, 1, rho], [rho, 1, rho]) if rho else np.ones((1, 1)), mode="wrap")
    moved = shift_image(noise, 0.5, 0.5)[20:-20, 20:-20]
    bilinear = ndimage.shift(noise, 0.5, order=1)[20:-20, 20:-20]
    before = noise[20:-20, 20:-20]
    assert moved.std() / before.std() == pytest.approx(1.0, abs=0.005)
    np.testing.assert_allclose(correlation(moved), correlation(before), atol=0.006)
    assert bilinear.std() / before.std() < (0.6 if rho == 0 else 0.9)


def test_masked_pixels_do_not_ring_and_are_not_resampled() -> None:
    image = np.random.default_rng(3).normal(0, 1, (60, 60)).astype(np.float32)
    everywhere, stamp = np.ones_like(image, dtype=bool), (slice(10, 50), slice(10, 50))
    good = everywhere.copy()
    good[20:25, 30:40] = False
    spoiled = image.copy()
    spoiled[~good] = 4000.0
    spoiled[0, 0], good[0, 0] = np.nan, False
    moved = shift_stamp(spoiled, good, stamp, 0.4, -0.3)
    masked = ~good[stamp]
    assert (moved[masked] == 4000.0).all()
    clean = shift_stamp(image, everywhere, stamp, 0.4, -0.3)
    assert np.abs(moved - clean)[~masked].max() < 2.0
    assert np.abs(moved - clean)[~ndimage.binary_dilation(masked, iterations=6)].max() < 0.2
    np.testing.assert_allclose(clean, shift_image(image, 0.4, -0.3)[stamp], atol=0.1)
    nothing = np.zeros_like(good)
    assert shift_stamp(image, nothing, stamp, 0.4, 0.1).tobytes() == image[stamp].tobytes()


def test_a_bright_star_cut_in_half_outside_the_stamp_does_not_ring_into_it() -> None:
    """As at the joint of two images: 6,000 sigma falling to the sky within one pixel."""
    noise = np.random.default_rng(4).normal(0, 1, (98, 98)).astype(np.float32)
    y, x = np.mgrid[:98, :98]

    def star(shift: float) -> NDArray[np.float64]:
        return 6000 * PSF.profile(x - 50.0 - shift, y - 93.0 - shift)

    cut = (noise + np.where(y < 94, star(0.0), 0)).astype(np.float32)
    stamp, good = (slice(17, 81), slice(17, 81)), np.ones_like(noise, dtype=bool)
    wanted = shift_stamp(noise, good, stamp, 0.5, 0.5) + star(0.5)[stamp]
    far = y[stamp] < 70
    assert np.abs(shift_stamp(cut, good, stamp, 0.5, 0.5) - wanted)[far].max() < 0.6
    assert np.abs(shift_image(cut, 0.5, 0.5)[stamp] - wanted)[far].max() > 20, "without the cap"


# --------------------------------------------------------------------------------------------------- background


@given(st.floats(0, 2 * math.pi), st.integers(8, 70), st.integers(8, 70))
def test_plane_is_a_plane_of_height_one_half_a_side_away(phi: float, rows: int, columns: int) -> None:
    plane = background_plane((rows, columns), phi)
    half = (max(rows, columns) - 1) / 2
    assert plane.mean() == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(np.diff(plane, axis=1), math.cos(phi) / half, atol=1e-12)
    np.testing.assert_allclose(np.diff(plane, axis=0), math.sin(phi) / half, atol=1e-12)


# -------------------------------------------------------------------------------------------------- cosmic rays


def ray(seed: int, **changes: object) -> CosmicRay:
    return draw_cosmic_ray(np.random.default_rng(seed), (64, 64), **(RAY | changes))  # type: ignore[arg-type]


def test_kinds_lengths_and_amplitudes_are_those_asked_for() -> None:
    rays = [ray(seed) for seed in range(3000)]
    share = {k: sum(r.kind == k for r in rays) / len(rays) for k in ("track", "worm", "spot")}
    for kind, expected in (("track", 0.55), ("worm", 0.30), ("spot", 0.15)):
        assert share[kind] == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / len(rays)))
    long = np.array([r.length_pix for r in rays if r.kind != "spot"])
    assert 8 <= long.min() < 8.1
    assert 23.9 < long.max() <= 24
    assert long.mean() == pytest.approx(16.0, abs=4 * 16 / math.sqrt(12 * long.size))
    amplitude = np.array([r.amplitude_sigma for r in rays])
    assert amplitude.mean() == pytest.approx(8.0, abs=4 * 8 / math.sqrt(12 * amplitude.size))
    assert amplitude.min() >= 4
    assert amplitude.max() <= 12
    middle = np.array([(r.x_pix, r.y_pix) for r in rays])
    np.testing.assert_allclose(middle.mean(axis=0), 31.5, atol=4 * 64 / math.sqrt(12 * len(rays)))


def test_a_track_is_straight_as_long_as_it_says_and_centred() -> None:
    hit = next(r for r in map(ray, range(100)) if r.kind == "track" and r.length_pix > 18)
    image = render_cosmic_ray(hit, (200, 200), (100 - hit.x_pix, 90 - hit.y_pix))
    y, x = np.nonzero(image > 0.15)
    covariance = np.cov(np.stack([x, y]), aweights=image[y, x])
    minor, major = np.sqrt(np.linalg.eigvalsh(covariance))
    assert major * math.sqrt(12) == pytest.approx(hit.length_pix, rel=0.2)
    assert minor < 0.8
    assert abs(x.mean() - 100) < 1.5
    assert abs(y.mean() - 90) < 1.5


def test_rays_are_sharper_than_a_star_and_resampled_with_negative_lobes() -> None:
    """Width of a spot: Gaussian charge, a pixel and Lanczos-3; a star of 1.1" has a FWHM of 4.2 px."""
    spot = next(r for r in map(ray, range(200)) if r.kind == "spot" and r.length_pix < 1)
    image = render_cosmic_ray(spot, (41, 41), (20 - spot.x_pix, 20 - spot.y_pix))
    assert image.max() == 1.0
    assert np.count_nonzero(image > 0.5) <= 4, "a star would have 14"
    assert -0.25 < image.min() < -0.005


@pytest.mark.parametrize("kind", ["track", "worm"])
def test_without_a_phase_a_ray_is_its_charge_in_pixels(kind: str) -> None:
    """Oracle: 40 random electrons per step, counted in pixels."""
    hit = next(r for r in map(ray, range(100)) if r.kind == kind)
    flat = CosmicRay(**(vars(hit) | {"phase_pix": (0.0, 0.0), "x_pix": 40.2, "y_pix": 39.7}))
    image = render_cosmic_ray(flat, (80, 80), (0.0, 0.0))
    rng, n = np.random.default_rng(5), 4000
    x = 40.2 + flat.path_pix[:, :1] + flat.diffusion_pix[:, None] * rng.standard_normal((flat.charge.size, n))
    y = 39.7 + flat.path_pix[:, 1:] + flat.diffusion_pix[:, None] * rng.standard_normal((flat.charge.size, n))
    edges = np.arange(81) - 0.5
    weights = np.repeat(flat.charge[:, None], n, axis=1)
    counted, _, _ = np.histogram2d(y.ravel(), x.ravel(), bins=(edges, edges), weights=weights.ravel())
    np.testing.assert_allclose(image, counted / counted.max(), atol=0.01)


def test_a_ray_off_the_image_leaves_nothing() -> None:
    assert not render_cosmic_ray(ray(1), (64, 64), (500.0, 0.0)).any()


@given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(-3, 3))
def test_rays_are_finite_and_peak_at_one(seed: int, dx: float, dy: float) -> None:
    image = render_cosmic_ray(ray(seed), (64, 64), (dx, dy))
    assert np.isfinite(image).all()
    assert image.max() <= 1.0
    assert image.min() > -0.5


# --------------------------------------------------------------------------------------------------- saturation


def star(**changes: object) -> SaturatedStar:
    values: dict[str, object] = {
        "x_pix": 30.0,
        "y_pix": 20.0,
        "wing_sigma": 12.0,
        "r0_pix": 2.0,
        "trail_pix": (8.0, 15.0),
        "bleed_angle_deg": 0.0,
        "spike_angle_deg": 45.0,
        "spike_fraction": 0.0,
    }
    return SaturatedStar(**(values | changes))  # type: ignore[arg-type]


def test_wings_and_core_have_the_brightness_asked_for() -> None:
    level = saturation_level_sigma(star(), PSF)
    layer = render_saturated(star(), (64, 64), (0.0, 0.0), PSF, level)
    assert layer.light[30, 30] == pytest.approx(12.0, rel=1e-12), "ten pixels above the centre: 5 r0"
    assert layer.paint[20, 30] == layer.paint[22, 30] == level
    assert not layer.painted[23, 30]
    assert layer.light[23, 30] < level
    assert layer.light[~layer.painted].max() < level
    moffat = (1 + 16 / (16 / (4 * (2 ** (1 / 2.8) - 1)))) ** -2.8
    assert layer.light[24, 30] / layer.light[30, 30] == pytest.approx(moffat / PSF.at(10.0), rel=1e-9)


def test_trail_runs_along_rows_as_far_as_it_should_and_thins_out() -> None:
    level = saturation_level_sigma(star(), PSF)
    layer = render_saturated(star(), (64, 64), (0.0, 0.0), PSF, level)
    columns = np.flatnonzero(layer.painted[20])
    assert (columns.min(), columns.max()) == (22, 45)
    width = layer.painted.sum(axis=0)
    assert width[22] == width[45] == 1
    assert width[30] == 5
    assert (layer.paint[layer.painted] >= 0.4 * level).all()
    assert (layer.paint[layer.painted] <= level).all()
    assert layer.masked[19:22, 22:46].all()
    assert layer.masked.sum() > layer.painted.sum()
    turned = render_saturated(star(bleed_angle_deg=90.0), (64, 64), (0.0, 0.0), PSF, level)
    assert np.flatnonzero(turned.painted[:, 30]).max() == 35


def test_spikes_are_four_arms_at_their_angle() -> None:
    level = saturation_level_sigma(star(), PSF)
    plain = render_saturated(star(), (64, 64), (0.0, 0.0), PSF, level)
    spiked = render_saturated(star(spike_fraction=0.5), (64, 64), (0.0, 0.0), PSF, level)
    extra = spiked.light - plain.light
    # sqrt(2) 12 px out, along the diagonal, the spike has fallen to (10/17)^2 of half the wings.
    for dy, dx in ((12, 12), (-12, 12), (12, -12), (-12, -12)):
        assert extra[20 + dy, 30 + dx] == pytest.approx(6.0 * 100 / 288, rel=1e-3)
    assert extra[20 + 17, 30] < 0.05


def test_an_unsaturated_band_shows_the_star_below_the_level_and_masks_nothing() -> None:
    layer = render_unsaturated(star(), (64, 64), (1.0, 0.0), PSF, 100.0)
    assert layer.light.max() == layer.light[20, 31] == 100.0
    assert not layer.painted.any()
    assert not layer.masked.any()


# --------------------------------------------------------------------------------------------------- anisotropy


@pytest.mark.parametrize("model", ["moffat", "gaussian"])
@pytest.mark.parametrize("e", [0.03, 0.1])
@pytest.mark.parametrize("fwhm_pix", [3.0, 4.5])
def test_differential_kernel_takes_the_round_psf_to_the_elliptical_one(model: str, e: float, fwhm_pix: float) -> None:
    wanted = Ellipticity(e * math.cos(1.2), e * math.sin(1.2))
    kernel = differential_kernel(fwhm_pix, wanted, model, 3.0, 63)
    before, after = (_psf(fwhm_pix, shape, model, 3.0, 30) for shape in (ROUND, wanted))
    got = signal.fftconvolve(np.pad(before, 20), kernel, mode="same")[20:-20, 20:-20]
    assert kernel.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.abs(got - after).max() < 0.45 * np.abs(before - after).max()
    y, x = np.mgrid[-30:31, -30:31]
    weight = np.exp(-(x**2 + y**2) / (2 * fwhm_pix**2))

    def moments(p: NDArray[np.float64]) -> tuple[float, float]:
        xx, yy, xy = ((p * weight * q).sum() for q in (x * x, y * y, x * y))
        return float((xx - yy) / (xx + yy)), float(2 * xy / (xx + yy))

    np.testing.assert_allclose(moments(got), moments(after), atol=0.08 * e)


def test_differential_kernel_hardly_touches_noise() -> None:
    """The figures that the docstring of the public function states."""
    for e, limit_std, limit_rho in ((0.1, 0.007, 0.06), (0.05, 0.002, 0.03)):
        for model in ("moffat", "gaussian"):
            kernel = differential_kernel(3.0, Ellipticity(e, 0.0), model, 3.5, 63)
            power = np.abs(np.fft.fft2(kernel, s=(256, 256))) ** 2
            cosine = np.cos(2 * np.pi * np.fft.fftfreq(256))
            assert math.sqrt(power.mean()) == pytest.approx(1.0, abs=limit_std)
            assert abs((power * cosine).mean() / power.mean()) < limit_rho
            assert abs((power * cosine[:, None]).mean() / power.mean()) < limit_rho


def test_ellipticities_scatter_as_asked_and_are_bounded() -> None:
    rng = np.random.default_rng(4)
    drawn = np.array([(e.e1, e.e2) for e in (draw_ellipticity(rng, 0.05) for _ in range(4000))])
    np.testing.assert_allclose(drawn.std(axis=0), 0.05, rtol=4 / math.sqrt(2 * 4000))
    np.testing.assert_allclose(drawn.mean(axis=0), 0.0, atol=4 * 0.05 / math.sqrt(4000))
    assert max(draw_ellipticity(rng, 0.3).e for _ in range(500)) <= 0.3 + 1e-12
    shape = Ellipticity(0.1 * math.cos(2 * 2.1), 0.1 * math.sin(2 * 2.1))
    assert (shape.e, shape.phi_rad) == pytest.approx((0.1, 2.1))
