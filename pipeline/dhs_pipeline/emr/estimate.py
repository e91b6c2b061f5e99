"""What a run on a cluster takes and costs: start-up and stages in order, node-hours, dollars at the prices of conf/emr.

The seconds come from the cost model (:mod:`dhs_pipeline.scale`). Dollars are given twice: all nodes on demand, which
is the most it can be at list prices, and with spot nodes at the assumed fraction of conf/emr.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dhs_pipeline.emr.client import EmrError
from dhs_pipeline.emr.config import Cluster, NodeGroup
from dhs_pipeline.emr.jobs import Job
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.scale import Capacity, StepTime, load_cost_model, predict
from dhs_pipeline.storage import Location


@dataclass(frozen=True)
class Rows:
    """What the stages have to do: tasks (manifest rows) and hosts."""

    tasks: int
    hosts: int


@dataclass(frozen=True)
class StepEstimate:
    """One step; ``time`` is None where the cost model does not know the stage."""

    job: Job
    rows: int
    time: StepTime | None


@dataclass(frozen=True)
class Estimate:
    """Of a whole run. Nodes count the master."""

    steps: tuple[StepEstimate, ...]
    startup_seconds: float
    nodes: int
    usd_per_hour_on_demand: float
    usd_per_hour_with_spot: float

    @property
    def seconds(self) -> float:
        """Start-up and all steps that the model knows."""
        return self.startup_seconds + sum(step.time.seconds for step in self.steps if step.time is not None)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Steps that are not in it."""
        return tuple(step.job.name for step in self.steps if step.time is None)

    @property
    def node_hours(self) -> float:
        return self.nodes * self.seconds / 3600

    @property
    def usd_on_demand(self) -> float:
        return self.usd_per_hour_on_demand * self.seconds / 3600

    @property
    def usd_with_spot(self) -> float:
        return self.usd_per_hour_with_spot * self.seconds / 3600


def rows_of_run(out: Location) -> Rows:
    """Tasks and hosts of a finished stage 4a.

    Raises
    ------
    EmrError
        If it has not finished there, or cannot be read.
    """
    where = RunDir(out).phase4a / "_stage.json"
    try:
        found = where.read_json()
    except OSError as error:
        reason = " ".join(str(error).split())
        raise EmrError(
            f"{where}: no finished stage 4a can be read there ({reason}); give --tasks and --hosts"
        ) from error
    return Rows(tasks=int(found["rows"]), hosts=int(found["hosts"]))


def estimate_run(cluster: Cluster, jobs: Sequence[Job], rows: Rows, *, cost_model: str = "cost_model") -> Estimate:
    """Seconds and dollars of the jobs, one after the other, with every node of the cluster at work."""
    model, worker = load_cost_model(cost_model), cluster.worker
    capacity = Capacity(
        nodes=cluster.config.worker_nodes,
        vcpus_per_node=worker.working_vcpus,
        vcpu_speed=worker.vcpu_speed,
        network_mb_per_s=worker.network_mb_per_s,
    )
    steps = []
    for job in jobs:
        n_rows = rows.hosts if job.stage == "4b" else rows.tasks * job.rows_per_task
        known = job.cost_name in model.stages
        steps.append(StepEstimate(job, n_rows, predict(model, job.cost_name, n_rows, capacity) if known else None))
    return Estimate(
        steps=tuple(steps),
        startup_seconds=cluster.config.startup_minutes * 60,
        nodes=1 + cluster.config.worker_nodes,
        usd_per_hour_on_demand=usd_per_hour(cluster, spot=False),
        usd_per_hour_with_spot=usd_per_hour(cluster, spot=True),
    )


def usd_per_hour(cluster: Cluster, *, spot: bool) -> float:
    """Price of the whole cluster; ``spot`` takes the assumed spot price for its spot groups, else all on demand."""
    fraction = cluster.config.spot_price_fraction
    return sum(_group_usd(cluster, group, fraction if spot else 1.0) for group in cluster.config.groups.values())


def _group_usd(cluster: Cluster, group: NodeGroup, spot_fraction: float) -> float:
    """Of the dearest type that the group may get: an estimate should not be too low."""
    fraction = spot_fraction if group.market == "spot" else 1.0
    prices = [cluster.machines[name].prices for name in group.instance_types]
    return group.nodes * max(p.ec2_usd_per_hour * fraction + p.emr_usd_per_hour for p in prices)
