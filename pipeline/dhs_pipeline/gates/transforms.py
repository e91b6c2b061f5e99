"""transformed_control: changes of a control that must not be seen, or that may be seen and must not know the label.

What a training set does to positives and controls alike (turns, artifacts, a filled core, hard negatives) is done to
controls here, and the untouched controls are the opponents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dhs_gen.paired_controls import core_dropout
from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.gates.data import GateData, PairSample
from dhs_pipeline.gates.host_features import sky_texture
from dhs_pipeline.gates.pictures import stretch
from dhs_pipeline.gates.probes import FEATURE_PROBES, PICTURE_PROBES, Contest, cnn, cross_validated, indistinguishable
from dhs_pipeline.gates.reference import picture_sigma, rerenderer_of, some_pairs
from dhs_pipeline.gates.result import CannotRun, Figure, GateResult, exact, judge, reported
from dhs_pipeline.gates.statistics import auc_interval
from dhs_pipeline.gates.texture import power_beyond_band_limit

_GATE = "transformed_control"
_NO_ARTIFACTS = "none"
_SWITCH_OF = {
    "jitter": "enable_astrom_jitter",
    "background": "enable_bg_plane",
    "cosmic_ray": "enable_cosmic_rays",
    "saturation": "enable_sat_wings",
}
"""Artifacts by the name of their transform."""


def transformed_control(data: GateData, config: GatesConfig) -> GateResult:
    """Controls against transformed controls of the same hosts; artifacts within pairs; texture of hard negatives.

    Raises
    ------
    CannotRun
        If stamps cannot be made again, too few pairs are there, or a transform is not known.
    """
    rerenderer_of(data)
    limits = config.transformed_control
    sample = data.sample.take(some_pairs(data.sample, limits.pairs, _GATE))
    figures: list[Figure] = []
    for names, make in ((limits.invisible, _INVISIBLE), (limits.visible, _VISIBLE)):
        if unknown := [name for name in names if name not in make]:
            raise CannotRun(f"transform {unknown[0]!r} is not one of {', '.join(make)}")
        for name in names:
            figures += make[name](name, sample, data, config)
    figures += _same_artifacts(data.rows)
    figures += _texture(data, config)
    kinds = len(data.sample.negative_of)
    message = (
        f"{', '.join(limits.invisible)} are seen by nobody; {', '.join(limits.visible)} fall on both members of a pair "
        f"alike; {kinds} kinds of hard negatives have the PSF's texture"
    )
    return judge(_GATE, figures, message)


Figures = list[Figure]


def _turned(name: str, sample: PairSample, data: GateData, config: GatesConfig) -> Figures:
    """Real skies have no preferred direction; resampled ones do. Without artifacts, for CCD columns have one too."""
    still = rerenderer_of(data).controls(sample.task_ids, artifacts=_NO_ARTIFACTS)
    turned = np.rot90(still, axes=(2, 3)) if name == "quarter_turn" else still[..., ::-1]
    return _skies(name, sample, still, np.ascontiguousarray(turned), config)


def _jittered(name: str, sample: PairSample, data: GateData, config: GatesConfig) -> Figures:
    """A sub-pixel shift must leave the noise as it is."""
    still, moved = _with_artifact(name, sample, data, config)
    return _skies(name, sample, still, moved, config)


def _skies(
    name: str, sample: PairSample, still: NDArray[np.float32], changed: NDArray[np.float32], config: GatesConfig
) -> Figures:
    """Judged where only sky is: a turned galaxy is another picture of it, and its centre is what jitter moves.

    The quadrants of a stamp are rows of their own, for a host without jitter has but one sky.
    """
    sigma, radius = picture_sigma(sample), config.border_texture.min_radius_pix
    sky, hosts = _beyond(radius, sample.control.shape[-2:]), sample.host_ids * 4
    scale = sigma.astype(np.float32)[:, None, None]

    def picture(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return _quadrants(stretch(images * sky, sigma))

    def texture(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return sky_texture(images / scale, radius).astype(np.float32)

    pictures = Contest(picture(still), picture(changed), hosts, hosts)
    features = Contest(texture(still), texture(changed), hosts, hosts)
    return [
        *indistinguishable(_GATE, f"{name}, sky", pictures, PICTURE_PROBES, config),
        *indistinguishable(_GATE, f"{name}, noise and neighbour correlation", features, FEATURE_PROBES, config),
    ]


def _quadrants(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, bands, H, W) → (4 n, bands, H/2, W/2), quadrant by quadrant as in :func:`sky_texture`."""
    half = images.shape[-2] // 2
    return np.concatenate([images[..., y : y + half, x : x + half] for y in (0, half) for x in (0, half)])


def _null_negatives(name: str, sample: PairSample, data: GateData, config: GatesConfig) -> Figures:
    """Of a hard negative without flux the control's bits are left, whatever its kind."""
    sample = sample.take(np.arange(min(len(sample), config.transformed_control.negative_pairs)))
    rerender, ids = rerenderer_of(data), sample.task_ids
    blocks = len(set(sample.host_ids))
    controls = sample.control if sample.same_host else rerender.controls(ids)
    figures = []
    for kind in sorted(data.sample.negative_of):
        nulls = rerender.negatives(ids, kind, flux_factor=0.0)
        differ = nulls.view(np.uint32) != np.ascontiguousarray(controls).view(np.uint32)
        title = f"{kind} of no flux: fraction of pixels that differ from the control's"
        figures.append(exact(title, float(differ.mean()), limit=0.0, rows=len(sample), blocks=blocks))
    return figures


def _with_light(name: str, sample: PairSample, data: GateData, config: GatesConfig) -> Figures:
    """How well one artifact alone is seen; nothing is asked of it."""
    without, with_it = _with_artifact(name, sample, data, config)
    return [_seen(name, _contest(sample, without, with_it, picture_sigma(sample)), config)]


def _dropped_core(name: str, sample: PairSample, data: GateData, config: GatesConfig) -> Figures:
    """The pair's id says whether the core goes: from both members, and the same pixels of both."""
    probability = config.transformed_control.core_dropout_probability
    whole = rerenderer_of(data).controls(sample.task_ids)
    filled = _without_core(whole, sample, 1.0, config)
    holes = [
        (_without_core(images, sample, probability, config) != images).any(axis=1)
        for images in (sample.positive, sample.control)
    ]
    apart = float(sum(a.any() != b.any() for a, b in zip(*holes, strict=True)))
    rows, blocks = len(sample), len(set(sample.host_ids))
    return [
        exact(f"{name}: pairs of which one member alone loses it", apart, limit=0.0, rows=rows, blocks=blocks),
        _seen(name, _contest(sample, whole, filled, picture_sigma(sample)), config),
    ]


def _without_core(
    images: NDArray[np.float32], sample: PairSample, probability: float, config: GatesConfig
) -> NDArray[np.float32]:
    radius, width = config.core_only.radius_pix, config.transformed_control.core_annulus_width_pix
    each = zip(images, sample.task_ids, sample.lens_xy_pix.tolist(), strict=True)
    return np.stack([core_dropout(image, key, probability, (x, y), radius, width) for image, key, (x, y) in each])


_Transform = Callable[[str, PairSample, GateData, GatesConfig], Figures]
_INVISIBLE: Mapping[str, _Transform] = {
    "quarter_turn": _turned,
    "mirror": _turned,
    "jitter": _jittered,
    "null_negative": _null_negatives,
}
_VISIBLE: Mapping[str, _Transform] = {
    "background": _with_light,
    "cosmic_ray": _with_light,
    "saturation": _with_light,
    "core_dropout": _dropped_core,
}


def _with_artifact(
    name: str, sample: PairSample, data: GateData, config: GatesConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Hosts without artifacts, and with one of them alone."""
    rerender, profile = rerenderer_of(data), config.transformed_control.artifact_profile
    without = rerender.controls(sample.task_ids, artifacts=_NO_ARTIFACTS)
    return without, rerender.controls(sample.task_ids, artifacts=profile, only=_SWITCH_OF[name])


def _contest(
    sample: PairSample, first: NDArray[np.float32], second: NDArray[np.float32], sigma: NDArray[np.float64]
) -> Contest:
    """Of pictures of the positives' own hosts: a network is never asked about a host that it has seen."""
    return Contest(stretch(first, sigma), stretch(second, sigma), sample.host_ids, sample.host_ids)


def _seen(name: str, contest: Contest, config: GatesConfig) -> Figure:
    scores = cross_validated(contest, cnn, config.folds)
    found = auc_interval(contest.labels, scores, contest.hosts, config.resamples, f"{_GATE} {name}")
    title = f"{name}, cnn: AUC of controls with it against controls without"
    blocks = len(set(contest.hosts))
    return reported(title, found.value, rows=len(scores), blocks=blocks, low=found.low, high=found.high)


def _beyond(radius_pix: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    rows, columns = shape
    distance = np.hypot(np.arange(columns) - 0.5 * (columns - 1), (np.arange(rows) - 0.5 * (rows - 1))[:, None])
    return (distance >= radius_pix).astype(np.float32)


def _same_artifacts(rows: pa.Table) -> Figures:
    """Members that have other artifacts than their positive, leaving out what two hosts scale by their own pixels."""
    if "pair_id" not in rows.column_names or "sample_kind" not in rows.column_names:
        raise CannotRun("the set has no columns pair_id and sample_kind, so members of a pair cannot be compared")
    columns = [name for name in rows.column_names if name.startswith("artifact_")]
    if not columns:
        return []
    there = rows.select(["pair_id", "sample_kind", "host_id", *columns]).filter(pc.equal(rows.column("cutout_ok"), 1))
    positives = there.filter(pc.equal(there.column("sample_kind"), "positive"))
    others = there.filter(pc.not_equal(there.column("sample_kind"), "positive"))
    pairs = positives.join(others, keys="pair_id", join_type="inner", right_suffix=" of the other")
    same_host = pc.equal(pairs.column("host_id"), pairs.column("host_id of the other"))
    differ = np.zeros(pairs.num_rows, bool)
    for name in columns:
        a, b = pairs.column(name), pairs.column(f"{name} of the other")
        equal = pc.or_(pc.fill_null(pc.equal(a, b), False), pc.and_(pc.is_null(a), pc.is_null(b)))
        if _scaled_by_the_host(name):
            equal = pc.or_(equal, pc.invert(same_host))
        differ |= ~equal.to_numpy(zero_copy_only=False)
    blocks = pc.count_distinct(pairs.column("host_id")).as_py()
    title = "members of a pair whose artifacts differ from its positive's"
    return [exact(title, float(differ.sum()), limit=0.0, rows=pairs.num_rows, blocks=blocks)]


def _scaled_by_the_host(column: str) -> bool:
    return column.endswith("_nmgy") or column == "artifact_sat_masked_pix"


def _texture(data: GateData, config: GatesConfig) -> Figures:
    """Power beyond the PSF's band limit of arcs and of each kind of negative: median over rows, in the worst band."""
    sample = data.sample
    lights = {k: (light, sample.negative_of[k]) for k, light in sample.negative_light.items() if light is not None}
    if sample.arc is not None:
        lights = {"arcs": (sample.arc, np.arange(len(sample))), **lights}
    figures = []
    for kind, (light, of) in lights.items():
        ratio, blocks = _median_ratio(light, of, data, config), len({sample.host_ids[i] for i in of})
        title = f"{kind}: power beyond the PSF's band limit over a point's"
        limit = config.transformed_control.max_high_frequency_ratio
        figures.append(exact(title, ratio, limit=limit, rows=len(of), blocks=blocks))
    return figures


def _median_ratio(light: NDArray[np.float32], of: NDArray[np.intp], data: GateData, config: GatesConfig) -> float:
    beta, threshold = rerenderer_of(data).moffat_beta, config.transformed_control.otf_threshold
    medians = []
    for index, band in enumerate(data.bandset):
        fwhm_pix = data.sample.column(f"psf_fwhm_used_{band}_arcsec")[of] / data.pixscale_arcsec
        ratio = power_beyond_band_limit(light[:, index], fwhm_pix, beta[band], threshold)
        if np.isfinite(ratio).any():
            medians.append(float(np.nanmedian(ratio)))
    if not medians:
        raise CannotRun("no light in the layer arc of the sample")
    return max(medians)
