"""Error and cost of the renderer at several settings, against lenstronomy on a fine grid; prints Markdown.

    python benchmarks/rendering_accuracy.py [--tasks N]

N tasks with Gen7 templates and N with noisy galaxy-like templates; the tasks and the oracle are those of
tests/dhs_gen/rendering_cases.py. A stamp's time is rays and three bands, single-threaded (set OMP_NUM_THREADS=1),
the better of two runs; of lenstronomy likewise three bands, construction included. Needs the development extra.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "dhs_gen"))

from rendering_cases import (
    KERNEL_SIZE_PIX,
    PIXSCALE_ARCSEC,
    STAMP_SIZE_PIX,
    ArcError,
    Case,
    arc_error,
    default_accuracy,
    gen7_settings,
    lensed_source,
    oracle,
    oracle_rays_per_pixel,
    random_case,
    summary,
)

from dhs_gen.hybrid_sources.sampler import hybrid_source
from dhs_gen.lensing.models import SieShear
from dhs_gen.lensing.reference import render_with_lenstronomy
from dhs_gen.lensing.render import StampGrid, draw, lens_source
from dhs_gen.psf import pixel_integrated_moffat
from dhs_gen.task import SourceParams

Render = Callable[[Case], NDArray[np.float64]]
BANDS = 3


def ours(**changes: float) -> Render:
    """The package's renderer, three bands of which the first is returned."""
    accuracy = default_accuracy(**changes)

    def render(case: Case) -> NDArray[np.float64]:
        lensed = lensed_source(case, accuracy)
        for _ in range(BANDS):
            arc = draw(lensed, 0, case.psf.kernel)
        return arc

    return render


def lenstronomys(supersampling: int) -> Render:
    """lenstronomy's ImageModel with a supersampled convolution on the unpadded stamp."""

    def render(case: Case) -> NDArray[np.float64]:
        size = KERNEL_SIZE_PIX * supersampling
        kernel = pixel_integrated_moffat(case.psf.fwhm_arcsec / PIXSCALE_ARCSEC * supersampling, case.beta, size)
        kernel /= kernel.sum()
        arcs = [
            render_with_lenstronomy(
                case.lens,
                case.template,
                0,
                case.source_xy_arcsec,
                case.lens_xy_pix,
                STAMP_SIZE_PIX,
                PIXSCALE_ARCSEC,
                kernel,
                supersampling,
            )
            for _ in range(BANDS)
        ]
        return arcs[0]

    return render


def settings() -> dict[str, Render]:
    """The rows of the table."""
    base = default_accuracy()
    rows = {f"**default**: order {base.moment_order}, at most {base.max_supersampling} rays per pixel and axis": ours()}
    rows |= {f"order {m}": ours(moment_order=m) for m in (0, 1, 2, 3, 4) if m != base.moment_order}
    rows |= {f"{r:g} rays per resolution": ours(rays_per_resolution=r) for r in (0.5, 2.0)}
    rows |= {
        f"at most {s} rays per pixel and axis": ours(max_supersampling=s)
        for s in (25, 51, 75, 101)
        if s != base.max_supersampling
    }
    dense = ours(moment_order=6, rays_per_resolution=3.0, min_supersampling=9, max_supersampling=151)
    rows["order 6, 3 rays per resolution, 9 to 151 per axis"] = dense
    rows |= {f"lenstronomy, supersampling {s}": lenstronomys(s) for s in (3, 5)}
    return rows


def measure(render: Render, cases: list[Case], truths: list[NDArray[np.float64]]) -> tuple[list[ArcError], float]:
    """Errors of all cases, and the median milliseconds per stamp."""
    errors, milliseconds = [], []
    render(cases[0])
    for case, truth in zip(cases, truths, strict=True):
        took = []
        for _ in range(2):
            start = time.perf_counter()
            arc = render(case)
            took.append(1e3 * (time.perf_counter() - start))
        errors.append(arc_error(case.name, arc, truth))
        milliseconds.append(min(took))
    return errors, float(np.median(milliseconds))


def oracle_convergence(cases: list[Case], truths: list[NDArray[np.float64]]) -> str:
    """How far the oracle moves with denser rays and finer sub-pixels, over the first cases."""
    found = []
    for case, truth in zip(cases, truths, strict=True):
        denser = max(45, 15 * (2 * round(oracle_rays_per_pixel(case.template) * 1.4 / 30) + 1))
        found.append(arc_error(case.name, truth, oracle(case, denser, subpixels=15)))
    peak, flux = (summary(found, field) for field in ("of_peak", "of_flux"))
    return (
        f"Oracle, 9 against 15 sub-pixels and about 1.4 times the rays, {len(cases)} tasks: "
        f"{peak[0]:.3%} / {peak[1]:.3%} / {peak[2]:.3%} of the peak, {flux[2]:.3%} of the flux at most."
    )


def compact_flux_error(n_sersic: float, max_supersampling: int, re_arcsec: float = 0.04) -> float:
    """Largest error of the unlensed flux over 34 sub-pixel phases: the hardest case for the densest rays."""
    source = SourceParams(0.0, 0.0, 22.5, 0.0, 0.0, re_arcsec, n_sersic, 0.2, 0.7, False, 0.5)
    template = hybrid_source("compact", source, gen7_settings())
    grid = StampGrid(STAMP_SIZE_PIX, PIXSCALE_ARCSEC, KERNEL_SIZE_PIX)
    accuracy = default_accuracy(max_supersampling=max_supersampling)
    phases = np.random.default_rng(0).uniform(-0.5, 0.5, (32, 2)).tolist()
    found = [
        lens_source(SieShear(0, 0, 0, 0, 0), template, (0.0, 0.0), (31.5 + x, 31.5 + y), grid, accuracy).magnification[
            0
        ]
        for x, y in [(0.0, 0.0), (0.5, 0.5), *phases]
    ]
    return float(np.abs(np.array(found) - 1.0).max())


def print_compact_sources() -> None:
    print("\nLargest error of the unlensed flux of a Gen7 source of half-light radius 0.04″, in per cent.\n")
    print("| at most, rays per pixel and axis | n = 1 | n = 2.5 | n = 4 |\n|---|---|---|---|")
    for s in (25, 51, 75, 101):
        cells = " | ".join(f"{100 * compact_flux_error(n, s):.2f}" for n in (1.0, 2.5, 4.0))
        print(f"| {s} | {cells} |", flush=True)


def percentages(errors: list[ArcError], field: str) -> str:
    median, p95, largest, _ = summary(errors, field)
    return f"{100 * median:.3f} / {100 * p95:.3f} / {100 * largest:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=50, help="tasks per kind of template (default 50)")
    tasks = parser.parse_args().tasks
    for kind, title in (("hybrid", "Gen7 templates"), ("noisy", "Noisy galaxy-like templates")):
        cases = [random_case(index, kind) for index in range(tasks)]
        truths = [oracle(case) for case in cases]
        print(f"\n{title}, {tasks} tasks; median / 95 % / largest, in per cent.\n", flush=True)
        print("| setting | of the peak | of the flux | ms per stamp |\n|---|---|---|---|")
        for name, render in settings().items():
            errors, milliseconds = measure(render, cases, truths)
            peak, flux = (percentages(errors, field) for field in ("of_peak", "of_flux"))
            print(f"| {name} | {peak} | {flux} | {milliseconds:.1f} |", flush=True)
        few = min(10, tasks)
        print("\n" + oracle_convergence(cases[:few], truths[:few]), flush=True)
    print_compact_sources()


if __name__ == "__main__":
    main()
