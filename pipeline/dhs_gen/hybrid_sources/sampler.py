"""Gen7: the template that a task asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dhs_gen.hybrid_sources.sersic_clumps import ClumpSettings, hybrid_template
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.task import SourceParams
from dhs_gen.units import axis_ratio

_RESOLUTION_RE = 1.0 / 16.0
_RESOLUTION_GROWTH = 0.07
"""Ray pitch in effective radii at the centre, and its growth with radius; see docs/rendering.md."""


@dataclass(frozen=True)
class HybridSettings:
    """Sampling of the template and its clumps.

    Parameters
    ----------
    re_pix
        Template pixels per effective radius.
    half_size_re
        Half side of the template in effective radii.
    clumps
        Ranges of the clumps.
    """

    re_pix: float
    half_size_re: float
    clumps: ClumpSettings


def hybrid_source(task_id: str, source: SourceParams, settings: HybridSettings) -> SourceTemplate:
    """Clumpy Sersic source with the task's size, index, ellipticity and position angle."""
    side_pix = 2 * math.ceil(settings.half_size_re * settings.re_pix) + 1
    made = hybrid_template(
        task_id, side_pix, settings.re_pix, source.n_sersic, float(axis_ratio(source.e)), settings.clumps
    )
    return SourceTemplate(
        pixels=made.pixels[None],
        pixscale_arcsec=source.reff_arcsec / settings.re_pix,
        resolution_arcsec=source.reff_arcsec * _RESOLUTION_RE,
        resolution_growth=_RESOLUTION_GROWTH,
        phi_rad=source.phi_rad,
        flip=source.flip,
    )
