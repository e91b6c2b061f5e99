"""Uber: the mixture's public names, and its command.

    python -m dhs_gen.uber.mixer --in-parquet manifest --out-parquet mixed --mode uber

adds the columns source_mode, artifact_profile and gen_variant to a manifest and prints the fractions as JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

from dhs_gen.uber.distribution import validate_manifest_distribution
from dhs_gen.uber.manifests import add_modes_to_manifest_pyarrow
from dhs_gen.uber.mixture import DEFAULT_UBER, MIXTURES, MixerConfig, Mixture, assign_modes, assign_modes_many

__all__ = [
    "DEFAULT_UBER",
    "MIXTURES",
    "MixerConfig",
    "Mixture",
    "add_modes_to_manifest_pyarrow",
    "assign_modes",
    "assign_modes_many",
    "main",
    "validate_manifest_distribution",
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m dhs_gen.uber.mixer", description=__doc__.splitlines()[0])
    parser.add_argument("--in-parquet", required=True, help="manifest: a Parquet file or a folder of them")
    parser.add_argument("--out-parquet", required=True, help="a file or a folder, as the input; may be the input")
    parser.add_argument("--mode", choices=sorted(MIXTURES), default="uber")
    parser.add_argument("--salt", help="another assignment for the same tasks; default: the mode's own salt")
    parser.add_argument("--task-id-col", default="task_id")
    chosen = parser.parse_args(arguments)
    mixture = MIXTURES[chosen.mode]
    config = mixture.config if chosen.salt is None else dataclasses.replace(mixture.config, salt=chosen.salt)
    try:
        add_modes_to_manifest_pyarrow(
            chosen.in_parquet, chosen.out_parquet, config, chosen.task_id_col, mixture.gen_variant
        )
        print(json.dumps(validate_manifest_distribution(chosen.out_parquet), indent=2))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
