"""docs/images/gen8.png: real survey artifacts beside simulated ones on real pixels.

    python docs/figures_gen8.py [--data ../shared/data]

Real pixels: DESI Legacy Imaging Surveys (DR9-south tile, DR6 brick), DES galaxies in the test brick.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "dhs_gen"))

from artifact_cases import brick_hosts, control_task, injection_settings, profile  # noqa: E402
from rendering_cases import gen7_settings  # noqa: E402

from dhs_gen.domain_randomization import ArtifactConfig  # noqa: E402
from dhs_gen.domain_randomization.stamp import DrawnArtifacts, draw_artifacts  # noqa: E402
from dhs_gen.hybrid_sources.sampler import hybrid_source  # noqa: E402
from dhs_gen.inject import Stamp, inject  # noqa: E402
from dhs_gen.lensing.models import SieShear  # noqa: E402
from dhs_gen.task import HostCutout, SourceParams  # noqa: E402
from dhs_pipeline.report.pictures import colour_image  # noqa: E402

OUT = REPOSITORY / "docs" / "images" / "gen8.png"
SIZE_PIX = 64
LENS = SieShear(1.5, 0.2, 0.5, 0.04, 1.2)
SOURCE = SourceParams(0.25, -0.2, 21.3, 0.2, 0.1, 0.15, 1.0, 0.3, 0.5, False, 0.5)

Panel = tuple[str, NDArray[np.generic], str]
"""Title, pixels and how to draw them: "grey", "weight", "mask" or "colour"."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    data = parser.parse_args().data
    hosts = brick_hosts(data)
    rows = [real(data, hosts), *simulated(hosts)]
    OUT.parent.mkdir(exist_ok=True)
    mosaic(rows).savefig(OUT, metadata={"Software": ""})
    print(OUT)


def real(data: Path, hosts: list[HostCutout]) -> list[Panel]:
    """Masked cosmic rays and columns in a DECam weight map; a star too bright for two bands; a bleed trail."""
    with fits.open(data / "psf" / "cutout_59.1067_-30.4848.fits") as tile:
        weight = {b: np.asarray(tile[2 * i + 2].data, dtype=np.float64) for i, b in enumerate("grz")}
    trail = fits.getdata(data / "dr6_brick" / "legacysurvey-0959p805-image-g.fits.fz", 1)[752:880, 360:488]
    star = hosts[24].image
    corner = (slice(44, 101), slice(6, 63))
    return [
        ("real DECam weights, z:\na curved track, masked", weight["z"][150:214, 36:100], "weight"),
        ("real DECam weights, z:\nhits and masked columns", weight["z"][0:64, 120:184], "weight"),
        ("real DECam weights, r:\na spot, grown by masking", weight["r"][186:250, 30:94], "weight"),
        ("a real DECam star in g,\nnot saturated", star["g"][corner], "grey"),
        ("the same star in r (and z):\nsaturated, painted over", star["r"][corner], "grey"),
        ("a real bleed trail, interpolated\n(90Prime, g; twice the field)", trail, "grey"),
    ]


def simulated(hosts: list[HostCutout]) -> list[list[Panel]]:
    """Simulated ones on real hosts: single bands, then colour stamps with an arc."""
    strong = profile("strong")
    rays = dataclasses.replace(strong, cosmic_rate=1.0, enable_sat_wings=False)
    stars = dataclasses.replace(strong, sat_rate=1.0, enable_cosmic_rays=False)
    single: list[Panel] = []
    for kind, host in zip(("track", "worm", "spot"), hosts[3:6], strict=True):
        stamp = _find(host, rays, lambda d, k=kind: d.ray is not None and d.ray.kind == k and _inside(d), arc=False)
        band = stamp.artifacts.cosmic_band if stamp.artifacts else None
        single.append((f"simulated {kind}, {band}\non a real host", stamp.bands[str(band)].image, "grey"))
    starry = _find(hosts[8], stars, lambda d: d.star_band == "r" and max(d.star.trail_pix) > 12, arc=False)
    single += [
        ("simulated saturated star, r\n(saturated band)", starry.bands["r"].image, "grey"),
        ("the same stamp, g\n(not saturated)", starry.bands["g"].image, "grey"),
        ("r pixels without weight:\nSATUR_R and ALLMASK_R", starry.bands["r"].invvar == 0, "mask"),
    ]
    host = hosts[11]
    lens = [
        ("lens without artifacts", _stamp("plain", host, None)),
        ("mild: jitter, background,\nelliptical PSF", _find(host, profile("mild"), lambda d: not (d.ray or d.star))),
        ("strong, with a cosmic ray", _find(host, rays, _inside)),
        ("strong, with a cosmic ray", _find(hosts[20], rays, lambda d: _inside(d) and d.ray.kind == "worm")),
        ("strong, with a star saturated\nin z", _find(hosts[25], stars, lambda d: d.star_band == "z")),
        ("strong, with a star saturated\nin g", _find(hosts[30], stars, lambda d: d.star_band == "g")),
    ]
    return [single, [(title, colour_image({b: s.bands[b].image for b in "grz"}), "colour") for title, s in lens]]


def _inside(drawn: DrawnArtifacts) -> bool:
    """A hit on the stamp, clear of the galaxy."""
    if drawn.ray is None:
        return False
    from_centre = np.hypot(drawn.ray.x_pix - 31.5, drawn.ray.y_pix - 31.5)
    return bool(12 < from_centre < 20 and drawn.ray.amplitude_sigma > 8)


def _find(host: HostCutout, config: ArtifactConfig, wanted: Callable[..., bool], arc: bool = True) -> Stamp:
    """The stamp of the first key for which the draws are as wanted."""
    keys = (f"figure-{host.host_id}-{i}" for i in range(1000))
    return _stamp(next(k for k in keys if wanted(draw_artifacts(k, "grz", SIZE_PIX, config))), host, config, arc)


def _stamp(key: str, host: HostCutout, config: ArtifactConfig | None, arc: bool = True) -> Stamp:
    task = control_task(key)
    if not arc:
        return inject(task, host, None, 1.0, injection_settings(), config)
    task = dataclasses.replace(task, lens=LENS, source=SOURCE)
    return inject(task, host, hybrid_source("figure", SOURCE, gen7_settings()), 1.0, injection_settings(), config)


def mosaic(rows: list[list[Panel]]) -> Figure:
    figure = Figure(figsize=(13.2, 7.6), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    for line, panels in zip(figure.subplots(len(rows), len(rows[0])), rows, strict=True):
        for ax, (title, pixels, how) in zip(line, panels, strict=True):
            if how == "colour":
                ax.imshow(pixels, interpolation="nearest")
            elif how == "mask":
                ax.imshow(pixels, origin="lower", cmap=ListedColormap(["white", "#303030"]), interpolation="nearest")
            elif how == "weight":
                ax.imshow(pixels / np.median(pixels), origin="lower", cmap="gray", vmin=0.7, vmax=1.15)
            else:
                sky = np.median(pixels)
                sigma = 1.4826 * np.median(np.abs(pixels - sky))
                shown = np.arcsinh((pixels - sky) / sigma)
                ax.imshow(shown, origin="lower", cmap="gray", vmin=-1.5, vmax=5.5, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.set_title(title, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
