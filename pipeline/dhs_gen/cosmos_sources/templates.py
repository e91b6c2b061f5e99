"""From a stamp of one galaxy to a template: detection, neighbours, taper, centring, signal-to-noise.

All functions take images in flux per pixel (e⁻/s for HST COSMOS), index order ``[y, x]``. Nothing here knows
about catalogues, files or GalSim; the stamp is redrawn through a callable that takes an offset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dhs_gen.source_banks.bank import BankError
from dhs_gen.source_banks.measure import centroid_px, frame_mask, half_light_radius_px, robust_sky

__all__ = ["BankSettings", "Rejected", "TemplateReject", "make_template"]

FloatImage = NDArray[np.float64]
Draw = Callable[[float, float], tuple[FloatImage, NDArray[np.bool_]]]
"""(dx, dy) → the stamp drawn that many pixels to the right and up, and which of its pixels lie on the data."""

_FIRST_FRAME_PX = 4
_MAX_RECENTRINGS = 6
_FWHM_PER_SIGMA = float(2.0 * np.sqrt(2.0 * np.log(2.0)))


class TemplateReject(StrEnum):
    """Why a galaxy did not become a template. Each refused galaxy has exactly one, the first that applies."""

    BAD_CATALOGUE_ROW = "BAD_CATALOGUE_ROW"
    NOT_FINITE = "NOT_FINITE"
    TOO_FEW_SKY_PIXELS = "TOO_FEW_SKY_PIXELS"
    NO_CENTRAL_OBJECT = "NO_CENTRAL_OBJECT"
    NOISE_DOMINATED = "NOISE_DOMINATED"
    TOUCHES_EDGE = "TOUCHES_EDGE"
    TOO_LARGE = "TOO_LARGE"
    BLENDED = "BLENDED"
    NOT_CENTRED = "NOT_CENTRED"
    FLUX_DISAGREES_WITH_CATALOGUE = "FLUX_DISAGREES_WITH_CATALOGUE"
    HLR_OUT_OF_RANGE = "HLR_OUT_OF_RANGE"
    HLR_DISAGREES_WITH_CATALOGUE = "HLR_DISAGREES_WITH_CATALOGUE"


class Rejected(Exception):  # noqa: N818 - a decision about one galaxy, not an error of the program
    """Raised inside the making of one template; carries the named reason and a one-line message."""

    def __init__(self, reason: TemplateReject, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


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
    detect_smoothing_fwhm_px
        Segments are found on a copy smoothed with this Gaussian; the template itself is not smoothed.
    detect_threshold_sigma, detect_min_area_px
        Isophote of a segment in sky rms per pixel of the smoothed copy; smallest segment, pixels.
    deblend_levels, deblend_contrast
        sep / SExtractor deblending: number of thresholds, flux fraction of a separate branch.
    central_radius_px
        A pixel of the central segment must lie this close to the stamp's centre.
    grow_px, taper_px
        Full weight this far outside the central segment; then a half-cosine to zero this wide.
    neighbour_grow_px, neighbour_taper_px
        Zero weight this far around another segment; then a half-cosine back to one this wide.
    max_adjoining_flux_ratio
        A segment that touches the central one is part of it below this fraction of its flux, a blend above.
    max_masked_flux_fraction
        Largest fraction of the flux above the isophote that the neighbours' masks may remove.
    min_sky_pixels
        Fewest pixels outside all segments to measure sky and noise on.
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

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> BankSettings:
        """Settings from a parsed configuration section; unknown and missing names are errors."""
        names = {field.name for field in fields(cls)}
        unknown, missing = sorted(set(mapping) - names), sorted(names - set(mapping))
        if unknown or missing:
            raise BankError(f"bank settings have unknown names {unknown} and lack {missing}")
        return cls(**mapping)


@dataclass(frozen=True)
class _Detection:
    """Sky-subtracted stamp, its noise, and its segments (0 = sky)."""

    stamp: FloatImage
    on_data: NDArray[np.bool_]
    segments: NDArray[np.int32]
    sky_mask: NDArray[np.bool_]
    sky_rms: float


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
    found = _detect(*draw(0.0, 0.0), settings)
    central, _ = _split_central(found, settings)
    numbers.update(_signal_to_noise(found, central, native_stamp, catalogue_flux, noise_correlation_pixels))
    _require_signal(numbers, settings)
    pixels = _centred_pixels(draw, settings, numbers)
    _require_flux(pixels, catalogue_flux, settings, numbers)
    _require_radius(pixels, catalogue_hlr_arcsec, settings, numbers)
    return pixels


# ----------------------------------------------------------------------------------------------- detection


def _detect(stamp: FloatImage, on_data: NDArray[np.bool_], settings: BankSettings) -> _Detection:
    """Sky from the outer frame, segments above it, then sky and segments again from all pixels outside them.

    The segments come from a smoothed copy: at the target PSF the deconvolved noise has a pixel-to-pixel scatter
    above the native one and would break a faint disc into pieces.
    """
    if not np.isfinite(stamp).all():
        raise Rejected(TemplateReject.NOT_FINITE, "the redrawn stamp has pixels that are not finite")
    smooth = ndimage.gaussian_filter(stamp, settings.detect_smoothing_fwhm_px / _FWHM_PER_SIGMA, mode="nearest")
    inner = ndimage.binary_erosion(on_data, iterations=_FIRST_FRAME_PX, border_value=0)
    sky_mask = on_data & ~inner
    for _ in range(2):
        smooth_sky, smooth_rms = _measured_sky(smooth, sky_mask, settings)
        segments = _segments(smooth - smooth_sky, smooth_rms, on_data, settings)
        sky_mask = on_data & (_distance_from(segments > 0) > settings.grow_px)
    sky, rms = _measured_sky(stamp, sky_mask, settings)
    return _Detection(np.where(on_data, stamp - sky, 0.0), on_data, segments, sky_mask, rms)


def _measured_sky(stamp: FloatImage, sky_mask: NDArray[np.bool_], settings: BankSettings) -> tuple[float, float]:
    n_sky = int(sky_mask.sum())
    if n_sky < settings.min_sky_pixels:
        raise Rejected(
            TemplateReject.TOO_FEW_SKY_PIXELS, f"{n_sky} sky pixels, at least {settings.min_sky_pixels} needed"
        )
    sky, rms = robust_sky(stamp[sky_mask])
    if not rms > 0:
        raise Rejected(TemplateReject.TOO_FEW_SKY_PIXELS, "the sky pixels have no scatter: no noise to measure")
    return sky, rms


def _segments(image: FloatImage, rms: float, on_data: NDArray[np.bool_], settings: BankSettings) -> NDArray[np.int32]:
    sep = _sep()
    _, segments = sep.extract(
        np.ascontiguousarray(image),
        settings.detect_threshold_sigma,
        err=rms,
        mask=~on_data,
        minarea=settings.detect_min_area_px,
        filter_kernel=None,
        deblend_nthresh=settings.deblend_levels,
        deblend_cont=settings.deblend_contrast,
        segmentation_map=True,
    )
    return np.asarray(segments, dtype=np.int32)


def _sep() -> Any:
    try:
        import sep
    except ImportError as error:
        raise ImportError("building a source bank needs sep: pip install dark-halo-scope[banks]") from error
    return sep


def _split_central(found: _Detection, settings: BankSettings) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of the central object (with the faint pieces that touch it) and of everything else."""
    label = _central_label(found.segments, settings)
    central = found.segments == label
    core_flux = float(found.stamp[central].sum())
    touching = np.unique(found.segments[ndimage.binary_dilation(central, np.ones((3, 3)))])
    for other in touching[(touching != 0) & (touching != label)]:
        piece = found.segments == other
        ratio = float(found.stamp[piece].sum()) / core_flux
        if ratio > settings.max_adjoining_flux_ratio:
            raise Rejected(
                TemplateReject.BLENDED,
                f"a touching object has {ratio:.2f} of the central flux, at most "
                f"{settings.max_adjoining_flux_ratio:g} allowed",
            )
        central = central | piece
    return central, (found.segments > 0) & ~central


def _central_label(segments: NDArray[np.int32], settings: BankSettings) -> int:
    height, width = segments.shape
    y, x = np.nonzero(segments)
    if y.size:
        distance = np.hypot(y - height // 2, x - width // 2)
        nearest = int(np.argmin(distance))
        if distance[nearest] <= settings.central_radius_px:
            return int(segments[y[nearest], x[nearest]])
    raise Rejected(
        TemplateReject.NO_CENTRAL_OBJECT,
        f"no segment above {settings.detect_threshold_sigma:g} sigma within {settings.central_radius_px:g} px "
        "of the centre",
    )


# ------------------------------------------------------------------------------------------ signal-to-noise


def _signal_to_noise(
    found: _Detection,
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


# ----------------------------------------------------------------------------------------- taper and centre


def _centred_pixels(draw: Draw, settings: BankSettings, numbers: dict[str, Any]) -> FloatImage:
    """Redraw until the flux centroid of the tapered galaxy sits on the central pixel."""
    dx = dy = 0.0
    best = np.inf
    for _ in range(_MAX_RECENTRINGS):
        pixels, masked_fraction, n_neighbours = _tapered_window(_detect(*draw(dx, dy), settings), settings)
        try:
            x, y = centroid_px(pixels)
        except ValueError as error:
            raise Rejected(TemplateReject.NOISE_DOMINATED, str(error)) from error
        shift_x, shift_y = x - settings.template_side_px // 2, y - settings.template_side_px // 2
        residual = float(np.hypot(shift_x, shift_y))
        if residual < best:
            best, kept = residual, pixels
            numbers.update(
                centroid_residual_px=residual,
                masked_flux_fraction=masked_fraction,
                n_neighbours=n_neighbours,
                shift_x_px=dx,
                shift_y_px=dy,
            )
        if residual <= settings.max_centroid_residual_px / 5:
            break
        dx, dy = dx - shift_x, dy - shift_y
    if best > settings.max_centroid_residual_px:
        raise Rejected(
            TemplateReject.NOT_CENTRED,
            f"centroid {best:.2f} px from the central pixel after {_MAX_RECENTRINGS} shifts, at most "
            f"{settings.max_centroid_residual_px:g} allowed",
        )
    return kept


def _tapered_window(found: _Detection, settings: BankSettings) -> tuple[FloatImage, float, int]:
    """The (S, S) window about the stamp's centre, weighted; the flux fraction masked; the number of neighbours."""
    central, others = _split_central(found, settings)
    if (central & ~ndimage.binary_erosion(found.on_data, border_value=0)).any():
        raise Rejected(TemplateReject.TOUCHES_EDGE, "the central segment reaches the edge of the stamp")
    side = settings.template_side_px
    if (
        int(_window(central, side).sum()) != int(central.sum())
        or (_window(central, side) & frame_mask((side, side), int(np.ceil(settings.grow_px)))).any()
    ):
        raise Rejected(
            TemplateReject.TOO_LARGE,
            f"the central segment and {settings.grow_px:g} px around it do not fit in {side} px",
        )
    window_on_data = _window(found.on_data, side)
    own = _falling(ndimage.distance_transform_edt(~_window(central, side)), settings.grow_px, settings.taper_px)
    edge = _rising(_distance_inside(window_on_data), 0.0, settings.taper_px)
    clear = _rising(_distance_from(others), settings.neighbour_grow_px, settings.neighbour_taper_px)
    masked_fraction = 1.0 - float((found.stamp * clear)[central].sum() / found.stamp[central].sum())
    if masked_fraction > settings.max_masked_flux_fraction:
        raise Rejected(
            TemplateReject.BLENDED,
            f"neighbours' masks remove {masked_fraction:.2f} of the central flux, at most "
            f"{settings.max_masked_flux_fraction:g} allowed",
        )
    pixels = _window(found.stamp * clear, side) * own * edge
    return pixels, masked_fraction, int(np.unique(found.segments[others]).size)


def _window(image: NDArray[Any], side: int) -> NDArray[Any]:
    """The central ``side`` × ``side`` pixels of an image of odd sides, zero where the image ends."""
    out = np.zeros((side, side), dtype=image.dtype)
    cut: list[slice] = []
    put: list[slice] = []
    for length in image.shape:
        half = min(length, side) // 2
        cut.append(slice(length // 2 - half, length // 2 + half + 1))
        put.append(slice(side // 2 - half, side // 2 + half + 1))
    out[tuple(put)] = image[tuple(cut)]
    return out


def _distance_from(mask: NDArray[np.bool_]) -> FloatImage:
    """Distance (pixels) to the nearest True pixel; infinite where there is none."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~mask), dtype=np.float64)


def _distance_inside(mask: NDArray[np.bool_]) -> FloatImage:
    """Distance (pixels) of each True pixel to the nearest False one, the outside of the image included."""
    padded = np.pad(mask, 1, constant_values=False)
    return np.asarray(ndimage.distance_transform_edt(padded)[1:-1, 1:-1], dtype=np.float64)


def _falling(distance_px: FloatImage, start_px: float, width_px: float) -> FloatImage:
    """1 up to ``start_px``, half-cosine to 0 over ``width_px``."""
    phase = np.clip((distance_px - start_px) / width_px, 0.0, 1.0)
    return np.asarray(0.5 * (1.0 + np.cos(np.pi * phase)), dtype=np.float64)


def _rising(distance_px: FloatImage, start_px: float, width_px: float) -> FloatImage:
    return 1.0 - _falling(distance_px, start_px, width_px)


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
