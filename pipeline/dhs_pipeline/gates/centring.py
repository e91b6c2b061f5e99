"""arc_centring: arcs must be centred on the host's light, not on the middle of the stamp.

A host's sub-pixel place on the stamp is as good as random. An arc drawn about the grid instead of the host moves
against the host by that offset, which a network can learn; here the arcs' flux centroids tell it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhs_gen.centroid import CentroidError, light_centroid
from dhs_gen.streams import stream
from dhs_pipeline.config.gates import CentringLimits, GatesConfig
from dhs_pipeline.gates.data import GateData, PairSample
from dhs_pipeline.gates.regions import arc_of
from dhs_pipeline.gates.result import CannotRun, Figure, GateResult, Offender, judge, reported

GATE = "arc_centring"
_AXES = ("x", "y")


def arc_centring(data: GateData, config: GatesConfig) -> GateResult:
    """Slope of the arcs' centroids on the place of the grid's centre, both from the host's measured centroid.

    Per axis, arc − host = a + s·source + g·(grid − host) by least squares, in pixels. A singular isothermal sphere puts
    the flux centroid of a point's two images at twice the source's offset, so s ≈ 2; g is 0 for arcs about the host and
    1 for arcs about the grid. Clumps and ellipticity scatter the centroid in proportion to θ_E: rows weigh 1/θ_E².
    The host is measured on the control's image, not taken from ``lens_x_pix``. Intervals: bootstrap over hosts.

    Raises
    ------
    CannotRun
        If the layer arc is missing, hosts are too few, or the interval is too long to tell a slope.
    """
    sample = data.sample
    places, failures = _measure(data, config.arc_centring)
    blocks = len(set(places.hosts))
    if blocks < config.min_hosts:
        raise CannotRun(
            f"{blocks} hosts with a measured centroid and an arc are too few, {config.min_hosts} are needed"
        )
    figures = []
    for axis in range(2):
        name = f"slope of the arc's centre on the grid's, {_AXES[axis]}"
        slope, low, high = _slope(places, axis, config.resamples)
        if not high - low <= config.arc_centring.min_power_slope:
            raise CannotRun(
                f"{name}: {places.pairs.size} pairs on {blocks} hosts give an interval of {high - low:.2f}, at most "
                f"{config.arc_centring.min_power_slope:g} is needed"
            )
        most = config.arc_centring.max_slope
        ok = abs(slope) <= most
        figures.append(Figure(name, slope, low, high, f"-{most:g} to {most:g}", ok, places.pairs.size, blocks))
    recorded = np.hypot(*(sample.lens_xy_pix[places.pairs] - places.host_xy_pix).T)
    shared = {"rows": places.pairs.size, "blocks": blocks}
    figures += [
        reported("recorded lens centre from the host's centroid, median (px)", float(np.median(recorded)), **shared),
        reported("pairs left out: no trustworthy centroid of the host", failures, rows=len(sample), blocks=0),
        reported(
            "pairs left out: no light in the arc, no Einstein radius or no source position",
            len(sample) - failures - places.pairs.size,
            rows=len(sample),
            blocks=0,
        ),
    ]
    message = f"{places.pairs.size} arcs are centred on their hosts, wherever these lie on the grid"
    offenders = [] if all(f.ok for f in figures) else _offenders(sample, places, recorded, config)
    return judge(GATE, figures, message, offenders)


@dataclass(frozen=True, eq=False)
class _Places:
    """Where things are on the stamps of m pairs, (m, 2) each: (column, row) in pixels; and (m) Einstein radii."""

    pairs: NDArray[np.intp]
    hosts: tuple[str, ...]
    host_xy_pix: NDArray[np.float64]
    arc_xy_pix: NDArray[np.float64]
    source_xy_pix: NDArray[np.float64]
    grid_xy_pix: NDArray[np.float64]
    theta_e_pix: NDArray[np.float64]


def _measure(data: GateData, limits: CentringLimits) -> tuple[_Places, int]:
    """The places, and how many hosts could not be measured."""
    sample = data.sample
    light = arc_of(sample).sum(axis=1, dtype=np.float64)
    rows, columns = light.shape[-2:]
    grid = np.array([(columns - 1) / 2, (rows - 1) / 2])
    band = data.bandset.index("r") if "r" in data.bandset else 0
    source = np.stack([sample.column("src_x_arcsec"), sample.column("src_y_arcsec")], axis=1) / data.pixscale_arcsec
    theta_e = sample.column("theta_e_arcsec") / data.pixscale_arcsec
    usable = (light.sum(axis=(1, 2)) > 0) & (theta_e > 0) & np.isfinite(source).all(axis=1)
    pairs, hosts, failures = [], [], 0
    for pair in range(len(sample)):
        weight = None if sample.control_invvar is None else sample.control_invvar[pair, band]
        try:
            host = _host_centre(sample.control[pair, band], weight, grid, data.pixscale_arcsec, limits)
        except CentroidError:
            failures += 1
            continue
        if usable[pair]:
            pairs.append(pair)
            hosts.append(host)
    chosen = np.array(pairs, np.intp)
    return _Places(
        pairs=chosen,
        hosts=tuple(sample.host_ids[i] for i in pairs),
        host_xy_pix=np.array(hosts, np.float64).reshape(-1, 2),
        arc_xy_pix=_flux_centroids(light[chosen]),
        source_xy_pix=source[chosen],
        grid_xy_pix=np.broadcast_to(grid, (chosen.size, 2)),
        theta_e_pix=theta_e[chosen],
    ), failures


def _host_centre(
    image: NDArray[np.float32],
    weight: NDArray[np.float32] | None,
    grid: NDArray[np.float64],
    pixscale_arcsec: float,
    limits: CentringLimits,
) -> tuple[float, float]:
    mask = np.zeros(image.shape, np.bool_) if weight is None else ~(weight > 0)
    return light_centroid(
        image.astype(np.float64),
        mask,
        float(grid[0]),
        float(grid[1]),
        limits.window_sigma_arcsec / pixscale_arcsec,
        limits.max_shift_arcsec / pixscale_arcsec,
    )


def _flux_centroids(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, 2) flux-weighted mean (column, row) of (m, H, W) images without noise."""
    flux = light.sum(axis=(1, 2))
    x = (light.sum(axis=1) * np.arange(light.shape[2])).sum(axis=1) / flux
    y = (light.sum(axis=2) * np.arange(light.shape[1])).sum(axis=1) / flux
    return np.stack([x, y], axis=1)


def _slope(places: _Places, axis: int, resamples: int) -> tuple[float, float, float]:
    """g with its 95 % interval: normal equations are summed per host, hosts are drawn again."""
    host, scale = places.host_xy_pix[:, axis], 1.0 / places.theta_e_pix
    y = (places.arc_xy_pix[:, axis] - host) * scale
    x = np.stack([np.ones_like(y), places.source_xy_pix[:, axis], places.grid_xy_pix[:, axis] - host], axis=1)
    x *= scale[:, None]
    _, block = np.unique(np.asarray(places.hosts), return_inverse=True)
    n = int(block.max()) + 1
    normal, right = np.zeros((n, 3, 3)), np.zeros((n, 3))
    np.add.at(normal, block, x[:, :, None] * x[:, None, :])
    np.add.at(right, block, x * y[:, None])
    times = stream(f"{GATE} {_AXES[axis]}", "gate_bootstrap").multinomial(n, np.full(n, 1.0 / n), resamples)
    # The pseudo-inverse gives a slope of 0 to a draw of hosts that happen to lie in one place.
    again = np.linalg.pinv(np.tensordot(times, normal, 1)) @ (times @ right)[:, :, None]
    low, high = np.quantile(again[:, 2, 0], [0.025, 0.975])
    slope = float(np.linalg.lstsq(x, y, rcond=None)[0][2])
    return slope, float(low), float(high)


def _offenders(
    sample: PairSample, places: _Places, recorded: NDArray[np.float64], config: GatesConfig
) -> list[Offender]:
    """Pairs whose arcs would be moved most: hosts farthest from the grid's centre."""
    off = np.hypot(*(places.grid_xy_pix - places.host_xy_pix).T)
    worst = np.argsort(-off, kind="stable")[: config.max_offenders]
    return [
        Offender(
            sample.task_ids[places.pairs[i]],
            f"the host is {off[i]:.2f} px from the grid's centre, {recorded[i]:.2f} px from the recorded lens centre",
        )
        for i in worst
    ]
