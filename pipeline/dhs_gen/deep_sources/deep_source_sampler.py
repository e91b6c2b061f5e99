"""Which source of a deep bank a task gets: python -m dhs_gen.deep_sources.deep_source_sampler --bank B --task-id T."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from dhs_gen.deep_sources.npz import META_LISTS, load_bank
from dhs_gen.deep_sources.sampler import choose_index

__all__ = ["choose_index", "load_bank"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the index and what the bank says about it as one line of JSON; the exit code is 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="deep_source_sampler", description=__doc__)
    parser.add_argument("--bank", required=True, help="NPZ file of deep_source_bank")
    parser.add_argument("--task-id", required=True)
    parser.add_argument("--salt", default="")
    given = parser.parse_args(arguments)
    try:
        images, meta = load_bank(given.bank)
        index = choose_index(given.task_id, len(images), given.salt)
    except ValueError as error:
        print(f"deep_source_sampler: {error}", file=sys.stderr)
        return 2
    chosen = {name: meta[name][index] for name in META_LISTS}
    print(json.dumps({"index": index, "n": len(images), "shape": list(images[index].shape), **chosen}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
