"""One stamp: cut it from the host, render its light, add it with its noise, measure.

Positives, controls and hard negatives pass through the same lines in the same order; the only difference is the light
(:mod:`dhs_gen.paired_controls.light`), which is called the arc below. Artifacts (Gen8) are drawn from the task's id and
scaled by the host's pixels, so they do not know of it either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dhs_gen.add_light import add_light
from dhs_gen.domain_randomization.anisotropy import ROUND, Ellipticity
from dhs_gen.domain_randomization.config import ArtifactConfig
from dhs_gen.domain_randomization.jitter import shift_stamp, split_shift
from dhs_gen.domain_randomization.saturation import StarPsf
from dhs_gen.domain_randomization.stamp import (
    ArtifactLayer,
    ArtifactRecord,
    DrawnArtifacts,
    StampArtifacts,
    draw_artifacts,
)
from dhs_gen.lensing.rays import Accuracy
from dhs_gen.lensing.render import LensedSource, StampGrid, convolve, kernel_spectrum
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.metrics import ArcSnr
from dhs_gen.noise import arc_shot_noise
from dhs_gen.paired_controls.light import StampLight, stamp_light
from dhs_gen.paired_controls.negative import Negative
from dhs_gen.psf import Psf, PsfError, elliptical_moffat_for_psfsize, moffat_for_psfsize
from dhs_gen.stamps import encode_stamp
from dhs_gen.status import Status
from dhs_gen.streams import stream
from dhs_gen.task import HostCutout, Task, TaskFailed

_SHIFT_MARGIN_PIX = 17
"""Real pixels about the stamp that take part in a sub-pixel shift; 64 + 34 + 1 = 99 is a fast odd transform."""


@dataclass(frozen=True)
class InjectionSettings:
    """What is the same for every stamp of a run.

    Parameters
    ----------
    pixscale_arcsec, kernel_size_pix
        Pixel scale of the survey and side of the PSF kernels (odd).
    moffat_beta, electrons_per_nmgy_per_exposure
        Per band.
    bad_mask
        MASKBITS value of which any set bit makes a pixel bad.
    layers
        Optional layers of the stamp: "invvar", "arc", "maskbits".
    accuracy
        Of the renderer.
    """

    pixscale_arcsec: float
    kernel_size_pix: int
    moffat_beta: Mapping[str, float]
    electrons_per_nmgy_per_exposure: Mapping[str, float]
    bad_mask: int
    layers: tuple[str, ...]
    accuracy: Accuracy


@dataclass(frozen=True, eq=False)
class BandResult:
    """One band of a finished stamp; images are (size, size), float32, nanomaggy/pix."""

    image: NDArray[np.float32]
    invvar: NDArray[np.float32]
    arc: NDArray[np.float32]
    psf: Psf
    g_eff: float
    unlensed_flux_nmgy: float | None
    lensed_flux_nmgy: float | None
    off_stamp_frac: float | None
    theta_e_over_fwhm: float | None
    snr: ArcSnr


@dataclass(frozen=True, eq=False)
class Stamp:
    """A finished stamp with everything that was measured on it.

    ``corner_xy_pix`` is the brick (column, row) of the first pixel, to which a sub-pixel jitter adds its fraction.
    ``magnification`` is None where the light is no image of the source; ``artifacts`` where none were asked for.
    """

    bands: Mapping[str, BandResult]
    maskbits: NDArray[np.int32] | None
    corner_xy_pix: tuple[int, int]
    lens_xy_pix: tuple[float, float]
    magnification: float | None
    bad_pixel_frac: float | None
    artifacts: ArtifactRecord | None

    def encode(self, layers: tuple[str, ...]) -> bytes:
        """NPZ bytes with the images and the chosen layers."""
        arrays: dict[str, NDArray[np.generic]] = {f"image_{b}": r.image for b, r in self.bands.items()}
        if "invvar" in layers:
            arrays |= {f"invvar_{b}": r.invvar for b, r in self.bands.items()}
        if "arc" in layers:
            arrays |= {f"arc_{b}": r.arc for b, r in self.bands.items()}
        if "maskbits" in layers and self.maskbits is not None:
            arrays["maskbits"] = self.maskbits
        return encode_stamp(arrays)


def inject(
    task: Task,
    cutout: HostCutout,
    template: SourceTemplate | None,
    flux_scale: float,
    settings: InjectionSettings,
    artifacts: ArtifactConfig | None = None,
    negative: Negative | None = None,
) -> Stamp:
    """Make the stamp of one task.

    Order: jitter of the host, elliptical PSF (of the arc alone), background, cosmic ray, saturation, then the arc with
    its noise on top. A saturated pixel holds its painted value with an arc or without; one that the
    survey has no data of (no weight) stays as it is.

    Parameters
    ----------
    task, cutout
        The manifest row and the pixels of its host.
    template
        Shape of the source; None injects nothing.
    flux_scale
        Multiplies the source's flux: 1, or 0 for a null injection.
    settings
        Common to all stamps.
    artifacts
        Strengths of the artifacts; None adds none.
    negative
        Light in place of the arc, for a hard negative: the task is its pair's, so that all but the light is the pair's.
        The layer and the fluxes of the arc are then those of this light. None for positives and controls.

    Raises
    ------
    TaskFailed
        With a named status, if the stamp cannot be made.
    """
    if cutout.status is not Status.OK:
        raise TaskFailed(cutout.status, cutout.message or f"cutout of {cutout.host_id} is {cutout.status}")
    drawn = None if artifacts is None else draw_artifacts(task.task_id, task.bandset, task.stamp_size_pix, artifacts)
    (whole_x, rest_x), (whole_y, rest_y) = (split_shift(d) for d in ((0.0, 0.0) if drawn is None else drawn.jitter_pix))
    window, (x, y) = stamp_window(cutout, task.stamp_size_pix, (whole_x, whole_y))
    lens_xy_pix = (x + rest_x, y + rest_y)
    psfs = {b: _psf(cutout, b, settings, ROUND if drawn is None else drawn.psf[b]) for b in task.bandset}
    g_eff = {b: _electrons_per_nmgy(cutout, b, settings) for b in task.bandset}
    grid = StampGrid(task.stamp_size_pix, settings.pixscale_arcsec, settings.kernel_size_pix)
    light = stamp_light(task, template, lens_xy_pix, grid, settings.accuracy, negative)
    lensed = None if light is None else light.lensed
    hosts = {b: _host_pixels(cutout, b, window, (rest_x, rest_y)) for b in task.bandset}
    layers, degraded = _with_artifacts(drawn, hosts, psfs, g_eff, settings)
    maskbits = None if cutout.maskbits is None else cutout.maskbits[window]
    if maskbits is not None and degraded is not None:
        maskbits = degraded.mask(maskbits)

    fluxes = {b: 0.0 if lensed is None else flux_scale * _unlensed_flux(task, b) for b in task.bandset}
    arcs = _arcs(lensed, fluxes, psfs, task.stamp_size_pix)
    unmasked = np.zeros(arcs.shape[1:], dtype=bool) if maskbits is None else (maskbits & settings.bad_mask) == 0

    bands = {}
    for index, band in enumerate(task.bandset):
        flux, arc, layer = fluxes[band], arcs[index], layers[band]
        noise = arc_shot_noise(arc, g_eff[band], stream(task.task_id, "arc_shot_noise", band=band))
        added = add_light(
            layer.image,
            layer.invvar,
            hosts[band][1] > 0,
            unmasked,
            _placed(light, arc),
            _placed(light, noise),
            g_eff[band],
        )
        measured = lensed is not None and maskbits is not None
        bands[band] = BandResult(
            image=_painted(added.image, layer),
            invvar=added.invvar,
            arc=added.light,
            psf=psfs[band],
            g_eff=g_eff[band],
            unlensed_flux_nmgy=None if lensed is None else flux,
            lensed_flux_nmgy=None if lensed is None else added.flux_nmgy,
            off_stamp_frac=_off_stamp(lensed, index, flux, added.flux_nmgy),
            theta_e_over_fwhm=None if task.lens is None else task.lens.theta_e_arcsec / psfs[band].fwhm_arcsec,
            snr=ArcSnr(added.snr, added.peak_snr) if measured else ArcSnr(None, None),
        )
    return Stamp(
        bands=bands,
        maskbits=maskbits,
        corner_xy_pix=(
            cutout.corner_xy_pix[0] + window[1].start,
            cutout.corner_xy_pix[1] + window[0].start,
        ),
        lens_xy_pix=lens_xy_pix,
        magnification=None if light is None else light.magnification,
        bad_pixel_frac=None if maskbits is None else _bad_pixel_frac(unmasked, layers),
        artifacts=None if degraded is None else degraded.record(),
    )


def _with_artifacts(
    drawn: DrawnArtifacts | None,
    hosts: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
    psfs: Mapping[str, Psf],
    g_eff: Mapping[str, float],
    settings: InjectionSettings,
) -> tuple[Mapping[str, ArtifactLayer], StampArtifacts | None]:
    """The host of each band with its artifacts, or as it is."""
    if drawn is None:
        return {b: ArtifactLayer(image, invvar, None, None, None) for b, (image, invvar) in hosts.items()}, None
    stars = {
        b: StarPsf(
            psfs[b].fwhm_arcsec / settings.pixscale_arcsec,
            settings.moffat_beta[b],
            drawn.psf[b].e,
            drawn.psf[b].phi_rad,
        )
        for b in hosts
    }
    degraded = StampArtifacts(
        drawn, {b: h[0] for b, h in hosts.items()}, {b: h[1] for b, h in hosts.items()}, stars, g_eff
    )
    return degraded.layers, degraded


def _host_pixels(
    cutout: HostCutout, band: str, window: tuple[slice, slice], rest_pix: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image and invvar of the stamp. A pixel without a value is not made up: the stamp ends here.

    The image is moved by the sub-pixel rest of the jitter with real pixels about the stamp; weights stay with theirs.
    """
    host, invvar = cutout.image[band][window], cutout.invvar[band][window]
    if not (np.isfinite(host).all() and np.isfinite(invvar).all()):
        bad = int((~np.isfinite(host) | ~np.isfinite(invvar)).sum())
        raise TaskFailed(Status.PIXELS_NOT_FINITE, f"band {band}: {bad} pixels of the stamp are not finite")
    if rest_pix == (0.0, 0.0):
        return host, invvar
    wide, inner = _with_margin(window, cutout.image[band].shape)
    around = cutout.image[band][wide]
    good = np.isfinite(around) & (cutout.invvar[band][wide] > 0)
    return shift_stamp(around, good, inner, *rest_pix), invvar


def _with_margin(
    window: tuple[slice, slice], shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The window with a margin as far as the cutout reaches, and where the window lies in it."""
    wide, inner = [], []
    for part, size in zip(window, shape, strict=True):
        start = max(part.start - _SHIFT_MARGIN_PIX, 0)
        wide.append(slice(start, min(part.stop + _SHIFT_MARGIN_PIX, size)))
        inner.append(slice(part.start - start, part.stop - start))
    return (wide[0], wide[1]), (inner[0], inner[1])


def stamp_window(
    cutout: HostCutout, size_pix: int, shift_pix: tuple[int, int] = (0, 0)
) -> tuple[tuple[slice, slice], tuple[float, float]]:
    """Rows and columns of the stamp on the cutout, and the host's centroid on the stamp.

    The stamp is placed so that the centroid is within half a pixel of its centre; the rest stays as a sub-pixel phase,
    which is real and the same for every class. ``shift_pix`` moves the content by whole (columns, rows).

    Raises
    ------
    TaskFailed
        STAMP_OFF_CUTOUT if the stamp does not fit.
    """
    x, y = cutout.centroid_xy_pix
    first_col = math.floor(x - 0.5 * (size_pix - 1) + 0.5) - shift_pix[0]
    first_row = math.floor(y - 0.5 * (size_pix - 1) + 0.5) - shift_pix[1]
    rows, cols = next(iter(cutout.image.values())).shape
    if min(first_col, first_row) < 0 or first_col + size_pix > cols or first_row + size_pix > rows:
        raise TaskFailed(
            Status.STAMP_OFF_CUTOUT,
            f"a {size_pix} px stamp about column {x:.1f}, row {y:.1f} does not fit the {cols}x{rows} cutout",
        )
    window = (slice(first_row, first_row + size_pix), slice(first_col, first_col + size_pix))
    return window, (x - first_col, y - first_row)


@lru_cache(maxsize=512)
def _cached_moffat(psfsize_arcsec: float, beta: float, pixscale_arcsec: float, size_pix: int) -> Psf:
    """The tasks of one host share its PSFs."""
    psf = moffat_for_psfsize(psfsize_arcsec, beta, pixscale_arcsec, size_pix)
    psf.kernel.setflags(write=False)
    return psf


def _psf(cutout: HostCutout, band: str, settings: InjectionSettings, ellipticity: Ellipticity) -> Psf:
    """The band's effective PSF. An elliptical one belongs to one task and is not kept."""
    try:
        if ellipticity.e > 0:
            return elliptical_moffat_for_psfsize(
                cutout.psfsize_arcsec[band],
                settings.moffat_beta[band],
                settings.pixscale_arcsec,
                settings.kernel_size_pix,
                ellipticity.e,
                ellipticity.phi_rad,
            )
        return _cached_moffat(
            cutout.psfsize_arcsec[band],
            settings.moffat_beta[band],
            settings.pixscale_arcsec,
            settings.kernel_size_pix,
        )
    except PsfError as error:
        raise TaskFailed(Status.PSF_UNSOLVABLE, f"band {band}: {error}") from error


def _electrons_per_nmgy(cutout: HostCutout, band: str, settings: InjectionSettings) -> float:
    """G_eff ≈ nexp × electrons per nanomaggy of one exposure."""
    nexp = cutout.nexp[band]
    if not nexp > 0:  # NaN too
        raise TaskFailed(Status.EXPOSURES_MISSING, f"band {band}: nexp at the host is {nexp}")
    return nexp * settings.electrons_per_nmgy_per_exposure[band]


def _unlensed_flux(task: Task, band: str) -> float:
    """Flux of the source behind the Milky Way's dust, nanomaggy."""
    transmission = task.mw_transmission[band]
    if task.source is None or transmission is None or not 0 < transmission <= 1:
        raise TaskFailed(Status.TASK_INVALID, f"mw_transmission_{band} must be in (0, 1], got {transmission!r}")
    return task.source.flux_nmgy(band) * transmission


def _arcs(
    lensed: LensedSource | None, fluxes_nmgy: Mapping[str, float], psfs: Mapping[str, Psf], size_pix: int
) -> NDArray[np.float64]:
    """(bands, size, size) noise-free light, nanomaggy/pix."""
    if lensed is None:
        return np.zeros((len(psfs), size_pix, size_pix))
    kernels = _kernel_spectra(tuple(psfs.values()), lensed.spectrum.shape[1])
    flux = np.array([fluxes_nmgy[b] for b in psfs])[:, None, None]
    arcs = convolve(lensed.spectrum, kernels, size_pix) * flux + 0.0  # −0.0 becomes 0.0: no flux is the same as no arc
    if not np.isfinite(arcs).all():
        raise TaskFailed(Status.RENDER_NOT_FINITE, "the rendered arc is not finite")
    return arcs


@lru_cache(maxsize=16)
def _kernel_spectra(psfs: tuple[Psf, ...], side: int) -> NDArray[np.complex128]:
    """(bands, side, side//2 + 1). The tasks of one host share its PSFs, and most of them the side."""
    spectra = np.stack([kernel_spectrum(psf.kernel, side) for psf in psfs])
    spectra.setflags(write=False)
    return spectra


def _placed(light: StampLight | None, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    return pixels if light is None else light.placed(pixels)


def _off_stamp(lensed: LensedSource | None, band_index: int, flux_nmgy: float, on_stamp_nmgy: float) -> float | None:
    if lensed is None or flux_nmgy == 0:
        return None
    channel = band_index if lensed.magnification.size > 1 else 0
    return 1.0 - on_stamp_nmgy / (flux_nmgy * float(lensed.magnification[channel]))


def _painted(image: NDArray[np.float32], layer: ArtifactLayer) -> NDArray[np.float32]:
    """A saturated pixel holds its paint, with light or without."""
    if layer.painted is not None and layer.paint is not None:
        image[layer.painted] = layer.paint[layer.painted]
    return image


def _bad_pixel_frac(unmasked: NDArray[np.bool_], layers: Mapping[str, ArtifactLayer]) -> float:
    good = unmasked
    for layer in layers.values():
        good = good & (layer.invvar > 0)
    return 1.0 - float(np.count_nonzero(good)) / good.size
