"""The template that a task asks for, whichever bank it comes from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.source_banks.bank import SourceBank
from dhs_gen.task import SourceParams

__all__ = ["BankSource", "bank_source", "trim"]


class BankSource(NamedTuple):
    """A template scaled to a task, its name in the bank, and the PSF that it brings along.

    ``psf_fwhm_arcsec`` is the FWHM, on the source plane, of the PSF left in the template after scaling: the source is
    blurred by it before it is lensed, so it is magnified with the source and does not replace the survey's PSF.
    """

    template: SourceTemplate
    template_id: str
    psf_fwhm_arcsec: float


def bank_source(source: SourceParams, bank: SourceBank, index: int) -> BankSource:
    """A template of the bank (:func:`dhs_gen.source_banks.folds.template_of`), scaled to the task's half-light radius.

    Scaling the template's pixel, rather than its flux, keeps the generations comparable: the same task has the same
    source size in all of them. The PSF in the template scales with it, by reff_arcsec / hlr_arcsec.
    """
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
    return BankSource(template, bank.template_id[index], bank.template_psf_fwhm_arcsec(index) * scale)


def trim(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut equal borders of zeros off all four sides, so that no ray is shot at nothing; the centre stays the centre."""
    lit = pixels != 0
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if rows.size == 0:
        return pixels
    border = min(rows[0], columns[0], pixels.shape[0] - 1 - rows[-1], pixels.shape[1] - 1 - columns[-1])
    return pixels[border : pixels.shape[0] - border, border : pixels.shape[1] - border]
