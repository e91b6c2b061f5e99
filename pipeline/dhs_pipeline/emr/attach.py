"""A cluster that runs already: whether steps may be added to it, and its end."""

from __future__ import annotations

from typing import Any

from dhs_pipeline.emr.client import EmrError, told
from dhs_pipeline.emr.requests import Place
from dhs_pipeline.emr.status import describe_cluster

_TAKES_STEPS = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")


def check_cluster_fits(client: Any, cluster_id: str, place: Place) -> None:
    """Nodes get the environment and the banks only when they start: this cluster must have had the same.

    Raises
    ------
    EmrError
        If the cluster is ending, or was started with another bundle or without one of the banks.
    """
    cluster = describe_cluster(client, cluster_id)
    if cluster.state not in _TAKES_STEPS:
        raise EmrError(f"{cluster_id} is {cluster.state}: it takes no steps; submit without --cluster-id")
    with told(f"bootstrap actions of {cluster_id}"):
        pages = client.get_paginator("list_bootstrap_actions").paginate(ClusterId=cluster_id)
        arguments = [text for page in pages for action in page["BootstrapActions"] for text in action.get("Args", [])]
    if place.bundle not in arguments:
        had = ", ".join(text for text in arguments if text.startswith("s3://")) or "none"
        raise EmrError(f"{cluster_id} was not started with the bundle {place.bundle} (it had: {had})")
    if missing := [bank for bank in place.banks if bank not in arguments]:
        raise EmrError(
            f"{cluster_id} has no copy of {', '.join(missing)} on its nodes: banks are copied when a cluster starts"
        )


def terminate_cluster(client: Any, cluster_id: str, *, yes: bool, unprotect: bool) -> str:
    """End a cluster; returns what to tell.

    Raises
    ------
    EmrError
        If it is protected and ``unprotect`` is not set, or ``yes`` is not said.
    """
    cluster = describe_cluster(client, cluster_id)
    if cluster.ended:
        return f"{cluster_id} ({cluster.name}) is {cluster.state} already"
    if cluster.protected and not unprotect:
        raise EmrError(f"{cluster_id} ({cluster.name}): termination protection is on; --unprotect takes it off")
    if not yes:
        raise EmrError(f"{cluster_id} ({cluster.name}, {cluster.state}) would be terminated; say --yes")
    with told(f"terminating {cluster_id}"):
        if cluster.protected:
            client.set_termination_protection(JobFlowIds=[cluster_id], TerminationProtected=False)
        client.terminate_job_flows(JobFlowIds=[cluster_id])
    return f"{cluster_id} ({cluster.name}): terminating; what its finished units wrote stays"
