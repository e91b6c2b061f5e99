"""Does a mixed manifest hold what its mixture promises?"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dhs_gen.uber.manifests import MODE_COLUMNS, READ_BUFFER_BYTES, ROW_GROUP_ROWS, mixture_of, parquet_files
from dhs_gen.uber.mixture import MixerConfig


def validate_manifest_distribution(path: str | os.PathLike[str], cfg: MixerConfig | None = None) -> dict[str, Any]:
    """Observed against expected fractions of sources and artifact profiles.

    A p-value is the chance that a fair draw of so many rows strays so far from the expected fractions (χ² test);
    values under 1e-3 or so in a large manifest mean that rows were lost or modes changed by hand.

    Parameters
    ----------
    path
        A Parquet file, or a folder of them.
    cfg
        The expected mixture; by default the one that the manifest's metadata records. Without either, fractions are
        counted and the expected ones and the p-values are None.

    Returns
    -------
    dict
        ``rows``; ``gen_variant``: rows per value; ``source_mode`` and ``artifact_profile``: for each value ``count``,
        ``observed`` and ``expected`` fractions; ``p_value``: of ``source_mode``, of ``artifact_profile``, and of both
        jointly (``joint``), which also finds sources and artifacts that are not independent.

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``path``.
    ValueError
        If a column of the mixture is missing or null in a row, or files of one folder record different mixtures.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    recorded: set[MixerConfig | None] = set()
    counts: Counter[tuple[str, ...]] = Counter()
    for file in parquet_files(Path(path)):
        with pq.ParquetFile(file, buffer_size=READ_BUFFER_BYTES, pre_buffer=False) as manifest:
            if missing := set(MODE_COLUMNS) - set(manifest.schema_arrow.names):
                raise ValueError(f"{file}: the manifest is not mixed; it has no column {', '.join(sorted(missing))}")
            recorded.add(mixture_of(manifest.schema_arrow))
            for batch in manifest.iter_batches(batch_size=ROW_GROUP_ROWS, columns=list(MODE_COLUMNS)):
                for name in MODE_COLUMNS:
                    if nulls := batch.column(batch.schema.get_field_index(name)).null_count:
                        raise ValueError(f"{file}: column {name} is null in {nulls} rows")
                groups = pa.Table.from_batches([batch]).group_by(list(MODE_COLUMNS)).aggregate([([], "count_all")])
                for group in groups.to_pylist():
                    counts[tuple(group[name] for name in MODE_COLUMNS)] += group["count_all"]
    if cfg is None:
        if len(recorded) > 1:
            raise ValueError(
                f"{path}: files record {len(recorded)} different mixtures; give cfg to say which to expect"
            )
        cfg = recorded.pop()
    by_column = [_marginal(counts, (position,)) for position in range(len(MODE_COLUMNS))]
    expected = _expected(cfg)
    return {
        "rows": sum(counts.values()),
        "gen_variant": {key: n for (key,), n in sorted(by_column[2].items())},
        "source_mode": _fractions(by_column[0], expected["source_mode"]),
        "artifact_profile": _fractions(by_column[1], expected["artifact_profile"]),
        "p_value": {
            "source_mode": _p_value(by_column[0], expected["source_mode"]),
            "artifact_profile": _p_value(by_column[1], expected["artifact_profile"]),
            "joint": _p_value(_marginal(counts, (0, 1)), expected["joint"]),
        },
    }


Probabilities = Mapping[tuple[str, ...], float]


def _marginal(counts: Mapping[tuple[str, ...], int], positions: Sequence[int]) -> Counter[tuple[str, ...]]:
    summed: Counter[tuple[str, ...]] = Counter()
    for key, n in counts.items():
        summed[tuple(key[p] for p in positions)] += n
    return summed


def _expected(cfg: MixerConfig | None) -> dict[str, Probabilities | None]:
    if cfg is None:
        return {"source_mode": None, "artifact_profile": None, "joint": None}
    sources = dict(zip(cfg.source_modes, cfg.source_probs, strict=True))
    profiles = dict(zip(cfg.artifact_profiles, cfg.artifact_probs, strict=True))
    return {
        "source_mode": {(s,): p for s, p in sources.items()},
        "artifact_profile": {(a,): p for a, p in profiles.items()},
        "joint": {(s, a): p * w for s, p in sources.items() for a, w in profiles.items()},
    }


def _fractions(counts: Mapping[tuple[str, ...], int], expected: Probabilities | None) -> dict[str, dict[str, Any]]:
    rows = sum(counts.values())
    keys = sorted(set(counts) | set(expected or {}))
    return {
        key[0]: {
            "count": counts.get(key, 0),
            "observed": counts.get(key, 0) / rows if rows else None,
            "expected": None if expected is None else expected.get(key, 0.0),
        }
        for key in keys
    }


def _p_value(counts: Mapping[tuple[str, ...], int], expected: Probabilities | None) -> float | None:
    """χ² against the expected probabilities; 0 if there is a value of probability 0, 1 if there is only one."""
    rows = sum(counts.values())
    if expected is None or rows == 0:
        return None
    possible = [key for key, p in expected.items() if p > 0]
    if not set(counts) <= set(possible):
        return 0.0
    if len(possible) == 1:
        return 1.0
    probabilities = np.array([expected[key] for key in possible])
    from scipy import stats  # not needed where stamps are made

    observed = np.array([counts.get(key, 0) for key in possible])
    return float(stats.chisquare(observed, rows * probabilities / probabilities.sum()).pvalue)
