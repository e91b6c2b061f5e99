"""Folders of synthetic deep cutouts whose galaxies are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from dhs_gen.streams import stream

galsim = pytest.importorskip("galsim", reason="galsim is not installed (extra: banks)")

PIXSCALE_ARCSEC = 0.168
SIDE_PX = 61
NOISE_RMS = 0.02
SKY = 3.0
FLUX = 100.0
SEEING = galsim.Moffat(beta=2.5, fwhm=0.6)


@dataclass(frozen=True)
class Galaxy:
    """An exponential disc, and what else is in its cutout."""

    hlr_arcsec: float = 0.4
    flux: float = FLUX
    shift_arcsec: tuple[float, float] = (0.0, 0.0)
    neighbour: Any = None

    @property
    def profile(self) -> Any:
        return galsim.Exponential(half_light_radius=self.hlr_arcsec, flux=self.flux).shear(g1=0.2, g2=0.1)


def pixels_of(galaxy: Galaxy, key: str, *, side_px: int = SIDE_PX, sky: float = SKY) -> NDArray[np.float64]:
    """The cutout: galaxy, seeing, sky and noise; flux per pixel."""
    scene = galaxy.profile.shift(*galaxy.shift_arcsec)
    scene = scene if galaxy.neighbour is None else scene + galaxy.neighbour
    pixels = drawn(galsim.Convolve(scene, SEEING), side_px)
    return pixels + sky + stream(key, "noise").normal(scale=NOISE_RMS, size=pixels.shape)


def drawn(profile: Any, side_px: int, pixscale_arcsec: float = PIXSCALE_ARCSEC) -> NDArray[np.float64]:
    image = profile.drawImage(nx=side_px, ny=side_px, scale=pixscale_arcsec, method="no_pixel", dtype=float)
    return np.array(image.array)


def header(pixscale_arcsec: float | tuple[float, float] | None = PIXSCALE_ARCSEC, **cards: Any) -> fits.Header:
    """A TAN header, rotated by 30°, of this pixel scale; without WCS for None."""
    out = fits.Header()
    if pixscale_arcsec is not None:
        x, y = np.broadcast_to(pixscale_arcsec, 2) / 3600.0
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = [150.1, 2.2]
        cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
        wcs.wcs.cd = np.array([[-cos, sin], [sin, cos]]) @ np.diag([x, y])
        out = wcs.to_header()
    out.update(cards)
    return out


def write(path: Path, pixels: NDArray[Any], head: fits.Header | None = None, *, psf: bool = True) -> Path:
    hdus = [fits.PrimaryHDU(pixels, header() if head is None else head)]
    if psf:
        hdus.append(fits.ImageHDU(drawn(SEEING, 41), name="PSF"))
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path
