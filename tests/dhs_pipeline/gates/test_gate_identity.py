"""pair_identity passes clean pairs and names each of the leaks that can be planted within a pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from fake_sample import (
    BANDS,
    GAIN,
    SIGMA_NMGY,
    added,
    gate_data,
    in_half_precision,
    make_sample,
    noisy,
    resampled,
    small_config,
)

from dhs_pipeline.gates.data import PairSample
from dhs_pipeline.gates.identity import pair_identity
from dhs_pipeline.gates.result import CannotRun, Outcome

CONFIG = small_config()
SAMPLE = make_sample(60)
assert SAMPLE.arc is not None
assert SAMPLE.invvar is not None
assert SAMPLE.control_invvar is not None


def with_gain(sample: PairSample, factor: float) -> PairSample:
    pairs = sample.pairs
    for band in BANDS:
        at = pairs.column_names.index(f"g_eff_{band}")
        pairs = pairs.set_column(at, f"g_eff_{band}", pa.array(factor * sample.column(f"g_eff_{band}")))
    return replace(sample, pairs=pairs)


def test_clean_pairs_pass() -> None:
    result = pair_identity(gate_data(SAMPLE), CONFIG)
    assert result.outcome is Outcome.PASS, result.message
    assert result.offenders == ()
    by_name = {f.name: f for f in result.figures}
    assert len(by_name) == 3 + 3 * len(BANDS)
    for band in BANDS:
        # Independent pixels: the standard error of the variance of N of them is about √(2/N).
        pixels = int((SAMPLE.arc[:, BANDS.index(band)] * GAIN >= CONFIG.pair_identity.lit_electrons).sum())
        variance = by_name[f"whitened variance of lit pixels, {band}"].value
        assert variance == pytest.approx(1, abs=4 * (2.1 / pixels) ** 0.5)


def test_gaussian_shot_noise_is_as_good_as_poisson() -> None:
    arc = SAMPLE.arc.astype(np.float64)
    noise = np.random.default_rng(5).normal(size=arc.shape) * np.sqrt(arc / GAIN)
    sample = replace(SAMPLE, positive=added(SAMPLE.control, arc + noise))
    assert pair_identity(gate_data(sample), CONFIG).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("leak", "figure"),
    [
        (lambda s: replace(s, positive=noisy(s.positive, 0.3)), "pixels without flux"),
        (lambda s: replace(s, positive=noisy(s.positive, 0.01)), "pixels without flux"),
        (lambda s: replace(s, control=resampled(s.control)), "pixels without flux"),
        (lambda s: replace(s, positive=in_half_precision(s.positive)), "pixels without flux"),
        (lambda s: replace(s, positive=s.positive + np.float32(0.005 * SIGMA_NMGY[0])), "pixels without flux"),
        (
            lambda s: replace(s, positive=(s.positive * np.array([1, 1.001, 1])[:, None, None]).astype(np.float32)),
            "whitened mean of lit pixels, r",
        ),
        (lambda s: replace(s, arc=np.float32(1.01) * s.arc), "whitened mean of lit pixels, z"),
        (lambda s: with_gain(s, 1.3), "whitened variance of lit pixels, g"),
        (lambda s: replace(s, invvar=s.control_invvar), "weights that do not hold"),
        (lambda s: replace(s, invvar=np.float32(1.01) * s.invvar), "weights above the control's"),
        (lambda s: replace(s, positive=s.positive * np.where(np.arange(60) == 7, np.nan, 1)[:, None, None, None]), ""),
    ],
    ids=[
        "noise", "little noise", "resampled control", "float16", "offset", "scaled band", "other arc", "gain",
        "invvar of the control", "scaled invvar", "NaN",
    ],
)  # fmt: skip
def test_planted_leaks_fail_where_they_show(leak: Callable[[PairSample], PairSample], figure: str) -> None:
    result = pair_identity(gate_data(leak(SAMPLE)), CONFIG)
    assert result.outcome is Outcome.FAIL
    assert any(f.name.startswith(figure) for f in result.figures if not f.ok), result.message


def test_the_damaged_pair_is_the_first_offender() -> None:
    positive = SAMPLE.positive.copy()
    positive[11, 2] = noisy(positive[11:12], 0.1)[0, 2]
    result = pair_identity(gate_data(replace(SAMPLE, positive=positive)), CONFIG)
    assert [o.task_id for o in result.offenders] == ["task11"]
    assert "differ from the control" in result.offenders[0].reason
    dark = SAMPLE.arc[11, 2] <= 0
    assert result.figures[0].value == (positive[11, 2] != SAMPLE.control[11, 2])[dark].sum() > 100


def test_saturated_pixels_hold_their_paint_in_both() -> None:
    painted = np.zeros(SAMPLE.control.shape, np.bool_)
    painted[:, 0, 25:40, 25:40] = True
    positive, control = (np.where(painted, np.float32(9.0), x) for x in (SAMPLE.positive, SAMPLE.control))
    after, before = (np.where(painted, np.float32(0.0), w) for w in (SAMPLE.invvar, SAMPLE.control_invvar))
    sample = replace(SAMPLE, positive=positive, control=control, invvar=after, control_invvar=before)
    assert pair_identity(gate_data(sample), CONFIG).outcome is Outcome.PASS
    bare = replace(SAMPLE, positive=positive, control=control)
    assert pair_identity(gate_data(bare), CONFIG).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (replace(SAMPLE, arc=None), "arc"),
        (replace(SAMPLE, invvar=None), "positives do not carry the layer invvar"),
        (replace(SAMPLE, control_invvar=None), "controls do not carry the layer invvar"),
        (replace(SAMPLE, control_host_ids=SAMPLE.host_ids[::-1]), "other hosts"),
        (SAMPLE.take([]), "no pair"),
        (SAMPLE.take([0]), "too few"),
        (make_sample(60, flux=1e-3), "too few"),
    ],
)
def test_too_little_data_cannot_run(sample: PairSample, said: str) -> None:
    with pytest.raises(CannotRun, match=said):
        pair_identity(gate_data(sample), CONFIG)
