"""The wheel alone, in an environment without Spark, GalSim, sep's peers or this checkout: every kernel works there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests_support import REPO

pytestmark = pytest.mark.slow

KERNELS = """
import importlib.util, json, sys
for name in ("pyspark", "galsim", "lenstronomy", "pandas", "h5py"):
    assert importlib.util.find_spec(name) is None, name

import numpy as np
import dhs_gen
from dhs_gen import to_surface_brightness, utils
from dhs_gen.deep_sources import choose_index
from dhs_gen.domain_randomization.artifacts import ArtifactConfig, apply_domain_randomization
from dhs_gen.hybrid_sources.sersic_clumps import generate_hybrid_source, generate_hybrid_source_bands
from dhs_gen.lensing.models import MassModel, deflection
from dhs_gen.lensing.rays import Accuracy
from dhs_gen.lensing.render import StampGrid, draw, lens_source
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.psf import moffat_for_psfsize
from dhs_gen.stamps import encode_stamp
from dhs_gen.uber.mixer import DEFAULT_UBER, assign_modes
from dhs_gen.validation.quality_checks import decode_stamp_npz
from dhs_pipeline.config import load_run_config

assert "site-packages" in dhs_gen.__file__
made = generate_hybrid_source("task", H=64, W=64)
bands = generate_hybrid_source_bands("task", H=64, W=64)
lens = MassModel(1.2, 0.2, 0.3, 0.04, 1.0)
light = np.asarray(bands["img"], float)
template = SourceTemplate(light / light.sum(axis=(1, 2))[:, None, None], 0.03, 0.03)
lensed = lens_source(lens, template, (0.1, 0.05), (31.6, 31.4), StampGrid(64, 0.262, 63), Accuracy(1.0, 3, 75, 3))
arc = draw(lensed, 0, moffat_for_psfsize(1.3, 3.0, 0.262, 63).kernel)
assert arc.shape == (64, 64) and np.isfinite(arc).all() and arc.sum() > 1
noisy = arc + utils.rng_from_hash("task").normal(0, 0.01, arc.shape)
changed = apply_domain_randomization(noisy, "task", psf_fwhm_pix=4.0, cfg=ArtifactConfig(cosmic_rate=1.0, sat_rate=1.0))
assert np.isfinite(changed["img"]).all()
assert utils.bilinear_resample(noisy, 0.5, 0.5).sum() - noisy.sum() < 1e-3 * abs(noisy).sum()
assert abs(utils.fft_convolve2d(noisy, utils.elliptical_moffat_kernel(4.0, 3.5, 0.1, 0.3)).sum()) > 0
assert deflection(lens, 0.5, 0.2)[0].shape == ()
assert set(assign_modes("task", DEFAULT_UBER)) == {"source_mode", "artifact_profile"}
assert 0 <= choose_index("task", 7) < 7
array, bandset = decode_stamp_npz(encode_stamp({"image_r": arc.astype(np.float32)}))
assert bandset == "r" and array.shape == (1, 64, 64)
assert load_run_config("demo").survey.name == "dr10"
print("every kernel works")
"""


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_wheel_works_alone(tmp_path: Path) -> None:
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
        *("-w", str(tmp_path), str(REPO)),
        cwd=tmp_path,
    )
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", str(tmp_path / "empty"), cwd=tmp_path)
    python = str(tmp_path / "empty" / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel), cwd=tmp_path)
    assert "every kernel works" in run(python, "-I", "-c", KERNELS, cwd=tmp_path)
