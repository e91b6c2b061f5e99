"""From a stamp of one COSMOS galaxy to a template: signal-to-noise and agreement with the catalogue.

Cutting the galaxy out of its stamp is :mod:`dhs_gen.source_banks.isolate`. All functions take images in flux per
pixel (e⁻/s for HST COSMOS), index order ``[y, x]``. Nothing here knows about files or GalSim.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhs_gen.cosmos_sources.noise_levels import noise_levels
from dhs_gen.source_banks.bank import BankError
from dhs_gen.source_banks.isolate import (
    Detection,
    Draw,
    FloatImage,
    Isolation,
    centred_pixels,
    detect,
    split_central,
)
from dhs_gen.source_banks.measure import half_light_radius_px, robust_sky
from dhs_gen.source_banks.rejects import Rejected, TemplateReject

__all__ = ["BankSettings", "make_template"]


@dataclass(frozen=True)
class BankSettings:
    """Choices of a COSMOS bank build; the values, units and reasons are in ``conf/banks/cosmos.yaml``.

    Attributes
    ----------
    pixscale_arcsec
        Pixel scale of catalogue and templates, arcsec; the catalogue's own must agree within 1 %.
    template_side_px
        Side S of a template, pixels, odd.
    target_psf_fwhm_arcsec
        FWHM of the round Gaussian that replaces the HST PSF, arcsec.
    zero_point_mag
        AB magnitude of 1 e⁻/s in the catalogue's images.
    detect_smoothing_fwhm_px … min_sky_pixels
        See :class:`~dhs_gen.source_banks.isolate.Isolation`.
    min_peak_snr, min_integrated_snr
        See :func:`make_template`.
    min_flux_ratio, max_flux_ratio
        Range of template sum over catalogue flux.
    min_hlr_arcsec, max_hlr_arcsec
        Range of the half-light radius of the template, target PSF included.
    min_hlr_ratio, max_hlr_ratio
        Range of that radius over the catalogue's, where the catalogue has one.
    max_centroid_residual_px
        Largest distance of the flux centroid from the central pixel.
    """

    pixscale_arcsec: float
    template_side_px: int
    target_psf_fwhm_arcsec: float
    zero_point_mag: float
    detect_smoothing_fwhm_px: float
    detect_threshold_sigma: float
    detect_min_area_px: int
    deblend_levels: int
    deblend_contrast: float
    central_radius_px: float
    grow_px: float
    taper_px: float
    neighbour_grow_px: float
    neighbour_taper_px: float
    max_adjoining_flux_ratio: float
    max_masked_flux_fraction: float
    min_sky_pixels: int
    min_peak_snr: float
    min_integrated_snr: float
    min_flux_ratio: float
    max_flux_ratio: float
    min_hlr_arcsec: float
    max_hlr_arcsec: float
    min_hlr_ratio: float
    max_hlr_ratio: float
    max_centroid_residual_px: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
                raise BankError(f"bank setting {field.name} is {value!r}: it must be a finite number")
            if value <= 0 and field.name != "zero_point_mag":
                raise BankError(f"bank setting {field.name} is {value!r}: it must be positive")
        if not isinstance(self.template_side_px, int) or self.template_side_px % 2 == 0:
            raise BankError(
                f"bank setting template_side_px is {self.template_side_px!r}: it must be an odd whole number, "
                "so that a template has a central pixel"
            )
        for low, high in (
            ("min_flux_ratio", "max_flux_ratio"),
            ("min_hlr_arcsec", "max_hlr_arcsec"),
            ("min_hlr_ratio", "max_hlr_ratio"),
        ):
            if getattr(self, low) >= getattr(self, high):
                raise BankError(f"bank setting {low} is {getattr(self, low)!r}, not below {high}")

    @property
    def isolation(self) -> Isolation:
        """The part that says how a galaxy is cut out of its stamp."""
        return Isolation(**{field.name: getattr(self, field.name) for field in fields(Isolation)})

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> BankSettings:
        """Settings from a parsed configuration section; unknown and missing names are errors."""
        names = {field.name for field in fields(cls)}
        unknown, missing = sorted(set(mapping) - names), sorted(names - set(mapping))
        if unknown or missing:
            raise BankError(f"bank settings have unknown names {unknown} and lack {missing}")
        return cls(**mapping)


def make_template(
    draw: Draw,
    native_stamp: FloatImage,
    *,
    catalogue_flux: float,
    catalogue_hlr_arcsec: float | None,
    noise_correlation_pixels: float,
    settings: BankSettings,
    numbers: dict[str, Any],
) -> FloatImage:
    """One template from one galaxy.

    Parameters
    ----------
    draw
        Draws the galaxy with the target PSF, on a grid of odd sides, shifted by (dx, dy) pixels.
    native_stamp
        (H, W) the galaxy as observed, for the noise before any deconvolution.
    catalogue_flux
        e⁻/s, from the catalogue magnitude.
    catalogue_hlr_arcsec
        The catalogue's radius (as observed), or None.
    noise_correlation_pixels
        Sum over the noise correlation function over its value at zero lag: 1 for white noise, 6.0 for the drizzled
        COSMOS images. The variance of a sum over many pixels is this much larger than for white noise.
    settings
        See :class:`BankSettings`.
    numbers
        Filled with the columns of the galaxy's row as they become known, also when it is rejected.

    Returns
    -------
    ndarray
        (S, S) float64, e⁻/s per pixel, sky-subtracted, neighbours masked, tapered to zero, negatives kept, flux
        centroid at pixel S // 2. Not normalised yet: its sum is ``flux_ratio`` times the catalogue flux. The bank
        stores it at unit sum, which puts back the flux that the taper removed, in proportion.

    Raises
    ------
    Rejected
        With a :class:`TemplateReject`.

    Notes
    -----
    Peak signal-to-noise: brightest pixel of the central segment over the rms of the sky, both on the stamp at the
    target PSF (whose pixels are finer than its FWHM, so the brightest pixel is about one resolution element).
    Integrated signal-to-noise: F_cat / (σ · √(c · A)), with F_cat the catalogue flux, σ the rms of the native stamp's
    sky, c the noise correlation above, A the area of the central segment. Deconvolution and reconvolution leave the
    noise power at zero frequency alone, so the native noise is right for a sum over many pixels. The catalogue's own
    NOISE_VARIANCE is not used: for some galaxies it contains the galaxy.
    """
    if not np.isfinite(native_stamp).all():
        raise Rejected(TemplateReject.NOT_FINITE, "the galaxy's stamp has pixels that are not finite")
    found = detect(*draw(0.0, 0.0), settings.isolation)
    central, _ = split_central(found, settings.isolation)
    numbers.update(_signal_to_noise(found, central, native_stamp, catalogue_flux, noise_correlation_pixels))
    _require_signal(numbers, settings)
    pixels = centred_pixels(draw, settings.isolation, numbers)
    numbers.update(noise_levels(pixels, numbers, noise_correlation_pixels))
    _require_flux(pixels, catalogue_flux, settings, numbers)
    _require_radius(pixels, catalogue_hlr_arcsec, settings, numbers)
    return pixels


# ------------------------------------------------------------------------------------------ signal-to-noise


def _signal_to_noise(
    found: Detection,
    central: NDArray[np.bool_],
    native_stamp: FloatImage,
    catalogue_flux: float,
    noise_correlation_pixels: float,
) -> dict[str, float | int]:
    height, width = found.stamp.shape
    native_sky = native_stamp[:height, :width][found.sky_mask]
    native_rms = robust_sky(native_sky)[1]
    area = int(central.sum())
    return {
        "seg_area_px": area,
        "sky_rms": found.sky_rms,
        "native_sky_rms": native_rms,
        "snr_peak": float(found.stamp[central].max()) / found.sky_rms,
        "snr_integrated": catalogue_flux / (native_rms * float(np.sqrt(noise_correlation_pixels * area))),
    }


def _require_signal(numbers: dict[str, Any], settings: BankSettings) -> None:
    for name, limit in (
        ("snr_peak", settings.min_peak_snr),
        ("snr_integrated", settings.min_integrated_snr),
    ):
        if not numbers[name] >= limit:
            raise Rejected(TemplateReject.NOISE_DOMINATED, f"{name} is {numbers[name]:.1f}, at least {limit:g} needed")


# ---------------------------------------------------------------------------------------------- last checks


def _require_flux(pixels: FloatImage, catalogue_flux: float, settings: BankSettings, numbers: dict[str, Any]) -> None:
    ratio = float(pixels.sum()) / catalogue_flux
    numbers["flux_ratio"] = ratio
    if not settings.min_flux_ratio <= ratio <= settings.max_flux_ratio:
        raise Rejected(
            TemplateReject.FLUX_DISAGREES_WITH_CATALOGUE,
            f"template sum is {ratio:.2f} of the catalogue flux, allowed {settings.min_flux_ratio:g} to "
            f"{settings.max_flux_ratio:g}",
        )


def _require_radius(
    pixels: FloatImage, catalogue_hlr_arcsec: float | None, settings: BankSettings, numbers: dict[str, Any]
) -> None:
    hlr_arcsec = half_light_radius_px(pixels) * settings.pixscale_arcsec
    numbers["hlr_arcsec"] = hlr_arcsec
    if not settings.min_hlr_arcsec <= hlr_arcsec <= settings.max_hlr_arcsec:
        raise Rejected(
            TemplateReject.HLR_OUT_OF_RANGE,
            f"half-light radius is {hlr_arcsec:.3f} arcsec, allowed {settings.min_hlr_arcsec:g} to "
            f"{settings.max_hlr_arcsec:g}",
        )
    if catalogue_hlr_arcsec is None:
        return
    ratio = hlr_arcsec / catalogue_hlr_arcsec
    numbers["hlr_ratio"] = ratio
    if not settings.min_hlr_ratio <= ratio <= settings.max_hlr_ratio:
        raise Rejected(
            TemplateReject.HLR_DISAGREES_WITH_CATALOGUE,
            f"half-light radius is {ratio:.2f} of the catalogue's, allowed {settings.min_hlr_ratio:g} to "
            f"{settings.max_hlr_ratio:g}",
        )
