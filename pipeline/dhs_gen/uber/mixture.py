"""Which source and which artifacts a task gets: fixed by its task_id and the mixture's salt, by nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dhs_gen.streams import categorical_from_hash, categorical_from_hashes, check_probabilities

SOURCE_MODES = ("cosmos", "deep", "hybrid")
"""HST COSMOS galaxies (Gen5), ground-based deep cutouts (Gen6), procedural sources (Gen7)."""
ARTIFACT_PROFILES = ("none", "mild", "strong")
"""Profiles of the domain randomisation (Gen8)."""


@dataclass(frozen=True)
class MixerConfig:
    """Probabilities of sources and artifacts. Both are drawn independently of each other.

    Parameters
    ----------
    source_modes, source_probs
        Some of "cosmos", "deep", "hybrid", each once, and the probability of each.
    artifact_profiles, artifact_probs
        Some of "none", "mild", "strong", each once, and the probability of each.
    salt
        Another salt draws another assignment for the same tasks.

    Raises
    ------
    ValueError
        If a mode is unknown or given twice, a list has another length than its probabilities, or these are not finite
        and non-negative with sum 1 within 1e-6.
    """

    source_modes: Sequence[str]
    source_probs: Sequence[float]
    artifact_profiles: Sequence[str]
    artifact_probs: Sequence[float]
    salt: str = "mix_v1"

    def __post_init__(self) -> None:
        for names, probs, known in (
            ("source_modes", "source_probs", SOURCE_MODES),
            ("artifact_profiles", "artifact_probs", ARTIFACT_PROFILES),
        ):
            chosen = tuple(getattr(self, names))
            if unknown := [name for name in chosen if name not in known]:
                raise ValueError(f"{names} must be some of {', '.join(known)}, got {', '.join(map(repr, unknown))}")
            if double := sorted({name for name in chosen if chosen.count(name) > 1}):
                raise ValueError(f"{names} must name each mode once, got {', '.join(map(repr, double))} twice")
            values = check_probabilities(getattr(self, probs), probs)
            if len(values) != len(chosen):
                raise ValueError(
                    f"{probs} must have one value for each of the {len(chosen)} {names}, got {len(values)}"
                )
            # Lists become tuples, so that a frozen mixture cannot change.
            object.__setattr__(self, names, chosen)
            object.__setattr__(self, probs, tuple(values.tolist()))
        if not isinstance(self.salt, str):
            raise ValueError(f"salt must be a string, got {self.salt!r}")


@dataclass(frozen=True)
class Mixture:
    """A mixture and the name its rows carry in ``gen_variant``."""

    config: MixerConfig
    gen_variant: str


DEFAULT_UBER = MixerConfig(
    source_modes=["cosmos", "deep", "hybrid"],
    source_probs=[0.34, 0.33, 0.33],
    artifact_profiles=["none", "mild", "strong"],
    artifact_probs=[0.15, 0.70, 0.15],
    salt="uber_v1",
)
"""All sources in equal parts, mostly mild artifacts."""


def _only(source_mode: str, artifact_profile: str, salt: str) -> MixerConfig:
    return MixerConfig([source_mode], [1.0], [artifact_profile], [1.0], salt)


MIXTURES = MappingProxyType(
    {
        "uber": Mixture(DEFAULT_UBER, "uber_mix"),
        "gen6": Mixture(_only("deep", "none", "gen6"), "gen6_deep"),
        "gen7": Mixture(_only("hybrid", "none", "gen7"), "gen7_hybrid"),
        "gen8": Mixture(_only("cosmos", "mild", "gen8"), "gen8_domain"),
    }
)
"""The modes of the command line; conf/mixtures holds the same numbers."""


def assign_modes(task_id: str, cfg: MixerConfig) -> dict[str, str]:
    """Source and artifacts of one task.

    Parameters
    ----------
    task_id
        Non-empty.
    cfg
        The mixture.

    Returns
    -------
    dict
        ``source_mode`` and ``artifact_profile``.

    Raises
    ------
    ValueError
        If the task_id is not a non-empty string.
    """
    if not isinstance(task_id, str) or not task_id:
        raise ValueError(f"task_id must be a non-empty string, got {task_id!r}")
    source = categorical_from_hash(task_id, cfg.source_probs, salt=f"{cfg.salt}_src")
    artifact = categorical_from_hash(task_id, cfg.artifact_probs, salt=f"{cfg.salt}_art")
    return {"source_mode": cfg.source_modes[source], "artifact_profile": cfg.artifact_profiles[artifact]}


def assign_modes_many(task_ids: Sequence[str], cfg: MixerConfig) -> dict[str, NDArray[np.object_]]:
    """:func:`assign_modes` of many tasks, several times faster than one by one.

    Parameters
    ----------
    task_ids
        Non-empty strings.
    cfg
        The mixture.

    Returns
    -------
    dict
        ``source_mode`` and ``artifact_profile``: object arrays of strings, in the order of ``task_ids``.

    Raises
    ------
    ValueError
        If a task_id is not a non-empty string.
    """
    source, artifact = assign_categories(task_ids, cfg)
    return {
        "source_mode": np.array(cfg.source_modes, dtype=object)[source],
        "artifact_profile": np.array(cfg.artifact_profiles, dtype=object)[artifact],
    }


def assign_categories(task_ids: Sequence[str], cfg: MixerConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices into ``cfg.source_modes`` and ``cfg.artifact_profiles`` of every task. Raises as assign_modes_many."""
    for position, task_id in enumerate(task_ids):
        if not isinstance(task_id, str) or not task_id:
            raise ValueError(f"task_id must be a non-empty string, got {task_id!r} in row {position}")
    source, artifact = (
        np.zeros(len(task_ids), dtype=np.int64)
        if len(probs) == 1
        else categorical_from_hashes(task_ids, probs, salt=f"{cfg.salt}_{purpose}")
        for probs, purpose in ((cfg.source_probs, "src"), (cfg.artifact_probs, "art"))
    )
    return source, artifact
