"""Light in one pass: bit by bit what the single functions give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhs_gen.add_light import add_light
from dhs_gen.metrics import arc_snr
from dhs_gen.noise import add_arc_variance


@given(st.integers(0, 10**6))
@settings(max_examples=30)
def test_one_pass_is_what_the_single_functions_give(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (9, 11)
    image = rng.normal(size=shape).astype(np.float32)
    image[0, :3] = -0.0
    invvar = (rng.random(shape) * 100).astype(np.float32) * (rng.random(shape) > 0.2)
    light, noise = rng.normal(0.5, 1.0, shape), rng.normal(0.0, 0.2, shape)
    light[:2] = noise[:2] = 0.0
    has_data, unmasked = invvar > 0, rng.random(shape) > 0.3
    added = add_light(image, invvar, has_data, unmasked, light, noise, 37.0)

    lit = ((light + noise) != 0) & has_data
    expected = np.where(lit, (image.astype(np.float64) + (light + noise)).astype(np.float32), image)
    assert added.image.tobytes() == expected.tobytes()
    assert added.invvar.tobytes() == add_arc_variance(invvar, light, 37.0).tobytes()
    assert added.light.tobytes() == light.astype(np.float32).tobytes()
    snr = arc_snr(light, invvar, unmasked & has_data)
    assert (added.snr, added.peak_snr) == pytest.approx((snr.matched_filter, snr.peak), rel=1e-12)
    assert added.flux_nmgy == pytest.approx(light.sum(), rel=1e-12)


@pytest.mark.parametrize("gain", [0.0, -1.0, np.nan, np.inf])
def test_a_gain_that_cannot_be_is_named(gain: float) -> None:
    plane = np.zeros((2, 2))
    some = np.ones((2, 2), dtype=bool)
    with pytest.raises(ValueError, match=f"electrons_per_nmgy must be positive and finite, got {gain}"):
        add_light(plane.astype(np.float32), plane.astype(np.float32), some, some, plane, plane, gain)
