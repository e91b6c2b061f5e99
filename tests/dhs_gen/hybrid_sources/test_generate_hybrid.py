"""The public Gen7 generator: what its parameters promise, in one band and in several."""

from __future__ import annotations

import hashlib
import itertools
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

from dhs_gen.hybrid_sources import generate_hybrid_source, generate_hybrid_source_bands, sersic_image
from dhs_gen.hybrid_sources.sersic import elliptical_radius
from dhs_gen.hybrid_sources.sersic_clumps import ClumpSettings, colour_channels, hybrid_template

META = {"n_clumps", "re_pix", "n_sersic", "q", "phi", "x0", "y0", "gradient_strength", "clump_flux_fraction"}


@st.composite
def parameters(draw: st.DrawFn) -> dict[str, Any]:
    """Everything a caller may ask for: n from flat to cuspy, sources below a pixel, half of the light off the image."""
    pair = {
        name: tuple(sorted((draw(of), draw(of))))
        for name, of in (
            ("n_clumps_range", st.integers(0, 10)),
            ("clump_sigma_pix_range", st.floats(0.05, 8.0)),
            ("clump_flux_frac_range", st.floats(0.0, 0.4)),
        )
    }
    height, width = draw(st.integers(8, 60)), draw(st.integers(8, 60))
    return pair | {
        "key": draw(st.text(max_size=12)),
        "H": height,
        "W": width,
        "re_pix": draw(st.floats(0.05, 0.6)) * min(height, width) * draw(st.sampled_from((0.1, 1.0))),
        "n_sersic": draw(st.floats(0.5, 4.0)),
        "q": draw(st.floats(0.2, 1.0)),
        "gradient_strength": draw(st.floats(-0.5, 0.5)),
    }


def clump_light(made: dict[str, Any], settings_: dict[str, Any]) -> NDArray[np.float64]:
    """The image less the smooth part's share, from the metadata alone."""
    meta, img = made["meta"], made["img"].astype(np.float64)
    smooth = sersic_image(img.shape, meta["re_pix"], meta["n_sersic"], meta["q"], (meta["x0"], meta["y0"]), meta["phi"])
    return img - (1 - meta["clump_flux_fraction"]) * smooth / smooth.sum()


@settings(max_examples=40)
@given(parameters())
def test_image_is_what_was_asked_for(asked: dict[str, Any]) -> None:
    made = generate_hybrid_source(**asked)
    img, meta = made["img"], made["meta"]
    assert set(meta) >= META
    assert img.shape == (asked["H"], asked["W"])
    assert img.dtype == np.float32
    assert np.isfinite(img).all()
    assert img.min() >= 0
    assert img.sum(dtype=np.float64) == pytest.approx(1.0, abs=1e-5)
    for name in ("re_pix", "n_sersic", "q", "gradient_strength"):
        assert meta[name] == asked[name]
    low, high = asked["n_clumps_range"]
    assert low <= meta["n_clumps"] <= high
    assert abs(meta["x0"] - (asked["W"] - 1) / 2) <= 0.5
    assert abs(meta["y0"] - (asked["H"] - 1) / 2) <= 0.5
    assert 0 <= meta["phi"] < math.pi
    light = clump_light(made, asked)
    assert light.sum() == pytest.approx(meta["clump_flux_fraction"], abs=1e-5)
    assert light.min() > -1e-6
    low_fraction, high_fraction = asked["clump_flux_frac_range"] if meta["n_clumps"] else (0.0, 0.0)
    assert low_fraction - 1e-9 <= meta["clump_flux_fraction"] <= high_fraction + 1e-9


@settings(max_examples=15)
@given(parameters())
def test_r_band_is_the_single_band_image_and_every_band_is_a_shape(asked: dict[str, Any]) -> None:
    single = generate_hybrid_source(**asked)
    several = generate_hybrid_source_bands(bands="zrg", **asked)
    assert several["img"].dtype == np.float32
    assert several["img"].shape == (3, asked["H"], asked["W"])
    assert several["img"].min() >= 0
    np.testing.assert_allclose(several["img"].sum(axis=(1, 2), dtype=np.float64), 1.0, atol=1e-5)
    assert several["img"][1].tobytes() == single["img"].tobytes()
    assert several["meta"]["bands"] == "zrg"


def test_one_band_knows_nothing_of_the_gradient() -> None:
    """A gradient in one band would be a spatial ramp, not a colour."""
    flat, steep = (generate_hybrid_source("key", gradient_strength=g) for g in (0.0, 0.5))
    assert flat["img"].tobytes() == steep["img"].tobytes()
    assert (flat["meta"]["gradient_strength"], steep["meta"]["gradient_strength"]) == (0.0, 0.5)


@pytest.mark.parametrize("strength", [0.2, 0.5, -0.3])
def test_colour_in_annuli_follows_the_formula(strength: float) -> None:
    """g − r and r − z of elliptical annuli between 0.5 and 3 re fall by the gradient per dex."""
    made = generate_hybrid_source_bands("disc", "grz", 161, 161, 16.0, 1.0, 0.6, gradient_strength=strength)
    g, r, z = made["img"].astype(np.float64)
    meta = made["meta"]
    radius = elliptical_radius((161, 161), 0.6, (meta["x0"], meta["y0"]), meta["phi"]) / 16.0
    edges = np.geomspace(0.5, 3.0, 9)
    inside = [(low <= radius) & (radius < high) for low, high in itertools.pairwise(edges)]
    log_r = [np.log10(np.average(radius[m], weights=r[m])) for m in inside]
    for blue, red in ((g, r), (r, z)):
        colour = [-2.5 * math.log10(blue[m].sum() / red[m].sum()) for m in inside]
        assert np.polyfit(log_r, colour, 1)[0] == pytest.approx(-strength, rel=0.03)
        assert np.ptp(np.array(colour) + strength * np.array(log_r)) < 0.02 * abs(strength)


def test_centre_has_a_finite_colour_and_the_total_none() -> None:
    """Softened at 0.1 re: the core is redder by the gradient's 1 dex at most; total fluxes stay equal."""
    made = generate_hybrid_source_bands("disc", "grz", 161, 161, 16.0, 1.0, 0.6, gradient_strength=0.5)
    g, r, _ = made["img"].astype(np.float64)
    row, column = round(made["meta"]["y0"]), round(made["meta"]["x0"])
    core = -2.5 * math.log10(g[row, column] / r[row, column])
    assert 0.3 < core < 0.5 * 1.1
    assert g.sum() == pytest.approx(r.sum(), abs=1e-5)


def test_without_a_gradient_all_bands_have_one_shape() -> None:
    g, r, z = generate_hybrid_source_bands("key", gradient_strength=0.0)["img"]
    assert g.tobytes() == r.tobytes() == z.tobytes()


def test_light_off_the_image_is_missing_without_normalisation() -> None:
    """n = 4 in 2.5 re: the same image, times the share of the profile's flux that falls on it."""
    asked: dict[str, Any] = {"key": "big", "H": 40, "W": 40, "re_pix": 8.0, "n_sersic": 4.0, "q": 1.0}
    unit, part = (generate_hybrid_source(**asked, normalize_sum=flag) for flag in (True, False))
    on_image = part["img"].sum(dtype=np.float64)
    assert on_image == pytest.approx(part["meta"]["flux_on_image"], rel=1e-5)
    wide = sersic_image((4001, 4001), 8.0, 4.0, 1.0)
    assert wide.sum() == pytest.approx(1.0, abs=0.005)  # unit flux over the plane
    assert on_image == pytest.approx(wide[1980:2020, 1980:2020].sum(), rel=0.01)
    np.testing.assert_allclose(part["img"] / on_image, unit["img"], rtol=1e-5)


def test_size_is_not_floored_and_index_is_not_clipped() -> None:
    """r_e of 0.06″ to 0.2″ at 0.262″ per pixel are four sources, not one of 1.5 pixels; n = 0.5 and 4 are obeyed."""
    none = {"n_clumps_range": (0, 0), "q": 1.0}
    peaks = [generate_hybrid_source("k", re_pix=re / 0.262, **none)["img"].max() for re in (0.06, 0.1, 0.15, 0.2)]
    assert (np.diff(peaks) < -0.03).all(), peaks
    cores = [generate_hybrid_source("k", n_sersic=n, **none)["img"].max() for n in (0.5, 0.6, 2.5, 4.0)]
    assert (np.diff(cores) > 5e-4).all(), cores


def test_no_clumps_have_no_flux() -> None:
    made = generate_hybrid_source("key", n_clumps_range=(0, 0))
    assert (made["meta"]["n_clumps"], made["meta"]["clump_flux_fraction"]) == (0, 0.0)


def test_clumps_lie_about_the_effective_radius() -> None:
    """One clump, 200 keys: its centroid between 0.4 and 1.6 elliptical re, however the source is turned and placed."""
    for index in range(200):
        made = generate_hybrid_source(
            f"k{index}", 97, 96, q=0.6, n_clumps_range=(1, 1), clump_flux_frac_range=(0.2, 0.2)
        )
        light, meta = clump_light(made, {}), made["meta"]
        y, x = np.mgrid[:97, :96]
        at = ((light * x).sum() / light.sum(), (light * y).sum() / light.sum())
        radius = elliptical_radius((1, 1), 0.6, (meta["x0"] - at[0], meta["y0"] - at[1]), meta["phi"])[0, 0] / 6.0
        assert 0.4 - 0.02 < radius < 1.6 + 0.02


def test_key_and_salt_alone_fix_the_source() -> None:
    base = generate_hybrid_source("key")["img"].tobytes()
    generate_hybrid_source("other")
    assert generate_hybrid_source("key")["img"].tobytes() == base
    assert generate_hybrid_source("other")["img"].tobytes() != base
    assert generate_hybrid_source("key", salt="s")["img"].tobytes() != base


def test_image_is_the_same_in_processes_with_other_hash_seeds() -> None:
    program = (
        "import hashlib; from dhs_gen.hybrid_sources import generate_hybrid_source_bands as f; "
        "print(hashlib.sha256(f('task-7', n_sersic=4.0)['img'].tobytes()).hexdigest())"
    )
    here = hashlib.sha256(generate_hybrid_source_bands("task-7", n_sersic=4.0)["img"].tobytes()).hexdigest()
    for seed in ("0", "1"):
        env = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == here


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": 3}, "key must be a string, got 3"),
        ({"H": 2}, "H must be .* got 2"),
        ({"W": 9.5}, "W must be .* got 9.5"),
        ({"re_pix": -1.0}, "re_pix must be positive and finite, got -1.0"),
        ({"re_pix": math.nan}, "re_pix .* got nan"),
        ({"n_sersic": 9}, "n_sersic must be between 0.2 and 8, got 9"),
        ({"q": 0.0}, r"q must be in \(0, 1\], got 0.0"),
        ({"n_clumps_range": (6, 2)}, r"n_clumps_range .* got \(6, 2\)"),
        ({"n_clumps_range": (1.5, 2)}, r"n_clumps_range must be two whole numbers, got \(1.5, 2\)"),
        ({"clump_sigma_pix_range": (0.0, 2.0)}, r"clump_sigma_pix_range must be positive, got \(0.0, 2.0\)"),
        ({"clump_sigma_pix_range": (0.8, math.nan)}, r"clump_sigma_pix_range .* got \(0.8, nan\)"),
        ({"clump_flux_frac_range": (0.5, 1.0)}, r"clump_flux_frac_range must stay below 1, got \(0.5, 1.0\)"),
        ({"gradient_strength": math.inf}, "gradient_strength .* got inf"),
        ({"re_pix": 500.0, "H": 9, "W": 9}, "re_pix 500.0 is too large for H, W = 9, 9"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(changes: dict[str, Any], message: str) -> None:
    asked = {"key": "key"} | changes
    with pytest.raises(ValueError, match=message):
        generate_hybrid_source(**asked)
    with pytest.raises(ValueError, match=message):
        generate_hybrid_source_bands(**asked)


@pytest.mark.parametrize("bands", ["", "gg", "gi", ("r", "y")])
def test_an_unknown_or_double_band_is_named(bands: Any) -> None:
    with pytest.raises(ValueError, match="bands must be some of g, r, z, each once, got"):
        generate_hybrid_source_bands("key", bands)


def test_outskirts_are_larger_in_g_than_in_z() -> None:
    """What a gradient of 0.2 mag per dex means for sizes: a disc's half-light radius falls by some 10 % from g to z."""
    none = ClumpSettings((0, 0), (0.1, 0.1), (0.0, 0.0))
    pixels = hybrid_template("k", (193, 193), 16.0, 1.0, 1.0, none).pixels
    channels = colour_channels(pixels, "grz", 0.2, 16.0, 1.0)
    radius = elliptical_radius((193, 193), 1.0, (96, 96), 0.0).ravel()
    order = np.argsort(radius)
    half = [radius[order][np.searchsorted(np.cumsum(c.ravel()[order]), 0.5)] for c in channels]
    assert half[0] / half[2] == pytest.approx(1.10, abs=0.03)
