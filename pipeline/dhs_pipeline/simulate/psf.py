"""psfsize maps and the Moffat that has a given noise-equivalent psfsize.

psfsize is not a FWHM: it is the FWHM of the Gaussian with the same noise-equivalent area as the
*pixel-convolved* PSF (legacypipe coadds.py): NEA = pix^2 / sum(p^2), psfsize = 2.3548 sqrt(NEA / 4 pi).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhs_gen.streams import stream
from dhs_pipeline.config.base import Band
from dhs_pipeline.simulate.profiles import RadialTransform, draw, moffat_transform
from dhs_pipeline.simulate.settings import BrickSettings, SimulationSettings

_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
_SOLVE_NODES = 9
_PSFSIZE_DECIMALS = 3


def nea_arcsec2(psfsize_arcsec: float) -> float:
    """Noise-equivalent area, arcsec^2, of a PSF of this psfsize."""
    return 4.0 * np.pi * (psfsize_arcsec / _FWHM_PER_SIGMA) ** 2


def kernel_psfsize_arcsec(kernel: NDArray[np.float64], pixscale_arcsec: float) -> float:
    """psfsize of a PSF on the pixel grid (any sum), arcsec."""
    p = kernel / kernel.sum()
    return float(_FWHM_PER_SIGMA * pixscale_arcsec / np.sqrt(4.0 * np.pi * np.sum(p**2)))


def psfsize_map(brick: BrickSettings, band: Band, settings: SimulationSettings) -> NDArray[np.float64]:
    """(N, N) psfsize, arcsec: a random quadratic surface around the brick's median, in steps of 0.001."""
    n = settings.brick_size_px
    rng = stream(brick.name, "psfsize-surface", salt=str(settings.seed), band=band)
    y, x = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n), indexing="ij")
    a = rng.normal(size=5)
    surface = a[0] * x + a[1] * y + 0.5 * (a[2] * (x**2 - 1 / 3) + a[3] * (y**2 - 1 / 3) + a[4] * x * y)
    surface *= settings.psf.psfsize_variation / np.abs(surface).max()
    return np.round(brick.psfsize_arcsec[band] * (1.0 + surface), _PSFSIZE_DECIMALS)


@dataclass(frozen=True)
class MoffatSolver:
    """Scale radius of the optical Moffat (no pixel) whose drawn image has a given psfsize."""

    beta: float
    transform: RadialTransform
    psfsize_nodes_arcsec: NDArray[np.float64]
    alpha_nodes_arcsec: NDArray[np.float64]

    def alpha_arcsec(self, psfsize_arcsec: float) -> float:
        """Moffat scale radius. Raises ValueError outside the tabulated range."""
        lowest, highest = self.psfsize_nodes_arcsec[[0, -1]]
        if not lowest <= psfsize_arcsec <= highest:
            raise ValueError(f"psfsize {psfsize_arcsec:.3f} arcsec outside the solved {lowest:.2f}-{highest:.2f}")
        return float(np.interp(psfsize_arcsec, self.psfsize_nodes_arcsec, self.alpha_nodes_arcsec))

    def wing_radius_px(self, flux_nmgy: float, psfsize_arcsec: float, level_nmgy: float, pixscale: float) -> int:
        """Radius, px, at which a star of this flux falls to ``level_nmgy`` per pixel."""
        alpha = self.alpha_arcsec(psfsize_arcsec)
        peak = flux_nmgy * pixscale**2 * (self.beta - 1.0) / (np.pi * alpha**2)
        ratio = max(peak / level_nmgy, 1.0) ** (1.0 / self.beta) - 1.0
        return int(np.ceil(alpha * np.sqrt(ratio) / pixscale))


def solve_moffat(band: Band, brick: BrickSettings, settings: SimulationSettings) -> MoffatSolver:
    """Tabulate psfsize against scale radius around the range that the brick's map takes."""
    beta, pix = settings.psf.moffat_beta[band], settings.pixscale_arcsec
    transform = moffat_transform(beta)
    hwhm = np.sqrt(2.0 ** (1.0 / beta) - 1.0)
    reach = 1.0 + 2.0 * settings.psf.psfsize_variation + 0.02
    fwhm = brick.psfsize_arcsec[band] * np.linspace(0.6 / reach, reach, _SOLVE_NODES)
    alphas = 0.5 * fwhm / hwhm
    half = settings.psf.solve_kernel_px // 2
    psfsizes = [kernel_psfsize_arcsec(draw(half, (0.0, 0.0), a, transform, None, pix), pix) for a in alphas]
    return MoffatSolver(beta, transform, np.asarray(psfsizes), alphas)
