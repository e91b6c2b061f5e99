"""The page of `dhs emr plan`: the cluster, how executors lie on it, its steps, and what they take and cost."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from dhs_pipeline.emr.config import Cluster
from dhs_pipeline.emr.estimate import Estimate, usd_per_hour
from dhs_pipeline.emr.jobs import Job
from dhs_pipeline.emr.requests import Place, spark_submit


def render_plan(cluster: Cluster, place: Place, jobs: Sequence[Job], estimate: Estimate | None, *, keep: bool) -> str:
    """What would be created, in lines."""
    lines = [*_cluster_lines(cluster, place, keep), "", "steps"]
    for job in jobs:
        lines.append(f"  {job.name}")
        lines.append(f"    {shlex.join(spark_submit(place, job))}")
    lines.append("")
    lines += _cost_lines(cluster, estimate)
    return "\n".join(lines)


def _cluster_lines(cluster: Cluster, place: Place, keep: bool) -> list[str]:
    config, worker = cluster.config, cluster.worker
    driver = cluster.spark.driver_on(worker)
    ends = (
        f"is kept, and ends after {config.idle_termination_seconds} s without work"
        if keep
        else "ends with its last step"
    )
    lines = [f"cluster {cluster.name}: {config.description}", f"  {config.release_label}; {ends}"]
    for role, group in config.groups.items():
        market = group.market.replace("_", " ")
        lines.append(f"  {role.lower():<7} {group.nodes:>3} × {' or '.join(group.instance_types)}, {market}")
    if config.scaling is not None:
        lines.append(
            f"  managed scaling: {config.scaling.minimum_nodes} to {config.scaling.maximum_nodes} core and task nodes"
        )
    lines += [
        f"  executors: {worker.executors_per_node} per node, {worker.executor_cores} cores, "
        f"{worker.executor_memory_mib} MiB heap + {worker.executor_memory_overhead_mib} MiB for Python; "
        f"at most {cluster.max_executors}",
        f"  driver: {driver.memory_mib} MiB on a core node",
        f"  bundle {place.bundle}, logs {place.log_uri}",
    ]
    return lines + [f"  bank {bank}, copied to every node when it starts" for bank in place.banks]


def _cost_lines(cluster: Cluster, estimate: Estimate | None) -> list[str]:
    prices = cluster.worker.prices
    source = f"list prices of {prices.region}, {prices.date}, without EBS and S3"
    per_hour = (
        f"{usd_per_hour(cluster, spot=False):.2f} USD per hour all on demand, {usd_per_hour(cluster, spot=True):.2f} "
        f"with spot at {cluster.config.spot_price_fraction:g} of the EC2 price"
    )
    if estimate is None:
        return [f"cost: {per_hour}; {source}", "  give --tasks N --hosts N, or --rows-from-out, for hours and dollars"]
    lines = [f"cost: {source}", f"  {per_hour}", f"  {'start-up':<20} {_minutes(estimate.startup_seconds)}"]
    for step in estimate.steps:
        if step.time is None:
            lines.append(f"  {step.job.name:<20}   not known: conf/emr/cost_model.yaml has no {step.job.cost_name!r}")
            continue
        work = f"{step.rows:>12,} rows, bound by {step.time.bottleneck}"
        lines.append(f"  {step.job.name:<20} {_minutes(step.time.seconds)}  {work}")
    total = (
        f"{estimate.node_hours:.1f} node-hours, {estimate.usd_on_demand:.2f} USD on demand, "
        f"about {estimate.usd_with_spot:.2f} with spot"
    )
    missing = f", without {', '.join(estimate.unknown)}" if estimate.unknown else ""
    return [*lines, f"  {'in all':<20} {_minutes(estimate.seconds)}  {total}{missing}"]


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:8.1f} min"
