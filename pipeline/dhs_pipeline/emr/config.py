"""Models of conf/emr: a cluster, the machines it may have, and the settings of Spark on them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dhs_pipeline.config import ConfigError, load_section
from dhs_pipeline.config.base import Fraction, Model, Positive

Count = Annotated[int, Field(ge=1)]
Market = Literal["on_demand", "spot"]

_LABEL = re.compile(r"emr-(spark-)?(\d+)\.(\d+)\.(\d+)")
_FIRST_PYTHON_311 = (7, 1)
"""EMR release with Python 3.11 on its nodes; every emr-spark-8 has it (EMR Release Guide)."""


def check_release_label(label: str) -> str:
    """The label itself, if it is one of either family and has Python 3.11; ValueError otherwise."""
    match = _LABEL.fullmatch(label)
    if match is None:
        raise ValueError("a release label looks like emr-7.14.0 or emr-spark-8.1.0")
    spark_family, major, minor = match.group(1) is not None, int(match.group(2)), int(match.group(3))
    if spark_family and major < 8:
        raise ValueError("the family emr-spark begins with emr-spark-8.0.0")
    if not spark_family and (major, minor) < _FIRST_PYTHON_311:
        raise ValueError("Python 3.11 is demanded: emr-7.1.0 or later, or any emr-spark-8")
    return label


def applications(label: str) -> tuple[str, ...]:
    """Applications to ask for: emr-spark-8 lists no Hadoop of its own, emr-7 does."""
    return ("Spark",) if label.startswith("emr-spark-") else ("Hadoop", "Spark")


class Prices(Model):
    """USD per hour and machine, on demand; where and when they were so."""

    region: str
    date: str
    ec2_usd_per_hour: Positive
    emr_usd_per_hour: Positive

    @field_validator("date", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> str:
        return str(value)


class InstanceType(Model):
    """A kind of machine (conf/emr/instances) and how executors are laid on it."""

    name: str
    architecture: Literal["x86_64", "aarch64"]
    vcpus: Count
    vcpu_speed: Positive
    network_mb_per_s: Positive
    memory_gib: Count
    yarn_memory_mib: Count
    executors_per_node: Count
    executor_cores: Count
    executor_memory_mib: Count
    executor_memory_overhead_mib: Count
    prices: Prices

    @property
    def working_vcpus(self) -> int:
        """Those that run tasks."""
        return self.executors_per_node * self.executor_cores

    @property
    def executor_mib(self) -> int:
        return self.executor_memory_mib + self.executor_memory_overhead_mib

    @model_validator(mode="after")
    def _fits(self) -> InstanceType:
        if self.yarn_memory_mib >= self.memory_gib * 1024:
            raise ValueError(f"yarn_memory_mib {self.yarn_memory_mib} leaves nothing of {self.memory_gib} GiB")
        if (asked := self.executors_per_node * self.executor_mib) > self.yarn_memory_mib:
            raise ValueError(f"the executors of a node ask for {asked} MiB, YARN has {self.yarn_memory_mib}")
        if self.working_vcpus > self.vcpus:
            raise ValueError(f"the executors of a node ask for {self.working_vcpus} cores, it has {self.vcpus}")
        return self


class Driver(Model):
    cores: Count
    memory_mib: Count
    memory_overhead_mib: Count


class SparkSettings(Model):
    """Settings of Spark and YARN that no machine changes (conf/emr/spark)."""

    python: str
    driver: Driver
    small_driver: Driver
    environment: dict[str, str]
    spark_defaults: dict[str, str]
    yarn_site: dict[str, str]

    def driver_on(self, machine: InstanceType) -> Driver:
        """The large driver where it leaves room for an executor beside it, else the small one."""
        large = self.driver.memory_mib + self.driver.memory_overhead_mib
        return self.driver if large + machine.executor_mib <= machine.yarn_memory_mib else self.small_driver


class Volume(Model):
    type: Literal["gp2", "gp3", "st1"]
    size_gib: Count
    per_node: Count


class NodeGroup(Model):
    instance_types: Annotated[tuple[str, ...], Field(min_length=1, max_length=30)]
    nodes: Count
    market: Market
    volume: Volume


class Scaling(Model):
    """Limits of managed scaling, in core and task nodes."""

    minimum_nodes: Count
    maximum_nodes: Count
    maximum_on_demand_nodes: Annotated[int, Field(ge=0)]
    maximum_core_nodes: Count


class ClusterConfig(Model):
    """A cluster (conf/emr/<name>.yaml)."""

    description: str
    release_label: str
    spark: str
    master: NodeGroup
    core: NodeGroup
    task: NodeGroup | None
    scaling: Scaling | None
    step_concurrency: Literal[1]
    idle_termination_seconds: Annotated[int, Field(ge=60, le=604800)]
    root_volume_gib: Annotated[int, Field(ge=15, le=100)]
    spot_timeout_minutes: Annotated[int, Field(ge=5, le=1440)]
    spot_price_fraction: Fraction
    startup_minutes: Positive
    service_role: str
    job_flow_role: str
    tags: dict[str, str]

    @field_validator("release_label")
    @classmethod
    def _label(cls, value: str) -> str:
        return check_release_label(value)

    @model_validator(mode="after")
    def _consistent(self) -> ClusterConfig:
        if self.master.nodes != 1 or self.master.market != "on_demand":
            raise ValueError("master: one node on demand; the cluster dies with it")
        if self.core.market != "on_demand":
            raise ValueError("core: on demand; drivers and HDFS live there")
        if "project" not in self.tags:
            raise ValueError("tags: project is needed, by it the clusters are found again")
        if self.scaling is not None:
            workers = self.worker_nodes
            if not self.scaling.minimum_nodes <= workers <= self.scaling.maximum_nodes:
                raise ValueError(
                    f"scaling: {workers} core and task nodes lie outside "
                    f"{self.scaling.minimum_nodes}..{self.scaling.maximum_nodes}"
                )
            if not self.core.nodes <= self.scaling.maximum_core_nodes <= self.scaling.maximum_nodes:
                raise ValueError("scaling: maximum_core_nodes lies between core.nodes and maximum_nodes")
        return self

    @property
    def groups(self) -> dict[str, NodeGroup]:
        """By EMR's name of the role."""
        found = {"MASTER": self.master, "CORE": self.core}
        return found | ({"TASK": self.task} if self.task is not None else {})

    @property
    def uses_fleets(self) -> bool:
        """Whether some group may take one of several types; EMR then wants fleets for all of them."""
        return any(len(group.instance_types) > 1 for group in self.groups.values())

    @property
    def worker_nodes(self) -> int:
        return self.core.nodes + (self.task.nodes if self.task is not None else 0)


class Cluster(Model):
    """A cluster with the files that it names."""

    name: str
    config: ClusterConfig
    machines: dict[str, InstanceType]
    spark: SparkSettings

    @property
    def worker(self) -> InstanceType:
        """The machine whose layout the executors have."""
        return self.machines[self.config.core.instance_types[0]]

    @property
    def max_executors(self) -> int:
        nodes = self.config.worker_nodes
        if self.config.scaling is not None:
            nodes = max(nodes, self.config.scaling.maximum_nodes)
        return nodes * self.worker.executors_per_node


def load_cluster(where: str, *, release_label: str | None = None) -> Cluster:
    """Read conf/emr/<where>.yaml (or a YAML file of one's own) and the machines and settings that it names.

    Raises
    ------
    ConfigError
        If a file is missing or invalid, or machines that share a group differ in vCPUs, YARN memory or architecture.
    """
    config = load_section(ClusterConfig, "emr", where)
    if release_label is not None:
        try:
            config = config.model_copy(update={"release_label": check_release_label(release_label)})
        except ValueError as error:
            raise ConfigError(f"--release {release_label}: {error}") from error
    names = sorted({name for group in config.groups.values() for name in group.instance_types})
    cluster = Cluster(
        name=where.rsplit("/", 1)[-1].removesuffix(".yaml").removesuffix(".yml"),
        config=config,
        machines={name: load_section(InstanceType, "emr/instances", name) for name in names},
        spark=load_section(SparkSettings, "emr/spark", config.spark),
    )
    _check_machines(where, cluster)
    return cluster


def _check_machines(where: str, cluster: Cluster) -> None:
    worker = cluster.worker
    for role, group in cluster.config.groups.items():
        for name in group.instance_types:
            machine = cluster.machines[name]
            if machine.architecture != worker.architecture:
                raise ConfigError(f"emr/{where}: {name} is {machine.architecture}, {worker.name} {worker.architecture}")
            if role == "MASTER":
                continue
            if (machine.vcpus, machine.yarn_memory_mib) != (worker.vcpus, worker.yarn_memory_mib):
                raise ConfigError(
                    f"emr/{where}: {role.lower()}: {name} has {machine.vcpus} vCPUs and {machine.yarn_memory_mib} MiB "
                    f"for YARN, {worker.name} {worker.vcpus} and {worker.yarn_memory_mib}: one layout cannot serve both"
                )
    driver = cluster.spark.driver_on(worker)
    if driver.memory_mib + driver.memory_overhead_mib > worker.yarn_memory_mib:
        raise ConfigError(f"emr/{where}: no driver of conf/emr/spark/{cluster.config.spark}.yaml fits on {worker.name}")
