"""``dhs emr`` on the command line: what can be said. What is then done stands in :mod:`dhs_pipeline.emr.commands`."""

from __future__ import annotations

import argparse
from typing import Any

from dhs_pipeline.emr import commands as run
from dhs_pipeline.emr.jobs import STAGES

_DEFAULT_CLUSTER = "cluster_34x_m5.2xlarge"
_DEFAULT_BUNDLE = "dist/bundle"


def add_commands(commands: Any) -> None:
    """Add ``emr`` and what is below it to the subparsers of ``dhs``."""
    text = "clusters on EMR: plan, upload, submit, status, logs, terminate"
    emr = commands.add_parser("emr", help=text, description=text)
    below = emr.add_subparsers(required=True, metavar="WHAT")

    plan = _command(below, "plan", run.plan, "what would be created and cost; needs no credentials or network")
    _run_options(plan)
    _cluster_options(plan)
    _rows_options(plan)
    plan.add_argument("--json", action="store_true", help="print the RunJobFlow request itself")

    upload = _command(below, "upload", run.upload, "copy the bundle to S3")
    _stage_options(upload)
    upload.add_argument("--all", action="store_true", help="copy also what is there with the same size")
    upload.add_argument("--dry-run", action="store_true", help="list the files; needs no credentials or network")

    submit = _command(below, "submit", run.submit, "create a cluster with the steps, or add the steps to a running one")
    _run_options(submit)
    _cluster_options(submit)
    submit.add_argument("--cluster-id", metavar="j-…", help="add the steps to this cluster")
    submit.add_argument("--no-upload", action="store_true", help="the bundle is on S3 already")
    submit.set_defaults(all=False)
    submit.add_argument("--dry-run", action="store_true", help="print the requests; needs no credentials or network")
    _target_options(submit)

    status = _command(below, "status", run.status, "a cluster, its nodes and steps; or this project's clusters")
    status.add_argument("cluster_id", nargs="?", metavar="CLUSTER_ID")
    status.add_argument("--watch", action="store_true", help="look again until it is over; exit code 1 if it failed")
    status.add_argument("--every", type=float, default=20.0, metavar="SECONDS", help="between looks; default 20")
    status.add_argument("--days", type=float, metavar="N", help="list clusters that ended in the last N days too")
    status.add_argument("--project", default="dark-halo-scope", help="value of the tag `project`")
    _region(status)
    _target_options(status)

    logs = _command(below, "logs", run.logs, "logs of a step and its driver")
    logs.add_argument("cluster_id", metavar="CLUSTER_ID")
    logs.add_argument("step", metavar="STEP", help="s-…, a name such as '4c gen7', or bootstrap")
    logs.add_argument("--stderr", action="store_true", help="only stderr")
    logs.add_argument("--stdout", action="store_true", help="only stdout")
    logs.add_argument("--lines", type=int, default=40, help="last lines of each log, 0 for all; default 40")
    _region(logs)

    terminate = _command(below, "terminate", run.terminate, "end a cluster, or cancel a job run of Serverless")
    terminate.add_argument("cluster_id", metavar="CLUSTER_ID")
    terminate.add_argument("--yes", action="store_true", help="do it")
    terminate.add_argument("--unprotect", action="store_true", help="take termination protection off first")
    _region(terminate)
    _target_options(terminate)


def _command(commands: Any, name: str, action: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=action)
    return parser


def _region(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--region", help="default: AWS_REGION, AWS_DEFAULT_REGION or the profile's")


def _stage_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage-uri", metavar="s3://…", help="where bundles and logs lie; or DHS_STAGE_URI")
    parser.add_argument("--bucket", help="short for --stage-uri s3://BUCKET/dhs")
    parser.add_argument("--bundle", default=_DEFAULT_BUNDLE, metavar="DIR", help=f"default {_DEFAULT_BUNDLE}")


def _run_options(parser: argparse.ArgumentParser) -> None:
    about = parser.add_argument_group("the run")
    about.add_argument("--stages", default=",".join(STAGES), help="comma-separated; default all")
    about.add_argument(
        "--generations", action="append", default=[], help="comma-separated; default the configuration's"
    )
    about.add_argument("--out", help="run directory, s3://")
    about.add_argument("--data", help="s3:// prefix with coadd/<AAA>/<brick>/…")
    about.add_argument("--parent", help="parent catalogue, s3://")
    about.add_argument("--bank", help="built COSMOS source bank, s3://; every node copies it when it starts")
    about.add_argument("--deep-bank", help="built deep source bank, likewise")
    about.add_argument("--config", default="survey", help="name in conf/run; default survey")
    about.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one value")
    about.add_argument("--artifacts", metavar="PROFILE", help="artifact profile instead of the generation's own")
    about.add_argument("--pairing", metavar="NAME", help="put controls beside the positives (conf/pairing)")


def _cluster_options(parser: argparse.ArgumentParser) -> None:
    _stage_options(parser)
    cluster = parser.add_argument_group("the cluster")
    cluster.add_argument("--cluster", default=_DEFAULT_CLUSTER, help=f"name in conf/emr; default {_DEFAULT_CLUSTER}")
    cluster.add_argument("--release", metavar="LABEL", help="EMR release instead of the cluster's")
    cluster.add_argument("--name", help="name of the cluster; default says the stages")
    cluster.add_argument("--keep", action="store_true", help="keep it after its last step, until it has been idle")
    cluster.add_argument("--log-uri", metavar="s3://…", help="default STAGE_URI/logs; or DHS_LOG_URI")
    cluster.add_argument("--subnet", action="append", default=[], help="subnet-…; or DHS_SUBNET")
    cluster.add_argument("--key-name", help="EC2 key pair for ssh; or DHS_KEY_NAME")
    cluster.add_argument("--service-role", help="or DHS_SERVICE_ROLE; default that of conf/emr")
    cluster.add_argument("--job-flow-role", help="or DHS_JOB_FLOW_ROLE; default that of conf/emr")
    cluster.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE")
    _region(cluster)  # type: ignore[arg-type]


def _rows_options(parser: argparse.ArgumentParser) -> None:
    rows = parser.add_argument_group("the estimate")
    rows.add_argument("--tasks", type=_whole_number, help="rows of the manifest")
    rows.add_argument("--hosts", type=_whole_number, help="hosts; default as many as tasks")
    rows.add_argument("--rows-from-out", action="store_true", help="read both from the finished stage 4a of --out")


def _target_options(parser: argparse.ArgumentParser) -> None:
    target = parser.add_argument_group("EMR Serverless")
    target.add_argument("--target", choices=("ec2", "serverless"), default="ec2")
    target.add_argument("--application-id", help="or DHS_APPLICATION_ID")
    target.add_argument("--execution-role", help="ARN; or DHS_EXECUTION_ROLE")
    target.add_argument("--archive", metavar="s3://…", help="packed environment; default that of the image")


def _whole_number(text: str) -> int:
    """``10000000``, ``10_000_000`` or ``1e7``."""
    value = float(text.replace(",", ""))
    if value < 0 or value != int(value):
        raise argparse.ArgumentTypeError(f"{text}: not a number of rows")
    return int(value)
