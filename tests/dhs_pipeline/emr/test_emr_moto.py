"""The whole way through the command line against a moto server: upload, submit, add, status, logs, terminate."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from emr_cases import CLEAN
from moto.server import ThreadedMotoServer

from dhs_pipeline import __version__, cli
from dhs_pipeline.emr.client import EmrError, reading_client
from dhs_pipeline.emr.status import list_clusters, read_steps
from dhs_pipeline.emr.upload import check_bundle, upload_bundle
from dhs_pipeline.storage import Location

STAGE = f"s3://stage/dhs/{__version__}"
RUN = ["--bucket", "stage", "--out", "s3://stage/runs/big", "--data", "s3://stage/dr10"]
RUN += ["--parent", "s3://stage/parent.parquet", "--bank", "s3://stage/banks/cosmos", "--cluster", "small"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def emr(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of an account where nothing runs yet, with an empty bucket ``stage``."""
    from moto.backends import get_backend

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (CLEAN | {"AWS_ENDPOINT_URL": server, "AWS_DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    # Not BackendDict.reset(), which empties every service: other tests keep their bucket in the same process.
    for account in (a for service in ("emr", "emrserverless") for a in get_backend(service).values()):
        account.reset()
    bucket = boto3.resource("s3").create_bucket(Bucket="stage")
    bucket.objects.all().delete()
    return boto3.client("emr")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    files = {
        "SHA256SUMS": "sums 1\n",
        "bundle.json": json.dumps({"version": __version__, "platform": "manylinux_2_34_x86_64"}),
        "requirements.txt": "dark-halo-scope\n",
        "bootstrap/install.sh": "#!/bin/sh\n",
        "jobs/stage_4a_manifest.py": "pass\n",
        "wheels/dark_halo_scope.whl": "wheel 1",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def dhs(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and output of `dhs emr …`."""
    code = cli.main(["emr", *arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def submit(capsys: pytest.CaptureFixture[str], bundle: Path, *more: str) -> str:
    code, told = dhs(capsys, "submit", *RUN, "--bundle", str(bundle), *more)
    assert code == 0, told
    return next(word for word in told.split() if word.startswith("j-")).rstrip(":")


def test_from_submit_to_the_end(emr: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster_id = submit(capsys, bundle, "--generations", "gen5,gen7", "--tag", "owner=someone", "--keep")
    assert {file.uri.removeprefix(f"{STAGE}/") for file in Location.of(STAGE).files(recursive=True)} == {
        str(file.relative_to(bundle)) for file in bundle.rglob("*") if file.is_file()
    }
    made = emr.describe_cluster(ClusterId=cluster_id)["Cluster"]
    assert {tag["Key"]: tag["Value"] for tag in made["Tags"]}["owner"] == "someone"
    assert made["ReleaseLabel"] == "emr-7.14.0"
    groups = emr.list_instance_groups(ClusterId=cluster_id)["InstanceGroups"]
    assert sum(group["RequestedInstanceCount"] for group in groups) == 3

    code, told = dhs(capsys, "submit", *RUN, "--cluster-id", cluster_id, "--no-upload", "--stages", "4c,4p5")
    assert code == 0
    assert told.count("s-") >= 6  # the ids of the steps are told
    assert cluster_id in told
    names = [step.name for step in read_steps(reading_client("emr", None), cluster_id)]
    assert names[:6] == ["dhs 4a", "dhs 4b", "dhs 4c gen5", "dhs 4c gen7", "dhs 4p5 gen5", "dhs 4p5 gen7"]
    assert names[6:] == [f"dhs {stage} {name}" for stage in ("4c", "4p5") for name in ("gen5", "gen7", "control")]

    code, told = dhs(capsys, "status", cluster_id)
    assert code == 0
    assert "dhs 4p5 control" in told
    assert cluster_id in dhs(capsys, "status")[1]
    code, told = dhs(capsys, "terminate", cluster_id)
    assert code == 2
    assert "would be terminated; say --yes" in told
    assert dhs(capsys, "terminate", cluster_id, "--yes")[0] == 0
    assert emr.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["State"].startswith("TERMINAT")
    code, told = dhs(capsys, "submit", *RUN, "--cluster-id", cluster_id, "--no-upload", "--stages", "4b")
    assert code == 2  # moto itself would take them
    assert "it takes no steps" in told


def test_a_protected_cluster_is_not_ended_by_accident(emr: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made = emr.run_job_flow(
        Name="theirs", Instances={"KeepJobFlowAliveWhenNoSteps": True, "TerminationProtected": True}
    )
    code, told = dhs(capsys, "terminate", made["JobFlowId"], "--yes")
    assert code == 2
    assert "termination protection is on; --unprotect takes it off" in told
    assert "termination protection is on" in dhs(capsys, "status", made["JobFlowId"])[1]
    assert dhs(capsys, "terminate", made["JobFlowId"], "--yes", "--unprotect")[0] == 0
    assert "already" in dhs(capsys, "terminate", made["JobFlowId"])[1]


def test_a_cluster_started_with_something_else_takes_no_steps(
    emr: Any, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster_id = submit(capsys, bundle, "--stages", "4a", "--keep")  # without a bank: 4a reads none
    code, told = dhs(capsys, "submit", *RUN, "--cluster-id", cluster_id, "--no-upload", "--stages", "4c")
    assert code == 2
    assert "has no copy of s3://stage/banks/cosmos on its nodes" in told
    elsewhere = [*RUN, "--stage-uri", "s3://stage/other", "--bucket", ""]
    code, told = dhs(capsys, "submit", *elsewhere, "--cluster-id", cluster_id, "--no-upload", "--stages", "4b")
    assert code == 2
    assert f"was not started with the bundle s3://stage/other/{__version__} (it had: {STAGE})" in told


def test_clusters_are_found_by_tag_over_many_pages(emr: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """moto lists 50 at a time, as EMR does; one in ten is ours, and one of those has ended."""
    ids = []
    for number in range(60):
        tags = [{"Key": "project", "Value": "dark-halo-scope" if number % 10 == 0 else "other"}]
        made = emr.run_job_flow(Name=f"c{number}", Tags=tags, Instances={"KeepJobFlowAliveWhenNoSteps": True})
        ids.append(made["JobFlowId"])
    assert "Marker" in emr.list_clusters()
    emr.terminate_job_flows(JobFlowIds=[ids[50]])
    now = datetime.now(UTC)
    client = reading_client("emr", None)
    active = list_clusters(client, "dark-halo-scope", ended_within=None, now=now)
    assert {view.name for view in active} == {"c0", "c10", "c20", "c30", "c40"}
    both = list_clusters(client, "dark-halo-scope", ended_within=timedelta(days=1), now=now)
    assert {view.name for view in both} == {"c0", "c10", "c20", "c30", "c40", "c50"}
    assert "no clusters of this project" in dhs(capsys, "status", "--project", "nobody's")[1]


def test_an_unknown_cluster_is_one_line(emr: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = dhs(capsys, "status", "j-NONE")
    assert code == 2
    assert told.startswith("dhs: EMR: cluster j-NONE: InvalidRequestException: ")
    assert told.count("\n") == 1


def test_upload_copies_what_is_not_there(emr: Any, bundle: Path) -> None:
    target = Location.of(STAGE)
    assert len(upload_bundle(bundle, target).copied) == 6
    assert upload_bundle(bundle, target).copied == {}
    (target / "wheels/dark_halo_scope.whl").delete()
    assert set(upload_bundle(bundle, target).copied) == {"wheels/dark_halo_scope.whl"}
    assert len(upload_bundle(bundle, target, everything=True).copied) == 5
    # Another bundle of the same version, with a wheel of the same size.
    (bundle / "wheels/dark_halo_scope.whl").write_text("wheel 2")
    (bundle / "SHA256SUMS").write_text("sums 2\n")
    upload_bundle(bundle, target)
    assert (target / "wheels/dark_halo_scope.whl").read_bytes() == b"wheel 2"
    assert (target / "SHA256SUMS").read_bytes() == b"sums 2\n"


@pytest.mark.parametrize(
    ("description", "says"),
    [
        ({"version": "0.0.1", "platform": "manylinux_2_34_x86_64"}, "is a bundle of version 0.0.1"),
        ({"version": __version__, "platform": "manylinux_2_34_aarch64"}, "the cluster is x86_64: `make bundle ARCH="),
    ],
)
def test_a_bundle_that_does_not_fit_makes_no_cluster(
    emr: Any, bundle: Path, capsys: pytest.CaptureFixture[str], description: dict[str, str], says: str
) -> None:
    (bundle / "bundle.json").write_text(json.dumps(description))
    code, told = dhs(capsys, "submit", *RUN, "--bundle", str(bundle))
    assert code == 2
    assert says in told
    code, told = dhs(capsys, "submit", *RUN, "--no-upload")
    assert "no bundle there; `make bundle`, then `dhs emr upload`" in told
    (bundle / "jobs/stage_4a_manifest.py").unlink()
    assert (
        "no bundle (jobs/stage_4a_manifest.py missing)" in dhs(capsys, "upload", *RUN[:2], "--bundle", str(bundle))[1]
    )
    assert emr.list_clusters()["Clusters"] == []
    with pytest.raises(EmrError, match="no bundle there"):
        check_bundle(Location.of("s3://stage/nothing"), "1", "x86_64")


def test_a_bucket_that_is_not_there(emr: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = dhs(capsys, "upload", "--stage-uri", "s3://missing/dhs", "--bundle", str(bundle))
    assert code == 2
    assert f"s3://missing/dhs/{__version__}: cannot copy the bundle there" in told


def put_gz(uri: str, text: str) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=gzip.compress(text.encode()))


def test_logs_of_a_step_and_its_driver(emr: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster_id = submit(capsys, bundle, "--stages", "4a")
    step_id = emr.list_steps(ClusterId=cluster_id)["Steps"][0]["Id"]
    root = f"s3://stage/dhs/logs/{cluster_id}"
    code, told = dhs(capsys, "logs", cluster_id, step_id)
    assert code == 2
    assert f"{root}: no logs of step {step_id}" in told
    assert "EMR copies them every few minutes" in told

    lines = "".join(f"line {n}\n" for n in range(100))
    put_gz(f"{root}/steps/{step_id}/stderr.gz", f"{lines}Submitted application application_170_0001\n")
    put_gz(f"{root}/steps/{step_id}/controller.gz", "INFO startExec\n")
    containers = f"{root}/containers/application_170_0001"
    put_gz(f"{containers}/container_170_0001_01_000001/stdout.gz", "4a: 12 rows\n")
    put_gz(f"{containers}/container_170_0001_01_000001/stderr.gz", "Traceback of the driver\n")
    put_gz(f"{containers}/container_e02_170_0001_02_000001/stderr.gz", "second attempt\n")
    put_gz(f"{containers}/container_170_0001_01_000002/stderr.gz", "an executor\n")
    code, told = dhs(capsys, "logs", cluster_id, "4a", "--lines", "3")
    assert code == 0
    assert "line 99" in told
    assert "line 97" not in told
    assert "4a: 12 rows" in told
    assert told.index("Traceback of the driver") < told.index("second attempt")
    assert "an executor" not in told
    only = dhs(capsys, "logs", cluster_id, step_id, "--stderr", "--lines", "0")[1]
    assert "line 0\n" in only
    assert "12 rows" not in only
    code, told = dhs(capsys, "logs", cluster_id, "4b")
    assert code == 2
    assert f"has no step '4b'; its steps: {step_id} (dhs 4a)" in told

    cut = gzip.compress(lines.encode())[:40]
    boto3.client("s3").put_object(Bucket="stage", Key=f"dhs/logs/{cluster_id}/steps/{step_id}/stderr.gz", Body=cut)
    assert "not a whole gzip file" in dhs(capsys, "logs", cluster_id, "4a")[1]
    put_gz(f"{root}/node/i-1/bootstrap-actions/1/stderr.gz", "install.sh: python3.11 is not on this machine\n")
    told = dhs(capsys, "logs", cluster_id, "bootstrap")[1]
    assert "==> node/i-1/bootstrap-actions/1/stderr.gz <==\ninstall.sh: python3.11" in told


def test_serverless(emr: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """moto calls every job run a success at once; that the next is started after that is seen from the order."""
    serverless = boto3.client("emr-serverless")
    application = serverless.create_application(name="dhs", releaseLabel="emr-7.14.0", type="SPARK")["applicationId"]
    role = "arn:aws:iam::123456789012:role/dhs-jobs"
    target = ["--target", "serverless", "--application-id", application]
    code, told = dhs(
        capsys, "submit", *RUN, *target, "--execution-role", role, "--bundle", str(bundle), "--generations", "gen7"
    )
    assert code == 0, told
    assert [line.split(":")[0] for line in told.splitlines() if "job run" in line] == [
        "dhs 4a",
        "dhs 4b",
        "dhs 4c gen7",
        "dhs 4p5 gen7",
    ]
    runs = serverless.list_job_runs(applicationId=application)["jobRuns"]
    assert len(runs) == 4
    assert "SUCCESS" in dhs(capsys, "status", runs[0]["id"], *target)[1]
    assert dhs(capsys, "status", *target)[1].count("SUCCESS") == 4
    assert "would be cancelled; say --yes" in dhs(capsys, "terminate", runs[0]["id"], *target)[1]
