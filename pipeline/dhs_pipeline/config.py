"""Configuration: YAML in conf/, checked at the door.

A run file (conf/run/*.yaml) names one file per section (``design: sota`` is conf/design/sota.yaml) or spells the
section out. Unknown keys, missing keys and values out of range are errors that say the file, the key, what was
found and what is allowed. Nothing here has a default: defaults live in conf/, once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dhs_gen.status import RedshiftSource
from dhs_pipeline.schemas import BANDS, SPLITS

if TYPE_CHECKING:
    from dhs_gen.domain_randomization import ArtifactConfig


class ConfigError(ValueError):
    """Configuration that cannot be used; the message is one line for the user."""


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Band = Literal["g", "r", "z"]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


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


Range = tuple[float, float]


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


class GridDesign(Model):
    """Every combination of the listed values (conf/design, kind grid)."""

    name: str
    kind: Literal["grid"]
    theta_e_arcsec: tuple[Positive, ...]
    src_dmag: tuple[float, ...]
    src_reff_arcsec: tuple[Positive, ...]
    src_e: tuple[Annotated[float, Field(ge=0, lt=1)], ...]
    shear: tuple[Annotated[float, Field(ge=0, lt=0.5)], ...]


class Axis(Model):
    """A range that is filled evenly, in value or in logarithm."""

    low: float
    high: float
    scale: Literal["linear", "log"]

    @model_validator(mode="after")
    def _ordered(self) -> Axis:
        if self.high <= self.low or (self.scale == "log" and self.low <= 0):
            raise ValueError(f"axis needs low < high, and low > 0 on a log scale; got {self.low}, {self.high}")
        return self


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


Design = Annotated[GridDesign | HaltonDesign, Field(discriminator="kind")]


class Uniform(Model):
    dist: Literal["uniform"]
    low: float
    high: float


class Normal(Model):
    """Normal, truncated to [low, high]."""

    dist: Literal["normal"]
    mean: float
    sigma: Positive
    low: float
    high: float


class Smail(Model):
    """p(z) ∝ z^alpha exp(−(z/z0)^beta), truncated at high (Smail, Ellis & Fitchett 1994)."""

    dist: Literal["smail"]
    z0: Positive
    alpha: Positive
    beta: Positive
    high: Positive


Distribution = Annotated[Uniform | Normal, Field(discriminator="dist")]


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


Source = Annotated[HybridSource | CosmosSource, Field(discriminator="mode")]


class Generation(Model):
    """What 4c renders (conf/generations): rendered arcs, no arc, or a source of zero flux."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    arc: Literal["rendered", "none", "zero_flux"]
    source: Source | None
    artifact_profile: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]

    @model_validator(mode="after")
    def _source_iff_arc(self) -> Generation:
        if (self.arc == "none") != (self.source is None):
            raise ValueError("a generation has a source unless its arc is none")
        return self


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
        from dhs_gen.domain_randomization import (
            ArtifactConfig,
        )  # brings numba, which a command without it need not load

        config = ArtifactConfig(**self.model_dump(exclude={"name"}))
        return config if config.any_enabled else None


class SplitFractions(Model):
    train: Fraction
    val: Fraction
    test: Fraction

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitFractions:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + val + test must be 1, got {total:g}")
        return self

    def as_dict(self) -> dict[str, float]:
        return {split: getattr(self, split) for split in SPLITS}


class Compact(Model):
    """Files and splits of 4p5 (conf/compact)."""

    name: str
    target_file_mb: Positive
    row_group_rows: Annotated[int, Field(ge=1)]
    split_fractions: SplitFractions


class ManifestSettings(Model):
    """How hosts and the design become tasks."""

    tasks_per_host: Annotated[int, Field(ge=1)] | None
    replicates: Annotated[int, Field(ge=1)]
    control_fraction: Annotated[float, Field(ge=0, lt=1)]
    region_nside: Annotated[int, Field(ge=1)]
    split_fractions: SplitFractions
    hosts_per_part: Annotated[int, Field(ge=1)]
    tasks_per_shard: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _nside(self) -> ManifestSettings:
        if self.region_nside & (self.region_nside - 1):
            raise ValueError(f"region_nside must be a power of two, got {self.region_nside}")
        return self


class StampSettings(Model):
    bandset: Annotated[str, Field(pattern=r"^g?r?z?$", min_length=1)]
    layers: tuple[Literal["invvar", "arc", "maskbits"], ...]


class RunConfig(Model):
    """Everything a run needs to know but where its inputs and outputs lie."""

    experiment_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    survey: Survey
    parent: ParentColumns
    hosts: HostCuts
    design: Design
    priors: Priors
    rendering: Rendering
    compact: Compact
    generations: tuple[Generation, ...]
    manifest: ManifestSettings
    stamp: StampSettings

    @model_validator(mode="after")
    def _bands_are_there(self) -> RunConfig:
        if missing := set(self.stamp.bandset) - set(self.survey.bands):
            raise ValueError(f"stamp.bandset asks for {sorted(missing)}, survey.bands has {list(self.survey.bands)}")
        if self.survey.centroid_band not in self.survey.bands:
            raise ValueError(f"survey.centroid_band {self.survey.centroid_band!r} is not in survey.bands")
        return self

    def generation(self, name: str) -> Generation:
        """The generation of that name: one of the run's, else conf/generations/<name>.yaml."""
        for generation in self.generations:
            if generation.name == name:
                return generation
        return load_section(Generation, "generations", name)


# Keys of a run file that are themselves files of conf/<folder>/.
_SECTIONS = ("survey", "parent", "hosts", "design", "priors", "rendering", "compact")

M = TypeVar("M", bound=BaseModel)


def conf_root() -> Path:
    """The conf/ folder: $DHS_CONF if set, else the one in the wheel, else the one of the checkout."""
    if chosen := os.environ.get("DHS_CONF"):
        return Path(chosen)
    packaged = Path(str(files("dhs_pipeline") / "conf"))
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "conf"


def load_run_config(where: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file, fill in the sections it names, apply ``key.sub=value`` overrides, validate.

    Parameters
    ----------
    where
        A name (``demo`` is conf/run/demo.yaml) or a path to a YAML file.
    overrides
        ``section.key=value`` strings; the value is YAML. ``design=medium`` names a file.
    """
    path = _find("run", where)
    tree = _read_yaml(path)
    for override in (o for o in overrides if "." not in o.partition("=")[0]):
        _apply_override(tree, override)
    origins = {}
    for section in _SECTIONS:
        if isinstance(tree.get(section), str):
            origins[section] = _find(section, tree[section])
            tree[section] = _read_yaml(origins[section])
    if isinstance(names := tree.get("generations"), list):
        tree["generations"] = [_read_yaml(_find("generations", n)) if isinstance(n, str) else n for n in names]
    for override in (o for o in overrides if "." in o.partition("=")[0]):
        _apply_override(tree, override)
    return _validate(RunConfig, tree, path, origins)


def load_section(model: type[M], folder: str, where: str) -> M:
    """Read and validate one section file, such as ``load_section(Generation, "generations", "gen7")``."""
    path = _find(folder, where)
    return _validate(model, _read_yaml(path), path)


def load_yaml(folder: str, where: str) -> dict[str, Any]:
    """One section file as plain keys and values, for a package that checks them itself."""
    return _read_yaml(_find(folder, where))


def config_hash(config: BaseModel | Mapping[str, Any]) -> str:
    """SHA-256 over the configuration as sorted JSON."""
    tree = config.model_dump(mode="json") if isinstance(config, BaseModel) else dict(config)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _find(folder: str, where: str) -> Path:
    if where.endswith((".yaml", ".yml")):
        path = Path(where)
        if not path.is_file():
            raise ConfigError(f"{where}: no such configuration file")
        return path
    path = conf_root() / folder / f"{where}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise ConfigError(f"{folder}: nothing is called {where!r}; there are {', '.join(known) or 'none'}")
    return path


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(tree).__name__}")
    return tree


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected key=value, such as manifest.replicates=2")
    *parents, last = key.split(".")
    node: Any = tree
    for depth, name in enumerate(parents):
        child = node.get(name) if isinstance(node, dict) else None
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: there is no section {'.'.join(parents[: depth + 1])!r}")
        node = child
    node[last] = yaml.safe_load(text)


def _validate(model: type[M], tree: dict[str, Any], path: Path, origins: Mapping[str, Path] | None = None) -> M:
    """Validate, and blame the file that a section came from."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        path = (origins or {}).get(str(first["loc"][0]) if first["loc"] else "", path)
        key = ".".join(str(part) for part in first["loc"]) or "(file)"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ConfigError(f"{path}: {key}: {_explain(model, first)}{more}") from error


def _explain(model: type[BaseModel], problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return f"unknown key; allowed: {', '.join(_allowed_keys(model, problem['loc'][:-1]))}"
    if problem["type"] == "missing":
        return "this key is required"
    message = problem["msg"].removeprefix("Value error, ")
    found = problem["input"]
    return message if isinstance(found, dict) else f"{message}, found {found!r}"


def _allowed_keys(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Keys of the section at ``path``; list positions and the tags of unions name no field and are passed over."""
    candidates = [model]
    for step in path:
        fields = [c.model_fields[step] for c in candidates if isinstance(step, str) and step in c.model_fields]
        candidates = [m for field in fields for m in _models_in(field.annotation)] or candidates
    return sorted({key for candidate in candidates for key in candidate.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation such as ``tuple[Generation, ...]`` or ``A | B`` is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
