"""The template that a task asks for, whichever bank it comes from."""

from __future__ import annotations

from typing import NamedTuple

import numba
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
    border = _dark_border(pixels)
    return pixels[border : pixels.shape[0] - border, border : pixels.shape[1] - border]


@numba.njit(cache=True)
def _dark_border(pixels):  # type: ignore[no-untyped-def]
    """How many frames of zeros lie around what is lit; 0 if nothing is."""
    rows, columns = pixels.shape
    for border in range((min(rows, columns) + 1) // 2):
        last_row, last_column = rows - 1 - border, columns - 1 - border
        for i in range(border, last_row + 1):
            if pixels[i, border] != 0 or pixels[i, last_column] != 0:
                return border
        for j in range(border, last_column + 1):
            if pixels[border, j] != 0 or pixels[last_row, j] != 0:
                return border
    return 0
