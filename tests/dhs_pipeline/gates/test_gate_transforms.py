"""transformed_control: what must not be seen, and what must not know the label."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fake_pairs import limits
from rerender_cases import LOOSE, Made, half_pixel_right, tampered, thumbnails, with_sample

from dhs_pipeline.gates import transforms
from dhs_pipeline.gates.data import GateData
from dhs_pipeline.gates.host_features import border_texture
from dhs_pipeline.gates.probes import linear
from dhs_pipeline.gates.result import CannotRun, GateResult, Outcome
from dhs_pipeline.gates.transforms import transformed_control

CONFIG = limits(
    *LOOSE,
    "transformed_control.pairs=24",
    "transformed_control.negative_pairs=3",
    "transformed_control.visible=[core_dropout]",
    "transformed_control.invisible=[null_negative]",
)
SHUFFLED = "shuffled_pixels: power beyond the PSF's band limit over a point's"
ARTIFACTS = "members of a pair whose artifacts differ from its positive's"


@pytest.fixture
def data(paired_run: Made, monkeypatch: pytest.MonkeyPatch) -> GateData:
    """Without the pixels that were shuffled after the PSF, which fail by right."""
    monkeypatch.setattr(transforms, "PICTURE_PROBES", {"linear": thumbnails})
    monkeypatch.setattr(transforms, "cnn", thumbnails)
    seen = paired_run[1]
    kept = [k for k in seen.sample.negative_of if k != "shuffled_pixels"]
    names = ("negative_of", "negative", "negative_light", "negative_task_ids")
    return with_sample(seen, **{n: {k: getattr(seen.sample, n)[k] for k in kept} for n in names})


def broken(result: GateResult) -> set[str]:
    return {f.name for f in result.figures if not f.ok}


def figure(result: GateResult, name: str) -> float:
    return next(f.value for f in result.figures if f.name == name)


def test_a_clean_set_passes(data: GateData) -> None:
    result = transformed_control(data, CONFIG)
    assert result.outcome is Outcome.PASS
    assert figure(result, "core_dropout, cnn: AUC of controls with it against controls without") > 0.9
    assert figure(result, ARTIFACTS) == 0.0
    names = {f.name.split(":")[0] for f in result.figures if "band limit" in f.name}
    assert names == {"arcs", *data.sample.negative_of}


def test_pixels_shuffled_after_the_psf_fail_by_name(paired_run: Made, data: GateData) -> None:
    result = transformed_control(paired_run[1], CONFIG)
    assert broken(result) == {SHUFFLED}
    assert figure(result, SHUFFLED) > 50.0
    assert "shuffled_pixels" in result.message


def test_a_null_negative_that_touches_the_host_fails(data: GateData) -> None:
    def touched(ids: Any, kind: str, *, flux_factor: float = 1.0) -> np.ndarray:
        images = data.rerender.negatives(ids, kind, flux_factor=flux_factor)
        return half_pixel_right(images) if kind == "ring" else images

    result = transformed_control(tampered(data, negatives=touched), CONFIG)
    assert broken(result) == {"ring of no flux: fraction of pixels that differ from the control's"}


@pytest.mark.parametrize(
    ("column", "value"), [("artifact_n_cosmic_rays", 1), ("artifact_sat_band", "z"), ("artifact_bg_amp_r_nmgy", 0.01)]
)
def test_artifacts_that_differ_within_a_pair_fail(data: GateData, column: str, value: object) -> None:
    """Of one control: a null on the other side counts as a difference too."""
    kinds = data.rows.column("sample_kind").to_pylist()
    values: list[object] = [None] * len(kinds)
    values[kinds.index("control")] = value
    at = data.rows.column_names.index(column)
    rows = data.rows.set_column(at, column, pa.array(values, data.rows.schema.field(column).type))
    result = transformed_control(replace(data, rows=rows), CONFIG)
    assert broken(result) == {ARTIFACTS}
    assert figure(result, ARTIFACTS) == 1.0


def test_what_is_scaled_by_the_host_may_differ_between_two_hosts(data: GateData) -> None:
    kinds = data.rows.column("sample_kind").to_pylist()
    where = data.rows.column_names.index("artifact_bg_amp_r_nmgy")
    amplitude = pa.array([0.02 if k == "control" else 0.01 for k in kinds], pa.float64())
    host = pa.array([f"{k}-{h}" for k, h in zip(kinds, data.rows.column("host_id").to_pylist(), strict=True)])
    rows = data.rows.set_column(where, "artifact_bg_amp_r_nmgy", amplitude)
    config = limits(*LOOSE, "transformed_control.invisible=[]", "transformed_control.visible=[]")
    assert figure(transformed_control(replace(data, rows=rows), config), ARTIFACTS) >= len(data.sample)
    elsewhere = rows.set_column(rows.column_names.index("host_id"), "host_id", host)
    negatives = pa.compute.not_equal(rows.column("sample_kind"), "negative")
    assert figure(transformed_control(replace(data, rows=elsewhere.filter(negatives)), config), ARTIFACTS) == 0.0


def test_a_core_that_is_dropped_by_the_members_name_fails(data: GateData, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = transforms.core_dropout

    def by_pixels(images: np.ndarray, key: str, *rest: Any) -> np.ndarray:
        return honest(images, key + str(images.sum()), *rest)

    monkeypatch.setattr(transforms, "core_dropout", by_pixels)
    assert broken(transformed_control(data, CONFIG)) == {"core_dropout: pairs of which one member alone loses it"}


@pytest.mark.parametrize("turn", ["quarter_turn", "mirror"])
def test_a_sky_with_a_direction_fails_and_one_without_passes(
    data: GateData, turn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise that is smeared along x has a quarter turn's difference, and noise that brightens along x a mirror's."""
    probe = {"quarter_turn": by_texture, "mirror": thumbnails}[turn]
    monkeypatch.setattr(transforms, "PICTURE_PROBES", {"probe": probe})
    monkeypatch.setattr(transforms, "FEATURE_PROBES", {})
    config = limits(*LOOSE, f"transformed_control.invisible=[{turn}]", "transformed_control.visible=[]")
    sky = np.random.default_rng(4).normal(0, 0.01, data.sample.control.shape).astype(np.float32)

    def seen_as(images: np.ndarray) -> GateData:
        found = dict(zip(data.sample.task_ids, images, strict=True))
        return tampered(data, controls=lambda ids, artifacts=None, only=None: np.stack([found[i] for i in ids]))

    assert not broken(transformed_control(seen_as(sky), config))
    directed = half_pixel_right(sky) if turn == "quarter_turn" else sky + np.linspace(-0.05, 0.05, 64, dtype=np.float32)
    assert broken(transformed_control(seen_as(directed), config)) == {f"{turn}, sky, probe: AUC"}


def test_artifacts_and_other_hosts_take_no_part_in_turns(data: GateData) -> None:
    """Trails of saturated stars lie along CCD columns, and the control's host may be anywhere in the folds."""
    asked = []

    def controls(ids: Any, *, artifacts: str | None = None, only: str | None = None) -> np.ndarray:
        asked.append((artifacts, only))
        return data.rerender.controls(ids, artifacts=artifacts, only=only)

    config = limits(*LOOSE, "transformed_control.invisible=[mirror]", "transformed_control.visible=[]")
    trails = data.sample.control.copy()
    trails[:, :, 10] = 5.0
    turned = with_sample(tampered(data, controls=controls), control=trails)
    assert transformed_control(turned, config).figures[0] == transformed_control(data, config).figures[0]
    assert asked == [("none", None)]


def by_texture(x: np.ndarray, y: np.ndarray, x_new: np.ndarray, seed: int) -> np.ndarray:
    return linear(border_texture(x, 10.0), y, border_texture(x_new, 10.0), seed)


def test_a_jitter_that_smooths_the_noise_fails(data: GateData) -> None:
    """Bilinear interpolation at half a pixel takes 0.29 of the noise; the Fourier shift of the pipeline takes none."""
    config = limits(*LOOSE, "transformed_control.invisible=[jitter]", "transformed_control.visible=[]")
    assert transformed_control(data, config).outcome is Outcome.PASS

    def controls(ids: Any, *, artifacts: str | None = None, only: str | None = None) -> np.ndarray:
        images = data.rerender.controls(ids)
        return images if only is None else half_pixel_right(images)

    result = transformed_control(tampered(data, controls=controls), config)
    assert broken(result) & {f"jitter, noise and neighbour correlation, {p}: AUC" for p in ("linear", "boosting")}


def test_an_unknown_transform_and_a_set_without_pairs_do_not_run(data: GateData) -> None:
    with pytest.raises(CannotRun, match="transform 'shear' is not one of quarter_turn"):
        transformed_control(data, limits(*LOOSE, "transformed_control.invisible=[shear]"))
    with pytest.raises(CannotRun, match="no columns pair_id and sample_kind"):
        transformed_control(replace(data, rows=data.rows.drop_columns(["pair_id"])), CONFIG)
