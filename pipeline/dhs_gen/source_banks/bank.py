"""A built source bank: unit-sum templates on disk, opened as a memory map.

A bank is a folder of four files, the same whichever builder wrote it:

======================  ======================================================================================
``images.npy``          (N, S, S) float32, flux per pixel, every template of unit sum
``meta.parquet``        one row per template, in the order of the images; units in the field metadata
``rejects.parquet``     one row per candidate that was refused: ``reason``, the numbers known by then, ``message``
``bank.json``           pixel scale, effective PSF, settings, counts by reason, SHA-256 of ``images.npy``
======================  ======================================================================================

A template carries shape only. Its flux is set by the injection; unit sum includes what a taper or crop removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhs_gen.source_banks.measure import half_light_radius_px
from dhs_gen.source_banks.writer import (
    BANK_FILE,
    FORMAT_VERSION,
    IMAGES_FILE,
    META_FILE,
    BankError,
    BankWriter,
    Column,
    parquet,
    sha256,
    write_bank,
)

__all__ = [
    "MAX_PIXSCALE_ARCSEC",
    "BankError",
    "BankWriter",
    "Column",
    "SourceBank",
    "choose_template",
    "open_bank",
    "write_bank",
]

MAX_PIXSCALE_ARCSEC = 0.1
"""Coarsest template pixel, arcsec: a template already at the survey's 0.262″ turns blocky once magnified."""

UNIT_SUM_TOLERANCE = 1e-3
PIXSCALE_TOLERANCE = 0.01
HLR_RATIO_RANGE = (0.8, 1.25)
"""Allowed range of the median of stored over measured half-light radius; outside it the pixel scale is wrong."""

_CHECKED_TEMPLATES = 64
_META_COLUMNS = ("template_id", "hlr_arcsec", "psf_fwhm_arcsec")
_CHUNK_TEMPLATES = 256


@dataclass(frozen=True, eq=False)
class SourceBank:
    """An open bank. Pickles as its path alone; the other side opens the memory map again, with the quick checks.

    Attributes
    ----------
    images
        (N, S, S) float32 read-only memory map, flux per pixel, unit sum each, flux centroid at pixel S // 2
        (a bank imported from HDF5 keeps its own centring, see its ``centroid_offset_px`` column).
    template_id
        N names, unique, in the order of the images.
    hlr_arcsec
        (N,) float64, circular-aperture half-light radius measured on the template, effective PSF included.
    pixscale_arcsec, effective_psf_fwhm_arcsec
        Pixel scale; FWHM of the PSF that is still in the templates, typical where it differs between them.
    path, digest
        The folder; SHA-256 of ``images.npy``.
    psf_fwhm_arcsec
        (N,) float64 FWHM of the PSF in each template (column of ``meta.parquet``), None where one number holds for all.
    """

    images: NDArray[np.float32]
    template_id: tuple[str, ...]
    hlr_arcsec: NDArray[np.float64]
    pixscale_arcsec: float
    effective_psf_fwhm_arcsec: float
    path: Path
    digest: str
    psf_fwhm_arcsec: NDArray[np.float64] | None = None

    def template_psf_fwhm_arcsec(self, index: int) -> float:
        """FWHM of the PSF that is still in this template."""
        if self.psf_fwhm_arcsec is None:
            return self.effective_psf_fwhm_arcsec
        return float(self.psf_fwhm_arcsec[index])

    def __len__(self) -> int:
        return len(self.template_id)

    def __reduce__(self) -> tuple[Callable[..., SourceBank], tuple[str]]:
        return _reopen, (str(self.path.absolute()),)  # a worker may run in another folder


def choose_template(u: float, n: int) -> int:
    """Index floor(u · n) of one of ``n`` templates, for ``u`` in [0, 1) from a keyed stream.

    Raises
    ------
    ValueError
        If ``u`` is outside [0, 1) or ``n`` is not a positive whole number.
    """
    if isinstance(n, bool) or int(n) != n or n < 1:
        raise ValueError(f"n must be a positive whole number of templates, got {n!r}")
    if not 0.0 <= u < 1.0:
        raise ValueError(f"u must lie in [0, 1), got {u!r}")
    return min(int(u * n), int(n) - 1)  # u * n may round up to n when u is the last double below 1


# ------------------------------------------------------------------------------------------------- opening


def open_bank(
    path: str | os.PathLike[str], *, expected_pixscale_arcsec: float | None = None, full_check: bool = True
) -> SourceBank:
    """Open and check a bank folder.

    Parameters
    ----------
    path
        Folder that holds ``images.npy``, ``meta.parquet`` and ``bank.json``.
    expected_pixscale_arcsec
        If given, the pixel scale the caller was configured for; more than 1 % apart is an error.
    full_check
        Read every template (finite, unit sum) and compare the digest: about a second per gigabyte, for the driver.
        False reads 64 evenly spaced templates, for a worker that opens a bank its driver has checked.
        Either way the half-light radii of up to 64 templates are measured against the stored ones.

    Raises
    ------
    BankError
        A file is missing or unreadable; images are not (N, S, S) float32; a template is not finite or not of
        unit sum (1e-3); the pixel scale is not positive, coarser than 0.1″, not the expected one, or contradicted
        by the half-light radii; rows and images differ in number; the digest differs.
    """
    folder = Path(path)
    info = _read_info(folder)
    pixscale_arcsec = checked_pixscale(
        info.get("pixscale_arcsec"), expected_pixscale_arcsec, where=f"pixscale_arcsec in {folder / BANK_FILE}"
    )
    images = _map_images(folder)
    template_id, hlr_arcsec, psf_fwhm_arcsec = _read_meta(folder, len(images))
    subset = checked_subset(len(images))
    _check_pixels(images, folder, every=range(len(images)) if full_check else subset)
    measured_arcsec = np.array([half_light_radius_px(images[i]) for i in subset]) * pixscale_arcsec
    check_radii(
        hlr_arcsec[subset],
        measured_arcsec,
        pixscale_arcsec,
        where=str(folder / META_FILE),
        attribute=f"pixscale_arcsec in {BANK_FILE}",
    )
    digest = str(info.get("images_sha256", ""))
    if full_check and digest != (found := sha256(folder / IMAGES_FILE)):
        raise BankError(
            f"{folder / IMAGES_FILE} has SHA-256 {found[:12]}… but {BANK_FILE} says {digest[:12]}…: "
            "the images were changed after the build; build the bank again"
        )
    return SourceBank(
        images=images,
        template_id=template_id,
        hlr_arcsec=hlr_arcsec,
        pixscale_arcsec=pixscale_arcsec,
        effective_psf_fwhm_arcsec=_read_psf_fwhm(info, folder),
        path=folder,
        digest=digest,
        psf_fwhm_arcsec=psf_fwhm_arcsec,
    )


def _reopen(path: str) -> SourceBank:
    return open_bank(path, full_check=False)


def _read_info(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise BankError(f"no bank folder at {folder}: build one, or correct the configured path")
    for name in (BANK_FILE, IMAGES_FILE, META_FILE):
        if not (folder / name).is_file():
            raise BankError(f"{folder} has no {name}: the bank is incomplete; build it again")
    try:
        info = json.loads((folder / BANK_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise BankError(f"{folder / BANK_FILE} is not valid JSON ({error}): build the bank again") from error
    if not isinstance(info, dict):
        raise BankError(f"{folder / BANK_FILE} holds a {type(info).__name__}, not an object: build the bank again")
    if info.get("format_version") != FORMAT_VERSION:
        raise BankError(
            f"{folder / BANK_FILE} has format_version {info.get('format_version')!r}, this release reads "
            f"{FORMAT_VERSION}: build the bank again"
        )
    return info


def checked_pixscale(value: object, expected_arcsec: float | None, *, where: str) -> float:
    """The pixel scale as a float, or a one-line :class:`BankError` that says what is wrong with it."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise BankError(f"{where} is {value!r}, not a number: state the templates' pixel scale in arcsec")
    scale = float(value)
    if not (np.isfinite(scale) and scale > 0):
        raise BankError(f"{where} is {scale!r}: the pixel scale must be positive, in arcsec per pixel")
    if scale > MAX_PIXSCALE_ARCSEC:
        raise BankError(
            f'{where} is {scale:g}": templates coarser than {MAX_PIXSCALE_ARCSEC:g}" per pixel turn blocky once '
            "magnified; build the bank at the native scale of its images"
        )
    if expected_arcsec is not None and abs(scale / expected_arcsec - 1.0) > PIXSCALE_TOLERANCE:
        raise BankError(
            f'{where} is {scale:g}" but the configuration expects {expected_arcsec:g}": correct the one that is wrong'
        )
    return scale


def _read_psf_fwhm(info: Mapping[str, Any], folder: Path) -> float:
    value = info.get("effective_psf_fwhm_arcsec")
    if isinstance(value, bool) or not isinstance(value, int | float) or not (np.isfinite(value) and value >= 0):
        raise BankError(
            f"effective_psf_fwhm_arcsec in {folder / BANK_FILE} is {value!r}: state the FWHM of the PSF left in "
            "the templates, in arcsec, 0 for none"
        )
    return float(value)


def _map_images(folder: Path) -> NDArray[np.float32]:
    try:
        images = np.load(folder / IMAGES_FILE, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        line = " ".join(str(error).split())
        raise BankError(f"{folder / IMAGES_FILE} cannot be mapped ({line}): build the bank again") from error
    if images.dtype != np.dtype("<f4"):
        raise BankError(f"{folder / IMAGES_FILE} holds {images.dtype}, not float32: build the bank again")
    if images.ndim != 3 or images.shape[1] != images.shape[2] or 0 in images.shape:
        raise BankError(
            f"{folder / IMAGES_FILE} has shape {images.shape}, not (N, S, S) with N and S above 0: build the bank again"
        )
    return images


def _read_meta(folder: Path, n_images: int) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64] | None]:
    """Names, half-light radii, and the PSF of each template where the bank has a column for it."""
    pq = parquet()
    file = folder / META_FILE
    try:
        present = set(pq.read_schema(file).names)
        table = pq.read_table(file, columns=[name for name in _META_COLUMNS if name in present])
    except (ValueError, OSError, KeyError) as error:
        line = " ".join(str(error).split())
        raise BankError(f"{file} cannot be read ({line}): build the bank again") from error
    if not {"template_id", "hlr_arcsec"} <= present:
        raise BankError(f"{file} lacks template_id or hlr_arcsec: build the bank again")
    if table.num_rows != n_images:
        raise BankError(f"{file} has {table.num_rows} rows for {n_images} images: build the bank again")
    template_id = tuple(str(name) for name in table["template_id"].to_pylist())
    if len(set(template_id)) != len(template_id):
        raise BankError(
            f"{file} names the same template_id twice: build the bank again from a catalogue without duplicates"
        )
    hlr = np.asarray(table["hlr_arcsec"].to_numpy(), dtype=np.float64)
    if not (np.isfinite(hlr) & (hlr > 0)).all():
        raise BankError(f"hlr_arcsec in {file} has values that are not positive: build the bank again")
    if "psf_fwhm_arcsec" not in present:
        return template_id, hlr, None
    psf_fwhm = np.asarray(table["psf_fwhm_arcsec"].to_numpy(), dtype=np.float64)
    if not (np.isfinite(psf_fwhm) & (psf_fwhm >= 0)).all():
        raise BankError(f"psf_fwhm_arcsec in {file} has values that are negative or missing: build the bank again")
    return template_id, hlr, psf_fwhm


def checked_subset(n_templates: int) -> NDArray[np.intp]:
    """Up to 64 evenly spaced indices, the same for the same ``n_templates``."""
    return np.unique(np.linspace(0, n_templates - 1, min(n_templates, _CHECKED_TEMPLATES)).astype(np.intp))


def _check_pixels(images: NDArray[np.float32], folder: Path, *, every: Sequence[int] | NDArray[np.intp]) -> None:
    for start in range(0, len(every), _CHUNK_TEMPLATES):
        index = np.asarray(every[start : start + _CHUNK_TEMPLATES])
        sums = images[index].sum(axis=(1, 2), dtype=np.float64)
        for problem, bad in (
            ("is not finite", ~np.isfinite(sums)),
            ("does not have unit sum", ~(np.abs(sums - 1.0) <= UNIT_SUM_TOLERANCE)),
        ):
            if bad.any():
                first = int(np.argmax(bad))
                raise BankError(
                    f"template {index[first]} of {folder / IMAGES_FILE} {problem} (sum {sums[first]:.6g}): "
                    "build the bank again"
                )


def check_radii(
    stored_arcsec: NDArray[np.float64],
    measured_arcsec: NDArray[np.float64],
    pixscale_arcsec: float,
    *,
    where: str,
    attribute: str,
) -> None:
    """Raise :class:`BankError` if stored radii contradict those measured on the pixels times the pixel scale."""
    ratio = float(np.median(stored_arcsec / measured_arcsec))
    low, high = HLR_RATIO_RANGE
    if not low <= ratio <= high:
        raise BankError(
            f"hlr_arcsec in {where} is {ratio:.2f} times the half-light radius measured on the pixels at "
            f'{pixscale_arcsec:g}"/px (median of {len(stored_arcsec)}, allowed {low:g} to {high:g}): {attribute} is '
            f'wrong, the radii fit {pixscale_arcsec * ratio:.3g}"/px; correct the attribute'
        )
