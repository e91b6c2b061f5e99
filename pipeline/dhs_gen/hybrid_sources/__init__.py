"""Gen7: procedural source templates."""

from __future__ import annotations

from dhs_gen.hybrid_sources.sersic import sersic_image
from dhs_gen.hybrid_sources.sersic_clumps import (
    ClumpSettings,
    colour_channels,
    generate_hybrid_source,
    generate_hybrid_source_bands,
    hybrid_template,
)

__all__ = [
    "ClumpSettings",
    "colour_channels",
    "generate_hybrid_source",
    "generate_hybrid_source_bands",
    "hybrid_template",
    "sersic_image",
]
