"""pair_identity: positive − control is the arc and its shot noise, pixel by pixel, and nothing else.

Within a pair the host cancels, so this gate sees what no classifier of single stamps can: a noise added to one class,
a control that was resampled, a scaled band, an offset, a wrong gain, a cast to fewer bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhs_gen.noise import add_arc_variance
from dhs_pipeline.config.gates import GatesConfig, IdentityLimits
from dhs_pipeline.gates.data import GateData, PairSample
from dhs_pipeline.gates.regions import arc_of, control_weight_of, n_hosts, weight_of
from dhs_pipeline.gates.result import CannotRun, Figure, GateResult, Offender, exact, judge

GATE = "pair_identity"

_CHUNK_PAIRS = 64
"""Pairs that are in memory as float64 at a time."""


def pair_identity(data: GateData, config: GatesConfig) -> GateResult:
    """Whether the members of same-host pairs differ by the arc and its shot noise alone.

    * Where the arc has no flux (``arc <= 0``, so no noise either): positive = control + arc to float32 rounding.
    * Where it has: x = (positive − control − arc)/√(arc/G_eff) has mean 0 and variance 1, separately over pixels of
      many electrons (``lit_electrons`` and more: a wrong gain or arc) and of few (a second noise, a cast).
    * invvar of the positive is 1/(1/invvar + arc/G_eff) of the control's (:func:`dhs_gen.noise.add_arc_variance`).

    Pixels without a weight are left out: saturated ones hold their painted value with an arc or without.

    Raises
    ------
    CannotRun
        If controls are not the positives' own hosts, a layer is missing, or the pixels are too few for the limits.
    """
    sample, limits = data.sample, config.pair_identity
    arc_of(sample)
    if not sample.same_host:
        raise CannotRun("the controls are other hosts than the positives': their pixels differ by more than the arc")
    sums = _measure(data, limits)
    shared = {"rows": len(sample), "blocks": n_hosts(sample)}
    figures = [
        exact("pixels without flux of the arc that differ", float(sums.dark_broken.sum()), limit=0, **shared),
        exact("weights that do not hold the arc's variance", float(sums.weights_broken.sum()), limit=0, **shared),
        exact("weights above the control's", float(sums.weights_raised.sum()), limit=0, **shared),
    ]
    for index, band in enumerate(data.bandset):
        figures += _lit_figures(band, index, sums, config, shared)
        figures += _faint_figures(band, index, sums, config, shared)
    dark = int(sums.dark.sum())
    if dark + int(sums.faint.sum()) == 0:
        raise CannotRun("the arcs leave no pixel dark or faint: nothing compares the hosts' own pixels")
    message = (
        f"{len(sample)} pairs differ by the arc and its shot noise: {dark} pixels without flux are equal, "
        f"{int(sums.lit.sum())} lit and {int(sums.faint.sum())} faint ones have the right variance"
    )
    return judge(GATE, figures, message, _offenders(sample, sums, config))


@dataclass(frozen=True, eq=False)
class _Sums:
    """(n, bands) per pair: counts of pixels, and sums of whitened residuals over lit and faint ones."""

    dark: NDArray[np.int64]
    dark_broken: NDArray[np.int64]
    weights_broken: NDArray[np.int64]
    weights_raised: NDArray[np.int64]
    lit: NDArray[np.int64]
    lit_sum: NDArray[np.float64]
    lit_squares: NDArray[np.float64]
    lit_variance: NDArray[np.float64]
    faint: NDArray[np.int64]
    faint_squares: NDArray[np.float64]
    faint_variance: NDArray[np.float64]


def _measure(data: GateData, limits: IdentityLimits) -> _Sums:
    parts = [_measure_some(part, data.bandset, limits) for part in _chunks(data.sample)]
    return _Sums(**{name: np.concatenate([vars(p)[name] for p in parts]) for name in vars(parts[0])})


def _chunks(sample: PairSample) -> Iterator[PairSample]:
    for first in range(0, len(sample), _CHUNK_PAIRS):
        yield sample.take(range(first, min(first + _CHUNK_PAIRS, len(sample))))


def _measure_some(sample: PairSample, bandset: str, limits: IdentityLimits) -> _Sums:
    gain = np.stack([sample.column(f"g_eff_{b}") for b in bandset], axis=1)[:, :, None, None]
    arc, before, after = arc_of(sample).astype(np.float64), control_weight_of(sample), weight_of(sample)
    weighted = before > 0
    residual = sample.positive.astype(np.float64) - sample.control.astype(np.float64) - arc
    last_place = np.spacing(np.maximum(np.abs(sample.positive), np.abs(sample.control))).astype(np.float64)
    electrons = arc * gain
    dark = weighted & (arc <= 0)
    lit = weighted & (electrons >= limits.lit_electrons)
    faint = weighted & (electrons >= limits.faint_electrons) & ~lit
    squares = _whitened_squares(residual, arc, gain, last_place)
    expected = _expected_weight(before, arc, gain[:, :, 0, 0])
    return _Sums(
        dark=_count(dark),
        # Written so that a pixel that is not a number is broken.
        dark_broken=_count(dark & ~(np.abs(residual) <= limits.rounding_ulp * last_place)),
        weights_broken=_count(
            ~(np.abs(after.astype(np.float64) - expected) <= limits.rounding_ulp * np.spacing(expected))
        ),
        weights_raised=_count(after > before),
        lit=_count(lit),
        lit_sum=_total(np.sign(residual) * np.sqrt(squares), lit),
        lit_squares=_total(squares, lit),
        lit_variance=_total(_variance_of_square(electrons), lit),
        faint=_count(faint),
        faint_squares=_total(squares, faint),
        faint_variance=_total(_variance_of_square(electrons), faint),
    )


def _whitened_squares(
    residual: NDArray[np.float64],
    arc: NDArray[np.float64],
    gain: NDArray[np.float64],
    last_place: NDArray[np.float64],
) -> NDArray[np.float64]:
    """residual²/(arc/G_eff + variance of rounding to float32); 0 where the arc has no flux."""
    variance = np.maximum(arc, 0.0) / gain + last_place**2 / 12.0
    return np.divide(residual**2, variance, out=np.zeros_like(residual), where=arc > 0)


def _variance_of_square(electrons: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of the square of a whitened Poisson number, 2 + 1/λ; a Gaussian one has 2."""
    return 2.0 + np.divide(1.0, electrons, out=np.zeros_like(electrons), where=electrons > 0)


def _expected_weight(
    before: NDArray[np.float32], arc: NDArray[np.float64], gain: NDArray[np.float64]
) -> NDArray[np.float32]:
    out = np.empty_like(before)
    for pair, band in np.ndindex(gain.shape):
        out[pair, band] = add_arc_variance(before[pair, band], arc[pair, band], float(gain[pair, band]))
    return out


def _count(where: NDArray[np.bool_]) -> NDArray[np.int64]:
    return where.sum(axis=(2, 3), dtype=np.int64)


def _total(values: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(where, values, 0.0).sum(axis=(2, 3))


def _lit_figures(
    band: str, index: int, sums: _Sums, config: GatesConfig, shared: dict[str, int]
) -> tuple[Figure, Figure]:
    limits, pixels = config.pair_identity, int(sums.lit[:, index].sum())
    error = math.sqrt(float(sums.lit_variance[:, index].sum())) / pixels if pixels else math.inf
    room = min(limits.max_whitened_variance - 1.0, 1.0 - limits.min_whitened_variance)
    if not config.sigmas * error <= room:
        raise CannotRun(
            f"{pixels} pixels with {limits.lit_electrons:g} electrons of arc in {band} are too few: their variance has "
            f"a standard error of {error:.3f}, at most {room / config.sigmas:.3f} is needed"
        )
    variance = float(sums.lit_squares[:, index].sum()) / pixels
    mean, most = float(sums.lit_sum[:, index].sum()) / pixels, config.sigmas / math.sqrt(pixels)
    return (
        Figure(
            f"whitened variance of lit pixels, {band}",
            variance,
            variance - 1.96 * error,
            variance + 1.96 * error,
            f"{limits.min_whitened_variance:g} to {limits.max_whitened_variance:g}",
            limits.min_whitened_variance <= variance <= limits.max_whitened_variance,
            **shared,
        ),
        Figure(
            f"whitened mean of lit pixels, {band}",
            mean,
            mean - 1.96 / math.sqrt(pixels),
            mean + 1.96 / math.sqrt(pixels),
            f"-{most:.2g} to {most:.2g}",
            abs(mean) <= most,
            **shared,
        ),
    )


def _faint_figures(
    band: str, index: int, sums: _Sums, config: GatesConfig, shared: dict[str, int]
) -> tuple[Figure, ...]:
    """The same for pixels of few electrons; the limits widen with their sampling error where that is larger."""
    limits, pixels = config.pair_identity, int(sums.faint[:, index].sum())
    if pixels == 0:
        return ()
    variance = float(sums.faint_squares[:, index].sum()) / pixels
    error = math.sqrt(float(sums.faint_variance[:, index].sum())) / pixels
    low = min(limits.min_whitened_variance, 1.0 - config.sigmas * error)
    high = max(limits.max_whitened_variance, 1.0 + config.sigmas * error)
    return (
        Figure(
            f"whitened variance of faint pixels, {band}",
            variance,
            variance - 1.96 * error,
            variance + 1.96 * error,
            f"{low:.3g} to {high:.3g}",
            low <= variance <= high,
            **shared,
        ),
    )


def _offenders(sample: PairSample, sums: _Sums, config: GatesConfig) -> list[Offender]:
    """Pairs with broken pixels, then pairs whose variance is far out; the worst first."""
    found: list[tuple[float, Offender]] = []
    broken, weights = sums.dark_broken.sum(axis=1), sums.weights_broken.sum(axis=1)
    lit = np.maximum(sums.lit.sum(axis=1), 1)
    excess = sums.lit_squares.sum(axis=1) / lit - np.minimum(sums.lit.sum(axis=1), 1)
    error = np.sqrt(np.maximum(sums.lit_variance.sum(axis=1), 1.0)) / lit
    for pair, task_id in enumerate(sample.task_ids):
        reasons = []
        if broken[pair]:
            reasons.append(f"{broken[pair]} pixels without flux of the arc differ from the control")
        if weights[pair]:
            reasons.append(f"{weights[pair]} weights do not hold the arc's variance")
        if not abs(excess[pair]) <= _FAR_OUT_SIGMAS * error[pair]:
            reasons.append(f"the variance of lit pixels is {1.0 + excess[pair]:.2f} of the arc's shot noise")
        if reasons:
            score = float(broken[pair] + weights[pair]) + float(np.nan_to_num(abs(excess[pair] / error[pair])))
            found.append((score, Offender(task_id, "; ".join(reasons))))
    found.sort(key=lambda item: -item[0])
    return [offender for _, offender in found[: config.max_offenders]]


_FAR_OUT_SIGMAS = 6.0
"""A pair is shown beyond this: of a million clean pairs none."""
