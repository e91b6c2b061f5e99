"""Write the figures of a gated set, and the list of planted leaks, into docs/gates.md.

python docs/make_gate_tables.py runs/prime/phase4p5/gen5_prime/_gates/gates.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
TESTS = DOCS.parent / "tests" / "dhs_pipeline"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gates", type=Path, help="gates.json of a set")
    args = parser.parse_args(argv)
    page = DOCS / "gates.md"
    text = page.read_text(encoding="utf-8")
    text = _between(text, "figures", figures_table(json.loads(args.gates.read_text(encoding="utf-8"))))
    text = _between(text, "leaks", leaks_table())
    page.write_text(text, encoding="utf-8")


def figures_table(found: Mapping[str, Any]) -> str:
    """A head line, and one row per figure that is judged or shown."""
    kinds = ", ".join(f"{n} {kind}" for kind, n in found["rows_by_kind"].items())
    seconds = sum(r["seconds"] for r in found["results"])
    lines = [
        f"`{Path(found['set']).name}`: {found['rows']} rows ({kinds}), pixels of {found['sample_pairs']} pairs, "
        f"version {found['code_version']}, {seconds:.0f} s in the gates.",
        "",
        "| gate | | figure | value | 95 % interval | limit |",
        "|---|---|---|---|---|---|",
    ]
    for result in found["results"]:
        name, outcome = f"`{result['gate']}`", result["outcome"]
        for figure in result["figures"]:
            low, high = figure["low"], figure["high"]
            interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
            value, limit = _number(figure["value"]), figure["limit"]
            lines.append(f"| {name} | {outcome} | {figure['name']} | {value} | {interval} | {limit} |")
            name = outcome = ""
        if not result["figures"]:
            lines.append(f"| {name} | {outcome} | {result['message']} | | | |")
    return "\n".join(lines)


def leaks_table() -> str:
    """Each leak, where it is planted, and the gate that finds it."""
    sys.path[:0] = [str(TESTS), str(TESTS / "gates")]
    from planted_leaks import LEAKS

    lines = ["| leak | planted in | found by |", "|---|---|---|"]
    for leak in LEAKS.values():
        lines.append(f"| {leak.name} | {'the code of 4c' if leak.code else 'the files'} | `{leak.gate}` |")
    return "\n".join(lines)


def _between(text: str, what: str, table: str) -> str:
    """The text with ``table`` between its two marks."""
    begin, end = f"<!-- {what}: docs/make_gate_tables.py -->\n", f"<!-- end of {what} -->"
    head, rest = text.split(begin)
    return head + begin + "\n" + table + "\n\n" + end + rest.split(end, 1)[1]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    main()
