"""The NPZ file, its import into a bank folder, the choice of a source, and the sampler of stage 4c."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from deep_cases import FLUX, PIXSCALE_ARCSEC, SEEING, Galaxy, drawn, galsim, header, pixels_of, write
from hypothesis import given, settings
from hypothesis import strategies as st

from dhs_gen.deep_sources import (
    BankError,
    build_deep_source_bank,
    choose_index,
    import_deep_bank,
    load_bank,
    load_fine_images,
)
from dhs_gen.deep_sources.deep_source_sampler import main
from dhs_gen.resample import overlap_resample
from dhs_gen.source_banks import open_bank
from dhs_gen.source_banks.measure import half_light_radius_px
from dhs_gen.source_banks.sampler import bank_source
from dhs_gen.task import SourceParams
from tests_support import REPO

RADII_ARCSEC = (0.3, 0.5)
TARGET_ARCSEC = 0.262


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deep")
    for hlr in RADII_ARCSEC:
        write(folder / "cutouts" / f"disc{hlr}.fits", pixels_of(Galaxy(hlr), f"disc{hlr}"), header(FILTER="HSC-I"))
    summary = build_deep_source_bank(
        folder / "cutouts",
        folder / "bank",
        9,
        96,
        PIXSCALE_ARCSEC,
        TARGET_ARCSEC,
        target_psf_fwhm_arcsec=0.45,
        min_sources=2,
    )
    assert summary.path.name == "bank.npz"  # numpy.savez adds it
    return summary.path


def earlier_npz(path: Path, images: np.ndarray, **changes: Any) -> Path:
    """The layout of the earlier code: images at the survey's scale and the four lists, nothing else."""
    n = len(images)
    meta = {
        "file": [f"/data/somewhere/g{i}.fits" for i in range(n)],
        "pixscale_arcsec": [PIXSCALE_ARCSEC] * n,
        "filter": ["HSC-I"] * n,
        "sum_flux": [float(np.nansum(image)) for image in images],
        "target_pixscale_arcsec": TARGET_ARCSEC,
        "stamp_size": images.shape[1],
        **changes,
    }
    np.savez_compressed(path, images=images.astype(np.float32), meta=np.array(json.dumps(meta)))
    return path


def padded(cutout: np.ndarray, side_px: int) -> np.ndarray:
    """A smaller cutout in a stamp of zeros."""
    before = (side_px - cutout.shape[0]) // 2
    return np.pad(cutout, (before, side_px - cutout.shape[0] - before))


def survey_cutout(galaxy: Galaxy, key: str) -> np.ndarray:
    """What the earlier builder stored: sky subtracted, at the survey's pixels, neighbours and noise left in."""
    native = pixels_of(galaxy, key, sky=0.0)
    return padded(overlap_resample(native, PIXSCALE_ARCSEC, 38, TARGET_ARCSEC), 96)


def params(**changes: Any) -> SourceParams:
    values: dict[str, Any] = {
        "x_arcsec": 0.0,
        "y_arcsec": 0.0,
        "mag_r": 22.0,
        "gr_mag": 0.3,
        "rz_mag": 0.2,
        "reff_arcsec": 0.25,
        "n_sersic": 1.0,
        "e": 0.1,
        "phi_rad": 0.7,
        "flip": True,
        "template_u": 0.6,
    }
    return SourceParams(**values | changes)


# ---------------------------------------------------------------------------------------------- the NPZ file


def test_layout_that_users_own_loads_without_pickle(npz: Path) -> None:
    with np.load(npz, allow_pickle=False) as archive:
        assert set(archive.files) == {"images", "fine_images", "meta"}
        assert archive["meta"].shape == ()
        meta = json.loads(str(archive["meta"]))
        assert archive["images"].dtype == np.float32
    for name in ("file", "pixscale_arcsec", "filter", "sum_flux"):
        assert len(meta[name]) == 2
    assert meta["target_pixscale_arcsec"] == TARGET_ARCSEC
    assert meta["stamp_size"] == 96
    images, loaded = load_bank(npz)
    assert loaded == meta
    assert images.shape == (2, 96, 96)


def test_earlier_layout_loads(tmp_path: Path) -> None:
    file = earlier_npz(tmp_path / "old.npz", np.ones((3, 8, 8)))
    images, meta = load_bank(file)
    assert images.shape == (3, 8, 8)
    assert meta["stamp_size"] == 8
    assert load_fine_images(file) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"file": ["one"]}, "file must be a list of 3"),
        ({"stamp_size": 9}, "stamp_size is 9 but images are 8 px wide"),
        ({"target_pixscale_arcsec": -1.0}, "target_pixscale_arcsec is -1.0"),
        ({"target_pixscale_arcsec": "0.262"}, "target_pixscale_arcsec is '0.262'"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BankError, match=says):
        load_bank(earlier_npz(tmp_path / "old.npz", np.ones((3, 8, 8)), **changes))


def test_files_that_are_no_bank_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="no deep bank at"):
        load_bank(tmp_path / "nowhere.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(BankError, match="not a NPZ file"):
        load_bank(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", pictures=np.ones(3))
    with pytest.raises(BankError, match=r"has no \['images', 'meta'\]"):
        load_bank(tmp_path / "other.npz")
    np.savez(tmp_path / "pickled.npz", images=np.ones((1, 2, 2)), meta=np.array({"file": []}, dtype=object))
    with pytest.raises(BankError, match="without pickle"):
        load_bank(tmp_path / "pickled.npz")
    np.savez(tmp_path / "flat.npz", images=np.ones((2, 2)), meta=np.array("{}"))
    with pytest.raises(BankError, match=r"shape \(2, 2\), not \(N, S, S\)"):
        load_bank(tmp_path / "flat.npz")


# ----------------------------------------------------------------------------------------------- resampling


@settings(max_examples=30)
@given(
    n_in=st.integers(3, 40),
    scale_in=st.floats(0.03, 0.4),
    scale_out=st.floats(0.03, 0.4),
    x=st.floats(0, 1, exclude_max=True),
    y=st.floats(0, 1, exclude_max=True),
)
def test_resampling_conserves_a_point_source_and_its_place(
    n_in: int, scale_in: float, scale_out: float, x: float, y: float
) -> None:
    image = np.zeros((n_in, n_in))
    row, column = int(y * n_in), int(x * n_in)
    image[row, column] = 1.0
    n_out = int(np.ceil(n_in * scale_in / scale_out)) + 2
    out = overlap_resample(image, scale_in, n_out, scale_out)
    assert out.sum() == pytest.approx(1.0, abs=1e-12)
    assert out.min() >= 0
    centre = (np.arange(n_out) - (n_out - 1) / 2) * scale_out
    tolerance = 0.51 * scale_out  # a point has no place finer than the pixel it falls in
    assert float(out.sum(axis=0) @ centre) == pytest.approx((column - (n_in - 1) / 2) * scale_in, abs=tolerance)
    assert float(out.sum(axis=1) @ centre) == pytest.approx((row - (n_in - 1) / 2) * scale_in, abs=tolerance)


# --------------------------------------------------------------------------------------------------- import


def test_fine_templates_become_a_bank_folder(npz: Path, tmp_path: Path) -> None:
    summary = import_deep_bank(npz, tmp_path / "bank")
    assert (summary.n_candidates, summary.n_accepted) == (2, 2)
    bank = open_bank(summary.path)
    info = json.loads((summary.path / "bank.json").read_text())
    fine, scale = load_fine_images(npz) or (np.zeros(0), 0.0)
    assert info["kind"] == "deep_ground"
    assert info["deconvolved"] is True
    assert bank.pixscale_arcsec == pytest.approx(scale) == pytest.approx(0.084)
    np.testing.assert_allclose(bank.images, fine, rtol=1e-5, atol=1e-9)
    assert bank.effective_psf_fwhm_arcsec == pytest.approx(0.47, abs=0.02)
    assert bank.psf_fwhm_arcsec is not None
    again = pickle.loads(pickle.dumps(bank))
    assert again.template_psf_fwhm_arcsec(1) == bank.template_psf_fwhm_arcsec(1) == bank.psf_fwhm_arcsec[1]
    row = pq.read_table(summary.path / "meta.parquet").to_pylist()[0]
    assert row["filter"] == "HSC-I"
    assert row["template_id"] == row["file"]
    assert row["snr_integrated"] > 100


def test_unusable_fine_templates_are_refused_by_name(npz: Path, tmp_path: Path) -> None:
    with np.load(npz) as archive:
        arrays = {name: np.repeat(archive[name], 3, axis=0) for name in ("images", "fine_images")}
        meta = json.loads(str(archive["meta"]))
    for name, values in meta.items():
        if isinstance(values, list) and len(values) == 2:
            meta[name] = [value for value in values for _ in range(3)]
    meta["psf_fwhm_arcsec"][1] = None
    meta["hlr_arcsec"][2] *= 1.3
    arrays["fine_images"][3] *= 0.5
    arrays["fine_images"][4, 0, 0] = np.nan
    np.savez(tmp_path / "bad.npz", meta=np.array(json.dumps(meta)), **arrays)
    summary = import_deep_bank(tmp_path / "bad.npz", tmp_path / "bank")
    assert summary.n_accepted == 2
    assert summary.rejected_by_reason == {
        "EMPTY": 1,
        "HLR_DISAGREES_WITH_CATALOGUE": 1,
        "NOT_FINITE": 1,
        "NO_PSF": 1,
    }


def test_earlier_layout_is_redrawn_finer_and_isolated(tmp_path: Path) -> None:
    """Oracle: GalSim draws the disc behind seeing and survey pixel, no noise. 5 %: the disc is sampled at 0.262″."""
    companion = 15.0 * galsim.Gaussian(half_light_radius=0.2).shift(-3.4, 2.8)
    images = np.stack(
        [
            survey_cutout(Galaxy(0.5), "a"),
            survey_cutout(Galaxy(0.7, shift_arcsec=(0.2, 0.1), neighbour=companion), "b"),
            np.zeros((96, 96)),
            survey_cutout(Galaxy(0.5, flux=1e-3), "c"),
            np.full((96, 96), np.nan),
        ]
    )
    file = earlier_npz(tmp_path / "old.npz", images)
    with pytest.raises(BankError, match="does not say what PSF is in it: state psf_fwhm_arcsec"):
        import_deep_bank(file, tmp_path / "bank")
    assert not (tmp_path / "bank" / "bank.json").exists()
    summary = import_deep_bank(file, tmp_path / "bank", psf_fwhm_arcsec=0.65)
    assert summary.rejected_by_reason == {"EMPTY": 2, "NO_CENTRAL_OBJECT": 1}
    bank = open_bank(summary.path)
    info = json.loads((summary.path / "bank.json").read_text())
    assert info["upsampled_from_arcsec"] == TARGET_ARCSEC
    assert bank.pixscale_arcsec == pytest.approx(TARGET_ARCSEC / 3)
    assert bank.effective_psf_fwhm_arcsec == 0.65
    assert bank.template_id == ("g0.fits", "g1.fits")
    meta = pq.read_table(summary.path / "meta.parquet").to_pydict()
    np.testing.assert_allclose(meta["sum_flux"][0], FLUX, rtol=0.03)
    for hlr_arcsec, truth in zip(bank.hlr_arcsec, (0.5, 0.7), strict=True):
        scene = galsim.Convolve(Galaxy(truth).profile, SEEING, galsim.Pixel(TARGET_ARCSEC))
        expected = half_light_radius_px(drawn(scene, 301, 0.05)) * 0.05
        assert hlr_arcsec == pytest.approx(expected, rel=0.05)
    assert meta["hlr_arcsec"] == list(bank.hlr_arcsec)


def test_import_checks_its_arguments(npz: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"psf_fwhm_arcsec must be positive and finite, got -1\.0"):
        import_deep_bank(npz, tmp_path / "bank", psf_fwhm_arcsec=-1.0)


# --------------------------------------------------------------------------------------------------- sampler


@given(task_id=st.text(max_size=40), n=st.integers(1, 10**6), salt=st.text(max_size=8))
def test_index_is_a_function_of_its_key(task_id: str, n: int, salt: str) -> None:
    index = choose_index(task_id, n, salt)
    assert 0 <= index < n
    assert index == choose_index(task_id, n, salt)


def test_index_is_uniform_and_the_same_in_every_process() -> None:
    chosen = np.bincount([choose_index(f"task{i}", 10) for i in range(20_000)], minlength=10)
    assert np.abs(chosen - 2000).max() < 5 * np.sqrt(2000)
    code = "from dhs_gen.deep_sources import choose_index as c; print([c(f't{i}', 1000, 's') for i in range(20)])"
    environment = {"PYTHONPATH": str(REPO / "pipeline"), "PYTHONHASHSEED": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == f"{[choose_index(f't{i}', 1000, 's') for i in range(20)]}\n"


@pytest.mark.parametrize(("task_id", "n"), [("t", 0), ("t", -1), ("t", 2.5), ("t", True), (7, 3)])
def test_index_refuses_what_it_cannot_use(task_id: Any, n: Any) -> None:
    with pytest.raises(ValueError, match="must be a"):
        choose_index(task_id, n)


def test_sampler_command(npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bank", str(npz), "--task-id", "task1", "--salt", "gen6"]) == 0
    printed = json.loads(capsys.readouterr().out)
    _, meta = load_bank(npz)
    assert printed["index"] == choose_index("task1", 2, "gen6")
    assert printed["file"] == meta["file"][printed["index"]]
    assert main(["--bank", "nowhere.npz", "--task-id", "t"]) == 2
    assert "no deep bank at nowhere.npz" in capsys.readouterr().err


@settings(max_examples=20)
@given(reff=st.floats(0.02, 1.5), row=st.sampled_from([0, 1]), flip=st.booleans())
def test_source_has_the_size_of_the_task_and_its_psf_shrinks_with_it(
    imported: Path, reff: float, row: int, flip: bool
) -> None:
    bank = open_bank(imported, full_check=False)
    made = bank_source(params(reff_arcsec=reff, flip=flip), bank, row)
    template = made.template
    assert made.template_id == bank.template_id[row]
    assert template.pixels.shape[0] == 1
    assert template.pixels.sum() == pytest.approx(1.0)
    assert half_light_radius_px(template.pixels[0]) * template.pixscale_arcsec == pytest.approx(reff, rel=0.01)
    assert template.flip is flip
    assert made.psf_fwhm_arcsec == pytest.approx(bank.template_psf_fwhm_arcsec(row) * reff / bank.hlr_arcsec[row])


@pytest.fixture(scope="module")
def imported(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_deep_bank(npz, tmp_path_factory.mktemp("imported") / "bank").path


def test_a_bank_with_one_psf_for_all_says_it_for_each(imported: Path) -> None:
    bank = dataclasses.replace(open_bank(imported), psf_fwhm_arcsec=None, effective_psf_fwhm_arcsec=0.12)
    assert bank.template_psf_fwhm_arcsec(0) == bank.template_psf_fwhm_arcsec(1) == 0.12
    task = params(reff_arcsec=float(bank.hlr_arcsec[1]))
    assert bank_source(task, bank, 1).psf_fwhm_arcsec == pytest.approx(0.12)
