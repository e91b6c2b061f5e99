"""border_texture: where no arc reaches, the noise of a positive must be that of a control.

Single stamps are compared, so the host does not cancel: what this gate sees is what a network could use. It does not
see an offset far below the noise; :mod:`dhs_pipeline.gates.identity` does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dhs_pipeline.config.gates import BorderLimits, GatesConfig
from dhs_pipeline.gates.across_hosts import indistinguishable_across
from dhs_pipeline.gates.data import GateData, PairSample
from dhs_pipeline.gates.pictures import stretch
from dhs_pipeline.gates.probes import FEATURE_PROBES, PICTURE_PROBES, Contest, hosts_of
from dhs_pipeline.gates.regions import arc_of, control_weight_of, distance_pix, noise_scale, weight_of
from dhs_pipeline.gates.result import CannotRun, Figure, GateResult, judge, reported
from dhs_pipeline.gates.statistics import ideal_auc

GATE = "border_texture"

NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (0, 2))
"""(rows, columns) between pixels whose correlation is measured: resampling changes it."""

_CLIP_SIGMA = 4.0
"""Whitened pixels are limited to this many robust sigmas before second moments, else stars on the border rule them."""

_BEYOND_HALF = np.uint32(0x1FFF)
"""The 13 bits of a float32 that float16 does not have; bfloat16 lacks 3 more."""


def border_texture(data: GateData, config: GatesConfig) -> GateResult:
    """Positives against controls, and hard negatives against controls, by pixels that their light does not reach.

    A pixel is used where it lies beyond ``min_radius_pix`` of the lens centre, has a weight, and the light is below
    ``max_arc_sigma`` of the noise in every band; both members of a pair are looked at through the same pixels.

    Raises
    ------
    CannotRun
        If a layer is missing, or the pairs with enough such pixels are too few.
    """
    sample, limits = data.sample, config.border_texture
    arc, weight = arc_of(sample), control_weight_of(sample)
    # A host of its own has noise of its own; within a pair of one host, one weight for both.
    own_weight = weight if sample.same_host else weight_of(sample)
    everyone = np.arange(len(sample))
    mask = dark_border(sample, everyone, arc, limits)
    figures = _coverage("positives", mask, sample, everyone, limits)
    figures += _contest("positives", sample.positive, own_weight, arc, mask, sample, everyone, config)
    if kinds := sorted(sample.negative_of):
        of = np.concatenate([sample.negative_of[kind] for kind in kinds])
        light = np.concatenate([_light(sample, kind) for kind in kinds])
        images = np.concatenate([sample.negative[kind] for kind in kinds])
        mask = dark_border(sample, of, light, limits)
        figures += _coverage("negatives", mask, sample, of, limits)
        figures += _contest("negatives", images, own_weight[of], light, mask, sample, of, config)
    said = "positives" if not kinds else "positives and negatives"
    message = f"the border of {said} has the texture of the controls'"
    return judge(GATE, figures, message if kinds else f"{message}; the set has no negatives")


def dark_border(
    sample: PairSample, pairs: NDArray[np.intp], light: NDArray[np.float32], limits: BorderLimits
) -> NDArray[np.bool_]:
    """(m, H, W) pixels of some pairs that the given (m, bands, H, W) light does not reach."""
    weight = control_weight_of(sample)[pairs]
    if sample.invvar is not None and not sample.same_host:
        weight = np.minimum(weight, sample.invvar[pairs])
    dark = ((np.abs(light) * np.sqrt(weight) < limits.max_arc_sigma) & (weight > 0)).all(axis=1)
    return dark & (distance_pix(sample)[pairs] > limits.min_radius_pix)


def texture(images: NDArray[np.float32], weight: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Texture features of the pixels in a mask.

    Per band, of x = image·√invvar: mean, standard deviation, robust standard deviation (1.4826 MAD), kurtosis,
    correlation of neighbours, robust standard deviation of first differences; and of the image's bits: fraction of
    exact zeros, of distinct values and of values that have 16 bits.
    Then the correlation of each two bands.

    Parameters
    ----------
    images, weight
        (n, bands, H, W), nanomaggy/pix and 1/nanomaggy².
    mask
        (n, H, W).

    Returns
    -------
    ndarray
        (n, features) float32.
    """
    return np.array([_texture_of(*stamp) for stamp in zip(images, weight, mask, strict=True)], np.float32)


def _texture_of(
    image: NDArray[np.float32], weight: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.float64]:
    features: list[float] = []
    clipped = []
    for band, invvar in zip(image, weight, strict=True):
        whitened = band.astype(np.float64) * np.sqrt(invvar)
        x = whitened[mask]
        middle, sigma = np.median(x), _robust_sigma(x)
        shape = np.clip(whitened - middle, -_CLIP_SIGMA * sigma, _CLIP_SIGMA * sigma)
        deviation = x - x.mean()
        features += [x.mean(), x.std(), sigma, float((deviation**4).mean() / (deviation**2).mean() ** 2)]
        features += [_correlation(*_neighbours(shape, mask, step)) for step in NEIGHBOURS]
        one, other = _neighbours(whitened, mask, (0, 1))
        features.append(_robust_sigma(other - one))
        features += _bits(band[mask])
        clipped.append(shape[mask])
    for i in range(len(clipped)):
        features += [_correlation(clipped[i], clipped[j]) for j in range(i)]
    return np.array(features)


def _robust_sigma(x: NDArray[np.float64]) -> float:
    return 1.4826 * float(np.median(np.abs(x - np.median(x))))


def _neighbours(
    x: NDArray[np.float64], mask: NDArray[np.bool_], step: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of all two pixels of the mask that lie ``step`` (rows, columns) apart."""
    rows, columns = x.shape
    one = np.s_[: rows - step[0], : columns - step[1]]
    other = np.s_[step[0] :, step[1] :]
    both = mask[one] & mask[other]
    return x[one][both], x[other][both]


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Pearson's; 0 of values that do not vary, as there is nothing to go together."""
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 0.0


def _bits(values: NDArray[np.float32]) -> list[float]:
    """Fractions of zeros, of distinct values, and of values that a cast to 16 bits would not change.

    Finer steps are not looked at: survey pixels are rounded to steps of a few 1e-8 nanomaggy, which any light breaks.
    """
    in_half = (np.ascontiguousarray(values).view(np.uint32) & _BEYOND_HALF) == 0
    return [float((values == 0).mean()), np.unique(values).size / values.size, float(in_half.mean())]


def _light(sample: PairSample, kind: str) -> NDArray[np.float32]:
    light = sample.negative_light[kind]
    if light is None:
        raise CannotRun(f"the negatives of kind {kind} do not carry the layer of their light")
    return light


def _coverage(
    name: str, mask: NDArray[np.bool_], sample: PairSample, of: NDArray[np.intp], limits: BorderLimits
) -> list[Figure]:
    pixels = mask.sum(axis=(1, 2))
    few = int((pixels < limits.min_pixels).sum())
    blocks = len({sample.host_ids[i] for i in of})
    return [
        reported(
            f"{name}: border pixels of a stamp, median", float(np.median(pixels)), rows=pixels.size, blocks=blocks
        ),
        reported(
            f"{name}: left out, fewer than {limits.min_pixels} border pixels", few, rows=pixels.size, blocks=blocks
        ),
    ]


def _contest(
    name: str,
    images: NDArray[np.float32],
    weight: NDArray[np.float32],
    light: NDArray[np.float32],
    mask: NDArray[np.bool_],
    sample: PairSample,
    of: NDArray[np.intp],
    config: GatesConfig,
) -> list[Figure]:
    """Stamps against the controls of their pairs through the same masks, by texture and by picture.

    The masks leave a little light; what the ideal observer makes of that is theirs by right.
    """
    kept = np.flatnonzero(mask.sum(axis=(1, 2)) >= config.border_texture.min_pixels)
    if kept.size == 0:
        raise CannotRun(
            f"{name}: no stamp has {config.border_texture.min_pixels} pixels of border that no light reaches"
        )
    pairs, mask = of[kept], mask[kept]
    control, control_weight = sample.control[pairs], control_weight_of(sample)[pairs]
    hosts = (hosts_of(sample.control_host_ids, pairs), hosts_of(sample.host_ids, pairs))
    features = Contest(texture(control, control_weight, mask), texture(images[kept], weight[kept], mask), *hosts)
    left = np.where(mask[:, None], light[kept].astype(np.float64) ** 2 * control_weight, 0.0).sum(axis=(1, 2, 3))
    ideal = ideal_auc(np.sqrt(left))
    sigma, seen = noise_scale(sample), mask[:, None]
    pictures = Contest(stretch(control, sigma) * seen, stretch(images[kept], sigma) * seen, *hosts)
    rows, blocks = features.labels.size, len(set(features.hosts))
    return [
        reported(f"{name}: AUC of the ideal observer of the light left there", ideal, rows=rows, blocks=blocks),
        *indistinguishable_across(GATE, f"{name}, texture", features, FEATURE_PROBES, config, ideal),
        *indistinguishable_across(GATE, f"{name}, border pictures", pictures, PICTURE_PROBES, config, ideal),
    ]
