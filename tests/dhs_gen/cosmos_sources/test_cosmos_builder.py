"""A bank built from galaxies whose PSF-free shape is known, and one built from real ones."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from cosmos_cases import (
    PIXSCALE_ARCSEC,
    REPOSITORY,
    BuiltBank,
    configuration,
    galsim,
    synthetic_galaxies,
    write_catalogue,
)

from dhs_gen.cosmos_sources import (
    BankError,
    BankSettings,
    TemplateReject,
    build_cosmos_bank,
    find_catalogue_file,
    open_bank,
)

HLR_TOLERANCE = 0.06  # taper of an exponential's wings beyond the isophote, and noise at S/N > 100
FILES = ("images.npy", "meta.parquet", "rejects.parquet", "bank.json")


def rows(built: BuiltBank, name: str) -> dict[str, dict[str, Any]]:
    table = pq.read_table(built.summary.path / name)
    return {row["template_id"]: row for row in table.to_pylist()}


def test_every_galaxy_is_either_a_template_or_a_reject(built: BuiltBank) -> None:
    accepted, rejected = rows(built, "meta.parquet"), rows(built, "rejects.parquet")
    assert set(accepted) | set(rejected) == set(built.truth)
    assert not set(accepted) & set(rejected)
    assert built.summary.n_accepted == len(accepted)
    assert sum(built.summary.rejected_by_reason.values()) == len(rejected)
    assert built.summary.n_candidates == len(built.truth)


def test_noise_dominated_and_blended_galaxies_are_rejected_by_name(built: BuiltBank) -> None:
    reasons = {name: row["reason"] for name, row in rows(built, "rejects.parquet").items()}
    assert reasons == {
        "201": TemplateReject.NOISE_DOMINATED,
        "202": TemplateReject.NOISE_DOMINATED,
        "301": TemplateReject.BLENDED,
    }


@pytest.mark.parametrize("ident", ["101", "102", "103", "104", "302"])
def test_radius_is_that_of_the_galaxy_at_the_target_psf(built: BuiltBank, settings: BankSettings, ident: str) -> None:
    target = galsim.Gaussian(fwhm=settings.target_psf_fwhm_arcsec)
    scene = galsim.Convolve(built.truth[ident].profile, target)
    expected_arcsec = scene.calculateHLR(size=512, scale=0.01, centroid=scene.centroid)
    row = rows(built, "meta.parquet")[ident]
    assert row["hlr_arcsec"] == pytest.approx(expected_arcsec, rel=HLR_TOLERANCE)
    assert row["flux_ratio"] == pytest.approx(1.0, abs=0.08)
    assert row["zphot"] == pytest.approx(1.0 + 0.01 * int(ident))


@pytest.mark.parametrize("ident", ["101", "102", "103", "104", "302"])
def test_shape_is_that_of_the_galaxy_at_the_target_psf(built: BuiltBank, settings: BankSettings, ident: str) -> None:
    """The HST PSF here is sheared; what is left of it, or a shift of the template, would show in the difference."""
    bank = open_bank(built.summary.path)
    # Unit sum puts the flux of the wings outside the taper back into the template: undo that to compare.
    template = bank.images[bank.template_id.index(ident)] * rows(built, "meta.parquet")[ident]["flux_ratio"]
    profile = built.truth[ident].profile.withFlux(1.0)
    scene = galsim.Convolve(profile.shift(-profile.centroid), galsim.Gaussian(fwhm=settings.target_psf_fwhm_arcsec))
    side = settings.template_side_px
    truth = scene.drawImage(nx=side, ny=side, scale=PIXSCALE_ARCSEC, method="no_pixel", dtype=float).array
    core = truth > 0.1 * truth.max()
    assert template[core].sum() == pytest.approx(truth[core].sum(), rel=0.05)
    correlation = np.corrcoef(template[core], truth[core])[0, 1]
    assert correlation > 0.99


def test_templates_have_unit_sum_no_pedestal_and_a_centred_centroid(built: BuiltBank) -> None:
    images = open_bank(built.summary.path).images
    np.testing.assert_allclose(images.sum(axis=(1, 2), dtype=np.float64), 1.0, atol=1e-5)
    assert (images[:, 0] == 0).all()
    assert (images[:, :, -1] == 0).all()
    assert images.min() < 0  # negatives are kept
    axis = np.arange(images.shape[1]) - images.shape[1] // 2
    assert np.abs(images.sum(axis=1) @ axis).max() < 0.1
    assert np.abs(images.sum(axis=2) @ axis).max() < 0.1


def test_separate_neighbour_is_masked(built: BuiltBank) -> None:
    bank = open_bank(built.summary.path)
    image = bank.images[bank.template_id.index("302")]
    side = image.shape[0] // 2
    x, y = side - round(1.1 / PIXSCALE_ARCSEC), side + round(0.9 / PIXSCALE_ARCSEC)
    assert (image[y - 3 : y + 4, x - 3 : x + 4] == 0).all()


def test_same_input_gives_the_same_bytes(built: BuiltBank, settings: BankSettings, tmp_path: Path) -> None:
    again = build_cosmos_bank(built.catalog_dir, tmp_path / "again", settings)
    assert again.digest == built.summary.digest
    for name in FILES:
        assert (again.path / name).read_bytes() == (built.summary.path / name).read_bytes(), name
    assert sorted(file.name for file in again.path.iterdir()) == sorted(FILES)


def test_columns_state_their_units(built: BuiltBank) -> None:
    for name in ("meta.parquet", "rejects.parquet"):
        for field in pq.read_schema(built.summary.path / name):
            assert b"unit" in field.metadata
            assert field.metadata[b"description"]


# ------------------------------------------------------------------------------------------- unusable input


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("real_galaxy_PSF_images.fits", "the HST PSF cannot be removed"),
        ("real_galaxy_images.fits", "nothing to build from"),
        ("real_galaxy_catalog.fits", "found none"),
    ],
)
def test_missing_file_is_one_clear_line(
    built: BuiltBank, settings: BankSettings, tmp_path: Path, missing: str, says: str
) -> None:
    folder = Path(shutil.copytree(built.catalog_dir, tmp_path / "catalogue"))
    (folder / missing).unlink()
    with pytest.raises(BankError, match=says) as caught:
        build_cosmos_bank(folder, tmp_path / "bank", settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bank").exists()


def test_other_pixel_scale_is_refused(settings: BankSettings, tmp_path: Path) -> None:
    folder = write_catalogue(tmp_path / "catalogue", synthetic_galaxies()[:1], pixscale_arcsec=0.05)
    with pytest.raises(BankError, match=r"PIXEL_SCALE 0\.05"):
        build_cosmos_bank(folder, tmp_path / "bank", settings)


def test_noise_alone_builds_no_bank(settings: BankSettings, tmp_path: Path) -> None:
    folder = write_catalogue(tmp_path / "catalogue", synthetic_galaxies()[4:6])
    with pytest.raises(BankError, match="'NOISE_DOMINATED': 2"):
        build_cosmos_bank(folder, tmp_path / "bank", settings)
    assert list((tmp_path / "bank").iterdir()) == []


def test_catalogue_file_is_found_among_its_companions(tmp_path: Path) -> None:
    for name in (
        "real_galaxy_catalog_25.2.fits",
        "real_galaxy_catalog_25.2_fits.fits",
        "real_galaxy_catalog_25.2_selection.fits",
    ):
        (tmp_path / name).touch()
    assert find_catalogue_file(tmp_path).name == "real_galaxy_catalog_25.2.fits"
    (tmp_path / "real_galaxy_catalog_23.5.fits").touch()
    with pytest.raises(BankError, match="one per folder"):
        find_catalogue_file(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"template_side_px": 128}, "odd"),
        ({"min_peak_snr": -1.0}, "positive"),
        ({"taper_px": float("nan")}, "finite"),
        ({"min_flux_ratio": 2.0}, "not below max_flux_ratio"),
    ],
)
def test_settings_are_checked(settings: BankSettings, change: dict[str, Any], says: str) -> None:
    with pytest.raises(BankError, match=says):
        dataclasses.replace(settings, **change)


def test_settings_with_a_misspelt_name_are_refused() -> None:
    section = configuration()["build"]
    section["taper_pix"] = section.pop("taper_px")
    with pytest.raises(BankError, match=r"taper_pix.*taper_px"):
        BankSettings.from_mapping(section)


# --------------------------------------------------------------------------------------------- real galaxies


def real_catalogue(name: str) -> Path:
    folder = REPOSITORY / ".." / "shared" / "data" / name
    if not folder.is_dir():
        pytest.skip(f"no {name} beside the repository")
    return folder.resolve()


@pytest.mark.realdata
def test_real_galaxies(settings: BankSettings, tmp_path: Path) -> None:
    summary = build_cosmos_bank(real_catalogue("cosmos80"), tmp_path / "bank", settings)
    assert summary.n_candidates == 80
    assert 20 <= summary.n_accepted <= 30
    assert summary.rejected_by_reason["NOISE_DOMINATED"] >= 35
    meta = pq.read_table(summary.path / "meta.parquet").to_pydict()
    assert np.median(meta["flux_ratio"]) == pytest.approx(0.95, abs=0.05)
    assert np.median(meta["hlr_ratio"]) == pytest.approx(0.87, abs=0.05)
    assert max(meta["hlr_arcsec"]) < 0.6  # a pedestal in 129 px would measure 1.5
    assert len(open_bank(summary.path, expected_pixscale_arcsec=0.03)) == summary.n_accepted


@pytest.mark.realdata
def test_real_catalogue_without_psf_images_says_so(settings: BankSettings, tmp_path: Path) -> None:
    with pytest.raises(BankError, match=r"real_galaxy_PSF_images_23\.5_n1\.fits.*HST PSF cannot be removed"):
        build_cosmos_bank(real_catalogue("cosmos23_10"), tmp_path / "bank", settings)
