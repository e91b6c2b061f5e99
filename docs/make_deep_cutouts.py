"""A folder of deep FITS cutouts to try Gen6 with: python docs/make_deep_cutouts.py OUT_DIR [--data ../shared/data].

Two kinds, told apart by the file name and the header key DHSKIND:

``hsc_*``     real Hyper Suprime-Cam pixels (HSC-SSP, i band): every source found in the few public scenes, one cutout
              each, with the scene's PSF. Pixels beyond the scene are NaN.
``reobs_*``   simulated: the galaxies of a Gen5 bank (HST COSMOS F814W, isolated, HST PSF replaced by 0.12″) at their
              catalogue magnitude, seen through 0.6″ seeing on 0.168″ pixels with the noise of the HSC scene in the
              COSMOS field. Real shapes, simulated seeing and noise.

A demonstration, not a training bank: a handful of real sources, under a hundred in all.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import galsim
import numpy as np
import pyarrow.parquet as pq
import sep
import yaml
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from dhs_gen.cosmos_sources import BankSettings, build_cosmos_bank, open_bank
from dhs_gen.source_banks.measure import robust_sky
from dhs_gen.streams import stream

REPO = Path(__file__).resolve().parents[1]

PIXSCALE_ARCSEC = 0.168  # HSC
ZERO_POINT_MAG = 27.0  # of calibrated HSC images, by convention
I_PLANE = 2  # of grizy
CUTOUT_SIDE_PX = 81  # 13.6″; the fine template is 12.7″ wide
DETECT_SIGMA, DETECT_MIN_AREA_PX = 5.0, 9
MIN_FLUX_SNR = 25.0  # of a detection: what is fainter cannot become a template

SEEING_FWHM_ARCSEC, MOFFAT_BETA = 0.6, 2.5  # median HSC i seeing (Aihara et al. 2018); slope fitted to the PSFs here
NOISE_RMS = 0.0203  # per pixel at zero point 27: median √variance, i band, hsc_cosmos_35.npz
PSF_SIDE_PX = 41


@dataclass(frozen=True, eq=False)
class Scene:
    """One public HSC image, i band, and its PSF."""

    name: str
    image: NDArray[np.float64]
    psf: NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    n_real, n_reobserved = write_cutouts(given.out_dir, given.data)
    print(f"{given.out_dir}: {n_real} real HSC cutouts, {n_reobserved} re-observed HST COSMOS galaxies")


def write_cutouts(out_dir: Path, data: Path, *, max_reobserved: int | None = None) -> tuple[int, int]:
    """Write both kinds; returns how many of each."""
    out_dir.mkdir(parents=True, exist_ok=True)
    n_real = 0
    for scene in scenes(data / "deep_hsc"):
        for number, (x, y) in enumerate(positions(scene.image)):
            pixels = window(scene.image, x, y)
            header = cutout_header("HSC-I", f"real HSC pixels, {scene.name}")
            write(out_dir / f"hsc_{scene.name}_{number:02d}.fits", pixels, header, scene.psf)
            n_real += 1
    n_reobserved = 0
    for ident, pixels, psf in reobserved(data / "cosmos80", max_reobserved):
        header = cutout_header("HSC-I (from F814W)", f"HST COSMOS {ident} re-observed by simulation")
        write(out_dir / f"reobs_{ident}.fits", pixels, header, psf)
        n_reobserved += 1
    return n_real, n_reobserved


def scenes(folder: Path) -> Iterator[Scene]:
    """The public scenes; 43158172147386355.npz shows the same pixels as hsc_cosmos.npz and is left out."""
    for name in ("hsc_cosmos", "hsc_cosmos_35"):
        with np.load(folder / f"{name}.npz") as arrays:
            yield Scene(name, arrays["images"][I_PLANE].astype(float), arrays["psfs"][I_PLANE])
    psf = fits.getdata(folder / "PSF_HSC.fits")[I_PLANE]
    for name in ("Cut_HSC", "Cut_HSC1"):
        yield Scene(name, fits.getdata(folder / f"{name}.fits")[I_PLANE].astype(float), psf)
    for name in ("gal1", "gal2", "gal3"):
        yield Scene(name, np.load(folder / f"{name}_im.npy").astype(float), np.load(folder / f"{name}_psf.npy"))


def positions(image: NDArray[np.float64]) -> list[tuple[int, int]]:
    """(column, row) of the sources bright enough, brightest first."""
    sky, rms = robust_sky(image)
    found = sep.extract(np.ascontiguousarray(image - sky), DETECT_SIGMA, err=rms, minarea=DETECT_MIN_AREA_PX)
    bright = found[found["flux"] / (rms * np.sqrt(found["npix"])) >= MIN_FLUX_SNR]
    bright = bright[np.argsort(-bright["flux"])]
    return [(round(float(x)), round(float(y))) for x, y in zip(bright["x"], bright["y"], strict=True)]


def window(image: NDArray[np.float64], x: int, y: int) -> NDArray[np.float32]:
    """The square about a pixel, NaN beyond the scene."""
    half = CUTOUT_SIDE_PX // 2
    padded = np.pad(image, half, constant_values=np.nan)
    return padded[y : y + CUTOUT_SIDE_PX, x : x + CUTOUT_SIDE_PX].astype(np.float32)


def reobserved(
    folder: Path, max_galaxies: int | None
) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.float64]]]:
    """(IDENT, cutout, PSF) of each galaxy of a Gen5 bank. The PSF is the coadd's: pixel response included.

    Not of the HST stamps themselves: those of bright galaxies cut through their outskirts and leave a square of light.
    """
    settings = yaml.safe_load((REPO / "conf" / "banks" / "cosmos.yaml").read_text(encoding="utf-8"))["build"]
    seeing = galsim.Moffat(beta=MOFFAT_BETA, fwhm=SEEING_FWHM_ARCSEC)
    psf = draw(seeing, PSF_SIDE_PX)
    with tempfile.TemporaryDirectory() as into:
        path = build_cosmos_bank(folder, into, BankSettings.from_mapping(settings)).path
        bank = open_bank(path)
        mags = pq.read_table(path / "meta.parquet")["catalogue_mag"].to_pylist()
        templates = [np.array(image, dtype=float) for image in bank.images[:max_galaxies]]
    for ident, template, mag in zip(bank.template_id, templates, mags, strict=False):
        image = galsim.Image(template, scale=bank.pixscale_arcsec)
        galaxy = galsim.InterpolatedImage(image, flux=10.0 ** (0.4 * (ZERO_POINT_MAG - mag)))
        pixels = draw(galsim.Convolve(galaxy, seeing), CUTOUT_SIDE_PX)
        noise = stream(ident, "reobserved noise").normal(scale=NOISE_RMS, size=pixels.shape)
        yield ident, (pixels + noise).astype(np.float32), psf


def draw(profile: galsim.GSObject, side_px: int) -> NDArray[np.float64]:
    image = profile.drawImage(nx=side_px, ny=side_px, scale=PIXSCALE_ARCSEC, method="no_pixel", dtype=float)
    return np.array(image.array)


def cutout_header(filter_name: str, kind: str) -> fits.Header:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.1, 2.2]
    wcs.wcs.crpix = [(CUTOUT_SIDE_PX + 1) / 2] * 2
    wcs.wcs.cdelt = [-PIXSCALE_ARCSEC / 3600.0, PIXSCALE_ARCSEC / 3600.0]
    header = wcs.to_header()
    header["FILTER"] = filter_name
    header["MAGZERO"] = (ZERO_POINT_MAG, "AB magnitude of 1 count")
    header["DHSKIND"] = kind
    header["COMMENT"] = "CRVAL is nominal: the position on the sky of these pixels is not used."
    return header


def write(path: Path, pixels: NDArray[np.float32], header: fits.Header, psf: NDArray[np.float64]) -> None:
    extension = fits.ImageHDU(psf.astype(np.float64), name="PSF")
    fits.HDUList([fits.PrimaryHDU(pixels, header), extension]).writeto(path, overwrite=True)


if __name__ == "__main__":
    main()
