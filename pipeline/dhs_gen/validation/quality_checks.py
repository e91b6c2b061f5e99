"""Check a Parquet dataset of stamps from the command line, under the names that existing notebooks import.

    python -m dhs_gen.validation.quality_checks --parquet GLOB --out-json FILE

GLOB is a glob pattern, a file, or a folder (hive-partitioned or not). Exit code 0: clean; 1: findings, which are in
the JSON and on the screen; 2: the command cannot be carried out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dhs_gen.stamps import decode_stamp_npz
from dhs_gen.validation.dataset import FLUX_RANGE_NMGY, validate_parquet_stamps

__all__ = ["decode_stamp_npz", "main", "validate_parquet_stamps"]

CLEAN, FINDINGS, BAD_USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dhs_gen.validation.quality_checks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parquet", required=True, nargs="+", metavar="GLOB", help="glob, file or folder")
    parser.add_argument("--out-json", required=True, type=Path, metavar="FILE", help="where the result goes")
    parser.add_argument("--max-rows", type=int, default=200_000, help="rows the sample is drawn from (%(default)s)")
    parser.add_argument("--sample-rows", type=int, default=2000, help="stamps to decode (%(default)s)")
    parser.add_argument("--expect-hw", type=int, nargs=2, default=(64, 64), metavar=("H", "W"), help="pixels")
    parser.add_argument("--expect-bands", type=int, default=3, help="where no bandset column says it (%(default)s)")
    parser.add_argument(
        "--flux-range", type=float, nargs=2, default=FLUX_RANGE_NMGY, metavar=("LOW", "HIGH"), help="nanomaggy/pix"
    )
    options = parser.parse_args(arguments)
    try:
        result = validate_parquet_stamps(
            options.parquet,
            options.max_rows,
            options.sample_rows,
            tuple(options.expect_hw),
            options.expect_bands,
            flux_range_nmgy=tuple(options.flux_range),
        )
        options.out_json.parent.mkdir(parents=True, exist_ok=True)
        options.out_json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return BAD_USAGE
    print("\n".join(summary(result)))
    return CLEAN if result["clean"] else FINDINGS


def summary(result: dict[str, Any]) -> list[str]:
    """The result in a few lines."""
    lines = [
        f"{result['rows']} rows in {result['files']} files, {result['failed']} of them failed; "
        f"{result['sampled']} stamps decoded"
    ]
    lines += [f"  {status}: {n}" for status, n in result["rows_by_status"].items()]
    lines += [f"not checked: {what}: {why}" for what, why in result["not_checked"].items()]
    lines += [f"FINDING {name}: {n}" for name, n in result["findings"].items()]
    for name, examples in result["examples"].items():
        lines += [f"  {name}: {example}" for example in examples]
    lines.append("clean" if result["clean"] else f"{len(result['findings'])} kinds of findings")
    return lines


if __name__ == "__main__":
    sys.exit(main())
