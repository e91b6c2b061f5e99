"""What EMR is asked, built from a cluster, a place and the steps. Pure functions: no network, no credentials.

The shapes are those of the EMR API (RunJobFlow, AddJobFlowSteps). EMR takes step arguments as a list: commas and
spaces in them are safe here, unlike in the shorthand of the aws command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dhs_pipeline.emr.config import Cluster, NodeGroup, applications
from dhs_pipeline.emr.jobs import Job

_MARKETS = {"on_demand": "ON_DEMAND", "spot": "SPOT"}
_MAX_ARGUMENT = 10280
"""Characters of one step argument (EMR API)."""


@dataclass(frozen=True)
class Place:
    """Where a cluster is put and what it reads, none of it in conf/.

    Parameters
    ----------
    bundle
        ``s3://…/<version>``: wheels, bootstrap/install.sh, jobs/.
    log_uri
        ``s3://…`` that EMR copies logs to.
    region
        None leaves it to the nodes, which boto3 cannot do: only a dry run may.
    banks
        ``s3://`` banks to be copied to every node.
    subnets
        Several only with fleets; none takes the default of the account.
    """

    bundle: str
    log_uri: str
    version: str
    region: str | None
    banks: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    key_name: str | None = None
    service_role: str | None = None
    job_flow_role: str | None = None
    tags: Mapping[str, str] | None = None


def build_run_job_flow(cluster: Cluster, place: Place, jobs: Sequence[Job], *, name: str, keep: bool) -> dict[str, Any]:
    """The RunJobFlow request.

    Parameters
    ----------
    keep
        Keep the cluster after its last step; it then ends after ``idle_termination_seconds`` without work.

    Raises
    ------
    ValueError
        If several subnets are given and the cluster has no fleets, or an argument is too long.
    """
    config = cluster.config
    request: dict[str, Any] = {
        "Name": name,
        "ReleaseLabel": config.release_label,
        "Applications": [{"Name": application} for application in applications(config.release_label)],
        "LogUri": place.log_uri.rstrip("/") + "/",
        "Instances": _instances(cluster, place, keep),
        "BootstrapActions": [bootstrap_action(cluster, place)],
        "Configurations": configurations(cluster, place.region),
        "Steps": build_steps(place, jobs, transient=not keep),
        "StepConcurrencyLevel": config.step_concurrency,
        "AutoTerminationPolicy": {"IdleTimeout": config.idle_termination_seconds},
        "EbsRootVolumeSize": config.root_volume_gib,
        "ScaleDownBehavior": "TERMINATE_AT_TASK_COMPLETION",
        "VisibleToAllUsers": True,
        "ServiceRole": place.service_role or config.service_role,
        "JobFlowRole": place.job_flow_role or config.job_flow_role,
        "Tags": [{"Key": key, "Value": value} for key, value in _tags(cluster, place).items()],
    }
    if config.scaling is not None:
        request["ManagedScalingPolicy"] = {
            "ComputeLimits": {
                "UnitType": "InstanceFleetUnits" if config.uses_fleets else "Instances",
                "MinimumCapacityUnits": config.scaling.minimum_nodes,
                "MaximumCapacityUnits": config.scaling.maximum_nodes,
                "MaximumOnDemandCapacityUnits": config.scaling.maximum_on_demand_nodes,
                "MaximumCoreCapacityUnits": config.scaling.maximum_core_nodes,
            }
        }
    return request


def build_add_steps(cluster_id: str, place: Place, jobs: Sequence[Job]) -> dict[str, Any]:
    """The AddJobFlowSteps request for a cluster that runs already."""
    return {"JobFlowId": cluster_id, "Steps": build_steps(place, jobs, transient=False)}


def build_steps(place: Place, jobs: Sequence[Job], *, transient: bool) -> list[dict[str, Any]]:
    """One step per job. A failed one ends a cluster that lives for these steps, and cancels the rest on another."""
    return [
        {
            "Name": f"dhs {job.name}",
            "ActionOnFailure": "TERMINATE_CLUSTER" if transient else "CANCEL_AND_WAIT",
            "HadoopJarStep": {"Jar": "command-runner.jar", "Args": _checked(spark_submit(place, job))},
        }
        for job in jobs
    ]


def spark_submit(place: Place, job: Job) -> list[str]:
    """The command line of a step; everything else stands in the cluster's spark-defaults."""
    return [
        "spark-submit",
        "--master",
        "yarn",
        "--deploy-mode",
        "cluster",
        "--name",
        f"dhs {job.name}",
        f"{place.bundle}/jobs/{job.job_file}",
        *job.arguments,
    ]


def bootstrap_action(cluster: Cluster, place: Place) -> dict[str, Any]:
    """Every node, also one that comes later, runs ``install.sh BUNDLE [--bank URI]… [--env NAME=VALUE]…`` at its start.

    It compiles kernels and copies banks for tasks with just this environment, which the containers get too.
    """
    banks = [argument for bank in place.banks for argument in ("--bank", bank)]
    variables = [
        argument for name, value in cluster.spark.environment.items() for argument in ("--env", f"{name}={value}")
    ]
    script = {"Path": f"{place.bundle}/bootstrap/install.sh", "Args": [place.bundle, *banks, *variables]}
    return {"Name": "dhs environment", "ScriptBootstrapAction": script}


def configurations(cluster: Cluster, region: str | None) -> list[dict[str, Any]]:
    """Classifications: Spark's defaults with the layout of the machines, its environment, and YARN's memory."""
    spark, worker = cluster.spark, cluster.worker
    yarn = {
        "yarn.nodemanager.resource.memory-mb": str(worker.yarn_memory_mib),
        "yarn.scheduler.maximum-allocation-mb": str(worker.yarn_memory_mib),
    }
    exported = {"PYSPARK_PYTHON": spark.python}
    export = {"Classification": "export", "Properties": exported, "Configurations": []}
    return [
        {"Classification": "spark-defaults", "Properties": spark_defaults(cluster, region)},
        {"Classification": "spark-env", "Properties": {}, "Configurations": [export]},
        {"Classification": "yarn-site", "Properties": spark.yarn_site | yarn},
    ]


def spark_defaults(cluster: Cluster, region: str | None) -> dict[str, str]:
    """Every Spark property of the cluster."""
    spark = cluster.spark
    environment = spark.environment | {"PYSPARK_PYTHON": spark.python}
    if region is not None:  # containers do not know where they run, and boto3 does not ask the machine
        environment |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    executors = {f"spark.executorEnv.{key}": value for key, value in environment.items()}
    drivers = {f"spark.yarn.appMasterEnv.{key}": value for key, value in environment.items()}
    return spark.spark_defaults | layout(cluster) | executors | drivers


def layout(cluster: Cluster) -> dict[str, str]:
    """How executors and the driver lie on the machines."""
    worker = cluster.worker
    driver = cluster.spark.driver_on(worker)
    return {
        "spark.executor.cores": str(worker.executor_cores),
        "spark.executor.memory": f"{worker.executor_memory_mib}m",
        "spark.executor.memoryOverhead": f"{worker.executor_memory_overhead_mib}m",
        "spark.dynamicAllocation.maxExecutors": str(cluster.max_executors),
        "spark.driver.cores": str(driver.cores),
        "spark.driver.memory": f"{driver.memory_mib}m",
        "spark.driver.memoryOverhead": f"{driver.memory_overhead_mib}m",
    }


def _instances(cluster: Cluster, place: Place, keep: bool) -> dict[str, Any]:
    config = cluster.config
    instances: dict[str, Any] = {
        "KeepJobFlowAliveWhenNoSteps": keep,
        "TerminationProtected": False,
    }
    if config.uses_fleets:
        fleets = [_fleet(role, group, config.spot_timeout_minutes) for role, group in config.groups.items()]
        instances["InstanceFleets"] = fleets
        if place.subnets:
            instances["Ec2SubnetIds"] = list(place.subnets)
    else:
        instances["InstanceGroups"] = [_group(role, group) for role, group in config.groups.items()]
        if len(place.subnets) > 1:
            raise ValueError(
                f"--subnet {','.join(place.subnets)}: {cluster.name} has one instance type per group and takes one "
                "subnet; several are for groups with several instance_types"
            )
        if place.subnets:
            instances["Ec2SubnetId"] = place.subnets[0]
    if place.key_name:
        instances["Ec2KeyName"] = place.key_name
    return instances


def _group(role: str, group: NodeGroup) -> dict[str, Any]:
    return {
        "Name": role.lower(),
        "InstanceRole": role,
        "InstanceType": group.instance_types[0],
        "InstanceCount": group.nodes,
        "Market": _MARKETS[group.market],
        "EbsConfiguration": _volumes(group),
    }


def _fleet(role: str, group: NodeGroup, spot_timeout_minutes: int) -> dict[str, Any]:
    spot = group.market == "spot"
    fleet: dict[str, Any] = {
        "Name": role.lower(),
        "InstanceFleetType": role,
        "TargetSpotCapacity" if spot else "TargetOnDemandCapacity": group.nodes,
        "InstanceTypeConfigs": [
            {"InstanceType": name, "WeightedCapacity": 1, "EbsConfiguration": _volumes(group)}
            for name in group.instance_types
        ],
    }
    if spot:
        fleet["LaunchSpecifications"] = {
            "SpotSpecification": {
                "TimeoutDurationMinutes": spot_timeout_minutes,
                "TimeoutAction": "SWITCH_TO_ON_DEMAND",
                "AllocationStrategy": "price-capacity-optimized",
            }
        }
    return fleet


def _volumes(group: NodeGroup) -> dict[str, Any]:
    volume = {"VolumeType": group.volume.type, "SizeInGB": group.volume.size_gib}
    return {
        "EbsBlockDeviceConfigs": [{"VolumeSpecification": volume, "VolumesPerInstance": group.volume.per_node}],
        "EbsOptimized": True,
    }


def _tags(cluster: Cluster, place: Place) -> dict[str, str]:
    own = {"dhs-version": place.version, "dhs-cluster": cluster.name}
    return dict(cluster.config.tags) | own | dict(place.tags or {})


def _checked(arguments: list[str]) -> list[str]:
    for argument in arguments:
        if len(argument) > _MAX_ARGUMENT:
            raise ValueError(
                f"step argument {argument[:60]}… has {len(argument)} characters, EMR takes {_MAX_ARGUMENT}"
            )
        if not argument:
            raise ValueError(f"empty step argument in {' '.join(arguments)}")
    return arguments
