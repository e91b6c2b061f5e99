"""Synthetic RealGalaxyCatalog folders with known galaxies, and the settings the repository ships."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.table import Table

from dhs_gen.cosmos_sources import BankSummary

galsim = pytest.importorskip("galsim", reason="galsim is not installed (extra: banks)")

REPOSITORY = Path(__file__).resolve().parents[3]
PIXSCALE_ARCSEC = 0.03
ZERO_POINT_MAG = 25.937
NOISE_VARIANCE = 6.0e-6
NOISE_FILE = "acs_I_unrot_sci_20_cf.fits"
STAMP_PX = 101


@dataclass(frozen=True)
class Truth:
    """One synthetic galaxy: its PSF-free profile and what else is in its stamp."""

    ident: int
    profile: Any
    flux: float
    neighbour: Any = None


@dataclass(frozen=True)
class BuiltBank:
    """A bank built from the synthetic catalogue."""

    summary: BankSummary
    catalog_dir: Path
    truth: dict[str, Truth]


def synthetic_galaxies() -> list[Truth]:
    bright, faint = 60.0, 1.2  # e-/s: F814W 21.5 and 25.7
    disc = galsim.Exponential(half_light_radius=0.25)
    star = galsim.Gaussian(half_light_radius=0.08, flux=bright)
    return [
        Truth(101, disc.shear(g1=0.2, g2=0.1), bright),
        Truth(102, galsim.Exponential(half_light_radius=0.35).shear(g1=-0.3, g2=0.0), bright),
        Truth(103, galsim.Sersic(n=1.5, half_light_radius=0.20).shear(g1=0.0, g2=0.25), bright),
        Truth(104, disc.shift(0.02, -0.04), bright),
        Truth(201, galsim.Exponential(half_light_radius=0.30), faint),
        Truth(202, galsim.Exponential(half_light_radius=0.25).shear(g1=0.3, g2=0.0), faint),
        Truth(301, disc, bright, star.shift(0.45, 0.25)),
        Truth(302, galsim.Exponential(half_light_radius=0.20), bright, 0.3 * star.shift(-1.1, 0.9)),
    ]


def write_catalogue(folder: Path, galaxies: list[Truth], *, pixscale_arcsec: float = PIXSCALE_ARCSEC) -> Path:
    """A folder in the layout of galsim.RealGalaxyCatalog, with COSMOS-like correlated noise."""
    folder.mkdir(parents=True, exist_ok=True)
    optics = galsim.Moffat(beta=3.0, fwhm=0.09).shear(g1=0.05, g2=0.02)
    psf = galsim.Convolve(optics, galsim.Pixel(PIXSCALE_ARCSEC))
    noise = galsim.getCOSMOSNoise(rng=galsim.BaseDeviate(7), variance=NOISE_VARIANCE)
    psf_image = psf.drawImage(nx=65, ny=65, scale=PIXSCALE_ARCSEC, method="no_pixel", dtype=float).array
    stamps = []
    for galaxy in galaxies:
        scene = galaxy.profile.withFlux(galaxy.flux)
        scene = scene if galaxy.neighbour is None else scene + galaxy.neighbour
        stamp = galsim.Convolve(scene, psf).drawImage(
            nx=STAMP_PX, ny=STAMP_PX, scale=PIXSCALE_ARCSEC, method="no_pixel", dtype=float
        )
        stamp.addNoise(noise)
        stamps.append(np.array(stamp.array))
    _write_images(folder / "real_galaxy_images.fits", stamps)
    _write_images(folder / "real_galaxy_PSF_images.fits", [psf_image] * len(galaxies))
    shutil.copy(Path(galsim.meta_data.share_dir) / NOISE_FILE, folder / NOISE_FILE)
    n = len(galaxies)
    flux = np.array([galaxy.flux for galaxy in galaxies])
    ident = np.array([galaxy.ident for galaxy in galaxies], dtype=np.int32)
    table = {
        "IDENT": ident,
        "RA": np.full(n, 150.0),
        "DEC": np.full(n, 2.0),
        "MAG": ZERO_POINT_MAG - 2.5 * np.log10(flux),
        "BAND": np.full(n, "F814W"),
        "WEIGHT": np.ones(n),
        "GAL_FILENAME": np.full(n, "real_galaxy_images.fits"),
        "PSF_FILENAME": np.full(n, "real_galaxy_PSF_images.fits"),
        "GAL_HDU": np.arange(n, dtype=np.int32),
        "PSF_HDU": np.arange(n, dtype=np.int32),
        "PIXEL_SCALE": np.full(n, pixscale_arcsec),
        "NOISE_MEAN": np.zeros(n),
        "NOISE_VARIANCE": np.full(n, NOISE_VARIANCE),
        "NOISE_FILENAME": np.full(n, NOISE_FILE),
        "stamp_flux": flux,
    }
    Table(table).write(folder / "real_galaxy_catalog.fits", overwrite=True)
    Table({"IDENT": ident[::-1], "ZPHOT": 1.0 + 0.01 * ident[::-1]}).write(
        folder / "real_galaxy_catalog_fits.fits", overwrite=True
    )
    return folder


def _write_images(file: Path, images: list[np.ndarray]) -> None:
    fits.HDUList([fits.PrimaryHDU(images[0]), *(fits.ImageHDU(image) for image in images[1:])]).writeto(
        file, overwrite=True
    )


def configuration() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((REPOSITORY / "conf" / "banks" / "cosmos.yaml").read_text(encoding="utf-8"))
