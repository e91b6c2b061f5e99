"""From lensed surface brightness to the arc on a stamp: one convolution with the effective PSF.

The PSF of a coadd is an *effective* PSF: it contains the pixel response, which must not be applied again. A point
of light at offset d from a pixel's centre therefore adds K(i − d), the kernel shifted by d, to pixel i. In Fourier
space the shift is exp(−ik·d), and the Rayleigh expansion (DLMF 10.60.7) on the pixel |d| ≤ h = pixel/2,

    exp(−ikd) = Σ_m (2m+1) (−i)^m j_m(kh) P_m(d/h),

turns the sum over all light in a pixel into its Legendre moments. Order 0 alone is "bin, then convolve" (4 % of the
peak off in the median: the pixel is applied twice); order 3 is as good as shifting every ray (docs/rendering.md).
The grid is padded by the kernel's radius, so light that falls off the stamp still reaches it through the wings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.special import spherical_jn

from dhs_gen.lensing.models import MassModel
from dhs_gen.lensing.rays import Accuracy, moment_orders, shoot
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
        (channels, side, side//2 + 1) complex: Fourier transform of the light on the padded grid, sub-pixel
        positions included.
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
    moments = shoot(lens, template, source_xy_arcsec, on_padded, grid.padded_pix, grid.pixscale_arcsec, accuracy)
    flux = moments[:, 0].sum(axis=(1, 2)) * grid.pixscale_arcsec**2
    if rearrange is not None:
        moments = rearrange(moments)
    spectrum = light_spectrum(moments, accuracy.moment_order) * grid.pixscale_arcsec**2
    return LensedSource(spectrum=spectrum, magnification=flux, grid=grid)


def light_spectrum(moments: NDArray[np.float64], max_order: int) -> NDArray[np.complex128]:
    """Fourier transform of light of which each pixel's Legendre moments are known.

    Parameters
    ----------
    moments
        (channels, K, side, side), from :func:`dhs_gen.lensing.rays.shoot`.
    max_order
        Highest total order of the moments.

    Returns
    -------
    ndarray
        (channels, side, side//2 + 1) complex, as ``rfft2`` lays it out.
    """
    channels, _, side, _ = moments.shape
    along_x, along_y = _moment_transfer(side, max_order)
    lit = np.flatnonzero(moments[:, 0].any(axis=(0, 2)))
    spectrum = np.zeros((channels, side, side // 2 + 1), dtype=np.complex128)
    if lit.size == 0:
        return spectrum
    rows = slice(int(lit[0]), int(lit[-1]) + 1)
    by_column = scipy.fft.rfft(moments[:, :, rows], axis=-1)
    # The transfer function separates, so orders along x are summed before the transform along y.
    for n in range(max_order + 1):
        terms = [(k, m) for k, (m, order) in enumerate(moment_orders(max_order)) if order == n]
        summed = np.zeros_like(spectrum)
        for k, m in terms:
            summed[:, rows] += by_column[:, k] * along_x[m]
        spectrum += scipy.fft.fft(summed, axis=1) * along_y[n][:, None]
    return spectrum


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
    grid = source.grid
    check_kernel(kernel, grid.kernel_size_pix)
    side = grid.padded_pix
    product = source.spectrum[channel] * _kernel_spectrum(kernel, side)
    image = scipy.fft.irfft2(product, s=(side, side))
    inner = slice(grid.pad_pix, grid.pad_pix + grid.size_pix)
    return image[inner, inner]


def check_kernel(kernel: NDArray[np.float64], size_pix: int) -> None:
    """ValueError unless the kernel is (size, size), size odd, finite and of unit sum."""
    if kernel.shape != (size_pix, size_pix) or size_pix % 2 == 0:
        raise ValueError(f"kernel must have the odd shape ({size_pix}, {size_pix}), got {kernel.shape}")
    total = float(kernel.sum())
    if not abs(total - 1.0) < 1e-6:  # NaN fails too
        raise ValueError(f"kernel must be finite and sum to 1, got a sum of {total!r}")


def _kernel_spectrum(kernel: NDArray[np.float64], side: int) -> NDArray[np.complex128]:
    """Transform of a centred kernel with its centre moved to pixel (0, 0).

    The stamp is the only part of the grid that is read and the kernel reaches no farther than the padding, so the
    wrap-around of the circular convolution never gets there.
    """
    padded = np.zeros((side, side))
    half = kernel.shape[0] // 2
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    return scipy.fft.rfft2(np.roll(padded, (-half, -half), axis=(0, 1)))


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
