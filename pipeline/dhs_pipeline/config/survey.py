"""The survey, the parent catalogue's columns, the cuts on hosts, the renderer's accuracy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dhs_gen.status import RedshiftSource
from dhs_pipeline.config.base import Band, Model, NonNegative, Positive, Range
from dhs_pipeline.schemas import BANDS


class Survey(Model):
    """Pixels, masks, PSF and gain of the survey (conf/survey)."""

    name: str
    bands: tuple[Band, ...]
    pixscale_arcsec: Positive
    map_path: str
    maskbits_path: str
    cutout_size_pix: Annotated[int, Field(ge=33)]
    stamp_size_pix: Annotated[int, Field(ge=16)]
    bad_maskbits: tuple[Annotated[int, Field(ge=0, le=30)], ...]
    extinction_per_ebv: dict[Band, Positive]
    moffat_beta: dict[Band, Annotated[float, Field(gt=1.5, le=10)]]
    psf_kernel_size_pix: Annotated[int, Field(ge=15)]
    electrons_per_nmgy_per_exposure: dict[Band, Positive]
    centroid_band: Band
    centroid_window_sigma_arcsec: Positive
    centroid_max_shift_arcsec: Positive

    @model_validator(mode="after")
    def _consistent(self) -> Survey:
        for name in ("extinction_per_ebv", "moffat_beta", "electrons_per_nmgy_per_exposure"):
            if missing := set(self.bands) - set(getattr(self, name)):
                raise ValueError(f"{name} has no value for band(s) {sorted(missing)}")
        if tuple(b for b in BANDS if b in self.bands) != self.bands:
            raise ValueError(f"bands must be a subset of {BANDS} in that order, got {self.bands}")
        if self.psf_kernel_size_pix % 2 == 0 or self.cutout_size_pix % 2 == 0:
            raise ValueError("psf_kernel_size_pix and cutout_size_pix must be odd")
        if self.cutout_size_pix < self.stamp_size_pix + 2:
            raise ValueError("cutout_size_pix must exceed stamp_size_pix by at least 2, to re-centre the stamp")
        return self

    @property
    def bad_mask(self) -> int:
        """MASKBITS value with every bad bit set."""
        return sum(1 << bit for bit in self.bad_maskbits)


class RedshiftColumn(Model):
    column: str
    source: RedshiftSource


class ParentColumns(Model):
    """Which parent columns hold what (conf/parent)."""

    name: str
    required: dict[str, tuple[str, ...]]
    optional: dict[str, tuple[str, ...]]
    psfdepth_kind: Literal["ivar", "mag"]
    redshift_columns: tuple[RedshiftColumn, ...]
    assign_redshift: Positive | None
    assign_ebv_mag: NonNegative | None


class HostCuts(Model):
    """Which parent rows become hosts (conf/hosts); None switches a cut off."""

    name: str
    types: tuple[str, ...] | None
    mag_r_range: Range | None
    color_rz_min_mag: float | None
    z_l_range: Range
    ebv_max_mag: NonNegative | None
    psfsize_r_max_arcsec: Positive | None
    psfdepth_r_min_mag: float | None


class Rendering(Model):
    """Accuracy of the renderer (conf/rendering)."""

    name: str
    rays_per_resolution: Positive
    min_supersampling: Annotated[int, Field(ge=1)]
    max_supersampling: Annotated[int, Field(ge=1, le=99)]
    moment_order: Annotated[int, Field(ge=0, le=8)]

    @model_validator(mode="after")
    def _odd(self) -> Rendering:
        if self.min_supersampling % 2 == 0 or self.max_supersampling % 2 == 0:
            raise ValueError("supersampling factors must be odd")
        if self.min_supersampling > self.max_supersampling:
            raise ValueError("min_supersampling exceeds max_supersampling")
        return self
