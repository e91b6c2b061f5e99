"""Core masks: what they hold, what they are filled with, and how much of an arc they take."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from rendering_cases import PIXSCALE_ARCSEC, default_accuracy
from scipy.integrate import quad

from dhs_gen.lensing.models import MassModel
from dhs_gen.lensing.render import StampGrid, draw, lens_source
from dhs_gen.paired_controls import (
    core_dropout,
    core_fractions,
    core_is_dropped,
    core_mask,
    fill_core,
    ring_template,
    theta_e_core_radius_pix,
)
from dhs_gen.psf_kernels import moffat_kernel

CENTRE = (10.3, 9.6)


def images() -> NDArray[np.float32]:
    return np.random.default_rng(2).normal(size=(3, 20, 22)).astype(np.float32)


# ------------------------------------------------------------------------------------------------ mask and radius


@pytest.mark.parametrize("radius", [0.0, 0.5, 3.0, 5.0, 40.0])
def test_mask_is_what_lies_nearer_than_the_radius(radius: float) -> None:
    mask = core_mask((20, 22), CENTRE, radius)
    for row in range(20):
        for column in range(22):
            assert mask[row, column] == (math.dist((column, row), CENTRE) < radius)


def test_a_pixel_at_the_radius_is_outside() -> None:
    assert core_mask((20, 22), (10.0, 9.0), 5.0).sum() == 69
    assert core_mask((20, 22), (10.5, 9.5), 5.0).sum() == 80


def test_theta_e_core_is_empty_below_one_and_a_half_fwhm() -> None:
    assert theta_e_core_radius_pix(1.5, 1.0, 0.262) == 0.0
    assert theta_e_core_radius_pix(0.5, 1.2, 0.262) == 0.0
    assert theta_e_core_radius_pix(2.5, 1.2, 0.262) == pytest.approx((2.5 - 1.8) / 0.262)
    assert not core_mask((64, 64), (31.5, 31.5), theta_e_core_radius_pix(1.7, 1.2, 0.262)).any()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((-0.1, 1.2, 0.262), "theta_e_arcsec"),
        ((math.nan, 1.2, 0.262), "theta_e_arcsec"),
        ((1.0, 0.0, 0.262), "fwhm_arcsec"),
        ((1.0, 1.2, -1.0), "pixscale_arcsec"),
    ],
)
def test_bad_radii_are_named(values: tuple[float, float, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        theta_e_core_radius_pix(*values)
    for radius in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="radius_pix"):
            core_mask((8, 8), CENTRE, radius)


# -------------------------------------------------------------------------------------------------------- filling


def test_fill_is_each_bands_median_of_the_annulus() -> None:
    given, mask = images(), core_mask((20, 22), CENTRE, 4.0)
    given[1, 9, 15] = np.nan  # in the annulus
    given[2, 9, 10] = np.nan  # in the core
    inside = [(r, c) for r in range(20) for c in range(22) if mask[r, c]]
    around = [
        (r, c)
        for r in range(20)
        for c in range(22)
        if not mask[r, c] and min(math.dist((r, c), p) for p in inside) <= 2.0
    ]
    filled = fill_core(given, mask, 2.0)
    assert filled.dtype == given.dtype
    for band in range(3):
        values = sorted(float(given[band, r, c]) for r, c in around if not np.isnan(given[band, r, c]))
        middle = len(values) // 2
        expected = values[middle] if len(values) % 2 else 0.5 * (values[middle - 1] + values[middle])
        np.testing.assert_allclose(filled[band][mask], expected, rtol=1e-6)
        assert filled[band][~mask].tobytes() == given[band][~mask].tobytes()
    assert np.isnan(given[2, 9, 10]), "the argument must not be touched"


def test_an_empty_core_changes_nothing() -> None:
    given = images()
    filled = fill_core(given, np.zeros((20, 22), bool), 2.0)
    assert filled.tobytes() == given.tobytes()
    assert filled is not given


def test_what_cannot_be_filled_is_an_error() -> None:
    given, mask = images(), core_mask((20, 22), CENTRE, 4.0)
    with pytest.raises(ValueError, match="outside"):
        fill_core(given, np.ones((20, 22), bool), 2.0)
    given[1][~mask] = np.nan
    with pytest.raises(ValueError, match="finite pixels in the annulus, got none in 1 band"):
        fill_core(given, mask, 2.0)
    for bad in (mask[:-1], mask.astype(np.int32)):
        with pytest.raises(ValueError, match="mask must be boolean"):
            fill_core(images(), bad, 2.0)
    for width in (0.5, math.nan):
        with pytest.raises(ValueError, match="annulus_width_pix"):
            fill_core(images(), mask, width)


# -------------------------------------------------------------------------------------------------------- dropout


def test_dropout_takes_its_fraction_of_pairs_and_both_members_alike() -> None:
    n, p = 3000, 0.3
    dropped = [core_is_dropped(f"pair-{i}", p) for i in range(n)]
    assert abs(np.mean(dropped) - p) < 4 * math.sqrt(p * (1 - p) / n)
    control, mask = images(), core_mask((20, 22), CENTRE, 3.0)
    positive = control + np.float32(1.0)
    for i in range(30):
        lost = [
            bool((core_dropout(s, f"pair-{i}", p, CENTRE, 3.0, 2.0) != s)[:, mask].all()) for s in (positive, control)
        ]
        assert lost == [dropped[i], dropped[i]]


def test_dropout_all_or_nothing() -> None:
    given, mask = images(), core_mask((20, 22), CENTRE, 3.0)
    for key in ("a", "b", "c"):
        assert core_dropout(given, key, 0.0, CENTRE, 3.0, 2.0).tobytes() == given.tobytes()
        assert core_dropout(given, key, 1.0, CENTRE, 3.0, 2.0).tobytes() == fill_core(given, mask, 2.0).tobytes()


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_bad_probability_is_named(p: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        core_dropout(images(), "a", p, CENTRE, 3.0, 2.0)


# ------------------------------------------------------------------------------------------------------ fractions


def test_fractions_are_the_brute_force_sums() -> None:
    rng = np.random.default_rng(4)
    arc, invvar = rng.random((20, 22)), rng.random((20, 22)).astype(np.float32)
    invvar[5] = 0.0
    flux = flux_in = snr2 = snr2_in = 0.0
    for row in range(20):
        for column in range(22):
            s, w = float(arc[row, column]), float(invvar[row, column])
            inside = math.dist((column, row), CENTRE) < 5
            flux, snr2 = flux + s, snr2 + s * s * w
            flux_in, snr2_in = flux_in + s * inside, snr2_in + s * s * w * inside
    found = core_fractions(arc, invvar, CENTRE, 5.0)
    assert found.flux == pytest.approx(flux_in / flux, rel=1e-12)
    assert found.snr == pytest.approx(math.sqrt(snr2_in / snr2), rel=1e-6)
    assert core_fractions(arc, None, CENTRE, 5.0) == core_fractions(arc, np.full((20, 22), 7.0), CENTRE, 5.0)
    assert core_fractions(arc, invvar, CENTRE, 0.0) == (0.0, 0.0)
    assert core_fractions(arc, invvar, CENTRE, 99.0) == (pytest.approx(1.0), pytest.approx(1.0))


@pytest.mark.parametrize(
    ("arc", "invvar", "words"),
    [
        (np.zeros((8, 8)), None, "flux and weight"),
        (np.ones((8, 8)), np.zeros((8, 8)), "flux and weight"),
        (np.full((8, 8), np.nan), None, "flux and weight"),
        (np.ones((8, 8)), np.full((8, 8), -1.0), "invvar"),
        (np.ones((8, 8)), np.full((8, 8), np.nan), "invvar"),
        (np.ones((8, 8)), np.ones((8, 9)), "one shape"),
        (np.ones((3, 8, 8)), None, "one shape"),
    ],
)
def test_fractions_of_nothing_are_not_made_up(
    arc: NDArray[np.float64], invvar: NDArray[np.float64] | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        core_fractions(arc, invvar, (4.0, 4.0), 2.0)


FWHM_ARCSEC = (0.9, 1.1, 1.3)
TABLE = {
    0.50: (0.87, 0.79, 0.72, 0.99, 0.98, 0.97),
    0.75: (0.78, 0.71, 0.64, 0.97, 0.96, 0.94),
    1.00: (0.65, 0.59, 0.54, 0.91, 0.89, 0.87),
    1.25: (0.46, 0.44, 0.41, 0.76, 0.76, 0.75),
    1.50: (0.28, 0.29, 0.29, 0.54, 0.57, 0.59),
    2.00: (0.07, 0.09, 0.11, 0.16, 0.22, 0.28),
    2.50: (0.01, 0.02, 0.04, 0.04, 0.07, 0.10),
}
"""Flux, then S/N, within 5 px of 0.262″ for a thin ring and a Moffat of β = 3.5 at the three FWHM."""


def ring_fractions(theta_e: float, size_pix: int, radius_pix: float, moment_order: int) -> NDArray[np.float64]:
    """Flux at the three FWHM, then S/N, of a thin ring about the middle of a stamp."""
    template = ring_template(theta_e, 0.02, 0.0, (0, 0), 0.0, 0.0, 0.0, np.random.default_rng(0))
    centre = (0.5 * (size_pix - 1), 0.5 * (size_pix - 1))
    lensed = lens_source(
        MassModel(0, 0, 0, 0, 0),
        template,
        (0.0, 0.0),
        centre,
        StampGrid(size_pix, PIXSCALE_ARCSEC, 63),
        default_accuracy(moment_order=moment_order),
    )
    arcs = [draw(lensed, 0, moffat_kernel(f / PIXSCALE_ARCSEC, 3.5, 63)) for f in FWHM_ARCSEC]
    return np.array([core_fractions(arc, None, centre, radius_pix) for arc in arcs]).T.ravel()


@pytest.mark.parametrize("theta_e", TABLE)
def test_fractions_of_a_ring_are_the_tabulated_ones(theta_e: float) -> None:
    """The table's ring is binned into pixels about the central one and its core takes r ≤ 5 px, to 0.02.

    Moment order 0 bins it; with all orders and the pixel's corner in the middle the table is met to 0.03.
    """
    np.testing.assert_allclose(ring_fractions(theta_e, 65, 5.0 + 1e-9, 0), TABLE[theta_e], atol=0.02)
    np.testing.assert_allclose(ring_fractions(theta_e, 64, 5.0, 3), TABLE[theta_e], atol=0.03)


@pytest.mark.parametrize("theta_e", [0.5, 1.0, 1.5, 2.5])
def test_fractions_of_a_ring_are_the_closed_integrals(theta_e: float) -> None:
    """Without pixels: a point of the ring at R is scattered by ρ into the circle a with the probability
    arccos((R² + ρ² − a²)/2Rρ)/π, and the S/N is an integral over the blurred ring's profile."""
    expected = [flux_integral(theta_e, f) for f in FWHM_ARCSEC] + [snr_integral(theta_e, f) for f in FWHM_ARCSEC]
    np.testing.assert_allclose(ring_fractions(theta_e, 64, 5.0, 3), expected, atol=0.01)


CORE_ARCSEC = math.sqrt(80 / math.pi) * PIXSCALE_ARCSEC
"""Radius of the circle with the area of the 80 pixels within 5 px of a pixel's corner."""


def moffat(rho: NDArray[np.float64] | float, fwhm: float) -> NDArray[np.float64] | float:
    alpha2 = fwhm**2 / 4 / (2 ** (1 / 3.5) - 1)
    return 2.5 / (math.pi * alpha2) * (1 + rho**2 / alpha2) ** -3.5


def flux_integral(radius: float, fwhm: float) -> float:
    def scattered(rho: float) -> float:
        cosine = (radius**2 + rho**2 - CORE_ARCSEC**2) / (2 * radius * rho)
        return 2 * rho * float(moffat(rho, fwhm)) * math.acos(min(1.0, max(-1.0, cosine)))

    edges = sorted((abs(radius - CORE_ARCSEC), radius + CORE_ARCSEC))
    return float(quad(scattered, 1e-9, 60, points=edges, limit=400)[0])


def snr_integral(radius: float, fwhm: float) -> float:
    r = (np.arange(2000) + 0.5) * 8.4 / 2000  # to the edge of the stamp
    azimuth = (np.arange(360) + 0.5) * math.pi / 360
    rho = np.sqrt(r[:, None] ** 2 + radius**2 - 2 * r[:, None] * radius * np.cos(azimuth))
    signal2 = r * np.mean(moffat(rho, fwhm), axis=1) ** 2
    return math.sqrt(signal2[r < CORE_ARCSEC].sum() / signal2.sum())
