"""The record of runs: one JSON for each, a table of how they compare, and pictures of cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.goals import GOALS, Measurement, in_digits
from bench.machine import Machine

FOLDER = Path(__file__).resolve().parents[2] / "build" / "bench"


@dataclass(frozen=True)
class Run:
    """One run of `make bench`.

    Parameters
    ----------
    started_utc
        As in the file's name, YYYYMMDDTHHMMSSZ.
    seconds
        What it took.
    loads
        Load average before and after.
    inputs
        What was given: names and paths as told on the command line.
    """

    started_utc: str
    seconds: float
    machine: Machine
    loads: tuple[float, float]
    inputs: dict[str, str]
    measurements: tuple[Measurement, ...]

    @property
    def name(self) -> str:
        return f"{self.started_utc}-{self.machine.commit}"


def utc_now() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def save(run: Run, folder: Path = FOLDER) -> Path:
    """Write ``<utc>-<commit>.json``; an existing one is never written over (FileExistsError)."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{run.name}.json"
    with file.open("x", encoding="utf-8") as sink:
        json.dump(asdict(run), sink, indent=1)
        sink.write("\n")
    return file


def load_run(file: Path) -> Run:
    tree = json.loads(file.read_text(encoding="utf-8"))
    return Run(
        started_utc=tree["started_utc"],
        seconds=tree["seconds"],
        machine=Machine(**tree["machine"]),
        loads=(tree["loads"][0], tree["loads"][1]),
        inputs=tree["inputs"],
        measurements=tuple(Measurement.from_json(m) for m in tree["measurements"]),
    )


def load_all(folder: Path = FOLDER) -> list[Run]:
    """Every run of the folder, oldest first."""
    return [load_run(file) for file in sorted(folder.glob("*.json"))]


def comparison(runs: Sequence[Run]) -> str:
    """Markdown: a line for each goal, a column for each run; wrong results are told as such and not as figures."""
    if not runs:
        return f"no runs in {FOLDER}; `make bench` makes one"
    lines = ["| goal | unit | " + " | ".join(run.name for run in runs) + " |", "|---" * (2 + len(runs)) + "|"]
    lines.append("| load, start and end | | " + " | ".join(f"{a:g}, {b:g}" for a, b in (r.loads for r in runs)) + " |")
    for key, goal in GOALS.items():
        cells = [_cell(run, key) for run in runs]
        if any(cells):
            lines.append(f"| {goal.name} | {goal.unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(run: Run, key: str) -> str:
    found = [m for m in run.measurements if m.goal == key]
    if not found or found[0].verdict == "not measured" or found[0].value is None:
        return ""
    return "WRONG" if found[0].verdict == "WRONG" else in_digits(found[0].value)


_MARKERS = "osD^v<>PX*hd"
"""One for each goal: there are more of them than colours."""


def plot_cost(measurements: Sequence[Measurement], file: Path) -> bool:
    """Cost of a stamp against the size of the run, from every measurement with a series; False if there is none."""
    with_series = [m for m in measurements if m.series]
    if not with_series:
        return False
    axes = _axes()
    for m in with_series:
        axes.plot(*zip(*m.series, strict=True), "o-", label=m.goal)
    highest = max(cost for m in with_series for _, cost in m.series)
    axes.set(xscale="log", xlabel="stamps in the run", ylabel="CPU time of a stamp, ms", ylim=(0, 1.15 * highest))
    axes.legend(loc="lower left")
    _save(axes, file)
    return True


def plot_history(runs: Sequence[Run], file: Path) -> bool:
    """Measured over wanted of every goal, by run; at 1 and on the good side it is met. False without two runs."""
    if len(runs) < 2:
        return False
    axes = _axes()
    for number, (key, goal) in enumerate(GOALS.items()):
        found = [(i, m.value) for i, r in enumerate(runs) for m in r.measurements if m.goal == key and m.value]
        if found:
            places, values = zip(*found, strict=True)
            good = [v / goal.wanted if goal.compare == ">=" else goal.wanted / v for v in values]
            axes.plot(places, good, marker=_MARKERS[number % len(_MARKERS)], color=f"C{number % 10}", label=key)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set(yscale="log", ylabel="measured over wanted, 1 and above is met")
    axes.set_xticks(range(len(runs)), [run.name for run in runs], rotation=30, ha="right", fontsize=7)
    axes.legend(fontsize=7, ncols=2)
    _save(axes, file)
    return True


def _axes():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(7, 4.5))[1]


def _save(axes, file: Path) -> None:
    import matplotlib.pyplot as plt

    file.parent.mkdir(parents=True, exist_ok=True)
    axes.figure.savefig(file, dpi=120, bbox_inches="tight")
    plt.close(axes.figure)
