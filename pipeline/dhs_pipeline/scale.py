"""How long a stage takes on how many machines: a model with few numbers, all measured (conf/emr/cost_model.yaml).

A stage is a start, then rows spread over cores, then the tail of the last units::

    seconds = start + max(processor, network, driver) + last unit
    processor = (rows · worker_ms_per_row + units · worker_ms_per_unit) / (nodes · vcpus_per_node · vcpu_speed)
    network   = rows · (read + written) / (nodes · network_mb_per_s)
    driver    = units · driver_ms_per_unit

The largest of the three names the bottleneck. ``benchmarks/scale_model.py`` fits the numbers to runs of several sizes
and checks them by predicting a larger run before it is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from dhs_pipeline.config import load_section
from dhs_pipeline.config.base import Model, NonNegative, Positive


class StageCost(Model):
    """What a row of one stage costs.

    Parameters
    ----------
    start_s
        Session, imports, planning and commit of the stage, whatever its size.
    worker_ms_per_row
        Wall time inside a worker with a core of its own: read, compute, encode, write.
    read_kb_per_row, written_kb_per_row
        Bytes that cross the network where data lie on S3.
    rows_per_unit
        Rows of the unit of restart, which one worker does from start to end.
    """

    start_s: NonNegative
    worker_ms_per_row: Positive
    read_kb_per_row: NonNegative
    written_kb_per_row: NonNegative
    rows_per_unit: Annotated[int, Field(ge=1)]


class CostModel(Model):
    """Costs of the stages on the machine they were measured on.

    Parameters
    ----------
    measured_on
        That machine, in words.
    driver_ms_per_unit
        Spark's scheduling of one unit, which the driver does one after another.
    worker_ms_per_unit
        What Spark's Python worker spends on a task before it begins, in parallel: mostly on reading the directories of
        the zip files and jars on its path again (``importlib.invalidate_caches`` in pyspark/worker_util.py).
    stages
        ``4a``, ``4b``, ``4c <generation>``, ``4p5`` → cost.
    """

    measured_on: str
    driver_ms_per_unit: NonNegative
    worker_ms_per_unit: NonNegative
    stages: dict[str, StageCost]


class Capacity(Model):
    """What works on a stage.

    Parameters
    ----------
    nodes, vcpus_per_node
        Machines that run executors.
    vcpu_speed
        Of one vCPU, over the core that the model was measured on.
    network_mb_per_s
        Of one node, to S3; None where data are local.
    """

    nodes: Annotated[int, Field(ge=1)]
    vcpus_per_node: Annotated[int, Field(ge=1)]
    vcpu_speed: Positive = 1.0
    network_mb_per_s: Positive | None = None


@dataclass(frozen=True)
class StepTime:
    """A predicted stage: its seconds, and the part that takes longest (processor, network, driver or start)."""

    seconds: float
    bottleneck: str


def load_cost_model(where: str = "cost_model") -> CostModel:
    """conf/emr/<name>.yaml, or a YAML file."""
    return load_section(CostModel, "emr", where)


def predict(model: CostModel, stage: str, rows: int, capacity: Capacity) -> StepTime:
    """Predict the wall time of one stage.

    Parameters
    ----------
    stage
        Key of ``model.stages``.
    rows
        Rows that the stage writes: hosts in 4b, tasks (or members of pairs) elsewhere.

    Raises
    ------
    ValueError
        If the model has no such stage, or rows is negative.
    """
    if stage not in model.stages:
        raise ValueError(f"stage must be one that the cost model has ({', '.join(model.stages)}), got {stage!r}")
    if rows < 0:
        raise ValueError(f"rows must not be negative, got {rows}")
    cost = model.stages[stage]
    cores = capacity.nodes * capacity.vcpus_per_node
    units = math.ceil(rows / cost.rows_per_unit)
    worker_ms = rows * cost.worker_ms_per_row + units * model.worker_ms_per_unit
    unit_s = min(rows, cost.rows_per_unit) * cost.worker_ms_per_row / 1e3 / capacity.vcpu_speed
    parts = {
        "processor": worker_ms / 1e3 / capacity.vcpu_speed / cores,
        "network": _network_s(cost, rows, capacity),
        "driver": units * model.driver_ms_per_unit / 1e3,
    }
    work = max(parts, key=parts.__getitem__)
    # The cores become free one by one while the last units are done: half a unit on average.
    seconds = cost.start_s + parts[work] + 0.5 * unit_s
    return StepTime(seconds, "start" if cost.start_s + 0.5 * unit_s > parts[work] else work)


def _network_s(cost: StageCost, rows: int, capacity: Capacity) -> float:
    if capacity.network_mb_per_s is None:
        return 0.0
    return rows * (cost.read_kb_per_row + cost.written_kb_per_row) / 1e3 / (capacity.nodes * capacity.network_mb_per_s)
