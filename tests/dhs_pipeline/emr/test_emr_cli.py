"""Plans and dry runs: without credentials, without a network, and through make."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from emr_shapes import problems

from dhs_pipeline import __version__, cli

ROOT = Path(__file__).parents[3]
INPUTS = ["--out", "s3://b/runs/x", "--data", "s3://b/dr10", "--parent", "s3://b/parent.parquet"]
_NO_NETWORK = """
import json, socket, sys

def refuse(*args, **kwargs):
    raise SystemExit("the network was asked")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from dhs_pipeline.cli import main

for arguments in json.loads(sys.argv[1]):
    print(json.dumps(arguments), main(arguments), flush=True)
"""


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(("AWS_", "DHS_")) and n != "DHS_CONF"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = cli.main(["emr", *arguments])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["emr", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_dry_runs_need_neither_credentials_nor_a_network(tmp_path: Path) -> None:
    """In a process of its own, whose environment holds nothing of AWS and whose sockets refuse."""
    for name in ("SHA256SUMS", "bundle.json", "bootstrap/install.sh", "jobs/stage_4a_manifest.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    place = ["--stage-uri", "s3://b/dhs", *INPUTS, "--generations", "gen7"]
    serverless = ["--target", "serverless", "--application-id", "00f1", "--execution-role", "arn:aws:iam::1:role/x"]
    commands = [
        ["emr", "plan"],
        ["emr", "plan", *place, "--json"],
        ["emr", "plan", *place, "--tasks", "1e6", "--hosts", "1e5"],
        ["emr", "submit", *place, "--dry-run"],
        ["emr", "submit", *place, "--dry-run", "--cluster-id", "j-1"],
        ["emr", "submit", *place, "--dry-run", *serverless],
        ["emr", "upload", *place[:2], "--bundle", str(tmp_path), "--dry-run"],
    ]
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "NUMBA_CACHE_DIR": str(tmp_path / "numba"),
    }
    done = subprocess.run(
        [sys.executable, "-c", _NO_NETWORK, json.dumps(commands)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert done.stderr == ""
    for command in commands:
        assert f"{json.dumps(command)} 0\n" in done.stdout


def test_a_plan_without_anything_shows_the_shape(capsys: pytest.CaptureFixture[str]) -> None:
    page = run(capsys, "plan")
    assert "cluster cluster_34x_m5.2xlarge" in page
    assert "master    1 × m5.2xlarge, on demand" in page
    assert "task     24 × m5.2xlarge, spot" in page
    assert f"s3://BUCKET/dhs/{__version__}/jobs/stage_4c_inject.py" in page
    assert "16.32 USD per hour all on demand" in page  # 34 × (0.384 + 0.096)
    assert "10.79 with spot" in page  # less 24 × 0.384 × 0.6
    assert "give --tasks N" in page


def test_a_plan_counts_hours_and_dollars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = Path(shutil.copytree(ROOT / "conf", tmp_path / "conf"))
    (conf / "emr" / "cost_model.yaml").write_text(
        "measured_on: a test\ndriver_ms_per_unit: 0.0\nworker_ms_per_unit: 0.0\nstages:\n"
        + "".join(
            f"  {stage}: {{start_s: 60.0, worker_ms_per_row: {ms}, read_kb_per_row: 0, written_kb_per_row: 0, "
            "rows_per_unit: 1}\n"
            for stage, ms in (("4b", 264.0), ("4c gen7", 26.4), ("4p5", 2.64))
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DHS_CONF", str(conf))
        arguments = ["--stages", "4b,4c,4p5", "--generations", "gen7,gen6", "--tasks", "1e7", "--hosts", "100,000"]
        page = run(capsys, "plan", *arguments)
        paired = run(capsys, "plan", *arguments, "--pairing", "prime")
    lines = {line[2:22].strip(): line[22:].split() for line in page.splitlines() if " min" in line}
    assert lines["start-up"][:2] == ["10.0", "min"]
    assert lines["4b"][:3] == ["2.7", "min", "100,000"]  # 60 s + 1e5 × 264 ms / 264 vCPUs
    assert lines["4c gen7"][:3] == ["17.7", "min", "10,000,000"]
    assert lines["4p5 gen6"][:3] == ["2.7", "min", "10,000,000"]
    assert lines["in all"][:4] == ["35.7", "min", "20.2", "node-hours,"]
    assert "9.70 USD on demand" in page  # 16.32 USD × 35.67 min
    assert "4c gen6" in page.splitlines()[-1]  # which the model does not know
    assert "no '4c gen6'" in page
    assert "30,000,000 rows" in paired  # positive, control, negative


def test_rows_of_a_finished_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dhs_pipeline.emr.estimate import Rows, rows_of_run
    from dhs_pipeline.storage import Location

    (tmp_path / "phase4a").mkdir()
    (tmp_path / "phase4a" / "_stage.json").write_text(json.dumps({"rows": 4032, "hosts": 63}))
    assert rows_of_run(Location.of(tmp_path)) == Rows(tasks=4032, hosts=63)
    with pytest.raises(ValueError, match=r"no finished stage 4a .*give --tasks and --hosts"):
        rows_of_run(Location.of(tmp_path / "elsewhere"))


def test_the_request_of_a_plan_is_the_one_that_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--bucket", "b", *INPUTS, "--generations", "gen7", "--subnet", "subnet-1", "--region", "eu-west-1"]
    planned = json.loads(run(capsys, "plan", *arguments, "--json"))
    sent = json.loads(run(capsys, "submit", *arguments, "--dry-run"))
    assert sent == {"operation": "run_job_flow", "request": planned}
    assert problems("emr", "RunJobFlow", planned) == []
    assert planned["LogUri"] == "s3://b/dhs/logs/"
    assert planned["Instances"]["Ec2SubnetId"] == "subnet-1"
    assert planned["Name"] == "dhs 4a, 4b, 4c gen7, 4p5 gen7"


def test_what_is_not_in_conf_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "STAGE_URI": "s3a://mine/dhs/",
        "LOG_URI": "s3://mine/elsewhere",
        "SUBNET": "subnet-9",
        "KEY_NAME": "key",
        "SERVICE_ROLE": "service",
        "JOB_FLOW_ROLE": "nodes",
    }.items():
        monkeypatch.setenv(f"DHS_{name}", value)
    request = json.loads(run(capsys, "plan", *INPUTS, "--generations", "gen7", "--json", "--job-flow-role", "given"))
    assert request["LogUri"] == "s3://mine/elsewhere/"
    assert request["Instances"]["Ec2SubnetId"] == "subnet-9"
    assert request["Instances"]["Ec2KeyName"] == "key"
    assert (request["ServiceRole"], request["JobFlowRole"]) == ("service", "given")
    assert request["BootstrapActions"][0]["ScriptBootstrapAction"]["Args"][0] == f"s3://mine/dhs/{__version__}"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["submit", "--dry-run", *INPUTS, "--stages", "4b"], "--stage-uri (or --bucket) is needed, or DHS_STAGE_URI"),
        (["submit", "--dry-run", "--bucket", "b"], "--out is needed"),
        (["submit", "--dry-run", "--stage-uri", "/tmp/x", *INPUTS, "--stages", "4b"], "reads s3:// only"),
        (["submit", "--dry-run", "--bucket", "b", *INPUTS, "--cluster", "huge"], "emr: nothing is called 'huge'"),
        (["submit", "--dry-run", "--bucket", "b", *INPUTS, "--stages", "4b", "--tag", "x"], "--tag x: expected KEY="),
        (["submit", "--dry-run", "--bucket", "b", *INPUTS, "--target", "serverless"], "--application-id is needed"),
        (["upload", "--dry-run", "--bucket", "b", "--bundle", "/nonexistent"], "make it with `make bundle`"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    assert says in refused(capsys, *arguments)


def make(target: str, *variables: str) -> list[str]:
    """The arguments with which a target of the Makefile calls dhs: printed, one a line, by what stands in for dhs."""
    stand_in = "DHS=printf '%s\\n'"
    done = subprocess.run(
        ["make", "-s", "-o", ".venv/.installed", target, stand_in, *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


PLACE = ["STAGE_URI=s3://b/dhs", "OUT=s3://b/runs/x", "DATA=s3://b/dr10", "PARENT=s3://b/p.parquet", "ARGS=--dry-run"]


@pytest.mark.parametrize(
    ("target", "variables", "steps"),
    [
        ("emr-submit", ["GENERATIONS=gen7,control"], ["4a", "4b", "4c gen7", "4c control", "4p5 gen7", "4p5 control"]),
        ("emr-4a", [], ["4a"]),
        ("emr-4b", [], ["4b"]),
        ("emr-4c", [], ["4c gen7"]),
        ("emr-4c", ["GENERATION=gen5", "BANK=s3://b/bank"], ["4c gen5"]),
        ("emr-4p5", ["GENERATION=control"], ["4p5 control"]),
    ],
)
@pytest.mark.parametrize("cluster", [None, "j-7"])
def test_targets_that_submit(
    capsys: pytest.CaptureFixture[str], target: str, variables: list[str], steps: list[str], cluster: str | None
) -> None:
    own = [f"CLUSTER={cluster}"] if cluster else ["CONF=small"]
    arguments = make(target, *PLACE, *variables, *own)
    assert cli.main(arguments) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    request = printed["request"]
    assert [step["Name"] for step in request["Steps"]] == [f"dhs {name}" for name in steps]
    if cluster:
        assert (printed["operation"], request["JobFlowId"]) == ("add_job_flow_steps", "j-7")
    else:
        assert printed["operation"] == "run_job_flow"
        assert sum(group["InstanceCount"] for group in request["Instances"]["InstanceGroups"]) == 3


def test_targets_that_look_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cluster cluster_34x" in run(capsys, *make("emr-plan", "ARGS=--tasks 1e7")[1:])
    assert make("emr-status") == ["emr", "status"]
    arguments = make("emr-status", "CLUSTER=j-7", "REGION=eu-west-1", "ARGS=--watch")
    assert arguments == ["emr", "status", "j-7", "--region", "eu-west-1", "--watch"]
    assert make("emr-logs", "CLUSTER=j-7", "STEP=4c gen7", "ARGS=--stderr") == [
        *("emr", "logs", "j-7", "4c gen7", "--stderr")
    ]
    assert make("emr-terminate", "CLUSTER=j-7", "ARGS=--yes") == ["emr", "terminate", "j-7", "--yes"]
    for line in (make("emr-logs", "CLUSTER=j-7", "STEP=4a"), make("emr-terminate", "CLUSTER=j-7")):
        cli._parser().parse_args(line)
