"""core_only: does the centre of a stamp tell more of the class than the arc's light there can?

Small arcs lie in the core, so an absolute limit on what it tells would fail honest data. The limit is the ideal
observer of the arcs' own light in the core (:func:`dhs_pipeline.gates.statistics.ideal_auc`); what exceeds it leaks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.gates.across_hosts import measured_across
from dhs_pipeline.gates.data import GateData, PairSample
from dhs_pipeline.gates.pictures import stretch
from dhs_pipeline.gates.probes import PICTURE_PROBES, Contest, FitPredict, boosting
from dhs_pipeline.gates.regions import arc_of, control_weight_of, distance_pix, noise_scale
from dhs_pipeline.gates.result import CannotRun, Curve, Figure, GateResult, judge, reported
from dhs_pipeline.gates.statistics import ideal_auc

GATE = "core_only"
PROBES: dict[str, FitPredict] = {**PICTURE_PROBES, "boosting": boosting}

_WINDOW_PIX = 16
"""Side of the picture that the core is laid into: three strided convolutions leave 2×2 of it."""


@dataclass(frozen=True, eq=False)
class _Stratum:
    """Pairs that are judged together; ``middle`` is their mean θ_E/FWHM, NaN where that does not define them."""

    name: str
    pairs: NDArray[np.intp]
    middle: float
    max_auc: float = 1.0


def core_only(data: GateData, config: GatesConfig) -> GateResult:
    """Positive against control by the pixels within ``radius_pix`` of the lens, in strata of θ_E/FWHM (r band).

    A probe fails where the lower bound of its AUC exceeds the ideal observer's of S/N √Σ(arc²·invvar) over the core.
    Two more strata: pairs of wide arcs, and pairs whose arcs leave little S/N in the core, where the limit is sharp.

    Raises
    ------
    CannotRun
        If a layer is missing, or no stratum has enough pairs and hosts.
    """
    sample = data.sample
    snr = _core_snr(sample, config.core_only.radius_pix)
    cores = {
        "positive": cut_cores(sample, sample.positive, config.core_only.radius_pix),
        "control": cut_cores(sample, sample.control, config.core_only.radius_pix),
    }
    figures: list[Figure] = []
    points: dict[str, list[tuple[float, float, float, float]]] = {}
    judged = []
    for stratum in _strata(sample, snr, config):
        hosts = len({sample.host_ids[i] for i in stratum.pairs})
        if stratum.pairs.size < config.core_only.min_pairs or hosts < config.min_hosts:
            figures.append(reported(f"{stratum.name}: pairs, too few", stratum.pairs.size, rows=0, blocks=hosts))
            continue
        judged.append(stratum.name)
        found = _judge_stratum(stratum, sample, cores, ideal_auc(snr[stratum.pairs]), config)
        figures += found.values()
        if math.isfinite(stratum.middle):
            for name, figure in found.items():
                low, high = figure.low, figure.high
                points.setdefault(name, []).append(
                    (
                        stratum.middle,
                        figure.value,
                        figure.value if low is None else low,
                        figure.value if high is None else high,
                    )
                )
    if not judged:
        raise CannotRun(
            f"of {len(sample)} pairs no stratum has {config.core_only.min_pairs} on {config.min_hosts} hosts"
        )
    message = f"the core tells no more of the class than the arcs' light in it can, in {len(judged)} strata"
    return judge(GATE, figures, message, (), [_curve(name, at) for name, at in points.items()])


def cut_cores(sample: PairSample, images: NDArray[np.float32], radius_pix: float) -> NDArray[np.float32]:
    """(n, bands, 16, 16) stretched pictures of the cores; pixels beyond the radius are 0.

    The window is laid about the pixel of the lens centre, the circle about the centre itself.
    """
    side = 2 * math.ceil(radius_pix) + 1
    if side > _WINDOW_PIX:
        raise CannotRun(f"a core of {radius_pix:g} px does not fit into the window of {_WINDOW_PIX} px")
    pictures = stretch(images, noise_scale(sample)) * (distance_pix(sample) < radius_pix)[:, None]
    out = np.zeros((*images.shape[:2], _WINDOW_PIX, _WINDOW_PIX), np.float32)
    first = (_WINDOW_PIX - side) // 2
    half = side // 2
    padded = np.pad(pictures, ((0, 0), (0, 0), (half, half), (half, half)))
    for pair, (x, y) in enumerate(np.rint(sample.lens_xy_pix).astype(int)):
        out[pair, :, first : first + side, first : first + side] = padded[pair, :, y : y + side, x : x + side]
    return out


def _core_snr(sample: PairSample, radius_pix: float) -> NDArray[np.float64]:
    """(n,) matched-filter S/N of the arc within the core, all bands."""
    arc, weight = arc_of(sample), control_weight_of(sample)
    inside = (distance_pix(sample) < radius_pix)[:, None]
    return np.sqrt(np.where(inside, arc.astype(np.float64) ** 2 * weight, 0.0).sum(axis=(1, 2, 3)))


def _strata(sample: PairSample, snr: NDArray[np.float64], config: GatesConfig) -> list[_Stratum]:
    limits = config.core_only
    ratio, theta_e = sample.column("theta_e_over_fwhm_r"), sample.column("theta_e_arcsec")
    strata = []
    for low, high in zip(limits.theta_e_over_fwhm_edges[:-1], limits.theta_e_over_fwhm_edges[1:], strict=True):
        pairs = np.flatnonzero((ratio >= low) & (ratio < high))
        middle = float(ratio[pairs].mean()) if pairs.size else math.nan
        strata.append(_Stratum(f"theta_E/FWHM {low:g} to {high:g}", pairs, middle))
    wide = np.flatnonzero(theta_e >= limits.wide_theta_e_arcsec)
    faint = np.flatnonzero(snr < limits.faint_core_snr)
    strata.append(_Stratum(f'theta_E from {limits.wide_theta_e_arcsec:g}"', wide, math.nan, limits.max_auc_when_wide))
    strata.append(_Stratum(f"S/N of the core below {limits.faint_core_snr:g}", faint, math.nan))
    return strata


def _judge_stratum(
    stratum: _Stratum,
    sample: PairSample,
    cores: dict[str, NDArray[np.float32]],
    ideal: float,
    config: GatesConfig,
) -> dict[str, Figure]:
    """One figure per probe, and the ideal observer's."""
    hosts = tuple(sample.host_ids[i] for i in stratum.pairs)
    control_hosts = tuple(sample.control_host_ids[i] for i in stratum.pairs)
    contest = Contest(cores["control"][stratum.pairs], cores["positive"][stratum.pairs], control_hosts, hosts)
    rows, blocks = contest.labels.size, len(set(contest.hosts))
    out = {}
    for name, probe in PROBES.items():
        found = measured_across(GATE, f"{stratum.name} {name}", contest, probe, config)
        limit, ok = f"lower bound at most {ideal:.4f} (ideal observer)", found.low <= ideal
        if stratum.max_auc < 1.0:
            limit, ok = f"{limit}, value at most {stratum.max_auc:g}", ok and found.value <= stratum.max_auc
        out[name] = Figure(f"{stratum.name}, {name}: AUC", found.value, found.low, found.high, limit, ok, rows, blocks)
    out["ideal observer"] = reported(f"{stratum.name}, ideal observer: AUC", ideal, rows=rows, blocks=blocks)
    return out


def _curve(name: str, points: list[tuple[float, float, float, float]]) -> Curve:
    x, y, low, high = zip(*points, strict=True)
    return Curve(name, "theta_E / FWHM (r)", "AUC of the core", x, y, low, high)
