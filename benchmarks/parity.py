"""Every kernel beside an independent one: writes docs/parity.md; exit code 1 if a difference exceeds its tolerance.

    python benchmarks/parity.py

Needs the development extra (GalSim, lenstronomy). Figures are the largest differences found, and the same everywhere
to rounding. Each subject has a module of its own beside this one, with a function ``rows``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import parity_hybrid
import parity_kernels
import parity_lensing
from parity_rows import ParityRow, markdown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "parity.md"
SUBJECTS: Mapping[str, Callable[[], Sequence[ParityRow]]] = {
    "Kernels, convolution and resampling": parity_kernels.rows,
    "Source profiles": parity_hybrid.rows,
    "Deflections and rendered arcs": parity_lensing.rows,
}


def main() -> int:
    rows = {title: list(make()) for title, make in SUBJECTS.items()}
    PAGE.write_text(page(rows), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))
    return 0 if all(row.passes for found in rows.values() for row in found) else 1


def page(rows: Mapping[str, Sequence[ParityRow]]) -> str:
    """The Markdown of docs/parity.md."""
    peers = ", ".join(f"{name} {version(name)}" for name in ("galsim", "lenstronomy", "scipy"))
    head = (
        "# Parity with other codes\n\nMade by `python benchmarks/parity.py`, which fails if a difference exceeds its "
        f"tolerance.\nPeers: {peers}.\n"
    )
    return head + "".join(f"\n## {title}\n\n{markdown(found)}\n" for title, found in rows.items())


if __name__ == "__main__":
    sys.exit(main())
