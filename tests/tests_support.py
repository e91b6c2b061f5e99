"""What several test modules of the pipeline call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhs_pipeline.compact import run_compaction
from dhs_pipeline.config import RunConfig
from dhs_pipeline.cutouts import run_cutouts
from dhs_pipeline.injection import run_injection
from dhs_pipeline.manifest.stage import run_manifest
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.sources import Banks
from dhs_pipeline.storage import Location

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NO_BANKS = Banks()

REPO = Path(__file__).resolve().parents[1]

SMALL = (
    "manifest.tasks_per_host=4",
    "manifest.control_fraction=0.2",
    "manifest.tasks_per_shard=32",
    "manifest.hosts_per_part=16",
    "compact.target_file_mb=8",
)


def run_stages(
    spark: SparkSession,
    out: Location,
    data: Location,
    parent: Location,
    config: RunConfig,
    *,
    generations: Sequence[str] = ("gen7",),
    banks: Banks = NO_BANKS,
    partitions: int | None = None,
    force: bool = False,
) -> RunDir:
    """4a, 4b, and 4c and 4p5 of each generation."""
    run = RunDir(out)
    run.start(config, force=force)
    spread: dict[str, Any] = {"partitions": partitions, "force": force, "progress": False}
    run_manifest(spark, run, parent, config, force=force, progress=False)
    run_cutouts(spark, run, data, config, **spread)
    for name in generations:
        run_injection(spark, run, config.generation(name), banks, config, **spread)
        run_compaction(spark, run, name, config, **spread)
    return run
