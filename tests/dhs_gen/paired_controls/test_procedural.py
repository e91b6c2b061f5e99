"""Rings and spirals: where they lie, how they are inclined, how the arms wind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rendering_cases import KERNEL_SIZE_PIX, PIXSCALE_ARCSEC, default_accuracy

from dhs_gen.lensing.models import MassModel
from dhs_gen.lensing.render import StampGrid, draw, lens_source
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.paired_controls import ring_template, spiral_template

RING: dict[str, Any] = {
    "theta_e_arcsec": 1.4,
    "width_frac": 0.12,
    "modulation": 0.0,
    "clumps": (0, 0),
    "clump_flux_frac": 0.3,
    "e": 0.0,
    "phi_rad": 0.0,
}
SPIRAL: dict[str, Any] = {
    "theta_e_arcsec": 1.4,
    "pitch_deg": 20.0,
    "arm_width_frac": 0.12,
    "extent_frac": 0.3,
    "e": 0.0,
    "phi_rad": 0.0,
}


def ring(seed: int = 1, **changes: Any) -> SourceTemplate:
    return ring_template(**(RING | changes), rng=np.random.default_rng(seed))


def spiral(seed: int = 1, **changes: Any) -> SourceTemplate:
    return spiral_template(**(SPIRAL | changes), rng=np.random.default_rng(seed))


def plane(template: SourceTemplate) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Light, x and y in arcsec from the centre."""
    light = template.pixels[0]
    rows, columns = light.shape
    y, x = np.mgrid[:rows, :columns].astype(float)
    scale = template.pixscale_arcsec
    return light, (x - (columns - 1) / 2) * scale, (y - (rows - 1) / 2) * scale


def seen(template: SourceTemplate) -> NDArray[np.float64]:
    """On a stamp, unlensed, about its middle, binned into pixels."""
    grid = StampGrid(64, PIXSCALE_ARCSEC, KERNEL_SIZE_PIX)
    lensed = lens_source(
        MassModel(0, 0, 0, 0, 0), template, (0.0, 0.0), (31.5, 31.5), grid, default_accuracy(moment_order=0)
    )
    kernel = np.zeros((KERNEL_SIZE_PIX, KERNEL_SIZE_PIX))
    kernel[KERNEL_SIZE_PIX // 2, KERNEL_SIZE_PIX // 2] = 1.0
    return draw(lensed, 0, kernel)


# ------------------------------------------------------------------------------------------------------- rings


@pytest.mark.parametrize("e", [0.0, 0.25])
def test_ring_has_the_radius_and_width_asked_for(e: float) -> None:
    """∫R·R G dR / ∫R G dR for a Gaussian about R₀ is R₀ + σ²/R₀; R is the circularised radius."""
    light, x, y = plane(ring(e=e))
    q = (1 - e) / (1 + e)
    radius = np.sqrt(q * x**2 + y**2 / q)
    sigma = 0.12 * 1.4
    assert (light * radius).sum() == pytest.approx(1.4 + sigma**2 / 1.4, rel=2e-3)
    # The variance of R about R₀ with weight R G is σ², exactly.
    assert (light * (radius - 1.4) ** 2).sum() == pytest.approx(sigma**2, rel=0.01)
    assert light.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("make", [ring, spiral])
def test_disc_is_seen_at_the_hosts_angle_and_axis_ratio(make: Any) -> None:
    """Second moments of what is round in an inclined disc have the disc's axes: a ring, and arms that fill the disc."""
    e, phi = 0.25, 0.6
    image = seen(
        make(e=e, phi_rad=phi) if make is ring else make(e=e, phi_rad=phi, pitch_deg=89.0, arm_width_frac=30.0)
    )
    y, x = np.mgrid[:64, :64] - 31.5
    xx, xy, yy = ((image * p).sum() for p in (x * x, x * y, y * y))
    assert 0.5 * math.atan2(2 * xy, xx - yy) == pytest.approx(phi, abs=0.01)
    small, large = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
    assert math.sqrt(small / large) == pytest.approx((1 - e) / (1 + e), abs=0.01)
    assert image.sum() == pytest.approx(1.0, abs=2e-3)


def test_ring_without_modulation_is_even_and_with_it_is_smooth() -> None:
    even, x, y = plane(ring())
    azimuth = np.arctan2(y, x)
    for m in (1, 2, 3):
        assert abs((even * np.exp(1j * m * azimuth)).sum()) < 1e-3
    uneven = plane(ring(modulation=1.0, seed=4))[0]
    assert uneven.min() >= 0
    harmonics = [2 * abs((uneven * np.exp(1j * m * azimuth)).sum()) for m in (1, 2, 3, 4)]
    # Amplitudes w and 1 − w of m = 1, 2 add up to the modulation, and there is nothing else.
    assert harmonics[0] + harmonics[1] == pytest.approx(1.0, abs=0.01)
    assert max(harmonics[2:]) < 0.01


def test_clumps_hold_their_fraction_on_the_ring() -> None:
    smooth, x, y = plane(ring(modulation=0.4))
    clumpy = plane(ring(modulation=0.4, clumps=(3, 3)))[0]
    spots = clumpy - 0.7 * smooth
    assert spots.min() > -1e-12
    assert spots.sum() == pytest.approx(0.3, abs=1e-9)
    far_away = (clumpy / np.maximum(smooth, 1e-99))[smooth > 0.01 * smooth.max()].min()
    assert far_away == pytest.approx(0.7, abs=1e-3)
    # Gaussians of width σ about the ring: mean r² = R₀² + 2σ².
    assert (spots * (x**2 + y**2)).sum() / 0.3 == pytest.approx(1.4**2 + 2 * 0.168**2, rel=5e-3)


# ----------------------------------------------------------------------------------------------------- spirals


@pytest.mark.parametrize("pitch_deg", [12.0, 20.0, 35.0])
def test_arms_wind_at_the_pitch_angle(pitch_deg: float) -> None:
    """The phase of the m = 2 wave turns by 2/tan(pitch) per unit of ln R: a logarithmic spiral."""
    senses = set()
    for seed in range(6):
        light, x, y = plane(spiral(pitch_deg=pitch_deg, arm_width_frac=0.08, seed=seed))
        radius, azimuth = np.hypot(x, y), np.arctan2(y, x)
        edges = np.exp(np.linspace(math.log(0.8), math.log(2.0), 25))
        index = np.digitize(radius, edges)
        waves = np.array([(light * np.exp(2j * azimuth))[index == i].sum() for i in range(1, 25)])
        phase = np.unwrap(np.angle(waves))
        slope = np.polyfit(0.5 * np.log(edges[1:] * edges[:-1]), phase, 1)[0]
        assert abs(slope) == pytest.approx(2 / math.tan(math.radians(pitch_deg)), rel=0.03)
        senses.add(math.copysign(1, slope))
    assert senses == {-1.0, 1.0}


def test_spiral_has_two_equal_arms_about_theta_e() -> None:
    light, x, y = plane(spiral())
    np.testing.assert_allclose(light, light[::-1, ::-1], atol=1e-12)
    assert (light * np.hypot(x, y)).sum() == pytest.approx(1.4, rel=0.08)
    on_ring = np.abs(np.hypot(x, y) - 1.4) < 0.1
    sector = ((np.arctan2(y, x)[on_ring] + math.pi) / (2 * math.pi) * 48).astype(int) % 48
    profile = np.bincount(sector, light[on_ring]) / np.bincount(sector)
    bright = profile > 0.5 * profile.max()
    assert np.count_nonzero(bright & ~np.roll(bright, 1)) == 2


@pytest.mark.parametrize("pitch_deg", [30.0, 60.0, 89.9])
def test_arm_has_its_width_across(pitch_deg: float) -> None:
    """Along a circle the section of an arm is a Gaussian of σ/sin(pitch); 89.9° are rays from the centre."""
    light, x, y = plane(spiral(pitch_deg=pitch_deg, arm_width_frac=0.1, extent_frac=0.2))
    radius = np.maximum(np.hypot(x, y), 1e-9)
    near = np.abs(radius - 1.4) < 0.3
    sections = []
    for sense in (-1.0, 1.0):  # the wrong sense smears the arm
        azimuth = np.arctan2(y, x) - sense * np.log(radius / 1.4) / math.tan(math.radians(pitch_deg))
        start = 0.5 * np.angle((light * np.exp(2j * azimuth))[near].sum())
        behind = (azimuth - start + math.pi / 2) % math.pi - math.pi / 2
        sections.append(np.sqrt((light * (radius * behind) ** 2)[near].sum() / light[near].sum()))
    assert min(sections) == pytest.approx(0.14 / math.sin(math.radians(pitch_deg)), rel=0.02)


# ---------------------------------------------------------------------------------------------------- anything


@pytest.mark.parametrize("make", [ring, spiral])
def test_same_generator_same_galaxy(make: Any) -> None:
    options = {"modulation": 0.5, "clumps": (0, 5)} if make is ring else {}
    np.testing.assert_array_equal(make(seed=3, **options).pixels, make(seed=3, **options).pixels)
    assert not np.array_equal(make(seed=3, **options).pixels, make(seed=4, **options).pixels)


@pytest.mark.parametrize(
    ("make", "changes", "words"),
    [
        (ring, {"theta_e_arcsec": 0.0}, "theta_e_arcsec.*0.0"),
        (ring, {"theta_e_arcsec": math.nan}, "theta_e_arcsec"),
        (ring, {"width_frac": 0.0}, "width_frac"),
        (ring, {"width_frac": 1e-3}, "too narrow"),
        (ring, {"modulation": 1.5}, "modulation.*1.5"),
        (ring, {"clump_flux_frac": 2.0}, "clump_flux_frac.*2.0"),
        (ring, {"e": 1.0}, "e must"),
        (spiral, {"theta_e_arcsec": -1.0}, "theta_e_arcsec"),
        (spiral, {"pitch_deg": 0.0}, "pitch_deg.*0.0"),
        (spiral, {"pitch_deg": 90.0}, "pitch_deg.*90"),
        (spiral, {"arm_width_frac": 0.0}, "arm_width_frac"),
        (spiral, {"arm_width_frac": 1e-3}, "too narrow"),
        (spiral, {"extent_frac": math.inf}, "extent_frac"),
    ],
)
def test_bad_parameters_are_named(make: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(**changes)
