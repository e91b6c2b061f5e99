"""The goals of speed beside what is measured here, with peers, floors and checks of the results: `make bench`.

    python benchmarks/measure_goals.py [--only kernel,endtoend] [--full] [--data DATA --parent PARENT --bank BANK]
    python benchmarks/measure_goals.py --history

Every part is a script of its own beside this one. The run is kept as JSON in build/bench, with pictures of the cost
against size and of the runs so far. Exit code 1 if a result is wrong or a part broke; a missed goal is told only.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import history, machine
from bench.goals import Inputs, Measurement, exit_code, not_measured, table

PARTS: Mapping[str, tuple[str, ...]] = {
    "kernel": ("kernel-gen5", "kernel-gen7"),
    "endtoend": ("4c-rate", "4c-peer", "4c-floor", "scaling", "flat", "start-up"),
    "manifest": ("4a",),
    "bricks": ("4b",),
    "compaction": ("4p5",),
    "reader": ("reader",),
}
"""Script → the goals that its ``measure`` answers."""


@dataclass(frozen=True)
class Part:
    """What a part found, and whether it came to its end."""

    measurements: Sequence[Measurement]
    broke: bool = False


def run_part(name: str, inputs: Inputs) -> Part:
    """A part's measurements; rows that say so if its script is missing, or broke."""
    goals = PARTS[name]
    if not (Path(__file__).parent / f"{name}.py").exists():
        return Part(not_measured(goals, f"there is no benchmarks/{name}.py"))
    try:
        inputs.work.mkdir()
        found = importlib.import_module(name).measure(inputs)
    except Exception as error:  # noqa: BLE001 - the other parts are worth their figures; the exit code tells
        traceback.print_exc()
        return Part(not_measured(goals, f"benchmarks/{name}.py broke: {type(error).__name__}: {error}"), broke=True)
    missing = [goal for goal in goals if goal not in {m.goal for m in found}]
    return Part([*found, *not_measured(missing, f"benchmarks/{name}.py does not tell it")])


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    if args.history:
        runs = history.load_all()
        print(history.comparison(runs))
        history.plot_history(runs, history.FOLDER / "history.png")
        return 0
    started_utc, started, load = history.utc_now(), time.perf_counter(), machine.load()
    parts = []
    with tempfile.TemporaryDirectory() as work:
        inputs = Inputs(Path(work), args.data, args.parent, args.bank, args.full)
        for name in args.only:
            print(f"{name} …", file=sys.stderr, flush=True)
            parts.append(run_part(name, replace(inputs, work=Path(work) / name)))
    found = tuple(m for part in parts for m in part.measurements)
    run = history.Run(
        started_utc=started_utc,
        seconds=round(time.perf_counter() - started, 1),
        machine=machine.describe(),
        loads=(load, machine.load()),
        inputs={"parts": ",".join(args.only), "size": "full" if args.full else "quick"}
        | {name: str(value) for name in ("data", "parent", "bank") if (value := getattr(args, name)) is not None},
        measurements=found,
    )
    file = history.save(run)
    pictures = (
        [history.FOLDER / f"{run.name}.png"] if history.plot_cost(found, history.FOLDER / f"{run.name}.png") else []
    )
    if history.plot_history(history.load_all(), history.FOLDER / "history.png"):
        pictures.append(history.FOLDER / "history.png")
    print(f"{machine.in_words(run.machine, run.loads)}; {run.seconds:.0f} s\n\n{table(found)}\n")
    print("\n".join(str(written) for written in (file, *pictures)))
    return 1 if any(part.broke for part in parts) else exit_code(found)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_names, default=list(PARTS), metavar="PARTS", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--full", action="store_true", help="all sizes, more tasks; an hour rather than minutes")
    parser.add_argument("--data", type=Path, help="bricks in the DR10 layout; default: simulated ones")
    parser.add_argument("--parent", type=Path, help="their hosts, Parquet")
    parser.add_argument("--bank", type=Path, help="built COSMOS bank; default: a drawn one")
    parser.add_argument("--history", action="store_true", help="compare the runs kept so far, and measure nothing")
    args = parser.parse_args(argv)
    if (args.data is None) != (args.parent is None):
        parser.error("--data and --parent go together: bricks and the catalogue of hosts on them")
    return args


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
