"""The public function: what it returns and refuses, and that its artifacts are independent and as frequent as asked."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dhs_gen.domain_randomization.artifacts import ArtifactConfig, apply_domain_randomization

OFF = ArtifactConfig(False, 0.05, False, 0.02, False, 0.15, 8, (8, 24), False, 0.08, 12, 2, False, 0.25)
SWITCHES = (
    "enable_psf_anisotropy",
    "enable_bg_plane",
    "enable_cosmic_rays",
    "enable_sat_wings",
    "enable_astrom_jitter",
)
ALWAYS = ArtifactConfig(cosmic_rate=1.0, sat_rate=1.0)


def sky(shape: tuple[int, int] = (64, 64), seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    galaxy = 0.3 * np.exp(-np.hypot(x - shape[1] / 2, y - shape[0] / 2) / 3)
    return (galaxy + 0.004 * rng.standard_normal(shape)).astype(np.float32)


def applied(img: Any = None, key: Any = "task", **kwargs: Any) -> dict[str, Any]:
    return apply_domain_randomization(sky() if img is None else img, key, **kwargs)


# ------------------------------------------------------------------------------------------------------- contract


def test_defaults_are_the_published_ones() -> None:
    names = [f.name for f in dataclasses.fields(ArtifactConfig)][:14]
    published = (True, 0.05, True, 0.02, True, 0.15, 8, (8, 24), True, 0.08, 12, 2, True, 0.25)
    assert tuple(getattr(ArtifactConfig(), n) for n in names) == published
    with pytest.raises(dataclasses.FrozenInstanceError):
        ArtifactConfig().cosmic_rate = 0.5  # type: ignore[misc]


unit = st.floats(0, 1)


@given(
    st.text(min_size=1, max_size=8),
    st.tuples(st.integers(8, 70), st.integers(8, 70)),
    st.one_of(st.none(), st.floats(0.5, 20)),
    st.sampled_from(["moffat", "gaussian"]),
    st.floats(1.6, 20),
    st.integers(3, 99),
    st.builds(
        ArtifactConfig,
        psf_e_sigma=st.floats(0, 0.3),
        bg_plane_amp=st.floats(0, 10),
        cosmic_rate=unit,
        cosmic_amp=st.floats(0, 1e4),
        cosmic_length_pix=st.tuples(st.floats(0.1, 30), st.floats(30, 100)),
        sat_rate=unit,
        sat_amp=st.floats(0, 1e4),
        sat_r0_pix=st.floats(0.1, 20),
        jitter_sigma_pix=st.floats(0, 10),
        sat_spike_fraction=st.floats(0, 5),
        sat_clear_radius_pix=st.floats(0, 100),
        sat_bleed_angle_deg=st.floats(-360, 360),
    ),
)
@settings(max_examples=60)
def test_finite_float32_of_the_same_shape_over_the_whole_range(
    key: str, shape: tuple[int, int], fwhm: float | None, model: str, beta: float, size: int, cfg: ArtifactConfig
) -> None:
    img = sky(shape)
    before = img.tobytes()
    first = apply_domain_randomization(img, key, fwhm, model, beta, cfg, "s", size)
    again = apply_domain_randomization(img, key, fwhm, model, beta, cfg, "s", size)
    assert first["img"].shape == shape
    assert first["img"].dtype == np.float32
    assert np.isfinite(first["img"]).all()
    assert first["img"].tobytes() == again["img"].tobytes()
    assert first["meta"] == again["meta"]
    assert img.tobytes() == before
    assert all(isinstance(v, (float, int, str, bool, type(None))) for v in first["meta"].values())


def test_everything_off_is_the_image() -> None:
    result = applied(cfg=OFF, psf_fwhm_pix=4.0)
    assert result["img"].tobytes() == sky().tobytes()
    assert result["meta"]["jitter_dx_pix"] == 0.0
    assert result["meta"]["cosmic_ray"] is False


def test_image_and_amplitudes_scale_together() -> None:
    """Nothing in here is in nanomaggies: a thousandfold image gets thousandfold artifacts."""
    one, thousand = (applied(sky() * np.float64(s), cfg=ALWAYS, psf_fwhm_pix=4.0) for s in (1.0, 1000.0))
    np.testing.assert_allclose(thousand["img"], 1000.0 * one["img"], rtol=2e-5, atol=2e-5)
    assert one["meta"]["cosmic_amp_sigma"] == thousand["meta"]["cosmic_amp_sigma"]


def test_same_result_in_a_process_with_another_hash_seed() -> None:
    program = (
        "import hashlib, numpy as np\n"
        "from dhs_gen.domain_randomization import ArtifactConfig, apply_domain_randomization as a\n"
        "img = np.random.default_rng(0).normal(size=(48, 48))\n"
        "r = a(img, 'task', 4.0, cfg=ArtifactConfig(cosmic_rate=1.0, sat_rate=1.0))\n"
        "print(hashlib.sha256(r['img'].tobytes()).hexdigest())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "4711")
    }
    here = apply_domain_randomization(np.random.default_rng(0).normal(size=(48, 48)), "task", 4.0, cfg=ALWAYS)
    assert found == {hashlib.sha256(here["img"].tobytes()).hexdigest()}


def test_result_does_not_depend_on_what_was_done_before() -> None:
    keys = [f"k{i}" for i in range(12)]
    forward = {k: applied(key=k)["img"].tobytes() for k in keys}
    assert forward == {k: applied(key=k)["img"].tobytes() for k in reversed(keys)}
    assert len(set(forward.values())) == len(keys)
    assert applied(salt="other")["img"].tobytes() != applied()["img"].tobytes()


# --------------------------------------------------------------------------------------------------- independence


@pytest.mark.parametrize("switch", SWITCHES)
def test_switching_one_off_shifts_no_other(switch: str) -> None:
    own = {
        "enable_psf_anisotropy": ("psf_e1", "psf_e2"),
        "enable_bg_plane": ("bg_",),
        "enable_cosmic_rays": ("cosmic_",),
        "enable_sat_wings": ("sat_",),
        "enable_astrom_jitter": ("jitter_", "cosmic_x", "cosmic_y", "sat_x", "sat_y"),
    }[switch]
    every = applied(cfg=ALWAYS, psf_fwhm_pix=4.0)["meta"]
    less = applied(cfg=dataclasses.replace(ALWAYS, **{switch: False}), psf_fwhm_pix=4.0)["meta"]
    assert {k: v for k, v in every.items() if not k.startswith(own)} == {
        k: v for k, v in less.items() if not k.startswith(own)
    }
    assert every != less


def test_layers_add_up() -> None:
    """Background and cosmic ray of an image with both are those of images with one each."""
    off = dataclasses.replace(ALWAYS, **dict.fromkeys(SWITCHES, False))
    plane = applied(cfg=dataclasses.replace(off, enable_bg_plane=True, bg_plane_amp=3.0))["img"] - sky()
    hit = applied(cfg=dataclasses.replace(off, enable_cosmic_rays=True))["img"] - sky()
    both = applied(cfg=dataclasses.replace(off, enable_bg_plane=True, bg_plane_amp=3.0, enable_cosmic_rays=True))
    np.testing.assert_allclose(both["img"] - sky(), plane + hit, atol=2e-7)
    meta = both["meta"]
    sigma = meta["mad_sigma"]
    # A ray near the border keeps its true brightness, so its brightest pixel may lie off the image.
    assert hit.max() <= meta["cosmic_amp_sigma"] * sigma * (1 + 1e-4)
    assert plane.max() <= math.sqrt(2) * meta["bg_amp_sigma"] * sigma * (1 + 1e-4)


def test_jitter_moves_ray_and_star_with_the_image_but_does_not_resample_them() -> None:
    still = dataclasses.replace(ALWAYS, enable_bg_plane=False, enable_astrom_jitter=False)
    moving = dataclasses.replace(still, enable_astrom_jitter=True, jitter_sigma_pix=1.0)
    a, b = applied(cfg=still)["meta"], applied(cfg=moving)["meta"]
    assert b["cosmic_x_pix"] - a["cosmic_x_pix"] == pytest.approx(b["jitter_dx_pix"])
    assert b["sat_y_pix"] - a["sat_y_pix"] == pytest.approx(b["jitter_dy_pix"])
    plateau = applied(cfg=moving)["img"].max()
    flat = np.count_nonzero(applied(cfg=moving)["img"] == plateau)
    assert flat >= 9, "a resampled core would ring"


# ----------------------------------------------------------------------------------------------------- statistics


def test_rates_amplitudes_and_shifts_agree_with_the_configuration() -> None:
    cfg = ArtifactConfig(bg_plane_amp=0.02)
    n, small = 3000, sky((16, 16))
    metas = [apply_domain_randomization(small, f"key-{i}", cfg=cfg)["meta"] for i in range(n)]
    for name, rate in (("cosmic_ray", 0.15), ("sat_star", 0.08)):
        found = sum(bool(m[name]) for m in metas) / n
        assert found == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / n))
    for name, mean in (("cosmic_amp_sigma", 8.0), ("sat_amp_sigma", 12.0), ("bg_amp_sigma", 0.02)):
        drawn = np.array([m[name] for m in metas if m[name] is not None], dtype=float)
        assert drawn.mean() == pytest.approx(mean, abs=4 * mean / math.sqrt(12 * drawn.size))
    jitter = np.array([(m["jitter_dx_pix"], m["jitter_dy_pix"]) for m in metas])
    np.testing.assert_allclose(jitter.std(axis=0), 0.25, rtol=4 / math.sqrt(2 * n))
    assert abs(np.corrcoef(jitter.T)[0, 1]) < 4 / math.sqrt(n)
    together = sum(bool(m["cosmic_ray"] and m["sat_star"]) for m in metas) / n
    assert together == pytest.approx(0.15 * 0.08, abs=4 * math.sqrt(0.012 / n)), "independent of each other"


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"img": np.full((20, 20), np.nan)}, "img must be finite, got 400"),
        ({"img": np.where(np.eye(20), np.inf, 1.0)}, "img must be finite, got 20"),
        ({"img": np.zeros((3, 20, 20))}, r"img must be two-dimensional.*\(3, 20, 20\)"),
        ({"img": np.zeros((0, 0))}, r"img must be two-dimensional.*\(0, 0\)"),
        ({"img": np.zeros((7, 64))}, r"at least 8 px.*\(7, 64\)"),
        ({"img": [["a"]]}, "img must be an array of numbers, got list"),
        ({"img": np.zeros((20, 20))}, "img has a median absolute deviation of 0"),
        ({"img": 1e38 * sky().astype(float) / 0.004}, "img overflows float32"),
        ({"key": ""}, "key must be a non-empty string, got ''"),
        ({"key": 7}, "key must be a non-empty string, got 7"),
        ({"salt": None}, "salt must be a string, got None"),
        ({"psf_fwhm_pix": -1.0}, "psf_fwhm_pix must be between 0.5 and 20 pixels, got -1.0"),
        ({"psf_fwhm_pix": math.nan}, "psf_fwhm_pix .* got nan"),
        ({"psf_model": "airy"}, "psf_model must be one of .* got 'airy'"),
        ({"moffat_beta": 1.0}, "moffat_beta must be above 1.5 .* got 1.0"),
        ({"moffat_beta": math.inf}, "moffat_beta .* got inf"),
        ({"cfg": {}}, "cfg must be an ArtifactConfig, got dict"),
        ({"max_kernel_size": 1}, "max_kernel_size must be an integer of at least 3, got 1"),
        ({"max_kernel_size": 9.5}, "max_kernel_size .* got 9.5"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        applied(**(arguments if "cfg" in arguments else {"cfg": ALWAYS} | arguments))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("cosmic_rate", 1.2, "cosmic_rate must be between 0 and 1, got 1.2"),
        ("sat_rate", -0.1, "sat_rate must be at least 0, got -0.1"),
        ("cosmic_amp", math.nan, "cosmic_amp must be a finite number, got nan"),
        ("cosmic_length_pix", (24, 8), r"cosmic_length_pix must satisfy .* got \(24, 8\)"),
        ("cosmic_length_pix", (0, 8), "cosmic_length_pix must satisfy"),
        ("cosmic_length_pix", 8, "cosmic_length_pix must be a pair"),
        ("sat_r0_pix", 0.0, "sat_r0_pix must be positive, got 0.0"),
        ("psf_e_sigma", 0.5, "psf_e_sigma must be at most 0.3, got 0.5"),
        ("jitter_sigma_pix", -0.2, "jitter_sigma_pix must be at least 0, got -0.2"),
        ("bg_plane_amp", "0.02", "bg_plane_amp must be a finite number, got '0.02'"),
        ("enable_bg_plane", 1, "enable_bg_plane must be True or False, got 1"),
        ("cosmic_worm_fraction", 0.9, "must not exceed 1, got 1.05"),
        ("sat_other_band_ratio", (1.5, 0.1), "sat_other_band_ratio must satisfy"),
    ],
)
def test_bad_configurations_are_named(field: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ArtifactConfig(**{field: value})
