"""Gen7: the template that a task asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dhs_gen.hybrid_sources.sersic_clumps import (
    ClumpSettings,
    check_bands,
    check_gradient,
    colour_channels,
    hybrid_template,
)
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.task import SourceParams
from dhs_gen.units import axis_ratio

_RESOLUTION_RE = 1.0 / 16.0
_RESOLUTION_GROWTH = 0.07
"""Ray pitch in effective radii at the centre, and its growth with radius; see docs/rendering.md."""


@dataclass(frozen=True)
class HybridSettings:
    """Sampling of the template, its clumps and its colour.

    Parameters
    ----------
    re_pix
        Template pixels per effective radius.
    half_size_re
        Half side of the template in effective radii.
    clumps
        Ranges of the clumps.
    gradient_mag_per_dex
        −d(g−r)/dlog₁₀R = −d(r−z)/dlog₁₀R; 0 gives one shape to all bands.
    """

    re_pix: float
    half_size_re: float
    clumps: ClumpSettings
    gradient_mag_per_dex: float = 0.0

    def __post_init__(self) -> None:
        check_gradient(self.gradient_mag_per_dex, "gradient_mag_per_dex")


def hybrid_source(
    task_id: str, source: SourceParams, settings: HybridSettings, bandset: str | None = None
) -> SourceTemplate:
    """Clumpy Sersic source with the task's size, index, ellipticity and position angle.

    Parameters
    ----------
    task_id
        Names the source.
    source, settings
        The task's source, and what is the same for all tasks.
    bandset
        Bands that will be rendered, in their order: with a colour gradient the template has one channel for each.
        Without a gradient it has one channel for all, and ``bandset`` is not needed.

    Raises
    ------
    ValueError
        If a parameter is out of range, or there is a gradient and no bandset.
    """
    side_pix = 2 * math.ceil(settings.half_size_re * settings.re_pix) + 1
    q = float(axis_ratio(source.e))
    made = hybrid_template(task_id, (side_pix, side_pix), settings.re_pix, source.n_sersic, q, settings.clumps)
    channels = made.pixels[None]
    if settings.gradient_mag_per_dex != 0.0:
        if bandset is None:
            raise ValueError(f"bandset must be given with a gradient of {settings.gradient_mag_per_dex} mag per dex")
        check_bands(bandset)
        channels = colour_channels(made.pixels, bandset, settings.gradient_mag_per_dex, settings.re_pix, q)
    return SourceTemplate(
        pixels=channels,
        pixscale_arcsec=source.reff_arcsec / settings.re_pix,
        resolution_arcsec=source.reff_arcsec * _RESOLUTION_RE,
        resolution_growth=_RESOLUTION_GROWTH,
        phi_rad=source.phi_rad,
        flip=source.flip,
    )
