"""What artifacts do to the noise of real and simulated pixels, and what they cost; prints Markdown.

    python benchmarks/artifacts.py [--data ../shared/data]

Noise is measured on controls, on pixels away from sources and artifacts, in units of the survey's sigma, against the
same pixels of the host. Processor times are of ``inject`` on the real brick's hosts, with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "dhs_gen"))

from artifact_cases import (
    brick_hosts,
    control_task,
    dr10_hosts,
    injection_settings,
    noise_change,
    noise_hosts,
    profile,
)
from rendering_cases import SHARED_DATA, gen7_settings

from dhs_gen.domain_randomization import ArtifactConfig
from dhs_gen.hybrid_sources.sampler import hybrid_source
from dhs_gen.inject import inject
from dhs_gen.lensing.models import SieShear
from dhs_gen.task import HostCutout, SourceParams

LENS = SieShear(1.3, 0.15, 0.4, 0.03, 1.0)
SOURCE = SourceParams(0.2, -0.1, 21.0, 0.3, 0.2, 0.15, 1.0, 0.2, 0.5, False, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED_DATA)
    data = parser.parse_args().data
    brick = brick_hosts(data)
    print("| profile | pixels | stamps | noise std (σ) | std | lag 1 along x | lag 1 along y |")
    print("|---|---|---|---|---|---|---|")
    for name in ("mild", "strong"):
        for label, hosts, keys, bands in (
            ("brick 0591m305, g", brick, 12, "g"),
            ("brick 0591m305, r", brick, 12, "r"),
            ("brick 0591m305, z", brick, 12, "z"),
            ("DR10 cutouts, grz", dr10_hosts(data), 40, "grz"),
            ("simulated, ρ = 0.16", noise_hosts(120), 2, "grz"),
        ):
            change = noise_change(hosts, profile(name), bands, keys)
            std, lag_x, lag_y = change.relative
            before = change.before
            print(
                f"| {name} | {label} | {change.n_stamps} | {before.std:.3f} | {100 * std:+.2f} % "
                f"| {before.lag_x:.3f}, {100 * lag_x:+.1f} % | {before.lag_y:.3f}, {100 * lag_y:+.1f} % |"
            )
    print("\n| artifacts | control, ms | with an arc (Gen7), ms |")
    print("|---|---|---|")
    for name in ("none at all", "mild", "strong"):
        config = None if name == "none at all" else profile(name)
        times = [milliseconds(brick, config, arc=arc) for arc in (False, True)]
        print(f"| {name} | {times[0]:.1f} | {times[1]:.1f} |")


def milliseconds(hosts: list[HostCutout], config: ArtifactConfig | None, *, arc: bool) -> float:
    """Mean processor time of a stamp: three keys per host, the better of two runs."""
    template = hybrid_source("bench", SOURCE, gen7_settings()) if arc else None
    tasks = [control_task(f"bench-{i}") for i in range(3 * len(hosts))]
    if arc:
        tasks = [dataclasses.replace(t, lens=LENS, source=SOURCE) for t in tasks]
    best = float("inf")
    for _ in range(2):
        start = time.process_time()
        for i, task in enumerate(tasks):
            inject(task, hosts[i % len(hosts)], template, 1.0, injection_settings(), config)
        best = min(best, time.process_time() - start)
    return 1e3 * best / len(tasks)


if __name__ == "__main__":
    main()
