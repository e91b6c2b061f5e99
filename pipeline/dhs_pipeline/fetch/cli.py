"""``dhs bricks fetch`` and ``dhs bricks status``."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from dhs_pipeline.storage import Location

_SHOWN_FAILURES = 10


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put ``bricks`` with its own commands beside the others."""
    text = "bring the survey's coadd maps to where 4b reads them"
    bricks = commands.add_parser("bricks", help=text, description=text)
    own = bricks.add_subparsers(required=True, metavar="COMMAND")

    text = "download the maps of some bricks; run it again to continue; exit code 1 if files failed"
    fetch = own.add_parser("fetch", help=text, description=text)
    fetch.set_defaults(run=_fetch)
    which = fetch.add_mutually_exclusive_group(required=True)
    which.add_argument("--out", metavar="RUN_DIR", help="bricks of the hosts of a run whose 4a has finished")
    which.add_argument("--bricks", metavar="FILE", help="text, one brick per line")
    which.add_argument("--parent", metavar="CATALOGUE", help="bricks of a parent catalogue (Parquet or FITS)")
    fetch.add_argument("--data", required=True, metavar="DEST", help="folder or s3:// prefix that will hold coadd/")
    fetch.add_argument("--config", default="dr10", help="server and manners: name in conf/fetch or a YAML file")
    fetch.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one value of it")
    fetch.add_argument("--survey", help="bands and paths of the maps (conf/survey); default: the run's, else dr10")
    fetch.add_argument("--columns", default="tractor", help="of --parent: name in conf/parent or a YAML file")
    fetch.add_argument("--jobs", type=int, metavar="N", help="connections; default: the configuration's")
    fetch.add_argument("--limit", type=int, metavar="N", help="only the first N bricks (of the shard)")
    fetch.add_argument("--shard", default="0/1", metavar="I/N", help="this machine's share: 0/2 or 1/2 of two")
    fetch.add_argument("--ask-again", action="store_true", help="also ask for files that were 404 before")
    fetch.add_argument("--scratch", metavar="DIR", help="local folder of partial files")
    fetch.add_argument("--dry-run", action="store_true", help="say what would be fetched, and fetch nothing")
    fetch.add_argument("--quiet", action="store_true", help="no progress bar")

    text = "what became of the files of a fetch; exit code 1 if some failed"
    status = own.add_parser("status", help=text, description=text)
    status.set_defaults(run=_status)
    status.add_argument("--data", required=True, metavar="DEST", help="folder or s3:// prefix that was fetched to")


def _fetch(args: argparse.Namespace) -> int:
    from dhs_pipeline.config import ConfigError
    from dhs_pipeline.fetch.files import Shard, chosen_bricks
    from dhs_pipeline.fetch.run import run_fetch
    from dhs_pipeline.fetch.settings import load_fetch_settings
    from dhs_pipeline.fetch.summary import exit_code
    from dhs_pipeline.fetch.work import FetchPlan

    for name in ("jobs", "limit"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ConfigError(f"--{name} {getattr(args, name)}: must be at least 1")
    settings = load_fetch_settings(args.config, args.set)
    shard = Shard.parse(args.shard)
    bricks, survey = _bricks(args)
    plan = FetchPlan(
        bricks=chosen_bricks(bricks, shard, args.limit),
        survey=survey,
        settings=settings,
        destination=Location.of(args.data),
        jobs=args.jobs or settings.connections,
        shard=shard,
        ask_again=args.ask_again,
        scratch=Path(args.scratch).absolute() if args.scratch else None,
    )
    if args.dry_run:
        print(json.dumps(_forecast(plan), indent=2))
        return 0
    summary = run_fetch(plan, progress=not args.quiet)
    print(json.dumps(_short(summary), indent=2))
    for line in _remarks(summary):
        print(f"dhs: {line}", file=sys.stderr)
    return exit_code(summary)


def _bricks(args: argparse.Namespace) -> tuple[list[str], Any]:
    """Bricks, and the survey whose maps are wanted."""
    from dhs_pipeline.config import ParentColumns, Survey, load_section
    from dhs_pipeline.fetch.files import bricks_of_list, bricks_of_parent, bricks_of_run
    from dhs_pipeline.rundir import RunDir

    if args.out:
        run = RunDir(Location.of(args.out))
        survey = load_section(Survey, "survey", args.survey) if args.survey else run.config().survey
        return bricks_of_run(run), survey
    survey = load_section(Survey, "survey", args.survey or "dr10")
    if args.bricks:
        return bricks_of_list(Path(args.bricks)), survey
    columns = load_section(ParentColumns, "parent", args.columns)
    bricks, without = bricks_of_parent(Location.of(args.parent), columns)
    if without:
        print(f"dhs: {args.parent}: {without} rows have no brick name; 4a will reject them", file=sys.stderr)
    return bricks, survey


def _forecast(plan: Any) -> dict[str, Any]:
    """Bricks, files, bytes and time, from the configuration and the record alone."""
    from dhs_pipeline.fetch.files import expected_bytes, files_of
    from dhs_pipeline.fetch.record import KnownFiles
    from dhs_pipeline.fetch.summary import SETTLED

    known = KnownFiles(plan.destination, plan.bricks)
    files = todo = expected = requests = 0
    for brick in plan.bricks:
        rows = known.of(brick)
        wanted = files_of(brick, plan.survey)
        waiting = [f for f in wanted if f.path not in rows or rows[f.path].status not in SETTLED]
        files += len(wanted)
        todo += len(waiting)
        expected += sum(expected_bytes(f, plan.settings) for f in waiting)
        requests += len(waiting) + bool(waiting and plan.settings.checksums_path)
    seconds = max(expected / 1e6 / plan.settings.megabytes_per_second, requests / plan.settings.requests_per_second)
    return {
        "source": plan.settings.base_url,
        "destination": plan.destination.uri,
        "bricks": len(plan.bricks),
        "files": files,
        "files_settled_by_record": files - todo,
        "files_to_fetch": todo,
        "expected_gigabytes": round(expected / 1e9, 3),
        "hours_at_the_limits": round(seconds / 3600, 2),
    }


def _short(summary: dict[str, Any]) -> dict[str, Any]:
    """Without the lists."""
    missing = summary["bricks_with_files_not_in_release"]
    return {k: v for k, v in summary.items() if k not in ("failures", "bricks_with_files_not_in_release")} | {
        "bricks_with_files_not_in_release": len(missing)
    }


def _remarks(summary: dict[str, Any]) -> list[str]:
    """What a user should not overlook."""
    lines = [f"{f['path']}: {f['status']}: {f['message']}" for f in summary["failures"][:_SHOWN_FAILURES]]
    if len(summary["failures"]) > _SHOWN_FAILURES:
        lines.append("more files failed; summary.json and the record below _fetch tell which")
    if set(summary["files_by_status"]) == {"NOT_FOUND"}:
        lines.append(f"every file is 404 at {summary['source']}: is the base URL right?")
    if summary["stopped"]:
        lines.append(f"stopped: {summary['stopped']}; the same command continues")
    return lines


def _status(args: argparse.Namespace) -> int:
    import pyarrow.compute as pc

    from dhs_pipeline.fetch.record import FetchStatus, read_not_ok, read_record
    from dhs_pipeline.fetch.summary import SETTLED
    from dhs_pipeline.stage import StageError

    data = Location.of(args.data)
    rows = read_record(data, ["path", "brick", "status", "bytes", "verified"])
    if not rows.num_rows:
        raise StageError(f"{data}: no record of a fetch here (_fetch/part-….parquet); `dhs bricks fetch` makes one")
    statuses = Counter(rows.column("status").to_pylist())
    rest = read_not_ok(data, ["path", "brick", "status", "message"]).to_pylist()
    failed = [r for r in rest if r["status"] != FetchStatus.NOT_FOUND]
    shown = {
        "destination": data.uri,
        "bricks": pc.count_distinct(rows.column("brick")).as_py(),
        "files": rows.num_rows,
        "files_by_status": dict(sorted(statuses.items())),
        "files_verified_by_release": pc.sum(rows.column("verified")).as_py(),
        "bytes": pc.sum(rows.column("bytes")).as_py() or 0,
        "bricks_with_files_not_in_release": sorted({r["brick"] for r in rest if r["status"] == FetchStatus.NOT_FOUND}),
    }
    print(json.dumps(shown, indent=2))
    for row in failed[:_SHOWN_FAILURES]:
        print(f"dhs: {row['path']}: {row['status']}: {row['message']}", file=sys.stderr)
    return int(bool(set(statuses) - SETTLED))
