"""Sersic images against dense integration and the half-light definition; clumps against the ranges they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from rendering_cases import gen7_settings
from scipy import integrate

from dhs_gen.hybrid_sources.sampler import hybrid_source
from dhs_gen.hybrid_sources.sersic import sersic_image
from dhs_gen.hybrid_sources.sersic_clumps import ClumpSettings, hybrid_template
from dhs_gen.task import SourceParams

NO_CLUMPS = ClumpSettings((0, 0), (0.1, 0.1), (0.0, 0.0))
CLUMPS = gen7_settings().clumps


def half_light_b(n: float) -> float:
    """Bisection on the half-light condition ∫₀^re = ½ ∫₀^∞ of exp(−b R^(1/n)) R dR, by quadrature."""

    def excess(b: float) -> float:
        # t = R^(1/n) makes the integrand smooth: R dR = n t^(2n−1) dt.
        def light(t: float) -> float:
            return math.exp(-b * t) * t ** (2 * n - 1)

        return integrate.quad(light, 0, 1)[0] - 0.5 * integrate.quad(light, 0, np.inf)[0]

    low, high = 0.1, 20.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return low


def dense_pixel(x: float, y: float, re: float, n: float, q: float) -> float:
    """Unit-flux Sersic over one pixel by adaptive quadrature in polar angle about the profile's centre.

    For a pixel that holds the centre; uses ∫∫ = ∫dφ ∫₀^r(φ) I R dR with r(φ) the pixel's edge.
    """
    b = half_light_b(n)
    total = 2 * math.pi * n * re**2 * b ** (-2 * n) * math.gamma(2 * n)

    def radial(phi: float) -> float:
        edge = 0.5 / max(abs(math.cos(phi)), abs(math.sin(phi)))
        stretch = math.sqrt(q * math.cos(phi) ** 2 + math.sin(phi) ** 2 / q) / re
        upper = (edge * stretch) ** (1 / n)
        return integrate.quad(lambda t: math.exp(-b * t) * n * t ** (2 * n - 1), 0, upper)[0] / stretch**2

    assert x == 0
    assert y == 0
    return 4 * integrate.quad(radial, 0, math.pi / 2, points=[math.pi / 4])[0] / total


@pytest.mark.parametrize("n_sersic", [0.5, 1.0, 2.5, 4.0])
@pytest.mark.parametrize("axis_ratio", [1.0, 0.5])
def test_core_pixel_holds_the_integral_of_the_profile(n_sersic: float, axis_ratio: float) -> None:
    image = sersic_image((41, 41), 12.0, n_sersic, axis_ratio)
    assert image[20, 20] == pytest.approx(dense_pixel(0, 0, 12.0, n_sersic, axis_ratio), rel=0.01)


@pytest.mark.parametrize("n_sersic", [0.5, 1.0, 2.5, 4.0])
@pytest.mark.parametrize(("column", "row"), [(21, 20), (22, 19), (24, 20), (20, 29), (36, 33), (3, 20)])
def test_other_pixels_hold_the_integral_too(n_sersic: float, column: int, row: int) -> None:
    re, q, b = 12.0, 0.6, half_light_b(n_sersic)
    total = 2 * math.pi * n_sersic * re**2 * b ** (-2 * n_sersic) * math.gamma(2 * n_sersic)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    x, y = column - 20 + nodes[None, :] / 2, row - 20 + nodes[:, None] / 2
    profile = np.exp(-b * (np.sqrt(q * x**2 + y**2 / q) / re) ** (1 / n_sersic)) / total
    expected = float(weights @ profile @ weights) / 4
    assert sersic_image((41, 41), re, n_sersic, q)[row, column] == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("n_sersic", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("axis_ratio", [1.0, 0.5])
def test_half_of_the_light_is_inside_the_effective_ellipse(n_sersic: float, axis_ratio: float) -> None:
    """Semi-axes re/√q along columns and re √q along rows; the sum over a wide image is the total flux, 1."""
    side, re = 601, 30.0
    image = sersic_image((side, side), re, n_sersic, axis_ratio)
    y, x = np.mgrid[:side, :side] - side // 2
    inside = axis_ratio * x**2 + y**2 / axis_ratio < re**2
    assert image[inside].sum() == pytest.approx(0.5, abs=0.005)
    if n_sersic <= 1:
        assert image.sum() == pytest.approx(1.0, abs=1e-3)


def test_major_axis_lies_along_the_columns() -> None:
    """Second moments of an ellipse of axis ratio q: ⟨x²⟩/⟨y²⟩ = 1/q²."""
    image = sersic_image((401, 401), 12.0, 0.5, 0.5)
    y, x = np.mgrid[:401, :401] - 200
    assert (image * x**2).sum() / (image * y**2).sum() == pytest.approx(4.0, rel=0.01)


@pytest.mark.parametrize("side", [40, 41])
def test_image_is_symmetric_about_its_centre(side: int) -> None:
    image = sersic_image((side, side), 6.0, 1.5, 0.7)
    np.testing.assert_array_equal(image, image[::-1, ::-1])
    np.testing.assert_allclose(image, image[::-1], rtol=1e-12)


# ------------------------------------------------------------------------------------------------------- clumps


def clump_light(key: str, settings: ClumpSettings, q: float = 0.6, side: int = 145) -> NDArray[np.float64]:
    """What the clumps add, found without looking inside: the template less the smooth part's share."""
    made = hybrid_template(key, (side, side), 12.0, 1.0, q, settings)
    smooth = sersic_image((side, side), 12.0, 1.0, q)
    return made.pixels - (1 - made.clump_flux_fraction) * smooth / smooth.sum()


@pytest.mark.parametrize("n_sersic", [0.5, 1.0, 2.5, 4.0])
def test_template_sums_to_one_and_is_never_negative(n_sersic: float) -> None:
    for index in range(5):
        pixels = hybrid_template(f"k{index}", (145, 145), 12.0, n_sersic, 0.4, CLUMPS).pixels
        assert pixels.shape == (145, 145)
        assert pixels.sum() == pytest.approx(1.0, abs=1e-12)
        assert pixels.min() >= 0


def test_clumps_cut_by_the_edge_still_hold_their_fraction() -> None:
    """A template of 1.3 re half side: what the edge cuts off a clump is put back, the sum stays 1."""
    for index in range(10):
        assert hybrid_template(f"k{index}", (31, 31), 12.0, 1.0, 0.5, CLUMPS).pixels.sum() == pytest.approx(
            1.0, abs=1e-12
        )


def test_flux_of_the_clumps_is_the_recorded_fraction_and_in_range() -> None:
    low, high = CLUMPS.flux_fraction
    fractions, counts = [], []
    for index in range(60):
        made = hybrid_template(f"k{index}", (145, 145), 12.0, 1.0, 0.6, CLUMPS)
        light = clump_light(f"k{index}", CLUMPS)
        assert light.sum() == pytest.approx(made.clump_flux_fraction, abs=1e-9)
        assert light.min() > -1e-12
        fractions.append(made.clump_flux_fraction)
        counts.append(made.n_clumps)
    assert low <= min(fractions) < low + 0.03
    assert high - 0.03 < max(fractions) <= high
    assert set(counts) == set(range(CLUMPS.n_clumps[0], CLUMPS.n_clumps[1] + 1))


def test_a_clump_lies_on_the_sources_ellipse_and_has_its_width() -> None:
    one = ClumpSettings((1, 1), (0.15, 0.15), (0.2, 0.2))
    q, azimuths, radii2 = 0.5, [], []
    for index in range(300):
        light = clump_light(f"one{index}", one, q)
        light /= light.sum()
        y, x = np.mgrid[:145, :145] - 72
        cx, cy = (light * x).sum(), (light * y).sum()
        elliptical = math.sqrt(q * cx**2 + cy**2 / q) / 12.0
        assert 0.4 - 0.01 <= elliptical <= 1.6 + 0.01
        if index < 10:  # σ = 0.15 re = 1.8 px, plus the pixel's 1/12
            assert (light * (x - cx) ** 2).sum() == pytest.approx(1.8**2 + 1 / 12, rel=0.02)
            assert (light * (y - cy) ** 2).sum() == pytest.approx(1.8**2 + 1 / 12, rel=0.02)
        azimuths.append(math.atan2(cy / math.sqrt(q), cx * math.sqrt(q)))
        radii2.append(elliptical**2)
    # Uniform in azimuth and in area between 0.4 and 1.6 re.
    assert abs(np.mean(np.exp(1j * np.array(azimuths)))) < 4 / math.sqrt(300)
    assert np.mean(radii2) == pytest.approx((0.4**2 + 1.6**2) / 2, abs=4 * (1.6**2 - 0.4**2) / math.sqrt(12 * 300))


def test_no_clumps_is_the_smooth_profile() -> None:
    made = hybrid_template("key", (101, 101), 12.0, 1.0, 0.7, NO_CLUMPS)
    smooth = sersic_image((101, 101), 12.0, 1.0, 0.7)
    np.testing.assert_allclose(made.pixels, smooth / smooth.sum(), rtol=1e-12)
    assert (made.n_clumps, made.clump_flux_fraction) == (0, 0.0)


def test_key_alone_fixes_the_clumps() -> None:
    first = hybrid_template("key", (101, 101), 12.0, 1.0, 0.7, CLUMPS).pixels
    hybrid_template("other", (101, 101), 12.0, 2.0, 0.5, CLUMPS)
    assert hybrid_template("key", (101, 101), 12.0, 1.0, 0.7, CLUMPS).pixels.tobytes() == first.tobytes()
    assert hybrid_template("other", (101, 101), 12.0, 1.0, 0.7, CLUMPS).pixels.tobytes() != first.tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 5), 12.0, 1.0, 0.7), "H must be a whole number of at least 3 pixels, got 2"),
        (((5, 5.0), 12.0, 1.0, 0.7), r"W must be a whole number of at least 3 pixels, got 5\.0"),
        (((101, 101), 0.0, 1.0, 0.7), "re_pix must be positive and finite, got 0.0"),
        (((101, 101), math.nan, 1.0, 0.7), "re_pix must be positive and finite, got nan"),
        (((101, 101), 12.0, 9.0, 0.7), "n_sersic must be between 0.2 and 8, got 9.0"),
        (((101, 101), 12.0, math.nan, 0.7), "n_sersic must be between 0.2 and 8, got nan"),
        (((101, 101), 12.0, 1.0, 0.0), r"q must be in \(0, 1\], got 0.0"),
        (((101, 101), 12.0, 1.0, 1.1), r"q must be in \(0, 1\], got 1.1"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(
    arguments: tuple[tuple[int, int], float, float, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        hybrid_template("key", *arguments, CLUMPS)
    with pytest.raises(ValueError, match=message):
        sersic_image(*arguments)


@pytest.mark.parametrize(
    "changes",
    [{"n_clumps": (3, 2)}, {"sigma_re": (-0.1, 0.2)}, {"flux_fraction": (0.2, 1.0)}, {"flux_fraction": (0.3, 0.2)}],
)
def test_a_wrong_range_names_the_setting(changes: dict[str, tuple[float, float]]) -> None:
    values = {"n_clumps": (2, 6), "sigma_re": (0.13, 0.33), "flux_fraction": (0.05, 0.25)}
    with pytest.raises(ValueError, match=next(iter(changes))):
        ClumpSettings(**(values | changes))


# ------------------------------------------------------------------------------------- the template of a task


def test_template_of_a_task_has_the_tasks_size_and_shape() -> None:
    """Half of the light inside re_arcsec (circularised), axis ratio from e = (1 − q)/(1 + q)."""
    source = SourceParams(0, 0, 22, 0, 0, 0.2, 1.0, 0.25, 0.9, True, 0.5)
    template = hybrid_source("task", source, gen7_settings())
    assert (template.phi_rad, template.flip) == (0.9, True)
    pixels = template.pixels[0]
    half = pixels.shape[0] // 2
    y, x = (np.mgrid[: 2 * half + 1, : 2 * half + 1] - half) * template.pixscale_arcsec
    assert half * template.pixscale_arcsec == pytest.approx(6 * 0.2, rel=0.02)
    q = 0.6
    smooth = hybrid_source("task", source, type(gen7_settings())(12.0, 6.0, NO_CLUMPS)).pixels[0]
    assert smooth[q * x**2 + y**2 / q < 0.2**2].sum() == pytest.approx(0.5, abs=0.01)
