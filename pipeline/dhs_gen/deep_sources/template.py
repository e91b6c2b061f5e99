"""From one deep cutout to a fine template: redraw below the native pixel, deconvolve if asked, isolate, judge."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dhs_gen.deep_sources.cutout import Cutout
from dhs_gen.deep_sources.psf import INTERPOLANT, CutoutPsf, deconvolver, galsim_module, half_light_radius_arcsec
from dhs_gen.deep_sources.settings import DeepSettings
from dhs_gen.source_banks.bank import MAX_PIXSCALE_ARCSEC
from dhs_gen.source_banks.isolate import (
    Detection,
    Draw,
    FloatImage,
    centred_pixels,
    detect,
    distance_inside,
    rising,
    split_central,
)
from dhs_gen.source_banks.measure import half_light_radius_px, robust_sky
from dhs_gen.source_banks.rejects import Rejected, TemplateReject

__all__ = ["fine_pixscale", "make_deep_template"]


def fine_pixscale(pixscale_arcsec: float) -> float:
    """The native scale divided by the smallest whole number that makes it fine enough to be lensed (≤ 0.1″)."""
    return pixscale_arcsec / max(1, math.ceil(pixscale_arcsec / MAX_PIXSCALE_ARCSEC - 1e-9))


def make_deep_template(
    cutout: Cutout,
    fine_pixscale_arcsec: float,
    target_psf_fwhm_arcsec: float | None,
    settings: DeepSettings,
    numbers: dict[str, Any],
) -> FloatImage:
    """One fine template from one cutout.

    Parameters
    ----------
    cutout
        See :class:`~.cutout.Cutout`.
    fine_pixscale_arcsec
        Pixel scale of the template, arcsec.
    target_psf_fwhm_arcsec
        FWHM of the Gaussian that replaces the cutout's PSF; None leaves the PSF as it is.
    settings
        See :class:`~.settings.DeepSettings`.
    numbers
        Filled with what is known about the cutout, also when it is rejected.

    Returns
    -------
    ndarray
        (F, F) float64, the file's flux per **fine** pixel, sky-subtracted, neighbours masked, tapered to zero,
        negatives kept, flux centroid at pixel F // 2, not normalised.

    Raises
    ------
    Rejected
        With a named reason.

    Notes
    -----
    Integrated signal-to-noise: F / (σ √(c A)), with F the flux above the isophote of the seeing-limited cutout, σ the
    native sky rms, A the area of the isophote in native pixels, c the noise correlation of the settings.
    Deconvolution leaves the noise power at zero frequency alone, so this one does not change with it.
    Peak signal-to-noise: brightest fine pixel over the rms of the sky, both after deconvolution: the amplified noise
    counts.
    """
    galsim = galsim_module()
    sky, _ = robust_sky(cutout.image[~cutout.bad])
    native = np.where(cutout.bad, 0.0, cutout.image - sky)
    usable = ~ndimage.binary_dilation(cutout.bad, np.ones((3, 3)))
    seeing_limited = _interpolated(galsim, native, cutout.pixscale_arcsec)
    draw = _drawer(seeing_limited, usable, cutout.pixscale_arcsec, fine_pixscale_arcsec)
    found = detect(*draw(0.0, 0.0), settings.isolation)
    central, _ = split_central(found, settings.isolation)
    _require_good_pixels(found, central, settings.isolation.grow_px)
    numbers.update(_native_signal(found, central, native, cutout, fine_pixscale_arcsec, settings))
    numbers["noise_amplification"] = 1.0
    psf = cutout.psf
    if target_psf_fwhm_arcsec is not None:
        left_sky = found.sky * (cutout.pixscale_arcsec / fine_pixscale_arcsec) ** 2
        draw, psf = _deconvolved(
            cutout,
            np.where(cutout.bad, 0.0, native - left_sky),
            usable,
            fine_pixscale_arcsec,
            target_psf_fwhm_arcsec,
            settings,
        )
        plain_rms = found.sky_rms
        found = detect(*draw(0.0, 0.0), settings.isolation)
        central, _ = split_central(found, settings.isolation)
        numbers["noise_amplification"] = found.sky_rms / plain_rms
    numbers["snr_peak"] = float(found.stamp[central].max()) / found.sky_rms
    numbers["psf_fwhm_arcsec"] = None if psf is None else psf.fwhm_arcsec
    _require_signal(numbers, settings)
    pixels = centred_pixels(draw, settings.isolation, numbers)
    _require_size(pixels, psf, fine_pixscale_arcsec, settings, numbers)
    return pixels


# ---------------------------------------------------------------------------------------------------- redraw


def _interpolated(galsim: Any, native: FloatImage, pixscale_arcsec: float) -> Any:
    image = galsim.Image(np.ascontiguousarray(native), scale=pixscale_arcsec)
    # GalSim would derive the sampling from the stamp's total flux, which noise and sky subtraction may make anything.
    return galsim.InterpolatedImage(image, x_interpolant=INTERPOLANT, calculate_stepk=False, calculate_maxk=False)


def _drawer(profile: Any, usable: NDArray[np.bool_], pixscale_arcsec: float, fine_pixscale_arcsec: float) -> Draw:
    """Draw on the largest grid of odd sides inside the cutout; ``no_pixel``, because the profile is pixel-convolved."""
    ratio = fine_pixscale_arcsec / pixscale_arcsec
    height, width = (int((length - 1) / ratio + 1e-9) // 2 * 2 + 1 for length in usable.shape)

    def draw(dx_px: float, dy_px: float) -> tuple[FloatImage, NDArray[np.bool_]]:
        image = profile.drawImage(
            nx=width, ny=height, scale=fine_pixscale_arcsec, method="no_pixel", offset=(dx_px, dy_px), dtype=float
        )
        y, y_inside = _native_index(height, dy_px, ratio, usable.shape[0])
        x, x_inside = _native_index(width, dx_px, ratio, usable.shape[1])
        return np.array(image.array), usable[np.ix_(y, x)] & y_inside[:, None] & x_inside[None, :]

    return draw


def _native_index(
    n_fine: int, shift_px: float, ratio: float, n_native: int
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The native pixel that each fine pixel falls in, and whether it lies between the first and the last of them."""
    position = (np.arange(n_fine) - n_fine // 2 - shift_px) * ratio + (n_native - 1) / 2
    inside = (position >= -1e-6) & (position <= n_native - 1 + 1e-6)
    return np.clip(np.rint(position), 0, n_native - 1).astype(np.intp), inside


def _deconvolved(
    cutout: Cutout,
    native: FloatImage,
    usable: NDArray[np.bool_],
    fine_pixscale_arcsec: float,
    target_psf_fwhm_arcsec: float,
    settings: DeepSettings,
) -> tuple[Draw, CutoutPsf]:
    """The same draw at the target PSF. A frame one seeing wide fades to zero: a step there would ring inwards."""
    if cutout.psf is None:
        raise Rejected(TemplateReject.NO_PSF, "no PSF HDU, no _psf file and no FWHM in the header: nothing to remove")
    galsim = galsim_module()
    frame_px = float(math.ceil(cutout.psf.fwhm_arcsec / cutout.pixscale_arcsec))
    from_edge = distance_inside(np.ones(native.shape, dtype=bool))
    operator, left = deconvolver(cutout.psf, target_psf_fwhm_arcsec, settings.deconvolution_floor)
    faded = _interpolated(galsim, native * rising(from_edge, 0.0, frame_px), cutout.pixscale_arcsec)
    profile = galsim.Convolve(faded, operator, propagate_gsparams=False)
    return _drawer(profile, usable & (from_edge > frame_px), cutout.pixscale_arcsec, fine_pixscale_arcsec), left


# ---------------------------------------------------------------------------------------------------- judge


def _require_good_pixels(found: Detection, central: NDArray[np.bool_], grow_px: float) -> None:
    """No pixel without a value in the galaxy; those that run to the stamp's edge count as its edge."""
    holes, _ = ndimage.label(np.pad(~found.on_data, 1, constant_values=True))
    holes = holes[1:-1, 1:-1] * (holes[1:-1, 1:-1] != holes[0, 0])
    n_bad = int(((holes > 0) & (ndimage.distance_transform_edt(~central) <= grow_px)).sum())
    if n_bad:
        raise Rejected(TemplateReject.NOT_FINITE, f"{n_bad} fine pixels of the central object have no finite value")


def _native_signal(
    found: Detection,
    central: NDArray[np.bool_],
    native: FloatImage,
    cutout: Cutout,
    fine_pixscale_arcsec: float,
    settings: DeepSettings,
) -> dict[str, float]:
    ratio = fine_pixscale_arcsec / cutout.pixscale_arcsec
    sky_y, sky_x = (
        np.clip(np.rint((np.arange(n) - (n - 1) / 2) / ratio + m // 2), 0, m - 1).astype(np.intp)
        for n, m in zip(native.shape, found.stamp.shape, strict=True)
    )
    native_sky = native[found.sky_mask[np.ix_(sky_y, sky_x)] & ~cutout.bad]
    sky_rms = robust_sky(native_sky)[1] if native_sky.size else 0.0
    if not sky_rms > 0:
        raise Rejected(TemplateReject.TOO_FEW_SKY_PIXELS, "the native sky pixels have no scatter: no noise to measure")
    area = float(central.sum()) * ratio**2
    flux = float(found.stamp[central].sum())
    return {
        "sky_rms": sky_rms,
        "isophotal_flux": flux,
        "snr_integrated": flux / (sky_rms * math.sqrt(settings.noise_correlation_pixels * area)),
    }


def _require_signal(numbers: dict[str, Any], settings: DeepSettings) -> None:
    if numbers["noise_amplification"] > settings.max_noise_amplification:
        raise Rejected(
            TemplateReject.NOISE_AMPLIFIED,
            f"deconvolution multiplies the noise by {numbers['noise_amplification']:.1f}, at most "
            f"{settings.max_noise_amplification:g} allowed: the target PSF is too sharp for this seeing",
        )
    for name, limit in (("snr_peak", settings.min_peak_snr), ("snr_integrated", settings.min_integrated_snr)):
        if not numbers[name] >= limit:
            raise Rejected(TemplateReject.NOISE_DOMINATED, f"{name} is {numbers[name]:.1f}, at least {limit:g} needed")


def _require_size(
    pixels: FloatImage,
    psf: CutoutPsf | None,
    fine_pixscale_arcsec: float,
    settings: DeepSettings,
    numbers: dict[str, Any],
) -> None:
    hlr_arcsec = half_light_radius_px(pixels) * fine_pixscale_arcsec
    numbers["hlr_arcsec"] = hlr_arcsec
    if hlr_arcsec > settings.max_hlr_arcsec:
        raise Rejected(
            TemplateReject.HLR_OUT_OF_RANGE,
            f"half-light radius is {hlr_arcsec:.3f} arcsec, at most {settings.max_hlr_arcsec:g} allowed",
        )
    if psf is None:
        return
    ratio = hlr_arcsec / half_light_radius_arcsec(psf, fine_pixscale_arcsec, pixels.shape[0])
    numbers["hlr_over_psf"] = ratio
    if not ratio >= settings.min_hlr_over_psf:
        raise Rejected(
            TemplateReject.UNRESOLVED,
            f"half-light radius is {ratio:.2f} of the PSF's, at least {settings.min_hlr_over_psf:g} needed: a star, or "
            "a galaxy whose shape is that of the PSF",
        )
