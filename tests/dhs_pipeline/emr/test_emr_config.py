"""conf/emr: every file is valid, and mistakes are told by file and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dhs_pipeline.config import ConfigError, conf_root
from dhs_pipeline.emr.config import applications, check_release_label, load_cluster

CLUSTERS = sorted(p.stem for p in (conf_root() / "emr").glob("*.yaml") if p.stem != "cost_model")


def altered(tmp_path: Path, **changes: Any) -> str:
    """A copy of the large cluster's file with other values; ``a__b`` goes into a section."""
    tree = yaml.safe_load((conf_root() / "emr" / "cluster_34x_m5.2xlarge.yaml").read_text())
    for key, value in changes.items():
        *sections, last = key.split("__")
        node = tree
        for section in sections:
            node = node[section]
        node[last] = value
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def test_the_users_cluster_is_there() -> None:
    cluster = load_cluster("cluster_34x_m5.2xlarge")
    assert sum(group.nodes for group in cluster.config.groups.values()) == 34
    assert sum(group.nodes * cluster.worker.vcpus for group in cluster.config.groups.values()) == 272
    assert cluster.max_executors == 66


@pytest.mark.parametrize("name", CLUSTERS)
def test_containers_fit_on_their_nodes(name: str) -> None:
    cluster = load_cluster(name)
    worker, driver = cluster.worker, cluster.spark.driver_on(cluster.worker)
    driver_mib = driver.memory_mib + driver.memory_overhead_mib
    assert worker.executors_per_node * worker.executor_mib <= worker.yarn_memory_mib
    assert driver_mib + worker.executor_mib <= worker.yarn_memory_mib  # an executor beside the driver
    per_worker_mib = worker.executor_memory_overhead_mib / worker.executor_cores
    assert per_worker_mib >= 1024  # a Python worker takes 0.8 to 1 GiB


@pytest.mark.parametrize(
    "label", ["emr-7.14.0", "emr-7.1.0", "emr-7.13.0", "emr-spark-8.0.0", "emr-spark-8.1.0", "emr-8.0.0"]
)
def test_labels_of_both_families(label: str) -> None:
    assert check_release_label(label) == label


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("emr-7.0.0", r"Python 3\.11"),
        ("emr-6.15.0", r"Python 3\.11"),
        ("emr-spark-7.1.0", "begins with emr-spark-8"),
        ("emr-7.14", "looks like"),
        ("7.14.0", "looks like"),
        ("emr-spark-8.1.0-latest", "looks like"),
        ("emr-spark-8.1.0\n", "looks like"),
    ],
)
def test_labels_that_are_none(label: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_release_label(label)


def test_applications_by_family() -> None:
    assert applications("emr-7.14.0") == ("Hadoop", "Spark")
    assert applications("emr-spark-8.1.0") == ("Spark",)  # 8.x lists no Hadoop


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nodes": 3}, "nodes: unknown key; allowed: "),
        ({"release_label": "emr-6.0.0"}, "release_label: Python 3.11 is demanded"),
        ({"core__market": "spot"}, "core: on demand"),
        ({"master__nodes": 3}, "master: one node"),
        ({"task__market": "SPOT"}, "task.market: "),
        ({"task__nodes": 0}, "task.nodes: "),
        ({"scaling__maximum_nodes": 20}, "scaling: 33 core and task nodes lie outside 9..20"),
        ({"scaling__maximum_core_nodes": 5}, "scaling: maximum_core_nodes"),
        ({"idle_termination_seconds": 30}, "idle_termination_seconds: "),
        ({"step_concurrency": 2}, "step_concurrency: "),
        ({"tags": {}}, "tags: project is needed"),
        ({"task__instance_types": ["m5.2xlarge", "m9.huge"]}, "emr/instances: nothing is called 'm9.huge'"),
        ({"task__instance_types": ["m5.2xlarge", "m5.xlarge"]}, "one layout cannot serve both"),
        ({"spark": "local"}, "emr/spark: nothing is called 'local'; there are yarn"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_cluster(altered(tmp_path, **changes))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_of_spark_are_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    shutil.copytree(conf_root(), tmp_path / "conf")
    spark = tmp_path / "conf" / "emr" / "spark" / "yarn.yaml"
    spark.write_text(spark.read_text().replace('spark.speculation: "false"', "spark.speculation: false"))
    monkeypatch.setenv("DHS_CONF", str(tmp_path / "conf"))
    with pytest.raises(ConfigError, match=r"yarn\.yaml: spark_defaults\.spark\.speculation: .*string"):
        load_cluster("small")


def test_a_release_of_the_command_line_is_checked() -> None:
    assert load_cluster("small", release_label="emr-spark-8.1.0").config.release_label == "emr-spark-8.1.0"
    with pytest.raises(ConfigError, match=r"--release emr-6\.1\.0: Python 3\.11"):
        load_cluster("small", release_label="emr-6.1.0")


def test_machines_may_not_ask_for_more_than_they_have(tmp_path: Path) -> None:
    from pydantic import ValidationError

    machine = load_cluster("small").worker
    for change in ({"executors_per_node": 2}, {"executor_cores": 5}, {"yarn_memory_mib": 16384}):
        with pytest.raises(ValidationError):
            type(machine).model_validate(machine.model_dump() | change)
