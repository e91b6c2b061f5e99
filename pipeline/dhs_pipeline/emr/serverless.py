"""EMR Serverless as a target: the same jobs as job runs of an application that exists.

An application has no bootstrap action, so the Python environment comes in the application's custom image, or as a
packed environment (``--archive s3://…/environment.tar.gz``). Job runs of an application do not wait for each other; the
stages do, so each is started when the one before it has succeeded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dhs_pipeline.emr.client import EmrError, told
from dhs_pipeline.emr.config import Cluster
from dhs_pipeline.emr.jobs import Job
from dhs_pipeline.emr.requests import Place, layout

_ENDED = ("SUCCESS", "FAILED", "CANCELLED")
_NOT_HERE = ("spark.yarn.", "spark.decommission.")
"""Properties that need YARN or nodes of one's own."""


@dataclass(frozen=True)
class Application:
    """Where job runs are started.

    Parameters
    ----------
    archive
        ``s3://…tar.gz`` of a packed environment; None takes that of the application's image.
    """

    application_id: str
    execution_role: str
    archive: str | None


def build_start_job_run(cluster: Cluster, place: Place, application: Application, job: Job) -> dict[str, Any]:
    """The StartJobRun request (without its client token, which botocore makes)."""
    return {
        "applicationId": application.application_id,
        "executionRoleArn": application.execution_role,
        "name": f"dhs {job.name}",
        "jobDriver": {
            "sparkSubmit": {
                "entryPoint": f"{place.bundle}/jobs/{job.job_file}",
                "entryPointArguments": list(job.arguments),
                "sparkSubmitParameters": _parameters(spark_properties(cluster, place.region, application.archive)),
            }
        },
        "configurationOverrides": {
            "monitoringConfiguration": {"s3MonitoringConfiguration": {"logUri": place.log_uri.rstrip("/") + "/"}}
        },
        "tags": {"project": cluster.config.tags["project"], "dhs-version": place.version, **dict(place.tags or {})},
    }


def spark_properties(cluster: Cluster, region: str | None, archive: str | None) -> dict[str, str]:
    """Those of the cluster that make sense without nodes of one's own, in Serverless' names."""
    spark = cluster.spark
    python = spark.python if archive is None else "./environment/bin/python"
    environment = spark.environment | {"PYSPARK_PYTHON": python}
    if region is not None:
        environment |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    properties = {k: v for k, v in spark.spark_defaults.items() if not k.startswith(_NOT_HERE)}
    properties |= layout(cluster)
    if archive is not None:
        properties["spark.archives"] = f"{archive}#environment"
    properties |= {f"spark.executorEnv.{key}": value for key, value in environment.items()}
    driver_environment = environment | {"PYSPARK_DRIVER_PYTHON": python}
    return properties | {f"spark.emr-serverless.driverEnv.{key}": value for key, value in driver_environment.items()}


def run_jobs(
    client: Any,
    requests: Sequence[dict[str, Any]],
    tell: Callable[[str], None],
    *,
    every_seconds: float = 20.0,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Start each job run when the one before it has succeeded; False where one has not."""
    for request in requests:
        with told(f"start of {request['name']}"):
            run_id = client.start_job_run(**request)["jobRunId"]
        tell(f"{request['name']}: job run {run_id}")
        state = _wait(client, request["applicationId"], run_id, tell, every_seconds, sleep)
        if state != "SUCCESS":
            return False
    return True


def describe_job_run(client: Any, application_id: str, run_id: str) -> tuple[str, str]:
    """State of a job run, and EMR's words about it."""
    with told(f"job run {run_id}"):
        run = client.get_job_run(applicationId=application_id, jobRunId=run_id)["jobRun"]
    return run["state"], run.get("stateDetails", "")


def list_job_runs(client: Any, application_id: str) -> list[tuple[str, str, str]]:
    """(id, name, state) of the application's job runs, as EMR lists them."""
    with told(f"job runs of {application_id}"):
        pages = client.get_paginator("list_job_runs").paginate(applicationId=application_id)
        return [(run["id"], run.get("name", ""), run["state"]) for page in pages for run in page["jobRuns"]]


def cancel_job_run(client: Any, application_id: str, run_id: str) -> None:
    with told(f"cancelling {run_id}"):
        client.cancel_job_run(applicationId=application_id, jobRunId=run_id)


def _wait(
    client: Any,
    application_id: str,
    run_id: str,
    tell: Callable[[str], None],
    every_seconds: float,
    sleep: Callable[[float], None],
) -> str:
    before = None
    while True:
        state, details = describe_job_run(client, application_id, run_id)
        if state != before:
            tell(f"  {state}{f': {details}' if details and state == 'FAILED' else ''}")
            before = state
        if state in _ENDED:
            return state
        sleep(every_seconds)


def _parameters(properties: dict[str, str]) -> str:
    for key, value in properties.items():
        if any(character.isspace() for character in value):
            raise EmrError(f"{key}={value}: Serverless splits its parameters at white space; this one has some")
    return " ".join(f"--conf {key}={value}" for key, value in properties.items())
