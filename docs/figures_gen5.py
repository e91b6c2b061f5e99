"""The mosaic and the noise table of docs/gen5.md: python docs/figures_gen5.py COSMOS_FOLDER [--table].

COSMOS_FOLDER is a GalSim real-galaxy folder (the 80-galaxy sample of BlendingToolKit, MIT, in the page). The bank is
built from it with conf/banks/cosmos.yaml; the hosts are those of the demo's simulated bricks.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import galsim
import numpy as np
import pyarrow.parquet as pq
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dhs_gen.cosmos_sources import BankSettings, SourceBank, build_cosmos_bank, find_catalogue_file, open_bank
from dhs_gen.inject import inject
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.source_banks.sampler import bank_source
from dhs_gen.status import Status
from dhs_gen.task import HostCutout, Task
from dhs_pipeline.bricks import HostPosition, cutout_table, read_brick_cutouts
from dhs_pipeline.config import CosmosSource, RunConfig, load_run_config, load_yaml
from dhs_pipeline.cutouts import read_cutouts
from dhs_pipeline.injection import injection_settings
from dhs_pipeline.report.pictures import colour_image
from dhs_pipeline.schemas import MANIFEST
from dhs_pipeline.simulate import load_simulation_settings, simulate_survey
from dhs_pipeline.storage import Location, write_parquet

IMAGE = Path(__file__).resolve().parent / "images" / "gen5.png"
COLUMNS = 8
NOISE_DRAWS = 8
SHOWN = slice(12, 52)
TREATMENTS = ("as it is", "4-fold symmetric", "whitened")

# One task for all, so that the columns differ in their template alone.
TASK: dict[str, Any] = {
    "is_control": 0,
    "stamp_size_pix": 64,
    "mw_transmission_g": 0.95,
    "mw_transmission_r": 0.97,
    "mw_transmission_z": 0.98,
    "lens_model": "SIE",
    "theta_e_arcsec": 1.9,
    "lens_e": 0.15,
    "lens_phi_rad": 0.6,
    "shear": 0.04,
    "shear_phi_rad": 1.1,
    "src_x_arcsec": 0.38,
    "src_y_arcsec": -0.30,
    "src_mag_r": 21.8,
    "src_gr": 0.35,
    "src_rz": 0.25,
    "src_reff_arcsec": 0.35,
    "src_n_sersic": 1.0,
    "src_e": 0.2,
    "src_phi_rad": 0.0,
    "src_flip": 0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--table", action="store_true", help="measure the noise instead of drawing")
    args = parser.parse_args()
    config = load_run_config("demo")
    settings = BankSettings.from_mapping(load_yaml("banks", "cosmos")["build"])
    with tempfile.TemporaryDirectory() as folder:
        build_cosmos_bank(args.catalogue, Path(folder) / "bank", settings)
        bank = open_bank(Path(folder) / "bank")
        rows = pq.read_table(Path(folder) / "bank" / "meta.parquet").to_pylist()
        host = _host(Path(folder), config)
        if args.table:
            _noise_table(args.catalogue, settings, bank, rows, host, config)
            return
        _mosaic(bank, rows, host, config).savefig(IMAGE, metadata={"Software": ""})
        print(IMAGE)


def _host(folder: Path, config: RunConfig) -> HostCutout:
    """The host of median brightness among those of a demo brick without a bad pixel near them."""
    made = simulate_survey(folder / "bricks", load_simulation_settings())
    parent = pq.read_table(made.parent_path).to_pylist()
    name = parent[0]["brickname"]
    galaxies = sorted((r for r in parent if r["brickname"] == name), key=lambda r: r["flux_r"])
    positions = [HostPosition(str(i), name, r["ra"], r["dec"]) for i, r in enumerate(galaxies)]
    part = Location.of(folder / "cutouts.parquet")
    write_parquet(cutout_table(read_brick_cutouts(Location.of(made.data_dir), name, positions, config.survey)), part)
    cutouts = read_cutouts(part, {p.host_id for p in positions}, "grz")
    good = [c for p in positions if (c := cutouts[p.host_id]).status is Status.OK and _is_clean(c, config)]
    return good[len(good) // 2]


def _is_clean(cutout: HostCutout, config: RunConfig) -> bool:
    return cutout.maskbits is not None and not (cutout.maskbits[18:83, 18:83] & config.survey.bad_mask).any()


def _task(name: str, bandset: str, template_u: float) -> Task:
    row = dict.fromkeys(MANIFEST.names) | TASK
    return Task.from_row(row | {"task_id": name, "bandset": bandset, "template_u": template_u})


# ------------------------------------------------------------------------------------------------- mosaic


def _mosaic(bank: SourceBank, rows: list[dict[str, Any]], host: HostCutout, config: RunConfig) -> Figure:
    """Templates from the least to the most noisy, each with its arc and its stamp."""
    by_noise = sorted(range(len(rows)), key=lambda k: rows[k]["noise_power_fraction"])
    chosen = [by_noise[round(i * (len(by_noise) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)]
    figure = Figure(figsize=(12.5, 5.0), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, COLUMNS)
    for column, k in enumerate(chosen):
        task = _task(f"gen5-{k}", "grz", (k + 0.5) / len(bank))
        assert task.source is not None
        template = bank_source(task.source, bank, k).template
        stamp = inject(task, host, template, 1.0, injection_settings(config))
        _draw_template(axes[0, column], bank.images[k])
        arc = {b: stamp.bands[b].arc[SHOWN, SHOWN] for b in "grz"}
        image = {b: stamp.bands[b].image[SHOWN, SHOWN] for b in "grz"}
        axes[1, column].imshow(colour_image(arc))
        axes[2, column].imshow(colour_image(image))
        share = rows[k]["noise_power_fraction"]
        title = f"F814W {rows[k]['catalogue_mag']:.1f}\nnoise {100 * share:.1f} %"
        axes[0, column].set_title(title, fontsize=8.5)
    for ax, label in zip(axes[:, 0], ("template, 2.7″", "arc through the PSF", "stamp, 10.5″"), strict=True):
        ax.set_ylabel(label, fontsize=9)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return figure


def _draw_template(ax: Any, image: NDArray[np.float32]) -> None:
    """The central 91 pixels, arcsinh stretch; row 0 at the bottom."""
    side = image.shape[0]
    cut = slice(side // 2 - 45, side // 2 + 46)
    pixels = np.asarray(image[cut, cut], float)
    ax.imshow(np.arcsinh(pixels / (0.15 * pixels.max())), origin="lower", cmap="gray_r", vmin=-0.35, vmax=2.4)


# --------------------------------------------------------------------------------------------- noise table


def _noise_table(
    catalogue: Path,
    settings: BankSettings,
    bank: SourceBank,
    rows: list[dict[str, Any]],
    host: HostCutout,
    config: RunConfig,
) -> None:
    """What whitening would cost, per template, on its own pixels and on the arc; printed."""
    file = find_catalogue_file(catalogue)
    real = galsim.RealGalaxyCatalog(file.name, dir=str(file.parent))
    target = galsim.Gaussian(fwhm=settings.target_psf_fwhm_arcsec)
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in TREATMENTS}
    for k, row in enumerate(rows):
        seed = galsim.BaseDeviate(1000 + k)
        noise = galsim.Convolve(galsim.RealGalaxy(real, index=row["catalogue_row"], rng=seed), target).noise
        # NOISE_VARIANCE of the catalogue contains the galaxy for some; the rms of the sky is what the builder measured.
        noise = noise.withVariance(row["sky_rms"] ** 2)
        template = np.asarray(bank.images[k], float)
        flux = row["flux_ratio"] * row["catalogue_flux"]
        arc = _arc(template, row, host, config)
        for name in TREATMENTS:
            variance, drawn = _noise_images(name, noise, template.shape, settings.pixscale_arcsec)
            ratio = variance / noise.getVariance()
            noisy = [_arc(template + np.where(template != 0, n, 0.0) / flux, row, host, config) for n in drawn]
            imprint = np.sqrt(np.mean([((a - arc) ** 2).sum() for a in noisy]) / (arc**2).sum())
            found[name].append((ratio, row["snr_peak"] / np.sqrt(ratio), imprint))
    print(f"{len(rows)} templates; median (90th percentile)")
    print("| noise | variance | templates with peak S/N of 8 | noise in the arc, % of the arc |\n|---|---|---|---|")
    for name, values in found.items():
        ratios, peaks, imprints = np.array(values).T
        print(f"| {name} | {_spread(ratios)} | {(peaks >= 8).sum()} | {_spread(100 * imprints)} |")


def _noise_images(
    name: str, noise: Any, shape: tuple[int, ...], pixscale_arcsec: float
) -> tuple[float, list[NDArray[np.float64]]]:
    """Variance per pixel, and draws of the noise after the treatment."""
    variance, drawn = noise.getVariance(), []
    for _ in range(NOISE_DRAWS):
        image = galsim.Image(*shape, scale=pixscale_arcsec, dtype=float)
        image.addNoise(noise)
        if name == "whitened":
            variance = noise.whitenImage(image)
        elif name == "4-fold symmetric":
            variance = noise.symmetrizeImage(image, 4)
        drawn.append(np.array(image.array))
    return float(variance), drawn


def _arc(pixels: NDArray[np.float64], row: dict[str, Any], host: HostCutout, config: RunConfig) -> NDArray[np.float64]:
    """The r-band arc of a template of any positive sum, scaled to the task's radius as the sampler does."""
    task = _task("gen5-noise", "r", 0.0)
    assert task.source is not None
    pixscale_arcsec = task.source.reff_arcsec / (row["hlr_arcsec"] / config_pixscale(config))
    total = float(pixels.sum())
    template = SourceTemplate((pixels / total)[None], pixscale_arcsec, pixscale_arcsec)
    return total * inject(task, host, template, 1.0, injection_settings(config)).bands["r"].arc.astype(float)


def config_pixscale(config: RunConfig) -> float:
    source = config.generation("gen5").source
    assert isinstance(source, CosmosSource)
    return source.pixscale_arcsec


def _spread(values: NDArray[np.float64]) -> str:
    return f"{np.median(values):.2f} ({np.percentile(values, 90):.2f})"


if __name__ == "__main__":
    main()
