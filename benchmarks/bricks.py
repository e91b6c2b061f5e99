"""4b's reading of a brick beside what decompresses the tiles that its hosts need, and does nothing else.

    OMP_NUM_THREADS=1 python benchmarks/bricks.py [--data DATA --parent PARENT] [--repeats 7] [--json FILE]

The bricks are the two simulated ones, compressed as the survey's, and those of ``--parent``, which lie below
``--data``. For each brick three things take turns in this process, the processor time of forked children included;
medians are told:

- 4b: :func:`dhs_pipeline.bricks.read_brick_cutouts`, from files to checked rows with centroids;
- sections: every map opened by astropy, the section of every host's window taken;
- decoders: the decoders alone (Rice with its dither, gzip with its shuffle, HCOMPRESS) on the compressed bytes of the
  distinct tiles below those windows, which lie in memory.

`measure` returns the figures.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.io.fits.hdu.compressed import _tiled_compression as tiled
from bench.goals import Check, Figure, Inputs, Measurement

from dhs_pipeline.bricks import _WINDOW_PIX, HostPosition, _needed_maps, read_brick_cutouts
from dhs_pipeline.config import Survey, load_section
from dhs_pipeline.simulate import load_simulation_settings, simulate_survey
from dhs_pipeline.storage import Location

Decode = Callable[[], object]
Window = tuple[slice, slice]


@dataclass(frozen=True)
class Figures:
    """What :func:`figures_of` finds for one brick.

    Parameters
    ----------
    brickname, hosts
        Which, and how many of its hosts have a place on it.
    ms_per_host, sections_ms_per_host, decoders_ms_per_host
        Processor time of 4b, of astropy's sections and of the decoders alone: medians.
    rate_over_sections, rate_over_decoders
        Rate of 4b over theirs.
    """

    brickname: str
    hosts: int
    ms_per_host: float
    sections_ms_per_host: float
    decoders_ms_per_host: float
    rate_over_sections: float
    rate_over_decoders: float
    largest_difference: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "parent", "json"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        simulated = simulate_survey(Path(folder), load_simulation_settings())
        figures = figures_of(simulated.data_dir, simulated.parent_path, args.repeats)
    if args.data:
        figures += figures_of(Path(args.data), Path(args.parent), args.repeats)
    print(markdown(figures))
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(f) for f in figures], indent=2) + "\n")


def measure(inputs: Inputs) -> list[Measurement]:
    """The goal of 4b, for ``make bench``: beside the decoders alone, and astropy's reading of the same windows."""
    repeats = 15 if inputs.full else 5
    if inputs.data is None or inputs.parent is None:
        simulated = simulate_survey(inputs.work / "survey", load_simulation_settings())
        figures = figures_of(simulated.data_dir, simulated.parent_path, repeats)[0]
    else:
        figures = figures_of(inputs.data, inputs.parent, repeats)[0]
    beside = (
        Figure("4b", figures.ms_per_host, "ms/host"),
        Figure("decoders", figures.decoders_ms_per_host, "ms/host"),
        Figure("astropy's sections", figures.sections_ms_per_host, "ms/host"),
        Figure("rate over the sections", figures.rate_over_sections, "x"),
    )
    note = f"brick {figures.brickname}, {figures.hosts} hosts, processor time with that of children"
    check = Check("largest difference from astropy's section", figures.largest_difference, 0.0, "in the map's unit")
    return [Measurement("4b", figures.rate_over_decoders, beside, (check,), note)]


def figures_of(data: Path, parent: Path, repeats: int = 7) -> list[Figures]:
    """Every brick of a parent catalogue, below a folder of the DR10 layout."""
    survey = load_section(Survey, "survey", "dr10")
    hosts: dict[str, list[HostPosition]] = {}
    for i, row in enumerate(pq.read_table(parent, columns=["brickname", "ra", "dec"]).to_pylist()):
        hosts.setdefault(row["brickname"], []).append(HostPosition(str(i), row["brickname"], row["ra"], row["dec"]))
    return [measure_brick(Location.of(data), name, of_brick, survey, repeats) for name, of_brick in hosts.items()]


def measure_brick(
    data: Location, brickname: str, hosts: Sequence[HostPosition], survey: Survey, repeats: int
) -> Figures:
    """Figures of one brick, over the hosts whose cutouts lie on it."""
    rows = read_brick_cutouts(data, brickname, hosts, survey)
    placed = [i for i, row in enumerate(rows) if row["status"] not in ("OFF_BRICK", "CUTOUT_OFF_EDGE")]
    hosts, rows = [hosts[i] for i in placed], [rows[i] for i in placed]
    windows = windows_of_maps(data, brickname, rows, survey)
    decodes = decoders(windows)
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: read_brick_cutouts(data, brickname, hosts, survey),
        "sections": lambda: take_sections(windows),
        "decoders": lambda: [decode() for decode in decodes],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            before = cpu_seconds()
            way()
            seconds[name].append(cpu_seconds() - before)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return Figures(
        brickname=brickname,
        hosts=len(hosts),
        ms_per_host=1e3 * median["ours"] / len(hosts),
        sections_ms_per_host=1e3 * median["sections"] / len(hosts),
        decoders_ms_per_host=1e3 * median["decoders"] / len(hosts),
        rate_over_sections=median["sections"] / median["ours"],
        rate_over_decoders=median["decoders"] / median["ours"],
        largest_difference=_largest_difference(data, brickname, rows, survey),
    )


def cpu_seconds() -> float:
    """Of this process and its ended children; ``os.times`` counts in steps of 10 ms, a seventh of a small brick."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def windows_of_maps(
    data: Location, brickname: str, rows: Sequence[dict[str, Any]], survey: Survey
) -> dict[str, list[Window]]:
    """File of every map → the windows that 4b takes of it."""
    windows: dict[str, list[Window]] = {}
    for needed in _needed_maps(data, brickname, survey):
        size = _WINDOW_PIX.get(needed.product, survey.cutout_size_pix)
        offset = (survey.cutout_size_pix - size) // 2
        corners = [(row["corner_y_pix"] + offset, row["corner_x_pix"] + offset) for row in rows]
        windows[needed.where.uri] = [(slice(y, y + size), slice(x, x + size)) for y, x in corners]
    return windows


def _largest_difference(data: Location, brickname: str, rows: Sequence[dict[str, Any]], survey: Survey) -> float:
    """Of 4b's pixels from those of astropy's sections, over images and weights; rows that failed count for nothing."""
    largest = 0.0
    windows = windows_of_maps(data, brickname, rows, survey)
    for needed in _needed_maps(data, brickname, survey):
        if needed.product not in ("image", "invvar"):
            continue
        with fits.open(needed.where.uri, memmap=False) as hdus:
            for row, place in zip(rows, windows[needed.where.uri], strict=True):
                if row["status"] == "OK":
                    section = np.asarray(hdus[1].section[place], np.float32).ravel()
                    ours = np.asarray(row[f"{needed.product}_{needed.band}"], np.float32)
                    largest = max(largest, float(np.abs(ours - section).max()))
    return largest


def take_sections(windows: dict[str, list[Window]]) -> None:
    for path, places in windows.items():
        with fits.open(path, memmap=False) as hdus:
            section = hdus[1].section
            for place in places:
                section[place]


def decoders(windows: dict[str, list[Window]]) -> list[Decode]:
    """Calls that decode each distinct tile below the windows, noted while astropy reads it."""
    noted: list[Decode] = []
    for path, places in windows.items():
        with fits.open(path, memmap=False) as hdus, noting(hdus[1].compression_type, noted):
            for tile in tiles_below(places, hdus[1].tile_shape):
                hdus[1].section[tile]
    return noted


def tiles_below(places: Sequence[Window], tile_shape: tuple[int, int]) -> list[Window]:
    """A window of one pixel in each distinct tile."""
    numbers = set()
    for place in places:
        along = [range(s.start // side, (s.stop - 1) // side + 1) for s, side in zip(place, tile_shape, strict=True)]
        numbers |= set(product(*along))
    firsts = [(row * tile_shape[0], column * tile_shape[1]) for row, column in sorted(numbers)]
    return [(slice(y, y + 1), slice(x, x + 1)) for y, x in firsts]


@contextmanager
def noting(compression: str, noted: list[Decode]) -> Iterator[None]:
    """Keep what astropy's decoders are called with, but for a first look at GZIP_2 tiles that only asks for a size."""
    decompress, dequantize = tiled._decompress_tile, tiled.Quantize.decode_quantized

    def decompressed(buf: Any, *, algorithm: str, **settings: Any) -> Any:
        if (algorithm, compression) != ("GZIP_1", "GZIP_2"):
            noted.append(partial(decompress, np.array(buf), algorithm=algorithm, **settings))
        return decompress(buf, algorithm=algorithm, **settings)

    def dequantized(self: Any, buf: Any, scale: float, zero: float) -> Any:
        noted.append(partial(dequantize, self, buf, scale, zero))
        return dequantize(self, buf, scale, zero)

    tiled._decompress_tile, tiled.Quantize.decode_quantized = decompressed, dequantized
    try:
        yield
    finally:
        tiled._decompress_tile, tiled.Quantize.decode_quantized = decompress, dequantize


def markdown(figures: Sequence[Figures]) -> str:
    lines = ["Processor time per host, ms, and 4b's rate over the others'.", ""]
    lines += [
        "| brick | hosts | 4b | sections | decoders | over sections | over decoders |",
        "|---|---|---|---|---|---|---|",
    ]
    for f in figures:
        times = f"{f.ms_per_host:.1f} | {f.sections_ms_per_host:.1f} | {f.decoders_ms_per_host:.1f}"
        lines.append(
            f"| {f.brickname} | {f.hosts} | {times} | {f.rate_over_sections:.2f} | {f.rate_over_decoders:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
