"""Configuration: YAML in conf/, checked at the door.

A run file (conf/run/*.yaml) names one file per section (``design: sota`` is conf/design/sota.yaml) or spells the
section out. Unknown keys, missing keys and values out of range are errors that say the file, the key, what was
found and what is allowed. Nothing here has a default: defaults live in conf/, once.
"""

from __future__ import annotations

from dhs_pipeline.config.base import ConfigError
from dhs_pipeline.config.distributions import (
    Axis,
    Distribution,
    Lognormal,
    Normal,
    PowerLawCounts,
    Rayleigh,
    SigmaV,
    SizeOfMagnitude,
    Smail,
    Uniform,
)
from dhs_pipeline.config.files import conf_root, config_hash, load_section, load_yaml
from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.config.generations import (
    FROM_ROW,
    ArtifactProfile,
    CosmosSource,
    DeepSource,
    Generation,
    HybridSource,
    Mixture,
    MixtureSource,
    load_generation,
)
from dhs_pipeline.config.lenses import Cosmology, GridDesign, HaltonDesign, Mass, PopulationDesign, Priors, Subhalos
from dhs_pipeline.config.pairing import MatchedHost, Negatives, Pairing, SameHost
from dhs_pipeline.config.run import Compact, ManifestSettings, RunConfig, SplitFractions, StampSettings, load_run_config
from dhs_pipeline.config.storage import StorageSettings
from dhs_pipeline.config.survey import HostCuts, ParentColumns, RedshiftColumn, Rendering, Survey

__all__ = [
    "FROM_ROW",
    "ArtifactProfile",
    "Axis",
    "Compact",
    "ConfigError",
    "Cosmology",
    "CosmosSource",
    "DeepSource",
    "Distribution",
    "GatesConfig",
    "Generation",
    "GridDesign",
    "HaltonDesign",
    "HostCuts",
    "HybridSource",
    "Lognormal",
    "ManifestSettings",
    "Mass",
    "MatchedHost",
    "Mixture",
    "MixtureSource",
    "Negatives",
    "Normal",
    "Pairing",
    "ParentColumns",
    "PopulationDesign",
    "PowerLawCounts",
    "Priors",
    "Rayleigh",
    "RedshiftColumn",
    "Rendering",
    "RunConfig",
    "SameHost",
    "SigmaV",
    "SizeOfMagnitude",
    "Smail",
    "SplitFractions",
    "StampSettings",
    "StorageSettings",
    "Subhalos",
    "Survey",
    "Uniform",
    "conf_root",
    "config_hash",
    "load_generation",
    "load_run_config",
    "load_section",
    "load_yaml",
]
