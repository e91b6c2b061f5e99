"""The picture of docs/gen6.md: python docs/make_gen6_figure.py [--data ../shared/data].

Makes the demonstration cutouts, builds a bank with the seeing left in and a deconvolved one, and draws for a few
galaxies the cutout and both templates at one scale on the sky.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import yaml
from astropy.io import fits
from make_deep_cutouts import PIXSCALE_ARCSEC, write_cutouts
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dhs_gen.deep_sources import build_deep_source_bank, load_bank, load_fine_images
from dhs_gen.source_banks.measure import robust_sky

REPO = Path(__file__).resolve().parents[1]
FIGURE = REPO / "docs" / "images" / "gen6.png"
SHOWN = (
    "hsc_gal3_00",
    "hsc_gal1_00",
    "hsc_gal1_02",
    "hsc_gal3_01",
    "reobs_39",
    "reobs_4",
    "reobs_5",
    "reobs_29",
)
HALF_WIDTH_ARCSEC = 3.0
WIDE = {"hsc_gal3_00": 6.0, "hsc_gal1_00": 6.0}

Templates = dict[str, tuple[NDArray[np.float32], float, float]]
"""Cutout's stem → template, its half-light radius, FWHM of the PSF left."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    data = parser.parse_args().data
    build = yaml.safe_load((REPO / "conf" / "banks" / "deep.yaml").read_text(encoding="utf-8"))["build"]
    with tempfile.TemporaryDirectory() as folder:
        cutouts = Path(folder) / "cutouts"
        write_cutouts(cutouts, data)
        seeing_limited = templates(cutouts, None)
        deconvolved = templates(cutouts, build["target_psf_fwhm_arcsec"])
        figure = mosaic(cutouts, seeing_limited, deconvolved)
    figure.savefig(FIGURE, metadata={"Software": ""})
    print(FIGURE)


def templates(cutouts: Path, target_psf_fwhm_arcsec: float | None) -> Templates:
    summary = build_deep_source_bank(
        cutouts,
        cutouts.parent / "bank.npz",
        1000,
        96,
        PIXSCALE_ARCSEC,
        0.262,
        target_psf_fwhm_arcsec=target_psf_fwhm_arcsec,
        min_sources=1,
    )
    _, meta = load_bank(summary.path)
    fine, _ = load_fine_images(summary.path) or (np.zeros(0), 0.0)
    names = [Path(name).stem for name in meta["file"]]
    return dict(zip(names, zip(fine, meta["hlr_arcsec"], meta["psf_fwhm_arcsec"], strict=True), strict=True))


def mosaic(cutouts: Path, seeing_limited: Templates, deconvolved: Templates) -> Figure:
    figure = Figure(figsize=(13, 5.4), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(SHOWN))
    for column, name in zip(axes.T, SHOWN, strict=True):
        half_width = WIDE.get(name, HALF_WIDTH_ARCSEC)
        pixels = fits.getdata(cutouts / f"{name}.fits").astype(float)
        sky, rms = robust_sky(pixels[np.isfinite(pixels)])
        show(column[0], (pixels - sky) / rms, PIXSCALE_ARCSEC, half_width, 1.0)
        column[0].set_title(f"{name}\n{2 * half_width:.0f}″ wide", fontsize=8)
        for axis, made in ((column[1], seeing_limited), (column[2], deconvolved)):
            if name not in made:
                axis.set_axis_off()
                axis.text(0.5, 0.5, "refused", ha="center", va="center", transform=axis.transAxes)
                continue
            template, hlr_arcsec, psf_arcsec = made[name]
            show(axis, template / template.max() * 100, 0.5 * PIXSCALE_ARCSEC, half_width, 4.0)
            axis.set_title(f"r½ {hlr_arcsec:.2f}″, PSF {psf_arcsec:.2f}″", fontsize=8)
    for axis, label in zip(axes[:, 0], ("cutout, 0.168″", "template, seeing left", "deconvolved"), strict=True):
        axis.set_ylabel(label, fontsize=9)
    return figure


def show(
    axis: Axes, pixels: NDArray[np.floating], pixscale_arcsec: float, half_width_arcsec: float, soft: float
) -> None:
    """asinh stretch, positions in arcsec about the centre, missing pixels blue."""
    extent = 0.5 * pixels.shape[0] * pixscale_arcsec
    axis.set_facecolor("lightsteelblue")
    scaled = np.arcsinh(pixels / soft)
    axis.imshow(
        scaled,
        origin="lower",
        cmap="gray_r",
        vmin=-1.0,
        vmax=np.nanpercentile(scaled, 99.95),
        extent=(-extent, extent, -extent, extent),
        interpolation="nearest",
    )
    axis.set(
        xlim=(-half_width_arcsec, half_width_arcsec), ylim=(-half_width_arcsec, half_width_arcsec), xticks=[], yticks=[]
    )


if __name__ == "__main__":
    main()
