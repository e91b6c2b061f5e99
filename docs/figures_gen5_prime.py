"""Draw docs/images/gen5-prime.png: pairs of a finished run, with every kind of hard negative.

python docs/figures_gen5_prime.py runs/prime/phase4p5/gen5_prime
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dhs_gen.paired_controls import NegativeKind
from dhs_pipeline.gates.data import PairSample
from dhs_pipeline.gates.rerender import open_rerenderer
from dhs_pipeline.gates.sample import read_sample
from dhs_pipeline.gates.scan import find_set, scan_here
from dhs_pipeline.report.pictures import colour_image
from dhs_pipeline.storage import Location

IMAGE = Path(__file__).parent / "images" / "gen5-prime.png"
PAIRS = 5
SNR_R = (60.0, 200.0)
"""Arcs that can be seen in a picture."""
THETA_E_ARCSEC = 1.2


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", help="stamps of a paired generation of a finished run")
    args = parser.parse_args(argv)
    found = find_set(Location.of(args.set))
    sample, bandset = read_sample(found, scan_here(found), 600)
    chosen = sample.take(some_pairs(sample))
    rerender = open_rerenderer(found.stamps, None)
    columns = {"positive": chosen.positive, "control": chosen.control}
    columns |= {k.value.replace("_", " "): rerender.negatives(chosen.task_ids, k.value) for k in NegativeKind}
    draw(columns, bandset)


def some_pairs(sample: PairSample) -> list[int]:
    """Pairs on different hosts whose arcs are wide and bright enough to be seen."""
    snr, theta_e = sample.column("arc_snr_r"), sample.column("theta_e_arcsec")
    visible = np.flatnonzero((snr > SNR_R[0]) & (snr < SNR_R[1]) & (theta_e > THETA_E_ARCSEC))
    first_of_host = {sample.host_ids[i]: int(i) for i in reversed(visible)}
    return list(first_of_host.values())[:PAIRS]


def draw(columns: dict[str, NDArray[np.float32]], bandset: str) -> None:
    """A row per pair, a column per member."""
    figure = Figure(figsize=(1.25 * len(columns), 1.3 * PAIRS), layout="constrained")
    axes = figure.subplots(PAIRS, len(columns))
    for column, (name, images) in enumerate(columns.items()):
        for row, image in enumerate(images):
            ax = axes[row, column]
            ax.imshow(colour_image(dict(zip(bandset, image, strict=True))))
            ax.set_axis_off()
            if row == 0:
                ax.set_title(name, fontsize=7)
    FigureCanvasAgg(figure).print_png(IMAGE)
    print(IMAGE)


if __name__ == "__main__":
    main()
