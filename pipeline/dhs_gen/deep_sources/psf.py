"""The PSF of a cutout, and what removing it leaves: the effective PSF of a template.

PSFs here are *effective*: the survey's pixel response is part of them, as it is of a PSF measured on the coadd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhs_gen.deep_sources.settings import PSF_PROFILES
from dhs_gen.source_banks.measure import centroid_px, half_light_radius_px
from dhs_gen.source_banks.rejects import Rejected, TemplateReject

__all__ = ["CutoutPsf", "deconvolver", "galsim_module", "half_light_radius_arcsec", "psf_from_fwhm", "psf_from_image"]

_SAMPLES_PER_FWHM = 25
_FWHM_GRID_PX = 129
INTERPOLANT = "lanczos5"
"""Band-limited: between native pixels the image is continued up to its own highest frequency and no further."""


@dataclass(frozen=True, eq=False)
class CutoutPsf:
    """The effective PSF of a cutout.

    Attributes
    ----------
    profile
        GalSim object of unit flux, centred.
    fwhm_arcsec
        Diameter of the circle with the area above half of the maximum.
    origin
        Where it comes from, for the metadata.
    """

    profile: Any
    fwhm_arcsec: float
    origin: str


def psf_from_image(pixels: NDArray[np.floating], pixscale_arcsec: float, origin: str) -> CutoutPsf:
    """A PSF from its picture, flux per pixel of ``pixscale_arcsec``, any normalisation; centred on its centroid.

    Raises
    ------
    Rejected
        NO_PSF if the picture is not 2-D, not finite, or does not sum to a positive number.
    """
    galsim = galsim_module()
    array = np.asarray(pixels, dtype=np.float64)
    if array.ndim != 2 or min(array.shape) < 5:
        raise Rejected(TemplateReject.NO_PSF, f"{origin} has shape {array.shape}, not 2-D of 5 pixels or more")
    if not np.isfinite(array).all() or not array.sum() > 0:
        raise Rejected(TemplateReject.NO_PSF, f"{origin} is not finite or sums to {array.sum():g}")
    x, y = centroid_px(array)
    shift = [-(c - (n - 1) / 2) * pixscale_arcsec for c, n in ((x, array.shape[1]), (y, array.shape[0]))]
    image = galsim.Image(np.ascontiguousarray(array), scale=pixscale_arcsec)
    profile = galsim.InterpolatedImage(image, x_interpolant=INTERPOLANT, flux=1.0).shift(*shift)
    return CutoutPsf(profile, _half_maximum_fwhm(profile, 4 * pixscale_arcsec), origin)


def psf_from_fwhm(fwhm_arcsec: float, profile: str, moffat_beta: float, origin: str) -> CutoutPsf:
    """A round PSF of which only the FWHM (arcsec, pixel response included) is known.

    Raises
    ------
    Rejected
        NO_PSF if the FWHM is not positive and finite.
    ValueError
        If ``profile`` is neither "gaussian" nor "moffat".
    """
    galsim = galsim_module()
    if not (np.isfinite(fwhm_arcsec) and fwhm_arcsec > 0):
        raise Rejected(TemplateReject.NO_PSF, f"{origin} is {fwhm_arcsec!r}, not a positive number of arcsec")
    if profile == "gaussian":
        return CutoutPsf(galsim.Gaussian(fwhm=fwhm_arcsec), fwhm_arcsec, f"{origin}, Gaussian")
    if profile == "moffat":
        moffat = galsim.Moffat(beta=moffat_beta, fwhm=fwhm_arcsec)
        return CutoutPsf(moffat, fwhm_arcsec, f"{origin}, Moffat beta {moffat_beta:g}")
    raise ValueError(f"profile must be one of {PSF_PROFILES}, got {profile!r}")


def deconvolver(psf: CutoutPsf, target_fwhm_arcsec: float, floor: float) -> tuple[Any, CutoutPsf]:
    """The operator that takes a cutout to the target PSF, and the PSF that this really leaves.

    T(k) = G(k) · min(1/P(k), 1/floor), with G the Gaussian of the target FWHM and P the cutout's PSF. Where P has
    fallen below the floor, nothing but noise is left and dividing by P would multiply it; capped, those frequencies
    are attenuated instead, and the PSF left is a little wider than the target.

    Parameters
    ----------
    psf, target_fwhm_arcsec
        The cutout's PSF; FWHM of the round Gaussian that replaces it.
    floor
        Smallest P(k) that is divided by (GalSim's ``kvalue_accuracy`` of the Deconvolution).
    """
    galsim = galsim_module()
    capped = galsim.GSParams(kvalue_accuracy=floor, maximum_fft_size=16384)
    inverse = galsim.Deconvolve(psf.profile, gsparams=capped, propagate_gsparams=False)
    operator = galsim.Convolve(inverse, galsim.Gaussian(fwhm=target_fwhm_arcsec), propagate_gsparams=False)
    left = galsim.Convolve(psf.profile, operator, propagate_gsparams=False)
    return operator, CutoutPsf(left, _half_maximum_fwhm(left, target_fwhm_arcsec), "what the deconvolution leaves")


def half_light_radius_arcsec(psf: CutoutPsf, pixscale_arcsec: float, side_px: int) -> float:
    """Half-light radius of the PSF as a template of this scale and side measures it."""
    return half_light_radius_px(_drawn(psf.profile, pixscale_arcsec, side_px)) * pixscale_arcsec


def galsim_module() -> Any:
    """GalSim, or an ImportError that says how to get it."""
    try:
        import galsim
    except ImportError as error:
        raise ImportError("building a source bank needs galsim: pip install dark-halo-scope[banks]") from error
    return galsim


def _half_maximum_fwhm(profile: Any, guess_arcsec: float) -> float:
    scale = guess_arcsec / _SAMPLES_PER_FWHM
    pixels = _drawn(profile, scale, _FWHM_GRID_PX)
    return float(2.0 * np.sqrt((pixels > 0.5 * pixels.max()).sum() / np.pi) * scale)


def _drawn(profile: Any, scale_arcsec: float, side_px: int) -> NDArray[np.float64]:
    image = profile.drawImage(nx=side_px, ny=side_px, scale=scale_arcsec, method="no_pixel", dtype=float)
    return np.asarray(image.array, dtype=np.float64)
