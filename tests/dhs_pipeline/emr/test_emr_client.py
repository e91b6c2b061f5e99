"""EMR as a server plays it over HTTP: sequences that moto cannot play, lost and throttled answers, refusals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from emr_cases import CLEAN, Answer, PlayedEmr, failure, playing

from dhs_pipeline import cli
from dhs_pipeline.emr.client import EmrError, reading_client, send_once, writing_client
from dhs_pipeline.emr.status import read_cluster, read_steps, render

NOW = 1_790_000_000.0


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in CLEAN.items():
        monkeypatch.setenv(name, value)


@contextmanager
def emr(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> Iterator[PlayedEmr]:
    played = PlayedEmr(answers)
    with playing(played) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EMR", url)
        yield played


def cluster(state: str, **more: Any) -> Answer:
    status = {"State": state, "Timeline": {"CreationDateTime": NOW}} | more.pop("Status", {})
    return 200, {"Cluster": {"Id": "j-1", "Name": "dhs big", "Status": status, "ReleaseLabel": "emr-7.14.0"} | more}


def step(number: int, name: str, state: str, **status: Any) -> dict[str, Any]:
    timeline = {"CreationDateTime": NOW + number}
    if state not in ("PENDING", "CANCELLED"):
        timeline["StartDateTime"] = NOW + 600
    if state in ("FAILED", "COMPLETED"):
        timeline["EndDateTime"] = NOW + 4_305
    return {"Id": f"s-{number}", "Name": f"dhs {name}", "Status": {"State": state, "Timeline": timeline} | status}


def steps(*newest_first: dict[str, Any]) -> Answer:
    return 200, {"Steps": list(newest_first)}


NO_GROUPS: list[Answer] = [(200, {"InstanceGroups": []})]
FAILED = {
    "FailureDetails": {
        "Reason": "Unknown Error.",
        "Message": "StageError: s3://b/runs: exists and was made otherwise",
        "LogFile": "s3://b/logs/j-1/steps/s-1/stderr.gz",
    }
}


def test_watching_a_step_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with emr(
        monkeypatch,
        DescribeCluster=[
            cluster("STARTING"),
            cluster("RUNNING"),
            cluster("RUNNING"),
            cluster(
                "TERMINATED_WITH_ERRORS",
                Status={"StateChangeReason": {"Code": "STEP_FAILURE", "Message": "Shut down as step failed"}},
            ),
        ],
        ListInstanceGroups=[
            (
                200,
                {
                    "InstanceGroups": [
                        {"InstanceGroupType": "TASK", "Market": "SPOT", "InstanceType": "m5.2xlarge"}
                        | {"RunningInstanceCount": 20, "RequestedInstanceCount": 24},
                        {"InstanceGroupType": "MASTER", "Market": "ON_DEMAND", "InstanceType": "m5.2xlarge"}
                        | {"RunningInstanceCount": 1, "RequestedInstanceCount": 1},
                    ]
                },
            )
        ],
        ListSteps=[
            steps(step(2, "4b", "PENDING"), step(1, "4a", "PENDING")),
            steps(step(2, "4b", "PENDING"), step(1, "4a", "RUNNING")),
            steps(step(2, "4b", "PENDING"), step(1, "4a", "RUNNING")),
            steps(step(2, "4b", "CANCELLED"), step(1, "4a", "FAILED", **FAILED)),
        ],
    ) as played:
        code = cli.main(["emr", "status", "j-1", "--watch", "--every", "0"])
    printed = capsys.readouterr().out
    assert code == 1
    assert played.count("DescribeCluster") == 4
    assert printed.count("j-1  dhs big") == 3  # where nothing changed, nothing is printed
    last = printed[printed.rindex("j-1  dhs big") :]
    assert "STEP_FAILURE: Shut down as step failed" in last
    assert "TASK     20 of 24  SPOT       m5.2xlarge" in last
    assert last.index("MASTER") < last.index("TASK")
    assert last.index("s-1  dhs 4a  FAILED         1 h 01 min") < last.index("s-2  dhs 4b  CANCELLED")
    assert "Unknown Error.: StageError: s3://b/runs: exists and was made otherwise" in last
    assert "log: s3://b/logs/j-1/steps/s-1/stderr.gz" in last
    assert "see: dhs emr logs j-1 s-1" in last


def test_watching_a_run_succeed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A kept cluster that waits is over only when its steps are: EMR says WAITING a moment before the first begins."""
    with emr(
        monkeypatch,
        DescribeCluster=[cluster("WAITING"), cluster("RUNNING"), cluster("WAITING")],
        ListInstanceGroups=NO_GROUPS,
        ListSteps=[
            steps(step(1, "4a", "PENDING")),
            steps(step(1, "4a", "RUNNING")),
            steps(step(1, "4a", "COMPLETED")),
        ],
    ) as played:
        assert cli.main(["emr", "status", "j-1", "--watch", "--every", "0"]) == 0
    assert played.count("DescribeCluster") == 3
    assert "COMPLETED" in capsys.readouterr().out


def test_steps_come_in_pages_and_are_shown_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def page(request: dict[str, Any]) -> Answer:
        first = int(request.get("Marker", 120))
        rows = [step(n, f"4c gen{n}", "PENDING") for n in range(first, max(first - 50, 0), -1)]
        return 200, {"Steps": rows} | ({"Marker": str(first - 50)} if first > 50 else {})

    with emr(monkeypatch, ListSteps=page) as played:
        found = read_steps(reading_client("emr", None), "j-1")
    assert [s.step_id for s in found] == [f"s-{n}" for n in range(1, 121)]
    assert played.count("ListSteps") == 3


def test_fleets_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = {
        "InstanceFleetType": "TASK",
        "TargetOnDemandCapacity": 0,
        "TargetSpotCapacity": 24,
        "ProvisionedOnDemandCapacity": 4,
        "ProvisionedSpotCapacity": 18,
        "InstanceTypeSpecifications": [{"InstanceType": "m6i.2xlarge"}, {"InstanceType": "m5.2xlarge"}],
    }
    with emr(
        monkeypatch,
        DescribeCluster=[cluster("RUNNING", InstanceCollectionType="INSTANCE_FLEET")],
        ListInstanceFleets=[(200, {"InstanceFleets": [fleet]})],
        ListSteps=[steps()],
    ):
        view = read_cluster(reading_client("emr", None), "j-1")
    page = render(view, datetime.fromtimestamp(NOW, UTC) + timedelta(minutes=7, seconds=5))
    assert "TASK     22 of 24  SPOT       m5.2xlarge,m6i.2xlarge" in page
    assert "7 min 05 s old" in page


def test_a_bootstrap_failure_names_its_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = {"Code": "BOOTSTRAP_FAILURE", "Message": "On the master instance, bootstrap action 1 returned 1"}
    with emr(
        monkeypatch,
        DescribeCluster=[cluster("TERMINATED_WITH_ERRORS", Status={"StateChangeReason": reason})],
        ListInstanceGroups=NO_GROUPS,
        ListSteps=[steps()],
    ):
        view = read_cluster(reading_client("emr", None), "j-1")
    assert "see: dhs emr logs j-1 bootstrap" in render(view, datetime.now(UTC))


def test_looking_is_tried_again_when_throttled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with emr(
        monkeypatch, ListSteps=[failure(400, "ThrottlingException", "Rate exceeded"), failure(503, "x"), steps()]
    ) as played:
        assert read_steps(reading_client("emr", None), "j-1") == ()
    assert played.count("ListSteps") == 3


def test_a_throttled_request_for_a_cluster_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    throttled = failure(400, "ThrottlingException", "Rate exceeded")
    with emr(monkeypatch, RunJobFlow=[throttled, throttled, (200, {"JobFlowId": "j-9"})]) as played:
        client = writing_client("emr", None)
        answer = send_once(client, "run_job_flow", {"Name": "x", "Instances": {}}, sleep=waits.append)
    assert answer["JobFlowId"] == "j-9"
    assert played.count("RunJobFlow") == 3
    assert waits == [1.0, 2.0]


@pytest.mark.parametrize("lost", [failure(500, "InternalServerException", "oops"), failure(503, "x"), None])
def test_a_request_whose_answer_was_lost_is_not_sent_again(monkeypatch: pytest.MonkeyPatch, lost: Answer) -> None:
    """It may have made a cluster."""
    with emr(monkeypatch, RunJobFlow=[lost]) as played:
        client = writing_client("emr", None)
        with pytest.raises(EmrError, match="whether it was done is not known: look with `dhs emr status`"):
            send_once(client, "run_job_flow", {"Name": "x", "Instances": {}}, sleep=lambda _: None)
    assert played.count("RunJobFlow") == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (failure(400, "ExpiredTokenException", "The security token is expired"), "credentials have expired: log in"),
        (failure(400, "UnrecognizedClientException", "bad token"), "AWS does not accept the credentials"),
        (
            failure(400, "AccessDeniedException", "User: x is not authorized to perform: elasticmapreduce:ListSteps"),
            "not allowed: User: x is not authorized to perform: elasticmapreduce:ListSteps (the permissions",
        ),
        (failure(400, "InvalidRequestException", "Cluster id 'j-1' is not valid."), "Cluster id 'j-1' is not valid."),
        (failure(400, "ValidationException", "Invalid\n  release label"), "ValidationException: Invalid release label"),
    ],
)
def test_refusals_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: Answer, says: str
) -> None:
    with emr(monkeypatch, DescribeCluster=[answer]):
        code = cli.main(["emr", "status", "j-1"])
    told = capsys.readouterr().err
    assert code == 2
    assert told.startswith("dhs: EMR: cluster j-1: ")
    assert says in told
    assert told.count("\n") == 1


def test_a_refusal_does_not_show_secrets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    secret = CLEAN["AWS_SECRET_ACCESS_KEY"]
    with emr(monkeypatch, DescribeCluster=[failure(400, "ValidationException", f"signed with {secret}")]):
        cli.main(["emr", "status", "j-1"])
    captured = capsys.readouterr()
    assert secret not in captured.out + captured.err
    assert "signed with ***" in captured.err


@pytest.mark.parametrize(
    ("unset", "arguments", "says"),
    [
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ["status", "j-1"], "no AWS credentials: set AWS_PROFILE"),
        (("AWS_SECRET_ACCESS_KEY",), ["terminate", "j-1"], "no AWS credentials"),
        (("AWS_REGION",), ["status"], "no AWS region: give --region or set AWS_REGION"),
    ],
)
def test_what_is_missing_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    unset: tuple[str, ...],
    arguments: list[str],
    says: str,
) -> None:
    for name in unset:
        monkeypatch.delenv(name)
    assert cli.main(["emr", *arguments]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


def test_a_profile_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    assert cli.main(["emr", "status"]) == 2
    assert "elsewhere" in capsys.readouterr().err
