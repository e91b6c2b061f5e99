"""Uber: a mixture of sources and artifact profiles, assigned per task."""

from __future__ import annotations

from dhs_gen.uber.distribution import validate_manifest_distribution
from dhs_gen.uber.manifests import add_modes_to_manifest_pyarrow
from dhs_gen.uber.mixture import DEFAULT_UBER, MIXTURES, MixerConfig, Mixture, assign_modes, assign_modes_many

__all__ = [
    "DEFAULT_UBER",
    "MIXTURES",
    "MixerConfig",
    "Mixture",
    "add_modes_to_manifest_pyarrow",
    "assign_modes",
    "assign_modes_many",
    "validate_manifest_distribution",
]
