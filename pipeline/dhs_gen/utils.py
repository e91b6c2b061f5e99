"""The public helper functions of ``dhs_gen`` under the names that existing notebooks import."""

from __future__ import annotations

from dhs_gen.streams import blake2b_u64, categorical_from_hash, stream
from dhs_gen.units import from_surface_brightness, to_surface_brightness

__all__ = ["blake2b_u64", "categorical_from_hash", "from_surface_brightness", "stream", "to_surface_brightness"]
