"""Sersic images against the closed-form curve of growth and GalSim, over everything that can be asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate
from scipy.special import gammainc, gammaincinv

from dhs_gen.hybrid_sources.sersic import elliptical_radius, sersic_image


def pixel_flux(column: int, row: int, re: float, n: float, q: float, centre: tuple[float, float], phi: float) -> float:
    """Flux of a unit Sersic profile in one pixel, by Green's theorem.

    With F(R) the fraction of light within the ellipse R, the flux is ∮ F(R)/(2π R²) (u dv − v du) around the pixel in
    circularised coordinates: a smooth integral over four edges, whatever the cusp inside.
    """
    b = float(gammaincinv(2 * n, 0.5))
    cos, sin, stretch = math.cos(phi), math.sin(phi), math.sqrt(q)
    corners = []
    for dx, dy in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)):
        x, y = column + dx - centre[0], row + dy - centre[1]
        corners.append(np.array([(cos * x + sin * y) * stretch, (cos * y - sin * x) / stretch]))
    total = 0.0
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        step = end - start
        turn = start[0] * step[1] - start[1] * step[0]
        foot = -float(start @ step) / float(step @ step)

        def growth(t: float, start: NDArray[np.float64] = start, step: NDArray[np.float64] = step) -> float:
            r2 = float(((start + t * step) ** 2).sum())
            return float(gammainc(2 * n, b * (math.sqrt(r2) / re) ** (1 / n))) / r2

        if abs(turn) > 1e-14:
            points = [foot] if 0 < foot < 1 else None
            total += turn / (2 * math.pi) * integrate.quad(growth, 0, 1, points=points, limit=100, epsabs=1e-12)[0]
    return total


@pytest.mark.parametrize(
    ("n", "re", "q", "phi", "shape", "offset"),
    [
        (4.0, 6.0, 1.0, 0.0, (96, 96), (0.0, 0.0)),
        (4.0, 6.0, 0.3, 0.7, (32, 31), (0.31, -0.42)),
        (4.0, 0.3, 0.8, 1.0, (20, 21), (0.2, 0.4)),  # well below a pixel
        (4.0, 1e4, 0.5, 1.0, (20, 21), (0.2, 0.4)),  # the image is a corner of the cusp
        (2.5, 12.0, 0.1, 0.0, (65, 65), (0.0, 0.0)),
        (1.0, 6.0, 0.8, 2.1, (41, 30), (-0.5, 0.5)),  # the centre on a pixel's corner
        (1.0, 0.05, 0.5, 1.0, (20, 21), (0.2, 0.4)),
        (0.5, 2.0, 0.2, 2.0, (20, 21), (0.1, -0.4)),
        (8.0, 3.0, 0.5, 2.0, (21, 20), (0.1, -0.4)),
    ],
)
def test_pixels_hold_the_integral_of_the_profile(
    n: float, re: float, q: float, phi: float, shape: tuple[int, int], offset: tuple[float, float]
) -> None:
    """The core and a few pixels on: to 1e-3 (1 % is required)."""
    centre = (0.5 * (shape[1] - 1) + offset[0], 0.5 * (shape[0] - 1) + offset[1])
    image = sersic_image(shape, re, n, q, centre, phi)
    column, row = round(centre[0]), round(centre[1])
    for dx, dy in ((0, 0), (1, 0), (0, -1), (1, 1), (-2, 1), (3, 3), (-5, 2), (2, -8)):
        expected = pixel_flux(column + dx, row + dy, re, n, q, centre, phi)
        if expected > 1e-9:
            assert image[row + dy, column + dx] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("n", "re", "q"), [(1.0, 6.0, 0.8), (4.0, 6.0, 0.6), (4.0, 1.5, 1.0), (0.5, 2.0, 0.4)])
def test_image_is_galsims(n: float, re: float, q: float) -> None:
    """GalSim's Sersic (circularised half-light radius) drawn with the pixel: 1 % of every pixel that matters.

    Where GalSim's defaults fold more than that, the smooth profiles, it is asked for finer transforms.
    """
    galsim = pytest.importorskip("galsim")
    params = galsim.GSParams(folding_threshold=1e-3, maxk_threshold=2e-4) if n < 2 else galsim.GSParams()
    profile = galsim.Sersic(n=n, half_light_radius=re, gsparams=params).shear(q=q, beta=0.4 * galsim.radians)
    drawn = profile.shift(0.3, -0.2).drawImage(nx=48, ny=40, scale=1.0, method="auto").array
    image = sersic_image((40, 48), re, n, q, (23.5 + 0.3, 19.5 - 0.2), 0.4)
    bright = drawn > 1e-3 * drawn.max()
    np.testing.assert_allclose(image[bright], drawn[bright], rtol=0.01)
    assert image.max() == pytest.approx(drawn.max(), rel=1e-3)
    assert image.sum() == pytest.approx(drawn.sum(), rel=1e-4)


SERSIC = {
    "re": st.floats(0.02, 200.0),
    "n": st.floats(0.5, 8.0),
    "q": st.floats(0.05, 1.0),
    "phi": st.floats(-7.0, 7.0),
    "rows": st.integers(3, 40),
    "columns": st.integers(3, 40),
    "dx": st.floats(-0.5, 0.5),
    "dy": st.floats(-0.5, 0.5),
}


@settings(max_examples=30)
@given(**SERSIC)
def test_any_image_is_finite_and_its_core_exact(
    re: float, n: float, q: float, phi: float, rows: int, columns: int, dx: float, dy: float
) -> None:
    centre = (0.5 * (columns - 1) + dx, 0.5 * (rows - 1) + dy)
    image = sersic_image((rows, columns), re, n, q, centre, phi)
    assert image.shape == (rows, columns)
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert image.sum() <= 1 + 1e-3
    row, column = np.unravel_index(image.argmax(), image.shape)
    expected = pixel_flux(int(column), int(row), re, n, q, centre, phi)
    assert image[row, column] == pytest.approx(expected, rel=2e-3)


@settings(max_examples=15)
@given(re=st.floats(0.5, 8.0), n=st.floats(0.5, 4.0), q=st.floats(0.3, 1.0), phi=st.floats(0.0, 3.0))
def test_turning_by_a_right_angle_transposes(re: float, n: float, q: float, phi: float) -> None:
    upright, turned = (
        sersic_image((21, 34), re, n, q, None, phi),
        sersic_image((34, 21), re, n, q, None, phi + np.pi / 2),
    )
    np.testing.assert_allclose(np.rot90(turned), upright, rtol=2e-3, atol=1e-10)


def test_mirrored_quadrants_equal_the_whole_image() -> None:
    """The shortcut for a centred, upright profile against the general path (an angle of 1e-12)."""
    for shape in ((24, 24), (25, 25), (24, 31), (9, 40)):
        np.testing.assert_allclose(
            sersic_image(shape, 4.0, 2.0, 0.5), sersic_image(shape, 4.0, 2.0, 0.5, None, 1e-12), rtol=1e-8
        )


def test_elliptical_radius_is_that_of_the_image() -> None:
    """Where R is the same the profile is the same: a smooth profile's pixels sort by R."""
    centre, phi = (15.2, 11.7), 0.6
    image = sersic_image((24, 32), 40.0, 0.5, 0.4, centre, phi)
    order = np.argsort(elliptical_radius((24, 32), 0.4, centre, phi), axis=None)
    assert (np.diff(image.ravel()[order]) <= 1e-9).all()


@pytest.mark.parametrize("changes", [{"centre_xy_pix": (math.nan, 1.0)}, {"phi_rad": math.inf}])
def test_a_place_that_is_no_number_is_named(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        sersic_image((9, 9), 2.0, 1.0, 0.5, **changes)  # type: ignore[arg-type]
