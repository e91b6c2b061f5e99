"""The scan and the sample give back what was written, whatever the files and row groups."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_pairs import BANDS, SIZE, drop_columns, make_rows, restamp, write_file, write_set

from dhs_gen.stamps import encode_stamp, read_stamp
from dhs_gen.streams import unit_intervals
from dhs_pipeline.gates.classes import classes_of, ok_rows, pairs_of
from dhs_pipeline.gates.data import PIXEL_FACTS
from dhs_pipeline.gates.result import CannotRun
from dhs_pipeline.gates.sample import read_sample
from dhs_pipeline.gates.scan import count_rows, find_set, pair_ranks, pixel_facts, scan_here, scan_on_spark
from dhs_pipeline.storage import Location, StorageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_every_row_is_there_with_its_columns_and_facts(tmp_path: Path) -> None:
    rows = make_rows(6, 2, negatives=True, alone=1)
    rows[4] |= {"status": "CUTOUT_MISSING", "cutout_ok": 0, "stamp_npz": None}
    data = find_set(write_set(tmp_path / "set", rows))
    table = scan_here(data)
    assert count_rows(data) == table.num_rows == len(rows)
    assert set(PIXEL_FACTS.names) <= set(table.column_names)
    assert "stamp_npz" not in table.column_names
    for kind in ("positive", "control"):  # of the pairs, which are the same for both
        places = [r["row_in_file"] for r in table.to_pylist() if r["sample_kind"] == kind and r["is_control"] == 0]
        assert places == [0, 1, 3, 4, 0, 1, 3, 4, 0, 1, 3, 4]
    by_id = {r["task_id"]: r for r in table.to_pylist()}
    for row in rows:
        found = by_id[row["task_id"]]
        for name in ("pair_id", "sample_kind", "negative_kind", "host_id", "psfsize_r_arcsec", "status"):
            assert found[name] == row.get(name)
        assert found["split"] == row["region_split"]
        if row["stamp_npz"] is None:
            assert all(found[n] is None for n in PIXEL_FACTS.names if n.startswith(("stamp_", "pixels_")))
            continue
        arrays = read_stamp(row["stamp_npz"])
        pixels = np.stack([arrays[f"image_{b}"] for b in BANDS])
        assert found["pixels_hash"] == hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()
        assert found["stamp_bytes"] == len(row["stamp_npz"])
        assert found["stamp_keys"] == ",".join(arrays)
        assert found["stamp_dtypes"] == "float32,float32,float32"
        assert found["stamp_shapes"] == ",".join([f"{SIZE}x{SIZE}"] * 3)
        assert found["pixels_min"] == pixels.min()
        assert found["pixels_max"] == pixels.max()
    for name in data.files:
        assert table.filter(pa.compute.equal(table["file"], name))["file_row"].to_pylist() == list(
            range(pq.read_metadata(data.file(name).uri).num_rows)
        )


def test_facts_of_odd_pixels() -> None:
    image = np.array([[np.nan, 0.0], [-0.0, 3.0]])
    facts = pixel_facts(encode_stamp({"image_r": image.astype(np.float16), "maskbits": np.zeros((2, 2), np.int32)}))
    assert (facts["pixels_nan"], facts["pixels_zero"]) == (1, 2)
    assert (facts["pixels_min"], facts["pixels_max"]) == (0.0, 3.0)
    assert (facts["stamp_dtypes"], facts["stamp_shapes"], facts["stamp_keys"]) == ("float16", "2x2", "image_r,maskbits")
    nothing = pixel_facts(encode_stamp({"img": np.full((3, 2, 2), np.nan, np.float32)}))
    assert (nothing["pixels_nan"], nothing["pixels_min"], nothing["stamp_shapes"]) == (12, None, "3x2x2")


def test_the_place_of_a_row_is_that_of_its_pair() -> None:
    assert pair_ranks(["b", "b", "b", "a", "a", "c"]).tolist() == [0, 0, 0, 1, 1, 2]


def test_files_and_row_groups_do_not_matter(tmp_path: Path) -> None:
    rows = make_rows(6, 2, negatives=True)
    seen = []
    for name, files, group in (("a", 1, 100), ("b", 4, 5)):
        data = find_set(write_set(tmp_path / name, rows, files=files, row_group_rows=group))
        table = scan_here(data)
        places = ["file", "file_row", "row_in_file"]
        sample, bandset = read_sample(data, table, 7)
        assert bandset == BANDS
        seen.append((table.drop_columns(places), sample.task_ids, sample.positive, sample.negative["ring"]))
    assert seen[0][0].equals(seen[1][0])
    assert seen[0][1] == seen[1][1]
    np.testing.assert_array_equal(seen[0][2], seen[1][2])
    np.testing.assert_array_equal(seen[0][3], seen[1][3])


@pytest.mark.spark
def test_spark_scans_the_same(spark: SparkSession, tmp_path: Path) -> None:
    data = find_set(write_set(tmp_path / "set", make_rows(6, 2, negatives=True)))
    scratch = Location.of(tmp_path / "scratch")
    assert scan_on_spark(data, scratch, lambda: spark).equals(scan_here(data))
    assert not scratch.exists()


def test_the_sample_holds_the_pixels_of_its_pairs(tmp_path: Path) -> None:
    rows = make_rows(8, 2, negatives=True)
    rows[1] |= {"status": "CUTOUT_MISSING", "cutout_ok": 0, "stamp_npz": None}  # the control of the first pair
    data = find_set(write_set(tmp_path / "set", rows))
    sample, _ = read_sample(data, scan_here(data), 10)
    stamps = {(r["pair_id"], r["sample_kind"]): r for r in rows}
    good = sorted({r["pair_id"] for r in rows} - {rows[0]["pair_id"]})
    order = np.argsort(unit_intervals(good, salt="gate_sample"))
    assert list(sample.task_ids) == [good[i] for i in order[:10]]
    assert sample.same_host
    for i, pair in enumerate(sample.task_ids):
        positive, control = (read_stamp(stamps[pair, kind]["stamp_npz"]) for kind in ("positive", "control"))
        for k, b in enumerate(BANDS):
            np.testing.assert_array_equal(sample.positive[i, k], positive[f"image_{b}"])
            np.testing.assert_array_equal(sample.control[i, k], control[f"image_{b}"])
            assert sample.arc is not None
            np.testing.assert_array_equal(sample.arc[i, k], positive[f"arc_{b}"])
            assert sample.control_invvar is not None
            np.testing.assert_array_equal(sample.control_invvar[i, k], control[f"invvar_{b}"])
        assert sample.control_task_ids[i] == stamps[pair, "control"]["task_id"]
    assert sorted([*sample.negative_of["ring"], *sample.negative_of["spiral"]]) == list(range(10))
    for kind, of in sample.negative_of.items():
        for j, i in enumerate(of):
            row = stamps[sample.task_ids[i], "negative"]
            assert row["negative_kind"] == kind
            assert sample.negative_task_ids[kind][j] == row["task_id"]
            np.testing.assert_array_equal(sample.negative[kind][j, 1], read_stamp(row["stamp_npz"])["image_r"])


def test_a_smaller_sample_is_the_head_of_a_larger_one_and_take_keeps_it_together(tmp_path: Path) -> None:
    data = find_set(write_set(tmp_path / "set", make_rows(8, 2, negatives=True)))
    rows = scan_here(data)
    (small, _), (large, _) = read_sample(data, rows, 4), read_sample(data, rows, 12)
    assert large.task_ids[:4] == small.task_ids
    cut = large.take([3, 0])
    assert cut.task_ids == (large.task_ids[3], large.task_ids[0])
    for kind, of in cut.negative_of.items():
        for j, i in enumerate(of):
            whole = list(large.negative_of[kind]).index([3, 0][i])
            np.testing.assert_array_equal(cut.negative[kind][j], large.negative[kind][whole])


def test_layers_that_are_not_there_are_none(tmp_path: Path) -> None:
    data = find_set(write_set(tmp_path / "set", make_rows(4, 2, layers=False)))
    sample, _ = read_sample(data, scan_here(data), 5)
    assert sample.arc is sample.invvar is sample.control_invvar is None


def test_why_there_is_no_sample(tmp_path: Path) -> None:
    rows = make_rows(3, 1)

    def fails(name: str, changed: list[dict[str, object]], *dropped: str) -> str:
        data = find_set(drop_columns(write_set(tmp_path / name, changed), *dropped))
        with pytest.raises(CannotRun) as why:
            read_sample(data, scan_here(data), 5)
        return str(why.value)

    assert "no column pair_id" in fails("unpaired", rows, "pair_id")
    assert "no column host_id" in fails("no hosts", rows, "host_id")
    assert "the set holds no pairs" in fails("positives", rows[::2])
    for kind in ("positive", "control"):
        failed = [r | {"cutout_ok": int(r["sample_kind"] != kind)} for r in rows]
        assert "none has the stamps of both" in fails(f"failed {kind}s", failed)
    smaller = [restamp(r, lambda im: im[1:, 1:]) if r["sample_kind"] == "control" else r for r in rows]
    assert "differ in bands or shape" in fails("shapes", smaller)


def test_where_a_set_lies(tmp_path: Path) -> None:
    where = write_set(tmp_path / "phase4c" / "gen", make_rows(4, 1))
    inside = find_set(where / "stamps")
    assert find_set(where) == inside
    assert inside.folder == where
    write_file(tmp_path / "phase4p5/gen/region_split=val/part-0.parquet", make_rows(2, 1))
    compacted = Location.of(tmp_path / "phase4p5/gen")
    assert find_set(compacted).folder == compacted
    assert set(scan_here(find_set(compacted))["split"].to_pylist()) == {"val"}
    assert set(scan_here(find_set(compacted / "region_split=val"))["split"].to_pylist()) == {"val"}
    one = find_set(compacted / "region_split=val/part-0.parquet")
    assert one.files == ("part-0.parquet",)
    with pytest.raises(StorageError, match="no Parquet file"):
        find_set(Location.of(tmp_path / "nothing"))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(StorageError, match="no column stamp_npz"):
        find_set(Location.of(tmp_path / "other.parquet"))


def test_a_damaged_stamp_and_a_wrong_column_are_named(tmp_path: Path) -> None:
    rows = make_rows(2, 1)
    rows[2] |= {"stamp_npz": b"no archive"}
    with pytest.raises(ValueError, match=r"part-00000\.parquet: row 2: not a stamp"):
        scan_here(find_set(write_set(tmp_path / "set", rows, files=1)))
    table = pq.read_table(write_set(tmp_path / "b", make_rows(2, 1), files=1).uri + "/stamps/part-00000.parquet")
    words = table.set_column(table.column_names.index("z_l"), "z_l", pa.array(["far"] * 4))
    pq.write_table(words, tmp_path / "words.parquet")
    with pytest.raises(ValueError, match=r"words\.parquet: column z_l is string"):
        scan_here(find_set(Location.of(tmp_path / "words.parquet")))


def test_classes_of_sets_that_do_not_name_them(tmp_path: Path) -> None:
    where = write_set(tmp_path / "set", make_rows(2, 1, alone=1))
    drop_columns(where, "sample_kind")
    rows = scan_here(find_set(where))
    assert classes_of(rows).tolist() == ["positive", "control", "control"] * 2
    assert classes_of(rows.drop_columns(["arc_injected"])).tolist() == ["positive", "positive", "control"] * 2
    with pytest.raises(CannotRun, match="classes cannot be told"):
        classes_of(rows.drop_columns(["arc_injected", "is_control"]))
    strange = rows.append_column("sample_kind", pa.array(["lens"] * 6))
    with pytest.raises(CannotRun, match="'lens'"):
        classes_of(strange)


def test_tasks_without_an_arc_are_in_no_pair(tmp_path: Path) -> None:
    rows = scan_here(find_set(write_set(tmp_path / "set", make_rows(3, 2, alone=2))))
    pairs = pairs_of(rows)
    assert pairs.whole.all()
    assert len(pairs.ids) == 6
    alone = np.array(rows["is_control"].to_pylist()) == 1
    np.testing.assert_array_equal(pairs.pair_of < 0, alone)
    assert ok_rows(rows).all()
