"""From a stamp with a galaxy in it to the isolated galaxy: detection, neighbours, taper, centring.

All functions take images in flux per pixel, index order ``[y, x]``, and know nothing about catalogues, files, PSFs or
the bank they work for; the stamp is redrawn through a callable that takes an offset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dhs_gen.source_banks.measure import centroid_px, frame_mask, robust_sky
from dhs_gen.source_banks.rejects import Rejected, TemplateReject

__all__ = [
    "Detection",
    "Draw",
    "FloatImage",
    "Isolation",
    "centred_pixels",
    "detect",
    "distance_from",
    "distance_inside",
    "rising",
    "split_central",
]

FloatImage = NDArray[np.float64]
Draw = Callable[[float, float], tuple[FloatImage, NDArray[np.bool_]]]
"""(dx, dy) → the stamp drawn that many pixels to the right and up, and which of its pixels lie on the data."""

_FIRST_FRAME_PX = 4
_MAX_RECENTRINGS = 6
_FWHM_PER_SIGMA = float(2.0 * np.sqrt(2.0 * np.log(2.0)))


@dataclass(frozen=True)
class Isolation:
    """How a galaxy is cut out of its stamp; each bank's configuration states the values with their reasons.

    Attributes
    ----------
    template_side_px
        Side S of a template, pixels, odd.
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
    max_centroid_residual_px
        Largest distance of the flux centroid from the central pixel.
    """

    template_side_px: int
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
    max_centroid_residual_px: float


@dataclass(frozen=True)
class Detection:
    """Sky-subtracted stamp, the level and noise of its sky, and its segments (0 = sky)."""

    stamp: FloatImage
    on_data: NDArray[np.bool_]
    segments: NDArray[np.int32]
    sky_mask: NDArray[np.bool_]
    sky: float
    sky_rms: float


# ----------------------------------------------------------------------------------------------- detection


def detect(stamp: FloatImage, on_data: NDArray[np.bool_], isolation: Isolation) -> Detection:
    """Sky from the outer frame, segments above it, then sky and segments again from all pixels outside them.

    The segments come from a smoothed copy: at the target PSF the deconvolved noise has a pixel-to-pixel scatter
    above the native one and would break a faint disc into pieces.
    """
    if not np.isfinite(stamp).all():
        raise Rejected(TemplateReject.NOT_FINITE, "the redrawn stamp has pixels that are not finite")
    smooth = ndimage.gaussian_filter(stamp, isolation.detect_smoothing_fwhm_px / _FWHM_PER_SIGMA, mode="nearest")
    inner = ndimage.binary_erosion(on_data, iterations=_FIRST_FRAME_PX, border_value=0)
    sky_mask = on_data & ~inner
    for _ in range(2):
        smooth_sky, smooth_rms = _measured_sky(smooth, sky_mask, isolation)
        segments = _segments(smooth - smooth_sky, smooth_rms, on_data, isolation)
        sky_mask = on_data & (distance_from(segments > 0) > isolation.grow_px)
    sky, rms = _measured_sky(stamp, sky_mask, isolation)
    return Detection(np.where(on_data, stamp - sky, 0.0), on_data, segments, sky_mask, sky, rms)


def _measured_sky(stamp: FloatImage, sky_mask: NDArray[np.bool_], isolation: Isolation) -> tuple[float, float]:
    n_sky = int(sky_mask.sum())
    if n_sky < isolation.min_sky_pixels:
        raise Rejected(
            TemplateReject.TOO_FEW_SKY_PIXELS, f"{n_sky} sky pixels, at least {isolation.min_sky_pixels} needed"
        )
    sky, rms = robust_sky(stamp[sky_mask])
    if not rms > 0:
        raise Rejected(TemplateReject.TOO_FEW_SKY_PIXELS, "the sky pixels have no scatter: no noise to measure")
    return sky, rms


def _segments(image: FloatImage, rms: float, on_data: NDArray[np.bool_], isolation: Isolation) -> NDArray[np.int32]:
    sep = _sep()
    _, segments = sep.extract(
        np.ascontiguousarray(image),
        isolation.detect_threshold_sigma,
        err=rms,
        mask=~on_data,
        minarea=isolation.detect_min_area_px,
        filter_kernel=None,
        deblend_nthresh=isolation.deblend_levels,
        deblend_cont=isolation.deblend_contrast,
        segmentation_map=True,
    )
    return np.asarray(segments, dtype=np.int32)


def _sep() -> Any:
    try:
        import sep
    except ImportError as error:
        raise ImportError("building a source bank needs sep: pip install dark-halo-scope[banks]") from error
    return sep


def split_central(found: Detection, isolation: Isolation) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of the central object (with the faint pieces that touch it) and of everything else."""
    label = _central_label(found.segments, isolation)
    central = found.segments == label
    core_flux = float(found.stamp[central].sum())
    touching = np.unique(found.segments[ndimage.binary_dilation(central, np.ones((3, 3)))])
    for other in touching[(touching != 0) & (touching != label)]:
        piece = found.segments == other
        ratio = float(found.stamp[piece].sum()) / core_flux
        if ratio > isolation.max_adjoining_flux_ratio:
            raise Rejected(
                TemplateReject.BLENDED,
                f"a touching object has {ratio:.2f} of the central flux, at most "
                f"{isolation.max_adjoining_flux_ratio:g} allowed",
            )
        central = central | piece
    return central, (found.segments > 0) & ~central


def _central_label(segments: NDArray[np.int32], isolation: Isolation) -> int:
    height, width = segments.shape
    y, x = np.nonzero(segments)
    if y.size:
        distance = np.hypot(y - height // 2, x - width // 2)
        nearest = int(np.argmin(distance))
        if distance[nearest] <= isolation.central_radius_px:
            return int(segments[y[nearest], x[nearest]])
    raise Rejected(
        TemplateReject.NO_CENTRAL_OBJECT,
        f"no segment above {isolation.detect_threshold_sigma:g} sigma within {isolation.central_radius_px:g} px "
        "of the centre",
    )


# ----------------------------------------------------------------------------------------- taper and centre


def centred_pixels(draw: Draw, isolation: Isolation, numbers: dict[str, Any]) -> FloatImage:
    """The isolated galaxy, redrawn until the flux centroid of the tapered pixels sits on the central one.

    Parameters
    ----------
    draw
        Draws the stamp on a grid of odd sides, shifted by (dx, dy) pixels.
    isolation
        See :class:`Isolation`.
    numbers
        Filled with ``centroid_residual_px``, ``weight_area_px`` (Σ of the squared weights of the taper and the
        neighbours' masks), ``masked_flux_fraction``, ``n_neighbours``, ``shift_x_px`` and ``shift_y_px``, also when
        the galaxy is rejected afterwards.

    Returns
    -------
    ndarray
        (S, S) float64, sky-subtracted, neighbours masked, tapered to zero, negatives kept, not normalised.

    Raises
    ------
    Rejected
        TOUCHES_EDGE, TOO_LARGE, BLENDED, NOT_CENTRED, or a reason of :func:`detect` and :func:`split_central`.
    """
    dx = dy = 0.0
    best = np.inf
    for _ in range(_MAX_RECENTRINGS):
        pixels, weight_area, masked_fraction, n_neighbours = _tapered_window(
            detect(*draw(dx, dy), isolation), isolation
        )
        try:
            x, y = centroid_px(pixels)
        except ValueError as error:
            raise Rejected(TemplateReject.NOISE_DOMINATED, str(error)) from error
        shift_x, shift_y = x - isolation.template_side_px // 2, y - isolation.template_side_px // 2
        residual = float(np.hypot(shift_x, shift_y))
        if residual < best:
            best, kept = residual, pixels
            numbers.update(
                centroid_residual_px=residual,
                weight_area_px=weight_area,
                masked_flux_fraction=masked_fraction,
                n_neighbours=n_neighbours,
                shift_x_px=dx,
                shift_y_px=dy,
            )
        if residual <= isolation.max_centroid_residual_px / 5:
            break
        dx, dy = dx - shift_x, dy - shift_y
    if best > isolation.max_centroid_residual_px:
        raise Rejected(
            TemplateReject.NOT_CENTRED,
            f"centroid {best:.2f} px from the central pixel after {_MAX_RECENTRINGS} shifts, at most "
            f"{isolation.max_centroid_residual_px:g} allowed",
        )
    return kept


def _tapered_window(found: Detection, isolation: Isolation) -> tuple[FloatImage, float, float, int]:
    """The (S, S) window about the stamp's centre, weighted; Σ weight²; the flux fraction masked; neighbours."""
    central, others = split_central(found, isolation)
    if (central & ~ndimage.binary_erosion(found.on_data, border_value=0)).any():
        raise Rejected(TemplateReject.TOUCHES_EDGE, "the central segment reaches the edge of the stamp")
    side = isolation.template_side_px
    if (
        int(_window(central, side).sum()) != int(central.sum())
        or (_window(central, side) & frame_mask((side, side), int(np.ceil(isolation.grow_px)))).any()
    ):
        raise Rejected(
            TemplateReject.TOO_LARGE,
            f"the central segment and {isolation.grow_px:g} px around it do not fit in {side} px",
        )
    window_on_data = _window(found.on_data, side)
    own = _falling(ndimage.distance_transform_edt(~_window(central, side)), isolation.grow_px, isolation.taper_px)
    edge = rising(distance_inside(window_on_data), 0.0, isolation.taper_px)
    clear = rising(distance_from(others), isolation.neighbour_grow_px, isolation.neighbour_taper_px)
    masked_fraction = 1.0 - float((found.stamp * clear)[central].sum() / found.stamp[central].sum())
    if masked_fraction > isolation.max_masked_flux_fraction:
        raise Rejected(
            TemplateReject.BLENDED,
            f"neighbours' masks remove {masked_fraction:.2f} of the central flux, at most "
            f"{isolation.max_masked_flux_fraction:g} allowed",
        )
    pixels = _window(found.stamp * clear, side) * own * edge
    weight_area = float(((_window(clear, side) * own * edge) ** 2).sum())
    return pixels, weight_area, masked_fraction, int(np.unique(found.segments[others]).size)


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


def distance_from(mask: NDArray[np.bool_]) -> FloatImage:
    """Distance (pixels) to the nearest True pixel; infinite where there is none."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~mask), dtype=np.float64)


def distance_inside(mask: NDArray[np.bool_]) -> FloatImage:
    """Distance (pixels) of each True pixel to the nearest False one, the outside of the image included."""
    padded = np.pad(mask, 1, constant_values=False)
    return np.asarray(ndimage.distance_transform_edt(padded)[1:-1, 1:-1], dtype=np.float64)


def _falling(distance_px: FloatImage, start_px: float, width_px: float) -> FloatImage:
    """1 up to ``start_px``, half-cosine to 0 over ``width_px``."""
    phase = np.clip((distance_px - start_px) / width_px, 0.0, 1.0)
    return np.asarray(0.5 * (1.0 + np.cos(np.pi * phase)), dtype=np.float64)


def rising(distance_px: FloatImage, start_px: float, width_px: float) -> FloatImage:
    """0 up to ``start_px``, half-cosine to 1 over ``width_px``."""
    return 1.0 - _falling(distance_px, start_px, width_px)
