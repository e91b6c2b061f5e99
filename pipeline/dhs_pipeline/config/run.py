"""A run: everything it needs to know but where its inputs and outputs lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dhs_pipeline.config.base import Fraction, Model, Positive
from dhs_pipeline.config.files import apply_override, find, load_section, read_section, read_yaml, validate
from dhs_pipeline.config.generations import ArtifactProfile, Generation, Mixture, load_generation
from dhs_pipeline.config.lenses import Cosmology, Design, Mass, Priors
from dhs_pipeline.config.survey import HostCuts, ParentColumns, Rendering, Survey
from dhs_pipeline.schemas import SPLITS


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
    stamp_compression: Literal["zstd", "lz4", "snappy", "none"]
    split_fractions: SplitFractions


class ManifestSettings(Model):
    """How hosts and the design become tasks."""

    tasks_per_host: Annotated[int, Field(ge=1)] | None
    replicates: Annotated[int, Field(ge=1)]
    control_fraction: Annotated[float, Field(ge=0, lt=1)]
    region_nside: Annotated[int, Field(ge=1)]
    folds: Annotated[int, Field(ge=1, le=1000)]
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
    mass: Mass
    cosmology: Cosmology
    mixture: Mixture
    artifacts: tuple[ArtifactProfile, ...]
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
        return load_generation(name)

    def artifact_profile(self, name: str) -> ArtifactProfile:
        """The artifact profile of that name: one of the run's, else conf/artifacts/<name>.yaml."""
        for profile in self.artifacts:
            if profile.name == name:
                return profile
        return load_section(ArtifactProfile, "artifacts", name)


# Keys of a run file that are themselves files of a folder of conf/, and that folder; then keys that list such files.
_SECTIONS = {
    "survey": "survey",
    "parent": "parent",
    "hosts": "hosts",
    "design": "design",
    "priors": "priors",
    "mass": "mass",
    "cosmology": "cosmology",
    "mixture": "mixtures",
    "rendering": "rendering",
    "compact": "compact",
}


_LISTS = {"generations": "generations", "artifacts": "artifacts"}


def load_run_config(where: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file, fill in the sections it names, apply ``key.sub=value`` overrides, validate.

    Parameters
    ----------
    where
        A name (``demo`` is conf/run/demo.yaml) or a path to a YAML file.
    overrides
        ``section.key=value`` strings; the value is YAML. ``design=medium`` names a file.
    """
    path = find("run", where)
    tree = read_yaml(path)
    for override in (o for o in overrides if "." not in o.partition("=")[0]):
        apply_override(tree, override)
    origins = {}
    for section, folder in _SECTIONS.items():
        if isinstance(tree.get(section), str):
            origins[section] = find(folder, tree[section])
            tree[section] = read_section(folder, tree[section])
    for section, folder in _LISTS.items():
        if isinstance(names := tree.get(section), list):
            tree[section] = [read_section(folder, n) if isinstance(n, str) else n for n in names]
    for override in (o for o in overrides if "." in o.partition("=")[0]):
        apply_override(tree, override)
    return validate(RunConfig, tree, path, origins)
