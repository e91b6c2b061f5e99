"""The review's issues that concern single source modules, artifacts and the mixer: one test each, named after it."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

PACKAGE = Path(__file__).resolve().parents[2] / "pipeline" / "dhs_gen"
PIXSCALE_ARCSEC = 0.168


def deep_scene(seed: int, side: int = 161) -> NDArray[np.float32]:
    """A bright, resolved galaxy in the middle of a noisy sky."""
    rng = np.random.default_rng([9, seed])
    t = np.arange(side) - side // 2
    q = rng.uniform(0.5, 1.0)
    radius = np.sqrt(q * t[None, :] ** 2 + t[:, None] ** 2 / q + 4.0)
    galaxy = 60.0 * np.exp(-radius / rng.uniform(3.5, 5.0))
    return (galaxy + 0.2 * rng.standard_normal((side, side))).astype(np.float32)


def write_cutout(path: Path, image: NDArray[np.floating]) -> None:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.2], [image.shape[1] / 2, image.shape[0] / 2]
    wcs.wcs.cdelt = [-PIXSCALE_ARCSEC / 3600, PIXSCALE_ARCSEC / 3600]
    header = wcs.to_header()
    header["FILTER"] = "i"
    fits.writeto(path, image, header)


def build(folder: Path, n: int = 4, bad: NDArray[np.floating] | None = None) -> Path:
    """A bank of ``n`` sound cutouts and, if given, one that is not."""
    from dhs_gen.deep_sources.deep_source_bank import build_deep_source_bank

    (folder / "fits").mkdir()
    for i in range(n):
        write_cutout(folder / "fits" / f"good-{i}.fits", deep_scene(i))
    if bad is not None:
        write_cutout(folder / "fits" / "bad.fits", bad)
    out = folder / "bank.npz"
    more = {"min_sources": 1} if "min_sources" in inspect.signature(build_deep_source_bank).parameters else {}
    build_deep_source_bank(
        str(folder / "fits"), str(out), n + 1, 64, PIXSCALE_ARCSEC, 0.262, psf_fwhm_arcsec=0.6, **more
    )
    return out


def test_issue_2_deep_source_bank_documents_its_units() -> None:
    from dhs_gen.deep_sources import deep_source_bank

    text = f"{deep_source_bank.__doc__} {deep_source_bank.build_deep_source_bank.__doc__}"
    assert "flux per pixel" in text.lower()
    assert "warning" in text.lower()
    assert "surface brightness" in text
    assert "to_surface_brightness" in text


def test_issue_3_deep_source_bank_keeps_float32(tmp_path: Path) -> None:
    """Three digits of float16 would show as steps of 1/1024 of the peak; they also overflow at 65504."""
    with np.load(build(tmp_path), allow_pickle=False) as bank:
        images = bank["images"]
        json.loads(str(bank["meta"]))
    assert images.dtype == np.float32
    assert np.isfinite(images).all()
    assert not np.array_equal(images, images.astype(np.float16).astype(np.float32))


def test_issue_4_deep_source_bank_lets_no_nan_into_a_bank(tmp_path: Path) -> None:
    """The damaged cutout is left out or repaired, never stored as it is; the sound ones stay."""
    broken = deep_scene(99)
    broken[70:90, 70:90] = np.nan
    with np.load(build(tmp_path, 4, broken), allow_pickle=False) as bank:
        assert np.isfinite(bank["images"]).all()
        assert len(bank["images"]) >= 4


@pytest.mark.parametrize("re_pix", [np.nan, np.inf, 0.0, -3.0])
def test_issue_4_sersic_clumps_refuses_what_would_give_nan(re_pix: float) -> None:
    from dhs_gen.hybrid_sources.sersic_clumps import generate_hybrid_source

    with pytest.raises(ValueError, match="re_pix"):
        generate_hybrid_source("key", re_pix=re_pix)


def test_issue_4_sersic_clumps_returns_finite_images() -> None:
    from dhs_gen.hybrid_sources.sersic_clumps import generate_hybrid_source

    for i in range(20):
        image = generate_hybrid_source(f"key-{i}", n_sersic=4.0, re_pix=0.3 + 0.5 * i)["img"]
        assert image.shape == (96, 96)
        assert np.isfinite(image).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_issue_4_artifacts_refuse_an_image_with_nan(value: float) -> None:
    from dhs_gen.domain_randomization.artifacts import apply_domain_randomization

    image = np.random.default_rng(3).standard_normal((64, 64)).astype(np.float32)
    image[10, 11] = value
    with pytest.raises(ValueError, match="img"):
        apply_domain_randomization(image, "key", psf_fwhm_pix=4.0)


def test_issue_4_artifacts_return_finite_images() -> None:
    from dhs_gen.domain_randomization.artifacts import apply_domain_randomization

    image = np.random.default_rng(3).standard_normal((64, 64)).astype(np.float32)
    for i in range(20):
        made = apply_domain_randomization(image, f"key-{i}", psf_fwhm_pix=4.0)["img"]
        assert made.shape == image.shape
        assert np.isfinite(made).all()


def test_issue_5_mixing_again_replaces_the_columns(tmp_path: Path) -> None:
    from dhs_gen.uber.mixer import DEFAULT_UBER, add_modes_to_manifest_pyarrow

    once, twice = tmp_path / "once.parquet", tmp_path / "twice.parquet"
    pq.write_table(pa.table({"task_id": [f"t{i}" for i in range(50)], "x": list(range(50))}), tmp_path / "in.parquet")
    add_modes_to_manifest_pyarrow(str(tmp_path / "in.parquet"), str(once), DEFAULT_UBER)
    add_modes_to_manifest_pyarrow(str(once), str(twice), DEFAULT_UBER)
    table = pq.read_table(twice)
    assert sorted(table.column_names) == sorted(["task_id", "x", "source_mode", "artifact_profile", "gen_variant"])
    assert table.select(table.column_names).equals(pq.read_table(once).select(table.column_names))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda p: str(p.parent.relative_to(PACKAGE)))
def test_minor_issue_packages_declare_all(path: Path) -> None:
    name = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
    module = importlib.import_module(name)
    assert all(hasattr(module, exported) for exported in module.__all__)


def test_minor_issue_deep_source_bank_has_a_test(tmp_path: Path) -> None:
    """Build, load, choose: the round trip through the public functions."""
    from dhs_gen.deep_sources.deep_source_bank import load_bank
    from dhs_gen.deep_sources.deep_source_sampler import choose_index

    images, meta = load_bank(str(build(tmp_path)))
    assert images.shape[1:] == (64, 64)
    for key in ("file", "filter", "pixscale_arcsec", "sum_flux"):
        assert len(meta[key]) == len(images)
    assert 0 <= choose_index("task", len(images)) < len(images)
    assert choose_index("task", len(images)) == choose_index("task", len(images), "")
