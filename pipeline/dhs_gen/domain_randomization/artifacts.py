"""Gen8's public entry: one image in, the same image with survey artifacts out."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dhs_gen.domain_randomization.anisotropy import (
    PSF_MODELS,
    convolve_mirrored,
    differential_kernel,
    draw_ellipticity,
)
from dhs_gen.domain_randomization.background import background_plane
from dhs_gen.domain_randomization.config import ArtifactConfig
from dhs_gen.domain_randomization.cosmic_rays import render_cosmic_ray
from dhs_gen.domain_randomization.draws import (
    draw_background_amplitude,
    draw_direction,
    draw_jitter,
    draw_ray,
    draw_star,
)
from dhs_gen.domain_randomization.jitter import shift_image
from dhs_gen.domain_randomization.saturation import StarPsf, render_saturated, saturation_level_sigma
from dhs_gen.domain_randomization.scale import mad_sigma
from dhs_gen.streams import stream

_DEFAULT = ArtifactConfig()
_MIN_SIZE_PIX = 8
_TYPICAL_FWHM_PIX = 4.0
"""PSF of a saturated star where the caller gives none: 1.05" at 0.262" per pixel."""


def apply_domain_randomization(
    img: ArrayLike,
    key: str,
    psf_fwhm_pix: float | None = None,
    psf_model: str = "moffat",
    moffat_beta: float = 3.5,
    cfg: ArtifactConfig = _DEFAULT,
    salt: str = "",
    max_kernel_size: int = 63,
) -> dict[str, object]:
    """Add artifacts to a finished image.

    Order: background plane, PSF anisotropy (if ``psf_fwhm_pix`` is given), cosmic ray, saturated star, jitter. Cosmic
    ray and star move with the jitter but are drawn at their moved places, not resampled: both are too sharp for it.

    The image is **never convolved with its PSF again**. Anisotropy convolves it with the small difference between the
    round PSF and a slightly elliptical one of equal noise-equivalent area, which sums to 1. On noise it acts along the
    two axes in opposite directions and nearly cancels: at e = 0.1 and a FWHM of 3 px or more, white noise gains at most
    0.7 % of standard deviation and 0.06 of neighbour correlation (0.2 % and 0.03 at e = 0.05). Jitter multiplies
    frequencies by phases and changes neither. On the pipeline's stamps ``dhs_gen.inject`` leaves real pixels out of
    the anisotropy altogether: there it acts on the arc.

    Each artifact has a random stream of its own, keyed by ``key`` and ``salt``: switching one off moves no other.

    Parameters
    ----------
    img
        (rows, columns) pixels, at least 8 × 8, finite.
    key, salt
        Name of the random streams. Use a key without the label, so that the two members of a pair match.
    psf_fwhm_pix
        FWHM of the image's PSF in pixels; None leaves the PSF as it is.
    psf_model, moffat_beta
        "moffat" with this slope, or "gaussian", for the anisotropy. A star has Moffat wings in either case.
    cfg
        Strengths.
    max_kernel_size
        The differential kernel is never larger than this, nor than the image.

    Returns
    -------
    dict
        ``img``: (rows, columns) float32; ``meta``: what was drawn, numbers or None.

    Raises
    ------
    ValueError
        Naming the argument and the value found; also if the MAD of the image is 0, so that amplitudes mean nothing.
    """
    image = _checked_image(img)
    _check_arguments(key, salt, psf_fwhm_pix, psf_model, moffat_beta, cfg, max_kernel_size)
    sigma = mad_sigma(image)
    if sigma == 0:
        raise ValueError("img has a median absolute deviation of 0: amplitudes in MAD sigmas mean nothing")
    shape = (image.shape[0], image.shape[1])
    meta: dict[str, object] = {"mad_sigma": sigma}

    phi = draw_direction(key, salt, cfg)
    amplitude = draw_background_amplitude(key, salt, "", cfg)
    meta |= {"bg_phi_rad": phi, "bg_amp_sigma": amplitude}
    if phi is not None and amplitude is not None:
        image = image + amplitude * sigma * background_plane(shape, phi)

    ellipticity = None
    if psf_fwhm_pix is not None and cfg.enable_psf_anisotropy and cfg.psf_e_sigma > 0:
        ellipticity = draw_ellipticity(stream(key, "artifact_psf", salt=salt), cfg.psf_e_sigma)
        size = min(max_kernel_size, *shape)
        kernel = differential_kernel(psf_fwhm_pix, ellipticity, psf_model, moffat_beta, size)
        image = convolve_mirrored(image, kernel)
    meta |= {
        "psf_e1": None if ellipticity is None else ellipticity.e1,
        "psf_e2": None if ellipticity is None else ellipticity.e2,
    }

    jitter = draw_jitter(key, salt, cfg)
    if jitter != (0.0, 0.0):
        image = shift_image(image, *jitter)

    ray = draw_ray(key, salt, shape, cfg)
    if ray is not None:
        image = image + ray.amplitude_sigma * sigma * render_cosmic_ray(ray, shape, jitter)
    meta |= {
        "cosmic_ray": ray is not None,
        "cosmic_kind": None if ray is None else ray.kind,
        "cosmic_amp_sigma": None if ray is None else ray.amplitude_sigma,
        "cosmic_length_pix": None if ray is None else ray.length_pix,
        "cosmic_x_pix": None if ray is None else ray.x_pix + jitter[0],
        "cosmic_y_pix": None if ray is None else ray.y_pix + jitter[1],
    }

    star = draw_star(key, salt, shape, cfg)
    level = None
    if star is not None:
        fwhm_pix = _TYPICAL_FWHM_PIX if psf_fwhm_pix is None else psf_fwhm_pix
        shape_of_psf = (0.0, 0.0) if ellipticity is None else (ellipticity.e, ellipticity.phi_rad)
        psf = StarPsf(fwhm_pix, moffat_beta, *shape_of_psf)
        level = saturation_level_sigma(star, psf)
        layer = render_saturated(star, shape, jitter, psf, level * sigma)
        image = np.where(layer.painted, layer.paint, image + layer.light)
    meta |= {
        "sat_star": star is not None,
        "sat_amp_sigma": None if star is None else star.wing_sigma,
        "sat_level_sigma": level,
        "sat_x_pix": None if star is None else star.x_pix + jitter[0],
        "sat_y_pix": None if star is None else star.y_pix + jitter[1],
        "jitter_dx_pix": jitter[0],
        "jitter_dy_pix": jitter[1],
    }
    if not np.abs(image).max() <= np.finfo(np.float32).max:
        raise ValueError(f"img overflows float32 once artifacts are added; its largest value is {_largest(img)!r}")
    return {"img": image.astype(np.float32), "meta": meta}


def _checked_image(img: ArrayLike) -> NDArray[np.float64]:
    try:
        image = np.asarray(img, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"img must be an array of numbers, got {type(img).__name__}") from error
    if image.ndim != 2 or min(image.shape) < _MIN_SIZE_PIX:
        raise ValueError(f"img must be two-dimensional and at least {_MIN_SIZE_PIX} px a side, got {image.shape}")
    if not np.isfinite(image).all():
        raise ValueError(f"img must be finite, got {int((~np.isfinite(image)).sum())} NaN or infinite pixels")
    return image


def _check_arguments(
    key: object, salt: object, fwhm_pix: float | None, model: str, beta: float, cfg: object, max_size: object
) -> None:
    if not isinstance(key, str) or not key:
        raise ValueError(f"key must be a non-empty string, got {key!r}")
    if not isinstance(salt, str):
        raise ValueError(f"salt must be a string, got {salt!r}")
    if fwhm_pix is not None and not (math.isfinite(fwhm_pix) and 0.5 <= fwhm_pix <= 20):
        raise ValueError(f"psf_fwhm_pix must be between 0.5 and 20 pixels, got {fwhm_pix!r}")
    if model not in PSF_MODELS:
        raise ValueError(f"psf_model must be one of {PSF_MODELS}, got {model!r}")
    if not (math.isfinite(beta) and 1.5 < beta <= 100):
        raise ValueError(f"moffat_beta must be above 1.5 and at most 100, got {beta!r}")
    if not isinstance(cfg, ArtifactConfig):
        raise ValueError(f"cfg must be an ArtifactConfig, got {type(cfg).__name__}")
    if isinstance(max_size, bool) or not isinstance(max_size, int) or max_size < 3:
        raise ValueError(f"max_kernel_size must be an integer of at least 3, got {max_size!r}")


def _largest(img: ArrayLike) -> float:
    return float(np.abs(np.asarray(img, dtype=np.float64)).max())
