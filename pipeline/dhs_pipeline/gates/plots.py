"""Figures of a gate: numbers with intervals against their limits, and curves."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing

from dhs_pipeline.gates.result import Curve, Figure
from dhs_pipeline.report.plots import figure_png

_KEPT, _BROKEN, _REPORTED = "#1b7a3d", "#b3261e", "#5d6770"
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_CHANCE = 0.5
_WIDTH_INCHES, _ROW_INCHES, _CURVE_INCHES = 9.0, 0.3, 2.9
_COLUMNS = 3


def forest_png(figures: Sequence[Figure]) -> bytes | None:
    """All figures with an interval, AUCs on one axis and every other on its own; None if there is none."""
    drawn = [f for f in figures if f.low is not None and f.high is not None and math.isfinite(f.value)]
    if not drawn:
        return None
    areas = [f for f in drawn if _is_auc(f)]
    groups = ([areas] if areas else []) + [[f] for f in drawn if not _is_auc(f)]
    heights = [_ROW_INCHES * len(group) + 0.45 for group in groups]
    drawing = Drawing(figsize=(_WIDTH_INCHES, sum(heights) + 0.1), dpi=110, layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, group in zip(axes, groups, strict=True):
        _forest(ax, group)
    return figure_png(drawing)


def curves_png(curves: Sequence[Curve]) -> bytes:
    """Curves with their intervals; those of the same axes lie in one panel."""
    panels: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        panels.setdefault((curve.x_label, curve.y_label), []).append(curve)
    columns = min(_COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    drawing = Drawing(figsize=(_WIDTH_INCHES, _CURVE_INCHES * lines), dpi=110, layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(lines, columns, squeeze=False).ravel()
    for ax, ((x_label, y_label), members) in zip(axes, panels.items(), strict=False):
        _clean(ax)
        for colour, curve in zip(_LINES * len(members), members, strict=False):
            ax.plot(curve.x, curve.y, "-o", ms=3, lw=1.3, color=colour, label=curve.name)
            if curve.low and curve.high:
                ax.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
        ax.set_xlabel(x_label, fontsize=9)
        ax.set_ylabel(y_label, fontsize=9)
        ax.legend(frameon=False, fontsize=8)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    return figure_png(drawing)


def numbers_in(limit: str) -> list[float]:
    """The numbers of a limit in words: [0.517] of "at most 0.517"."""
    return [float(n) for n in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w%])", limit)]


def _forest(ax: Axes, group: Sequence[Figure]) -> None:
    _clean(ax)
    for row, f in enumerate(group):
        low, high = (f.value if end is None else end for end in (f.low, f.high))
        y = len(group) - 1 - row
        colour = _REPORTED if not f.limit else _KEPT if f.ok else _BROKEN
        ax.hlines(y, low, high, color=colour, lw=1.6)
        ax.plot([f.value], [y], "o", color=colour, ms=5)
        for number in numbers_in(f.limit):
            ax.plot([number, number], [y - 0.32, y + 0.32], color="#1c2126", lw=1.4)
    if all(_is_auc(f) for f in group):
        ax.axvline(_CHANCE, color="#999999", lw=0.8, ls="--", zorder=0)
    ax.set_yticks(range(len(group)), [f.name for f in reversed(group)], fontsize=8)
    ax.set_ylim(-0.6, len(group) - 0.4)
    ax.margins(x=0.08)


def _is_auc(figure: Figure) -> bool:
    return "AUC" in figure.name and 0.0 <= figure.value <= 1.0


def _clean(ax: Axes) -> None:
    ax.tick_params(labelsize=8, length=3, color="#888888")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#888888")
