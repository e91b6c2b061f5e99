"""The same arcs by lenstronomy and by GalSim, each used as someone who knows it would.

Only profiles with an effect are in the mass model (no multipoles of zero), PSFs and models are made beforehand, and
lenstronomy keeps its kernels' transforms between stamps. What depends on the source is made with the stamp.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from bench.scenes import Arcs, Scene
from dhs_gen.lensing.reference import lens_kwargs, lens_model_list, lenstronomy_kwargs
from dhs_gen.moffat import pixel_integrated_moffat

_STRENGTHS = ("gamma1", "gamma2", "a_m")


def lens_and_light(scene: Scene) -> tuple[Any, list[dict[str, Any]], Any]:
    """LensModel, its keyword arguments and LightModel, without the profiles that do nothing."""
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    names = lens_model_list(scene.lens)
    both = [(n, k) for n, k in zip(names, lens_kwargs(scene.lens, scene.lens_xy_arcsec), strict=True) if _acts(k)]
    return LensModel([n for n, _ in both]), [k for _, k in both], LightModel(["INTERPOL"])


def _acts(kwargs: dict[str, Any]) -> bool:
    strengths = [kwargs[name] for name in _STRENGTHS if name in kwargs]
    return not strengths or any(strengths)


def fine_kernels(scene: Scene, supersampling: int) -> list[NDArray[np.float64]]:
    """The PSF of each band without the stamp's pixel, on the grid of rays, each point of light spread over its cell."""
    side = scene.kernel_size_pix * supersampling
    kernels = [pixel_integrated_moffat(p.fwhm_pix * supersampling, p.beta, side) for p in scene.psfs]
    return [k / k.sum() for k in kernels]


def lenstronomy_by_the_book(scene: Scene, supersampling: int) -> Callable[[], Arcs]:
    """An ImageModel for each band: rays are shot for each, as ImageModel does."""
    from lenstronomy.Data.pixel_grid import PixelGrid
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel

    corner = -0.5 * (scene.size_pix - 1) * scene.pixscale_arcsec
    grid = PixelGrid(scene.size_pix, scene.size_pix, np.eye(2) * scene.pixscale_arcsec, corner, corner)
    mass, kwargs_lens, _ = lens_and_light(scene)
    models, sources = [], []
    for index, kernel in enumerate(fine_kernels(scene, supersampling)):
        _, _, light = lens_and_light(scene)
        psf = PSF("PIXEL", kernel_point_source=kernel, point_source_supersampling_factor=supersampling)
        numerics = {
            "supersampling_factor": supersampling,
            "supersampling_convolution": True,
            "supersampling_kernel_size": None,  # the default, the inner 5 pixels alone, is 2 to 3 % of the peak off
        }
        models.append(ImageModel(grid, psf, mass, light, kwargs_numerics=numerics))
        sources.append(_kwargs_source(scene, index))

    def render() -> Arcs:
        arcs = {}
        for psf, model, kwargs_source in zip(scene.psfs, models, sources, strict=True):
            model.SourceModel.delete_interpol_caches()  # every stamp has a source of its own
            arcs[psf.band] = np.asarray(model.image(kwargs_lens, kwargs_source))
        return arcs

    return render


def lenstronomy_by_hand(scene: Scene, supersampling: int) -> Callable[[], Arcs]:
    """Rays shot once with LensModel, INTERPOL once per channel, one real transform per channel and band."""
    side = scene.size_pix * supersampling
    kernel_side = scene.kernel_size_pix * supersampling
    fast = scipy.fft.next_fast_len(side + kernel_side // 2, real=True)
    spectra = [scipy.fft.rfft2(_around_zero(k, fast)) for k in fine_kernels(scene, supersampling)]
    at = (np.arange(side) - 0.5 * (side - 1)) * scene.pixscale_arcsec / supersampling
    x, y = (grid.ravel() for grid in np.meshgrid(at, at))
    mass, kwargs_lens, light = lens_and_light(scene)
    channels = [scene.channel(i) for i in range(len(scene.psfs))]
    sources = {c: _kwargs_source(scene, i) for i, c in enumerate(channels)}
    cell = (scene.pixscale_arcsec / supersampling) ** 2

    def render() -> Arcs:
        bx, by = mass.ray_shooting(x, y, kwargs_lens)
        lit = {}
        for channel, kwargs_source in sources.items():
            light.delete_interpol_caches()
            image = np.asarray(light.surface_brightness(bx, by, kwargs_source)).reshape(side, side)
            lit[channel] = scipy.fft.rfft2(image, s=(fast, fast))
        arcs = {}
        for psf, channel, spectrum in zip(scene.psfs, channels, spectra, strict=True):
            fine = scipy.fft.irfft2(lit[channel] * spectrum, s=(fast, fast))[:side, :side]
            arcs[psf.band] = cell * _summed(fine, scene.size_pix, supersampling)
        return arcs

    return render


def galsim_of_lensed(scene: Scene, supersampling: int, rays_per_cell: int = 3) -> Callable[[], Arcs]:
    """GalSim convolving and drawing the lensed light, which it is given for free on a grid of cells (means of rays)."""
    import galsim

    side, cell = scene.size_pix * supersampling, scene.pixscale_arcsec / supersampling
    fine = side * rays_per_cell
    at = (np.arange(fine) - 0.5 * (fine - 1)) * cell / rays_per_cell
    x, y = (grid.ravel() for grid in np.meshgrid(at, at))
    mass, kwargs_lens, light = lens_and_light(scene)
    bx, by = mass.ray_shooting(x, y, kwargs_lens)
    channels = [scene.channel(i) for i in range(len(scene.psfs))]
    images = {}
    for index, channel in enumerate(channels):
        light.delete_interpol_caches()
        brightness = np.asarray(light.surface_brightness(bx, by, _kwargs_source(scene, index))).reshape(fine, fine)
        images[channel] = _summed(brightness, side, rays_per_cell) / rays_per_cell**2 * cell**2
    pixel = galsim.Pixel(scene.pixscale_arcsec)
    moffats = [galsim.Moffat(beta=p.beta, fwhm=p.fwhm_pix * scene.pixscale_arcsec) for p in scene.psfs]
    epsfs = [galsim.Convolve(m, pixel) for m in moffats]

    def render() -> Arcs:
        lensed = {
            c: galsim.InterpolatedImage(galsim.Image(i, scale=cell), normalization="flux") for c, i in images.items()
        }
        arcs = {}
        for psf, channel, epsf in zip(scene.psfs, channels, epsfs, strict=True):
            drawn = galsim.Convolve(lensed[channel], epsf).drawImage(
                nx=scene.size_pix, ny=scene.size_pix, scale=scene.pixscale_arcsec, method="no_pixel", dtype=np.float64
            )
            arcs[psf.band] = drawn.array
        return arcs

    return render


def _kwargs_source(scene: Scene, band_index: int) -> list[dict[str, Any]]:
    channel = scene.channel(band_index)
    both = lenstronomy_kwargs(scene.lens, scene.template, channel, scene.source_xy_arcsec, scene.lens_xy_arcsec)
    return both[1]


def _around_zero(kernel: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """A kernel with its centre at (0, 0) of a periodic grid."""
    padded = np.zeros((side, side))
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    half = kernel.shape[0] // 2
    return np.roll(padded, (-half, -half), axis=(0, 1))


def _summed(fine: NDArray[np.float64], side: int, factor: int) -> NDArray[np.float64]:
    return fine.reshape(side, factor, side, factor).sum(axis=(1, 3))
