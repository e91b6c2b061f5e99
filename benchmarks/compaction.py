"""4p5's work on one output file beside pyarrow's own copy of the same rows, and the memory of both.

    OMP_NUM_THREADS=1 python benchmarks/compaction.py [--rows 2048] [--repeats 5] [--row-group-rows 128] [--json FILE]

A set as 4c writes it (all layers, noise, files of 1,024 rows, row groups of 128) goes through the worker's part of 4p5
in a process of its own, without Spark, and in the same process through `read_row_group` and `ParquetWriter` with the
same options: checksums of pages verified and written, the same compression and pages. The two take turns; medians of
processor time. Peak memory is that of a fresh process for each, with the allocator's settings of the session.
`measure` returns the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.goals import Check, Figure, Inputs, Measurement

ROWS_PER_FILE = 1024
SOURCE_ROW_GROUP = 128
SIDE_PIX = 64
FOLDS = 16
THREADS = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Figures:
    """What :func:`figures_of` finds.

    Parameters
    ----------
    rows
        Rows of the set.
    row_group_rows
        Of the output.
    kb_per_row
        Of the source's files, in 10^3 bytes.
    ms_per_row, copy_ms_per_row
        Processor time of 4p5's work and of pyarrow's copy: medians.
    rate_over_copy
        Rate of 4p5 over that of the copy: median over pairs of passes.
    peak_rss_mb, copy_peak_rss_mb, imports_rss_mb
        Peak resident memory of a fresh process, in 10^6 bytes: 4p5's work, the copy, and the imports of a worker alone.
    rows_changed
        0 if the digest of the output is that of the source.
    """

    rows: int
    row_group_rows: int
    kb_per_row: float
    ms_per_row: float
    copy_ms_per_row: float
    rate_over_copy: float
    peak_rss_mb: float
    copy_peak_rss_mb: float
    imports_rss_mb: float
    rows_changed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--row-group-rows", type=int, help="of the output; default: that of conf/compact/default.yaml")
    parser.add_argument("--json")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--set", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part](args.set, args.row_group_rows, args.repeats)))
        return
    figures = figures_of(args.rows, args.repeats, args.row_group_rows)
    print(markdown(figures))
    if args.json:
        Path(args.json).write_text(json.dumps(asdict(figures), indent=2) + "\n")


def measure(inputs: Inputs) -> list[Measurement]:
    """The goal of 4p5, for ``make bench``; the rows that come out are checked by their digest."""
    rows = 8192 if inputs.full else 2048
    figures = figures_of(rows)
    beside = (
        Figure("4p5", figures.ms_per_row, "ms/row"),
        Figure("pyarrow's copy", figures.copy_ms_per_row, "ms/row"),
        Figure("peak RSS", figures.peak_rss_mb, "MB"),
    )
    note = f"{rows} rows of {figures.kb_per_row:.0f} KB in row groups of {figures.row_group_rows}, processor time"
    check = Check("rows whose digest changed", figures.rows_changed, 0.0, "rows")
    return [Measurement("4p5", figures.rate_over_copy, beside, (check,), note)]


def figures_of(rows: int = 2048, repeats: int = 5, row_group_rows: int | None = None) -> Figures:
    """Make a set of ``rows`` rows in a temporary folder, take it through both ways, and remove it."""
    if row_group_rows is None:
        from dhs_pipeline.config import Compact, load_section

        row_group_rows = load_section(Compact, "compact", "default").row_group_rows
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        kb_per_row = _in_process("set", where, row_group_rows, rows)["bytes"] / rows / 1e3
        cpu = _in_process("cpu", where, row_group_rows, repeats)
        peaks = {part: _in_process(part, where, row_group_rows, 1)["peak_rss_mb"] for part in _PEAKS}
    return Figures(
        rows=rows,
        row_group_rows=row_group_rows,
        kb_per_row=kb_per_row,
        ms_per_row=1e3 * statistics.median(cpu["ours_s"]) / rows,
        copy_ms_per_row=1e3 * statistics.median(cpu["copy_s"]) / rows,
        rate_over_copy=statistics.median(c / o for c, o in zip(cpu["copy_s"], cpu["ours_s"], strict=True)),
        peak_rss_mb=peaks["ours"],
        copy_peak_rss_mb=peaks["copy"],
        imports_rss_mb=peaks["imports"],
        rows_changed=cpu["rows_changed"],
    )


def _in_process(part: str, where: Path, row_group_rows: int, number: int) -> dict[str, Any]:
    """What one part prints, in a fresh process (number: rows of the set, or passes)."""
    command = [sys.executable, str(Path(__file__).resolve()), "--part", part, "--set", str(where)]
    command += ["--row-group-rows", str(row_group_rows), "--repeats", str(number)]
    from dhs_pipeline.session import ALLOCATOR  # as workers have it

    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | ALLOCATOR | THREADS, text=True)
    return json.loads(done.stdout)


# --- the two ways ---------------------------------------------------------------------------------------------------


def compact(where: Path, row_group_rows: int) -> None:
    """What a worker of 4p5 does for one output file."""
    from dhs_pipeline.compact import OutputFile, _write
    from dhs_pipeline.config import Compact, load_section
    from dhs_pipeline.receipts import UnitWriter
    from dhs_pipeline.storage import Location

    stage = Location.of(where / "out")
    (stage / "_plan.json").write_json({"plan_id": "benchmark"})
    names = tuple(file.name for file in _sources(where))
    splits = dict.fromkeys(range(FOLDS), "train")
    writer = UnitWriter(stage, "benchmark", "train-00000")
    settings = load_section(Compact, "compact", "default").model_copy(update={"row_group_rows": row_group_rows})
    _write(OutputFile("train", 0, names, 0), Location.of(where / "stamps"), splits, writer, settings)


def copy(where: Path, row_group_rows: int) -> None:
    """The same rows, read by row group and written by pyarrow with the options of 4p5, through a Python file."""
    import pyarrow.parquet as pq

    from dhs_pipeline.config import Compact, load_section
    from dhs_pipeline.schemas import STAMPS
    from dhs_pipeline.storage.parquet import _options

    out = where / "copy" / "part.parquet"
    out.parent.mkdir(exist_ok=True)
    options = _options(STAMPS, load_section(Compact, "compact", "default").stamp_compression)
    with open(out, "wb") as sink, pq.ParquetWriter(sink, STAMPS, **options) as writer:
        for file in _sources(where):
            with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
                for group in range(parquet.num_row_groups):
                    writer.write_table(parquet.read_row_group(group), row_group_size=row_group_rows)


def _sources(where: Path) -> list[Path]:
    return sorted((where / "stamps").glob("*.parquet"))


# --- what the processes do ------------------------------------------------------------------------------------------


def _make(where: Path, _: int, rows: int) -> dict[str, Any]:
    """Write the set; its bytes."""
    from dhs_pipeline.storage import Location, write_parquet

    size = 0
    for number, first in enumerate(range(0, rows, ROWS_PER_FILE)):
        table = _stamps(number, min(ROWS_PER_FILE, rows - first))
        file = Location.of(where / "stamps" / f"part-{number:05d}-00000.parquet")
        size += write_parquet(table, file, row_group_rows=SOURCE_ROW_GROUP)
    return {"bytes": size}


def _stamps(number: int, rows: int) -> Any:
    """A table of STAMPS: layers as 4c writes them, every other column filled with something of its type."""
    import numpy as np
    import pyarrow as pa

    from dhs_gen.stamps import encode_stamp
    from dhs_gen.streams import stream
    from dhs_pipeline.schemas import STAMPS

    rng = stream(str(number), "compaction_benchmark")
    y, x = np.indices((SIDE_PIX, SIDE_PIX)) - SIDE_PIX / 2

    def npz() -> bytes:
        arc = {b: 0.02 * np.exp(-((np.hypot(x, y) - rng.uniform(5, 9)) ** 2) / 12) for b in "grz"}
        invvar = rng.uniform(8e3, 1.2e4, (3, SIDE_PIX, SIDE_PIX))
        layers = {f"image_{b}": arc[b] + rng.normal(0, 0.01, arc[b].shape) for b in "grz"}
        # Where an arc is too faint to be drawn it is 0: about half of a stamp.
        layers |= {f"arc_{b}": np.where(arc[b] > 1e-6, arc[b], 0) for b in "grz"}
        layers |= {f"invvar_{b}": np.where(x < 10, invvar[0, 0, 0], invvar[i]) for i, b in enumerate("grz")}
        stamp = {key: layer.astype(np.float32) for key, layer in layers.items()}
        return encode_stamp(stamp | {"maskbits": (rng.random(x.shape) < 0.01).astype(np.int32)})

    def column(field: pa.Field) -> pa.Array:
        if field.name == "stamp_npz":
            return pa.array([npz() for _ in range(rows)], field.type)
        if field.name == "region_fold":
            return pa.array(rng.integers(0, FOLDS, rows), field.type)
        if pa.types.is_string(field.type):
            few = field.name not in ("task_id", "pair_id")
            return pa.array([f"{field.name}-{number}-{i // 50 if few else i}" for i in range(rows)], field.type)
        if pa.types.is_floating(field.type):
            return pa.array(rng.random(rows), field.type)
        if pa.types.is_boolean(field.type):
            return pa.array(rng.random(rows) < 0.5)
        if pa.types.is_list(field.type):
            return pa.nulls(rows, field.type)
        return pa.array(rng.integers(0, 100, rows), field.type)

    return pa.Table.from_arrays([column(field) for field in STAMPS], schema=STAMPS)


def _cpu(where: Path, row_group_rows: int, repeats: int) -> dict[str, Any]:
    """Processor seconds of ``repeats`` passes of each way, after a warm-up."""
    seconds: dict[str, Any] = {"ours_s": [], "copy_s": []}
    for repeat in range(repeats + 1):
        for name, way in (("ours_s", compact), ("copy_s", copy)):
            before = time.process_time()
            way(where, row_group_rows)
            if repeat:
                seconds[name].append(time.process_time() - before)
    from dhs_pipeline.digest import digest_path
    from dhs_pipeline.storage import Location

    out, source = (digest_path(Location.of(where / folder)) for folder in ("out", "stamps"))
    return seconds | {"rows_changed": 0 if out == source else abs(out.rows - source.rows) or source.rows}


def _peak(way: Callable[[Path, int], None]) -> Callable[[Path, int, int], dict[str, Any]]:
    def run(where: Path, row_group_rows: int, _: int) -> dict[str, Any]:
        way(where, row_group_rows)
        return {"peak_rss_mb": _peak_rss_mb()}

    return run


def _peak_rss_mb() -> float:
    """Of this process since its program began; ``ru_maxrss`` would count the process that started it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6


def _imports(where: Path, row_group_rows: int) -> None:
    import pyspark.worker  # noqa: F401 - what a worker holds before its first task

    import dhs_pipeline.compact  # noqa: F401


_PEAKS = {"ours": _peak(compact), "copy": _peak(copy), "imports": _peak(_imports)}
PARTS: dict[str, Callable[[Path, int, int], dict[str, Any]]] = {"set": _make, "cpu": _cpu, **_PEAKS}


def markdown(f: Figures) -> str:
    lines = [f"{f.rows} rows of {f.kb_per_row:.0f} KB, row groups of {f.row_group_rows}", ""]
    lines += ["| way | ms of processor per row | peak RSS, MB |", "|---|---|---|"]
    lines.append(f"| 4p5 | {f.ms_per_row:.3f} | {f.peak_rss_mb:.0f} |")
    lines.append(f"| pyarrow's copy | {f.copy_ms_per_row:.3f} | {f.copy_peak_rss_mb:.0f} |")
    lines.append(f"| imports of a worker | | {f.imports_rss_mb:.0f} |")
    return "\n".join([*lines, "", f"4p5 at {f.rate_over_copy:.2f} of the copy's rate"])


if __name__ == "__main__":
    main()
