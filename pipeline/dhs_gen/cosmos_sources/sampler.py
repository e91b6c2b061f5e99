"""Gen5: the template that a task asks for."""

from __future__ import annotations

import numpy as np

from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.source_banks.bank import SourceBank, choose_template
from dhs_gen.task import SourceParams


def cosmos_source(source: SourceParams, bank: SourceBank) -> tuple[SourceTemplate, str]:
    """The bank's template at ``template_u``, scaled to the task's half-light radius, and its name.

    Scaling the template's pixel, rather than its flux, keeps the generations comparable: the same task has the same
    source size in all of them.
    """
    index = choose_template(source.template_u, len(bank.hlr_arcsec))
    pixels = trim(np.asarray(bank.images[index], dtype=np.float64))
    scale = source.reff_arcsec / float(bank.hlr_arcsec[index])
    pixscale_arcsec = bank.pixscale_arcsec * scale
    template = SourceTemplate(
        pixels=(pixels / pixels.sum())[None],
        pixscale_arcsec=pixscale_arcsec,
        resolution_arcsec=pixscale_arcsec,
        phi_rad=source.phi_rad,
        flip=source.flip,
    )
    return template, str(bank.template_id[index])


def trim(pixels: np.ndarray) -> np.ndarray:
    """Cut equal borders of zeros off all four sides, so that no ray is shot at nothing; the centre stays the centre."""
    rows, columns = np.nonzero(pixels)
    if rows.size == 0:
        return pixels
    border = min(rows.min(), columns.min(), pixels.shape[0] - 1 - rows.max(), pixels.shape[1] - 1 - columns.max())
    return pixels[border : pixels.shape[0] - border, border : pixels.shape[1] - border]
