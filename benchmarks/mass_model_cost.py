"""What a mass model costs: milliseconds of ray shooting per stamp, as Markdown: python benchmarks/mass_model_cost.py

The tasks of tests/dhs_gen/rendering_cases.py, one thread (set OMP_NUM_THREADS=1), CPU time, best of three runs.
Subhalos are random over the disc of 2 θ_E. Needs the development extra.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "dhs_gen"))

from rendering_cases import (
    KERNEL_SIZE_PIX,
    PIXSCALE_ARCSEC,
    STAMP_SIZE_PIX,
    Case,
    default_accuracy,
    random_case,
    random_subhalos,
)

from dhs_gen.lensing.models import MassModel
from dhs_gen.lensing.rays import shoot
from dhs_gen.lensing.render import StampGrid

GRID = StampGrid(STAMP_SIZE_PIX, PIXSCALE_ARCSEC, KERNEL_SIZE_PIX)
ACCURACY = default_accuracy()
REPEATS = 3


def models() -> dict[str, Callable[[MassModel], MassModel]]:
    """What each row of the table does to a task's SIE and shear."""

    def power_law(lens: MassModel) -> MassModel:
        return dataclasses.replace(lens, slope=2.1)

    def angular(lens: MassModel) -> MassModel:
        return dataclasses.replace(lens, a3_frac=0.01, a4_frac=0.01)

    def with_subhalos(count: int) -> Callable[[MassModel], MassModel]:
        def make(lens: MassModel) -> MassModel:
            halos = random_subhalos(np.random.default_rng(count), count, lens.theta_e_arcsec)
            return dataclasses.replace(angular(power_law(lens)), subhalos=halos)

        return make

    return {
        "SIE + shear": lambda lens: lens,
        "SIE + shear + multipoles": angular,
        "EPL + shear": power_law,
        "EPL + shear + multipoles": lambda lens: angular(power_law(lens)),
        **{f"EPL + shear + multipoles + {n} subhalos": with_subhalos(n) for n in (10, 100, 400)},
    }


def milliseconds(case: Case, lens: MassModel) -> float:
    at = (case.lens_xy_pix[0] + GRID.pad_pix, case.lens_xy_pix[1] + GRID.pad_pix)
    took = []
    for _ in range(REPEATS):
        start = time.process_time()
        shoot(lens, case.template, case.source_xy_arcsec, at, GRID.padded_pix, GRID.pixscale_arcsec, ACCURACY)
        took.append(1e3 * (time.process_time() - start))
    return min(took)


def main() -> None:
    cases = [random_case(index, kind) for kind in ("hybrid", "noisy") for index in range(10)]
    print("| mass | ms per stamp, median | mean |\n|---|---|---|")
    for name, make in models().items():
        milliseconds(cases[0], make(cases[0].lens))  # compiles
        took = [milliseconds(case, make(case.lens)) for case in cases]
        print(f"| {name} | {np.median(took):.1f} | {np.mean(took):.1f} |", flush=True)


if __name__ == "__main__":
    main()
