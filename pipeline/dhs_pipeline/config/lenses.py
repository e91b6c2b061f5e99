"""Which lenses and sources a host receives: designs, priors, mass models, cosmology."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dhs_gen.lensing import cosmology
from dhs_gen.lensing.subhalos import SubhaloPopulation
from dhs_pipeline.config.base import Fraction, Model, NonNegative, Positive
from dhs_pipeline.config.distributions import Axis, Distribution, PowerLawCounts, SigmaV, SizeOfMagnitude, Smail


class Cosmology(Model):
    """Flat ΛCDM (conf/cosmology)."""

    name: str
    h0_km_s_mpc: Positive
    om0: Annotated[float, Field(gt=0, lt=1)]

    def kernel(self) -> cosmology.Cosmology:
        """As the kernels take it."""
        return cosmology.Cosmology(self.h0_km_s_mpc, self.om0)


class Priors(Model):
    """What 4a draws for every task beside the design (conf/priors)."""

    name: str
    source_offset_max_theta_e: Positive
    lens_e: Distribution
    src_n_sersic: Distribution
    src_gr: Distribution
    src_rz: Distribution
    src_z: Smail
    src_z_min_above_lens: NonNegative


class Subhalos(Model):
    """A population of subhalos (conf/subhalos); the fields are those of ``SubhaloPopulation``."""

    name: str
    f_sub: Fraction
    mass_low_msun: Positive
    mass_high_msun: Positive
    mass_slope: float
    radius_theta_e: Positive
    concentration_at_pivot: Positive
    concentration_pivot_msun_h: Positive
    concentration_mass_power: float
    concentration_z_power: float
    concentration_scatter_dex: NonNegative
    trunc_kpc_at_1e7: Positive
    host_distance_kpc: Positive

    def kernel(self) -> SubhaloPopulation:
        """As the kernels take it; ValueError where a value cannot be."""
        return SubhaloPopulation(**self.model_dump(exclude={"name"}))

    @model_validator(mode="after")
    def _usable(self) -> Subhalos:
        self.kernel()
        return self


class Mass(Model):
    """Mass model of the lenses and what is drawn for it (conf/mass)."""

    name: str
    model: Literal["SIE", "EPL"]
    gamma: Distribution | None
    a3_frac: Distribution | None
    a4_frac: Distribution | None
    subhalos: Subhalos | None

    @model_validator(mode="after")
    def _slope_iff_epl(self) -> Mass:
        if (self.model == "EPL") != (self.gamma is not None):
            raise ValueError("gamma is drawn for model EPL and is null for SIE, whose slope is 2")
        return self


class GridDesign(Model):
    """Every combination of the listed values (conf/design, kind grid)."""

    name: str
    kind: Literal["grid"]
    theta_e_arcsec: tuple[Positive, ...]
    src_dmag: tuple[float, ...]
    src_reff_arcsec: tuple[Positive, ...]
    src_e: tuple[Annotated[float, Field(ge=0, lt=1)], ...]
    shear: tuple[Annotated[float, Field(ge=0, lt=0.5)], ...]


class DesignAxes(Model):
    """Axes of a continuous design; the source's brightness is absolute (src_mag_r) or relative to the host's."""

    theta_e_arcsec: Axis
    src_dmag: Axis | None = None
    src_mag_r: Axis | None = None
    src_reff_arcsec: Axis
    src_e: Axis
    shear: Axis

    @model_validator(mode="after")
    def _one_brightness(self) -> DesignAxes:
        if (self.src_dmag is None) == (self.src_mag_r is None):
            raise ValueError("give one of src_dmag and src_mag_r")
        return self

    def named(self) -> dict[str, Axis]:
        """The axes that are there, by column."""
        return {name: axis for name in type(self).model_fields if (axis := getattr(self, name)) is not None}


class HaltonDesign(Model):
    """A randomly shifted Halton segment per host over continuous ranges (conf/design, kind halton)."""

    name: str
    kind: Literal["halton"]
    points_per_host: Annotated[int, Field(ge=1)]
    axes: DesignAxes


class PopulationDesign(Model):
    """Lenses and sources as nature draws them: θ_E follows from σ_v, z_l and z_s (conf/design, kind population)."""

    name: str
    kind: Literal["population"]
    points_per_host: Annotated[int, Field(ge=1)]
    sigma_v: SigmaV
    src_mag_r: PowerLawCounts
    src_reff: SizeOfMagnitude
    src_e: Distribution
    shear: Distribution

    @property
    def needs_sigma_v(self) -> bool:
        """Whether a host without a velocity dispersion has no lens in this design."""
        return self.sigma_v.source == "catalogue"


Design = Annotated[GridDesign | HaltonDesign | PopulationDesign, Field(discriminator="kind")]
