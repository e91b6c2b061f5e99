"""A Parquet dataset of stamps: every row's labels and ids, and the pixels of a sample, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dhs_gen.validation.files import ParquetPart, batches, find_parquet, open_parquet
from dhs_gen.validation.identities import Duplicates, Leaks, find_duplicates, find_leaks
from dhs_gen.validation.labels import MODE, Labels, mode_of, read_labels
from dhs_gen.validation.sampling import choose_rows
from dhs_gen.validation.stamp_checks import FAULTS, StampTally, check_stamp

__all__ = ["FLUX_RANGE_NMGY", "validate_parquet_stamps"]

FLUX_RANGE_NMGY = (-10.0, 1000.0)
"""Plausible pixels of a DR10 stamp about a galaxy, nanomaggy/pix: a star of magnitude 15 has 1000 in all its pixels,
and -10 is some thousand times the sky noise. Counts or electrons in the place of nanomaggies fall outside."""

_STAMP, _CTRL = "stamp_npz", "ctrl_stamp_npz"
_ID_ROWS, _STAMP_ROWS = 100_000, 64
_IDENTITIES = {
    "host": (("host_id",), ("brickname", "ra", "dec"), ("ra", "dec")),
    "region": (("region_id",),),
    "pair": (("pair_id",),),
    "template": (("source_mode", "template_id"), ("template_id",), ("cosmos_index",)),
}
"""What must not be in two splits, by the first of these sets of columns that a file has (older tables have no host_id).
A template's id is its bank's own: the kind of source goes with it."""
_OPTIONAL = frozenset({"pair"})
"""Not missed in a dataset of which no file has it: older tables have no pairs."""


def validate_parquet_stamps(
    glob: str | Path | Sequence[str | Path],
    max_rows: int = 200_000,
    sample_rows: int = 2000,
    expect_hw: tuple[int, int] = (64, 64),
    expect_bands: int = 3,
    *,
    flux_range_nmgy: tuple[float, float] = FLUX_RANGE_NMGY,
) -> dict[str, Any]:
    """Check a dataset of stamps.

    Labels (status, modes, splits) and ids are read of **all** rows; pixels of ``sample_rows`` rows that are spread over
    the dataset and the same in every run. Rows that failed (cutout_ok = 0; without that column, no stamp) are counted
    and not called bad.

    Parameters
    ----------
    glob
        Glob pattern, file, folder (hive-partitioned or not; names that begin with _ are skipped), or several.
    max_rows
        Rows the sample is drawn from, in blocks of neighbouring rows: it bounds how much of the stamp column is read.
    sample_rows
        Stamps that are decoded.
    expect_hw
        (H, W) of every stamp.
    expect_bands
        Bands of a stamp where the row has no ``bandset``.
    flux_range_nmgy
        Lowest and highest plausible pixel.

    Returns
    -------
    dict
        Ready for JSON. ``clean`` is True if ``findings`` (name → count) is empty; docs/validation.md lists the keys.

    Raises
    ------
    ValueError
        If an argument is out of range, no file matches, or no file has a ``stamp_npz`` column.
    """
    _check_arguments(max_rows, sample_rows, expect_hw, expect_bands, flux_range_nmgy)
    parts = find_parquet(glob)
    damaged: dict[int, str] = {}
    columns = _columns(parts, damaged)
    if columns and not any(_STAMP in names for names in columns.values()):
        raise ValueError(
            f"parquet: no file has a column {_STAMP!r}; the first one has {sorted(next(iter(columns.values())))}"
        )
    damaged |= {i: f"no column {_STAMP!r}" for i, names in columns.items() if _STAMP not in names}
    columns = {i: names for i, names in columns.items() if _STAMP in names}
    labels = Labels()
    for index, names in columns.items():
        with _noted(index, damaged):
            read_labels(parts[index], index, names, labels)
    plan = choose_rows(labels.blocks, max_rows, sample_rows)
    stamps, controls, by_mode = _sample(parts, columns, plan, (expect_hw, expect_bands, flux_range_nmgy), damaged)
    duplicates, leaks, not_checked = _identities(parts, columns, labels.rows, damaged)
    unreadable = [f"{parts[i].path}: {error}" for i, error in sorted(damaged.items())]
    result = {
        "files": len(parts),
        "unreadable_files": unreadable,
        "rows": labels.rows,
        "failed": labels.failed,
        "rows_by_status": dict(sorted(labels.status.items())),
        **stamps.as_dict(),
        "ctrl": controls.as_dict() if controls is not None else None,
        **{f"{name}_counts": dict(sorted(labels.values.get(name, Counter()).items())) for name in (*MODE, "bandset")},
        "split_counts": dict(sorted(labels.splits.items())),
        "modes": _modes(labels, by_mode),
        "status_contradictions": labels.status_contradictions,
        "split_contradictions": labels.split_contradictions,
        "duplicate_task_ids": None if duplicates is None else {"ids": duplicates.ids, "rows": duplicates.rows},
        "split_leaks": {name: leak.ids for name, leak in leaks.items()},
        "not_checked": not_checked,
        "parameters": {
            "max_rows": max_rows,
            "sample_rows": sample_rows,
            "expect_hw": list(expect_hw),
            "expect_bands": expect_bands,
            "flux_range_nmgy": list(flux_range_nmgy),
        },
    }
    findings = _findings(result, labels, stamps, controls)
    examples = {**stamps.examples, **{f"ctrl_{k}": v for k, v in (controls.examples if controls else {}).items()}}
    if duplicates is not None and duplicates.ids:
        examples["duplicate_task_ids"] = duplicates.examples
    for name, leak in leaks.items():
        if leak.ids:
            examples[f"split_leaks_{name}"] = [f"{value}: {', '.join(s)}" for value, s in leak.examples.items()]
    if unreadable:
        examples["unreadable_files"] = unreadable[:5]
    return result | {"examples": examples, "findings": findings, "clean": not findings}


def _check_arguments(
    max_rows: int,
    sample_rows: int,
    expect_hw: tuple[int, int],
    expect_bands: int,
    flux_range: tuple[float, float],
) -> None:
    for name, value in (("max_rows", max_rows), ("sample_rows", sample_rows), ("expect_bands", expect_bands)):
        if value != int(value) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
    if len(expect_hw) != 2 or min(expect_hw) < 1:
        raise ValueError(f"expect_hw must be two positive integers (H, W), got {expect_hw!r}")
    if len(flux_range) != 2 or not flux_range[0] < flux_range[1]:
        raise ValueError(f"flux_range_nmgy must be (low, high) with low < high, got {flux_range!r}")


def _columns(parts: Sequence[ParquetPart], damaged: dict[int, str]) -> dict[int, list[str]]:
    """Column names by file, of those that can be opened."""
    columns: dict[int, list[str]] = {}
    for index, part in enumerate(parts):
        with _noted(index, damaged), open_parquet(part) as file:
            columns[index] = file.schema_arrow.names
    return columns


@contextmanager
def _noted(index: int, damaged: dict[int, str]) -> Iterator[None]:
    """A damaged file (number → what is wrong with it) is a finding, not the end of the check."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        damaged[index] = str(error)


# ------------------------------------------------------------------------------------------------- a sample: pixels


def _sample(
    parts: Sequence[ParquetPart],
    columns: dict[int, list[str]],
    plan: dict[tuple[int, int], list[int]],
    expected: tuple[tuple[int, int], int, tuple[float, float]],
    damaged: dict[int, str],
) -> tuple[StampTally, StampTally | None, dict[tuple[str, ...], StampTally]]:
    """Checks of the stamps, of their paired controls (None where there is no such column), and by mode."""
    stamps = StampTally()
    controls = StampTally() if any(_CTRL in names for names in columns.values()) else None
    by_mode: dict[tuple[str, ...], StampTally] = {}
    for index, names in columns.items():
        with _noted(index, damaged):
            for row in _chosen_rows(parts[index], index, names, plan):
                where = f"{row.get('task_id') or 'row'} in {parts[index].path.name}"
                if row[_STAMP] is not None:
                    check = check_stamp(row[_STAMP], row.get("bandset"), *expected)
                    stamps.add(check, where)
                    by_mode.setdefault(mode_of(row), StampTally()).add(check, where)
                elif "cutout_ok" not in row:
                    stamps.without_stamp += 1
                else:
                    stamps.add_fault("missing_stamp", f"{where}: cutout_ok = 1 and no stamp")
                if controls is not None and _CTRL in names:
                    _add_control(controls, row, where, expected)
    return stamps, controls, by_mode


def _add_control(
    controls: StampTally,
    row: dict[str, Any],
    where: str,
    expected: tuple[tuple[int, int], int, tuple[float, float]],
) -> None:
    """The paired control of a row; a row that is a control itself, or whose control failed, has none."""
    if row[_CTRL] is not None:
        controls.add(check_stamp(row[_CTRL], row.get("bandset"), *expected), where)
    elif row.get("is_control") != 1 and row[_STAMP] is not None and row.get("ctrl_status") in (None, "OK"):
        controls.add_fault("missing_stamp", f"{where}: no paired control")


def _chosen_rows(
    part: ParquetPart, index: int, names: list[str], plan: dict[tuple[int, int], list[int]]
) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    wanted = ("task_id", "cutout_ok", "is_control", "ctrl_status", "bandset", *MODE, _STAMP, _CTRL)
    present = [name for name in wanted if name in names]
    for group in sorted(g for i, g in plan if i == index):
        chosen, seen = plan[index, group], 0
        for _, batch in batches(part, present, _STAMP_ROWS, [group]):
            ok = np.ones(batch.num_rows, bool)
            if "cutout_ok" in present:
                ok = batch.column("cutout_ok").cast(pa.int32()).fill_null(0).to_numpy(zero_copy_only=False) == 1
            rows = np.flatnonzero(ok)
            here = [k - seen for k in chosen if seen <= k < seen + rows.size]
            for k in here:
                yield batch.slice(int(rows[k]), 1).to_pylist()[0]
            seen += rows.size
            if seen > chosen[-1]:
                break


# ---------------------------------------------------------------------------------------------------- all rows: ids


def _identities(
    parts: Sequence[ParquetPart], columns: dict[int, list[str]], n_rows: int, damaged: dict[int, str]
) -> tuple[Duplicates | None, dict[str, Leaks], dict[str, str]]:
    """Duplicate task ids, leaks by kind of id, and what could not be checked and why."""
    not_checked: dict[str, str] = {}
    duplicates = None
    if all("task_id" in names for names in columns.values()):
        duplicates = find_duplicates(partial(_ids, parts, columns, (("task_id",),), damaged), n_rows)
    else:
        not_checked["duplicate_task_ids"] = "a file has no column task_id"
    with_split = {
        i: names for i, names in columns.items() if "region_split" in names or "region_split" in parts[i].partitions
    }
    leaks = {}
    for kind, choices in _IDENTITIES.items():
        if kind in _OPTIONAL and not any(_first(names, choices) for names in columns.values()):
            continue
        usable = {i: names for i, names in with_split.items() if _first(names, choices)}
        if len(usable) < len(columns):
            why = "no column or folder region_split" if len(with_split) < len(columns) else "no column with its id"
            not_checked[f"split_leaks_{kind}"] = f"{len(columns) - len(usable)} of {len(columns)} files: {why}"
        if usable:
            leaks[kind] = find_leaks(partial(_ids_and_splits, parts, usable, choices, damaged), n_rows)
    return duplicates, leaks, not_checked


def _first(names: list[str], choices: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    return next((choice for choice in choices if set(choice) <= set(names)), None)


def _ids(
    parts: Sequence[ParquetPart],
    columns: dict[int, list[str]],
    choices: Sequence[tuple[str, ...]],
    damaged: dict[int, str],
) -> Iterator[Any]:
    return (ids for ids, _ in _ids_and_splits(parts, columns, choices, damaged))


def _ids_and_splits(
    parts: Sequence[ParquetPart],
    columns: dict[int, list[str]],
    choices: Sequence[tuple[str, ...]],
    damaged: dict[int, str],
) -> Iterator[tuple[Any, Any]]:
    """Ids as text (several columns joined by |, null if one of them is) and the splits of their rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for index, names in columns.items():
        choice = _first(names, choices) or ()
        folder = parts[index].partitions.get("region_split")
        wanted = [*choice, *(["region_split"] if folder is None and "region_split" in names else [])]
        with _noted(index, damaged):
            for _, batch in batches(parts[index], wanted, _ID_ROWS):
                ids = pc.binary_join_element_wise(*(batch.column(name).cast(pa.string()) for name in choice), "|")
                if "region_split" in wanted:
                    yield ids, batch.column("region_split").cast(pa.string())
                else:
                    yield ids, pa.repeat(pa.scalar(folder, pa.string()), batch.num_rows)


# ------------------------------------------------------------------------------------------------------- the result


def _modes(labels: Labels, by_mode: dict[tuple[str, ...], StampTally]) -> list[dict[str, Any]]:
    """One entry per (gen_variant, source_mode, artifact_profile)."""
    out = []
    for mode, n in sorted(labels.modes.items()):
        tally = by_mode.get(mode, StampTally())
        out.append(
            dict(zip(MODE, mode, strict=True))
            | {
                "rows": n,
                "fraction": n / labels.rows,
                "failed": labels.failed_by_mode[mode],
                "sampled": tally.sampled,
                "faulty": sum(tally.faults.values()),
                "median_sum": {b: float(np.median([v[2] for v in vs])) for b, vs in sorted(tally.measured.items())},
                "median_mad_sigma": {
                    b: float(np.median([v[3] for v in vs])) for b, vs in sorted(tally.measured.items())
                },
                "clumpiness_mean": float(np.mean(tally.clumpiness)) if tally.clumpiness else None,
            }
        )
    return out


def _findings(
    result: dict[str, Any], labels: Labels, stamps: StampTally, controls: StampTally | None
) -> dict[str, int]:
    found = {name: stamps.faults[name] for name in FAULTS}
    if controls is not None:
        found |= {f"ctrl_{name}": controls.faults[name] for name in FAULTS}
    found["unreadable_files"] = len(result["unreadable_files"])
    found["no_rows"] = int(labels.rows == 0)
    found["no_stamps"] = int(labels.rows > 0 and stamps.sampled == 0)
    found["status_contradictions"] = labels.status_contradictions
    found["split_contradictions"] = labels.split_contradictions
    found["duplicate_task_ids"] = (result["duplicate_task_ids"] or {"ids": 0})["ids"]
    found |= {f"split_leaks_{name}": n for name, n in result["split_leaks"].items()}
    return {name: n for name, n in found.items() if n}
