"""realism: hosts that an injection changed, real lenses that look otherwise, and the files that hold them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_pairs import limits
from rerender_cases import LOOSE, Made, half_pixel_right, thumbnails, with_sample

from dhs_pipeline.gates import realism as module
from dhs_pipeline.gates.data import GateData
from dhs_pipeline.gates.host_features import (
    asymmetry,
    border_texture,
    colours,
    host_features,
    radial_profile,
    sky_texture,
)
from dhs_pipeline.gates.realism import realism
from dhs_pipeline.gates.result import CannotRun, GateResult, Outcome

CONFIG = limits(*LOOSE, "realism.max_arc_snr=1e9", "realism.min_real=8", "realism.flux_strata=2")


@pytest.fixture
def data(paired_run: Made, monkeypatch: pytest.MonkeyPatch) -> GateData:
    """Each pair four times: probes of features take no fewer rows."""
    monkeypatch.setattr(module, "PICTURE_PROBES", {"linear": thumbnails})
    pairs = np.tile(np.arange(24), 4)
    return replace(paired_run[1], sample=paired_run[1].sample.take(pairs))


def broken(result: GateResult) -> set[str]:
    return {f.name for f in result.figures if not f.ok}


def test_a_clean_set_passes(data: GateData) -> None:
    result = realism(data, CONFIG)
    assert result.outcome is Outcome.PASS
    assert "no real lenses were given" in result.message
    assert {f.rows for f in result.figures} == {2 * len(data.sample)}


def test_hosts_that_were_resampled_on_the_way_fail(data: GateData) -> None:
    bare = data.sample.positive - data.sample.arc
    resampled = with_sample(data, positive=half_pixel_right(bare) + data.sample.arc)
    assert any("features" in name for name in broken(realism(resampled, CONFIG)))


def test_what_is_compared_holds_no_arc(data: GateData) -> None:
    """Noise is all that is left: the part of the arc in it, by least squares, is 0 within a few of its σ of 0.5 %."""
    contest = module._hosts(data.sample, np.ones(3), None)
    left = np.sinh(3.0 * contest.second.astype(float)) - data.sample.control
    share = (left * data.sample.arc).sum() / (data.sample.arc.astype(float) ** 2).sum()
    assert abs(share) < 0.02


def test_only_faint_arcs_are_judged(data: GateData) -> None:
    snr = np.sqrt(sum(data.sample.column(f"arc_snr_{b}") ** 2 for b in "grz"))
    limit = float(np.median(snr))
    result = realism(data, limits(*LOOSE, f"realism.max_arc_snr={limit}"))
    judged = [f for f in result.figures if f.limit]
    assert {f.rows for f in judged} == {2 * int((snr < limit).sum())}
    with pytest.raises(CannotRun, match="no arc has an S/N below"):
        realism(data, limits(*LOOSE, f"realism.max_arc_snr={snr.min() / 2}"))


def test_real_lenses_that_are_alike_pass_and_others_fail(data: GateData) -> None:
    real = data.sample.positive[::2]
    alike = realism(replace(data, real_lenses=real), CONFIG)
    assert alike.outcome is Outcome.PASS
    assert "48 real lenses were compared with" in alike.message
    smooth = realism(replace(data, real_lenses=half_pixel_right(half_pixel_right(real))), CONFIG)
    assert any(name.startswith("real lenses, features") for name in broken(smooth))


def test_injections_are_taken_of_the_real_lenses_flux(data: GateData) -> None:
    """Real lenses are the fainter half: no brighter positive takes part."""
    flux = data.sample.positive[:, 1].sum(axis=(1, 2), dtype=float)
    real = data.sample.positive[flux <= np.median(flux)]
    positives, index = module._of_the_same_flux(data, real, CONFIG)
    assert (flux[index] <= np.median(flux)).all()
    np.testing.assert_array_equal(positives, data.sample.positive[index])
    with pytest.raises(CannotRun, match="positives have the r flux of real lenses"):
        realism(replace(data, real_lenses=real + np.float32(1.0)), CONFIG)


def test_few_real_lenses_are_counted_and_not_judged(data: GateData) -> None:
    real = np.concatenate([np.full((4, 3, 64, 64), 7.0, np.float32), np.full((1, 3, 64, 64), np.nan, np.float32)])
    result = realism(replace(data, real_lenses=real), CONFIG)
    assert result.outcome is Outcome.NOT_RUN
    assert "4 real lenses are too few to judge (8 are needed), 1 with missing pixels left out" in result.message
    assert next(f for f in result.figures if f.name == "real lenses").value == 4


def test_layers_that_are_missing_are_named(data: GateData) -> None:
    with pytest.raises(CannotRun, match="no arc layer"):
        realism(with_sample(data, arc=None), CONFIG)
    with pytest.raises(CannotRun, match="no layer invvar"):
        realism(with_sample(data, invvar=None), CONFIG)


def test_features_of_known_pictures() -> None:
    """White noise: σ 1 and no correlation of neighbours; a disc: its profile; two bands alike: no colour."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(4, 2, 64, 64)).astype(np.float32)
    np.testing.assert_allclose(border_texture(noise, 10.0).mean(axis=0), 1.0, atol=0.03)
    smooth = border_texture(half_pixel_right(noise), 10.0).mean(axis=0)
    # Mean of two neighbours: σ 1/√2, correlation 1/2 along x, none along y.
    np.testing.assert_allclose(smooth, np.repeat([np.sqrt(0.5), np.sqrt(0.5), 1.0], 2), atol=0.03)
    quadrants = sky_texture(half_pixel_right(noise), 10.0)
    assert quadrants.shape == (16, 10)
    half, none = np.sqrt(0.5), 1.0
    np.testing.assert_allclose(quadrants.mean(axis=0), np.repeat([half, half, none, none, none], 2), atol=0.04)
    turned, still = sky_texture(np.rot90(noise, axes=(2, 3)), 10.0), sky_texture(noise, 10.0)
    np.testing.assert_allclose(np.sort(turned[:, 2]), np.sort(still[:, 4]))
    np.testing.assert_allclose(np.sort(turned[:, 4]), np.sort(still[:, 2]))
    mirrored = sky_texture(np.ascontiguousarray(noise[..., ::-1]), 10.0)
    np.testing.assert_allclose(np.sort(mirrored[:, 6]), np.sort(still[:, 8]))
    y, x = np.indices((64, 64)) - 31.5
    radius = np.hypot(x, y)
    disc = np.where(radius < 5.0, 3.0, 0.0)[None, None].repeat(2, axis=1).astype(np.float32)
    profile = radial_profile(disc, radius, 1.0, 20.0).reshape(2, 20)
    np.testing.assert_allclose(profile, np.arcsinh(np.where(np.arange(20) < 5, 3.0, 0.0))[None].repeat(2, 0), atol=1e-6)
    assert colours(disc, radius < 5.0)[0, 1] == 0.0
    assert not asymmetry(disc, radius < 20.0).any()
    assert asymmetry(np.where(x > 0, disc, 0), radius < 20.0) == pytest.approx(np.full((1, 2), 2.0))
    rings = int(CONFIG.radial_profile.max_radius_pix / CONFIG.radial_profile.bin_width_pix)
    assert host_features(noise, np.ones(2), CONFIG).shape == (4, 2 * (rings + 3 + 1 + 1))
