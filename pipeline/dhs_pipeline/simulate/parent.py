"""The parent catalogue of the simulated bricks: Tractor-style, fluxes fitted to the simulated pixels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.wcs import WCS
from numpy.typing import NDArray

from dhs_pipeline.config.base import Band
from dhs_pipeline.simulate.psf import nea_arcsec2
from dhs_pipeline.simulate.render import BandMaps, Stamp
from dhs_pipeline.simulate.scene import Scene, Source
from dhs_pipeline.simulate.settings import ALL_BANDS, BrickSettings, SimulationSettings

Row = dict[str, Any]


def parent_schema() -> pa.Schema:
    """Arrow schema: names as in Tractor; float64 and int64, as in the parent of the real-pixel mosaic."""
    f, i, s = pa.float64(), pa.int64(), pa.string()
    names = {"release": i, "brickid": i, "objid": i, "brickname": s, "type": s}
    names |= {"ra": f, "dec": f, "bx": f, "by": f}
    for quantity in ("flux", "flux_ivar", "psfsize", "psfdepth", "mw_transmission"):
        names |= {f"{quantity}_{band}": f for band in ALL_BANDS}
    names |= {"ebv": f, "maskbits": i, "sersic": f, "shape_r": f, "shape_e1": f, "shape_e2": f}
    names |= {"z_phot": f, "sigma_v_km_s": f}
    return pa.schema(list(names.items()))


def parent_rows(
    brick: BrickSettings,
    scene: Scene,
    maps: dict[Band, BandMaps],
    maskbits: NDArray[np.int32],
    wcs: WCS,
    settings: SimulationSettings,
) -> list[Row]:
    """One row per host."""
    rows = []
    for objid, source in enumerate(scene.of_kind("host")):
        column, row = round(source.x_px), round(source.y_px)
        ra, dec = wcs.all_pix2world(source.x_px, source.y_px, 0)
        rows.append(
            {
                "release": settings.release, "brickid": brick.brickid, "objid": objid,
                "brickname": brick.name, "type": "DEV" if source.sersic_n == 4.0 else "SER",
                "ra": float(ra), "dec": float(dec), "bx": source.x_px, "by": source.y_px,
                "ebv": brick.ebv_mag, "maskbits": int(maskbits[row, column]),
                "sersic": source.sersic_n, "shape_r": source.shape_r_arcsec,
                "shape_e1": source.e1, "shape_e2": source.e2,
                "z_phot": source.z_phot, "sigma_v_km_s": source.sigma_v_km_s,
                **_band_columns(brick, source, objid, maps, settings),
            }
        )  # fmt: skip
    return rows


def write_parent(path: Path, rows: Iterable[Row]) -> None:
    """Write parent.parquet; the same rows give the same bytes."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=parent_schema()), path)


def _band_columns(
    brick: BrickSettings, source: Source, objid: int, maps: dict[Band, BandMaps], settings: SimulationSettings
) -> Row:
    columns: Row = {}
    at = round(source.y_px), round(source.x_px)
    for band in ALL_BANDS:
        m = maps[band]
        flux, flux_ivar = _fitted_flux(source.flux_nmgy[band], m.host_stamps[objid], m)
        psfsize = float(m.psfsize[at])
        columns |= {
            f"flux_{band}": flux,
            f"flux_ivar_{band}": flux_ivar,
            f"psfsize_{band}": psfsize,
            f"psfdepth_{band}": psfdepth_ivar(float(m.sky_ivar[at]), psfsize, settings.pixscale_arcsec),
            f"mw_transmission_{band}": 10.0 ** (-0.4 * settings.extinction_per_ebv[band] * brick.ebv_mag),
        }
    return columns


def psfdepth_ivar(pixel_ivar: float, psfsize_arcsec: float, pixscale_arcsec: float) -> float:
    """Inverse variance of a point-source flux, 1/nanomaggy^2 (NEA formula); 0 without coverage."""
    return pixel_ivar * pixscale_arcsec**2 / nea_arcsec2(psfsize_arcsec) if psfsize_arcsec > 0 else 0.0


def _fitted_flux(true_flux_nmgy: float, stamp: Stamp, maps: BandMaps) -> tuple[float, float]:
    """Flux and inverse variance of a fit of the true profile to these very pixels, with perfect neighbours.

    The fit weights with invvar and ignores the covariance of pixels, as Tractor does; so the scatter of the
    fluxes exceeds 1/sqrt(flux_ivar). Without any covered pixel both are 0, as in Tractor.
    """
    where = stamp.overlap(maps.image.shape[0])
    if where is None:
        return 0.0, 0.0
    profile, weight = stamp.pixels[where[1]] / true_flux_nmgy, maps.invvar[where[0]].astype(np.float64)
    flux_ivar = float(np.sum(weight * profile**2))
    if flux_ivar <= 0:
        return 0.0, 0.0
    return true_flux_nmgy + float(np.sum(weight * profile * maps.noise[where[0]])) / flux_ivar, flux_ivar
