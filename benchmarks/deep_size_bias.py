"""What seeing, noise and deconvolution do to the sizes of a deep bank's templates; prints Markdown.

    python benchmarks/deep_size_bias.py [--data ../shared/data] [--galaxies N] [--mag M]

Galaxies whose size is known are seen through 0.6″ seeing (Moffat, β 2.5) on 0.168″ pixels with the noise of a deep HSC
scene, written as FITS cutouts and taken through the builder, once as they are and once deconvolved:

- Sersic profiles, n 1 and 4 (the latter cut at 5 radii), N noise realisations and shapes for each half-light radius;
- real galaxies: the templates of a Gen5 bank of HST COSMOS, each shrunk or stretched to each half-light radius.

The true radius is that of the circle with half of the light: PSF-free for Sersic profiles, behind a 0.12″ Gaussian
(scaled with the galaxy) for real ones. Quoted: median and 16-84 % of template radius / true radius, and of the radius
after the effective PSF is taken off in quadrature (HLR² − HLR_PSF²). The cut on resolution is switched off, so that
what it removes can be seen: "kept" is the fraction that would pass it.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import galsim
import numpy as np
import yaml
from astropy.io import fits
from numpy.typing import NDArray

from dhs_gen.cosmos_sources import BankSettings, build_cosmos_bank, open_bank
from dhs_gen.deep_sources import BankError, DeepSettings, build_deep_source_bank, load_bank
from dhs_gen.streams import stream

REPO = Path(__file__).resolve().parents[1]

RADII_ARCSEC = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
TARGETS_ARCSEC = (None, 0.45)
ZERO_POINT_MAG, PIXSCALE_ARCSEC, SIDE_PX = 27.0, 0.168, 81
SEEING_FWHM_ARCSEC, MOFFAT_BETA = 0.6, 2.5
NOISE_RMS = 0.0203
PSF_SIDE_PX = 41
SETTINGS = dataclasses.replace(DeepSettings(), min_hlr_over_psf=0.5)


@dataclass(frozen=True)
class Measured:
    """One template: what it is a picture of, and what the bank measured."""

    sample: str
    true_arcsec: float
    hlr_arcsec: float
    hlr_over_psf: float

    @property
    def corrected_arcsec(self) -> float:
        psf_arcsec = self.hlr_arcsec / self.hlr_over_psf
        return float(np.sqrt(max(0.0, self.hlr_arcsec**2 - psf_arcsec**2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--galaxies", type=int, default=6, help="Sersic galaxies per radius and index")
    parser.add_argument("--mag", type=float, default=22.0, help="i magnitude of every galaxy")
    given = parser.parse_args()
    flux = 10.0 ** (0.4 * (ZERO_POINT_MAG - given.mag))
    samples = [f"Sersic n {n}" for n in (1, 4)] + (["COSMOS"] if given.data.is_dir() else [])
    for target in TARGETS_ARCSEC:
        print(f"\n{'seeing left in' if target is None else f'deconvolved to {target:g}″'}\n")
        print("| sample | true HLR | template / true | PSF taken off / true | kept | accepted |")
        print("|---|---|---|---|---|---|")
        for sample in samples:
            for radius in RADII_ARCSEC:
                made = list(galaxies(sample, radius, flux, given.galaxies, given.data))
                print(row(sample, radius, len(made), measure(sample, radius, made, target)))


def row(sample: str, radius: float, n: int, measured: list[Measured]) -> str:
    if not measured:
        return f"| {sample} | {radius:.1f}″ | – | – | – | 0 of {n} |"
    ratios = [m.hlr_arcsec / m.true_arcsec for m in measured]
    corrected = [m.corrected_arcsec / m.true_arcsec for m in measured]
    kept = np.mean([m.hlr_over_psf >= DeepSettings().min_hlr_over_psf for m in measured])
    numbers = " | ".join(interval(values) for values in (ratios, corrected))
    return f"| {sample} | {radius:.1f}″ | {numbers} | {100 * kept:.0f} % | {len(measured)} of {n} |"


def interval(values: list[float]) -> str:
    low, middle, high = np.percentile(values, [16, 50, 84])
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def measure(
    sample: str, radius: float, profiles: list[galsim.GSObject], target_psf_fwhm_arcsec: float | None
) -> list[Measured]:
    """Through files and the builder, as a user's cutouts go."""
    with tempfile.TemporaryDirectory() as folder:
        for number, profile in enumerate(profiles):
            write_cutout(Path(folder) / f"{number:03d}.fits", profile, f"{sample} {radius} {number}")
        try:
            summary = build_deep_source_bank(
                folder,
                Path(folder) / "bank.npz",
                len(profiles),
                96,
                PIXSCALE_ARCSEC,
                0.262,
                target_psf_fwhm_arcsec=target_psf_fwhm_arcsec,
                min_sources=1,
                settings=SETTINGS,
            )
        except BankError:  # no galaxy of this size and magnitude is usable
            return []
        _, meta = load_bank(summary.path)
    pairs = zip(meta["hlr_arcsec"], meta["hlr_over_psf"], strict=True)
    return [Measured(sample, radius, hlr, ratio) for hlr, ratio in pairs]


def galaxies(sample: str, radius: float, flux: float, n: int, data: Path) -> Iterator[galsim.GSObject]:
    """PSF-free profiles of half-light radius ``radius`` and this flux."""
    if sample == "COSMOS":
        yield from cosmos_galaxies(radius, flux, data / "cosmos80")
        return
    n_sersic = float(sample.split()[-1])
    # Without an edge n = 4 has half of its light in wings that no cutout shows; with one n = 1 needs a huge FFT.
    edge = 5.0 if n_sersic > 2 else 0.0
    profile = galsim.Sersic(n=n_sersic, half_light_radius=1.0, trunc=edge, flux=flux)
    for number in range(n):
        draw = stream(f"{sample} {number}", "shape")
        e, angle, dx, dy = draw.uniform(0.0, 0.5), draw.uniform(0.0, np.pi), *draw.uniform(-0.5, 0.5, 2)
        shaped = profile.shear(e=e, beta=angle * galsim.radians)
        scaled = shaped.dilate(radius / half_light_radius(shaped, 0.04))
        yield scaled.shift(dx * PIXSCALE_ARCSEC, dy * PIXSCALE_ARCSEC)


def cosmos_galaxies(radius: float, flux: float, folder: Path) -> Iterator[galsim.GSObject]:
    for pixels, hlr_arcsec, pixscale_arcsec in cosmos_templates(folder):
        image = galsim.Image(pixels, scale=pixscale_arcsec * radius / hlr_arcsec)
        yield galsim.InterpolatedImage(image, flux=flux)


@lru_cache(maxsize=1)
def cosmos_templates(folder: Path) -> list[tuple[NDArray[np.float64], float, float]]:
    """Pixels, half-light radius and pixel scale (arcsec) of the isolated HST galaxies."""
    settings = yaml.safe_load((REPO / "conf" / "banks" / "cosmos.yaml").read_text(encoding="utf-8"))["build"]
    with tempfile.TemporaryDirectory() as into:
        bank = open_bank(build_cosmos_bank(folder, into, BankSettings.from_mapping(settings)).path)
        pairs = zip(bank.images, bank.hlr_arcsec, strict=True)
        return [(np.array(image, dtype=float), float(hlr), bank.pixscale_arcsec) for image, hlr in pairs]


def half_light_radius(profile: galsim.GSObject, scale: float) -> float:
    return float(profile.calculateHLR(size=300, scale=scale, centroid=profile.centroid))


def write_cutout(path: Path, profile: galsim.GSObject, key: str) -> None:
    seeing = galsim.Moffat(beta=MOFFAT_BETA, fwhm=SEEING_FWHM_ARCSEC)
    pixels = drawn(galsim.Convolve(profile, seeing), SIDE_PX)
    noise = stream(key, "noise").normal(scale=NOISE_RMS, size=pixels.shape)
    image = fits.PrimaryHDU((pixels + noise).astype(np.float32))
    fits.HDUList([image, fits.ImageHDU(drawn(seeing, PSF_SIDE_PX), name="PSF")]).writeto(path)


def drawn(profile: galsim.GSObject, side_px: int) -> NDArray[np.float64]:
    """no_pixel: the seeing is the coadd's effective PSF, pixel response included."""
    image = profile.drawImage(nx=side_px, ny=side_px, scale=PIXSCALE_ARCSEC, method="no_pixel", dtype=float)
    return np.array(image.array)


if __name__ == "__main__":
    main()
