"""Gen8: survey artifacts for robustness, on single images and on the pipeline's stamps."""

from __future__ import annotations

from dhs_gen.domain_randomization.artifacts import apply_domain_randomization
from dhs_gen.domain_randomization.config import ArtifactConfig
from dhs_gen.domain_randomization.stamp import ArtifactRecord

__all__ = ["ArtifactConfig", "ArtifactRecord", "apply_domain_randomization"]
