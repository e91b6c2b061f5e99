"""What is rendered: tasks of a small manifest with their hosts, and the scene of one task for every renderer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.goals import Inputs
from dhs_gen.inject import stamp_window
from dhs_gen.lensing.models import MassModel
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.psf import moffat_for_psfsize
from dhs_gen.source_banks import Column, write_bank
from dhs_gen.task import HostCutout, Task
from dhs_pipeline.config import Survey
from dhs_pipeline.cutouts import read_cutouts
from dhs_pipeline.injection import list_shards, read_shard
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.simulate import load_simulation_settings, simulate_survey

BANK_PIXSCALE_ARCSEC = 0.03
_BANK_SIDE_PIX = 101
_BANK_TEMPLATES = 40


@dataclass(frozen=True, eq=False)
class BandPsf:
    """A band's PSF: the kernel with the pixel in it, and the Moffat without."""

    band: str
    kernel: NDArray[np.float64]
    fwhm_pix: float
    beta: float


@dataclass(frozen=True, eq=False)
class Scene:
    """A source of unit flux behind a lens, as :func:`dhs_gen.lensing.render.lens_source` describes it."""

    lens: MassModel
    template: SourceTemplate
    source_xy_arcsec: tuple[float, float]
    lens_xy_pix: tuple[float, float]
    psfs: tuple[BandPsf, ...]
    size_pix: int
    pixscale_arcsec: float
    kernel_size_pix: int

    @property
    def pad_pix(self) -> int:
        return self.kernel_size_pix // 2

    def channel(self, band_index: int) -> int:
        return min(band_index, len(self.template.pixels) - 1)

    @property
    def lens_xy_arcsec(self) -> tuple[float, float]:
        """Lens centre from the centre of the stamp."""
        middle = 0.5 * (self.size_pix - 1)
        x, y = self.lens_xy_pix
        return (x - middle) * self.pixscale_arcsec, (y - middle) * self.pixscale_arcsec


@dataclass(frozen=True, eq=False)
class Job:
    """A manifest row and the pixels of its host."""

    row: Mapping[str, Any]
    cutout: HostCutout


Arcs = Mapping[str, NDArray[np.float64]]
"""Band → (size, size) arc of a source of unit flux."""


def scene_of(job: Job, template: SourceTemplate, survey: Survey) -> Scene:
    task = Task.from_row(job.row)
    if task.lens is None or task.source is None:
        raise ValueError(f"task {task.task_id} has no arc")
    psfs = []
    for band in task.bandset:
        beta, size = survey.moffat_beta[band], survey.psf_kernel_size_pix
        psf = moffat_for_psfsize(job.cutout.psfsize_arcsec[band], beta, survey.pixscale_arcsec, size)
        psfs.append(BandPsf(band, psf.kernel, psf.fwhm_arcsec / survey.pixscale_arcsec, beta))
    return Scene(
        lens=task.lens,
        template=template,
        source_xy_arcsec=(task.source.x_arcsec, task.source.y_arcsec),
        lens_xy_pix=stamp_window(job.cutout, task.stamp_size_pix)[1],
        psfs=tuple(psfs),
        size_pix=task.stamp_size_pix,
        pixscale_arcsec=survey.pixscale_arcsec,
        kernel_size_pix=survey.psf_kernel_size_pix,
    )


def error_percent(arcs: Arcs, truth: Arcs) -> float:
    """Largest error over bands and pixels, in per cent of the band's peak; NaN if anything is not finite."""
    return float(np.max([100 * np.abs(arcs[b] - t).max() / t.max() for b, t in truth.items()]))


# ------------------------------------------------------------------------------------------------- a run's inputs


def dhs(*arguments: str) -> None:
    """One command of ``dhs`` in a process of its own, so that every run has its own Spark; quiet unless it fails."""
    done = subprocess.run([sys.executable, "-m", "dhs_pipeline.cli", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"dhs {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")


def bricks_of(inputs: Inputs) -> tuple[Path, Path]:
    """Bricks and parent catalogue: the given ones, or simulated."""
    if inputs.data is not None and inputs.parent is not None:
        return inputs.data, inputs.parent
    folder = inputs.work / "simulated"
    if not (folder / "parent.parquet").exists():
        simulate_survey(folder, load_simulation_settings())
    return folder, folder / "parent.parquet"


def bank_of(inputs: Inputs) -> Path:
    """The given bank of COSMOS galaxies, or a drawn one."""
    if inputs.bank is not None:
        return inputs.bank
    folder = inputs.work / "bank"
    if not (folder / "bank.json").exists():
        draw_bank(folder)
    return folder


def draw_bank(folder: Path) -> None:
    """Inclined discs with knots, in the format and at the scale of a bank of COSMOS galaxies."""
    rng = np.random.default_rng(5)
    y, x = np.indices((_BANK_SIDE_PIX, _BANK_SIDE_PIX)) - 0.5 * (_BANK_SIDE_PIX - 1)
    images, rows = [], []
    for number in range(_BANK_TEMPLATES):
        scale_pix, q, phi = rng.uniform(4, 8), rng.uniform(0.4, 1), rng.uniform(0, np.pi)
        u, v = x * np.cos(phi) + y * np.sin(phi), -x * np.sin(phi) + y * np.cos(phi)
        image = np.exp(-np.hypot(u, v / q) / scale_pix)
        for _ in range(6):
            at = rng.normal(0.0, scale_pix, 2)
            image += 0.5 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 1.7**2))
        images.append(image * np.clip(50 - np.hypot(x, y), 0, 10) / 10)
        rows.append({"template_id": f"drawn-{number}", "hlr_arcsec": 1.678 * scale_pix * BANK_PIXSCALE_ARCSEC})
    info = {
        "kind": "hst_cosmos_f814w",
        "pixscale_arcsec": BANK_PIXSCALE_ARCSEC,
        "effective_psf_fwhm_arcsec": 0.1,
    }
    columns = (Column("template_id", "string", "", "name"), Column("hlr_arcsec", "float64", "arcsec", "radius"))
    write_bank(folder, images, rows, [], columns=columns, info=info)


def prepare_run(out: Path, inputs: Inputs, tasks_per_host: int, tasks_per_shard: int) -> RunDir:
    """Stages 4a and 4b of a run that 4c can start from."""
    data, parent = bricks_of(inputs)
    sizes = [f"manifest.tasks_per_host={tasks_per_host}", f"manifest.tasks_per_shard={tasks_per_shard}"]
    given = [argument for size in sizes for argument in ("--set", size)]
    dhs("stage-4a", "--out", str(out), "--parent", str(parent), "--config", "data", "--quiet", *given)
    dhs("stage-4b", "--out", str(out), "--data", str(data), "--quiet")
    return run_dir(out)


def run_dir(out: Path) -> RunDir:
    from dhs_pipeline.storage import Location

    return RunDir(Location.of(str(out)))


def positive_jobs(run: RunDir, count: int) -> list[Job]:
    """``count`` tasks with an arc whose host has a cutout, spread evenly over the manifest.

    Raises
    ------
    ValueError
        If the shards that were looked at have fewer.
    """
    shards = list_shards(run)
    chosen = [shards[i] for i in _spread(len(shards), min(count, len(shards)))]
    jobs: list[Job] = []
    for number, shard in enumerate(chosen):
        wanted = (number + 1) * count // len(chosen) - number * count // len(chosen)
        rows = [r for r in read_shard(shard).to_pylist() if not r["is_control"]]
        rows = [rows[i] for i in _spread(len(rows), min(wanted, len(rows)))]
        cutouts = read_cutouts(run.cutouts / shard.part, {r["host_id"] for r in rows}, "grz")
        jobs += [Job(r, cutouts[r["host_id"]]) for r in rows if cutouts[r["host_id"]].status == "OK"]
    if len(jobs) < count:
        raise ValueError(f"{run.where}: {len(jobs)} of {count} tasks have an arc and a cutout; give other bricks")
    return jobs


def _spread(length: int, count: int) -> list[int]:
    """``count`` different indices below ``length``, evenly apart."""
    return [int(i) for i in np.linspace(0, length - 1, count)]
