"""The picture of docs/gen7.md: python docs/figures_gen7.py.

Six sources as gen7a, gen7b and gen7c make them, in g, r, z colour: the template on the source plane, and the same
source lensed and seen through DR10's PSF. No pixel is a survey's, so the picture may be redistributed.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from dhs_gen.hybrid_sources.sampler import HybridSettings, hybrid_source
from dhs_gen.hybrid_sources.sersic_clumps import ClumpSettings
from dhs_gen.lensing.models import SieShear
from dhs_gen.lensing.rays import Accuracy
from dhs_gen.lensing.render import StampGrid, draw, lens_source
from dhs_gen.psf import moffat_for_psfsize
from dhs_gen.streams import stream
from dhs_gen.task import SourceParams
from dhs_pipeline.config import Generation, HybridSource, Rendering, Survey, load_section
from dhs_pipeline.report.pictures import colour_image

OUT = Path(__file__).resolve().parent / "images" / "gen7.png"
SURVEY = load_section(Survey, "survey", "dr10")
PSFSIZE_ARCSEC = {"g": 1.29, "r": 1.18, "z": 1.11}
NOISE_NMGY = {"g": 0.0035, "r": 0.005, "z": 0.013}
"""Typical of DR10: psfsize, and the noise of a pixel."""
TASKS = (  # (key, Sersic index, e, position angle, source position)
    ("m51", 1.0, 0.15, 0.5, (0.45, -0.35)),
    ("m81", 1.5, 0.30, 2.0, (0.10, 0.15)),
    ("m74", 0.8, 0.05, 1.1, (-0.55, 0.30)),
    ("m63", 1.2, 0.25, 2.8, (0.30, 0.50)),
    ("m94", 2.5, 0.12, 0.2, (-0.25, -0.20)),
    ("m33", 0.6, 0.35, 1.6, (0.65, 0.10)),
)
SIDE_PIX = 36


def main() -> None:
    figure = Figure(figsize=(10.5, 10), dpi=75, layout="constrained")
    names = ("gen7a", "gen7b", "gen7c")
    axes = figure.subplots(6, len(TASKS))
    for column, (key, n_sersic, e, phi, (x, y)) in enumerate(TASKS):
        source = SourceParams(x, y, 21.0, 0.35, 0.25, 0.28, n_sersic, e, phi, False, 0.5)
        for row, name in enumerate(names):
            template = hybrid_source(key, source, settings(name), "grz")
            channels = np.broadcast_to(template.pixels, (3, *template.pixels.shape[1:]))
            half = channels.shape[1] // 2
            inner = slice(half - 30, half + 31)  # 2.5 re
            shown = {b: c[inner, inner] * source.flux_nmgy(b) for b, c in zip("grz", channels, strict=True)}
            axes[row, column].imshow(source_colour(shown))
            axes[row + 3, column].imshow(colour_image(arcs(key, source, name)))
            for ax, what in ((axes[row, column], "source"), (axes[row + 3, column], "lensed")):
                ax.set(xticks=[], yticks=[])
                if column == 0:
                    ax.set_ylabel(f"{name}\n{what}", fontsize=10)
        axes[0, column].set_title(f"n = {n_sersic:g}, e = {e:g}", fontsize=10)
    save(figure)


def settings(name: str) -> HybridSettings:
    """Of a generation's YAML."""
    source = load_section(Generation, "generations", name).source
    if not isinstance(source, HybridSource):
        raise TypeError(f"{name} is not procedural")
    clumps = ClumpSettings(source.n_clumps, source.clump_sigma_re, source.clump_flux_fraction)
    return HybridSettings(source.re_pix, source.half_size_re, clumps, source.gradient_mag_per_dex)


def arcs(key: str, source: SourceParams, name: str) -> dict[str, NDArray[np.float64]]:
    """The arc with a DR10 image's noise in g, r, z, nanomaggies per pixel."""
    template = hybrid_source(key, source, settings(name), "grz")
    rendering = load_section(Rendering, "rendering", "default")
    accuracy = Accuracy(**rendering.model_dump(exclude={"name"}))
    grid = StampGrid(SIDE_PIX, SURVEY.pixscale_arcsec, SURVEY.psf_kernel_size_pix)
    lens = SieShear(1.7, 0.15, 0.6, 0.03, 1.0)
    lensed = lens_source(lens, template, (source.x_arcsec, source.y_arcsec), (17.6, 17.4), grid, accuracy)
    out = {}
    for index, band in enumerate("grz"):
        psf = moffat_for_psfsize(PSFSIZE_ARCSEC[band], SURVEY.moffat_beta[band], SURVEY.pixscale_arcsec, 63)
        channel = index if template.pixels.shape[0] > 1 else 0
        noise = NOISE_NMGY[band] * stream(key, "figure_noise", band=band).standard_normal((SIDE_PIX, SIDE_PIX))
        out[band] = draw(lensed, channel, psf.kernel) * source.flux_nmgy(band) + noise
    return out


def source_colour(image: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """(H, W, 3): z, r, g as red, green, blue; arcsinh stretch of the bands' mean (Lupton et al. 2004), North up."""
    bands = np.stack([image[b] * scale for b, scale in (("z", 0.8), ("r", 1.0), ("g", 1.25))], axis=-1)
    mean = bands.mean(axis=-1, keepdims=True)
    softening = mean.max() / 20
    return np.clip(0.95 * bands / mean * np.arcsinh(mean / softening) / math.asinh(20), 0.0, 1.0)[::-1]


def save(figure: Figure) -> None:
    """With 52 levels per colour and no alpha: a quarter of the bytes, and no difference that the eye finds."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    OUT.parent.mkdir(exist_ok=True)
    Image.fromarray(np.minimum((pixels.astype(np.uint16) + 2) // 5 * 5, 255).astype(np.uint8)).save(OUT, optimize=True)
    print(OUT)


if __name__ == "__main__":
    main()
