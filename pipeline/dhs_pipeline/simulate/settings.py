"""Settings of the embedded demo input. Values and their sources are in conf/simulation/default.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from dhs_pipeline.config import load_section
from dhs_pipeline.config.base import Band, Fraction, Model, NonNegative, Positive, Range

Count = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(gt=0)]
PerBand = dict[Band, Positive]

ALL_BANDS: tuple[Band, ...] = ("g", "r", "z")


class LogNormal(Model):
    median: Positive
    scatter_dex: NonNegative


class Color(Model):
    """Normal distribution of a colour, AB mag."""

    mean: float
    scatter: NonNegative


class BrickSettings(Model):
    name: str
    brickid: PositiveInt
    ra_deg: Annotated[float, Field(ge=0, lt=360)]
    dec_deg: Annotated[float, Field(gt=-90, lt=90)]
    ebv_mag: NonNegative
    psfsize_arcsec: PerBand
    uncovered_band: Band

    @model_validator(mode="after")
    def _named_after_its_centre(self) -> BrickSettings:
        if self.name != (expected := brick_name(self.ra_deg, self.dec_deg)):
            raise ValueError(f"brick {self.name} at ({self.ra_deg}, {self.dec_deg}) must be called {expected}")
        return self


class PsfSettings(Model):
    moffat_beta: dict[Band, Annotated[float, Field(gt=1.5, le=10)]]
    psfsize_variation: Annotated[float, Field(ge=0, lt=0.3)]
    solve_kernel_px: Annotated[int, Field(ge=31)]
    wing_cut_sigma: Positive


class NoiseSettings(Model):
    n_exposures: dict[Band, PositiveInt]
    sky_sigma_nmgy: PerBand
    electrons_per_nmgy_per_exposure: PerBand
    correlation_lags: tuple[float, ...]
    ccd_gap_px: tuple[PositiveInt, PositiveInt]


class HostSettings(Model):
    per_brick: PositiveInt
    on_bright_star: Count
    on_uncovered_strip: Count
    edge_margin_px: Count
    min_separation_px: NonNegative
    mag_r: Range
    mag_r_slope: Positive
    color_mag_r: tuple[float, ...]
    color_g_minus_r_mag: tuple[float, ...]
    color_r_minus_z_mag: tuple[float, ...]
    color_scatter_mag: NonNegative
    z_phot: Range
    z_phot_scatter: NonNegative
    sigma_v_km_s: LogNormal
    shape_r_arcsec: LogNormal
    sersic_n_of_ser: tuple[Annotated[float, Field(ge=0.5, le=6)], ...]
    fraction_ser: Fraction
    ellipticity_sigma: NonNegative


class NeighbourSettings(Model):
    mean_per_host: NonNegative
    distance_arcsec: Range
    mag_below_host: Range
    fraction_red: Fraction


class FieldSettings(Model):
    galaxies_per_arcmin2: NonNegative
    stars_per_arcmin2: NonNegative
    galaxy_mag_r: Range
    galaxy_mag_slope: Positive
    star_mag_r: Range
    star_mag_slope: Positive
    color_g_minus_r_mag: Color
    color_r_minus_z_mag: Color
    shape_r_arcsec_at_mag24: Positive
    shape_r_dex_per_mag: float
    shape_r_scatter_dex: NonNegative
    ellipticity_sigma: NonNegative


class BrightStarSettings(Model):
    mag_r: tuple[float, ...]
    color_g_minus_r_mag: float
    color_r_minus_z_mag: float
    saturation_nmgy_per_px: Positive
    bleed_width_px: PositiveInt
    saturation_grow_px: Count
    mask_radius_arcsec: Positive
    mask_radius_base: Positive


class SimulationSettings(Model):
    """Everything `simulate_survey` needs; conf/simulation/default.yaml holds the values."""

    seed: int
    release: int
    pixscale_arcsec: Positive
    brick_size_px: Annotated[int, Field(ge=200)]
    nprimary_border_px: Count
    bricks: tuple[BrickSettings, ...]
    extinction_per_ebv: PerBand
    psf: PsfSettings
    noise: NoiseSettings
    hosts: HostSettings
    neighbours: NeighbourSettings
    field: FieldSettings
    bright_stars: BrightStarSettings
    uncovered_strip_px: Count

    @model_validator(mode="after")
    def _every_band(self) -> SimulationSettings:
        per_band: dict[str, Mapping[Band, float]] = {
            "extinction_per_ebv": self.extinction_per_ebv,
            "psf.moffat_beta": self.psf.moffat_beta,
            "noise.n_exposures": self.noise.n_exposures,
            "noise.sky_sigma_nmgy": self.noise.sky_sigma_nmgy,
            "noise.electrons_per_nmgy_per_exposure": self.noise.electrons_per_nmgy_per_exposure,
            **{f"bricks.{brick.name}.psfsize_arcsec": brick.psfsize_arcsec for brick in self.bricks},
        }
        for name, values in per_band.items():
            if missing := set(ALL_BANDS) - set(values):
                raise ValueError(f"{name} has no value for band(s) {sorted(missing)}")
        return self


def brick_name(ra_deg: float, dec_deg: float) -> str:
    """DR10 brick name ``<AAAa>c<BBB>``: int(RA*10), p or m, int(\\|Dec\\|*10)."""
    return f"{int(ra_deg * 10):04d}{'p' if dec_deg >= 0 else 'm'}{int(abs(dec_deg) * 10):03d}"


def load_simulation_settings(path: Path | None = None) -> SimulationSettings:
    """Settings from ``path``, or from conf/simulation/default.yaml. Raises ConfigError on unknown or missing keys."""
    return load_section(SimulationSettings, "simulation", "default" if path is None else str(path))
