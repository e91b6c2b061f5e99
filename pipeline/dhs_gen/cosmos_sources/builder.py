"""Build a source bank from a GalSim ``RealGalaxyCatalog`` folder (HST COSMOS, ACS F814W).

Each galaxy is deconvolved from its own HST PSF, reconvolved with a small round Gaussian (so that all templates share
one known PSF), drawn at the native pixel scale, and cut out as :func:`~.templates.make_template` says. Every
catalogue row ends either in ``meta.parquet`` or, with one named reason, in ``rejects.parquet``.

The F814W image serves all bands: a template has one achromatic morphology.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from dhs_gen.cosmos_sources.noise_levels import summarise_noise
from dhs_gen.cosmos_sources.templates import BankSettings, make_template
from dhs_gen.source_banks.bank import BankError, BankWriter, Column
from dhs_gen.source_banks.isolate import Draw
from dhs_gen.source_banks.rejects import BankSummary, Rejected, TemplateReject

__all__ = ["BankSummary", "build_cosmos_bank", "find_catalogue_file"]

CATALOGUE_STEM = "real_galaxy_catalog"
KIND = "hst_cosmos_f814w"
_NOISE_GRID_PX = 61
_REQUIRED = ("IDENT", "MAG", "GAL_FILENAME", "PSF_FILENAME", "PIXEL_SCALE", "NOISE_FILENAME")

COLUMNS = (
    Column("template_id", "string", "", "IDENT of the catalogue"),
    Column("catalogue_row", "int64", "", "row of the catalogue, from 0"),
    Column("catalogue_mag", "float64", "mag(AB)", "MAG of the catalogue, F814W"),
    Column("catalogue_flux", "float64", "electron/s", "flux of that magnitude at the zero point"),
    Column("flux_ratio", "float64", "", "template sum before normalisation over catalogue_flux"),
    Column("snr_peak", "float64", "", "brightest pixel of the segment over sky_rms"),
    Column("snr_integrated", "float64", "", "catalogue_flux over the correlated noise of the segment"),
    Column("sky_rms", "float64", "electron/s/pixel", "rms of the sky at the target PSF"),
    Column("native_sky_rms", "float64", "electron/s/pixel", "rms of the sky of the stamp as observed"),
    Column("weight_area_px", "float64", "pixel", "sum of the squared weights of the taper and the neighbours' masks"),
    Column("noise_flux_fraction", "float64", "", "rms of the correlated noise under the weights over the template sum"),
    Column("noise_power_fraction", "float64", "", "part of the template's squared pixels that is noise"),
    Column("negative_flux_fraction", "float64", "", "flux of the negative pixels over the template sum"),
    Column("hlr_arcsec", "float64", "arcsec", "circular-aperture half-light radius of the template"),
    Column("catalogue_hlr_arcsec", "float64", "arcsec", "flux_radius of the catalogue, HST PSF included"),
    Column("hlr_ratio", "float64", "", "hlr_arcsec over catalogue_hlr_arcsec"),
    Column("seg_area_px", "int64", "pixel", "area of the central segment"),
    Column("n_neighbours", "int64", "", "other segments in the stamp, masked"),
    Column("masked_flux_fraction", "float64", "", "flux of the segment under the neighbours' masks"),
    Column("zphot", "float64", "", "photometric redshift of the catalogue"),
    Column("centroid_residual_px", "float64", "pixel", "flux centroid from the central pixel"),
    Column("shift_x_px", "float64", "pixel", "shift that centred the galaxy, x"),
    Column("shift_y_px", "float64", "pixel", "shift that centred the galaxy, y"),
    Column("stamp_side_px", "int64", "pixel", "shorter side of the galaxy's stamp"),
)


@dataclass(frozen=True)
class _Catalogue:
    """The columns used, one entry per galaxy; NaN where a number is not known."""

    file: Path
    ident: list[str]
    mag: NDArray[np.float64]
    pixscale_arcsec: NDArray[np.float64]
    noise_file: list[str]
    hlr_arcsec: NDArray[np.float64]
    zphot: NDArray[np.float64]


def build_cosmos_bank(
    catalog_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    settings: BankSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> BankSummary:
    """Build a bank folder from a catalogue folder.

    Parameters
    ----------
    catalog_dir
        Folder with the catalogue table (``real_galaxy_catalog*.fits``), its ``*_fits.fits`` companion if there is one
        (radius and photometric redshift), and the galaxy, PSF and noise files the table names.
    out_dir
        Folder to write; see :mod:`~.bank` for its files. Same input and settings, same bytes.
    settings
        See :class:`~.templates.BankSettings`.
    progress
        Called with (done, total) after each galaxy.

    Returns
    -------
    BankSummary

    Raises
    ------
    BankError
        The folder is not usable (no table, several tables, no PSF images, other pixel scale), or no galaxy passed.
    """
    galsim = _galsim()
    catalogue = _read_catalogue(Path(catalog_dir), settings)
    real = galsim.RealGalaxyCatalog(catalogue.file.name, dir=str(catalogue.file.parent))
    target_psf = galsim.Gaussian(fwhm=settings.target_psf_fwhm_arcsec)
    correlation = _noise_correlations(real, catalogue, settings)
    total = len(catalogue.ident)
    accepted: list[dict[str, Any]] = []
    with BankWriter(out_dir, COLUMNS) as writer:
        for row in range(total):
            numbers = _catalogue_numbers(catalogue, row, settings)
            try:
                pixels = _one_template(
                    real, row, target_psf, catalogue, correlation[catalogue.noise_file[row]], settings, numbers
                )
            except Rejected as rejected:
                writer.reject({**numbers, "reason": str(rejected.reason), "message": rejected.message})
            else:
                writer.accept(pixels, numbers)
                accepted.append(numbers)
            if progress is not None:
                progress(row + 1, total)
        digest = writer.finish(
            {
                "kind": KIND,
                "catalogue_file": catalogue.file.name,
                "n_candidates": total,
                "settings": asdict(settings),
                "galsim_version": galsim.__version__,
                "pixscale_arcsec": settings.pixscale_arcsec,
                "effective_psf_fwhm_arcsec": settings.target_psf_fwhm_arcsec,
                "noise": {
                    "treatment": "left in, not whitened",
                    "native_correlation_px": correlation,
                    "templates": summarise_noise(accepted) if accepted else {},
                },
            }
        )
        return BankSummary(Path(out_dir), total, writer.n_accepted, writer.counts_by_reason(), digest)


def _one_template(
    real: Any,
    row: int,
    target_psf: Any,
    catalogue: _Catalogue,
    noise_correlation_pixels: float,
    settings: BankSettings,
    numbers: dict[str, Any],
) -> NDArray[np.float64]:
    galsim = _galsim()
    if not np.isfinite(catalogue.mag[row]):
        raise Rejected(TemplateReject.BAD_CATALOGUE_ROW, f"catalogue magnitude is {catalogue.mag[row]}")
    native = np.asarray(real.getGalImage(row).array, dtype=np.float64)
    numbers["stamp_side_px"] = min(native.shape)
    if not np.isfinite(native).all():
        raise Rejected(TemplateReject.NOT_FINITE, "the galaxy's stamp has pixels that are not finite")
    reconvolved = galsim.Convolve(galsim.RealGalaxy(real, index=row), target_psf)
    hlr = catalogue.hlr_arcsec[row]
    return make_template(
        _drawer(reconvolved, native.shape, settings.pixscale_arcsec),
        native,
        catalogue_flux=numbers["catalogue_flux"],
        catalogue_hlr_arcsec=float(hlr) if np.isfinite(hlr) and hlr > 0 else None,
        noise_correlation_pixels=noise_correlation_pixels,
        settings=settings,
        numbers=numbers,
    )


def _drawer(reconvolved: Any, native_shape: tuple[int, ...], pixscale_arcsec: float) -> Draw:
    """Draw at the native scale on the largest odd grid inside the stamp.

    ``no_pixel``: the PSF images of the catalogue include the pixel response, so the deconvolution removes it and the
    target Gaussian is all the smoothing that is left.
    """
    height, width = (side - 1 + side % 2 for side in native_shape)

    def draw(dx_px: float, dy_px: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        image = reconvolved.drawImage(
            nx=width, ny=height, scale=pixscale_arcsec, method="no_pixel", offset=(dx_px, dy_px), dtype=float
        )
        on_y = np.abs(np.arange(height) - height // 2 - dy_px) <= height // 2
        on_x = np.abs(np.arange(width) - width // 2 - dx_px) <= width // 2
        return np.array(image.array), on_y[:, None] & on_x[None, :]

    return draw


# --------------------------------------------------------------------------------------------- catalogue


def find_catalogue_file(catalog_dir: str | os.PathLike[str]) -> Path:
    """The one catalogue table of a folder: ``real_galaxy_catalog.fits`` or the only ``real_galaxy_catalog_*.fits``.

    ``*_fits.fits`` (fits to the galaxies) and ``*_selection*`` are companions, not tables.

    Raises
    ------
    BankError
        The folder, or a single table in it, does not exist.
    """
    folder = Path(catalog_dir)
    if not folder.is_dir():
        raise BankError(f"no catalogue folder at {folder}: download one (galsim_download_cosmos) or correct the path")
    plain = folder / f"{CATALOGUE_STEM}.fits"
    if plain.is_file():
        return plain
    tables = [
        file
        for file in sorted(folder.glob(f"{CATALOGUE_STEM}_*.fits"))
        if not file.stem.endswith("_fits") and "_selection" not in file.stem
    ]
    if len(tables) != 1:
        names = ", ".join(file.name for file in tables) or "none"
        raise BankError(f"{folder} must hold one {CATALOGUE_STEM}*.fits table, found {names}: keep one per folder")
    return tables[0]


def _read_catalogue(folder: Path, settings: BankSettings) -> _Catalogue:
    file = find_catalogue_file(folder)
    table = _table(file)
    missing = [name for name in _REQUIRED if name not in table]
    if missing:
        raise BankError(f"{file} lacks the columns {missing}: it is not a RealGalaxyCatalog table")
    ident = [str(name).strip() for name in table["IDENT"]]
    if len(set(ident)) != len(ident):
        raise BankError(f"{file} has the same IDENT twice: template ids must be unique")
    for name in ("GAL_FILENAME", "PSF_FILENAME", "NOISE_FILENAME"):
        _require_files(file, name, table[name])
    pixscale = np.asarray(table["PIXEL_SCALE"], dtype=np.float64)
    wrong = ~(np.abs(pixscale / settings.pixscale_arcsec - 1.0) <= 0.01)
    if wrong.any():
        raise BankError(
            f'{file} has PIXEL_SCALE {pixscale[wrong][0]:g}" for {ident[int(np.argmax(wrong))]} but the settings say '
            f'{settings.pixscale_arcsec:g}": set pixscale_arcsec to the native scale'
        )
    hlr_arcsec, zphot = _companion_numbers(file, ident, settings.pixscale_arcsec)
    return _Catalogue(
        file=file,
        ident=ident,
        mag=np.asarray(table["MAG"], dtype=np.float64),
        pixscale_arcsec=pixscale,
        noise_file=[str(name).strip() for name in table["NOISE_FILENAME"]],
        hlr_arcsec=hlr_arcsec,
        zphot=zphot,
    )


def _require_files(catalogue_file: Path, column: str, names: NDArray[Any]) -> None:
    for name in sorted({str(name).strip() for name in names}):
        if not (catalogue_file.parent / name).is_file():
            purpose = {
                "PSF_FILENAME": "without the PSF images the HST PSF cannot be removed",
                "NOISE_FILENAME": "without the noise correlation the S/N of a galaxy is not known",
            }.get(column, "without the galaxy images there is nothing to build from")
            raise BankError(
                f"{catalogue_file.parent} has no {name} ({column} of {catalogue_file.name}): {purpose}; "
                "add the file or use another catalogue"
            )


def _companion_numbers(
    file: Path, ident: list[str], pixscale_arcsec: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(radius in arcsec, photometric redshift) from the ``*_fits.fits`` table, matched by IDENT; NaN if not there."""
    unknown = np.full(len(ident), np.nan)
    companion = file.with_name(f"{file.stem}_fits.fits")
    if not companion.is_file():
        return unknown, unknown.copy()
    table = _table(companion)
    if "IDENT" not in table:
        raise BankError(f"{companion} has no IDENT column: its rows cannot be matched to {file.name}")
    row_of = {str(name).strip(): row for row, name in enumerate(table["IDENT"])}
    rows = np.array([row_of.get(name, -1) for name in ident])

    def matched(name: str, factor: float) -> NDArray[np.float64]:
        if name not in table:
            return unknown.copy()
        values = np.append(np.asarray(table[name], dtype=np.float64), np.nan)  # row -1 is the NaN
        return values[rows] * factor

    return matched("FLUX_RADIUS", pixscale_arcsec), matched("ZPHOT", 1.0)


def _table(file: Path) -> dict[str, NDArray[Any]]:
    """Columns of the first table of a FITS file, by upper-case name."""
    try:
        with fits.open(file) as hdus:
            data = hdus[1].data
            return {name.upper(): np.array(data[name]) for name in data.names}
    except (OSError, IndexError, AttributeError, TypeError) as error:
        line = " ".join(str(error).split())
        raise BankError(f"{file} has no FITS table in HDU 1 ({line}): download the catalogue again") from error


def _catalogue_numbers(catalogue: _Catalogue, row: int, settings: BankSettings) -> dict[str, Any]:
    def known(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    mag = known(catalogue.mag[row])
    return {
        "template_id": catalogue.ident[row],
        "catalogue_row": row,
        "catalogue_mag": mag,
        "catalogue_flux": None if mag is None else float(10.0 ** (-0.4 * (mag - settings.zero_point_mag))),
        "catalogue_hlr_arcsec": known(catalogue.hlr_arcsec[row]),
        "zphot": known(catalogue.zphot[row]),
    }


def _noise_correlations(real: Any, catalogue: _Catalogue, settings: BankSettings) -> dict[str, float]:
    """Sum of each noise correlation function over its value at zero lag, in native pixels, by file name."""
    galsim = _galsim()
    out: dict[str, float] = {}
    for row, name in enumerate(catalogue.noise_file):
        if name in out:
            continue
        image = galsim.Image(_NOISE_GRID_PX, _NOISE_GRID_PX, scale=settings.pixscale_arcsec, dtype=float)
        real.getNoise(row).drawImage(image)
        values = np.asarray(image.array)
        ratio = float(values.sum() / values[_NOISE_GRID_PX // 2, _NOISE_GRID_PX // 2])
        if not (np.isfinite(ratio) and ratio > 0):
            raise BankError(f"noise correlation {name} sums to {ratio:g} times its peak: it is not a correlation")
        out[name] = ratio
    return out


def _galsim() -> Any:
    try:
        import galsim
    except ImportError as error:
        raise ImportError("building a source bank needs galsim: pip install dark-halo-scope[banks]") from error
    return galsim
