"""How many stamps a second one core reads into float32 arrays, and what their encoding costs.

    python benchmarks/reader.py [--stamps 2048] [--repeats 5] [--set phase4p5/<generation>] [--out table.md]

Sets of stamps, of noise or taken from ``--set``, are written with the options of the pipeline's writer (row groups of
256, all columns) in several encodings and read with one thread from the page cache, each file four times by links: what
a long set costs, not its first row groups:

- **NumPy**: `dhs_finder.reader`, shuffled, batches of 256; **in order** without a seed; **PyTorch**: the data set,
  without workers;
- **checksums**: NumPy with Parquet's page checksums verified;
- **Arrow**: the column read and decompressed, nothing decoded: what no reader of this file can beat;
- **row by row**: `to_pylist` and `read_stamp`, the images stacked.

`raw` is a peer that holds the pixels of the images alone as bytes, read by Arrow and permuted within the row group.
Seconds are processor time of this process; ways take turns, medians are printed, and a ratio is that of medians of one
run. Rates of machines differ: quote ratios.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench.goals import Check, Figure, Inputs, Measurement
from numpy.typing import NDArray

from dhs_finder.reader import read_batches
from dhs_finder.stamp_set import Epoch, StampSource, find_stamps
from dhs_finder.torch_dataset import StampDataset
from dhs_gen.stamps import encode_stamp, read_stamp
from dhs_gen.streams import stream
from dhs_pipeline.config import Compact, load_section
from dhs_pipeline.schemas import COMPACTED
from dhs_pipeline.storage.parquet import encode_parquet

ROW_GROUP_ROWS, FILE_ROWS, SIZE, BANDS = 256, 2048, 64, "grz"
LINKS = 4
COMPRESSIONS = ("zstd", "snappy", "lz4", "none")
IMAGE, ALL = ("image",), ("image", "invvar", "arc", "maskbits")
SHOWN = ("NumPy", "Arrow", "row by row")
Arrays = dict[str, NDArray[np.generic]]
Way = Callable[[], int]


@dataclass(frozen=True)
class Encoding:
    """How a set is written: ``stored`` layers in ``stamp_npz``, or the images' raw pixels."""

    stored: tuple[str, ...]
    compression: str
    raw: bool = False

    def __str__(self) -> str:
        held = "image" if self.stored == IMAGE else "all layers"
        return f"{'raw' if self.raw else 'NPZ'}, {held}, {self.compression}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stamps", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--set", type=Path, help="a compacted set whose stamps are taken instead of noise")
    parser.add_argument("--out", type=Path, help="write the tables here too")
    args = parser.parse_args()
    pa.set_cpu_count(1)
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        stamps = list(islice(stamps_of(args.set) if args.set else noise(), args.stamps))
        for stored in (IMAGE, ALL):
            lines += table(Path(folder), stamps, stored, args.repeats)
    text = "\n".join(lines)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def noise() -> Iterator[Arrays]:
    """Stamps without end: a galaxy in noise, a patchy invvar, a smooth arc, a mask of few bits."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    r = np.hypot(x, y)
    for number in range(2**62):
        rng = stream(str(number), "benchmark noise")
        sigma = rng.uniform(0.005, 0.03, 3)
        arrays: Arrays = {}
        for band, s in zip(BANDS, sigma, strict=True):
            image = rng.normal(0, s, r.shape) + np.exp(-r / rng.uniform(2, 6))
            arrays[f"image_{band}"] = image.astype(np.float32)
        for band, s in zip(BANDS, sigma, strict=True):
            exposures = 3 + (x > rng.integers(-40, 40)) + (y > rng.integers(-40, 40))
            arrays[f"invvar_{band}"] = (exposures / s**2 * rng.normal(1, 0.01, r.shape)).astype(np.float32)
        for band in BANDS:
            ring = np.exp(-((r - rng.uniform(4, 8)) ** 2) / 8) * (1 + x / SIZE)
            arrays[f"arc_{band}"] = (0.02 * ring).astype(np.float32)
        mask = np.where((x - rng.integers(-32, 32)) ** 2 + (y - rng.integers(-32, 32)) ** 2 < 9, 2, 0)
        yield arrays | {"maskbits": mask.astype(np.int32)}


def stamps_of(folder: Path) -> Iterator[Arrays]:
    """The stamps of a set that have all layers."""
    for file in sorted(folder.rglob("*.parquet")):
        for blob in pq.read_table(file, columns=["stamp_npz"]).column(0).drop_null():
            yield read_stamp(blob.as_py())


def table(folder: Path, stamps: Sequence[Arrays], stored: tuple[str, ...], repeats: int) -> list[str]:
    """Markdown of one sort of stamps; images alone are read."""
    encodings = [Encoding(stored, c) for c in COMPRESSIONS]
    if stored == IMAGE:
        encodings += [Encoding(stored, c, raw=True) for c in COMPRESSIONS]
    ways: dict[tuple[Encoding, str], Way] = {}
    bytes_per_stamp = {}
    for encoding in encodings:
        where = folder / str(encoding).replace(", ", "-").replace(" ", "-")
        bytes_per_stamp[encoding] = write(where, stamps, encoding) / len(stamps)
        ways |= {(encoding, name): way for name, way in ways_of(where, encoding).items()}
    took = turns(ways, repeats)
    names = list(dict.fromkeys(name for _, name in ways))
    slow = took[encodings[0], "row by row"]
    title = "images" if stored == IMAGE else "all layers, of which the images are read"
    lines = [f"\nStamps of {title}: {len(stamps)}, {repeats} repeats; stamps/s per core (ratio to row by row, zstd)\n"]
    lines += [f"| column | bytes per stamp | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for encoding in encodings:
        cells = [
            f"{took[encoding, name]:,.0f} ({took[encoding, name] / slow:.1f})" if (encoding, name) in took else ""
            for name in names
        ]
        lines.append(f"| {encoding} | {bytes_per_stamp[encoding]:,.0f} | {' | '.join(cells)} |")
    return lines


def write(folder: Path, stamps: Sequence[Arrays], encoding: Encoding) -> int:
    """Files of the set as the pipeline writes them, and links to each; the bytes of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    size = 0
    for first in range(0, len(stamps), FILE_ROWS):
        blobs = [blob(arrays, encoding) for arrays in stamps[first : first + FILE_ROWS]]
        data = encode_parquet(rows(blobs), row_group_rows=ROW_GROUP_ROWS, pixel_compression=encoding.compression)
        file = folder / f"part-{first:06d}.parquet"
        file.write_bytes(data)
        for link in range(1, LINKS):
            os.link(file, folder / f"part-{first:06d}-{link}.parquet")
        size += len(data)
    return size


def blob(arrays: Arrays, encoding: Encoding) -> bytes:
    if encoding.raw:
        return b"".join(arrays[f"image_{band}"].tobytes() for band in BANDS)
    return encode_stamp({key: array for key, array in arrays.items() if key.split("_")[0] in encoding.stored})


def rows(blobs: Sequence[bytes]) -> pa.Table:
    """Rows of status OK with all columns of a compacted set."""
    n = len(blobs)
    text, values = {"status": "OK", "bandset": BANDS}, {"cutout_ok": 1, "arc_injected": 1, "stamp_size_pix": SIZE}
    columns = []
    for field in COMPACTED:
        if field.name == "stamp_npz":
            columns.append(pa.array(blobs, field.type))
        elif field.name == "task_id":
            columns.append(pa.array([f"{i:032x}" for i in range(n)]))
        elif field.nullable:
            columns.append(pa.nulls(n, field.type))
        else:
            value = text.get(field.name, "x") if pa.types.is_string(field.type) else values.get(field.name, 0)
            columns.append(pa.array([value] * n, field.type))
    return pa.table(columns, schema=COMPACTED)


def ways_of(folder: Path, encoding: Encoding) -> dict[str, Way]:
    """What is measured with one set; each way reads it all and returns the number of stamps."""
    files = sorted(folder.glob("*.parquet"))
    if encoding.raw:
        return {"NumPy": lambda: read_raw(files), "Arrow": lambda: sum(map(len, arrow(files)))}
    stamps = find_stamps(StampSource((str(folder),), columns=("arc_injected",)))
    checked = find_stamps(StampSource((str(folder),), columns=("arc_injected",), page_checksums=True))
    epoch = Epoch(256, seed=1)
    return {
        "NumPy": lambda: sum(map(len, read_batches(stamps, epoch))),
        "in order": lambda: sum(map(len, read_batches(stamps, Epoch(256)))),
        "PyTorch": lambda: sum(len(batch["image"]) for batch in StampDataset(stamps, epoch)),
        "checksums": lambda: sum(map(len, read_batches(checked, epoch))),
        "Arrow": lambda: sum(map(len, arrow(files))),
        "row by row": lambda: row_by_row(files),
    }


def arrow(files: Iterable[Path]) -> Iterator[pa.ChunkedArray]:
    for file in files:
        parquet = pq.ParquetFile(file, memory_map=True)
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group, ["stamp_npz"], use_threads=False).column(0)


def read_raw(files: Iterable[Path]) -> int:
    found = 0
    for column in arrow(files):
        pixels = np.frombuffer(column.chunk(0).buffers()[2], np.float32).reshape(-1, len(BANDS), SIZE, SIZE)
        found += len(pixels[stream(str(found), "benchmark order").permutation(len(pixels))])
    return found


def row_by_row(files: Iterable[Path], limit: int = ROW_GROUP_ROWS) -> int:
    """The first stamps alone: it takes long."""
    found = 0
    for column in arrow(files):
        for stamp in map(read_stamp, column.to_pylist()):
            found += len(np.stack([stamp[f"image_{band}"] for band in BANDS])[None])
            if found == limit:
                return found
    return found


def turns(ways: dict[tuple[Encoding, str], Way], repeats: int) -> dict[tuple[Encoding, str], float]:
    """Stamps per second of processor time, the median of repeats after one that warms up."""
    rates: dict[tuple[Encoding, str], list[float]] = {key: [] for key in ways}
    for repeat in range(repeats + 1):
        for key, way in ways.items():
            rate = rate_of(way)
            if repeat:
                rates[key].append(rate)
    return {key: statistics.median(found) for key, found in rates.items()}


def rate_of(way: Way) -> float:
    """Stamps per second of processor time."""
    gc.collect()
    before = time.process_time()
    found = way()
    return found / (time.process_time() - before)


def measure(inputs: Inputs) -> list[Measurement]:
    """The goal of the reader, for ``make bench``: images of noise in the encoding of 4p5, shuffled."""
    compression = load_section(Compact, "compact", "default").stamp_compression
    stamps = list(islice(noise(), 8192 if inputs.full else 2048))
    ways, folders = {}, {}
    for stored, codec in ((IMAGE, compression), (ALL, compression), (IMAGE, "none")):
        encoding = Encoding(stored, codec)
        folders[encoding] = inputs.work / str(encoding).replace(", ", "-").replace(" ", "-")
        write(folders[encoding], stamps, encoding)
        ways |= {(encoding, name): way for name, way in ways_of(folders[encoding], encoding).items() if name in SHOWN}
    took = turns(ways, 5)
    beside = tuple(Figure(f"{encoding}: {name}", rate, "stamps/s") for (encoding, name), rate in took.items())
    images = Encoding(IMAGE, compression)
    check = Check("stamps that differ from read_stamp", _differing(folders[images], stamps), 0.0, "stamps")
    note = f"{len(stamps)} stamps of three bands, batches of 256, one thread, files in the page cache"
    return [Measurement("reader", took[images, "NumPy"], beside, (check,), note)]


def _differing(folder: Path, stamps: Sequence[Arrays]) -> int:
    """Stamps whose images come out otherwise; in order, so that they can be told apart."""
    found = find_stamps(StampSource((str(folder),)))
    read = np.concatenate([batch.layers["image"] for batch in read_batches(found, Epoch(256))])
    wanted = np.stack([np.stack([stamp[f"image_{band}"] for band in BANDS]) for stamp in stamps])
    return int((read.reshape(LINKS, *wanted.shape) != wanted).any(axis=(0, 2, 3, 4)).sum())


def reader_rate(folder: Path, *, layers: tuple[str, ...] = IMAGE, batch_stamps: int = 256, repeats: int = 5) -> float:
    """Stamps per second of processor time that the shuffling reader gives from a set, for other scripts."""
    stamps = find_stamps(StampSource((str(folder),), layers=layers))
    epoch = Epoch(batch_stamps, seed=1)
    rates = [rate_of(lambda: sum(map(len, read_batches(stamps, epoch)))) for _ in range(repeats + 1)]
    return statistics.median(rates[1:])


if __name__ == "__main__":
    main()
