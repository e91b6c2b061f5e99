"""Import of an existing HDF5 bank: a round trip, and the faults such banks have had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from cosmos_cases import PIXSCALE_ARCSEC, galsim
from numpy.typing import NDArray

from dhs_gen.cosmos_sources import BankError, ImportLimits, import_hdf5_bank, open_bank
from dhs_gen.source_banks.measure import half_light_radius_px

h5py = pytest.importorskip("h5py", reason="h5py is not installed (extra: banks)")

SIDE_PX = 96


def galaxies(n: int) -> NDArray[np.float32]:
    images = []
    for hlr_arcsec in np.linspace(0.15, 0.35, n):
        profile = galsim.Convolve(galsim.Exponential(half_light_radius=hlr_arcsec), galsim.Gaussian(fwhm=0.1))
        image = profile.drawImage(nx=SIDE_PX, ny=SIDE_PX, scale=PIXSCALE_ARCSEC, method="no_pixel").array
        images.append(image / image.sum())
    return np.array(images, dtype=np.float32)


def clipped_noise(n: int) -> NDArray[np.float32]:
    images = np.maximum(np.random.default_rng(3).normal(size=(n, SIDE_PX, SIDE_PX)), 0.0)
    return (images / images.sum(axis=(1, 2), keepdims=True)).astype(np.float32)


def clipped_galaxy_in_noise() -> NDArray[np.float32]:
    """max(image, 0) of an exponential of 0.3″ at S/N 20 (0.5″ aperture): unit sum, 4/5 of it a square pedestal."""
    galaxy = galaxies(5)[3]
    image = np.maximum(galaxy + np.random.default_rng(5).normal(scale=1.3e-3, size=galaxy.shape), 0.0)
    return (image / image.sum()).astype(np.float32)


def write_h5(file: Path, images: NDArray[Any], *, hlr_arcsec: NDArray[Any] | None = None, **attrs: Any) -> Path:
    if hlr_arcsec is None:
        hlr_arcsec = np.array([half_light_radius_px(image) * PIXSCALE_ARCSEC for image in images])
    with h5py.File(file, "w") as h5:
        h5.create_dataset("images", data=images, compression="gzip", compression_opts=4, shuffle=True)
        h5.create_dataset("meta/index", data=np.arange(len(images), dtype=np.int64) * 7)
        h5.create_dataset("meta/hlr_arcsec", data=hlr_arcsec.astype(np.float32))
        h5.create_dataset("meta/clumpiness", data=np.full(len(images), 0.5, dtype=np.float32))
        h5.attrs.update(
            {
                "src_pixscale_arcsec": PIXSCALE_ARCSEC,
                "stamp_size": SIDE_PX,
                "created_utc": "2025-01-01T00:00:00Z",
                "galaxy_kind": "real",
            }
            | attrs
        )
    return file


def run(file: Path, out: Path, limits: ImportLimits, **options: Any) -> Any:
    return import_hdf5_bank(file, out, limits=limits, effective_psf_fwhm_arcsec=0.1, **options)


def test_round_trip(tmp_path: Path, limits: ImportLimits) -> None:
    images = galaxies(6)
    summary = run(write_h5(tmp_path / "bank.h5", images), tmp_path / "bank", limits, expected_pixscale_arcsec=0.03)
    assert (summary.n_candidates, summary.n_accepted, summary.rejected_by_reason) == (6, 6, {})
    bank = open_bank(tmp_path / "bank", expected_pixscale_arcsec=0.03)
    assert bank.template_id == ("0", "7", "14", "21", "28", "35")
    assert bank.effective_psf_fwhm_arcsec == 0.1
    np.testing.assert_allclose(bank.images, images, rtol=1e-5, atol=1e-12)


def test_noise_dominated_bank_is_refused(tmp_path: Path, limits: ImportLimits) -> None:
    file = write_h5(tmp_path / "bank.h5", clipped_noise(8))
    with pytest.raises(BankError, match="'NOISE_DOMINATED': 8") as caught:
        run(file, tmp_path / "bank", limits)
    assert "\n" not in str(caught.value)


def test_bad_templates_are_rejected_one_by_one(tmp_path: Path, limits: ImportLimits) -> None:
    images = np.concatenate([galaxies(4), clipped_noise(1), clipped_galaxy_in_noise()[None]])
    images[1, 3, 3] = np.nan
    images[2] = np.roll(images[2], 12, axis=0)
    file = write_h5(tmp_path / "bank.h5", images, hlr_arcsec=np.full(6, 0.2))
    summary = run(file, tmp_path / "bank", limits)
    rejects = pq.read_table(summary.path / "rejects.parquet").to_pylist()
    assert {row["hdf5_row"]: row["reason"] for row in rejects} == {
        1: "NOT_FINITE",
        2: "NOT_CENTRED",
        4: "NOISE_DOMINATED",
        5: "NOISE_DOMINATED",
    }
    assert summary.n_accepted == 2


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        (0.06, "src_pixscale_arcsec is wrong"),
        (0.015, "src_pixscale_arcsec is wrong"),
        (0.262, "blocky"),
        (-0.03, "must be positive"),
    ],
)
def test_wrong_pixel_scale_is_caught(tmp_path: Path, limits: ImportLimits, scale: float, says: str) -> None:
    file = write_h5(tmp_path / "bank.h5", galaxies(5), src_pixscale_arcsec=scale)
    with pytest.raises(BankError, match=says):
        run(file, tmp_path / "bank", limits)
    assert not (tmp_path / "bank" / "bank.json").exists()


def test_missing_dataset_and_file(tmp_path: Path, limits: ImportLimits) -> None:
    file = write_h5(tmp_path / "bank.h5", galaxies(2))
    with h5py.File(file, "a") as h5:
        del h5["meta/hlr_arcsec"]
    with pytest.raises(BankError, match="no /meta/hlr_arcsec"):
        run(file, tmp_path / "bank", limits)
    with pytest.raises(BankError, match="no HDF5 bank"):
        run(tmp_path / "nowhere.h5", tmp_path / "bank", limits)
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(BankError, match="not a readable HDF5"):
        run(tmp_path / "text.h5", tmp_path / "bank", limits)
