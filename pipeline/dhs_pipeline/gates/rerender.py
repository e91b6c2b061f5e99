"""Stamps of a set made again from its run, with one thing changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Rerenderer(Protocol):
    """Renders positives and controls of a run by pair_id; all images (n, bands, H, W) float32, nanomaggy/pix."""

    def positives(
        self, pair_ids: Sequence[str], *, flux_factor: float = 1.0, psf_factor: float = 1.0
    ) -> NDArray[np.float32]:
        """The positives with the arc's flux, or the width of the arc's PSF, multiplied."""

    def arcs(
        self, pair_ids: Sequence[str], *, flux_factor: float = 1.0, psf_factor: float = 1.0
    ) -> NDArray[np.float32]:
        """The noise-free arcs of the same."""

    def controls(self, pair_ids: Sequence[str], *, artifacts: str | None = None) -> NDArray[np.float32]:
        """The host without an arc; ``artifacts`` names another artifact profile than the set's own."""

    def negatives(self, pair_ids: Sequence[str], kind: str, *, flux_factor: float = 1.0) -> NDArray[np.float32]:
        """Hard negatives of one kind, whatever kind the set dealt to the pair."""
