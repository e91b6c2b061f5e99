"""4c row by row: a task that cannot be rendered ends with a name, and the others go on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dhs_pipeline.injection import Renderer, list_shards, read_shard
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import TASK

pytestmark = pytest.mark.spark


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"src_n_sersic": 50.0}, "TASK_INVALID", "n_sersic"),
        ({"theta_e_arcsec": -1.0}, "TASK_INVALID", "theta_e_arcsec"),
        ({"theta_e_arcsec": None}, "TASK_INVALID", ""),
        ({"lens_e": 1.2}, "TASK_INVALID", "e must be in"),
        ({"src_reff_arcsec": 0.0}, "TASK_INVALID", "positive"),
        ({"mw_transmission_g": 0.0}, "TASK_INVALID", "mw_transmission_g"),
        ({"host_id": "nobody"}, "CUTOUT_MISSING", "nobody"),
    ],
)
def test_a_bad_task_has_a_name_and_costs_no_other(
    small_run: RunDir, change: dict[str, Any], status: str, words: str
) -> None:
    config = small_run.config()
    renderer = Renderer(config.generation("gen7"), None, config)
    shard = list_shards(small_run)[0]
    tasks = read_shard(shard)
    part = small_run.cutouts / shard.part
    rows = tasks.to_pylist()
    victim = next(i for i, row in enumerate(rows) if not row["is_control"])
    before = renderer.render(tasks, part).to_pylist()
    rows[victim] |= change
    after = renderer.render(pa.Table.from_pylist(rows, schema=tasks.schema), part).to_pylist()
    assert after[victim]["status"] == status
    assert words in after[victim]["message"]
    assert after[victim]["stamp_npz"] is None
    assert [r for i, r in enumerate(after) if i != victim] == [r for i, r in enumerate(before) if i != victim]


def test_a_unit_of_many_row_groups_holds_each_task_with_its_own_results(small_run: RunDir) -> None:
    config = small_run.config()
    renderer = Renderer(config.generation("control"), None, config)
    shard = list_shards(small_run)[0]
    tasks, part = read_shard(shard), small_run.cutouts / shard.part
    shuffled = [tasks.take(np.roll(np.arange(len(tasks)), k)) for k in range(300 // len(tasks) + 1)]
    long = pa.concat_tables(shuffled)
    batches = list(renderer.batches(long, part))
    assert len(batches) > 2
    assert pa.concat_tables(batches) == pa.concat_tables([renderer.render(t, part) for t in shuffled])
    assert pa.concat_tables(batches).select(TASK.names) == long.select(TASK.names)
