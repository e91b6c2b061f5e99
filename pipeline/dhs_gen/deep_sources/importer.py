"""From a deep NPZ bank to a bank folder that a run can lens.

A file with fine templates is copied template by template, each measured again. A file of the earlier layout has only
images at the survey's pixel scale, with whatever surrounds the galaxy still in them: they are taken as cutouts of that
scale, redrawn finer and isolated like any other cutout. Redrawing adds pixels, not detail, and the bank says so
(``upsampled_from_arcsec``).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dhs_gen.deep_sources.cutout import Cutout
from dhs_gen.deep_sources.npz import load_bank, load_fine_images
from dhs_gen.deep_sources.psf import psf_from_fwhm
from dhs_gen.deep_sources.settings import DeepSettings
from dhs_gen.deep_sources.template import fine_pixscale, make_deep_template
from dhs_gen.source_banks.bank import UNIT_SUM_TOLERANCE, checked_pixscale
from dhs_gen.source_banks.isolate import FloatImage
from dhs_gen.source_banks.measure import half_light_radius_px
from dhs_gen.source_banks.rejects import BankSummary, Rejected, TemplateReject
from dhs_gen.source_banks.writer import BankError, BankWriter, Column

__all__ = ["KIND", "import_deep_bank"]

KIND = "deep_ground"
MAX_HLR_DEVIATION = 0.1
"""Largest relative difference of a fine template's half-light radius from the one its metadata state."""

COLUMNS = (
    Column("template_id", "string", "", "file of the cutout, or row number where a file repeats"),
    Column("npz_row", "int64", "", "row of the NPZ bank, from 0"),
    Column("file", "string", "", "file of the cutout"),
    Column("filter", "string", "", "filter of the cutout"),
    Column("zero_point_mag", "float64", "mag(AB)", "zero point of the cutout"),
    Column("sum_flux", "float64", "", "flux in the units of the cutout"),
    Column("hlr_arcsec", "float64", "arcsec", "circular-aperture half-light radius of the template"),
    Column("psf_fwhm_arcsec", "float64", "arcsec", "FWHM of the PSF left in the template"),
    Column("seeing_fwhm_arcsec", "float64", "arcsec", "FWHM of the PSF of the cutout"),
    Column("psf_origin", "string", "", "where the cutout's PSF comes from"),
    Column("hlr_over_psf", "float64", "", "half-light radius over that of the PSF left in the template"),
    Column("snr_peak", "float64", "", "brightest pixel over the rms of the sky, after deconvolution"),
    Column("snr_integrated", "float64", "", "isophotal flux over the correlated noise of the isophote"),
    Column("noise_amplification", "float64", "", "rms of the sky after deconvolution over before"),
)


def import_deep_bank(
    npz: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    psf_fwhm_arcsec: float | None = None,
    settings: DeepSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BankSummary:
    """Write a bank folder (:mod:`dhs_gen.source_banks`) from a deep NPZ bank of this layout or the earlier one.

    Parameters
    ----------
    npz, out_dir
        File to read; folder to write.
    psf_fwhm_arcsec
        FWHM of the PSF in the images, pixel included, where the file does not say it. The earlier layout never does.
    settings
        How images of the earlier layout are judged and isolated; None takes the defaults.
    progress
        Called with (done, total) after each image.

    Returns
    -------
    BankSummary

    Raises
    ------
    BankError
        The file is no deep bank, its fine templates are coarser than 0.1″, the PSF of an earlier file is not stated,
        or no template is usable.
    """
    settings = DeepSettings() if settings is None else settings
    if psf_fwhm_arcsec is not None and not (np.isfinite(psf_fwhm_arcsec) and psf_fwhm_arcsec > 0):
        raise ValueError(f"psf_fwhm_arcsec must be positive and finite, got {psf_fwhm_arcsec!r}")
    file = Path(npz)
    images, meta = load_bank(file)
    fine = load_fine_images(file)
    template_id = _names(meta["file"])
    info: dict[str, Any] = {"kind": KIND, "npz_file": file.name, "n_candidates": len(images)}
    made: Iterator[_Made]
    if fine is None:
        pixscale_arcsec = fine_pixscale(float(meta["target_pixscale_arcsec"]))
        made = _from_survey_images(images, meta, pixscale_arcsec, psf_fwhm_arcsec, settings, file)
        info |= {"upsampled_from_arcsec": meta["target_pixscale_arcsec"], "settings": asdict(settings)}
    else:
        if len(fine[0]) != len(images):
            raise BankError(f"{file} has {len(fine[0])} fine_images for {len(images)} images")
        pixscale_arcsec = checked_pixscale(fine[1], None, where=f"fine_pixscale_arcsec of {file}")
        made = _from_fine_images(fine[0], meta, pixscale_arcsec, psf_fwhm_arcsec)
        info |= {name: meta[name] for name in _COPIED_SCALARS if name in meta}
    psf_fwhm: list[float] = []
    with BankWriter(out_dir, COLUMNS) as writer:
        for row, (pixels, numbers) in enumerate(made):
            numbers |= {"template_id": template_id[row], "npz_row": row}
            if isinstance(pixels, Rejected):
                writer.reject({**numbers, "reason": str(pixels.reason), "message": pixels.message})
            else:
                writer.accept(pixels, numbers)
                psf_fwhm.append(numbers["psf_fwhm_arcsec"])
            if progress is not None:
                progress(row + 1, len(images))
        typical = float(np.median(psf_fwhm)) if psf_fwhm else 0.0
        info |= {"pixscale_arcsec": pixscale_arcsec, "effective_psf_fwhm_arcsec": typical}
        digest = writer.finish(info)
        return BankSummary(Path(out_dir), len(images), writer.n_accepted, writer.counts_by_reason(), digest)


_COPIED_SCALARS = (
    "src_pixscale_arcsec",
    "deconvolved",
    "target_psf_fwhm_arcsec",
    "regularisation",
    "interpolant",
    "seed",
    "settings",
    "galsim_version",
)
_COPIED_LISTS = tuple(column.name for column in COLUMNS if column.name not in ("template_id", "npz_row", "file"))

_Made = tuple[FloatImage | Rejected, dict[str, Any]]
"""A template or why there is none, and the columns of its row."""


def _from_fine_images(
    fine: NDArray[np.float32], meta: dict[str, Any], pixscale_arcsec: float, psf_fwhm_arcsec: float | None
) -> Iterator[_Made]:
    for row, image in enumerate(fine):
        numbers = _copied(meta, row)
        if numbers.get("psf_fwhm_arcsec") is None:
            numbers["psf_fwhm_arcsec"] = psf_fwhm_arcsec
        pixels = np.asarray(image, dtype=np.float64)
        try:
            _check_fine(pixels, pixscale_arcsec, numbers)
        except Rejected as rejected:
            yield rejected, numbers
        else:
            yield pixels, numbers


def _check_fine(pixels: FloatImage, pixscale_arcsec: float, numbers: dict[str, Any]) -> None:
    """Measure the template into ``numbers``; raise :class:`Rejected` if it is not what the file says."""
    if not np.isfinite(pixels).all():
        raise Rejected(TemplateReject.NOT_FINITE, "the fine template has pixels that are not finite")
    if not abs(float(pixels.sum()) - 1.0) <= UNIT_SUM_TOLERANCE:
        raise Rejected(TemplateReject.EMPTY, f"the fine template sums to {pixels.sum():.6g}, not to 1")
    if numbers["psf_fwhm_arcsec"] is None:
        raise Rejected(TemplateReject.NO_PSF, "the PSF in the template is unknown: state psf_fwhm_arcsec")
    stated, measured = numbers.get("hlr_arcsec"), half_light_radius_px(pixels) * pixscale_arcsec
    numbers["hlr_arcsec"] = measured
    if stated is not None and not abs(measured / stated - 1.0) <= MAX_HLR_DEVIATION:
        raise Rejected(
            TemplateReject.HLR_DISAGREES_WITH_CATALOGUE,
            f"half-light radius is {measured:.3f} arcsec, the metadata say {stated:.3f}",
        )


def _from_survey_images(
    images: NDArray[np.float32],
    meta: dict[str, Any],
    pixscale_arcsec: float,
    psf_fwhm_arcsec: float | None,
    settings: DeepSettings,
    file: Path,
) -> Iterator[_Made]:
    if psf_fwhm_arcsec is None:
        raise BankError(f"{file} has the earlier layout, which does not say what PSF is in it: state psf_fwhm_arcsec")
    psf = psf_from_fwhm(psf_fwhm_arcsec, settings.stated_psf_profile, settings.stated_psf_moffat_beta, "stated FWHM")
    for row, image in enumerate(images):
        numbers = {**_copied(meta, row), "seeing_fwhm_arcsec": psf.fwhm_arcsec, "psf_origin": psf.origin}
        pixels = np.asarray(image, dtype=np.float64)
        bad = ~np.isfinite(pixels) | _padding(pixels)
        filled = np.where(bad, 0.0, pixels)
        try:
            if not filled.any():
                raise Rejected(TemplateReject.EMPTY, "no finite pixel other than 0")
            scale = float(meta["target_pixscale_arcsec"])
            cutout = Cutout(str(numbers["file"]), filled, bad, scale, "stated", psf, str(numbers["filter"]), None)
            yield make_deep_template(cutout, pixscale_arcsec, None, settings, numbers), numbers
        except Rejected as rejected:
            yield rejected, numbers


def _padding(pixels: FloatImage) -> NDArray[np.bool_]:
    """Pixels of exactly 0 that reach the border: what filled up a cutout smaller than the stamp."""
    zero, _ = ndimage.label(np.pad(pixels == 0, 1, constant_values=True))
    return np.asarray(zero[1:-1, 1:-1] == zero[0, 0])


def _copied(meta: dict[str, Any], row: int) -> dict[str, Any]:
    numbers = {name: meta[name][row] for name in _COPIED_LISTS if isinstance(meta.get(name), list)}
    return {**numbers, "file": PurePosixPath(str(meta["file"][row])).name}


def _names(files: list[Any]) -> list[str]:
    """One unique name per row, without the folder that the cutouts lay in."""
    names = [PurePosixPath(str(name)).name for name in files]
    repeated = Counter(names)
    return [name if repeated[name] == 1 else f"{name}#{row}" for row, name in enumerate(names)]
