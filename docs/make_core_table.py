"""The table of docs/core.md: python docs/make_core_table.py. Everything below the marker line is written anew.

Thin ring: centred on the host, σ = 2 % of its radius. Population: tasks as stage 4a draws them by default
(conf/design/halton.yaml, conf/priors/default.yaml), all moved to one θ_E, sources of Gen7. Both with the renderer,
Moffat PSFs of a given FWHM before the pixel, and uniform weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dhs_gen.lensing.models import MassModel
from dhs_gen.lensing.rays import Accuracy
from dhs_gen.lensing.render import LensedSource, StampGrid, draw, lens_source
from dhs_gen.paired_controls import core_fractions, ring_template
from dhs_gen.psf_kernels import moffat_kernel
from dhs_gen.streams import stream
from dhs_gen.task import Task
from dhs_pipeline.config import RunConfig, load_run_config
from dhs_pipeline.manifest.tasks import expand
from dhs_pipeline.schemas import HOSTS
from dhs_pipeline.sources import Banks, source_maker

PAGE = Path(__file__).resolve().parent / "core.md"
MARKER = "<!-- Written by docs/make_core_table.py from here on. -->\n"
THETA_E_ARCSEC = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5)
FWHM_ARCSEC = (0.9, 1.1, 1.3, 1.5)
BETA = 3.5
RADIUS_PIX = 5.0
RING_WIDTH_FRAC = 0.02
ARCS = 64
NO_LENS = MassModel(0.0, 0.0, 0.0, 0.0, 0.0)


class Stamps:
    """The stamp, the PSFs and the accuracy of a run."""

    def __init__(self, config: RunConfig) -> None:
        survey = config.survey
        self.grid = StampGrid(survey.stamp_size_pix, survey.pixscale_arcsec, survey.psf_kernel_size_pix)
        self.accuracy = Accuracy(**config.rendering.model_dump(exclude={"name"}))
        self.kernels = [
            moffat_kernel(f / survey.pixscale_arcsec, BETA, survey.psf_kernel_size_pix) for f in FWHM_ARCSEC
        ]

    def centre(self, x: float, y: float) -> tuple[float, float]:
        """The middle of the stamp, moved by a fraction of a pixel."""
        middle = 0.5 * (self.grid.size_pix - 1)
        return middle + x, middle + y

    def fractions(self, lensed: LensedSource, centre_xy_pix: tuple[float, float]) -> NDArray[np.float64]:
        """(flux and S/N, FWHM)."""
        arcs = [draw(lensed, 0, kernel) for kernel in self.kernels]
        return np.array([core_fractions(arc, None, centre_xy_pix, RADIUS_PIX) for arc in arcs]).T


def main() -> None:
    config = load_run_config("data")
    stamps, tasks = Stamps(config), list(population(config))
    lines = [
        f"\n`python docs/make_core_table.py`: r < {RADIUS_PIX:g} px of {stamps.grid.pixscale_arcsec}″, stamp of "
        f"{stamps.grid.size_pix} px, Moffat β = {BETA:g}, FWHM (before the pixel) of "
        f"{' / '.join(f'{f:g}' for f in FWHM_ARCSEC)}″, uniform weights.\nPopulation: median of {ARCS} arcs.\n",
        "| θ_E | ring: flux in the core | ring: S/N in the core | population: flux | population: S/N |",
        "|---|---|---|---|---|",
    ]
    for theta_e in THETA_E_ARCSEC:
        cells = [*ring(theta_e, stamps), *arcs(theta_e, tasks, config, stamps)]
        texts = [" / ".join(f"{v:.2f}" for v in cell) for cell in cells]
        lines.append(f"| {theta_e:g}″ | {' | '.join(texts)} |")
    head = PAGE.read_text(encoding="utf-8").partition(MARKER)[0]
    PAGE.write_text(head + MARKER + "\n".join(lines) + "\n", encoding="utf-8")
    print(PAGE)


def ring(theta_e_arcsec: float, stamps: Stamps) -> NDArray[np.float64]:
    """(flux and S/N, FWHM) of a thin ring, mean over nine places of its centre on a pixel."""
    template = ring_template(theta_e_arcsec, RING_WIDTH_FRAC, 0.0, (0, 0), 0.0, 0.0, 0.0, stream("ring", "core_table"))
    thirds = (-1 / 3, 0.0, 1 / 3)
    found = []
    for centre in (stamps.centre(x, y) for x in thirds for y in thirds):
        lensed = lens_source(NO_LENS, template, (0.0, 0.0), centre, stamps.grid, stamps.accuracy)
        found.append(stamps.fractions(lensed, centre))
    return np.mean(found, axis=0)


def arcs(theta_e_arcsec: float, tasks: list[Task], config: RunConfig, stamps: Stamps) -> NDArray[np.float64]:
    """(flux and S/N, FWHM), median over tasks of which only θ_E and, with it, the source's offset are changed."""
    make = source_maker(config.generation("gen7"), Banks(), config.manifest.folds)
    found = []
    for task in tasks:
        made = make(task, None)
        if task.lens is None or task.source is None or made is None:
            raise ValueError(f"{task.task_id} is a control")
        scale = theta_e_arcsec / task.lens.theta_e_arcsec
        lens = dataclasses.replace(task.lens, theta_e_arcsec=theta_e_arcsec)
        source_xy = (task.source.x_arcsec * scale, task.source.y_arcsec * scale)
        centre = stamps.centre(*stream(task.task_id, "core_table_centre").uniform(-0.5, 0.5, 2))
        lensed = lens_source(lens, made.template, source_xy, centre, stamps.grid, stamps.accuracy)
        found.append(stamps.fractions(lensed, centre))
    return np.median(found, axis=0)


def population(config: RunConfig) -> Iterator[Task]:
    """Tasks of one host of typical brightness; nothing but its redshift and magnitude is used."""
    known = {"host_id": "core_table", "mag_r": 19.0, "z_l": 0.5}
    host = pa.Table.from_pylist([{name: known.get(name) for name in HOSTS.names}], schema=HOSTS)
    rows = [row for row in expand(host, config).to_pylist() if not row["is_control"]]
    yield from (Task.from_row(row | {"bandset": "r"}) for row in rows[:ARCS])


if __name__ == "__main__":
    main()
