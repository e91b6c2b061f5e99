"""The picture of docs/mass-models.md, all simulated: python docs/figures_lensing.py

One source behind one galaxy, whose mass gains multipoles and subhalos from column to column.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dhs_gen.hybrid_sources.sampler import HybridSettings, hybrid_source
from dhs_gen.hybrid_sources.sersic_clumps import ClumpSettings
from dhs_gen.lensing.cosmology import Cosmology
from dhs_gen.lensing.models import MassModel, deflection
from dhs_gen.lensing.rays import Accuracy
from dhs_gen.lensing.render import StampGrid, draw, lens_source
from dhs_gen.lensing.subhalos import SubhaloPopulation, draw_subhalos
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.psf import moffat_for_psfsize
from dhs_gen.streams import stream
from dhs_gen.task import SourceParams

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "docs" / "images" / "subhalos.png"
PIXSCALE_ARCSEC, FINE_ARCSEC = 0.262, 0.03
SIDE_ARCSEC = 6.0
REDSHIFTS = (0.5, 2.0)


def configuration(name: str) -> dict[str, object]:
    tree = yaml.safe_load((ROOT / "conf" / f"{name}.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in tree.items() if key != "name"}


def source() -> SourceTemplate:
    """A clumpy disc of half-light radius 0.25 arcsec."""
    values = yaml.safe_load((ROOT / "conf" / "generations" / "gen7.yaml").read_text(encoding="utf-8"))["source"]
    clumps = ClumpSettings(
        tuple(values["n_clumps"]), tuple(values["clump_sigma_re"]), tuple(values["clump_flux_fraction"])
    )
    params = SourceParams(0, 0, 22.5, 0, 0, 0.25, 1.0, 0.25, 0.6, False, 0.5)
    return hybrid_source(
        "figure", params, HybridSettings(float(values["re_pix"]), float(values["half_size_re"]), clumps)
    )


def masses() -> dict[str, MassModel]:
    smooth = MassModel(1.4, 0.2, 0.5, 0.04, 1.2, slope=2.08)
    angular = dataclasses.replace(smooth, a3_frac=0.02, a3_phi_rad=0.9, a4_frac=0.03, a4_phi_rad=0.5)
    population = SubhaloPopulation(**configuration("subhalos/cdm"))  # type: ignore[arg-type]
    cosmology = Cosmology(67.66, 0.30966)
    halos = draw_subhalos(population, 1.4, *REDSHIFTS, cosmology, stream("figure", "subhalos"), smooth.slope)
    return {
        "EPL and shear": smooth,
        "and multipoles 2 % and 3 %": angular,
        f"and {len(halos)} subhalos": dataclasses.replace(angular, subhalos=halos),
    }


def arc(lens: MassModel, pixscale_arcsec: float, psfsize_arcsec: float) -> NDArray[np.float64]:
    """The arc over the whole side, per arcsec²."""
    side = round(SIDE_ARCSEC / pixscale_arcsec)
    accuracy = Accuracy(**configuration("rendering/default"))  # type: ignore[arg-type]
    grid = StampGrid(side, pixscale_arcsec, 63)
    centre = ((side - 1) / 2, (side - 1) / 2)
    lensed = lens_source(lens, source(), (0.12, -0.10), centre, grid, accuracy)
    kernel = moffat_for_psfsize(psfsize_arcsec, 3.5, pixscale_arcsec, 63).kernel
    return draw(lensed, 0, kernel) / pixscale_arcsec**2


def convergence(lens: MassModel) -> NDArray[np.float64]:
    """κ = ½ div α by central differences on the fine grid."""
    n = round(SIDE_ARCSEC / FINE_ARCSEC)
    t = (np.arange(n) - (n - 1) / 2) * FINE_ARCSEC
    alpha_x, alpha_y = deflection(lens, t[None, :], t[:, None])
    return 0.5 * (np.gradient(alpha_x, FINE_ARCSEC, axis=1) + np.gradient(alpha_y, FINE_ARCSEC, axis=0))


def figure() -> Figure:
    """Columns: models. Rows: convergence (then what it gains), the arc sharp, as seen, and what it changes by."""
    models = masses()
    fig = Figure(figsize=(10.5, 12.4), dpi=75, layout="constrained")
    FigureCanvasAgg(fig)
    axes = fig.subplots(4, 3)
    kappa = [convergence(lens) for lens in models.values()]
    sharp = [arc(lens, FINE_ARCSEC, 0.15) for lens in models.values()]
    seen = [arc(lens, PIXSCALE_ARCSEC, 1.2) for lens in models.values()]
    for column, title in enumerate(models):
        axes[0, column].set_title(title, fontsize=10)
        if column == 0:
            _show(axes[0, 0], np.log10(kappa[0]), "log$_{10}$ κ", cmap="viridis", vmin=-0.8, vmax=0.7)
            axes[3, 0].set_axis_off()
        else:
            gain = kappa[column] - kappa[column - 1]
            _show(axes[0, column], gain, "κ gained over the column before", cmap="RdBu_r", vmin=-0.04, vmax=0.04)
            change = 100 * (seen[column] - seen[column - 1]) / seen[0].max()
            label = "change to the column before, % of the peak"
            _show(axes[3, column], change, label, cmap="RdBu_r", vmin=-4, vmax=4)
        _show(axes[1, column], np.sqrt(np.maximum(sharp[column], 0)), None, cmap="gray")
        _show(axes[2, column], seen[column], None, cmap="gray")
    axes[1, 0].set_ylabel("0.03″ pixels, PSF 0.15″", fontsize=9)
    axes[2, 0].set_ylabel("0.262″ pixels, psfsize 1.2″", fontsize=9)
    return fig


def _show(ax: Axes, image: NDArray[np.float64], label: str | None, **style: Any) -> None:
    half = SIDE_ARCSEC / 2
    mappable = ax.imshow(image, origin="lower", extent=(-half, half) * 2, interpolation="nearest", **style)
    ax.set_xticks([-2, 0, 2])
    ax.set_yticks([-2, 0, 2])
    ax.tick_params(labelsize=7)
    if label is not None:
        bar = ax.figure.colorbar(mappable, ax=ax, location="bottom", shrink=0.9, pad=0.02)
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=7)


if __name__ == "__main__":
    IMAGE.parent.mkdir(exist_ok=True)
    figure().savefig(IMAGE, metadata={"Software": ""})
    print(IMAGE)
