"""4p5: splits by whole regions, near the fractions; nothing lost, nothing across."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhs_pipeline.commit import MANIFEST, CommitError, committed_files
from dhs_pipeline.compact import _check_disjoint, _of_split, assign_splits, run_compaction
from dhs_pipeline.config import SplitFractions
from dhs_pipeline.digest import digest_path
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import COMPACTED
from dhs_pipeline.stage import StageError

FRACTIONS = SplitFractions(train=0.7, val=0.1, test=0.2)


@given(st.dictionaries(st.integers(0, 10**6), st.integers(1, 500), min_size=1, max_size=200))
def test_no_split_misses_its_share_by_more_than_the_largest_region(rows: dict[int, int]) -> None:
    splits = assign_splits(rows, FRACTIONS)
    assert splits.keys() == rows.keys()
    held = Counter()
    for region, split in splits.items():
        held[split] += rows[region]
    for split, fraction in FRACTIONS.as_dict().items():
        assert abs(held[split] - fraction * sum(rows.values())) <= max(rows.values())


def test_many_regions_reach_the_fractions() -> None:
    splits = Counter(assign_splits({r: 10 for r in range(1000)}, FRACTIONS).values())
    assert splits == {"train": 700, "val": 100, "test": 200}


def test_a_fraction_of_zero_gets_nothing() -> None:
    splits = assign_splits({1: 5, 2: 5}, SplitFractions(train=1.0, val=0.0, test=0.0))
    assert set(splits.values()) == {"train"}


def keys(**changes: list[object]) -> pa.Table:
    columns = {
        "task_id": ["a", "b", "c"],
        "pair_id": ["p", "p", "c"],
        "file": ["1", "1", "2"],
        "host_id": ["h", "h", "i"],
        "region_fold": [0, 0, 1],
        "template_id": ["t", None, "u"],
    }
    return pa.table(columns | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task_id": ["a", "b", "a"]}, "1 task ids are there more than once"),
        ({"host_id": ["h", "i", "i"]}, "1 values of host_id lie in more than one split"),
        ({"pair_id": ["p", "q", "q"]}, "1 values of pair_id lie in more than one split"),
        ({"file": ["1", "2", "2"]}, "1 pairs lie in more than one file"),
        ({"template_id": ["t", "u", "t"]}, "1 values of template_id lie in more than one split"),
        ({"region_fold": [0, None, 1]}, "1 rows have no region_fold"),
    ],
)
def test_what_would_be_on_both_sides_stops_it(changes: dict[str, list[object]], words: str) -> None:
    splits = {0: "train", 1: "test", None: "train"}
    _check_disjoint(keys(), splits)
    with pytest.raises(StageError, match=words):
        _check_disjoint(keys(**changes), splits)


def test_rows_of_a_split_keep_their_order_and_a_table_of_one_split_is_not_copied() -> None:
    splits = {0: "train", 1: "test", 2: "train"}
    table = pa.table({"region_fold": [0, 1, 2, 0], "stamp_npz": [b"a", b"b", b"c", None]})
    assert _of_split(table, "train", splits).column("stamp_npz").to_pylist() == [b"a", b"c", None]
    assert _of_split(table, "test", splits).column("stamp_npz").to_pylist() == [b"b"]
    assert _of_split(table, "val", splits).equals(table.slice(0, 0))
    assert _of_split(table, "train", {0: "train", 1: "train", 2: "train"}) is table
    assert _of_split(table.slice(0, 0), "val", splits).num_rows == 0


@pytest.mark.spark
def test_compaction_keeps_every_row_and_no_region_or_host_crosses(small_run: RunDir) -> None:
    out = small_run.phase4p5("gen7")
    assert digest_path(out) == digest_path(small_run.phase4c("gen7") / "stamps")
    table = ds.dataset(out.uri, partitioning="hive").to_table(columns=["region_split", "region_id", "host_id"])
    for column in ("region_id", "host_id"):
        pairs = table.group_by([column, "region_split"]).aggregate([])
        assert pairs.num_rows == pc.count_distinct(pairs.column(column)).as_py()


@pytest.mark.spark
def test_the_summary_reports_wanted_and_achieved_fractions(small_run: RunDir) -> None:
    summary = (small_run.phase4p5("gen7") / "_stage.json").read_json()
    achieved = summary["split_fractions"]
    assert sum(s["rows"] for s in achieved.values()) == summary["rows"]
    assert achieved["train"]["configured"] == 0.7
    assert achieved["train"]["achieved"] == pytest.approx(achieved["train"]["rows"] / summary["rows"], abs=1e-4)


@pytest.mark.spark
def test_files_keep_to_the_target_and_say_what_they_hold(small_run: RunDir) -> None:
    files = small_run.phase4p5("gen7").files_with_sizes(".parquet", recursive=True)
    shards = small_run.phase4c("gen7").files(".parquet", recursive=True)
    assert len(files) < len(shards)
    assert max(size for _, size in files) < 2.5 * 8e6
    assert pq.read_schema(files[0][0].uri).equals(COMPACTED, check_metadata=True)


@pytest.mark.spark
def test_stamps_are_packed_as_configured_and_all_else_in_lz4(small_run: RunDir) -> None:
    wanted = small_run.config().compact.stamp_compression.upper()
    file = committed_files(small_run.phase4p5("gen7"), "region_split=train")[0]
    group = pq.ParquetFile(file.uri).metadata.row_group(0)
    found = {group.column(i).path_in_schema: group.column(i).compression for i in range(group.num_columns)}
    assert wanted == "LZ4"
    assert found.pop("stamp_npz") == wanted
    assert set(found.values()) == {"LZ4"}


@pytest.mark.spark
def test_a_lost_row_is_noticed(copied_run: RunDir, spark: object) -> None:
    """A file that is not what 4c committed stops the stage; one that lies about its rows is found by digest."""
    source = copied_run.phase4c("gen7")
    stamps = committed_files(source, "stamps")[0]
    pq.write_table(stamps.read_table().slice(1), stamps.uri)
    with pytest.raises(CommitError, match=r"1 of \d+ committed files are gone or have another size"):
        run_compaction(spark, copied_run, "gen7", copied_run.config(), partitions=None, force=True, progress=False)
    manifest = (source / MANIFEST).read_json()
    manifest["files"][f"stamps/{stamps.name}"]["size_bytes"] = stamps.size()
    (source / MANIFEST).write_json(manifest)
    with pytest.raises(StageError, match="changed rows"):
        run_compaction(spark, copied_run, "gen7", copied_run.config(), partitions=None, force=True, progress=False)
