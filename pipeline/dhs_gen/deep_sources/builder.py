"""Build a deep bank: a NPZ file of galaxies from a folder of deep FITS cutouts."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dhs_gen.deep_sources.cutout import CutoutReader, find_cutouts
from dhs_gen.deep_sources.npz import NpzWriter
from dhs_gen.deep_sources.psf import INTERPOLANT, galsim_module
from dhs_gen.deep_sources.settings import DeepSettings
from dhs_gen.deep_sources.template import fine_pixscale, make_deep_template
from dhs_gen.resample import overlap_resample
from dhs_gen.source_banks.bank import BankError
from dhs_gen.source_banks.isolate import FloatImage
from dhs_gen.source_banks.rejects import BankSummary, Rejected, TemplateReject

__all__ = ["build_deep_source_bank"]

ROW_COLUMNS = (
    "file",
    "pixscale_arcsec",
    "pixscale_origin",
    "filter",
    "zero_point_mag",
    "sum_flux",
    "snr_peak",
    "snr_integrated",
    "sky_rms",
    "hlr_arcsec",
    "hlr_over_psf",
    "seeing_fwhm_arcsec",
    "psf_origin",
    "psf_fwhm_arcsec",
    "noise_amplification",
    "masked_flux_fraction",
    "n_neighbours",
    "centroid_residual_px",
)
"""Lists of ``meta``, one entry per image; null where a number is not known."""

_EARLIER_MIN_SOURCES = 100
_EARLIER_MIN_FRACTION = 0.1


def build_deep_source_bank(
    fits_dir: str | os.PathLike[str],
    out_npz: str | os.PathLike[str],
    n_sources: int,
    stamp_size: int,
    src_pixscale_arcsec: float,
    target_pixscale_arcsec: float,
    seed: str = "1337",
    max_files: int | None = None,
    min_abs_sum: float = 0.0,
    *,
    target_psf_fwhm_arcsec: float | None = None,
    psf_fwhm_arcsec: float | None = None,
    zero_point_mag: float | None = None,
    image_hdu: int | str | None = None,
    plane: int | None = None,
    min_sources: int | None = None,
    settings: DeepSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BankSummary:
    """Build a NPZ bank of deep ground-based galaxies.

    .. warning:: ``images`` and ``fine_images`` are flux per pixel, each at its own pixel scale; a renderer that takes
       surface brightness needs ``to_surface_brightness(image, pixscale_arcsec)``. Lens the fine ones: see
       :func:`~.importer.import_deep_bank`.

    Parameters
    ----------
    fits_dir
        Folder of cutouts, subfolders included, one galaxy in the middle of each; see :mod:`~.cutout` for what is read.
    out_npz
        File to write; see :mod:`~.npz` for its layout. Same input and arguments, same bytes.
    n_sources
        At most this many, taken in an order keyed by ``seed``.
    stamp_size, target_pixscale_arcsec
        Side (pixels) and pixel scale of ``images``; the galaxy is centred on the geometric centre (S − 1)/2.
    src_pixscale_arcsec
        Pixel scale of the cutouts. A WCS that says otherwise by more than 1 % refuses its file; a file without WCS is
        taken at its word, and the metadata say so (``pixscale_origin``).
    seed
        Key of the order.
    max_files
        Look at the first this many files of that order only.
    min_abs_sum
        Refuse a galaxy whose flux (units of the file) is smaller than this, whatever its sign.
    target_psf_fwhm_arcsec
        Deconvolve each cutout from its PSF and bring it to a round Gaussian of this FWHM; None leaves the seeing in.
    psf_fwhm_arcsec, zero_point_mag
        For files that do not say it.
    image_hdu, plane
        Which HDU (number or EXTNAME) and which plane of a cube; None finds the image, and refuses a cube.
    min_sources
        Fewer than this is an error; None asks for max(100, 10 % of ``n_sources``), at most ``n_sources``.
    settings
        See :class:`~.settings.DeepSettings`; None takes its defaults, those of ``conf/banks/deep.yaml``.
    progress
        Called with (files done, files in all) after each file.

    Returns
    -------
    BankSummary
        The file written, counts, and its SHA-256.

    Raises
    ------
    ValueError
        If an argument is out of range.
    BankError
        A ValueError: there are no files, or fewer sources than asked for; the message counts the reasons.
    """
    settings = DeepSettings() if settings is None else settings
    _require_whole(n_sources=n_sources, stamp_size=stamp_size, max_files=max_files, min_sources=min_sources)
    _require_positive(
        src_pixscale_arcsec=src_pixscale_arcsec,
        target_pixscale_arcsec=target_pixscale_arcsec,
        target_psf_fwhm_arcsec=target_psf_fwhm_arcsec,
        psf_fwhm_arcsec=psf_fwhm_arcsec,
    )
    if not (math.isfinite(min_abs_sum) and min_abs_sum >= 0):
        raise ValueError(f"min_abs_sum must not be negative and finite, got {min_abs_sum!r}")
    galsim = galsim_module()
    needed = _needed(n_sources, min_sources)
    folder = Path(fits_dir)
    reader = CutoutReader(folder, src_pixscale_arcsec, settings, image_hdu, plane, psf_fwhm_arcsec, zero_point_mag)
    files = find_cutouts(folder, seed)[:max_files]
    fine_scale = fine_pixscale(src_pixscale_arcsec)
    rows: list[dict[str, Any]] = []
    rejects: list[dict[str, str]] = []
    with NpzWriter(Path(out_npz), stamp_size, settings.isolation.template_side_px) as writer:
        for done, path in enumerate(files, start=1):
            numbers: dict[str, Any] = {}
            try:
                fine = _fine_template(reader, path, fine_scale, target_psf_fwhm_arcsec, settings, numbers)
                image = _survey_image(fine, fine_scale, stamp_size, target_pixscale_arcsec, settings)
                numbers["sum_flux"] = float(image.sum())
                if abs(numbers["sum_flux"]) < min_abs_sum:
                    raise Rejected(
                        TemplateReject.EMPTY, f"flux is {numbers['sum_flux']:g}, at least {min_abs_sum:g} needed"
                    )
            except Rejected as rejected:
                name = path.relative_to(folder).as_posix()
                rejects.append({"file": name, "reason": str(rejected.reason), "message": rejected.message})
            else:
                writer.append(image, fine / fine.sum())
                rows.append(numbers)
            if progress is not None:
                progress(done, len(files))
            if len(rows) == n_sources:
                break
        if len(rows) < needed:
            raise BankError(_too_few(folder, len(rows), needed, rejects))
        writer.finish(
            {
                **{name: [row.get(name) for row in rows] for name in ROW_COLUMNS},
                "target_pixscale_arcsec": target_pixscale_arcsec,
                "stamp_size": stamp_size,
                "units": "images: flux of the file per target pixel; fine_images: unit sum, flux per fine pixel",
                "fine_pixscale_arcsec": fine_scale,
                "fine_size": settings.isolation.template_side_px,
                "src_pixscale_arcsec": src_pixscale_arcsec,
                "deconvolved": target_psf_fwhm_arcsec is not None,
                "target_psf_fwhm_arcsec": target_psf_fwhm_arcsec,
                "regularisation": _regularisation(target_psf_fwhm_arcsec, settings),
                "interpolant": INTERPOLANT,
                "seed": seed,
                "n_files": len(rows) + len(rejects),
                "rejected_by_reason": _counts(rejects),
                "rejects": rejects,
                "settings": asdict(settings),
                "galsim_version": galsim.__version__,
            }
        )
        digest = hashlib.sha256(writer.path.read_bytes()).hexdigest()
        return BankSummary(writer.path, len(rows) + len(rejects), len(rows), _counts(rejects), digest)


def _fine_template(
    reader: CutoutReader,
    path: Path,
    fine_pixscale_arcsec: float,
    target_psf_fwhm_arcsec: float | None,
    settings: DeepSettings,
    numbers: dict[str, Any],
) -> FloatImage:
    cutout = reader.read(path)
    numbers.update(
        {
            "file": cutout.name,
            "pixscale_arcsec": cutout.pixscale_arcsec,
            "pixscale_origin": cutout.pixscale_origin,
            "filter": cutout.filter_name,
            "zero_point_mag": cutout.zero_point_mag,
            "seeing_fwhm_arcsec": None if cutout.psf is None else cutout.psf.fwhm_arcsec,
            "psf_origin": "unknown" if cutout.psf is None else cutout.psf.origin,
        }
    )
    return make_deep_template(cutout, fine_pixscale_arcsec, target_psf_fwhm_arcsec, settings, numbers)


def _survey_image(
    fine: FloatImage,
    fine_pixscale_arcsec: float,
    stamp_size: int,
    target_pixscale_arcsec: float,
    settings: DeepSettings,
) -> FloatImage:
    image = overlap_resample(fine, fine_pixscale_arcsec, stamp_size, target_pixscale_arcsec)
    lost = abs(1.0 - float(image.sum()) / float(fine.sum()))
    if lost > settings.max_cropped_flux_fraction:
        raise Rejected(
            TemplateReject.TOO_LARGE,
            f"{stamp_size} px of {target_pixscale_arcsec:g} arcsec cut off {lost:.3f} of the flux, at most "
            f"{settings.max_cropped_flux_fraction:g} allowed",
        )
    return image


def _needed(n_sources: int, min_sources: int | None) -> int:
    if min_sources is not None:
        return min_sources
    return min(n_sources, max(_EARLIER_MIN_SOURCES, math.ceil(_EARLIER_MIN_FRACTION * n_sources)))


def _counts(rejects: list[dict[str, str]]) -> dict[str, int]:
    reasons = [row["reason"] for row in rejects]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def _too_few(folder: Path, n_accepted: int, needed: int, rejects: list[dict[str, str]]) -> str:
    first: dict[str, str] = {}
    for row in rejects:
        first.setdefault(row["reason"], f"{row['file']}: {row['message']}")
    examples = "; ".join(f"{reason} {count} (first {first[reason]})" for reason, count in _counts(rejects).items())
    return (
        f"{n_accepted} usable sources of {n_accepted + len(rejects)} files in {folder}, at least {needed} needed "
        f"(min_sources); refused: {examples or 'none'}"
    )


def _regularisation(target_psf_fwhm_arcsec: float | None, settings: DeepSettings) -> str | None:
    if target_psf_fwhm_arcsec is None:
        return None
    return f"1/P(k) capped at {1.0 / settings.deconvolution_floor:g}, Gaussian target"


def _require_whole(**values: int | None) -> None:
    for name, value in values.items():
        if value is None and name in ("max_files", "min_sources"):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")


def _require_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
