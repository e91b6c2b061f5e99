"""Reading one deep cutout: pixels from whichever HDU holds them, scale from the WCS, PSF, filter, zero point.

Whatever makes a file unusable is a :class:`~dhs_gen.source_banks.rejects.Rejected` with its reason, never a default
put in its place.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray

from dhs_gen.deep_sources.psf import CutoutPsf, psf_from_fwhm, psf_from_image
from dhs_gen.deep_sources.settings import DeepSettings
from dhs_gen.source_banks.bank import BankError
from dhs_gen.source_banks.rejects import Rejected, TemplateReject
from dhs_gen.streams import blake2b_u64

__all__ = ["Cutout", "CutoutReader", "find_cutouts"]

SUFFIXES = (".fits", ".fits.fz", ".fits.gz", ".fit", ".fits.bz2")
PSF_SUFFIX = "_psf"
PIXSCALE_TOLERANCE = 0.01
FILTER_KEYS = ("FILTER", "FILTER1", "FILTNAM", "FILTERS", "BAND")
ZERO_POINT_KEYS = ("MAGZERO", "MAGZPT", "MAGZP", "ZEROPT", "PHOTZP", "ZP")
FLUX_OF_MAG_ZERO_KEY = "FLUXMAG0"
PSF_FWHM_KEYS = ("PSF_FWHM", "SEEING", "FWHM")
NOT_AN_IMAGE = frozenset(
    {
        "PSF",
        "INVVAR",
        "IVAR",
        "VARIANCE",
        "VAR",
        "WEIGHT",
        "WHT",
        "MASK",
        "MASKBITS",
        "DQ",
        "ERR",
        "ERROR",
        "SIGMA",
        "NEXP",
    }
)
"""EXTNAMEs that are passed over when no HDU is stated."""

_READ_ERRORS = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, fits.VerifyError, zlib.error)


@dataclass(frozen=True, eq=False)
class Cutout:
    """One deep cutout.

    Attributes
    ----------
    name
        Path below the folder of cutouts.
    image
        (H, W) float64, the file's own flux units per pixel, sky not subtracted; 0 where ``bad``.
    bad
        (H, W) pixels without a finite value.
    pixscale_arcsec, pixscale_origin
        Pixel scale, and "wcs" or "stated".
    psf
        Effective PSF, or None if nothing says what it is.
    filter_name, zero_point_mag
        As in the header; "" and None where there is none.
    """

    name: str
    image: NDArray[np.float64]
    bad: NDArray[np.bool_]
    pixscale_arcsec: float
    pixscale_origin: str
    psf: CutoutPsf | None
    filter_name: str
    zero_point_mag: float | None


def find_cutouts(fits_dir: Path, seed: str) -> list[Path]:
    """FITS files of a folder and its subfolders, ``*_psf`` companions left out, in an order keyed by ``seed``.

    The order depends on the names below the folder alone: not on the machine, and a file added or removed leaves the
    others in their order.

    Raises
    ------
    BankError
        If there is no such folder, or no FITS file in it.
    """
    if not fits_dir.is_dir():
        raise BankError(f"no folder of FITS cutouts at {fits_dir}: correct the path")
    names = [
        path.relative_to(fits_dir).as_posix()
        for path in fits_dir.rglob("*")
        if path.name.lower().endswith(SUFFIXES) and not _stem(path).lower().endswith(PSF_SUFFIX)
    ]
    if not names:
        raise BankError(f"{fits_dir} holds no FITS file ({', '.join(SUFFIXES)}): correct the path")
    return [fits_dir / name for name in sorted(names, key=lambda name: (blake2b_u64(name, salt=seed), name))]


@dataclass(frozen=True)
class CutoutReader:
    """Reads the cutouts of one folder, all in the same way.

    Attributes
    ----------
    folder
        Folder of the cutouts.
    stated_pixscale_arcsec
        What the files' WCS must agree with within 1 %; the scale of a file without celestial WCS.
    settings
        Shape of a stated PSF, largest cutout.
    image_hdu
        Number or EXTNAME of the image HDU; None takes the first that holds an image and is no PSF, mask or weight.
    plane
        Which plane of a cube (of the image and of its PSF).
    psf_fwhm_arcsec, zero_point_mag
        For files that do not say it themselves.
    """

    folder: Path
    stated_pixscale_arcsec: float
    settings: DeepSettings
    image_hdu: int | str | None = None
    plane: int | None = None
    psf_fwhm_arcsec: float | None = None
    zero_point_mag: float | None = None

    def read(self, path: Path) -> Cutout:
        """One cutout.

        Raises
        ------
        Rejected
            UNREADABLE, EMPTY, PIXEL_SCALE_DISAGREES or NO_PSF.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy warns of headers it repairs; what it cannot repair is an error
            hdus = _load(path)
            pixels, header = _image(hdus, self.image_hdu, self.plane)
            pixscale_arcsec, origin = _pixscale(header, self.stated_pixscale_arcsec)
            psf = self._psf(path, hdus, header, pixscale_arcsec)
        pixels = _central(pixels, self.settings.max_cutout_side_px)
        bad = ~np.isfinite(pixels)
        good = pixels[~bad]
        if good.size == 0 or good.min() == good.max():
            raise Rejected(TemplateReject.EMPTY, "no finite pixel" if good.size == 0 else f"all pixels are {good[0]:g}")
        return Cutout(
            name=path.relative_to(self.folder).as_posix(),
            image=np.where(bad, 0.0, pixels),
            bad=bad,
            pixscale_arcsec=pixscale_arcsec,
            pixscale_origin=origin,
            psf=psf,
            filter_name=str(_first(header, FILTER_KEYS) or "").strip(),
            zero_point_mag=self._zero_point(header),
        )

    def _psf(self, path: Path, hdus: Sequence[_Hdu], header: fits.Header, pixscale_arcsec: float) -> CutoutPsf | None:
        """From an HDU named PSF, a file ``<stem>_psf``, the header's FWHM, or the stated FWHM, in this order."""
        own = [hdu for hdu in hdus if hdu.name == "PSF" and hdu.pixels is not None]
        if own:
            return self._psf_picture(own[0], pixscale_arcsec, "HDU PSF")
        for suffix in SUFFIXES:
            sibling = path.with_name(f"{_stem(path)}{PSF_SUFFIX}{suffix}")
            if sibling.is_file():
                pictures = [hdu for hdu in _load(sibling) if hdu.pixels is not None]
                if not pictures:
                    raise Rejected(TemplateReject.NO_PSF, f"{sibling.name} holds no image")
                return self._psf_picture(pictures[0], pixscale_arcsec, f"file {PSF_SUFFIX}")
        key = next((key for key in PSF_FWHM_KEYS if key in header), None)
        stated = self.psf_fwhm_arcsec
        if key is None and stated is None:
            return None
        fwhm = float(stated) if key is None and stated is not None else _number(header, str(key), TemplateReject.NO_PSF)
        where = "stated FWHM" if key is None else f"header {key}"
        return psf_from_fwhm(fwhm, self.settings.stated_psf_profile, self.settings.stated_psf_moffat_beta, where)

    def _psf_picture(self, hdu: _Hdu, pixscale_arcsec: float, origin: str) -> CutoutPsf:
        scale = _wcs_scales(hdu.header)
        psf_scale = pixscale_arcsec if scale is None else math.sqrt(scale[0] * scale[1])
        pixels = hdu.pixels
        if pixels is not None and pixels.ndim == 3 and self.plane is not None and self.plane < len(pixels):
            pixels = pixels[self.plane]
        return psf_from_image(np.zeros(0) if pixels is None else pixels, psf_scale, origin)

    def _zero_point(self, header: fits.Header) -> float | None:
        value = _first(header, ZERO_POINT_KEYS)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        flux = header.get(FLUX_OF_MAG_ZERO_KEY)
        if isinstance(flux, int | float) and not isinstance(flux, bool) and math.isfinite(flux) and flux > 0:
            return 2.5 * math.log10(flux)
        return self.zero_point_mag


@dataclass(frozen=True, eq=False)
class _Hdu:
    """What is used of an HDU once the file is closed."""

    name: str
    header: fits.Header
    pixels: NDArray[Any] | None


def _load(path: Path) -> list[_Hdu]:
    """Every HDU with its pixels; compressed images come back as images."""
    try:
        with fits.open(path, memmap=False) as hdus:
            return [_Hdu(str(hdu.name).upper(), hdu.header.copy(), _pixels(hdu)) for hdu in hdus]
    except _READ_ERRORS as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise Rejected(TemplateReject.UNREADABLE, f"not a readable FITS file ({line})") from error


def _pixels(hdu: Any) -> NDArray[Any] | None:
    if not hdu.is_image or hdu.data is None or hdu.data.ndim < 2:
        return None
    return np.squeeze(hdu.data)


def _image(
    hdus: Sequence[_Hdu], image_hdu: int | str | None, plane: int | None
) -> tuple[NDArray[np.float64], fits.Header]:
    if image_hdu is None:
        chosen = [hdu for hdu in hdus if hdu.pixels is not None and hdu.name not in NOT_AN_IMAGE]
    else:
        wanted = image_hdu.upper() if isinstance(image_hdu, str) else image_hdu
        chosen = [hdu for n, hdu in enumerate(hdus) if wanted in (n, hdu.name) and hdu.pixels is not None]
    if not chosen:
        names = [f"{n} {hdu.name or '-'}" for n, hdu in enumerate(hdus)]
        what = "image" if image_hdu is None else f"image HDU {image_hdu!r}"
        raise Rejected(TemplateReject.UNREADABLE, f"no {what} among the HDUs {names}")
    pixels = chosen[0].pixels
    if pixels is not None and pixels.ndim == 3:
        if plane is None or not 0 <= plane < len(pixels):
            raise Rejected(
                TemplateReject.UNREADABLE,
                f"a cube of {len(pixels)} planes and plane {plane!r}: state which plane to use",
            )
        pixels = pixels[plane]
    if pixels is None or pixels.ndim != 2:
        raise Rejected(
            TemplateReject.UNREADABLE, f"the image has {0 if pixels is None else pixels.ndim} dimensions, not 2"
        )
    return np.asarray(pixels, dtype=np.float64), chosen[0].header


def _pixscale(header: fits.Header, stated_arcsec: float) -> tuple[float, str]:
    scales = _wcs_scales(header)
    if scales is None:
        return stated_arcsec, "stated"
    if any(not abs(scale / stated_arcsec - 1.0) <= PIXSCALE_TOLERANCE for scale in scales):
        raise Rejected(
            TemplateReject.PIXEL_SCALE_DISAGREES,
            f'the WCS says {scales[0]:.4f}" by {scales[1]:.4f}" per pixel, stated are {stated_arcsec:g}"',
        )
    return math.sqrt(scales[0] * scales[1]), "wcs"


def _wcs_scales(header: fits.Header) -> tuple[float, float] | None:
    """Pixel scales (arcsec) along the two celestial axes, or None without a celestial WCS."""
    try:
        wcs = WCS(header)
        if not wcs.has_celestial:
            return None
        x, y = proj_plane_pixel_scales(wcs.celestial) * 3600.0
    except _READ_ERRORS as error:
        line = " ".join(str(error).split())
        raise Rejected(TemplateReject.UNREADABLE, f"the WCS cannot be understood ({line})") from error
    return float(x), float(y)


def _central(pixels: NDArray[np.float64], max_side_px: int) -> NDArray[np.float64]:
    """Equal borders cut off, so that the centre stays the centre."""
    cut = [max(0, -(-(length - max_side_px) // 2)) for length in pixels.shape]
    return pixels[cut[0] : pixels.shape[0] - cut[0], cut[1] : pixels.shape[1] - cut[1]]


def _first(header: fits.Header, keys: Sequence[str]) -> Any:
    return next((header[key] for key in keys if key in header), None)


def _number(header: fits.Header, key: str, reason: TemplateReject) -> float:
    value = header[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Rejected(reason, f"header {key} is {value!r}, not a number")
    return float(value)


def _stem(path: Path) -> str:
    name = path.name
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), path.stem)
