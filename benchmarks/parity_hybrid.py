"""Gen7's profiles, clumps and colours against GalSim, scipy and closed formulas; prints Markdown.

python benchmarks/parity_hybrid.py
"""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "dhs_gen" / "hybrid_sources"))

from parity_rows import ParityRow
from test_sersic import pixel_flux

from dhs_gen.hybrid_sources import generate_hybrid_source_bands, sersic_image
from dhs_gen.hybrid_sources.sersic import elliptical_radius
from dhs_gen.hybrid_sources.sersic_clumps import ClumpSettings, hybrid_template

OFFSETS = ((0, 0), (1, 0), (0, -1), (1, 1), (-2, 1), (3, 3), (-5, 2), (2, -8))


def rows() -> list[ParityRow]:
    """The table's lines; about ten seconds."""
    return [*_curve_of_growth(), *_galsim_profiles(), _galsim_clumps(), *_colours()]


def _curve_of_growth() -> list[ParityRow]:
    """Eight pixels about the centre of 40 random profiles per index, by scipy's quadrature along the pixel's edges."""
    found = []
    for n in (0.5, 1.0, 2.5, 4.0, 8.0):
        rng = np.random.default_rng(7)
        worst = 0.0
        for _ in range(40):
            re, q, phi = 10 ** rng.uniform(-1.3, 1.3), rng.uniform(0.1, 1.0), rng.uniform(0, math.pi)
            centre = (14.5 + rng.uniform(-0.5, 0.5), 12.0 + rng.uniform(-0.5, 0.5))
            image = sersic_image((25, 30), re, n, q, centre, phi)
            for dx, dy in OFFSETS:
                truth = pixel_flux(14 + dx, 12 + dy, re, n, q, centre, phi)
                if truth > 1e-8:
                    worst = max(worst, abs(image[12 + dy, 14 + dx] / truth - 1))
        subject = f"Sersic n = {n:g}, re 0.05-20 px, q 0.1-1, any centre and angle"
        found.append(ParityRow(subject, "scipy (curve of growth)", "largest error of a pixel, relative", worst, 0.002))
    return found


def _galsim_profiles() -> list[ParityRow]:
    import galsim

    found = []
    for n, re, q in ((0.5, 2.0, 0.4), (1.0, 6.0, 0.8), (2.5, 6.0, 0.6), (4.0, 6.0, 0.6), (4.0, 1.5, 1.0)):
        # Where GalSim's defaults fold more than 1 %, it is asked for finer transforms (n = 4 would need 15 GB).
        params = galsim.GSParams(folding_threshold=1e-3, maxk_threshold=2e-4) if n < 3 else galsim.GSParams()
        profile = galsim.Sersic(n=n, half_light_radius=re, gsparams=params).shear(q=q, beta=0.4 * galsim.radians)
        drawn = profile.shift(0.3, -0.2).drawImage(nx=48, ny=40, scale=1.0, method="auto").array
        image = sersic_image((40, 48), re, n, q, (23.8, 19.3), 0.4)
        bright = drawn > 1e-3 * drawn.max()
        subject = f"Sersic n = {n:g}, re = {re:g} px, q = {q:g}"
        worst = float(np.abs(image / drawn - 1)[bright].max())
        found.append(
            ParityRow(subject, "GalSim", "largest error of a pixel above 1e-3 of the peak, relative", worst, 0.01)
        )
        core = float(abs(image.max() / drawn.max() - 1))
        found.append(ParityRow(subject, "GalSim", "error of the core pixel, relative", core, 0.01))
    return found


def _galsim_clumps() -> ParityRow:
    """One clump found again by its centroid and drawn by GalSim as a Gaussian."""
    import galsim

    made = hybrid_template("one", (97, 97), 12.0, 1.0, 0.7, ClumpSettings((1, 1), (0.1, 0.1), (0.2, 0.2)))
    smooth = sersic_image((97, 97), 12.0, 1.0, 0.7)
    light = made.pixels - 0.8 * smooth / smooth.sum()
    y, x = np.mgrid[:97, :97] - 48.0
    at = ((light * x).sum() / light.sum(), (light * y).sum() / light.sum())
    drawn = galsim.Gaussian(sigma=1.2, flux=0.2).shift(*at).drawImage(nx=97, ny=97, scale=1.0, dtype=float).array
    worst = float(np.abs(light - drawn).max() / drawn.max())
    return ParityRow("Clump, σ = 1.2 px", "GalSim", "largest error, of the peak", worst, 0.005)


def _colours() -> list[ParityRow]:
    """Slope of the colour of annuli between 0.5 and 3 re against log R."""
    found = []
    for strength in (0.2, 0.5):
        made = generate_hybrid_source_bands("disc", "grz", 161, 161, 16.0, 1.0, 0.6, gradient_strength=strength)
        meta = made["meta"]
        radius = elliptical_radius((161, 161), 0.6, (meta["x0"], meta["y0"]), meta["phi"]) / 16.0
        worst = max(
            abs(slope(blue, red, radius) + strength) for blue, red in itertools.pairwise(made["img"].astype(np.float64))
        )
        subject = f"Colour gradient, {strength:g} mag per dex"
        found.append(ParityRow(subject, "closed formula", "error of the slope, mag per dex", worst, 0.03 * strength))
    return found


def slope(blue: NDArray[np.float64], red: NDArray[np.float64], radius: NDArray[np.float64]) -> float:
    inside = [(low <= radius) & (radius < high) for low, high in itertools.pairwise(np.geomspace(0.5, 3.0, 9))]
    log_r = [np.log10(np.average(radius[m], weights=red[m])) for m in inside]
    return float(np.polyfit(log_r, [-2.5 * math.log10(blue[m].sum() / red[m].sum()) for m in inside], 1)[0])


def main() -> None:
    print("| subject | oracle | figure | measured | tolerance |\n|---|---|---|---|---|")
    for row in rows():
        print(f"| {row.subject} | {row.oracle} | {row.figure} | {row.measured:.2g} | {row.tolerance:.2g} |")


if __name__ == "__main__":
    main()
