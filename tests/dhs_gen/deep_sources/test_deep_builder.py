"""A deep bank built from galaxies that are known, one for every reason to refuse a cutout, and from real HSC pixels."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from astropy.io import fits
from deep_cases import FLUX, NOISE_RMS, PIXSCALE_ARCSEC, SEEING, Galaxy, drawn, galsim, header, pixels_of, write

from dhs_gen.deep_sources import (
    BankError,
    DeepSettings,
    TemplateReject,
    build_deep_source_bank,
    load_bank,
    load_fine_images,
)
from dhs_gen.deep_sources.deep_source_bank import main
from dhs_gen.deep_sources.psf import deconvolver, psf_from_image
from dhs_gen.source_banks.measure import half_light_radius_px
from tests_support import REPO

HLR_TOLERANCE = 0.05  # noise, and wings beyond isophote, growth and taper
FINE_ARCSEC = PIXSCALE_ARCSEC / 2
RADII_ARCSEC = (0.25, 0.4, 0.6)


def build(folder: Path, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """The bank of a folder; (images, meta)."""
    summary = build_deep_source_bank(
        folder, folder.parent / "bank.npz", 100, 96, PIXSCALE_ARCSEC, 0.262, **{"min_sources": 1} | changes
    )
    return load_bank(summary.path)


def reasons(folder: Path, **changes: Any) -> dict[str, str]:
    """Why each refused file was refused."""
    _, meta = build(folder, **changes)
    return {row["file"]: row["reason"] for row in meta["rejects"]}


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deep") / "cutouts"
    for n, hlr in enumerate(RADII_ARCSEC):
        galaxy = Galaxy(hlr, shift_arcsec=(0.1 * n, -0.05 * n))
        write(folder / f"disc{n}.fits", pixels_of(galaxy, f"disc{n}"), header(FILTER="HSC-I", MAGZERO=27.0))
    return folder


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A folder with one usable cutout, to add others to."""
    write(tmp_path / "cutouts" / "good.fits", pixels_of(Galaxy(), "good"))
    return tmp_path / "cutouts"


# ------------------------------------------------------------------------------------------ what comes out


@pytest.mark.parametrize("target", [None, 0.45])
def test_radius_shape_and_flux_are_those_of_the_galaxy_behind_the_psf_that_is_left(
    discs: Path, target: float | None
) -> None:
    """Oracle: GalSim draws the disc behind the stated effective PSF, no noise, no cutout."""
    _, meta = build(discs, target_psf_fwhm_arcsec=target)
    fine, scale = load_fine_images(discs.parent / "bank.npz") or (None, 0.0)
    assert fine is not None
    assert scale == pytest.approx(FINE_ARCSEC)
    left = SEEING
    if target is not None:
        left = deconvolver(psf_from_image(drawn(SEEING, 41), PIXSCALE_ARCSEC, ""), target, 0.02)[1].profile
    assert sorted(meta["file"]) == ["disc0.fits", "disc1.fits", "disc2.fits"]
    for name, template, hlr in zip(meta["file"], fine, meta["hlr_arcsec"], strict=True):
        galaxy = Galaxy(RADII_ARCSEC[int(name[4])], flux=1.0)
        truth = drawn(galsim.Convolve(galaxy.profile, left), fine.shape[1], FINE_ARCSEC)
        truth /= truth.sum()
        assert hlr == pytest.approx(half_light_radius_px(truth) * FINE_ARCSEC, rel=HLR_TOLERANCE)
        core = truth > 0.1 * truth.max()
        assert template[core].sum() == pytest.approx(truth[core].sum(), rel=0.04)
        assert np.corrcoef(template[core], truth[core])[0, 1] > (0.995 if target is None else 0.985)  # noise × 2.7
        assert meta["sum_flux"][meta["file"].index(name)] == pytest.approx(FLUX, rel=0.05)


def test_survey_images_hold_the_fine_template_and_its_flux(discs: Path) -> None:
    images, meta = build(discs)
    fine, _ = load_fine_images(discs.parent / "bank.npz") or (np.zeros(0), 0.0)
    assert images.dtype == np.float32
    assert images.shape == (3, 96, 96)
    assert fine.dtype == np.float32
    np.testing.assert_allclose(fine.sum(axis=(1, 2), dtype=np.float64), 1.0, atol=1e-5)
    np.testing.assert_allclose(images.sum(axis=(1, 2), dtype=np.float64), meta["sum_flux"], rtol=1e-5)
    assert fine.min() < 0  # negatives are kept
    centre = np.arange(96) - 95 / 2
    for image in images / images.sum(axis=(1, 2), keepdims=True):
        assert abs(float(image.sum(axis=0) @ centre)) < 0.1
        assert abs(float(image.sum(axis=1) @ centre)) < 0.1


def test_metadata_say_what_was_done(discs: Path) -> None:
    _, meta = build(discs, target_psf_fwhm_arcsec=0.45)
    assert meta["filter"] == ["HSC-I"] * 3
    assert meta["zero_point_mag"] == [27.0] * 3
    assert meta["pixscale_origin"] == ["wcs"] * 3
    np.testing.assert_allclose(meta["pixscale_arcsec"], PIXSCALE_ARCSEC, rtol=1e-6)
    np.testing.assert_allclose(meta["seeing_fwhm_arcsec"], 0.6, rtol=0.03)
    np.testing.assert_allclose(meta["psf_fwhm_arcsec"], 0.47, atol=0.02)
    np.testing.assert_allclose(meta["noise_amplification"], 2.65, rtol=0.1)
    np.testing.assert_allclose(meta["sky_rms"], NOISE_RMS, rtol=0.05)
    assert meta["deconvolved"] is True
    assert meta["regularisation"] == "1/P(k) capped at 50, Gaussian target"
    assert meta["n_files"] == 3
    assert meta["rejected_by_reason"] == {}


def test_without_deconvolution_the_seeing_is_the_effective_psf(discs: Path) -> None:
    _, meta = build(discs)
    assert meta["deconvolved"] is False
    assert meta["target_psf_fwhm_arcsec"] is None
    assert meta["psf_fwhm_arcsec"] == meta["seeing_fwhm_arcsec"]
    assert meta["noise_amplification"] == [1.0] * 3


def test_signal_to_noise_is_flux_over_the_noise_of_its_isophote(discs: Path) -> None:
    """Oracle: aperture photometry on the cutout itself. The isophote's own radius is not known, so 20 %."""
    _, meta = build(discs)
    row = meta["file"].index("disc1.fits")
    pixels = fits.getdata(discs / "disc1.fits") - 3.0
    smooth = drawn(galsim.Convolve(Galaxy(0.4).profile.shift(0.1, -0.05), SEEING), pixels.shape[0])
    isophote = smooth > 4.0 * NOISE_RMS / 2.0  # the detection copy is smoothed: about half the noise
    expected = pixels[isophote].sum() / (NOISE_RMS * np.sqrt(2.0 * isophote.sum()))
    assert meta["snr_integrated"][row] == pytest.approx(expected, rel=0.2)
    assert meta["snr_peak"][row] == pytest.approx(smooth.max() / NOISE_RMS, rel=0.15)


# --------------------------------------------------------------------------------------------- what goes in


def test_reads_compressed_images_other_extensions_and_siblings(tmp_path: Path) -> None:
    folder, pixels = tmp_path / "cutouts", pixels_of(Galaxy(), "a").astype(np.float32)
    folder.mkdir()
    compressed = fits.CompImageHDU(pixels, header(FILTER="r"), quantize_level=64.0)
    fits.HDUList([fits.PrimaryHDU(), compressed]).writeto(folder / "tile.fits.fz")
    fits.PrimaryHDU(drawn(SEEING, 41)).writeto(folder / "tile_psf.fits")
    mask = fits.ImageHDU(np.ones((61, 61)), name="MASK")
    science = fits.ImageHDU(pixels, header(SEEING=0.6, FLUXMAG0=10.0**10.8), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), mask, science]).writeto(folder / "mef.fits")
    _, meta = build(folder)
    by_file = {name: row for row, name in enumerate(meta["file"])}
    assert set(by_file) == {"tile.fits.fz", "mef.fits"}
    assert meta["psf_origin"][by_file["tile.fits.fz"]] == "file _psf"
    assert meta["psf_origin"][by_file["mef.fits"]] == "header SEEING, Moffat beta 2.5"
    assert meta["filter"][by_file["tile.fits.fz"]] == "r"
    assert meta["zero_point_mag"][by_file["mef.fits"]] == pytest.approx(27.0)
    np.testing.assert_allclose(meta["hlr_arcsec"][0], meta["hlr_arcsec"][1], rtol=0.01)


def test_a_cube_needs_its_plane_stated(good: Path) -> None:
    cube = np.stack([np.zeros((61, 61)), pixels_of(Galaxy(), "cube")])
    psfs = fits.ImageHDU(np.stack([drawn(SEEING, 41)] * 2), name="PSF")
    fits.HDUList([fits.PrimaryHDU(cube, header()), psfs]).writeto(good / "cube.fits")
    assert reasons(good) == {"cube.fits": TemplateReject.UNREADABLE}
    (good / "good.fits").unlink()
    assert reasons(good, plane=1) == {}


def test_file_without_wcs_uses_the_stated_scale_and_says_so(tmp_path: Path) -> None:
    write(tmp_path / "cutouts" / "a.fits", pixels_of(Galaxy(), "a"), header(None))
    _, meta = build(tmp_path / "cutouts")
    assert meta["pixscale_origin"] == ["stated"]
    assert meta["pixscale_arcsec"] == [PIXSCALE_ARCSEC]


def test_a_few_missing_pixels_far_from_the_galaxy_change_nothing(tmp_path: Path) -> None:
    pixels = pixels_of(Galaxy(), "a")
    holed = pixels.copy()
    holed[5, 7] = holed[50:52, 10] = np.nan
    holed[:, 0] = np.inf
    write(tmp_path / "cutouts" / "whole.fits", pixels)
    write(tmp_path / "cutouts" / "holed.fits", holed)
    for target in (None, 0.45):
        images, meta = build(tmp_path / "cutouts", target_psf_fwhm_arcsec=target)
        np.testing.assert_allclose(meta["hlr_arcsec"][0], meta["hlr_arcsec"][1], rtol=0.01)
        assert np.isfinite(images).all()


# ---------------------------------------------------------------------------------------- what is refused


def unusable(name: str) -> np.ndarray:
    """Pixels of a cutout that must be refused."""
    rng_key = f"unusable {name}"
    bright = 30.0 * galsim.Gaussian(half_light_radius=0.1)
    match name:
        case "EMPTY":
            return np.full((61, 61), 3.0)
        case "NOT_FINITE":
            pixels = pixels_of(Galaxy(), rng_key)
            pixels[31, 32] = np.nan
            return pixels
        case "NO_CENTRAL_OBJECT":
            return pixels_of(Galaxy(flux=1e-3), rng_key)
        case "NOISE_DOMINATED":
            return pixels_of(Galaxy(0.6, flux=4.0), rng_key)
        case "BLENDED":
            return pixels_of(Galaxy(neighbour=bright.shift(1.4, 0.3)), rng_key)
        case "TOUCHES_EDGE":
            return pixels_of(Galaxy(0.4, flux=200.0), rng_key)[18:43]
        case "UNRESOLVED":
            return pixels_of(Galaxy(0.01), rng_key)
        case "TOO_FEW_SKY_PIXELS":
            return pixels_of(Galaxy(), rng_key, side_px=7)
    raise ValueError(name)


@pytest.mark.parametrize(
    "reason",
    [
        "EMPTY",
        "NOT_FINITE",
        "NO_CENTRAL_OBJECT",
        "NOISE_DOMINATED",
        "BLENDED",
        "TOUCHES_EDGE",
        "UNRESOLVED",
        "TOO_FEW_SKY_PIXELS",
    ],
)
def test_unusable_cutouts_are_refused_by_name(good: Path, reason: str) -> None:
    write(good / "bad.fits", unusable(reason))
    assert reasons(good) == {"bad.fits": reason}


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"SIMPLE  =    T", "UNREADABLE"), (b"", "UNREADABLE"), (b"\x00" * 5000, "UNREADABLE")],
)
def test_broken_files_are_refused_by_name(good: Path, content: bytes, reason: str) -> None:
    (good / "bad.fits").write_bytes(content)
    assert reasons(good) == {"bad.fits": reason}


def test_a_truncated_compressed_file_is_unreadable(good: Path) -> None:
    whole = (good / "good.fits").read_bytes()
    (good / "cut.fits").write_bytes(whole[: len(whole) // 3])
    assert reasons(good) == {"cut.fits": TemplateReject.UNREADABLE}


@pytest.mark.parametrize("scale", [0.262, 0.168 * 1.02, (0.168, 0.2)])
def test_wcs_that_contradicts_the_stated_scale_is_refused(good: Path, scale: Any) -> None:
    write(good / "bad.fits", pixels_of(Galaxy(), "b"), header(scale))
    write(good / "near.fits", pixels_of(Galaxy(), "c"), header(0.168 * 1.005))
    assert reasons(good) == {"bad.fits": TemplateReject.PIXEL_SCALE_DISAGREES}


def test_nothing_to_deconvolve_with_is_a_reason(good: Path) -> None:
    write(good / "bare.fits", pixels_of(Galaxy(), "b"), psf=False)
    write(good / "wrong.fits", pixels_of(Galaxy(), "b"), header(SEEING=-1.0), psf=False)
    assert reasons(good, target_psf_fwhm_arcsec=0.45) == {"bare.fits": "NO_PSF", "wrong.fits": "NO_PSF"}
    assert reasons(good, target_psf_fwhm_arcsec=0.45, psf_fwhm_arcsec=0.6) == {"wrong.fits": "NO_PSF"}


def test_a_target_too_sharp_for_the_seeing_is_refused(good: Path) -> None:
    with pytest.raises(BankError, match=r"NOISE_AMPLIFIED 1 .*multiplies the noise by"):
        build(good, target_psf_fwhm_arcsec=0.3)


def test_faint_by_flux_and_cut_off_by_the_stamp(good: Path) -> None:
    with pytest.raises(BankError, match=r"EMPTY 1 .*flux is"):
        build(good, min_abs_sum=10 * FLUX)
    with pytest.raises(BankError, match=r"TOO_LARGE 1 .*cut off"):
        build_deep_source_bank(good, good.parent / "s.npz", 5, 8, PIXSCALE_ARCSEC, 0.262, min_sources=1)


# ------------------------------------------------------------------------------------- counts, order, bytes


def test_too_few_is_an_error_that_counts_reasons(good: Path) -> None:
    write(good / "bad.fits", unusable("EMPTY"))
    with pytest.raises(BankError, match=r"1 usable sources of 2 files .* at least 100 needed .*EMPTY 1 \(first bad"):
        build(good, min_sources=None)
    assert not (good.parent / "bank.npz").exists()
    assert not list(good.parent.glob(".*"))


def test_n_sources_is_an_upper_bound_and_seed_chooses(discs: Path) -> None:
    chosen = set()
    for seed in ("1", "2", "3", "4", "5", "6"):
        summary = build_deep_source_bank(discs, discs.parent / "one.npz", 1, 96, 0.168, 0.262, seed)
        assert summary.n_accepted == 1
        chosen.add(load_bank(summary.path)[1]["file"][0])
    assert len(chosen) > 1
    assert (
        build_deep_source_bank(discs, discs.parent / "x.npz", 9, 96, 0.168, 0.262, "1", 2, min_sources=1).n_candidates
        == 2
    )


def test_same_input_same_bytes_in_another_process(discs: Path, tmp_path: Path) -> None:
    first = build_deep_source_bank(discs, tmp_path / "a.npz", 3, 96, 0.168, 0.262)
    code = (
        "from dhs_gen.deep_sources import build_deep_source_bank as b; import sys;"
        "print(b(sys.argv[1], sys.argv[2], 3, 96, 0.168, 0.262).digest)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(discs), str(tmp_path / "b.npz")],
        env={"PYTHONPATH": str(REPO / "pipeline"), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == first.digest == hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()


# ----------------------------------------------------------------------------------- arguments and commands


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n_sources": 0}, "n_sources .* got 0"),
        ({"stamp_size": 9.5}, "stamp_size .* got 9.5"),
        ({"src_pixscale_arcsec": -0.168}, "src_pixscale_arcsec .* got -0.168"),
        ({"target_pixscale_arcsec": float("nan")}, "target_pixscale_arcsec .* got nan"),
        ({"max_files": 0}, "max_files .* got 0"),
        ({"min_abs_sum": -1.0}, "min_abs_sum .* got -1.0"),
        ({"target_psf_fwhm_arcsec": 0.0}, "target_psf_fwhm_arcsec .* got 0.0"),
        ({"psf_fwhm_arcsec": float("inf")}, "psf_fwhm_arcsec .* got inf"),
        ({"min_sources": 0}, "min_sources .* got 0"),
        ({"fits_dir": "/nonexistent"}, "no folder of FITS cutouts at /nonexistent"),
    ],
)
def test_bad_arguments_are_named(good: Path, change: dict[str, Any], says: str) -> None:
    arguments = {
        "fits_dir": good,
        "out_npz": good.parent / "b.npz",
        "n_sources": 5,
        "stamp_size": 96,
        "src_pixscale_arcsec": 0.168,
        "target_pixscale_arcsec": 0.262,
    }
    with pytest.raises(ValueError, match=says):
        build_deep_source_bank(**arguments | change)


def test_configuration_and_defaults_are_the_same() -> None:
    section = yaml.safe_load((REPO / "conf" / "banks" / "deep.yaml").read_text(encoding="utf-8"))["build"]
    assert section.pop("target_psf_fwhm_arcsec") == 0.45
    assert DeepSettings.from_mapping(section) == DeepSettings()
    with pytest.raises(BankError, match="nonsense"):
        DeepSettings.from_mapping({**section, "nonsense": 1})
    with pytest.raises(BankError, match="stated_psf_profile is 'airy'"):
        dataclasses.replace(DeepSettings(), stated_psf_profile="airy")
    with pytest.raises(BankError, match="min_peak_snr is -1"):
        dataclasses.replace(DeepSettings(), min_peak_snr=-1.0)


def test_command(discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--fits-dir", str(discs), "--n-sources", "3", "--stamp-size", "64", "--src-pixscale-arcsec", "0.168"]
    given += ["--target-pixscale-arcsec", "0.262", "--seed", "1", "--max-files", "3", "--min-abs-sum", "1"]
    settings = ["--settings", str(REPO / "conf" / "banks" / "deep.yaml")]
    assert main([*given, *settings, "--out-npz", str(tmp_path / "a.npz")]) == 0
    assert "3 sources of 3 files" in capsys.readouterr().out
    images, meta = load_bank(tmp_path / "a.npz")
    assert images.shape == (3, 64, 64)
    assert meta["target_psf_fwhm_arcsec"] == 0.45
    assert main([*given[2:], "--fits-dir", str(tmp_path / "nowhere"), "--out-npz", str(tmp_path / "b.npz")]) == 2
    assert "no folder of FITS cutouts" in capsys.readouterr().err
    json.dumps(meta, allow_nan=False)


# ------------------------------------------------------------------------------------------------ real data


@pytest.mark.realdata
def test_real_hsc_sources_and_reobserved_galaxies_make_a_bank(real_data: Path, tmp_path: Path) -> None:
    sys.path.insert(0, str(REPO / "docs"))
    try:
        from make_deep_cutouts import write_cutouts
    finally:
        sys.path.pop(0)
    assert write_cutouts(tmp_path / "cutouts", real_data) == (29, 25)
    _, meta = build(tmp_path / "cutouts", min_sources=20)
    real = [name for name in meta["file"] if name.startswith("hsc_")]
    assert len(real) >= 9
    assert len(meta["file"]) - len(real) >= 12
    assert set(meta["rejected_by_reason"]) <= {"BLENDED", "UNRESOLVED", "TOUCHES_EDGE", "TOO_LARGE", "NOISE_DOMINATED"}
    seeing = dict(zip(meta["file"], meta["seeing_fwhm_arcsec"], strict=True))
    assert seeing["hsc_gal3_00.fits"] == pytest.approx(0.52, abs=0.01)
    rms = dict(zip(meta["file"], meta["sky_rms"], strict=True))
    sigma = np.load(real_data / "deep_hsc" / "gal3_sig.npy")  # the survey's own noise map
    assert rms["hsc_gal3_00.fits"] == pytest.approx(float(np.median(sigma)), rel=0.1)


@pytest.mark.realdata
def test_real_cubes_with_their_own_wcs(real_data: Path, tmp_path: Path) -> None:
    """HSC cutouts as published: five planes, WCS of the coadd, the PSF cube beside them. Both are blends."""
    folder = tmp_path / "cutouts"
    folder.mkdir()
    for name in ("Cut_HSC", "Cut_HSC1"):
        (folder / f"{name}.fits").write_bytes((real_data / "deep_hsc" / f"{name}.fits").read_bytes())
        (folder / f"{name}_psf.fits").write_bytes((real_data / "deep_hsc" / "PSF_HSC.fits").read_bytes())
    with pytest.raises(BankError, match=r"PIXEL_SCALE_DISAGREES 2 \(first Cut_HSC.*0\.1680"):
        build_deep_source_bank(folder, tmp_path / "b.npz", 2, 96, 0.2, 0.262, plane=2)
    with pytest.raises(BankError, match=r"UNREADABLE 2 \(first Cut_HSC.*a cube of 5 planes"):
        build(folder)
    with pytest.raises(BankError, match=r"BLENDED 2"):
        build(folder, plane=2)
