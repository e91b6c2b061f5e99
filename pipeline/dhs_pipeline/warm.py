"""Compile every kernel once per machine, so that no task waits for the compiler.

numba keeps what it compiled in ``NUMBA_CACHE_DIR``, in one folder for each folder of sources. An entry is found again
by another process if the path and the content of the source file, the signature, the CPU's name and its features are
the same (numba/core/caching.py). ``NUMBA_CPU_NAME=generic`` makes the last two the same on every machine of one
architecture, so it has to be set alike here and in the tasks. The folder must be writable for whoever uses it: numba
tries to write there before it reads, and does without that folder where it cannot.

The kernels are called through the functions that the stages call, which is what makes the signatures theirs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

import dhs_gen
from dhs_gen.add_light import add_light
from dhs_gen.hybrid_sources.sersic import sersic_image
from dhs_gen.lensing.models import MassModel, deflection
from dhs_gen.lensing.rays import Accuracy
from dhs_gen.lensing.render import StampGrid, lens_source
from dhs_gen.lensing.subhalos import draw_subhalos
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.lensing.tnfw import Subhalos
from dhs_gen.moffat import pixel_integrated_elliptical_moffat, pixel_integrated_moffat
from dhs_gen.noise import arc_shot_noise
from dhs_gen.source_banks.sampler import trim
from dhs_gen.streams import stream
from dhs_pipeline import config
from dhs_pipeline.stage import StageError

_GRID = StampGrid(size_pix=8, pixscale_arcsec=0.262, kernel_size_pix=5)
_ACCURACY = Accuracy(rays_per_resolution=1.0, min_supersampling=3, max_supersampling=7, moment_order=3)


@dataclass(frozen=True)
class KernelUse:
    """What became of one compiled kernel in this process.

    Parameters
    ----------
    name
        Module and function.
    loaded, compiled
        Signatures taken from the cache, and compiled because it did not hold them. Both are 0 for a kernel that is
        called by others alone and came with them from the cache.
    """

    name: str
    loaded: int
    compiled: int


def cached_kernels() -> dict[str, Dispatcher]:
    """Every kernel of :mod:`dhs_gen` that numba compiles and caches, by module and name."""
    found: dict[str, Dispatcher] = {}
    for module in pkgutil.walk_packages(dhs_gen.__path__, "dhs_gen."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Dispatcher):
                found[f"{value.py_func.__module__}.{value.py_func.__qualname__}"] = value
    return dict(sorted(found.items()))


def kernel_uses() -> list[KernelUse]:
    """What this process has loaded and compiled so far."""
    return [
        KernelUse(name, sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
        for name, kernel in cached_kernels().items()
    ]


def warm_kernels() -> list[KernelUse]:
    """Call every kernel with the signatures that the stages use."""
    light = sersic_image((9, 9), 2.0, 1.0, 0.7)
    template = SourceTemplate((light / light.sum())[None], 0.05, 0.05)
    sersic_image((9, 9), 2.0, 1.0, 0.7, (3.5, 4.0), 0.3)  # off its middle: all of the image, not a quadrant
    for lens in (_isothermal(), _perturbed()):
        lens_source(lens, template, (0.1, 0.05), (3.6, 3.4), _GRID, _ACCURACY)
        deflection(lens, np.array([0.5, 1.0]), np.array([0.2, 0.3]))
    population = config.load_section(config.Subhalos, "subhalos", "cdm").kernel()
    cosmology = config.load_section(config.Cosmology, "cosmology", "planck18").kernel()
    draw_subhalos(population, 1.2, 0.5, 1.5, cosmology, stream("warm", "subhalos"))
    trim(light)
    arc = np.ones((8, 8))
    noise = arc_shot_noise(arc, 100.0, stream("warm", "arc_shot_noise"))
    pixels, everywhere = np.ones((8, 8), np.float32), np.ones((8, 8), dtype=bool)
    add_light(pixels, pixels, everywhere, everywhere, arc, noise, 100.0)
    pixel_integrated_moffat(4.0, 3.0, 5)
    pixel_integrated_elliptical_moffat(4.0, 3.0, 0.1, 0.3, 5)
    return kernel_uses()


def _isothermal() -> MassModel:
    return MassModel(0.6, 0.2, 0.3, 0.04, 1.0)


def _perturbed() -> MassModel:
    """All that conf/mass/epl_cdm.yaml can bring: a power law, multipoles and subhalos."""
    halos = Subhalos(*(np.array([a, b]) for a, b in ((0.3, -0.5), (0.2, 0.4), (0.05, 0.1), (0.01, 0.02), (0.2, 0.3))))
    return MassModel(0.6, 0.2, 0.3, 0.04, 1.0, 2.1, 0.01, 0.2, 0.01, 0.4, halos)


def add_commands(commands: Any) -> None:
    """``dhs warm``."""
    text = "compile every kernel into NUMBA_CACHE_DIR, so that no task has to"
    parser = commands.add_parser("warm", help=text, description=text)
    parser.add_argument("--check", action="store_true", help="fail if anything had to be compiled")
    parser.set_defaults(run=_warm)


def _warm(args: argparse.Namespace) -> None:
    folder = os.environ.get("NUMBA_CACHE_DIR")
    if not folder:
        raise StageError("NUMBA_CACHE_DIR is not set: name the folder that the tasks will use too")
    start_s = time.monotonic()
    uses = warm_kernels()
    compiled = [use.name for use in uses if use.compiled]
    if args.check and compiled:
        raise StageError(
            f"{folder} does not hold {len(compiled)} of {len(uses)} kernels for this CPU and user "
            f"({', '.join(compiled)}): run `dhs warm` with the same environment first"
        )
    summary = {
        "folder": folder,
        "cpu_name": os.environ.get("NUMBA_CPU_NAME", "host"),
        "kernels": len(uses),
        "signatures_loaded": sum(use.loaded for use in uses),
        "signatures_compiled": sum(use.compiled for use in uses),
        "seconds": round(time.monotonic() - start_s, 1),
    }
    print(json.dumps(summary, indent=2))
