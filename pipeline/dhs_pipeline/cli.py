"""The ``dhs`` command: a whole run, each stage alone, and a closer look."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dhs_pipeline import __version__, bank_cache, warm
from dhs_pipeline.commit import CommitError
from dhs_pipeline.config import ConfigError, RunConfig, load_run_config
from dhs_pipeline.emr import cli as emr_cli
from dhs_pipeline.failures import JobFailedError
from dhs_pipeline.fetch.cli import add_commands as add_bricks
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.session import SessionError, start_session
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location, StorageError

_USER_ERRORS = (
    ConfigError,
    CommitError,
    JobFailedError,
    StageError,
    StorageError,
    SessionError,
    ValueError,
    ImportError,
    PermissionError,
)
"""What a user can mend: told in one line, exit code 2. Anything else is a defect and keeps its traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        code = args.run(args)
    except _USER_ERRORS as error:
        print(f"dhs: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dhs: interrupted; the same command continues where this one stopped", file=sys.stderr)
        return 130
    return code or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dhs", description=__doc__)
    parser.add_argument("--version", action="version", version=f"dark-halo-scope {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = _command(commands, "run", _run, "every stage, on the simulated demo bricks or on given data")
    _out(run)
    _config(run)
    run.add_argument("--data", help="folder or s3:// prefix with coadd/<AAA>/<brick>/…; default: simulate two bricks")
    run.add_argument("--parent", help="parent catalogue (Parquet or FITS); required with --data")
    _banks(run)
    run.add_argument("--generations", help="comma-separated, instead of the configuration's")
    _spark(run)

    stage = _command(commands, "stage-4a", _stage_4a, "parent catalogue → hosts, rejects, manifest")
    _out(stage)
    _config(stage)
    stage.add_argument("--parent", required=True)
    _spark(stage)

    stage = _command(commands, "stage-4b", _stage_4b, "hosts → cutouts")
    _out(stage)
    stage.add_argument("--data", required=True)
    _spark(stage)

    stage = _command(commands, "stage-4c", _stage_4c, "manifest and cutouts → stamps of one generation")
    _out(stage)
    stage.add_argument("--generation", required=True)
    stage.add_argument("--artifacts", metavar="PROFILE", help="artifact profile instead of the generation's own")
    stage.add_argument("--pairing", metavar="NAME", help="put controls beside the positives (conf/pairing)")
    _banks(stage)
    _spark(stage)

    stage = _command(commands, "stage-4p5", _stage_4p5, "stamps → few files, splits by region")
    _out(stage)
    stage.add_argument("--generation", required=True)
    _spark(stage)

    status = _command(commands, "status", _status, "how far a run is, how fast, and what failed; running or finished")
    status.add_argument("run_dir", metavar="RUN_DIR", help="run directory, local or s3://")
    status.add_argument("--watch", type=float, metavar="SECONDS", help="look again every so many seconds until it ends")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.add_argument("--verify", action="store_true", help="read all committed files again and compare checksums")

    report = _command(commands, "report", _report, "write OUT/report/index.html")
    _out(report)

    compare = _command(commands, "compare", _compare, "the same tasks in several generations, checked, in one picture")
    _out(compare)
    compare.add_argument("--generations", help="comma-separated; default: all that are finished")
    compare.add_argument("--tasks", type=int, default=64)
    compare.add_argument("--png", help="where to put the picture; default OUT/report/comparison.png")

    show = _command(commands, "show", _show, "render one task again and print its truth with a picture")
    show.add_argument("task_id", metavar="TASK_ID")
    _out(show)
    show.add_argument("--generation", help="default: the first that is there")
    _banks(show)
    show.add_argument("--png", help="where to put the picture; default OUT/report/<TASK_ID>.png")

    digest = _command(commands, "digest", _digest, "order-independent digest of a data set")
    digest.add_argument("path", metavar="PATH")
    digest.add_argument("--columns", help="comma-separated; default: all but the split labels")

    wide = _command(commands, "wide", _wide, "pairs side by side: one row with the stamps of all members")
    wide.add_argument("path", metavar="PATH", help="stamps of a paired generation: of 4c, or compacted")
    wide.add_argument("--out", required=True, help="folder to make, local or s3://")
    wide.add_argument("--force", action="store_true", help="throw away what is there and do it again")

    gates = _command(commands, "gates", _gates, "what a data set lets a classifier cheat with; exit code 1 if anything")
    gates.add_argument("path", metavar="PATH", help="stamps, or a generation's folder in phase4c or phase4p5")
    gates.add_argument("--config", default="default", help="limits: name in conf/gates or a YAML file")
    gates.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one limit")
    gates.add_argument("--run", dest="run_dir", metavar="RUN_DIR", help="the run that made the set; default: around it")
    gates.add_argument("--real", nargs="+", default=[], metavar="FILE", help="stamps of real lenses")
    gates.add_argument("--only", metavar="NAMES", help="comma-separated gates; default: all")
    gates.add_argument("--out", help="folder of the results; default: _gates in the generation's folder")
    gates.add_argument("--master", help="scan the set on Spark: local[2] and the like")

    bank = _command(commands, "bank", _bank, "build a source bank")
    bank.add_argument("source", metavar="SOURCE", help="GalSim folder or .h5 (cosmos); FITS cutouts or .npz (deep)")
    bank.add_argument("out", metavar="OUT")
    bank.add_argument("--kind", choices=("cosmos", "deep"), default="cosmos")
    _seeing(bank)

    imported = _command(
        commands, "import", _import, "take data of the earlier layouts, and say what became of each column"
    )
    imported.add_argument("source", metavar="SOURCE", help="Parquet file or folder, .h5 bank or .npz bank")
    _out(imported)
    _config(imported)
    kinds = ("auto", "manifest", "stamps", "metrics", "paired", "cosmos-bank", "deep-bank")
    imported.add_argument("--kind", choices=kinds, default="auto", help="default: told from the files")
    _seeing(imported)
    imported.add_argument("--rules", help="name in conf/imports or a YAML file; default: that of the kind")
    imported.add_argument("--force", action="store_true", help="throw away what is there and do it again")

    simulate = _command(commands, "simulate", _simulate, "write two small bricks in DR10 layout and their parent")
    simulate.add_argument("out", metavar="OUT")

    emr_cli.add_commands(commands)
    add_bricks(commands)
    bank_cache.add_commands(commands)
    warm.add_commands(commands)
    return parser


def _command(commands, name, run, text):  # type: ignore[no-untyped-def]
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="run directory, local or s3://")


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="name in conf/run or a YAML file; default: data with --data, else demo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one value")


def _banks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bank", help="COSMOS source bank: built folder, GalSim real-galaxy folder or .h5")
    parser.add_argument("--deep-bank", help="deep source bank: built folder, folder of FITS cutouts or .npz")


def _seeing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--psf-fwhm-arcsec", type=float, help="seeing in a deep .npz bank that does not state it")


def _spark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--master", help="local[2] and the like; default: spark-submit's, or all local cores")
    parser.add_argument("--partitions", type=int, help="Spark partitions; changes the schedule, never the output")
    parser.add_argument("--force", action="store_true", help="throw away what is there and do it again")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _run(args: argparse.Namespace) -> None:
    from dhs_pipeline.run import RunInputs, run_all

    if (args.data is None) != (args.parent is None):
        raise ConfigError("--data and --parent go together: bricks and the catalogue of hosts on them")
    config = load_run_config(args.config or ("data" if args.data else "demo"), args.set)
    names = args.generations.split(",") if args.generations else None
    inputs = RunInputs(
        data=_location(args.data),
        parent=_location(args.parent),
        bank=_location(args.bank),
        deep_bank=_location(args.deep_bank),
    )
    run_all(
        RunDir(Location.of(args.out)),
        config,
        inputs,
        generations=names,
        master=args.master,
        **_schedule(args),
    )


def _stage_4a(args: argparse.Namespace) -> None:
    from dhs_pipeline.manifest.stage import check_parent, run_manifest

    config = load_run_config(args.config or "data", args.set)
    run, parent = RunDir(Location.of(args.out)), Location.of(args.parent)
    check_parent(parent, config)
    run.start(config, force=args.force)
    spark = start_session("dhs 4a", args.master, run.spark_events)
    _print_summary(run_manifest(spark, run, parent, config, force=args.force, progress=not args.quiet))


def _stage_4b(args: argparse.Namespace) -> None:
    from dhs_pipeline.cutouts import run_cutouts

    run, config = _existing(args)
    spark = start_session("dhs 4b", args.master, run.spark_events)
    _print_summary(run_cutouts(spark, run, Location.of(args.data), config, **_schedule(args)))


def _stage_4c(args: argparse.Namespace) -> None:
    from dhs_pipeline.banks import prepare_banks
    from dhs_pipeline.injection import run_injection

    run, config = _existing(args)
    generation = config.generation(args.generation)
    if args.artifacts:
        generation = generation.with_artifacts(args.artifacts)
    if args.pairing:
        generation = generation.with_pairing(args.pairing)
    banks = prepare_banks(_location(args.bank), _location(args.deep_bank), run)
    spark = start_session(f"dhs 4c {generation.name}", args.master, run.spark_events)
    _print_summary(run_injection(spark, run, generation, banks, config, **_schedule(args)))


def _stage_4p5(args: argparse.Namespace) -> None:
    from dhs_pipeline.compact import run_compaction

    run, config = _existing(args)
    spark = start_session(f"dhs 4p5 {args.generation}", args.master, run.spark_events)
    _print_summary(run_compaction(spark, run, args.generation, config, **_schedule(args)))


def _report(args: argparse.Namespace) -> None:
    from dhs_pipeline.report import write_report

    run, _ = _existing(args)
    print(write_report(run))


def _status(args: argparse.Namespace) -> int:
    from dhs_pipeline.monitor import Monitor, StageState, as_json, as_table, changed_files

    run = RunDir(Location.of(args.run_dir))
    monitor = Monitor(run)
    while True:
        stages = monitor.look()
        print(json.dumps(as_json(stages), indent=2) if args.json else as_table(stages), flush=True)
        at_work = any(s.state in (StageState.STARTED, StageState.RUNNING) for s in stages)
        if args.watch is None or (stages and not at_work):
            break
        time.sleep(args.watch)
    changed = changed_files(run) if args.verify else []
    for file in changed:
        print(f"changed: {file}")
    if args.verify and not changed:
        print("every committed file is byte for byte what was written")
    return int(bool(changed) or any(s.state is StageState.DAMAGED for s in stages))


def _compare(args: argparse.Namespace) -> None:
    from dhs_pipeline.compare import compare, write_mosaic

    run, _ = _existing(args)
    names = args.generations.split(",") if args.generations else run.generations()
    comparison = compare(run, names, args.tasks)
    where = Location.of(args.png) if args.png else run.report / "comparison.png"
    write_mosaic(comparison, where)
    print(f"{len(comparison.task_ids)} tasks, {len(names)} generations: {', '.join(names)}")
    print(f"the same in all: {', '.join(comparison.checked)}")
    print(f"picture: {where}")


def _show(args: argparse.Namespace) -> None:
    from dhs_pipeline.show import show_task
    from dhs_pipeline.sources import Banks

    run, config = _existing(args)
    show_task(
        run,
        config,
        args.task_id,
        generation=args.generation,
        banks=Banks(_location(args.bank), _location(args.deep_bank)),
        png=Path(args.png) if args.png else None,
    )


def _digest(args: argparse.Namespace) -> None:
    from dhs_pipeline.digest import digest_path

    print(digest_path(Location.of(args.path), args.columns.split(",") if args.columns else None))


def _wide(args: argparse.Namespace) -> None:
    from dhs_pipeline.wide import write_wide

    _print_summary(write_wide(Location.of(args.path), Location.of(args.out), force=args.force))


def _gates(args: argparse.Namespace) -> int:
    from dhs_pipeline.gates.runner import exit_code, load_limits, results_table, run_gates

    results = run_gates(
        Location.of(args.path),
        load_limits(args.config, args.set),
        master=args.master,
        run_dir=_location(args.run_dir),
        real=[Location.of(file) for file in args.real],
        out=_location(args.out),
        only=args.only.split(",") if args.only is not None else None,
        tell=lambda r: print(f"{r.gate}: {r.outcome} ({r.seconds:.0f} s)", file=sys.stderr, flush=True),
    )
    print(results_table(results))
    return exit_code(results)


def _bank(args: argparse.Namespace) -> None:
    from dhs_pipeline.banks import describe, prepare_cosmos_bank, prepare_deep_bank

    out = Location.of(args.out)
    if out.exists():
        raise StageError(f"{out}: exists; choose another folder for the bank")
    source = Location.of(args.source)
    if args.kind == "deep":
        built = prepare_deep_bank(source, out, psf_fwhm_arcsec=args.psf_fwhm_arcsec)
    else:
        built = prepare_cosmos_bank(source, out)
    print(json.dumps(describe(built), indent=2))


def _import(args: argparse.Namespace) -> None:
    from dhs_pipeline.imports.report import report_text
    from dhs_pipeline.imports.run import run_import

    config = load_run_config(args.config or "data", args.set)
    source, out = Location.of(args.source), Location.of(args.out)
    report = run_import(
        source,
        out,
        config,
        kind=args.kind,
        rules=args.rules,
        force=args.force,
        psf_fwhm_arcsec=args.psf_fwhm_arcsec,
    )
    print(report_text(report))


def _simulate(args: argparse.Namespace) -> None:
    from dhs_pipeline.simulate import load_simulation_settings, simulate_survey

    made = simulate_survey(Path(args.out), load_simulation_settings())
    print(f"DATA={made.data_dir} PARENT={made.parent_path}")


def _location(given: str | None) -> Location | None:
    return Location.of(given) if given else None


def _schedule(args: argparse.Namespace) -> dict[str, Any]:
    """How a stage is to run; none of it changes what it writes."""
    return {"partitions": args.partitions, "force": args.force, "progress": not args.quiet}


def _existing(args: argparse.Namespace) -> tuple[RunDir, RunConfig]:
    run = RunDir(Location.of(args.out))
    return run, run.config()


def _print_summary(summary: dict[str, object]) -> None:
    shown = (
        "stage",
        "generation",
        "manifest_rows",
        "rows_in",
        "rows",
        "rows_left_out",
        "rows_by_status",
        "rows_by_sample_kind",
        "rows_by_negative_kind",
        "rejects_by_reason",
        "seconds",
        "rows_per_second",
        "digests",
    )
    print(json.dumps({key: summary[key] for key in shown if key in summary}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
