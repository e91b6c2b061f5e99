"""S/N of an arc against sums written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dhs_gen.metrics import ArcSnr, arc_snr, good_pixels


def test_snr_is_the_sum_over_good_pixels() -> None:
    rng = np.random.default_rng(8)
    arc = rng.exponential(0.02, (20, 20))
    invvar = rng.uniform(0, 5e4, (20, 20)).astype(np.float32)
    good = rng.uniform(size=(20, 20)) < 0.8
    total, peak = 0.0, 0.0
    for row in range(20):
        for column in range(20):
            if good[row, column]:
                snr2 = float(arc[row, column]) ** 2 * float(invvar[row, column])
                total += snr2
                peak = max(peak, snr2)
    found = arc_snr(arc, invvar, good)
    assert found.matched_filter == pytest.approx(math.sqrt(total), rel=1e-12)
    assert found.peak == pytest.approx(math.sqrt(peak), rel=1e-12)


def test_snr_is_that_of_a_fitted_amplitude() -> None:
    """The scatter of a least-squares amplitude over noise realisations is 1/(matched-filter S/N)."""
    rng = np.random.default_rng(9)
    arc = np.outer(np.hanning(16), np.hanning(16)) * 0.1
    sigma = rng.uniform(0.005, 0.02, arc.shape)
    weights = 1 / sigma**2
    noise = rng.standard_normal((4000, *arc.shape)) * sigma
    amplitudes = ((arc + noise) * arc * weights).sum((1, 2)) / (arc**2 * weights).sum()
    snr = arc_snr(arc, weights.astype(np.float32), np.ones(arc.shape, bool)).matched_filter
    assert snr is not None
    assert amplitudes.std() * snr == pytest.approx(1.0, abs=0.05)


def test_what_is_missing_gives_none_not_a_number() -> None:
    arc, invvar, good = np.ones((2, 2)), np.ones((2, 2), np.float32), np.ones((2, 2), bool)
    assert arc_snr(arc, None, good) == ArcSnr(None, None)
    assert arc_snr(arc, invvar, None) == ArcSnr(None, None)
    assert good_pixels(None, invvar, 1) is None
    assert good_pixels(np.zeros((2, 2), np.int32), None, 1) is None


def test_no_good_pixel_is_no_signal() -> None:
    assert arc_snr(np.ones((2, 2)), np.ones((2, 2), np.float32), np.zeros((2, 2), bool)) == ArcSnr(0.0, 0.0)


def test_good_pixels_have_weight_and_no_bad_bit() -> None:
    maskbits = np.array([[0, 1, 2, 3, 2048]], np.int32)
    invvar = np.array([[1, 1, 1, 1, 1]], np.float32)
    assert good_pixels(maskbits, invvar, 0b10).tolist() == [[True, True, False, False, True]]
    assert good_pixels(maskbits, np.array([[1, 0, 1, 1, -1]], np.float32), 0).tolist() == [
        [True, False, True, True, False]
    ]
