"""From lensed surface brightness to the arc on a stamp: one convolution with the effective PSF.

The PSF of a coadd is an *effective* PSF: it contains the pixel response, which must not be applied again. A point
of light at offset d from a pixel's centre therefore adds K(i − d), the kernel shifted by d, to pixel i. In Fourier
space the shift is exp(−ik·d), and the Rayleigh expansion (DLMF 10.60.7) on the pixel |d| ≤ h = pixel/2,

    exp(−ikd) = Σ_m (2m+1) (−i)^m j_m(kh) P_m(d/h),

turns the sum over all light in a pixel into its Legendre moments. Order 0 alone is "bin, then convolve" (4 % of the
peak off in the median: the pixel is applied twice); order 3 is as good as shifting every ray (docs/rendering.md).
Rays are shot on a grid padded by the kernel's radius, so light off the stamp still reaches it through the wings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.special import spherical_jn

from dhs_gen.lensing.models import MassModel
from dhs_gen.lensing.rays import Accuracy, PixelLight, moment_orders, shoot
from dhs_gen.lensing.templates import SourceTemplate


@dataclass(frozen=True)
class StampGrid:
    """A square stamp and the wider grid it is rendered on.

    Parameters
    ----------
    size_pix, pixscale_arcsec
        The stamp.
    kernel_size_pix
        Side of the PSF kernels (odd); the grid is wider than the stamp by half of it on each side.
    """

    size_pix: int
    pixscale_arcsec: float
    kernel_size_pix: int

    def __post_init__(self) -> None:
        if self.size_pix < 1:
            raise ValueError(f"size_pix must be positive, got {self.size_pix!r}")
        if self.kernel_size_pix < 1 or self.kernel_size_pix % 2 == 0:
            raise ValueError(f"kernel_size_pix must be odd and positive, got {self.kernel_size_pix!r}")

    @property
    def pad_pix(self) -> int:
        return self.kernel_size_pix // 2

    @property
    def padded_pix(self) -> int:
        return self.size_pix + 2 * self.pad_pix


@dataclass(frozen=True, eq=False)
class LensedSource:
    """A lensed source of unit flux before the PSF.

    Parameters
    ----------
    spectrum
        (channels, side, side//2 + 1) complex: Fourier transform of the light, sub-pixel positions included, with the
        stamp's first pixel at the origin. ``side`` is wide enough that nothing wraps around into the stamp.
    magnification
        (channels,) lensed over unlensed flux on the padded grid.
    grid
        The stamp.
    """

    spectrum: NDArray[np.complex128]
    magnification: NDArray[np.float64]
    grid: StampGrid


def lens_source(
    lens: MassModel,
    template: SourceTemplate,
    source_xy_arcsec: tuple[float, float],
    lens_xy_pix: tuple[float, float],
    grid: StampGrid,
    accuracy: Accuracy,
    rearrange: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
) -> LensedSource:
    """Shoot rays once, for all bands.

    Parameters
    ----------
    lens, template
        The mass and the source.
    source_xy_arcsec
        Source centre relative to the lens centre, (x, y) arcsec.
    lens_xy_pix
        Lens centre on the stamp, (column, row) from 0; sub-pixel.
    grid, accuracy
        The stamp and how well to render it.
    rearrange
        Moves pixels of the light before the PSF: takes and gives the moments (channels, K, side, side) on the padded
        grid, of which all channels and orders must move together. None leaves them where they are.
    """
    on_padded = (lens_xy_pix[0] + grid.pad_pix, lens_xy_pix[1] + grid.pad_pix)
    light = shoot(lens, template, source_xy_arcsec, on_padded, grid.padded_pix, grid.pixscale_arcsec, accuracy)
    flux = light.moments[:, 0].sum(axis=(1, 2)) * grid.pixscale_arcsec**2
    if rearrange is not None:
        light = PixelLight(rearrange(light.on_grid(grid.padded_pix)), 0, 0)
    return LensedSource(_light_spectrum(light, grid, accuracy.moment_order), magnification=flux, grid=grid)


def _light_spectrum(light: PixelLight, grid: StampGrid, max_order: int) -> NDArray[np.complex128]:
    """Fourier transform of light of which each pixel's Legendre moments are known, flux per pixel.

    The stamp's first pixel is the origin, and what lies before it wraps around. The stamp is the only part that is
    read, and kernels reach no farther than ``grid.pad_pix``, so ``side`` need not hold the whole padded grid: light at
    pixels a…b of the stamp stays out of it the wrong way around if side > b + pad and side > size − 1 − a + pad.
    """
    light = light.lit()
    channels, n_moments, n_rows, n_cols = light.moments.shape
    first_row, first_col = light.first_row - grid.pad_pix, light.first_col - grid.pad_pix
    farthest = max(grid.size_pix - min(first_row, first_col), first_row + n_rows, first_col + n_cols)
    side = _fast_side(max(farthest + grid.pad_pix, grid.kernel_size_pix))
    if n_rows == 0:
        return np.zeros((channels, side, side // 2 + 1), dtype=np.complex128)

    padded = np.zeros((channels, n_moments, n_rows, side))
    padded[..., np.arange(first_col, first_col + n_cols) % side] = light.moments
    by_column = scipy.fft.rfft(padded, axis=-1)
    along_x, along_y = _moment_transfer(side, max_order)
    # The transfer function separates, so orders along x are summed before the transform along y.
    by_order = scipy.fft.fft(
        _sum_along_x(by_column, along_x, moment_orders(max_order), first_row), axis=2, overwrite_x=True
    )
    return np.asarray(_sum_along_y(by_order, along_y * grid.pixscale_arcsec**2))


@numba.njit(cache=True)
def _sum_along_x(by_column, along_x, orders, first_row):  # type: ignore[no-untyped-def]
    """Rows of moments (channels, K, rows, side//2 + 1) by their order along y: (order, channels, side, side//2 + 1)."""
    channels, n_moments, n_rows, half = by_column.shape
    side = 2 * (half - 1)  # even, by _fast_side
    summed = np.zeros((along_x.shape[0], channels, side, half), np.complex128)
    for k in range(n_moments):
        m, n = orders[k, 0], orders[k, 1]
        for c in range(channels):
            for row in range(n_rows):
                at = (first_row + row) % side
                for f in range(half):
                    summed[n, c, at, f] += by_column[c, k, row, f] * along_x[m, f]
    return summed


@numba.njit(cache=True)
def _sum_along_y(by_order, along_y):  # type: ignore[no-untyped-def]
    """(order, channels, side, side//2 + 1) times the transfer along y (order, side), summed over the orders."""
    n_orders, channels, side, half = by_order.shape
    total = np.zeros((channels, side, half), np.complex128)
    for n in range(n_orders):
        for c in range(channels):
            for row in range(side):
                factor = along_y[n, row]
                for f in range(half):
                    total[c, row, f] += by_order[n, c, row, f] * factor
    return total


def _fast_side(least: int) -> int:
    """A side of at least ``least`` pixels whose transform is fast; few different ones, so that kernels are kept."""
    return -(-least // 16) * 16


def draw(source: LensedSource, channel: int, kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convolve one channel of a lensed source with a band's effective PSF.

    Parameters
    ----------
    source
        From :func:`lens_source`.
    channel
        Channel of the template.
    kernel
        (k, k) effective PSF on the pixel grid, k = ``grid.kernel_size_pix``, unit sum.

    Returns
    -------
    ndarray
        (size, size) float64, flux per pixel for a source of unit unlensed flux.

    Raises
    ------
    ValueError
        If the kernel has another shape, is not finite or does not sum to 1.
    """
    check_kernel(kernel, source.grid.kernel_size_pix)
    return convolve(source.spectrum[channel], kernel_spectrum(kernel, source.spectrum.shape[1]), source.grid.size_pix)


def convolve(light: NDArray[np.complex128], kernels: NDArray[np.complex128], size_pix: int) -> NDArray[np.float64]:
    """Spectra of light and of kernels (…, side, side//2 + 1) → stamps (…, size, size), flux per pixel."""
    side = light.shape[-2]
    by_column = scipy.fft.ifft(light * kernels, axis=-2, overwrite_x=True)[..., :size_pix, :]
    return np.asarray(scipy.fft.irfft(by_column, n=side, axis=-1)[..., :size_pix])


def check_kernel(kernel: NDArray[np.float64], size_pix: int) -> None:
    """ValueError unless the kernel is (size, size), size odd, finite and of unit sum."""
    if kernel.shape != (size_pix, size_pix) or size_pix % 2 == 0:
        raise ValueError(f"kernel must have the odd shape ({size_pix}, {size_pix}), got {kernel.shape}")
    total = float(kernel.sum())
    if not abs(total - 1.0) < 1e-6:  # NaN fails too
        raise ValueError(f"kernel must be finite and sum to 1, got a sum of {total!r}")


def kernel_spectrum(kernel: NDArray[np.float64], side: int) -> NDArray[np.complex128]:
    """Transform (side, side//2 + 1) of a kernel whose centre is moved to pixel (0, 0)."""
    padded = np.zeros((side, side))
    half = kernel.shape[0] // 2
    at = np.arange(-half, half + 1) % side
    padded[np.ix_(at, at)] = kernel
    return np.asarray(scipy.fft.rfft2(padded))


@lru_cache(maxsize=8)
def _moment_transfer(side: int, max_order: int) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """(2m+1)(−i)^m j_m(πf) for m = 0…max_order, f in cycles per pixel: (order, side//2+1) and (order, side)."""
    along_x = np.array([_coefficient(m, scipy.fft.rfftfreq(side)) for m in range(max_order + 1)])
    along_y = np.array([_coefficient(n, scipy.fft.fftfreq(side)) for n in range(max_order + 1)])
    for table in (along_x, along_y):
        table.setflags(write=False)
    return along_x, along_y


def _coefficient(order: int, frequency: NDArray[np.float64]) -> NDArray[np.complex128]:
    parity = np.where(frequency < 0, (-1.0) ** order, 1.0)  # scipy's j_n takes non-negative arguments only
    return (2 * order + 1) * (-1j) ** order * parity * spherical_jn(order, np.pi * np.abs(frequency))
