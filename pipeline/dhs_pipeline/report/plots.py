"""Distributions as small multiples, generations overlaid."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from dhs_gen.units import nmgy_to_mag
from dhs_pipeline.report.data import Sample
from dhs_pipeline.schemas import BANDS

BAND_COLOURS = {"g": "#2a7f3f", "r": "#c23b22", "z": "#6a3d9a"}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_CONTROL_COLOUR = "#808080"
_BINS = 36
_MAX_POINTS = 2000
_FAINTEST_SNR = 0.1
_DASHES = ("-", (0, (4, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1, 2)))
"""Curves that lie on each other can still be told apart."""

Values = NDArray[np.float64]
Panel = Callable[[Axes, Sequence[Sample]], None]


def distributions_png(samples: Sequence[Sample], psfsize_maps: Mapping[str, Mapping[str, float]]) -> bytes:
    """All panels as one PNG."""
    panels: list[Panel] = [
        lambda ax, s: _histogram(ax, s, "theta_e_arcsec", "Einstein radius θ_E (arcsec)"),
        lambda ax, s: _histogram(ax, s, "theta_e_over_fwhm_r", "θ_E / PSF FWHM, r"),
        lambda ax, s: _histogram(ax, s, "magnification", "magnification", log=True),
        _magnitudes,
        *(_snr_panel(b) for b in BANDS),
        _visibility,
        lambda ax, s: _histogram(ax, s, "mag_r", "host r (AB mag)", lensed_only=False),
        _redshifts,
        lambda ax, s: _histogram(ax, s, "bad_pixel_frac", "fraction of bad pixels", lensed_only=False),
        lambda ax, s: _psfsizes(ax, s, psfsize_maps),
    ]
    figure = Figure(figsize=(13.0, 8.8), dpi=110)
    FigureCanvasAgg(figure)
    for ax, panel in zip(figure.subplots(3, 4).flat, panels, strict=True):
        _style(ax)
        panel(ax, samples)
    figure.subplots_adjust(left=0.045, right=0.985, bottom=0.06, top=0.945, wspace=0.26, hspace=0.32)
    _legend(figure, samples)
    return figure_png(figure)


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG bytes that depend on the figure alone."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def generation_colours(samples: Sequence[Sample]) -> dict[str, str]:
    """Generation → colour; those without an arc are grey."""
    colours = iter(_COLOURS * len(samples))
    return {s.name: next(colours) if s.lensed.any() else _CONTROL_COLOUR for s in samples}


def _legend(figure: Figure, samples: Sequence[Sample]) -> None:
    colours = generation_colours(samples)
    handles = [figure.axes[0].plot([], [], color=c, lw=2.5, label=name)[0] for name, c in colours.items()]
    figure.legend(handles=handles, loc="upper left", ncols=len(handles), frameon=False, fontsize=10)


def _style(ax: Axes) -> None:
    ax.tick_params(labelsize=8, length=3, color="#888888")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#888888")


def _label(ax: Axes, x: str, y: str) -> None:
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)


def _histogram(
    ax: Axes,
    samples: Sequence[Sample],
    column: str,
    label: str,
    *,
    log: bool = False,
    lensed_only: bool = True,
    floor: float | None = None,
) -> None:
    """Rows per bin, one outline per generation; values below ``floor`` are counted in the first bin.

    A task counts once: of pairs, the positive.
    """
    values = {}
    for s in samples:
        found = s.values(column, s.lensed if lensed_only else s.ok & s.tasks)
        found = found[np.isfinite(found)]
        found = np.maximum(found, floor) if floor is not None else found
        values[s.name] = found[found > 0] if log else found
    _outlines(ax, samples, values, log=log)
    _label(ax, label, "rows")


def _outlines(ax: Axes, samples: Sequence[Sample], values: Mapping[str, Values], *, log: bool) -> None:
    edges = _edges(np.concatenate([np.empty(0), *values.values()]), log=log)
    if edges is None:
        _say_empty(ax)
        return
    colours = generation_colours(samples)
    for order, (name, numbers) in enumerate(values.items()):
        if numbers.size:
            counts, _ = np.histogram(numbers, edges)
            ax.stairs(counts, edges, color=colours[name], lw=1.5, ls=_DASHES[order % len(_DASHES)])
    if log:
        _log_ticks(ax, edges)
    ax.set_ylim(bottom=0)


def _edges(numbers: Values, *, log: bool) -> Values | None:
    """Bins over the range of the values; None if there are none."""
    if not numbers.size:
        return None
    low, high = float(numbers.min()), float(numbers.max())
    if log:
        return np.geomspace(low, high if high > low else 2 * low, _BINS + 1)
    width = high - low if high > low else max(abs(low), 1.0) * 0.1
    return np.linspace(low - 0.01 * width, low + 1.01 * width, _BINS + 1)


def _log_ticks(ax: Axes, edges: Values) -> None:
    """Logarithmic abscissa with plain numbers; 1, 2, 5 where the range is short."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if edges[-1] < 100 * edges[0] else (1,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _say_empty(ax: Axes) -> None:
    ax.text(0.5, 0.5, "no values", ha="center", va="center", transform=ax.transAxes, color="#888888", fontsize=9)


def _snr_panel(band: str) -> Panel:
    label = f"matched-filter S/N of the arc, {band}"
    return lambda ax, s: _histogram(ax, s, f"arc_snr_{band}", label, log=True, floor=_FAINTEST_SNR)


def _points(sample: Sample, *columns: str) -> list[Values]:
    """Columns of the first lensed rows (a random subset: the table is in the order of a hash) with all values there."""
    values = [sample.values(c, sample.lensed) for c in columns]
    there = np.logical_and.reduce([np.isfinite(v) & (v > 0) for v in values])
    return [v[there][:_MAX_POINTS] for v in values]


def _scatter(ax: Axes, x: Values, y: Values, colour: str) -> None:
    ax.plot(x, y, ".", ms=2.2, alpha=0.35, color=colour, mew=0, rasterized=True)


def _magnitudes(ax: Axes, samples: Sequence[Sample]) -> None:
    colours = generation_colours(samples)
    seen = []
    for s in samples:
        unlensed, lensed = _points(s, "unlensed_flux_r_nmgy", "lensed_flux_r_nmgy")
        _scatter(ax, nmgy_to_mag(unlensed), nmgy_to_mag(lensed), colours[s.name])
        seen.append(nmgy_to_mag(unlensed))
    _label(ax, "source r, unlensed (AB mag)", "arc r on the stamp (AB mag)")
    every = np.concatenate([np.empty(0), *seen])
    if not every.size:
        _say_empty(ax)
        return
    ends = np.array([every.min(), every.max()])
    for magnification in (1, 10):
        shift = 2.5 * np.log10(magnification)
        ax.plot(ends, ends - shift, color="#555555", lw=0.8, ls="--")
        ax.text(ends[0], ends[0] - shift, f" ×{magnification}", fontsize=8, color="#555555", va="center")
    ax.invert_xaxis()
    ax.invert_yaxis()


def _visibility(ax: Axes, samples: Sequence[Sample]) -> None:
    colours = generation_colours(samples)
    drawn = 0
    for s in samples:
        ratio, snr = _points(s, "theta_e_over_fwhm_r", "arc_snr_r")
        _scatter(ax, ratio, np.maximum(snr, _FAINTEST_SNR), colours[s.name])
        drawn += ratio.size
    _label(ax, "θ_E / PSF FWHM, r", "S/N of the arc, r")
    if drawn:
        ax.set_yscale("log")
    else:
        _say_empty(ax)


def _redshifts(ax: Axes, samples: Sequence[Sample]) -> None:
    """Lens and source redshifts of the tasks with an arc; one generation's, for all share the tasks."""
    fullest = max(samples, key=lambda s: int(s.lensed.sum()))
    kinds = {"lens z_l": "#444444", "source z_s": "#b8860b"}
    columns = [fullest.values(c, fullest.lensed) for c in ("z_l", "z_s")]
    edges = _edges(np.concatenate([c[np.isfinite(c)] for c in columns]), log=False)
    _label(ax, "redshift", "rows")
    if edges is None:
        _say_empty(ax)
        return
    for (name, colour), numbers in zip(kinds.items(), columns, strict=True):
        counts, _ = np.histogram(numbers[np.isfinite(numbers)], edges)
        ax.stairs(counts, edges, color=colour, fill=True, alpha=0.25)
        ax.stairs(counts, edges, color=colour, lw=1.4, label=name)
    ax.legend(frameon=False, fontsize=8)


def _psfsizes(ax: Axes, samples: Sequence[Sample], maps: Mapping[str, Mapping[str, float]]) -> None:
    """Kernel's psfsize against the map's at the host, all generations, colour by band."""
    worst = 0.0
    every: list[float] = []
    for band in BANDS:
        pairs = np.array(_psfsize_pairs(samples, maps, band)).reshape(-1, 2)
        if pairs.size:
            ax.plot(pairs[:, 0], pairs[:, 1], ".", ms=8, alpha=0.6, color=BAND_COLOURS[band], mew=0, label=band)
            worst = max(worst, float(np.abs(pairs[:, 1] / pairs[:, 0] - 1).max()))
            every += [*pairs[:, 0], *pairs[:, 1]]
    _label(ax, "psfsize of the map (arcsec)", "psfsize of the kernel (arcsec)")
    if not every:
        _say_empty(ax)
        return
    ends = (min(every), max(every))
    ax.plot(ends, ends, color="#555555", lw=0.8, ls="--", zorder=1)
    ax.margins(0.1)
    ax.text(0.97, 0.04, f"largest difference {100 * worst:.2g} %", transform=ax.transAxes, ha="right", fontsize=8)
    ax.legend(frameon=False, fontsize=8, loc="upper left")


def _psfsize_pairs(
    samples: Sequence[Sample], maps: Mapping[str, Mapping[str, float]], band: str
) -> list[tuple[float, float]]:
    """(map, kernel) of each host of each generation."""
    pairs = set()
    for s in samples:
        used = s.values(f"psfsize_used_{band}_arcsec")
        for host_id, kernel in zip(s.table.column("host_id").to_pylist(), used, strict=True):
            of_map = maps.get(host_id, {}).get(band)
            if of_map is not None and np.isfinite(kernel):
                pairs.add((of_map, float(kernel)))
    return sorted(pairs)
