"""Opening a bank: what is checked, and what each error says."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cosmos_cases import PIXSCALE_ARCSEC, BuiltBank, galsim
from numpy.typing import NDArray

from dhs_gen.cosmos_sources import BankError, Column, choose_template, open_bank, write_bank
from dhs_gen.source_banks.measure import edge_to_mean_ratio, flat_square_hlr_px, half_light_radius_px


def edit_info(folder: Path, **changes: Any) -> None:
    file = folder / "bank.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_images(folder: Path, change: Callable[[NDArray[np.float32]], NDArray[Any]]) -> None:
    np.save(folder / "images.npy", change(np.load(folder / "images.npy")))


def with_nan(images: NDArray[np.float32]) -> NDArray[np.float32]:
    images[1, 5, 5] = np.nan
    return images


def same_ids(folder: Path) -> None:
    table = pq.read_table(folder / "meta.parquet")
    ids = pa.array(["1"] * table.num_rows)
    pq.write_table(table.set_column(0, "template_id", ids), folder / "meta.parquet")


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no images": (lambda f: (f / "images.npy").unlink(), "has no images.npy"),
    "no json": (lambda f: (f / "bank.json").unlink(), "has no bank.json"),
    "bad json": (lambda f: (f / "bank.json").write_text("{"), "not valid JSON"),
    "other format": (lambda f: edit_info(f, format_version=99), "format_version 99"),
    "not an array": (lambda f: (f / "images.npy").write_bytes(b"x" * 200), "cannot be mapped"),
    "float64": (lambda f: edit_images(f, lambda a: a.astype(np.float64)), "holds float64"),
    "not square": (lambda f: edit_images(f, lambda a: a[:, :, 1:]), "has shape"),
    "fewer images": (lambda f: edit_images(f, lambda a: a[1:]), "rows for"),
    "nan": (lambda f: edit_images(f, with_nan), "template 1 .* is not finite"),
    "not unit sum": (lambda f: edit_images(f, lambda a: a * np.float32(1.01)), "does not have unit sum"),
    "changed": (lambda f: edit_images(f, lambda a: a[:, ::-1]), "changed after the build"),
    "zero scale": (lambda f: edit_info(f, pixscale_arcsec=0.0), "must be positive"),
    "text scale": (lambda f: edit_info(f, pixscale_arcsec="0.03"), "not a number"),
    "coarse scale": (lambda f: edit_info(f, pixscale_arcsec=0.262), "blocky"),
    "wrong scale": (lambda f: edit_info(f, pixscale_arcsec=0.06), "pixscale_arcsec in bank.json is wrong"),
    "no psf": (lambda f: edit_info(f, effective_psf_fwhm_arcsec=None), "state the FWHM"),
    "meta unreadable": (lambda f: (f / "meta.parquet").write_bytes(b"no"), "cannot be read"),
    "same id": (same_ids, "same template_id twice"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_bank_is_one_clear_line(bank_copy: Callable[[], Path], damage: str) -> None:
    folder = bank_copy()
    change, says = DAMAGES[damage]
    change(folder)
    with pytest.raises(BankError, match=says) as caught:
        open_bank(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="no bank folder"):
        open_bank(tmp_path / "nowhere")


def test_expected_pixel_scale(built: BuiltBank) -> None:
    assert open_bank(built.summary.path, expected_pixscale_arcsec=0.0302).pixscale_arcsec == PIXSCALE_ARCSEC
    with pytest.raises(BankError, match=r"expects 0\.05"):
        open_bank(built.summary.path, expected_pixscale_arcsec=0.05)


def test_open_bank_is_mapped_and_read_only(built: BuiltBank) -> None:
    bank = open_bank(built.summary.path)
    assert isinstance(bank.images, np.memmap)
    assert bank.images.dtype == np.float32
    assert bank.digest == built.summary.digest
    with pytest.raises(ValueError, match="read-only"):
        bank.images[0, 0, 0] = 1.0


def test_pickle_holds_the_path_not_the_images(built: BuiltBank) -> None:
    bank = open_bank(built.summary.path)
    payload = pickle.dumps(bank)
    assert len(payload) < 1000
    again = pickle.loads(payload)
    assert again.template_id == bank.template_id
    np.testing.assert_array_equal(again.images, bank.images)


@pytest.mark.parametrize(("u", "n", "index"), [(0.0, 5, 0), (0.2, 5, 1), (0.999, 5, 4), (1 - 2**-53, 20000, 19999)])
def test_choose_template(u: float, n: int, index: int) -> None:
    assert choose_template(u, n) == index


@pytest.mark.parametrize(("u", "n"), [(1.0, 5), (-0.1, 5), (float("nan"), 5), (0.5, 0), (0.5, 2.5), (0.5, True)])
def test_choose_template_refuses(u: float, n: int) -> None:
    with pytest.raises(ValueError, match="must"):
        choose_template(u, n)


@pytest.mark.parametrize("hlr_px", [2.0, 5.0, 12.0])
@pytest.mark.parametrize("shift_px", [(0.0, 0.0), (0.37, -0.21)])
def test_half_light_radius_of_a_gaussian(hlr_px: float, shift_px: tuple[float, float]) -> None:
    profile = galsim.Gaussian(half_light_radius=hlr_px).shift(*shift_px)
    image = profile.drawImage(nx=121, ny=121, scale=1.0, method="no_pixel", dtype=float).array
    with_flat_pixels = np.hypot(hlr_px, np.sqrt(2 * np.log(2) / 12))
    assert half_light_radius_px(image) == pytest.approx(with_flat_pixels, rel=0.01)


def test_flat_square() -> None:
    """Half of a square of side s lies within s / sqrt(2 pi) of its centre."""
    assert flat_square_hlr_px((96, 96)) == pytest.approx(96 / np.sqrt(2 * np.pi), rel=2e-3)
    assert edge_to_mean_ratio(np.ones((96, 96))) == pytest.approx(1.0)


def test_an_interrupted_write_leaves_the_old_bank(bank_copy: Callable[[], Path]) -> None:
    folder = bank_copy()
    columns = [Column("template_id", "string", "", "name"), Column("hlr_arcsec", "float64", "arcsec", "radius")]
    images = [np.ones((5, 5)), np.zeros((5, 5))]
    with pytest.raises(BankError, match="sums to"):
        write_bank(folder, images, [{"template_id": "a"}, {"template_id": "b"}], [], columns=columns, info={})
    open_bank(folder)
    assert not list(folder.glob(".*"))
