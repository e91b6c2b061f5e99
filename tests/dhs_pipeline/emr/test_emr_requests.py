"""The requests that EMR gets: golden files, botocore's model of the service, and the stages' own command line."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from emr_cases import OPTIONS, PLACE, all_jobs
from emr_shapes import problems

from dhs_pipeline import cli
from dhs_pipeline.config import ConfigError, conf_root
from dhs_pipeline.emr.config import Cluster, load_cluster
from dhs_pipeline.emr.jobs import STAGES, build_jobs, split_names
from dhs_pipeline.emr.requests import Place, build_add_steps, build_run_job_flow, spark_defaults
from dhs_pipeline.emr.serverless import Application, build_start_job_run

GOLDEN = Path(__file__).parent / "golden"
CLUSTERS = sorted(p.stem for p in (conf_root() / "emr").glob("*.yaml") if p.stem != "cost_model")
APPLICATION = Application("00f1abc", "arn:aws:iam::000000000000:role/dhs-jobs", "s3://stage/dhs/env.tar.gz")


def with_fleets(cluster: Cluster) -> Cluster:
    task = cluster.config.groups["TASK"].model_copy(update={"instance_types": ("m5.2xlarge", "m5d.2xlarge")})
    machines = cluster.machines | {"m5d.2xlarge": cluster.worker.model_copy(update={"name": "m5d.2xlarge"})}
    return cluster.model_copy(update={"config": cluster.config.model_copy(update={"task": task}), "machines": machines})


def requests() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Golden file → service, operation, request."""
    large, small = load_cluster("cluster_34x_m5.2xlarge"), load_cluster("small", release_label="emr-spark-8.1.0")
    subnets = replace(PLACE, subnets=("subnet-0abc", "subnet-0def"))
    jobs = all_jobs()
    run = ("emr", "RunJobFlow")
    return {
        "large": (*run, build_run_job_flow(large, PLACE, jobs, name="dhs big", keep=False)),
        "small_kept": (*run, build_run_job_flow(small, PLACE, jobs[:1], name="dhs trial", keep=True)),
        "fleets": (*run, build_run_job_flow(with_fleets(large), subnets, jobs, name="dhs fleets", keep=False)),
        "add_steps": ("emr", "AddJobFlowSteps", build_add_steps("j-1ABC", PLACE, jobs)),
        "serverless": (
            "emr-serverless",
            "StartJobRun",
            build_start_job_run(large, PLACE, APPLICATION, all_jobs(["gen5"])[2]),
        ),
    }


@pytest.mark.parametrize("name", ["large", "small_kept", "fleets", "add_steps", "serverless"])
def test_golden(name: str) -> None:
    """DHS_WRITE_GOLDEN=1 writes the files anew, after a change that is meant."""
    request = requests()[name][2]
    file = GOLDEN / f"{name}.json"
    if os.environ.get("DHS_WRITE_GOLDEN"):
        file.write_text(json.dumps(request, indent=2) + "\n")
    assert request == json.loads(file.read_text())


@pytest.mark.parametrize("name", ["large", "small_kept", "fleets", "add_steps", "serverless"])
def test_shapes(name: str) -> None:
    service, operation, request = requests()[name]
    ignore = ("clientToken",) if service == "emr-serverless" else ()  # botocore makes it
    assert problems(service, operation, request, ignore=ignore) == []


@pytest.mark.parametrize("label", ["emr-7.14.0", "emr-spark-8.1.0"])
@pytest.mark.parametrize("name", CLUSTERS)
def test_every_cluster_of_conf_is_a_valid_request(name: str, label: str) -> None:
    cluster = load_cluster(name, release_label=label)
    request = build_run_job_flow(cluster, PLACE, all_jobs(), name="x", keep=False)
    assert problems("emr", "RunJobFlow", request) == []
    values = [value for c in request["Configurations"] for value in c["Properties"].values()]
    assert values
    assert all(isinstance(value, str) for value in values)


def test_the_walker_finds_what_botocore_does_not() -> None:
    good = requests()["large"][2]

    def broken(change: Any) -> str:
        request = json.loads(json.dumps(good))
        change(request)
        return "\n".join(problems("emr", "RunJobFlow", request))

    assert "'spot' is none of" in broken(lambda r: r["Instances"]["InstanceGroups"][2].update(Market="spot"))
    assert "'STOP' is none of" in broken(lambda r: r["Steps"][0].update(ActionOnFailure="STOP"))
    assert "UnitType: 'Nodes'" in broken(lambda r: r["ManagedScalingPolicy"]["ComputeLimits"].update(UnitType="Nodes"))
    assert "InstanceRole: required" in broken(lambda r: r["Instances"]["InstanceGroups"][0].pop("InstanceRole"))
    assert "Volumes: unknown key" in broken(lambda r: r["Instances"].update(Volumes=[]))
    assert "Name: 300 is more than 256" in broken(lambda r: r.update(Name="n" * 300))
    assert "does not match" in broken(lambda r: r.update(LogUri="s3://b/\x00"))
    assert "expected integer" in broken(lambda r: r.update(EbsRootVolumeSize="40"))
    assert "expected string" in broken(
        lambda r: r["Configurations"][0]["Properties"].update({"spark.speculation": False})
    )
    assert "InstanceType: 0 is less than 1" in broken(
        lambda r: r["Instances"]["InstanceGroups"][0].update(InstanceType="")
    )
    role = {**requests()["serverless"][2], "executionRoleArn": "role/dhs-jobs-without-an-arn"}
    assert "does not match" in "\n".join(problems("emr-serverless", "StartJobRun", role))


def test_a_failed_step_ends_only_a_cluster_of_its_own() -> None:
    large, jobs = load_cluster("cluster_34x_m5.2xlarge"), all_jobs()
    transient = build_run_job_flow(large, PLACE, jobs, name="x", keep=False)
    kept = build_run_job_flow(large, PLACE, jobs, name="x", keep=True)
    assert {s["ActionOnFailure"] for s in transient["Steps"]} == {"TERMINATE_CLUSTER"}
    assert transient["Instances"]["KeepJobFlowAliveWhenNoSteps"] is False
    assert {s["ActionOnFailure"] for s in kept["Steps"]} == {"CANCEL_AND_WAIT"}
    assert kept["Instances"]["KeepJobFlowAliveWhenNoSteps"] is True
    added = build_add_steps("j-1", PLACE, jobs)
    assert {s["ActionOnFailure"] for s in added["Steps"]} == {"CANCEL_AND_WAIT"}


def test_one_step_for_each_stage_and_generation_in_order() -> None:
    names = [step["Name"] for step in build_add_steps("j-1", PLACE, all_jobs())["Steps"]]
    assert names == ["dhs 4a", "dhs 4b", "dhs 4c gen5", "dhs 4c gen7", "dhs 4p5 gen5", "dhs 4p5 gen7"]


def test_arguments_are_neither_split_nor_quoted() -> None:
    arguments = build_add_steps("j-1", PLACE, all_jobs())["Steps"][0]["HadoopJarStep"]["Args"]
    assert arguments[:5] == ["spark-submit", "--master", "yarn", "--deploy-mode", "cluster"]
    assert arguments[arguments.index("--parent") + 1] == "s3://stage/parent, LRG.parquet"
    assert [a for a, b in zip(arguments[1:], arguments, strict=False) if b == "--set"] == list(OPTIONS.overrides)


def test_generations_may_be_separated_or_repeated() -> None:
    assert split_names(["gen5, gen7", "uber", ""]) == ["gen5", "gen7", "uber"]


@pytest.mark.parametrize(
    ("artifacts", "pairing", "written"),
    [(None, None, "gen7"), ("mild", None, "gen7_mild"), (None, "prime", "gen7_prime"), ("mild", "prime", None)],
)
def test_the_stages_understand_their_arguments(artifacts: str | None, pairing: str | None, written: str | None) -> None:
    """The steps' arguments go through the parser that the job files call."""
    options = replace(OPTIONS, artifacts=artifacts, pairing=pairing)
    for job in build_jobs(options, STAGES, ["gen7"]):
        source = (Path(__file__).parents[3] / "jobs" / job.job_file).read_text()
        command = f"stage-{job.stage}"
        assert f'"{command}"' in source
        args = cli._parser().parse_args([command, *job.arguments])
        assert args.out == OPTIONS.out
        assert args.quiet
        if job.stage == "4p5":
            assert args.generation == (written or "gen7_mild_prime")
            assert args.generation == job.generation
        if job.stage == "4c":
            assert (args.generation, args.artifacts, args.pairing) == ("gen7", artifacts, pairing)
            assert args.bank is None  # gen7 needs none
            assert job.rows_per_task == (3 if pairing else 1)
        if job.stage == "4a":
            assert (args.parent, args.config, args.set) == (OPTIONS.parent, "data", list(OPTIONS.overrides))
        if job.stage == "4b":
            assert args.data == OPTIONS.data


def test_a_bank_goes_to_the_generations_that_read_it() -> None:
    jobs = {job.name: job.arguments for job in all_jobs(["gen5", "gen7", "control"])}
    assert [n for n, arguments in jobs.items() if "--bank" in arguments] == ["4c gen5"]
    options = replace(OPTIONS, deep_bank="s3://stage/banks/deep")
    uber = build_jobs(options, ["4c"], ["uber"])[0].arguments
    assert "--bank" in uber
    assert "--deep-bank" in uber


def test_the_environment_is_the_same_for_bootstrap_driver_and_executors() -> None:
    cluster = load_cluster("cluster_34x_m5.2xlarge")
    request = build_run_job_flow(cluster, PLACE, all_jobs(), name="x", keep=False)
    script = request["BootstrapActions"][0]["ScriptBootstrapAction"]
    assert script["Path"] == "s3://stage/dhs/1.2.3/bootstrap/install.sh"
    assert script["Args"][:3] == ["s3://stage/dhs/1.2.3", "--bank", "s3://stage/banks/cosmos"]
    rest = script["Args"][3:]
    assert set(rest[::2]) == {"--env"}
    told = dict(text.split("=", 1) for text in rest[1::2])
    properties = spark_defaults(cluster, "eu-west-1")
    for prefix in ("spark.executorEnv.", "spark.yarn.appMasterEnv."):
        seen = {k.removeprefix(prefix): v for k, v in properties.items() if k.startswith(prefix)}
        assert told.items() <= seen.items()
        assert seen["PYSPARK_PYTHON"] == "/opt/dhs/venv/bin/python"
        assert seen["AWS_REGION"] == "eu-west-1"
        assert {seen[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")} == {"1"}
        assert seen["NUMBA_CACHE_DIR"].startswith("/")
    assert "AWS_REGION" not in json.dumps(spark_defaults(cluster, None))


def test_serverless_gets_no_settings_of_yarn() -> None:
    request = requests()["serverless"][2]["jobDriver"]["sparkSubmit"]
    parameters = request["sparkSubmitParameters"]
    assert "yarn" not in parameters
    assert "spark.emr-serverless.driverEnv.PYSPARK_PYTHON=./environment/bin/python" in parameters
    assert "spark.archives=s3://stage/dhs/env.tar.gz#environment" in parameters
    assert request["entryPointArguments"][-3:] == ["--bank", "s3://stage/banks/cosmos", "--quiet"]


@pytest.mark.parametrize(
    ("changes", "stages", "generations", "says"),
    [
        ({"parent": None}, ["4a"], [], "stage 4a needs --parent"),
        ({"data": None}, ["4b"], [], "stage 4b needs --data"),
        ({"bank": None}, ["4c"], ["gen5"], "stage 4c gen5 needs --bank"),
        ({}, ["4c"], ["gen6"], "stage 4c gen6 needs --deep-bank"),
        ({}, ["4d"], [], "--stages 4d: the stages are 4a,4b,4c,4p5"),
        ({}, [], [], "--stages (none)"),
        ({}, ["4c"], ["gen9"], "generations: nothing is called 'gen9'"),
        ({"out": "runs/mine"}, ["4b"], [], "a cluster reads and writes s3:// only"),
        ({"bank": "/banks/cosmos"}, ["4c"], ["gen5"], "/banks/cosmos: a cluster reads and writes s3:// only"),
        ({"config": "mine.yaml"}, ["4a"], [], "a file of this machine is not on the cluster"),
        ({"config": "nothing"}, ["4a"], [], "run: nothing is called 'nothing'"),
        ({"overrides": ("manifest.foulds=3",)}, ["4a"], [], "manifest.foulds: unknown key"),
    ],
)
def test_what_is_missing_is_told_before_a_cluster_is_paid_for(
    changes: dict[str, Any], stages: list[str], generations: list[str], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_jobs(replace(OPTIONS, **changes), stages, generations)
    assert says in str(caught.value)


def test_several_subnets_need_fleets() -> None:
    place = replace(PLACE, subnets=("subnet-1", "subnet-2"))
    with pytest.raises(ValueError, match="--subnet subnet-1,subnet-2: small has one instance type per group"):
        build_run_job_flow(load_cluster("small"), place, all_jobs(), name="x", keep=False)


def test_an_argument_that_emr_would_not_take() -> None:
    jobs = build_jobs(replace(OPTIONS, data="s3://bricks/" + "x" * 10300), ["4b"], [])
    with pytest.raises(ValueError, match=r"10312 characters, EMR takes 10280"):
        build_add_steps("j-1", PLACE, jobs)


def test_nothing_of_an_account_stands_in_conf() -> None:
    """No bucket, account number, subnet or key in conf/emr."""
    import re

    text = "\n".join(p.read_text() for p in (conf_root() / "emr").rglob("*.yaml"))
    assert not re.findall(r"\b\d{12}\b|subnet-[0-9a-f]+|arn:aws|AKIA|s3://[a-z0-9]", text)


def test_place_needs_no_region_for_a_dry_run() -> None:
    place = Place(bundle="s3://b/1", log_uri="s3://b/logs", version="1", region=None)
    request = build_run_job_flow(load_cluster("small"), place, all_jobs(), name="x", keep=False)
    assert problems("emr", "RunJobFlow", request) == []
