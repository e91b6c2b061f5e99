"""Choices of a deep bank build."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from dhs_gen.source_banks.bank import BankError
from dhs_gen.source_banks.isolate import Isolation

__all__ = ["PSF_PROFILES", "DeepSettings"]

PSF_PROFILES = ("gaussian", "moffat")

DEEP_ISOLATION = Isolation(
    template_side_px=151,
    detect_smoothing_fwhm_px=4.0,
    detect_threshold_sigma=3.0,
    detect_min_area_px=40,
    deblend_levels=32,
    deblend_contrast=0.005,
    central_radius_px=6.0,
    grow_px=4.0,
    taper_px=6.0,
    neighbour_grow_px=4.0,
    neighbour_taper_px=6.0,
    max_adjoining_flux_ratio=0.1,
    max_masked_flux_fraction=0.05,
    min_sky_pixels=400,
    max_centroid_residual_px=0.2,
)


@dataclass(frozen=True)
class DeepSettings:
    """Choices of a deep bank build; units and reasons are in ``conf/banks/deep.yaml``, which states the same values.

    Attributes
    ----------
    isolation
        How the galaxy is cut out, in pixels of the fine template; see :class:`~dhs_gen.source_banks.isolate.Isolation`.
    max_cutout_side_px
        A larger cutout is cropped to its centre, native pixels.
    noise_correlation_pixels
        Sum over the noise correlation function of the survey's coadds over its value at zero lag.
    min_peak_snr, min_integrated_snr
        See :func:`~.template.make_deep_template`.
    min_hlr_over_psf
        Smallest half-light radius over that of the effective PSF left in the template.
    max_hlr_arcsec
        Largest half-light radius, effective PSF included.
    deconvolution_floor
        1/P(k) of the cutout's PSF is capped at one over this.
    max_noise_amplification
        Largest rms of the sky after deconvolution over before.
    stated_psf_profile, stated_psf_moffat_beta
        Shape of a PSF of which only the FWHM is known: "moffat" with this slope, or "gaussian".
    max_cropped_flux_fraction
        Largest fraction of the flux that the edge of the resampled stamp may cut off.
    """

    isolation: Isolation = DEEP_ISOLATION
    max_cutout_side_px: int = 301
    noise_correlation_pixels: float = 2.0
    min_peak_snr: float = 8.0
    min_integrated_snr: float = 25.0
    min_hlr_over_psf: float = 1.1
    max_hlr_arcsec: float = 2.5
    deconvolution_floor: float = 0.02
    max_noise_amplification: float = 4.0
    stated_psf_profile: str = "moffat"
    stated_psf_moffat_beta: float = 2.5
    max_cropped_flux_fraction: float = 0.005

    def __post_init__(self) -> None:
        if self.stated_psf_profile not in PSF_PROFILES:
            raise BankError(
                f"deep bank setting stated_psf_profile is {self.stated_psf_profile!r}, not one of {PSF_PROFILES}"
            )
        numbers = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("isolation", "stated_psf_profile")
        }
        numbers |= {f"isolation.{f.name}": getattr(self.isolation, f.name) for f in fields(Isolation)}
        for name, value in numbers.items():
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not (math.isfinite(value) and value > 0)
            ):
                raise BankError(f"deep bank setting {name} is {value!r}: it must be a positive, finite number")
        side = self.isolation.template_side_px
        if not isinstance(side, int) or side % 2 == 0:
            raise BankError(f"deep bank setting isolation.template_side_px is {side!r}: it must be an odd whole number")
        if not self.stated_psf_moffat_beta > 1:
            raise BankError(
                f"deep bank setting stated_psf_moffat_beta is {self.stated_psf_moffat_beta!r}: it must exceed 1"
            )
        if not self.deconvolution_floor < 1:
            raise BankError(
                f"deep bank setting deconvolution_floor is {self.deconvolution_floor!r}: it must be below 1"
            )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> DeepSettings:
        """Settings from a parsed configuration section; unknown and missing names are errors."""
        values = dict(mapping)
        _require_names(values, {f.name for f in fields(cls)}, "deep bank settings")
        isolation = dict(values.pop("isolation"))
        _require_names(isolation, {f.name for f in fields(Isolation)}, "deep bank settings, isolation:")
        return cls(isolation=Isolation(**isolation), **values)


def _require_names(values: Mapping[str, Any], names: set[str], what: str) -> None:
    unknown, missing = sorted(set(values) - names), sorted(names - set(values))
    if unknown or missing:
        raise BankError(f"{what} have unknown names {unknown} and lack {missing}")
