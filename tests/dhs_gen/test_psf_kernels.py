"""Public PSF kernels: odd, finite, unit sum, within max_size, and GalSim's profiles with the pixel."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dhs_gen.moffat import pixel_integrated_moffat
from dhs_gen.utils import elliptical_moffat_kernel, gaussian_kernel, moffat_kernel

Kernel = Callable[..., NDArray[np.float64]]


def elliptical(fwhm_pix: float, size: int = 33, max_size: int | None = None) -> NDArray[np.float64]:
    return elliptical_moffat_kernel(fwhm_pix, 3.5, 0.15, 0.6, size, max_size)


def moffat(fwhm_pix: float, size: int = 33, max_size: int | None = None) -> NDArray[np.float64]:
    return moffat_kernel(fwhm_pix, size=size, max_size=max_size)


KERNELS: list[Kernel] = [gaussian_kernel, moffat, elliptical]


@pytest.mark.parametrize("kernel", KERNELS)
@given(fwhm_pix=st.floats(1e-3, 1e6), size=st.integers(1, 70), max_size=st.none() | st.integers(1, 70))
def test_any_kernel_is_odd_finite_of_unit_sum_and_no_larger_than_allowed(
    kernel: Kernel, fwhm_pix: float, size: int, max_size: int | None
) -> None:
    made = kernel(fwhm_pix, size=size, max_size=max_size)
    allowed = size if max_size is None else min(size, max_size)
    side = allowed if allowed % 2 else allowed - 1
    assert made.shape == (max(side, 1), max(side, 1))
    assert np.isfinite(made).all()
    assert made.min() >= 0
    assert made.sum() == pytest.approx(1.0, abs=1e-12)
    assert made[made.shape[0] // 2, made.shape[1] // 2] >= made.max() * (1 - 1e-9)
    np.testing.assert_allclose(made, made[::-1, ::-1], rtol=1e-9)


def test_the_default_side_is_33() -> None:
    assert gaussian_kernel(4.0).shape == moffat_kernel(4.0).shape == (33, 33)
    assert elliptical_moffat_kernel(4.0, 3.0, 0.1, 0.0).shape == (33, 33)


def test_a_gaussian_is_galsims_with_the_pixel() -> None:
    galsim = pytest.importorskip("galsim")
    for fwhm_pix in (0.4, 2.0, 5.0):
        profile = galsim.Convolve(galsim.Gaussian(fwhm=fwhm_pix), galsim.Pixel(1.0), real_space=True)
        ours = gaussian_kernel(fwhm_pix, 41)
        for x, y in ((0, 0), (1, 0), (2, 1), (0, 4)):
            assert ours[20 + y, 20 + x] == pytest.approx(profile.xValue(float(x), float(y)), rel=1e-5, abs=1e-12)


def test_a_gaussians_second_moment_is_its_own_and_the_pixels() -> None:
    kernel = gaussian_kernel(4.0, 63)
    t = np.arange(63) - 31
    sigma2 = (4.0 / math.sqrt(8 * math.log(2))) ** 2
    assert (kernel.sum(axis=0) @ t**2) == pytest.approx(sigma2 + 1 / 12, rel=1e-9)


def test_a_moffat_has_the_width_at_half_maximum_that_was_asked_for() -> None:
    """On a grid so fine that the pixel does not matter."""
    profile = moffat_kernel(200.0, 3.0, 401)[200]
    assert np.interp(profile[200] / 2, profile[200:][::-1], np.arange(200, -1, -1)) == pytest.approx(100.0, abs=0.02)
    along = elliptical_moffat_kernel(200.0, 3.0, 0.2, 0.0, 501)
    q = 0.8 / 1.2
    for line, factor in ((along[250], 1 / math.sqrt(q)), (along[:, 250], math.sqrt(q))):
        half = np.interp(line[250] / 2, line[250:][::-1], np.arange(250, -1, -1))
        assert half == pytest.approx(100.0 * factor, abs=0.05)


def test_round_kernel_is_the_effective_psfs_own_integral() -> None:
    raw = pixel_integrated_moffat(4.2, 3.5, 33)
    np.testing.assert_array_equal(moffat_kernel(4.2), raw / raw.sum())
    np.testing.assert_array_equal(elliptical_moffat_kernel(4.2, 3.5, 0.0, 1.0), raw / raw.sum())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("fwhm_pix", [0.0, -2.0, math.nan, math.inf, 1e7])
def test_a_width_that_is_none_is_refused(kernel: Kernel, fwhm_pix: float) -> None:
    with pytest.raises(ValueError, match=r"fwhm_pix must be positive and finite.* got "):
        kernel(fwhm_pix)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["size", "max_size"])
@pytest.mark.parametrize("value", [0, -3, 8.5])
def test_a_side_that_is_none_is_refused(kernel: Kernel, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a positive integer, got {value}"):
        kernel(3.0, **{name: value})


def test_ellipticity_and_slope_are_checked() -> None:
    with pytest.raises(ValueError, match=r"e must be between 0 and 0\.98, got 1\.2"):
        elliptical_moffat_kernel(3.0, 3.0, 1.2, 0.0)
    with pytest.raises(ValueError, match=r"^phi must be finite, got nan"):
        elliptical_moffat_kernel(3.0, 3.0, 0.1, math.nan)
    with pytest.raises(ValueError, match="beta must exceed 1, got 1"):
        moffat_kernel(3.0, beta=1)
