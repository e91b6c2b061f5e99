"""``make faults``: what becomes of a job when something happens to its cluster; exit code 1 if a row is not as it was.

Runs stage 4c (and 4b where that is the subject) of a simulated survey on a Spark standalone cluster of real processes
on this machine, disturbs it, and compares what is left with the undisturbed run of the same inputs.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "pipeline"), str(Path(__file__).parent)]

from fault_ground import make_ground, time_undisturbed  # noqa: E402
from fault_outcome import Outcome  # noqa: E402
from fault_scenarios import SCENARIOS, struck  # noqa: E402
from standalone import StandaloneCluster  # noqa: E402

HEADER = ("scenario", "rows expected", "rows found", "equal", "units", "redone", "time s", "lost s", "what was done")


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: the cluster ends with this process
    names = args.only.split(",") if args.only else list(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        print(f"faults: no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    folder = Path(args.keep).resolve() if args.keep else Path(tempfile.mkdtemp(prefix="dhs-faults-"))
    try:
        outcomes = run_scenarios(names, folder, args.tasks_per_host)
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    write_json(outcomes, Path(args.json))
    print(markdown(outcomes) if args.markdown else table(outcomes))
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--only", metavar="NAMES", help=f"comma-separated: {', '.join(SCENARIOS)}")
    parser.add_argument("--tasks-per-host", type=int, default=64, help="about 54 hosts; 64 tasks each are 3,500 rows")
    parser.add_argument("--json", default=str(REPOSITORY / "build" / "faults.json"))
    parser.add_argument("--markdown", action="store_true", help="print the table for docs/faults.md")
    parser.add_argument("--keep", metavar="FOLDER", help="work there and leave everything")
    return parser


def run_scenarios(names: Sequence[str], folder: Path, tasks_per_host: int) -> list[Outcome]:
    _tell("the undisturbed local run")
    ground = make_ground(folder, tasks_per_host=tasks_per_host)
    outcomes = []
    with StandaloneCluster(folder / "cluster") as cluster:
        _tell("the same on the cluster, undisturbed")
        ground = time_undisturbed(ground, cluster)
        _tell(", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in ground.seconds.items()))
        for name in names:
            _tell(name)
            try:
                outcomes.append(struck(name, ground, cluster))
            except (AssertionError, OSError, RuntimeError, ValueError) as error:  # the others are still worth running
                outcomes.append(Outcome(name, problems=[f"{type(error).__name__}: {error}"]))
            cluster.heal()
            for problem in outcomes[-1].all_problems:
                _tell(f"  {problem}")
    return outcomes


def _tell(text: str) -> None:
    print(f"faults: {text}", file=sys.stderr, flush=True)


def cells(outcome: Outcome) -> tuple[str, ...]:
    if outcome.skipped:
        return (outcome.scenario, *[""] * (len(HEADER) - 2), f"not possible here: {outcome.skipped}")
    lost = "" if outcome.lost_s is None else f"{outcome.lost_s:+.0f}"
    equal = "yes" if outcome.is_good else "NO"
    counts = (outcome.rows_expected, outcome.rows_found)
    work = (outcome.units, outcome.redone, f"{outcome.seconds:.0f}", lost)
    return (outcome.scenario, *map(str, counts), equal, *map(str, work), outcome.fault)


def table(outcomes: Sequence[Outcome]) -> str:
    rows = [HEADER, *(cells(outcome) for outcome in outcomes)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for outcome in outcomes:
        lines += [f"{outcome.scenario}: {problem}" for problem in outcome.all_problems]
    return "\n".join(lines)


def markdown(outcomes: Sequence[Outcome]) -> str:
    rows = [HEADER, ["---"] * len(HEADER), *(cells(outcome) for outcome in outcomes)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_json(outcomes: Sequence[Outcome], where: Path) -> None:
    import pyspark

    extra = ("is_good", "redone", "lost_s")
    found = [asdict(o) | {name: getattr(o, name) for name in extra} for o in outcomes]
    versions = {"spark": pyspark.__version__, "python": platform.python_version()}
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(json.dumps({"versions": versions, "outcomes": found}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
