"""Stamps per second of 4c and of each stage, next to a straightforward lenstronomy loop on the same tasks.

    python benchmarks/throughput.py [--data … --parent … --bank …] [--tasks 60] [--json FILE]

Runs every stage into a temporary folder, then times the bare renderer and the lenstronomy loop on the first tasks of
the manifest in this process, on one core. The peer does what a notebook would: for each task and band an ImageModel
(SIE + shear, INTERPOL source, the same PSF kernel without the pixel at the supersampled scale), the arc added to the
host, and the stamp written as NPZ. Both are compared with the same converged rendering, so that speed is told with
accuracy. Prints Markdown; ratios are what to quote, for machines differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhs_gen.inject import Stamp
from dhs_gen.lensing.rays import Accuracy
from dhs_gen.lensing.reference import render_with_lenstronomy
from dhs_gen.lensing.render import StampGrid, draw, lens_source
from dhs_gen.psf import pixel_integrated_moffat
from dhs_gen.stamps import encode_stamp
from dhs_gen.task import HostCutout, Task
from dhs_pipeline.cli import main as dhs
from dhs_pipeline.config import RunConfig
from dhs_pipeline.cutouts import read_cutouts
from dhs_pipeline.injection import Renderer, list_shards, read_shard
from dhs_pipeline.pairs import members_of
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.sources import Banks, source_maker
from dhs_pipeline.storage import Location

CONVERGED = Accuracy(rays_per_resolution=3.0, min_supersampling=9, max_supersampling=151, moment_order=6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "parent", "bank", "json"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--tasks", type=int, default=60)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "run")
        given = [f"--{n}={getattr(args, n)}" for n in ("data", "parent", "bank") if getattr(args, n)]
        if dhs(["run", "--out", out, "--quiet", *given]) != 0:
            raise SystemExit(2)
        run = RunDir(Location.of(out))
        stages = stage_rates(run)
        kernels = [kernel_rates(run, name, args.tasks) for name in run.generations() if name != "control"]
    result = {"machine": machine(), "stages": stages, "kernels": kernels}
    print(markdown(result))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")


def stage_rates(run: RunDir) -> list[dict[str, Any]]:
    """Rows, wall seconds and seconds inside the workers, as each stage's JSON has them."""
    where = [run.phase4a, run.phase4b]
    for name in run.generations():
        where += [run.phase4c(name), run.phase4p5(name)]
    found = [(w / "_stage.json").read_json() for w in where]
    keys = ("stage", "generation", "rows", "seconds", "rows_per_second", "worker_seconds")
    return [{k: s.get(k) for k in keys} for s in found]


def kernel_rates(run: RunDir, generation: str, n_tasks: int) -> dict[str, Any]:
    """Milliseconds per stamp and errors of our renderer and of lenstronomy at supersampling 3 and 5."""
    config = run.config()
    bank = run.where / "bank"
    banks = Banks(cosmos=bank if bank.exists() else None)
    renderer = Renderer(config.generation(generation), banks, config)
    make = source_maker(config.generation(generation), banks, config.manifest.folds)
    jobs = positive_tasks(run, n_tasks)
    alone = config.generation(generation)
    ours_ms, ours = timed(lambda job: renderer.stamp(members_of(job[0], alone)[0], job[1])[0], jobs)
    peers = {}
    for factor in (3, 5):
        peers[factor] = timed(lambda job, f=factor: notebook_stamp(job, make, config, f), jobs)
    truth = [converged(job, make, config) for job in jobs]
    return {
        "generation": generation,
        "tasks": len(jobs),
        "ours": summary(ours_ms, [worst_error(s, t) for s, t in zip(ours, truth, strict=True)]),
        **{
            f"lenstronomy_{factor}": summary(ms, [worst_error_of_arcs(a, t) for a, t in zip(arcs, truth, strict=True)])
            for factor, (ms, arcs) in peers.items()
        },
    }


Job = tuple[dict[str, Any], HostCutout]


def positive_tasks(run: RunDir, count: int) -> list[Job]:
    """The first tasks with an arc whose host has a cutout."""
    jobs: list[Job] = []
    for shard in list_shards(run):
        rows = [r for r in read_shard(shard).to_pylist() if not r["is_control"]]
        cutouts = read_cutouts(run.cutouts / shard.part, {r["host_id"] for r in rows}, "grz")
        jobs += [(r, cutouts[r["host_id"]]) for r in rows if cutouts[r["host_id"]].status == "OK"]
        if len(jobs) >= count:
            break
    return jobs[:count]


def timed(work: Callable[[Job], Any], jobs: Sequence[Job]) -> tuple[list[float], list[Any]]:
    """Milliseconds and result of each job, after a warm-up."""
    work(jobs[0])
    milliseconds, results = [], []
    for job in jobs:
        start = time.perf_counter()
        results.append(work(job))
        milliseconds.append(1e3 * (time.perf_counter() - start))
    return milliseconds, results


def notebook_stamp(job: Job, make: Any, config: RunConfig, supersampling: int) -> dict[str, NDArray[np.float64]]:
    """A task by lenstronomy: three ImageModels, the arcs added to the host, NPZ bytes made and dropped."""
    row, cutout = job
    task = Task.from_row(row)
    template = make(task, None).template
    survey, first = config.survey, 18
    lens_xy_pix = (cutout.centroid_xy_pix[0] - first, cutout.centroid_xy_pix[1] - first)
    arcs, stamp = {}, {}
    for index, band in enumerate(task.bandset):
        kernel = pixel_integrated_moffat(
            fwhm_pix(cutout, band, config) * supersampling, survey.moffat_beta[band], 63 * supersampling
        )
        arcs[band] = render_with_lenstronomy(
            task.lens,
            template,
            min(index, len(template.pixels) - 1),
            (task.source.x_arcsec, task.source.y_arcsec),
            lens_xy_pix,
            task.stamp_size_pix,
            survey.pixscale_arcsec,
            kernel / kernel.sum(),
            supersampling,
        )
        host = cutout.image[band][first : first + task.stamp_size_pix, first : first + task.stamp_size_pix]
        stamp[f"image_{band}"] = (host + arcs[band] * task.source.flux_nmgy(band)).astype(np.float32)
    encode_stamp(stamp)
    return arcs


def fwhm_pix(cutout: HostCutout, band: str, config: RunConfig) -> float:
    from dhs_gen.psf import moffat_for_psfsize

    survey = config.survey
    psf = moffat_for_psfsize(cutout.psfsize_arcsec[band], survey.moffat_beta[band], survey.pixscale_arcsec, 63)
    return psf.fwhm_arcsec / survey.pixscale_arcsec


def converged(job: Job, make: Any, config: RunConfig) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Arcs of unit flux at far higher accuracy, on both placements of the stamp that the two renderers use."""
    from dhs_gen.inject import stamp_window
    from dhs_gen.psf import moffat_for_psfsize

    row, cutout = job
    task, survey = Task.from_row(row), config.survey
    template = make(task, None).template
    grid = StampGrid(task.stamp_size_pix, survey.pixscale_arcsec, survey.psf_kernel_size_pix)
    fixed = (cutout.centroid_xy_pix[0] - 18, cutout.centroid_xy_pix[1] - 18)
    centres = {"ours": stamp_window(cutout, task.stamp_size_pix)[1], "fixed": fixed}
    truth = {}
    for name, centre in centres.items():
        lensed = lens_source(task.lens, template, (task.source.x_arcsec, task.source.y_arcsec), centre, grid, CONVERGED)
        truth[name] = {
            b: draw(
                lensed,
                min(index, len(template.pixels) - 1),
                moffat_for_psfsize(cutout.psfsize_arcsec[b], survey.moffat_beta[b], survey.pixscale_arcsec, 63).kernel,
            )
            for index, b in enumerate(task.bandset)
        }
    return truth


def worst_error(stamp: Stamp, truth: dict[str, dict[str, NDArray[np.float64]]]) -> float:
    """Largest error over bands, in per cent of the peak."""
    return max(
        100 * np.abs(r.arc / r.unlensed_flux_nmgy - truth["ours"][b]).max() / truth["ours"][b].max()
        for b, r in stamp.bands.items()
    )


def worst_error_of_arcs(arcs: dict[str, Any], truth: dict[str, dict[str, NDArray[np.float64]]]) -> float:
    return max(100 * np.abs(arc - truth["fixed"][b]).max() / truth["fixed"][b].max() for b, arc in arcs.items())


def summary(milliseconds: Sequence[float], errors: Sequence[float]) -> dict[str, float]:
    return {
        "ms_median": statistics.median(milliseconds),
        "ms_mean": statistics.fmean(milliseconds),
        "error_percent_median": statistics.median(errors),
        "error_percent_max": max(errors),
    }


def machine() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}


def markdown(result: dict[str, Any]) -> str:
    m = result["machine"]
    lines = [f"{m['cores']} cores ({m['machine']}), Python {m['python']}", ""]
    lines += ["| stage | rows | s | rows/s | ms in the worker per row |", "|---|---|---|---|---|"]
    for s in result["stages"]:
        name = " ".join(filter(None, (s["stage"], s["generation"])))
        per_row = 1e3 * s["worker_seconds"] / max(s["rows"], 1)
        lines.append(f"| {name} | {s['rows']} | {s['seconds']:.1f} | {s['rows_per_second']:.0f} | {per_row:.1f} |")
    lines += [
        "",
        "| generation | renderer | ms per stamp (mean) | stamps/s per core | error, % of peak (median, max) |",
    ]
    lines.append("|---|---|---|---|---|")
    for k in result["kernels"]:
        for key, label in (
            ("ours", "dhs_gen"),
            ("lenstronomy_3", "lenstronomy, supersampling 3"),
            ("lenstronomy_5", "lenstronomy, supersampling 5"),
        ):
            v = k[key]
            errors = f"{v['error_percent_median']:.2f}, {v['error_percent_max']:.2f}"
            lines.append(f"| {k['generation']} | {label} | {v['ms_mean']:.1f} | {1e3 / v['ms_mean']:.1f} | {errors} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
