"""The stated noise of a template against GalSim's noise correlation at the target PSF, and against closed forms."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from cosmos_cases import PIXSCALE_ARCSEC, BuiltBank, galsim

from dhs_gen.cosmos_sources import BankSettings, open_bank
from dhs_gen.cosmos_sources.noise_levels import NOISE_COLUMNS, noise_levels, summarise_noise


def meta(built: BuiltBank) -> list[dict[str, Any]]:
    return pq.read_table(built.summary.path / "meta.parquet").to_pylist()


@pytest.mark.parametrize("ident", ["101", "103", "302"])
def test_flux_noise_is_that_of_galsims_correlation_summed_over_the_aperture(
    built: BuiltBank, settings: BankSettings, ident: str
) -> None:
    """Σ over pairs of pixels of a disc as large as the weights; the builder knows only c and Σw²."""
    row = next(r for r in meta(built) if r["template_id"] == ident)
    real = galsim.RealGalaxyCatalog("real_galaxy_catalog.fits", dir=str(built.catalog_dir))
    target = galsim.Gaussian(fwhm=settings.target_psf_fwhm_arcsec)
    noise = galsim.Convolve(galsim.RealGalaxy(real, index=row["catalogue_row"]), target).noise
    side = 257
    correlation = galsim.Image(side, side, scale=PIXSCALE_ARCSEC, dtype=float)
    noise.drawImage(correlation)
    y, x = np.indices((side, side)) - side // 2
    disc = (np.hypot(x, y) <= math.sqrt(row["weight_area_px"] / math.pi)).astype(float)
    pairs = np.fft.fftshift(np.fft.ifft2(np.abs(np.fft.fft2(disc)) ** 2).real)
    expected = math.sqrt(float((pairs * correlation.array).sum())) / (row["flux_ratio"] * row["catalogue_flux"])
    assert row["noise_flux_fraction"] == pytest.approx(expected, rel=0.12)  # the rms of the sky is good to ~10 %


def test_columns_follow_from_the_stored_template(built: BuiltBank) -> None:
    bank = open_bank(built.summary.path)
    for row, image in zip(meta(built), bank.images.astype(float), strict=True):
        flux = row["flux_ratio"] * row["catalogue_flux"]
        assert row["negative_flux_fraction"] == pytest.approx(-image[image < 0].sum(), rel=1e-4)
        noise = row["sky_rms"] ** 2 * row["weight_area_px"]
        assert row["noise_power_fraction"] == pytest.approx(noise / ((image * flux) ** 2).sum(), rel=1e-4)
        support = int((image != 0).sum())
        assert row["seg_area_px"] < row["weight_area_px"] < support


def test_bank_json_says_what_was_done_and_how_much_is_left(built: BuiltBank) -> None:
    stated = json.loads((built.summary.path / "bank.json").read_text())["noise"]
    assert stated["treatment"] == "left in, not whitened"
    assert list(stated["native_correlation_px"].values()) == [pytest.approx(6.04, abs=0.01)]
    for name in NOISE_COLUMNS:
        values = [r[name] for r in meta(built)]
        assert stated["templates"][name] == {
            "median": pytest.approx(np.median(values)),
            "percentile_90": pytest.approx(np.percentile(values, 90)),
        }


def test_closed_forms() -> None:
    pixels = np.array([[4.0, -1.0], [3.0, 2.0]])
    numbers = {"weight_area_px": 4.0, "sky_rms": 0.5, "native_sky_rms": 0.25}
    assert noise_levels(pixels, numbers, 9.0) == {
        "noise_flux_fraction": pytest.approx(0.25 * 6.0 / 8.0),
        "noise_power_fraction": pytest.approx(0.25 * 4.0 / 30.0),
        "negative_flux_fraction": pytest.approx(1.0 / 8.0),
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pixels": np.ones(3)}, r"pixels must have shape .*\(3,\)"),
        ({"pixels": -np.ones((2, 2))}, "pixels must have a positive, finite sum, got -4.0"),
        ({"pixels": np.full((2, 2), np.nan)}, "pixels must have a positive, finite sum, got nan"),
        ({"sky_rms": 0.0}, "sky_rms must be positive and finite, got 0.0"),
        ({"native_sky_rms": -1.0}, "native_sky_rms must be positive and finite, got -1.0"),
        ({"weight_area_px": math.inf}, "weight_area_px must be positive and finite, got inf"),
        ({"c": math.nan}, "noise_correlation_pixels must be positive and finite, got nan"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], says: str) -> None:
    numbers = {"pixels": np.ones((2, 2)), "weight_area_px": 4.0, "sky_rms": 0.5, "native_sky_rms": 0.25, "c": 6.0}
    numbers |= change
    with pytest.raises(ValueError, match=says):
        noise_levels(numbers["pixels"], numbers, numbers["c"])
    with pytest.raises(ValueError, match="rows must hold at least one template"):
        summarise_noise([])
