"""What ``dhs emr`` does, one function per command: parsed arguments in, exit code (or None for 0) out.

boto3 is imported where a service is asked, so that plans and dry runs start fast and need none.
"""

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
from dhs_pipeline.emr.jobs import Job, RunOptions, build_jobs, split_names
from dhs_pipeline.emr.requests import Place, build_add_steps, build_run_job_flow
from dhs_pipeline.storage import Location

_EXAMPLE = {
    "out": "s3://BUCKET/runs/mine",
    "data": "s3://BUCKET/dr10",
    "parent": "s3://BUCKET/parent.parquet",
    "bank": "s3://BUCKET/banks/cosmos",
    "deep_bank": "s3://BUCKET/banks/deep",
}
"""What `dhs emr plan` shows in place of what is not given."""


def plan(args: argparse.Namespace) -> None:
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


def upload(args: argparse.Namespace) -> None:
    from dhs_pipeline.emr.upload import bundle_files, upload_bundle

    bundle, target = Path(args.bundle), Location.of(_bundle_uri(args))
    if args.dry_run:
        print(json.dumps({"target": target.uri, "files": bundle_files(bundle)}, indent=2))
        return
    done = upload_bundle(bundle, target, everything=args.all, tell=lambda name: print(f"  {name}", file=sys.stderr))
    print(
        f"{target}: {len(done.copied)} files copied ({sum(done.copied.values()):,} bytes), {len(done.there)} were there"
    )


def submit(args: argparse.Namespace) -> int:
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
    upload(args)


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


def status(args: argparse.Namespace) -> int:
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


def logs(args: argparse.Namespace) -> None:
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


def terminate(args: argparse.Namespace) -> None:
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
