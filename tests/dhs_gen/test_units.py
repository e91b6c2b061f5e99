"""Conversions against round numbers of the field."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dhs_gen.units import (
    axis_ratio,
    depth_ivar_to_mag,
    from_surface_brightness,
    mag_to_nmgy,
    nmgy_to_mag,
    to_surface_brightness,
)


def test_surface_brightness_takes_the_templates_pixel_area() -> None:
    assert to_surface_brightness(0.068644, 0.262) == pytest.approx(1.0)
    assert to_surface_brightness(1.0, 0.03) == pytest.approx(1111.1111)
    pixels = np.ones((2, 3), np.float32)
    assert to_surface_brightness(pixels, 0.03).dtype == np.float32
    np.testing.assert_allclose(from_surface_brightness(to_surface_brightness(pixels, 0.1), 0.1), pixels, rtol=1e-6)


@pytest.mark.parametrize("pixscale_arcsec", [0.0, -0.03, math.nan, math.inf])
def test_a_wrong_pixel_scale_is_an_error(pixscale_arcsec: float) -> None:
    with pytest.raises(ValueError, match=f"pixscale_arcsec must be positive and finite, got {pixscale_arcsec!r}"):
        to_surface_brightness(1.0, pixscale_arcsec)


def test_magnitudes() -> None:
    assert mag_to_nmgy(22.5) == pytest.approx(1.0)
    assert mag_to_nmgy(20.0) == pytest.approx(10.0)
    assert nmgy_to_mag(100.0) == pytest.approx(17.5)
    assert np.isnan(nmgy_to_mag([0.0, -1.0])).all()


def test_depth_is_five_sigma() -> None:
    """σ = 0.01 nanomaggy: 5σ = 0.05 nanomaggy = AB 25.753."""
    assert depth_ivar_to_mag(1e4) == pytest.approx(25.7526, abs=1e-4)
    assert np.isnan(depth_ivar_to_mag(0.0))


def test_axis_ratio_inverts_lenstronomys_ellipticity() -> None:
    q = np.array([1.0, 0.7, 0.4])
    np.testing.assert_allclose(axis_ratio((1 - q) / (1 + q)), q)
