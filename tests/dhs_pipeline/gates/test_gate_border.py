"""border_texture: clean borders pass, and a noise, a resampling or a cast of one class does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fake_sample import (
    SIGMA_NMGY,
    gate_data,
    in_half_precision,
    make_sample,
    noisy,
    resampled,
    small_config,
    with_negatives,
)

from dhs_pipeline.gates import border
from dhs_pipeline.gates.border import border_texture, dark_border, texture
from dhs_pipeline.gates.data import PairSample
from dhs_pipeline.gates.probes import linear
from dhs_pipeline.gates.regions import distance_pix
from dhs_pipeline.gates.result import CannotRun, Outcome

CONFIG = small_config()
SAMPLE = make_sample()
NEGATIVES = with_negatives(SAMPLE, "ring", SAMPLE.arc[:, :, ::-1].astype(np.float64))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for probes in ("FEATURE_PROBES", "PICTURE_PROBES"):
        monkeypatch.setattr(border, probes, {"linear": linear})


def test_texture_of_known_noise() -> None:
    rng = np.random.default_rng(1)
    white = rng.normal(0.2, 2.0, (1, 2, 300, 300))
    mean_of_two = white.copy()
    mean_of_two[0, 1, :, :-1] = 0.5 * (white[0, 0, :, :-1] + white[0, 0, :, 1:])
    mean_of_two[0, 1, :, -1] = 0.0
    mask = np.ones((1, 300, 300), np.bool_)
    mask[..., -1] = False
    weight = np.full(white.shape, 0.25, np.float32)
    per_band = texture(mean_of_two.astype(np.float32), weight, mask)[0]
    expected = [
        # mean, standard and robust deviation, kurtosis, neighbours 01 10 11 02, differences, zeros, distinct, 16 bits
        [0.1, 1.0, 1.0, 3.0, 0.0, 0.0, 0.0, 0.0, 2**0.5, 0.0, 1.0, 0.0],
        [0.1, 0.5**0.5, 0.5**0.5, 3.0, 0.5, 0.0, 0.0, 0.0, 0.5**0.5, 0.0, 1.0, 0.0],
        [0.5**0.5],  # of a pixel with its mean with a neighbour
    ]
    np.testing.assert_allclose(per_band, np.concatenate(expected), atol=0.1)


def test_texture_sees_casts_and_zeros() -> None:
    image = np.random.default_rng(1).normal(size=(2, 1, 64, 64)).astype(np.float32)
    image[1] = in_half_precision(image[1])
    image[1, 0, 0] = 0.0
    features = texture(image, np.ones_like(image), np.ones((2, 64, 64), np.bool_))
    assert features[0, 9:12] == pytest.approx([0.0, 1.0, 0.0], abs=2e-3)
    assert features[1, 9] == 1 / 64
    assert features[1, 10] < 0.95
    assert features[1, 11] == 1.0


def test_the_border_holds_no_light_and_no_pixel_without_weight() -> None:
    weight = SAMPLE.control_invvar.copy()
    weight[3, 1, :10] = 0.0
    sample = replace(SAMPLE, control_invvar=weight)
    pairs = np.array([3, 4])
    mask = dark_border(sample, pairs, sample.arc[pairs], CONFIG.border_texture)
    assert (distance_pix(sample)[pairs][mask] > 24.0).all()
    assert not mask[0, :10].any()
    assert mask[1, :10].any()
    lit = np.zeros_like(sample.arc[pairs])
    lit[0, 2, 60, 60] = 0.0051 * SIGMA_NMGY[2]
    lit[1, 2, 60, 60] = 0.0049 * SIGMA_NMGY[2]
    there = dark_border(sample, pairs, lit, CONFIG.border_texture)[:, 60, 60]
    assert there.tolist() == [False, True]


@pytest.mark.usefixtures("quick")
def test_clean_pairs_pass_with_their_negatives() -> None:
    result = border_texture(gate_data(NEGATIVES), CONFIG)
    assert result.outcome is Outcome.PASS, result.message
    assert sum("negatives, texture" in f.name for f in result.figures) == 1
    ideal = next(f for f in result.figures if "ideal observer" in f.name)
    assert 0.5 <= ideal.value < 0.52


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "leak",
    [
        lambda s: replace(s, positive=noisy(s.positive, 0.3)),
        lambda s: replace(s, control=resampled(s.control)),
        lambda s: replace(s, positive=in_half_precision(s.positive)),
    ],
    ids=["noise", "resampled controls", "float16"],
)
def test_leaks_of_one_class_fail(leak: Callable[[PairSample], PairSample]) -> None:
    result = border_texture(gate_data(leak(SAMPLE)), CONFIG)
    assert result.outcome is Outcome.FAIL
    assert "texture" in result.message


@pytest.mark.usefixtures("quick")
def test_a_leak_of_the_negatives_alone_is_theirs() -> None:
    negative = {"ring": noisy(NEGATIVES.negative["ring"], 0.3)}
    result = border_texture(gate_data(replace(NEGATIVES, negative=negative)), CONFIG)
    assert result.outcome is Outcome.FAIL
    assert {f.name.split(",")[0] for f in result.figures if not f.ok} == {"negatives"}


@pytest.mark.usefixtures("quick")
def test_stamps_whose_border_is_lit_are_left_out_and_counted() -> None:
    arc = SAMPLE.arc.copy()
    arc[:20] += 1.0
    sample = replace(SAMPLE, arc=arc)
    result = border_texture(gate_data(sample), CONFIG)
    assert next(f.value for f in result.figures if "left out" in f.name) == 20
    assert next(f.rows for f in result.figures if "texture" in f.name) == 2 * 160
    with pytest.raises(CannotRun, match="no stamp has 300 pixels"):
        border_texture(gate_data(replace(SAMPLE, arc=arc + 1)), CONFIG)


def test_too_little_data_cannot_run() -> None:
    for sample in (replace(SAMPLE, arc=None), replace(SAMPLE, control_invvar=None), SAMPLE.take([])):
        with pytest.raises(CannotRun):
            border_texture(gate_data(sample), CONFIG)
    with pytest.raises(CannotRun, match="no power"):
        border_texture(gate_data(SAMPLE), small_config(max_standard_error=0.02))
    with pytest.raises(CannotRun, match="light"):
        border._light(replace(NEGATIVES, negative_light={"ring": None}), "ring")


@pytest.mark.slow
def test_the_network_is_asked_too() -> None:
    result = border_texture(gate_data(SAMPLE), CONFIG)
    assert result.outcome is Outcome.PASS, result.message
    assert any(f.name.endswith("cnn: AUC") for f in result.figures)
    leaky = border_texture(gate_data(replace(SAMPLE, positive=noisy(SAMPLE.positive, 0.7))), CONFIG)
    assert any(f.name.endswith("cnn: AUC") for f in leaky.figures if not f.ok)
