"""What a worker of 4c does before it is of use: imports, opening its bank, the first stamp; prints its CPU seconds.

python benchmarks/bench/first_stamp.py RUN_DIR GENERATION BANK
"""

from __future__ import annotations

import importlib
import sys
import time


def main() -> None:
    out, generation, bank = sys.argv[1:]
    importlib.import_module("pyspark.worker")
    from dhs_pipeline.injection import Renderer, list_shards, read_shard
    from dhs_pipeline.rundir import RunDir
    from dhs_pipeline.sources import Banks
    from dhs_pipeline.storage import Location

    run = RunDir(Location.of(out))
    config = run.config()
    shard = list_shards(run)[0]
    rows = read_shard(shard)
    first = rows.column("is_control").to_pylist().index(0)
    renderer = Renderer(config.generation(generation), Banks(cosmos=Location.of(bank)), config)
    stamp = renderer.render(rows.slice(first, 1), run.cutouts / shard.part)
    if stamp.column("status").to_pylist() != ["OK"]:
        raise SystemExit(f"the first stamp ended in {stamp.column('status').to_pylist()}")
    print(time.process_time())


if __name__ == "__main__":
    main()
