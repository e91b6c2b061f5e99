"""A small run directory made without Spark: the real stage functions, called in this process on drawn cutouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dhs_gen.status import RejectReason, Status
from dhs_pipeline.bricks import cutout_table
from dhs_pipeline.compact import run_compaction
from dhs_pipeline.config import RunConfig, load_run_config
from dhs_pipeline.injection import run_injection
from dhs_pipeline.manifest.tasks import density_axes, expand
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import BANDS, HOSTS, REJECTS, table_from_rows
from dhs_pipeline.sources import Banks
from dhs_pipeline.stage import open_stage
from dhs_pipeline.storage import Location

SETTINGS = (
    "manifest.tasks_per_host=8",
    "manifest.control_fraction=0.2",
    "manifest.tasks_per_shard=8",
    "rendering.max_supersampling=5",
)
HOSTS_PER_PART = 2
NO_BANKS = Banks()
NASTY = "<script>alert('4b')</script> & \"more\""
"""A message that must not become part of the page."""

Message = str | None


def make_run(
    folder: Path | str,
    *,
    hosts: Mapping[str, Message],
    generations: Sequence[str] = ("gen7", "control"),
    settings: Sequence[str] = SETTINGS,
    banks: Banks = NO_BANKS,
    host_columns: Mapping[str, Mapping[str, object]] | None = None,
) -> tuple[RunDir, RunConfig]:
    """4a to 4p5 over drawn hosts.

    Parameters
    ----------
    folder
        Run directory.
    hosts
        Host id → None, or the message with which its cutout fails.
    host_columns
        Host id → columns of the catalogue that are to differ.
    """
    config = load_run_config("demo", settings)
    run = RunDir(Location.of(folder))
    run.start(config, force=False)
    _make_4a(run, config, list(hosts), host_columns or {})
    _make_4b(run, config, hosts)
    spark: Any = InProcessSpark()
    common: dict[str, Any] = {"partitions": None, "force": False, "progress": False}
    for name in generations:
        run_injection(spark, run, config.generation(name), banks, config, **common)
        run_compaction(spark, run, name, config, **common)
    return run, config


class InProcessSpark:
    """As much of a Spark session as ``run_units`` uses."""

    def __init__(self) -> None:
        self.sparkContext = self

    def accumulator(self, value: int) -> Any:
        counter = SimpleNamespace(value=value)
        counter.add = lambda n: setattr(counter, "value", counter.value + n)
        return counter

    def setJobDescription(self, label: str) -> None:  # noqa: N802 - Spark's name
        pass

    def parallelize(self, units: Sequence[Any], slices: int) -> Any:
        def map_partitions(work: Callable[[Iterator[Any]], Iterable[Any]]) -> Any:
            return SimpleNamespace(collect=lambda: list(work(iter(units))))

        return SimpleNamespace(mapPartitions=map_partitions)


def _make_4a(
    run: RunDir, config: RunConfig, host_ids: Sequence[str], host_columns: Mapping[str, Mapping[str, object]]
) -> None:
    stage = open_stage("4a", run.phase4a, {"design": "drawn"}, {"parent": "drawn.parquet"}, force=False)
    receipts = []
    for number, first in enumerate(range(0, len(host_ids), HOSTS_PER_PART)):
        writer = stage.writer(f"{number:05d}")
        part = host_ids[first : first + HOSTS_PER_PART]
        rows = [_host(h, first + i) | dict(host_columns.get(h, {})) for i, h in enumerate(part)]
        hosts = table_from_rows(rows, HOSTS)
        tasks = expand(hosts, config)
        writer.write("hosts", hosts, row_group_rows=64)
        writer.write("manifest", tasks, row_group_rows=config.manifest.tasks_per_shard)
        receipts.append(writer.finish(tasks.num_rows, {"TASK": tasks.num_rows}))
    rejects = [
        {"host_id": "bad", "parent_row": 90, "reason": RejectReason.FLUX_NOT_FINITE, "message": "flux_r <b>nan</b>"},
        {"host_id": "bad2", "parent_row": 91, "reason": RejectReason.FLUX_NOT_FINITE, "message": "flux_z nan"},
    ]
    rejected = stage.writer("00000")
    rejected.write("rejects", table_from_rows(rejects, REJECTS), row_group_rows=64)
    stage.finish(
        receipts,
        {
            "parent_rows": len(host_ids) + len(rejects),
            "hosts": len(host_ids),
            "rejects_by_reason": dict(Counter(str(r["reason"]) for r in rejects)),
            "bricks": 1,
            "proposal_density_axes": density_axes(config),
            "reject_files": list(rejected.files),
        },
        rejected.files,
    )


def _host(host_id: str, number: int) -> dict[str, object]:
    row: dict[str, object] = {
        "host_id": host_id,
        "brickname": "0591m305",
        "parent_row": number,
        "ra_deg": 59.0 + 0.01 * number,
        "dec_deg": -30.5,
        "type": "DEV",
        "z_l": 0.4 + 0.05 * number,
        "z_l_source": "phot",
        "ebv_mag": 0.01,
        "region_id": 1000 + number,
        "region_fold": number % 4,
        "region_split": "train",
    }
    for b, mag in zip(BANDS, (21.4, 19.8, 18.9), strict=True):
        row |= {f"mag_{b}": mag, f"mw_transmission_{b}": 0.97, f"psfsize_{b}_arcsec": 1.3}
    return row


def _make_4b(run: RunDir, config: RunConfig, hosts: Mapping[str, Message]) -> None:
    stage = open_stage("4b", run.phase4b, {"survey": "drawn"}, {"data": "drawn"}, force=False)
    receipts = []
    names = list(hosts)
    for number, first in enumerate(range(0, len(names), HOSTS_PER_PART)):
        writer = stage.writer(f"{number:05d}")
        rows = [_cutout(name, hosts[name], config) for name in names[first : first + HOSTS_PER_PART]]
        writer.write("cutouts", cutout_table(rows), row_group_rows=16)
        receipts.append(writer.finish(len(rows), Counter(str(r["status"]) for r in rows)))
    stage.finish(receipts, {})


def _cutout(host_id: str, message: Message, config: RunConfig) -> dict[str, object]:
    size = config.survey.cutout_size_pix
    row: dict[str, object] = {
        "host_id": host_id,
        "brickname": "0591m305",
        "cutout_size_pix": size,
        "status": Status.OK.value if message is None else Status.FILE_MISSING.value,
        "message": message,
    }
    if message is not None:
        return row
    rng = np.random.default_rng(len(host_id))
    y, x = np.indices((size, size)) - 50.2
    light = np.exp(-np.hypot(x, y) / 2.5)
    row |= {f"{kind}_{axis}_pix": 50.2 for kind in ("catalog", "centroid") for axis in "xy"}
    row |= {"corner_x_pix": 100, "corner_y_pix": 200}
    for b, peak in zip(BANDS, (0.3, 1.0, 2.0), strict=True):
        row[f"psfsize_{b}_map_arcsec"] = 1.3
        row[f"nexp_{b}"] = 3.0
        row[f"image_{b}"] = (peak * light + rng.normal(0, 0.01, light.shape)).astype(np.float32).ravel()
        row[f"invvar_{b}"] = np.full(light.size, 1e4, np.float32)
    row["maskbits"] = np.zeros(light.size, np.int32)
    return row
