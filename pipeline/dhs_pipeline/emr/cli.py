"""``dhs emr``: plan, upload, submit, status, logs, terminate."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dhs_pipeline import __version__
from dhs_pipeline.config import ConfigError
from dhs_pipeline.emr.config import Cluster, load_cluster
from dhs_pipeline.emr.jobs import STAGES, Job, RunOptions, build_jobs, split_names
from dhs_pipeline.emr.requests import Place, build_add_steps, build_run_job_flow
from dhs_pipeline.storage import Location

_DEFAULT_CLUSTER = "cluster_34x_m5.2xlarge"
_DEFAULT_BUNDLE = "dist/bundle"
_EXAMPLE = {
    "out": "s3://BUCKET/runs/mine",
    "data": "s3://BUCKET/dr10",
    "parent": "s3://BUCKET/parent.parquet",
    "bank": "s3://BUCKET/banks/cosmos",
    "deep_bank": "s3://BUCKET/banks/deep",
}
"""What `dhs emr plan` shows in place of what is not given."""


def add_commands(commands: Any) -> None:
    """Add ``emr`` and what is below it to the subparsers of ``dhs``."""
    text = "clusters on EMR: plan, upload, submit, status, logs, terminate"
    emr = commands.add_parser("emr", help=text, description=text)
    below = emr.add_subparsers(required=True, metavar="WHAT")

    plan = _command(below, "plan", _plan, "what would be created, and what it costs; needs no credentials or network")
    _run_options(plan)
    _cluster_options(plan)
    _rows_options(plan)
    plan.add_argument("--json", action="store_true", help="print the RunJobFlow request itself")

    upload = _command(below, "upload", _upload, "copy the bundle to S3")
    _stage_options(upload)
    upload.add_argument("--all", action="store_true", help="copy also what is there with the same size")
    upload.add_argument("--dry-run", action="store_true", help="list the files; needs no credentials or network")

    submit = _command(below, "submit", _submit, "create a cluster with the steps, or add the steps to a running one")
    _run_options(submit)
    _cluster_options(submit)
    submit.add_argument("--cluster-id", metavar="j-…", help="add the steps to this cluster")
    submit.add_argument("--no-upload", action="store_true", help="the bundle is on S3 already")
    submit.set_defaults(all=False)
    submit.add_argument("--dry-run", action="store_true", help="print the requests; needs no credentials or network")
    _target_options(submit)

    status = _command(
        below, "status", _status, "a cluster, its nodes and steps; without an id, this project's clusters"
    )
    status.add_argument("cluster_id", nargs="?", metavar="CLUSTER_ID")
    status.add_argument("--watch", action="store_true", help="look again until it is over; exit code 1 if it failed")
    status.add_argument("--every", type=float, default=20.0, metavar="SECONDS", help="between looks; default 20")
    status.add_argument("--days", type=float, metavar="N", help="list clusters that ended in the last N days too")
    status.add_argument("--project", default="dark-halo-scope", help="value of the tag `project`")
    _region(status)
    _target_options(status)

    logs = _command(below, "logs", _logs, "logs of a step and its driver")
    logs.add_argument("cluster_id", metavar="CLUSTER_ID")
    logs.add_argument("step", metavar="STEP", help="s-…, a name such as '4c gen7', or bootstrap")
    logs.add_argument("--stderr", action="store_true", help="only stderr")
    logs.add_argument("--stdout", action="store_true", help="only stdout")
    logs.add_argument("--lines", type=int, default=40, help="last lines of each log, 0 for all; default 40")
    _region(logs)

    terminate = _command(below, "terminate", _terminate, "end a cluster, or cancel a job run of Serverless")
    terminate.add_argument("cluster_id", metavar="CLUSTER_ID")
    terminate.add_argument("--yes", action="store_true", help="do it")
    terminate.add_argument("--unprotect", action="store_true", help="take termination protection off first")
    _region(terminate)
    _target_options(terminate)


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _region(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--region", help="default: AWS_REGION, AWS_DEFAULT_REGION or the profile's")


def _stage_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage-uri", metavar="s3://…", help="where bundles and logs lie; or DHS_STAGE_URI")
    parser.add_argument("--bucket", help="short for --stage-uri s3://BUCKET/dhs")
    parser.add_argument("--bundle", default=_DEFAULT_BUNDLE, metavar="DIR", help=f"default {_DEFAULT_BUNDLE}")


def _run_options(parser: argparse.ArgumentParser) -> None:
    run = parser.add_argument_group("the run")
    run.add_argument("--stages", default=",".join(STAGES), help="comma-separated; default all")
    run.add_argument("--generations", action="append", default=[], help="comma-separated; default the configuration's")
    run.add_argument("--out", help="run directory, s3://")
    run.add_argument("--data", help="s3:// prefix with coadd/<AAA>/<brick>/…")
    run.add_argument("--parent", help="parent catalogue, s3://")
    run.add_argument("--bank", help="built COSMOS source bank, s3://; every node copies it when it starts")
    run.add_argument("--deep-bank", help="built deep source bank, likewise")
    run.add_argument("--config", default="data", help="name in conf/run; default data")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one value")
    run.add_argument("--artifacts", metavar="PROFILE", help="artifact profile instead of the generation's own")
    run.add_argument("--pairing", metavar="NAME", help="put controls beside the positives (conf/pairing)")


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


def _plan(args: argparse.Namespace) -> None:
    from dhs_pipeline.emr.estimate import Rows, estimate_run, rows_of_run
    from dhs_pipeline.emr.plan import render_plan

    if not args.json:
        _fill_in_examples(args)
    cluster = load_cluster(args.cluster, release_label=args.release)
    jobs = _jobs(args)
    place = _place(args, jobs)
    if args.json:
        request = build_run_job_flow(cluster, place, jobs, name=_name(args, jobs), keep=args.keep)
        print(json.dumps(request, indent=2))
        return
    rows = None
    if args.rows_from_out:
        rows = rows_of_run(Location.of(args.out))
    elif args.tasks is not None:
        rows = Rows(tasks=args.tasks, hosts=args.tasks if args.hosts is None else args.hosts)
    estimate = None if rows is None else estimate_run(cluster, jobs, rows)
    print(render_plan(cluster, place, jobs, estimate, keep=args.keep))


def _upload(args: argparse.Namespace) -> None:
    from dhs_pipeline.emr.upload import bundle_files, upload_bundle

    bundle, target = Path(args.bundle), Location.of(_bundle_uri(args))
    if args.dry_run:
        print(json.dumps({"target": target.uri, "files": bundle_files(bundle)}, indent=2))
        return
    done = upload_bundle(bundle, target, everything=args.all, tell=lambda name: print(f"  {name}", file=sys.stderr))
    print(
        f"{target}: {len(done.copied)} files copied ({sum(done.copied.values()):,} bytes), {len(done.there)} were there"
    )


def _submit(args: argparse.Namespace) -> int:
    if args.target == "serverless":
        return _submit_serverless(args)
    cluster = load_cluster(args.cluster, release_label=args.release)
    jobs = _jobs(args)
    place = _place(args, jobs)
    if args.cluster_id is not None:
        operation, request = "add_job_flow_steps", build_add_steps(args.cluster_id, place, jobs)
    else:
        name = _name(args, jobs)
        operation, request = "run_job_flow", build_run_job_flow(cluster, place, jobs, name=name, keep=args.keep)
    if args.dry_run:
        print(json.dumps({"operation": operation, "request": request}, indent=2))
        return 0
    _send(args, cluster, place, operation, request)
    return 0


def _send(args: argparse.Namespace, cluster: Cluster, place: Place, operation: str, request: dict[str, Any]) -> None:
    from dhs_pipeline.emr.attach import check_cluster_fits
    from dhs_pipeline.emr.client import reading_client, send_once, writing_client

    if args.cluster_id is not None:  # before anything is uploaded
        check_cluster_fits(reading_client("emr", args.region), args.cluster_id, place)
    _bring_bundle(args, cluster)
    answer = send_once(writing_client("emr", args.region), operation, request)
    cluster_id = args.cluster_id or answer["JobFlowId"]
    print(f"cluster {cluster_id}: {len(request['Steps'])} steps")
    for step, step_id in zip(request["Steps"], answer.get("StepIds", []), strict=False):
        print(f"  {step_id}  {step['Name']}")
    print(f"dhs emr status {cluster_id} --watch")


def _bring_bundle(args: argparse.Namespace, cluster: Cluster) -> None:
    from dhs_pipeline.emr.upload import bundle_files, check_bundle

    if args.no_upload:
        check_bundle(Location.of(_bundle_uri(args)), __version__, cluster.worker.architecture)
        return
    bundle_files(Path(args.bundle))
    check_bundle(Location.of(args.bundle), __version__, cluster.worker.architecture)
    _upload(args)


def _submit_serverless(args: argparse.Namespace) -> int:
    from dhs_pipeline.emr.client import reading_client
    from dhs_pipeline.emr.serverless import Application, build_start_job_run, run_jobs

    cluster = load_cluster(args.cluster, release_label=args.release)
    application = Application(
        application_id=_given(args.application_id, "--application-id", "DHS_APPLICATION_ID"),
        execution_role=_given(args.execution_role, "--execution-role", "DHS_EXECUTION_ROLE"),
        archive=args.archive,
    )
    jobs = _jobs(args)
    place = _place(args, jobs)
    requests = [build_start_job_run(cluster, place, application, job) for job in jobs]
    if args.dry_run:
        print(json.dumps({"operation": "start_job_run", "requests": requests}, indent=2))
        return 0
    _bring_bundle(args, cluster)
    # Each request carries a token of its own, so that one that is sent again starts no second run.
    return 0 if run_jobs(reading_client("emr-serverless", args.region), requests, print) else 1


def _status(args: argparse.Namespace) -> int:
    from dhs_pipeline.emr.client import reading_client
    from dhs_pipeline.emr.status import list_clusters, read_cluster, render, render_list, watch

    if args.target == "serverless":
        return _status_serverless(args)
    client = reading_client("emr", args.region)
    now = datetime.now(UTC)
    if args.cluster_id is None:
        within = None if args.days is None else timedelta(days=args.days)
        print(render_list(list_clusters(client, args.project, ended_within=within, now=now), now))
        return 0
    if not args.watch:
        print(render(read_cluster(client, args.cluster_id), now))
        return 0
    screen = _Screen()
    view = watch(
        lambda: read_cluster(client, args.cluster_id),
        lambda seen, at: screen.show(render(seen, at), [(seen.state, *((s.step_id, s.state) for s in seen.steps))]),
        every_seconds=args.every,
    )
    return 1 if view.failed else 0


def _status_serverless(args: argparse.Namespace) -> int:
    from dhs_pipeline.emr.client import reading_client
    from dhs_pipeline.emr.serverless import describe_job_run, list_job_runs

    client = reading_client("emr-serverless", args.region)
    application_id = _given(args.application_id, "--application-id", "DHS_APPLICATION_ID")
    if args.cluster_id is None:
        for run_id, name, state in list_job_runs(client, application_id):
            print(f"{run_id}  {state:<10} {name}")
        return 0
    state, details = describe_job_run(client, application_id, args.cluster_id)
    print(f"{args.cluster_id}  {state}  {details}".rstrip())
    return 1 if state in ("FAILED", "CANCELLED") else 0


class _Screen:
    """Draws a page over the last one on a terminal; elsewhere prints it only when something else than time changed."""

    def __init__(self) -> None:
        self._before: object = None

    def show(self, page: str, what: object) -> None:
        if sys.stdout.isatty():
            print(f"\x1b[H\x1b[2J{page}", flush=True)
        elif what != self._before:
            print(page, flush=True)
        self._before = what


def _logs(args: argparse.Namespace) -> None:
    from dhs_pipeline.emr.client import reading_client
    from dhs_pipeline.emr.logs import BOOTSTRAP, bootstrap_logs, step_logs
    from dhs_pipeline.emr.status import describe_cluster, find_step

    client = reading_client("emr", args.region)
    cluster = describe_cluster(client, args.cluster_id)
    both = args.stderr == args.stdout
    streams = [name for name, wanted in (("stderr", args.stderr), ("stdout", args.stdout)) if wanted or both]
    if args.step == BOOTSTRAP:
        found = bootstrap_logs(cluster, streams)
    else:
        found = step_logs(cluster, find_step(client, args.cluster_id, args.step), streams)
    for log in found:
        print(f"==> {log.title} <==")
        print(log.tail(args.lines))


def _terminate(args: argparse.Namespace) -> None:
    from dhs_pipeline.emr.attach import terminate_cluster
    from dhs_pipeline.emr.client import reading_client
    from dhs_pipeline.emr.serverless import cancel_job_run

    if args.target == "serverless":
        application_id = _given(args.application_id, "--application-id", "DHS_APPLICATION_ID")
        if not args.yes:
            raise ConfigError(f"job run {args.cluster_id} would be cancelled; say --yes")
        cancel_job_run(reading_client("emr-serverless", args.region), application_id, args.cluster_id)
        print(f"job run {args.cluster_id}: cancelling")
        return
    client = reading_client("emr", args.region)
    print(terminate_cluster(client, args.cluster_id, yes=args.yes, unprotect=args.unprotect))


def _jobs(args: argparse.Namespace) -> list[Job]:
    options = RunOptions(
        out=_given(args.out, "--out", None),
        data=args.data,
        parent=args.parent,
        bank=args.bank,
        deep_bank=args.deep_bank,
        config=args.config,
        overrides=tuple(args.set),
        artifacts=args.artifacts,
        pairing=args.pairing,
    )
    return build_jobs(options, split_names([args.stages]), split_names(args.generations))


def _place(args: argparse.Namespace, jobs: list[Job]) -> Place:
    from dhs_pipeline.emr.client import known_region

    used = {argument for job in jobs for argument in job.arguments}
    subnets = split_names(args.subnet or [os.environ.get("DHS_SUBNET", "")])
    return Place(
        bundle=_bundle_uri(args),
        log_uri=Location.of(args.log_uri or os.environ.get("DHS_LOG_URI") or f"{_stage_uri(args)}/logs").uri,
        version=__version__,
        region=known_region(args.region),
        banks=tuple(bank for bank in (args.bank, args.deep_bank) if bank in used),
        subnets=tuple(subnets),
        key_name=args.key_name or os.environ.get("DHS_KEY_NAME"),
        service_role=args.service_role or os.environ.get("DHS_SERVICE_ROLE"),
        job_flow_role=args.job_flow_role or os.environ.get("DHS_JOB_FLOW_ROLE"),
        tags=dict(_key_value(tag) for tag in args.tag),
    )


def _name(args: argparse.Namespace, jobs: list[Job]) -> str:
    return str(args.name or f"dhs {', '.join(job.name for job in jobs)}")[:256]


def _bundle_uri(args: argparse.Namespace) -> str:
    return f"{_stage_uri(args)}/{__version__}"


def _stage_uri(args: argparse.Namespace) -> str:
    bucket = f"s3://{args.bucket.removeprefix('s3://').strip('/')}/dhs" if args.bucket else None
    where = Location.of(_given(args.stage_uri or bucket, "--stage-uri (or --bucket)", "DHS_STAGE_URI"))
    if not where.is_s3:
        raise ConfigError(f"--stage-uri {where}: a cluster reads s3:// only")
    return where.uri


def _fill_in_examples(args: argparse.Namespace) -> None:
    for key, example in _EXAMPLE.items():
        setattr(args, key, getattr(args, key) or example)
    if not (args.stage_uri or args.bucket or os.environ.get("DHS_STAGE_URI")):
        args.stage_uri = "s3://BUCKET/dhs"


def _given(value: str | None, option: str, variable: str | None) -> str:
    found = value or (os.environ.get(variable) if variable else None)
    if not found:
        raise ConfigError(f"{option} is needed{f', or {variable}' if variable else ''}")
    return found


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ConfigError(f"--tag {text}: expected KEY=VALUE")
    return key, value


def _whole_number(text: str) -> int:
    """``10000000``, ``10_000_000`` or ``1e7``."""
    value = float(text.replace(",", ""))
    if value < 0 or value != int(value):
        raise argparse.ArgumentTypeError(f"{text}: not a number of rows")
    return int(value)
