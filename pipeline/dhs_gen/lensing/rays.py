"""Ray shooting: where the light of a lensed source falls within each pixel.

Rays are shot on a regular odd sub-grid of each pixel, as densely as the source at the other end needs, and the
surface brightness they find is kept as a few Legendre moments of its distribution over the pixel. The moments are
all that a convolution with the PSF needs (see :mod:`dhs_gen.lensing.render`), so the number of rays may differ from
pixel to pixel and costs nothing afterwards. Rays are shot once for all bands, by :mod:`dhs_gen.lensing.ray_kernels`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.models import MassModel
from dhs_gen.lensing.pixel_field import node_weights
from dhs_gen.lensing.ray_kernels import Sampling, Source, shoot_box
from dhs_gen.lensing.templates import SourceTemplate


@dataclass(frozen=True)
class Accuracy:
    """The renderer's knobs, in one place.

    Parameters
    ----------
    rays_per_resolution
        Rays per ``resolution_arcsec`` of the template, measured on the source plane.
    min_supersampling, max_supersampling
        Bounds on the rays per pixel and axis; odd, so that a ray passes through the pixel's centre.
    moment_order
        Highest total order of the Legendre moments kept per pixel. Order 0 is "bin, then convolve".
    """

    rays_per_resolution: float
    min_supersampling: int
    max_supersampling: int
    moment_order: int

    def __post_init__(self) -> None:
        for name in ("min_supersampling", "max_supersampling"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd and positive, got {getattr(self, name)!r}")
        if not self.rays_per_resolution > 0:
            raise ValueError(f"rays_per_resolution must be positive, got {self.rays_per_resolution!r}")
        if self.moment_order < 0:
            raise ValueError(f"moment_order must not be negative, got {self.moment_order!r}")


@dataclass(frozen=True, eq=False)
class PixelLight:
    """Light on a grid of pixels, with its distribution inside each; dark borders are left out.

    Parameters
    ----------
    moments
        (channels, K, rows, columns) float64, K = len(moment_orders(order)): the mean over the pixel of
        SB(x, y) P_m(2x) P_n(2y), with x, y in pixels from the pixel's centre and SB in 1/arcsec² (the source has unit
        flux). The (0, 0) moment is the mean surface brightness.
    first_col, first_row
        Where the first pixel lies on the grid; all other pixels of the grid are dark.
    """

    moments: NDArray[np.float64]
    first_col: int
    first_row: int

    def on_grid(self, side_pix: int) -> NDArray[np.float64]:
        """(channels, K, side, side): the moments of every pixel of the grid."""
        channels, n_moments, rows, columns = self.moments.shape
        grid = np.zeros((channels, n_moments, side_pix, side_pix))
        grid[:, :, self.first_row : self.first_row + rows, self.first_col : self.first_col + columns] = self.moments
        return grid

    def lit(self) -> PixelLight:
        """The same light from its first to its last row and column that hold any."""
        has_light = (self.moments[:, 0] != 0).any(axis=0)
        rows, columns = np.flatnonzero(has_light.any(axis=1)), np.flatnonzero(has_light.any(axis=0))
        if rows.size == 0:
            return PixelLight(self.moments[:, :, :0, :0], self.first_col, self.first_row)
        inner = self.moments[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return PixelLight(inner, self.first_col + int(columns[0]), self.first_row + int(rows[0]))


@lru_cache
def moment_orders(max_order: int) -> NDArray[np.int64]:
    """(K, 2) pairs (m, n) with m + n ≤ max_order; m along columns, n along rows; (0, 0) first."""
    pairs = [(m, n) for n in range(max_order + 1) for m in range(max_order + 1) if m + n <= max_order]
    return np.array(sorted(pairs, key=sum), dtype=np.int64)


@lru_cache
def _legendre_tables(max_order: int, max_supersampling: int) -> NDArray[np.float64]:
    """[s, m, i]: P_m at the i-th of s ray positions in a pixel, which spans [−1, 1]."""
    tables = np.zeros((max_supersampling + 1, max_order + 1, max_supersampling))
    for s in range(1, max_supersampling + 1):
        t = (2 * np.arange(s) + 1) / s - 1
        for m in range(max_order + 1):
            tables[s, m, :s] = np.polynomial.legendre.Legendre.basis(m)(t)
    return tables


def shoot(
    lens: MassModel,
    template: SourceTemplate,
    source_xy_arcsec: tuple[float, float],
    lens_xy_pix: tuple[float, float],
    side_pix: int,
    pixscale_arcsec: float,
    accuracy: Accuracy,
) -> PixelLight:
    """The lensed surface brightness in every pixel of a square grid.

    Parameters
    ----------
    lens, template
        The mass and the source.
    source_xy_arcsec
        Centre of the template relative to the lens centre, on the source plane, (x, y) arcsec.
    lens_xy_pix
        Lens centre on the grid, (column, row) from 0.
    side_pix, pixscale_arcsec
        The grid.
    accuracy
        Ray density and highest moment.
    """
    reach_pix = lens.reach_arcsec(math.hypot(*source_xy_arcsec) + template.radius_arcsec) / pixscale_arcsec + 1.0
    first_col, last_col = _reached(lens_xy_pix[0], reach_pix, side_pix)
    first_row, last_row = _reached(lens_xy_pix[1], reach_pix, side_pix)
    orders = moment_orders(accuracy.moment_order)
    if last_col < first_col or last_row < first_row:
        return PixelLight(np.zeros((len(template.pixels), len(orders), 0, 0)), 0, 0)
    moments = shoot_box(
        tuple(lens.params().tolist()),
        lens.extras(),
        _source(template, source_xy_arcsec),
        _sampling(lens, template, accuracy),
        (float(lens_xy_pix[0] - first_col), float(lens_xy_pix[1] - first_row)),
        (last_row - first_row + 1, last_col - first_col + 1),
        float(pixscale_arcsec),
    )
    return PixelLight(moments, first_col, first_row)


def _reached(centre_pix: float, reach_pix: float, side_pix: int) -> tuple[int, int]:
    """First and last pixel along an axis that a ray can leave for the source."""
    return max(0, math.floor(centre_pix - reach_pix)), min(side_pix - 1, math.ceil(centre_pix + reach_pix))


def _source(template: SourceTemplate, centre_xy_arcsec: tuple[float, float]) -> Source:
    channels, rows, columns = template.pixels.shape
    bordered = np.zeros((channels, rows + 3, columns + 3))
    np.multiply(template.pixels, 1.0 / template.pixscale_arcsec**2, out=bordered[:, 1 : rows + 1, 1 : columns + 1])
    scale = 1.0 / template.pixscale_arcsec
    return Source(
        bordered.reshape(channels, -1),
        rows,
        columns,
        float(centre_xy_arcsec[0]),
        float(centre_xy_arcsec[1]),
        math.cos(template.phi_rad) * scale,
        math.sin(template.phi_rad) * scale,
        -1.0 if template.flip else 1.0,
    )


def _sampling(lens: MassModel, template: SourceTemplate, accuracy: Accuracy) -> Sampling:
    halos = lens.subhalos
    return Sampling(
        template.resolution_arcsec / template.pixscale_arcsec / accuracy.rays_per_resolution,
        template.resolution_growth / accuracy.rays_per_resolution,
        accuracy.min_supersampling,
        accuracy.max_supersampling,
        moment_orders(accuracy.moment_order),
        _legendre_tables(accuracy.moment_order, accuracy.max_supersampling),
        node_weights(accuracy.max_supersampling),
        np.empty(0) if halos is None else 2.0 * halos.max_deflections_arcsec() / template.pixscale_arcsec,
    )
