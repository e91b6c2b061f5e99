"""host_only: 0.5 for controls on the same hosts, and a choice of hosts is seen in properties and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fake_sample import gate_data, make_sample, small_config

from dhs_pipeline.gates import host_only as module
from dhs_pipeline.gates.data import PairSample
from dhs_pipeline.gates.host_only import classes, host_only
from dhs_pipeline.gates.probes import linear
from dhs_pipeline.gates.result import CannotRun, Outcome

CONFIG = small_config()
SAMPLE = make_sample()


class Hosts:
    """Renders the positives' hosts: the images it was given."""

    def __init__(self, images: Any) -> None:
        self.images, self.asked = images, ()

    def controls(self, pair_ids: Sequence[str], *, artifacts: str | None = None) -> Any:
        self.asked = tuple(pair_ids)
        return self.images


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PICTURE_PROBES", {"linear": linear})


def matched(sample: PairSample) -> PairSample:
    """Controls on other hosts of the same kind."""
    other = make_sample(n_hosts=180, seed=9)
    return replace(sample, control=other.control, control_host_ids=tuple(f"other-{h}" for h in other.host_ids))


def rows_with_manifest_controls(faint: bool) -> pa.Table:
    """The sample's rows, and as many controls on 30 hosts more, as bright as the others or not."""
    rows = gate_data(SAMPLE).rows
    extra = rows.slice(180)
    hosts = pa.array([f"control-{h}" for h in extra.column("host_id").to_pylist()])
    extra = extra.set_column(extra.column_names.index("host_id"), "host_id", hosts)
    if faint:
        at = extra.column_names.index("mag_r")
        extra = extra.set_column(at, "mag_r", pa.array(extra.column("mag_r").to_numpy() + 1.0))
    return pa.concat_tables([rows, extra])


def test_pairs_on_the_same_hosts_are_even_exactly() -> None:
    result = host_only(gate_data(SAMPLE), CONFIG)
    assert result.outcome is Outcome.PASS, result.message
    assert [f.value for f in result.figures if f.name.endswith("AUC")] == [0.5, 0.5, 0.5]


def test_manifest_controls_on_hosts_of_the_same_kind_pass_and_on_faint_ones_do_not() -> None:
    assert host_only(gate_data(SAMPLE, rows_with_manifest_controls(False)), CONFIG).outcome is Outcome.PASS
    result = host_only(gate_data(SAMPLE, rows_with_manifest_controls(True)), CONFIG)
    assert result.outcome is Outcome.FAIL
    assert "properties of the hosts" in result.message


@pytest.mark.usefixtures("quick")
def test_matched_hosts_are_compared_by_their_pictures() -> None:
    sample = make_sample(n_hosts=180)
    hosts, brighter = Hosts(sample.control), Hosts(np.float32(2.0) * sample.control)
    sample = matched(sample)
    result = host_only(gate_data(sample, rerender=hosts), CONFIG)
    assert result.outcome is Outcome.PASS, result.message
    assert hosts.asked == sample.task_ids
    result = host_only(gate_data(sample, rerender=brighter), CONFIG)
    assert result.outcome is Outcome.FAIL
    assert "pictures of the hosts" in result.message
    named = replace(sample, pairs=sample.pairs.append_column("pair_id", pa.array([f"p{i}" for i in range(180)])))
    host_only(gate_data(named, gate_data(sample).rows, rerender=hosts), CONFIG)
    assert hosts.asked[:2] == ("p0", "p1")


def test_classes_come_from_what_a_set_has() -> None:
    kinds = pa.array(["positive", "control", "negative", "positive"])
    rows = pa.table({"sample_kind": kinds, "arc_injected": [1, 0, 0, 0], "cutout_ok": [1, 1, 1, 0]})
    assert {k: v.tolist() for k, v in classes(rows).items()} == {
        "positive": [True, False, False, False],
        "control": [False, True, False, False],
        "negative": [False, False, True, False],
    }
    bare = pa.table({"arc_injected": [1, 0, 1, 0], "cutout_ok": [1, 1, 0, 0]})
    assert {k: v.tolist() for k, v in classes(bare).items()} == {
        "positive": [True, False, False, False],
        "control": [False, True, False, False],
    }
    assert classes(bare.drop(["cutout_ok"]))["positive"].tolist() == [True, False, True, False]


def test_rows_without_a_property_are_left_out_and_counted() -> None:
    rows = gate_data(SAMPLE).rows
    mags: list[float | None] = rows.column("mag_g").to_pylist()
    mags[:6] = [None] * 6
    rows = rows.set_column(rows.column_names.index("mag_g"), "mag_g", pa.array(mags))
    figures = {f.name: f for f in host_only(gate_data(SAMPLE, rows), CONFIG).figures}
    assert figures["positives left out: a property is missing"].value == 6
    assert figures["controls left out: a property is missing"].value == 0


def test_large_sets_are_thinned_by_whole_hosts() -> None:
    result = host_only(gate_data(SAMPLE), small_config(spark_above_rows=200, min_hosts=5))
    figure = result.figures[0]
    assert 60 < figure.rows < 340
    assert figure.rows == 12 * figure.blocks  # 6 pairs on each host
    assert figure.value == 0.5


@pytest.mark.parametrize(
    ("sample", "rows", "said"),
    [
        (matched(SAMPLE), None, "there is no run"),
        (SAMPLE.take([]), None, "no pair"),
        (SAMPLE, gate_data(SAMPLE).rows.drop(["arc_injected"]), "arc_injected"),
        (SAMPLE, gate_data(SAMPLE).rows.drop(["host_id"]), "host_id"),
        (SAMPLE, gate_data(SAMPLE).rows.select(["host_id", "arc_injected"]), "no property"),
        (SAMPLE, gate_data(SAMPLE).rows.slice(0, 180), "empty"),
        (SAMPLE, gate_data(SAMPLE).rows.slice(160, 40), "power"),
    ],
)
def test_too_little_data_cannot_run(sample: PairSample, rows: pa.Table | None, said: str) -> None:
    data = replace(gate_data(SAMPLE, rows), sample=sample)
    with pytest.raises(CannotRun, match=said):
        host_only(data, CONFIG)
