"""Every public function of the earlier API refuses what it cannot use, and names the argument and the value."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dhs_gen.deep_sources import build_deep_source_bank, choose_index, load_bank
from dhs_gen.domain_randomization.artifacts import ArtifactConfig, apply_domain_randomization
from dhs_gen.hybrid_sources.sersic_clumps import generate_hybrid_source, generate_hybrid_source_bands
from dhs_gen.lensing.cosmology import Cosmology, theta_e_sis_arcsec
from dhs_gen.lensing.models import MassModel
from dhs_gen.psf import elliptical_moffat_for_psfsize, moffat_for_psfsize
from dhs_gen.uber.mixer import DEFAULT_UBER, MixerConfig, assign_modes, validate_manifest_distribution
from dhs_gen.utils import (
    bilinear_resample,
    blake2b_u64,
    categorical_from_hash,
    elliptical_moffat_kernel,
    fft_convolve2d,
    from_surface_brightness,
    gaussian_kernel,
    moffat_kernel,
    pad_or_crop_center,
    rng_from_hash,
    to_surface_brightness,
)
from dhs_gen.validation.quality_checks import decode_stamp_npz, validate_parquet_stamps

IMAGE = np.ones((8, 8))
HOLED = np.where(np.eye(8) > 0, np.nan, 1.0)
COSMOLOGY = Cosmology(70.0, 0.3)

Case = tuple[Callable[[], object], str]
CASES: dict[str, Case] = {
    "to_surface_brightness, scale 0": (lambda: to_surface_brightness(IMAGE, 0.0), r"pixscale_arcsec .*0\.0"),
    "to_surface_brightness, scale NaN": (lambda: to_surface_brightness(IMAGE, math.nan), "pixscale_arcsec .*nan"),
    "from_surface_brightness, scale < 0": (lambda: from_surface_brightness(IMAGE, -0.1), r"pixscale_arcsec .*-0\.1"),
    "rng_from_hash, key": (lambda: rng_from_hash(None), "key .*None"),  # type: ignore[arg-type]
    "categorical_from_hash, sum": (lambda: categorical_from_hash("t", [0.5, 0.6]), r"probs .*\[0\.5, 0\.6\]"),
    "categorical_from_hash, negative": (lambda: categorical_from_hash("t", [-1.0, 2.0]), r"probs .*\[-1\.0, 2\.0\]"),
    "pad_or_crop_center, size": (lambda: pad_or_crop_center(IMAGE, (0, 8)), r".*\(0, 8\)"),
    "pad_or_crop_center, shape": (lambda: pad_or_crop_center(np.ones(8), (4, 4)), r"img .*\(8,\)"),
    "bilinear_resample, scale 0": (lambda: bilinear_resample(IMAGE, 0.0, 1.0), r"scale_y .*0\.0"),
    "bilinear_resample, scale inf": (lambda: bilinear_resample(IMAGE, 1.0, math.inf), "scale_x .*inf"),
    "bilinear_resample, NaN": (lambda: bilinear_resample(HOLED, 0.5, 0.5), "img .*"),
    "fft_convolve2d, even kernel": (lambda: fft_convolve2d(IMAGE, np.ones((4, 4))), r"kernel .*\(4, 4\)"),
    "fft_convolve2d, NaN": (lambda: fft_convolve2d(HOLED, np.ones((3, 3))), "img .*"),
    "gaussian_kernel, width 0": (lambda: gaussian_kernel(0.0), r"fwhm_pix .*0\.0"),
    "moffat_kernel, width NaN": (lambda: moffat_kernel(math.nan), "fwhm_pix .*nan"),
    "moffat_kernel, beta": (lambda: moffat_kernel(3.0, beta=0.9), r"beta .*0\.9"),
    "moffat_kernel, size": (lambda: moffat_kernel(3.0, size=0), "size .*0"),
    "elliptical_moffat_kernel, e": (lambda: elliptical_moffat_kernel(3.0, 3.5, 1.2, 0.0), r"e .*1\.2"),
    "elliptical_moffat_kernel, phi": (lambda: elliptical_moffat_kernel(3.0, 3.5, 0.1, math.nan), "phi .*nan"),
    "moffat_for_psfsize, 0": (lambda: moffat_for_psfsize(0.0, 3.0, 0.262, 63), r"psfsize .*0\.0"),
    "elliptical_moffat_for_psfsize": (
        lambda: elliptical_moffat_for_psfsize(math.nan, 3.0, 0.262, 63, 0.1, 0.0),
        "psfsize .*nan",
    ),
    "generate_hybrid_source, re": (lambda: generate_hybrid_source("t", re_pix=0.0), r"re_pix .*0\.0"),
    "generate_hybrid_source, n": (lambda: generate_hybrid_source("t", n_sersic=math.nan), "n_sersic .*nan"),
    "generate_hybrid_source, q": (lambda: generate_hybrid_source("t", q=1.5), r"q .*1\.5|axis_ratio .*1\.5"),
    "generate_hybrid_source, H": (lambda: generate_hybrid_source("t", H=0), ".*0"),
    "generate_hybrid_source, fractions": (
        lambda: generate_hybrid_source("t", clump_flux_frac_range=(0.5, 0.2)),
        r"clump_flux_frac_range .*0\.5.*0\.2",
    ),
    "generate_hybrid_source, clumps": (
        lambda: generate_hybrid_source("t", n_clumps_range=(-1, 2)),
        "n_clumps_range .*-1",
    ),
    "generate_hybrid_source, gradient": (
        lambda: generate_hybrid_source("t", gradient_strength=math.inf),
        "gradient_strength .*inf",
    ),
    "generate_hybrid_source_bands": (lambda: generate_hybrid_source_bands("t", bands="gqz"), "bands .*q"),
    "ArtifactConfig, rate": (lambda: ArtifactConfig(cosmic_rate=1.5), r"cosmic_rate .*1\.5"),
    "ArtifactConfig, jitter": (lambda: ArtifactConfig(jitter_sigma_pix=-0.1), r"jitter_sigma_pix .*-0\.1"),
    "apply_domain_randomization, NaN": (lambda: apply_domain_randomization(HOLED, "t"), "img .*"),
    "apply_domain_randomization, shape": (lambda: apply_domain_randomization(np.ones(8), "t"), r"img .*\(8,\)"),
    "apply_domain_randomization, model": (
        lambda: apply_domain_randomization(IMAGE, "t", psf_fwhm_pix=3.0, psf_model="airy"),
        "psf_model .*airy",
    ),
    "apply_domain_randomization, width": (
        lambda: apply_domain_randomization(IMAGE, "t", psf_fwhm_pix=-3.0),
        r"psf_fwhm_pix .*-3\.0",
    ),
    "MixerConfig, lengths": (
        lambda: MixerConfig(["cosmos"], [0.5, 0.5], ["none"], [1.0]),
        "source_probs .*|source_modes .*",
    ),
    "MixerConfig, sum": (lambda: MixerConfig(["cosmos"], [0.9], ["none"], [1.0]), r"source_probs .*0\.9"),
    "MixerConfig, unknown": (lambda: MixerConfig(["warp"], [1.0], ["none"], [1.0]), "source_modes .*warp"),
    "assign_modes, id": (lambda: assign_modes("", DEFAULT_UBER), "task_id .*''"),
    "validate_manifest_distribution": (lambda: validate_manifest_distribution("nowhere.parquet"), "nowhere"),
    "choose_index, n": (lambda: choose_index("t", 0), "n .*0"),
    "load_bank, file": (lambda: load_bank("nowhere.npz"), r"nowhere\.npz"),
    "build_deep_source_bank, scale": (
        lambda: build_deep_source_bank("nowhere", "bank.npz", 10, 96, -0.168, 0.262),
        r"src_pixscale_arcsec .*-0\.168",
    ),
    "build_deep_source_bank, n": (
        lambda: build_deep_source_bank("nowhere", "bank.npz", 0, 96, 0.168, 0.262),
        "n_sources .*0",
    ),
    "decode_stamp_npz": (lambda: decode_stamp_npz(b"not a stamp"), "not a stamp"),
    "validate_parquet_stamps, nothing": (lambda: validate_parquet_stamps("nowhere/*.parquet"), "nowhere"),
    "MassModel, theta_e": (lambda: MassModel(-1.0, 0.1, 0.0, 0.0, 0.0), r"theta_e_arcsec .*-1\.0"),
    "MassModel, e": (lambda: MassModel(1.0, 1.0, 0.0, 0.0, 0.0), r"e .*1\.0"),
    "MassModel, slope": (lambda: MassModel(1.0, 0.1, 0.0, 0.0, 0.0, slope=3.0), r"slope .*3\.0"),
    "theta_e_sis_arcsec, order": (lambda: theta_e_sis_arcsec(250.0, 0.5, 0.4, COSMOLOGY), r"z_s .*0\.4.*0\.5"),
    "theta_e_sis_arcsec, sigma": (lambda: theta_e_sis_arcsec(-1.0, 0.5, 1.0, COSMOLOGY), r"sigma_v_km_s .*-1\.0"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_a_value_error_that_names_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, words = CASES[name]
    with pytest.raises((ValueError, FileNotFoundError), match=words) as error:
        call()
    assert "\n" not in str(error.value)


def test_hashes_take_anything_that_prints() -> None:
    assert blake2b_u64("task", 1, salt="s") == blake2b_u64("task", "1", salt="s")
