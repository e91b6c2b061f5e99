"""PSF kernels, convolution and resampling beside GalSim, scipy and closed formulas; prints Markdown.

    python benchmarks/parity_kernels.py

Needs the extra "banks" (GalSim). Exit code 1 if a row is beyond its tolerance.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import galsim
import numpy as np
from numpy.typing import NDArray
from parity_rows import ParityRow, markdown
from scipy import signal

from dhs_gen.moffat import pixel_integrated_elliptical_moffat, pixel_integrated_moffat
from dhs_gen.psf import elliptical_moffat_for_psfsize, moffat_for_psfsize
from dhs_gen.utils import bilinear_resample, fft_convolve2d, gaussian_kernel, moffat_kernel

PIXSCALE_ARCSEC = 0.262
SIZE_PIX = 63
EXACT = galsim.GSParams(
    folding_threshold=2e-5,
    maxk_threshold=2e-5,
    kvalue_accuracy=1e-8,
    stepk_minimum_hlr=10,
    maximum_fft_size=32768,
    integration_relerr=1e-8,
    integration_abserr=1e-10,
)
RESAMPLINGS = (("0.03″ → 0.262″", 0.03 / 0.262), ("0.168″ → 0.262″", 0.168 / 0.262), ("0.262″ → 0.168″", 0.262 / 0.168))


def rows() -> list[ParityRow]:
    """Every comparison of this module."""
    return [*kernel_rows(), *psfsize_rows(), *convolution_rows(), *resampling_rows()]


# ------------------------------------------------------------------------------------------------------------ kernels


def kernel_rows() -> Iterator[ParityRow]:
    """Pixel-integrated profiles; GalSim integrates over the pixel in real space, at points of the kernel."""
    worst = max(real_space(galsim.Gaussian(fwhm=f), gaussian_kernel(f, SIZE_PIX)) for f in (0.5, 2.0, 4.0, 6.0))
    yield ParityRow(
        "`gaussian_kernel`, FWHM 0.5-6 px", "GalSim, real space", "largest pixel difference / peak", worst, 1e-6
    )
    worst = max(
        real_space(galsim.Moffat(beta=b, fwhm=f), pixel_integrated_moffat(f, b, SIZE_PIX))
        for f in (0.5, 2.0, 4.0, 6.0)
        for b in (2.5, 3.5, 4.765)
    )
    yield ParityRow(
        "round Moffat, FWHM 0.5-6 px, β 2.5-4.765", "GalSim, real space", "largest pixel difference / peak", worst, 1e-5
    )
    worst = max(
        drawn(galsim.Moffat(beta=b, fwhm=4.0, gsparams=EXACT).shear(g=e, beta=phi * galsim.radians), b, e, phi)
        for b in (2.5, 3.5)
        for e, phi in ((0.05, 0.0), (0.1, 0.7), (0.3, 2.1))
    )
    yield ParityRow(
        "elliptical Moffat, FWHM 4 px, e ≤ 0.3", "GalSim, FFT", "largest pixel difference / peak", worst, 1e-4
    )
    yield ParityRow(
        "flux inside 3 × 3 px, FWHM 0.01 px",
        "1 − (1 + r²/α²)^(1−β), r from the inner to the outer circle",
        "distance outside of the bounds",
        narrow_core_excess(),
        0.0,
    )


def real_space(profile: galsim.GSObject, kernel: NDArray[np.float64]) -> float:
    """Largest difference over the peak at pixels out to the corner."""
    half = kernel.shape[0] // 2
    exact = galsim.Convolve(profile, galsim.Pixel(1.0), real_space=True, gsparams=EXACT)
    at = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (3, 0), (5, 2), (8, 8), (half, 0), (half, half)]
    return max(abs(kernel[half + y, half + x] - exact.xValue(float(x), float(y))) for x, y in at) / kernel.max()


def drawn(profile: galsim.GSObject, beta: float, e: float, phi_rad: float) -> float:
    """Largest difference over the peak, all pixels."""
    theirs = profile.drawImage(nx=33, ny=33, scale=1.0, dtype=float).array
    ours = pixel_integrated_elliptical_moffat(4.0, beta, e, phi_rad, 33)
    return float(np.abs(ours - theirs).max() / theirs.max())


def narrow_core_excess() -> float:
    fwhm_pix, beta = 0.01, 2.5
    alpha = fwhm_pix / (2.0 * math.sqrt(2.0 ** (1.0 / beta) - 1.0))
    inside = float(pixel_integrated_moffat(fwhm_pix, beta, 3).sum())
    inner, outer = (1.0 - (1.0 + r2 / alpha**2) ** (1.0 - beta) for r2 in (2.25, 4.5))
    return max(0.0, inner - inside, inside - outer)


def psfsize_rows() -> Iterator[ParityRow]:
    """NEA of the drawn kernel, by the survey's definition."""
    sizes = (0.9, 1.1, 1.3, 1.5, 1.7)
    worst = max(abs(psfsize(moffat_for_psfsize(s, 3.0, PIXSCALE_ARCSEC, SIZE_PIX).kernel) / s - 1) for s in sizes)
    yield ParityRow("round PSF of a given psfsize", "2.3548 √(NEA/4π)", "relative difference of psfsize", worst, 1e-4)
    worst = max(
        abs(psfsize(elliptical_moffat_for_psfsize(s, 3.0, PIXSCALE_ARCSEC, SIZE_PIX, 0.1, 0.4).kernel) / s - 1)
        for s in sizes
    )
    yield ParityRow(
        "elliptical PSF of a given psfsize, e = 0.1", "the same", "relative difference of psfsize", worst, 5e-4
    )


def psfsize(kernel: NDArray[np.float64]) -> float:
    p = kernel / kernel.sum()
    return math.sqrt(8.0 * math.log(2.0) / (4.0 * math.pi * float((p**2).sum()))) * PIXSCALE_ARCSEC


# -------------------------------------------------------------------------------------------------------- convolution


def convolution_rows() -> Iterator[ParityRow]:
    image = np.random.default_rng(1).standard_normal((64, 64))
    kernel = moffat_kernel(4.5, 3.0, 33)
    difference = np.abs(fft_convolve2d(image, kernel) - signal.convolve2d(image, kernel, "same")).max()
    yield ParityRow(
        "`fft_convolve2d`, 64² by 33²", "scipy convolve2d", "largest difference, σ = 1", float(difference), 1e-12
    )
    difference = np.abs(fft_convolve2d(image, kernel) - signal.fftconvolve(image, kernel, "same")).max()
    yield ParityRow(
        "`fft_convolve2d`, 64² by 33²", "scipy fftconvolve", "largest difference, σ = 1", float(difference), 1e-12
    )
    worst = 0.0
    for side in (1, 33, 63, 145):
        delta = np.zeros((side, side))
        delta[side // 2, side // 2] = 1.0
        worst = max(worst, float(np.abs(fft_convolve2d(image, delta) - image).max()))
    yield ParityRow("delta kernels of 1 to 145 px on 64 px", "the image", "largest difference, σ = 1", worst, 1e-12)


# --------------------------------------------------------------------------------------------------------- resampling


def resampling_rows() -> Iterator[ParityRow]:
    for name, scale in RESAMPLINGS:
        yield ParityRow(
            f"point source, {name}, all phases", "its flux", "largest difference of the sum", point_source(scale), 5e-3
        )
    for name, scale in RESAMPLINGS:
        interpolant = "nearest" if scale < 1 else "linear"
        yield ParityRow(
            f"noise image, {name}",
            f"GalSim InterpolatedImage ({interpolant}) with the new pixel, real space",
            "largest pixel difference / largest pixel",
            interpolated_image(scale, interpolant),
            1e-4,
        )
    for name, scale in RESAMPLINGS[:2]:
        yield ParityRow(
            f"disc galaxy, HLR 0.25″, seen at 0.6″, {name}",
            "GalSim, through the old pixel twice and the new one",
            "largest pixel difference / peak",
            galaxy(scale),
            2e-2,
        )


def point_source(scale: float) -> float:
    sums = []
    for y in range(16, 33):
        for x in range(16, 33):
            image = np.zeros((49, 49))
            image[y, x] = 1.0
            sums.append(bilinear_resample(image, scale, scale).sum())
    return float(np.abs(np.array(sums) - 1.0).max())


def interpolated_image(scale: float, interpolant: str) -> float:
    """GalSim's images end in zeros: so does this one."""
    image = np.random.default_rng(8).uniform(0.0, 1.0, (15, 17))
    image[[0, -1], :] = 0.0
    image[:, [0, -1]] = 0.0
    ours = bilinear_resample(image, scale, scale)
    source = galsim.InterpolatedImage(galsim.Image(image, scale=1.0), x_interpolant=interpolant, normalization="flux")
    exact = galsim.Convolve(source, galsim.Pixel(1.0 / scale), real_space=True, gsparams=EXACT)
    height, width = ours.shape
    cells = [(row, col) for row in range(height) for col in range(width)][:: max(1, height * width // 12)]
    places = [((col - 0.5 * (width - 1)) / scale, (row - 0.5 * (height - 1)) / scale) for row, col in cells]
    theirs = [exact.xValue(x, y) / scale**2 for x, y in places]
    return max(abs(ours[cell] - value) for cell, value in zip(cells, theirs, strict=True)) / float(ours.max())


def galaxy(scale: float) -> float:
    """Drawn with the old pixel and resampled, against drawn with all pixels at the new scale.

    A resampled pixel is a flat square: the light goes through the old pixel a second time.
    """
    old = PIXSCALE_ARCSEC * scale
    disc = galsim.Exponential(half_light_radius=0.25).shear(g=0.2, beta=0.5 * galsim.radians)
    light = galsim.Convolve(disc, galsim.Gaussian(fwhm=0.6))
    side = 2 * round(12.0 / old / 2) + 1
    image = light.drawImage(nx=side, ny=side, scale=old, dtype=float).array
    ours = bilinear_resample(image, scale, scale)
    seen = galsim.Convolve(light, galsim.Pixel(old), galsim.Pixel(old), galsim.Pixel(PIXSCALE_ARCSEC))
    height, width = ours.shape
    theirs = seen.drawImage(nx=width, ny=height, scale=PIXSCALE_ARCSEC, method="no_pixel", dtype=float).array
    return float(np.abs(ours - theirs).max() / theirs.max())


def main() -> int:
    made = rows()
    print(markdown(made))
    return 0 if all(row.passes for row in made) else 1


if __name__ == "__main__":
    sys.exit(main())
