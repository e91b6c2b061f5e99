"""What a cluster does: its state, its nodes by group and market, its steps, and why one failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dhs_pipeline.emr.client import EmrError, told

ACTIVE_STATES = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING")
_ENDED_STATES = ("TERMINATED", "TERMINATED_WITH_ERRORS")
_STEP_ENDED = ("COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED")
_STEP_BAD = ("CANCELLED", "FAILED", "INTERRUPTED")


@dataclass(frozen=True)
class GroupView:
    """Nodes of one role."""

    role: str
    market: str
    instance_types: tuple[str, ...]
    running: int
    requested: int


@dataclass(frozen=True)
class StepView:
    """A step; times are aware UTC, None where it has not come to that."""

    step_id: str
    name: str
    state: str
    created: datetime | None
    started: datetime | None
    ended: datetime | None
    failure: str | None
    log_file: str | None
    applications: tuple[str, ...]

    def elapsed(self, now: datetime) -> timedelta | None:
        return None if self.started is None else (self.ended or now) - self.started


@dataclass(frozen=True)
class ClusterView:
    """A cluster as EMR describes it."""

    cluster_id: str
    name: str
    state: str
    reason: str | None
    release_label: str
    created: datetime | None
    log_uri: str | None
    protected: bool
    tags: Mapping[str, str]
    groups: tuple[GroupView, ...]
    steps: tuple[StepView, ...]

    @property
    def ended(self) -> bool:
        return self.state in _ENDED_STATES

    @property
    def settled(self) -> bool:
        """Nothing more will happen by itself: the cluster is gone, or waits with every step over."""
        steps_over = all(step.state in _STEP_ENDED for step in self.steps)
        return self.ended or (self.state == "WAITING" and steps_over)

    @property
    def failed(self) -> bool:
        return self.state == "TERMINATED_WITH_ERRORS" or any(step.state in _STEP_BAD for step in self.steps)


def describe_cluster(client: Any, cluster_id: str) -> ClusterView:
    """The cluster without its nodes and steps: one request."""
    with told(f"cluster {cluster_id}"):
        return _cluster_view(client.describe_cluster(ClusterId=cluster_id)["Cluster"], (), ())


def read_cluster(client: Any, cluster_id: str) -> ClusterView:
    """The cluster with its nodes and all its steps, oldest first."""
    with told(f"cluster {cluster_id}"):
        cluster = client.describe_cluster(ClusterId=cluster_id)["Cluster"]
        groups = _groups(client, cluster_id, fleets=cluster.get("InstanceCollectionType") == "INSTANCE_FLEET")
    return _cluster_view(cluster, groups, read_steps(client, cluster_id))


def read_steps(client: Any, cluster_id: str) -> tuple[StepView, ...]:
    """All steps, oldest first; EMR lists the newest first, in pages."""
    with told(f"steps of {cluster_id}"):
        pages = client.get_paginator("list_steps").paginate(ClusterId=cluster_id)
        return tuple(_step_view(step) for step in [s for page in pages for s in page["Steps"]][::-1])


def find_step(client: Any, cluster_id: str, wanted: str) -> StepView:
    """The step of that id, or the last one of that name (``dhs 4c gen7`` or ``4c gen7``).

    Raises
    ------
    EmrError
        If there is none.
    """
    steps = read_steps(client, cluster_id)
    for step in reversed(steps):
        if wanted in (step.step_id, step.name, step.name.removeprefix("dhs ")):
            return step
    there = ", ".join(f"{step.step_id} ({step.name})" for step in steps) or "none"
    raise EmrError(f"{cluster_id} has no step {wanted!r}; its steps: {there}")


def list_clusters(client: Any, project: str, *, ended_within: timedelta | None, now: datetime) -> list[ClusterView]:
    """Clusters whose tag ``project`` has that value, newest first: active ones, and those ended not long ago.

    EMR's list holds no tags, so every candidate is described, one request each.
    """
    with told("list of clusters"):
        candidates = list(_summaries(client, ClusterStates=list(ACTIVE_STATES)))
        if ended_within is not None:
            candidates += _summaries(client, ClusterStates=list(_ENDED_STATES), CreatedAfter=now - ended_within)
    found = [describe_cluster(client, summary["Id"]) for summary in candidates]
    mine = [view for view in found if view.tags.get("project") == project]
    return sorted(mine, key=lambda view: view.created or now, reverse=True)


def watch(
    read: Callable[[], ClusterView],
    show: Callable[[ClusterView, datetime], None],
    *,
    every_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ClusterView:
    """Look and show until the cluster is settled; returns the last look."""
    while True:
        view = read()
        show(view, clock())
        if view.settled:
            return view
        sleep(every_seconds)


def render(view: ClusterView, now: datetime) -> str:
    """The page of `dhs emr status`."""
    age = f", {_duration(now - view.created)} old" if view.created is not None else ""
    lines = [f"{view.cluster_id}  {view.name}  {view.state}  ({view.release_label}{age})"]
    if view.reason:
        lines.append(f"  {view.reason}")
    if view.protected:
        lines.append("  termination protection is on")
    for group in view.groups:
        types = ",".join(group.instance_types)
        lines.append(f"  {group.role:<7} {group.running:>3} of {group.requested:<3} {group.market:<10} {types}")
    if view.steps:
        width = max(len(step.name) for step in view.steps)
        lines += [line for step in view.steps for line in _step_lines(view, step, width, now)]
    else:
        lines.append("  no steps")
    if view.state == "TERMINATED_WITH_ERRORS" and "BOOTSTRAP" in (view.reason or "").upper():
        lines.append(f"  see: dhs emr logs {view.cluster_id} bootstrap")
    return "\n".join(lines)


def render_list(views: list[ClusterView], now: datetime) -> str:
    if not views:
        return "no clusters of this project"
    rows = [
        (view.cluster_id, view.state, _duration(now - view.created) if view.created else "-", view.name)
        for view in views
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]) for row in rows)


def _step_lines(view: ClusterView, step: StepView, width: int, now: datetime) -> list[str]:
    elapsed = step.elapsed(now)
    took = "" if elapsed is None else _duration(elapsed)
    lines = [f"  {step.step_id}  {step.name:<{width}}  {step.state:<14} {took}".rstrip()]
    if step.state in _STEP_BAD and step.failure:
        lines.append(f"    {step.failure}")
    if step.state == "FAILED":
        if step.log_file:
            lines.append(f"    log: {step.log_file}")
        lines.append(f"    see: dhs emr logs {view.cluster_id} {step.step_id}")
    return lines


def _duration(span: timedelta) -> str:
    seconds = max(0, int(span.total_seconds()))
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds % 60:02d} s"


def _summaries(client: Any, **request: Any) -> Iterator[dict[str, Any]]:
    for page in client.get_paginator("list_clusters").paginate(**request):
        yield from page["Clusters"]


def _cluster_view(
    cluster: Mapping[str, Any], groups: tuple[GroupView, ...], steps: tuple[StepView, ...]
) -> ClusterView:
    status = cluster.get("Status", {})
    return ClusterView(
        cluster_id=cluster["Id"],
        name=cluster.get("Name", ""),
        state=status.get("State", "unknown"),
        reason=_reason(status.get("StateChangeReason", {})),
        release_label=cluster.get("ReleaseLabel", ""),
        created=status.get("Timeline", {}).get("CreationDateTime"),
        log_uri=cluster.get("LogUri"),
        protected=bool(cluster.get("TerminationProtected")),
        tags={tag["Key"]: tag["Value"] for tag in cluster.get("Tags", [])},
        groups=groups,
        steps=steps,
    )


def _reason(change: Mapping[str, Any]) -> str | None:
    parts = [str(change[key]) for key in ("Code", "Message") if change.get(key)]
    return ": ".join(parts) or None


def _groups(client: Any, cluster_id: str, *, fleets: bool) -> tuple[GroupView, ...]:
    operation, key = (
        ("list_instance_fleets", "InstanceFleets") if fleets else ("list_instance_groups", "InstanceGroups")
    )
    pages = client.get_paginator(operation).paginate(ClusterId=cluster_id)
    view = _fleet_view if fleets else _group_view
    found = [view(group) for page in pages for group in page[key]]
    order = {"MASTER": 0, "CORE": 1, "TASK": 2}
    return tuple(sorted(found, key=lambda group: order.get(group.role, 3)))


def _group_view(group: Mapping[str, Any]) -> GroupView:
    return GroupView(
        role=group.get("InstanceGroupType", "?"),
        market=group.get("Market", "ON_DEMAND"),
        instance_types=(group.get("InstanceType", "?"),),
        running=int(group.get("RunningInstanceCount", 0)),
        requested=int(group.get("RequestedInstanceCount", 0)),
    )


def _fleet_view(fleet: Mapping[str, Any]) -> GroupView:
    def total(kind: str) -> int:
        return int(fleet.get(f"{kind}OnDemandCapacity", 0)) + int(fleet.get(f"{kind}SpotCapacity", 0))

    kinds = [name for name, key in (("ON_DEMAND", "OnDemand"), ("SPOT", "Spot")) if fleet.get(f"Target{key}Capacity")]
    types = tuple(sorted(spec["InstanceType"] for spec in fleet.get("InstanceTypeSpecifications", [])))
    return GroupView(
        role=fleet.get("InstanceFleetType", "?"),
        market="+".join(kinds) or "-",
        instance_types=types,
        running=total("Provisioned"),
        requested=total("Target"),
    )


def _step_view(step: Mapping[str, Any]) -> StepView:
    status = step.get("Status", {})
    timeline, failure = status.get("Timeline", {}), status.get("FailureDetails", {})
    told_ = ": ".join(str(failure[key]) for key in ("Reason", "Message") if failure.get(key))
    return StepView(
        step_id=step["Id"],
        name=step.get("Name", ""),
        state=status.get("State", "unknown"),
        created=timeline.get("CreationDateTime"),
        started=timeline.get("StartDateTime"),
        ended=timeline.get("EndDateTime"),
        failure=told_ or status.get("StateChangeReason", {}).get("Message"),
        log_file=failure.get("LogFile"),
        applications=tuple(step.get("AdditionalInfo", {}).get("ResourceManagerApplicationIds", [])),
    )
