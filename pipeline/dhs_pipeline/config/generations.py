"""What a generation renders: sources, artifacts, and their mixture."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dhs_gen.domain_randomization import ArtifactConfig
from dhs_gen.uber.mixer import MixerConfig
from dhs_pipeline.config.base import ConfigError, Fraction, Model, NonNegative, Positive
from dhs_pipeline.config.files import load_section
from dhs_pipeline.config.pairing import MatchedHost, Pairing

SourceMode = Literal["cosmos", "deep", "hybrid"]


class HybridSource(Model):
    """Sersic profile with clumps, made per task (Gen7)."""

    mode: Literal["hybrid"]
    re_pix: Annotated[float, Field(ge=2)]
    half_size_re: Annotated[float, Field(ge=2)]
    n_clumps: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
    clump_sigma_re: tuple[Positive, Positive]
    clump_flux_fraction: tuple[Fraction, Fraction]
    gradient_mag_per_dex: Annotated[float, Field(ge=-2, le=2)]

    @model_validator(mode="after")
    def _ordered(self) -> HybridSource:
        for name in ("n_clumps", "clump_sigma_re", "clump_flux_fraction"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be a range low <= high, got {low}, {high}")
        if self.clump_flux_fraction[1] == 1:
            raise ValueError(f"clump_flux_fraction must stay below 1, got {self.clump_flux_fraction}")
        return self


class CosmosSource(Model):
    """A template of the COSMOS bank (Gen5)."""

    mode: Literal["cosmos"]
    pixscale_arcsec: Positive


class DeepSource(Model):
    """A template of a bank of deep ground-based cutouts (Gen6)."""

    mode: Literal["deep"]
    max_psf_fwhm_arcsec: Positive


OneSource = Annotated[HybridSource | CosmosSource | DeepSource, Field(discriminator="mode")]


class MixtureSource(Model):
    """One of several kinds of source; the row's ``source_mode`` says which (Uber)."""

    mode: Literal["mixture"]
    sources: dict[SourceMode, OneSource]

    @model_validator(mode="after")
    def _under_their_own_names(self) -> MixtureSource:
        for name, source in self.sources.items():
            if source.mode != name:
                raise ValueError(f"sources.{name} is a {source.mode} source")
        return self


Source = Annotated[HybridSource | CosmosSource | DeepSource | MixtureSource, Field(discriminator="mode")]


FROM_ROW = "row"
"""An artifact profile that each manifest row names for itself."""


class ArtifactProfile(Model):
    """How often and how strongly artifacts appear (conf/artifacts); the fields are those of ``ArtifactConfig``."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    enable_psf_anisotropy: bool
    psf_e_sigma: Annotated[float, Field(ge=0, le=0.3)]
    enable_bg_plane: bool
    bg_plane_amp: NonNegative
    enable_cosmic_rays: bool
    cosmic_rate: Fraction
    cosmic_amp: NonNegative
    cosmic_length_pix: tuple[Positive, Positive]
    cosmic_worm_fraction: Fraction
    cosmic_spot_fraction: Fraction
    enable_sat_wings: bool
    sat_rate: Fraction
    sat_amp: NonNegative
    sat_r0_pix: Positive
    sat_trail_pix: tuple[Positive, Positive]
    sat_bleed_angle_deg: float
    sat_spike_fraction: NonNegative
    sat_spike_angle_deg: float
    sat_clear_radius_pix: NonNegative
    sat_other_band_ratio: tuple[Positive, Positive]
    enable_astrom_jitter: bool
    jitter_sigma_pix: NonNegative

    @model_validator(mode="after")
    def _usable(self) -> ArtifactProfile:
        self.strengths()
        return self

    def strengths(self) -> ArtifactConfig | None:
        """What ``inject`` takes: None where every artifact is switched off."""
        config = ArtifactConfig(**self.model_dump(exclude={"name"}))
        return config if config.any_enabled else None


class Generation(Model):
    """What 4c renders (conf/generations): rendered arcs, no arc, or a source of zero flux.

    ``artifact_profile`` is the name of a file of conf/artifacts, or "row" where the manifest row says it; ``pairing``
    a file of conf/pairing, or null where each task gives one row.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    arc: Literal["rendered", "none", "zero_flux"]
    source: Source | None
    artifact_profile: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    pairing: Pairing | None

    @model_validator(mode="after")
    def _source_iff_arc(self) -> Generation:
        if (self.arc == "none") != (self.source is None):
            raise ValueError("a generation has a source unless its arc is none")
        if self.pairing is not None and self.arc != "rendered":
            raise ValueError(f"pairing is for generations with arcs, and the arc of {self.name} is {self.arc}")
        return self

    def with_artifacts(self, profile: str) -> Generation:
        """The same generation under another artifact profile, and under a name that says so."""
        tree = self.model_dump(mode="json") | {"name": f"{self.name}_{profile}", "artifact_profile": profile}
        return Generation.model_validate(tree)

    def with_pairing(self, pairing: str) -> Generation:
        """The same generation with the pairing of conf/pairing/<pairing>.yaml, and under a name that says so.

        Raises
        ------
        ConfigError
            If there is no such pairing, or the generation has no arcs to pair.
        """
        if self.arc != "rendered":
            raise ConfigError(f"pairing {pairing}: generation {self.name} has no arcs (arc {self.arc}) to pair")
        chosen = load_section(Pairing, "pairing", pairing).model_dump(mode="json")
        tree = self.model_dump(mode="json") | {"name": f"{self.name}_{chosen['name']}", "pairing": chosen}
        return Generation.model_validate(tree)

    @property
    def matches_hosts(self) -> bool:
        """Whether controls are put on other hosts."""
        return self.pairing is not None and isinstance(self.pairing.control, MatchedHost)

    @property
    def sources(self) -> tuple[HybridSource | CosmosSource | DeepSource, ...]:
        """The kinds of source it may need: none, one, or those of a mixture."""
        if self.source is None:
            return ()
        if isinstance(self.source, MixtureSource):
            return tuple(self.source.sources.values())
        return (self.source,)


class Mixture(Model):
    """Which kind of source and which artifact profile a task gets in the Uber generation (conf/mixtures)."""

    name: str
    gen_variant: str
    source_modes: tuple[SourceMode, ...]
    source_probs: tuple[Fraction, ...]
    artifact_profiles: tuple[str, ...]
    artifact_probs: tuple[Fraction, ...]
    salt: str

    def mixer(self) -> MixerConfig:
        """As the kernel takes it; ValueError where the probabilities are none."""
        return MixerConfig(
            source_modes=list(self.source_modes),
            source_probs=list(self.source_probs),
            artifact_profiles=list(self.artifact_profiles),
            artifact_probs=list(self.artifact_probs),
            salt=self.salt,
        )

    @model_validator(mode="after")
    def _valid(self) -> Mixture:
        self.mixer()
        return self


def load_generation(name: str) -> Generation:
    """conf/generations/<name>.yaml, with the sources that it takes from other generations."""
    return load_section(Generation, "generations", name)
