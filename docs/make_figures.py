"""The pictures of docs/, made from a finished demo run: python docs/make_figures.py [--run runs/demo].

Only simulated pixels are drawn, so the pictures may be redistributed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dhs_gen.stamps import read_stamp
from dhs_pipeline.report.data import Sample, read_sample, read_stamps
from dhs_pipeline.report.pictures import colour_image
from dhs_pipeline.report.selection import snr_quantiles
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.storage import Location

IMAGES = Path(__file__).resolve().parent / "images"
ROWS = (("stamp", "gen7", "image"), ("control", "control", "image"), ("arc only", "gen7", "arc"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="runs/demo")
    run = RunDir(Location.of(parser.parse_args().run))
    IMAGES.mkdir(exist_ok=True)
    lenses(run, read_sample(run, "gen7", max_rows=10_000)).savefig(IMAGES / "lenses.png", metadata={"Software": ""})
    print(IMAGES / "lenses.png")


def lenses(run: RunDir, sample: Sample) -> Figure:
    """Eight tasks from the faintest to the brightest eighth of the arcs, each with its control and its arc alone."""
    picks = snr_quantiles(sample, "r", 8)
    rows = [sample.row(pick.index) for pick in picks]
    places = {row["task_id"]: sample.places[pick.index] for row, pick in zip(rows, picks, strict=True)}
    figure = Figure(figsize=(12, 4.9), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(ROWS), len(rows))
    for line, (label, generation, layer) in zip(axes, ROWS, strict=True):
        stamps = read_stamps(run.phase4c(generation) / "stamps", places)
        for ax, row in zip(line, rows, strict=True):
            arrays = read_stamp(stamps[row["task_id"]] or b"")
            ax.imshow(colour_image({b: arrays[f"{layer}_{b}"] for b in "grz"}))
            ax.set(xticks=[], yticks=[])
            if label == "stamp":
                ax.set_title(f"θ$_E$ {row['theta_e_arcsec']:.2f}″\nS/N {row['arc_snr_r']:.0f}", fontsize=9)
        line[0].set_ylabel(label, fontsize=9)
    return figure


if __name__ == "__main__":
    main()
