"""A whole run: 4a → 4b → 4c for each generation → 4p5 → report, and the table at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhs_pipeline.banks import prepare_banks
from dhs_pipeline.compact import run_compaction
from dhs_pipeline.config import Generation, RunConfig
from dhs_pipeline.cutouts import run_cutouts
from dhs_pipeline.injection import run_injection
from dhs_pipeline.manifest.stage import check_parent, run_manifest
from dhs_pipeline.report import write_report
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.session import start_session
from dhs_pipeline.simulate import load_simulation_settings, simulate_survey
from dhs_pipeline.sources import BANK_OPTIONS, Banks, check_banks, missing_banks
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location


@dataclass(frozen=True)
class RunInputs:
    """Bricks, catalogue and banks; None for the simulated demo bricks, and for no bank."""

    data: Location | None
    parent: Location | None
    bank: Location | None
    deep_bank: Location | None


def run_all(
    run: RunDir,
    config: RunConfig,
    inputs: RunInputs,
    *,
    generations: Sequence[str] | None,
    master: str | None,
    partitions: int | None,
    force: bool,
    progress: bool,
) -> None:
    """Every stage; what has finished is skipped.

    Raises
    ------
    StageError, ConfigError, ValueError
        With one line for the user, before the first task where the inputs allow it.
    """
    started = time.perf_counter()
    chosen = _generations(config, generations, inputs)
    _check_inputs(inputs)
    run.start(config, force=force)
    banks = prepare_banks(inputs.bank, inputs.deep_bank, run)
    data, parent = _bricks(run, inputs)
    check_parent(parent, config)
    for generation in chosen:
        check_banks(generation, banks, config.manifest.folds)
    spark = start_session("dhs run", master, run.spark_events)
    common: dict[str, Any] = {"force": force, "progress": progress}
    spread: dict[str, Any] = {"partitions": partitions, **common}
    summaries = [run_manifest(spark, run, parent, config, **common), run_cutouts(spark, run, data, config, **spread)]
    for generation in chosen:
        summaries.append(run_injection(spark, run, generation, banks, config, **spread))
        summaries.append(run_compaction(spark, run, generation.name, config, **spread))
    report = write_report(run)
    print(summary_table(summaries))
    print(f"\nreport: {report}    ({time.perf_counter() - started:.0f} s in all)")


def _generations(config: RunConfig, names: Sequence[str] | None, inputs: RunInputs) -> list[Generation]:
    """The generations to render; StageError if one needs a bank and there is none."""
    chosen = list(config.generations) if names is None else [config.generation(name) for name in names]
    given = Banks(inputs.bank, inputs.deep_bank)
    for mode, option in BANK_OPTIONS.items():
        if needing := [g.name for g in chosen if mode in missing_banks(g, given)]:
            raise StageError(
                f"generation {', '.join(needing)} needs a {mode} source bank; give one with {option}, "
                "or leave it out with --generations"
            )
    return chosen


def _check_inputs(inputs: RunInputs) -> None:
    """Missing inputs are told before the run directory is made."""
    for what, location in (
        ("DATA", inputs.data),
        ("PARENT", inputs.parent),
        ("BANK", inputs.bank),
        ("DEEP_BANK", inputs.deep_bank),
    ):
        if location is not None and not location.exists():
            raise StageError(f"{what}: {location} does not exist")


def _bricks(run: RunDir, inputs: RunInputs) -> tuple[Location, Location]:
    """The given bricks and parent, or the simulated ones, made once inside the run directory."""
    if inputs.data is not None and inputs.parent is not None:
        return inputs.data, inputs.parent
    if run.where.is_s3:
        raise StageError("the demo bricks are simulated on a local disk; give --data and --parent, or a local --out")
    folder = run.where / "simulated"
    if not (folder / "parent.parquet").exists():
        print("simulating two bricks in the DR10 layout …")
        simulate_survey(Path(folder.uri), load_simulation_settings())
    return folder, folder / "parent.parquet"


def summary_table(summaries: Sequence[dict[str, Any]]) -> str:
    """Rows in, rows out by status and rate of each stage, as text."""
    lines = [f"{'stage':<14}{'rows in':>9}{'rows out':>10}{'s':>8}{'rows/s':>9}  rows by status"]
    for summary in summaries:
        name = " ".join(s for s in (summary["stage"], summary.get("generation")) if s)
        statuses = summary["rows_by_status"]
        if summary["stage"] == "4a":
            rows_in, statuses = summary["parent_rows"], {"HOST": summary["hosts"], **summary["rejects_by_reason"]}
        else:
            rows_in = summary.get("manifest_rows", summary["rows"])
        text = ", ".join(f"{k} {v}" for k, v in statuses.items())
        rate = summary["rows_per_second"] or 0
        lines.append(f"{name:<14}{rows_in:>9}{summary['rows']:>10}{summary['seconds']:>8.1f}{rate:>9.0f}  {text}")
    return "\n".join(lines)
