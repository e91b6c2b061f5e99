"""Every stamp comes as read_stamp gives it, once, in an order that its key fixes; what is wrong is refused."""

from __future__ import annotations

import gzip
import io
import json
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
from stamp_files import arrays, encoded, write_set

from dhs_finder.reader import read_batches
from dhs_finder.stamp_set import Epoch, Remainder, Share, StampSet, StampSource, find_stamps
from dhs_gen.stamp_columns import StampLayout
from dhs_gen.stamps import encode_stamp, read_stamp

FAILED = {3: "OFF_BRICK", 4: "OFF_BRICK", 30: "CENTROID_FAILED", **dict.fromkeys(range(40, 48), "NO_COVERAGE")}
ROWS = (21, 17, 9, 26, 1)
OK = [i for i in range(sum(ROWS)) if i not in FAILED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"), ROWS, failed=FAILED)


@pytest.fixture(scope="module")
def stamps(folder: Path) -> StampSet:
    return find_stamps(StampSource((str(folder),), columns=("number",)))


def numbers(stamps: StampSet, epoch: Epoch, share: Share | None = None) -> list[int]:
    batches = list(read_batches(stamps, epoch, share or Share()))
    assert all(len(batch) == epoch.batch_stamps for batch in batches[:-1])
    assert len(batches) == stamps.batches(epoch, share or Share())
    found = [int(n) for batch in batches for n in batch.columns["number"]]
    assert [int(v) for batch in batches for v in batch.layers["image"][:, 0, 0, 0]] == found, "stamp and columns agree"
    return found


def shares(world_size: int, workers: int) -> list[Share]:
    return [Share(rank, world_size, worker, workers) for rank in range(world_size) for worker in range(workers)]


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("bands", ["grz", "zg"])
def test_every_array_is_as_read_stamp_reads_it(folder: Path, seed: int | None, bands: str) -> None:
    layers = ("image", "invvar", "arc", "maskbits")
    found = find_stamps(
        StampSource((str(folder),), layers=layers, bands=bands, columns=("task_id", "fold", "number", "region_split"))
    )
    table = pq.read_table(folder, partitioning="hive").sort_by("number").to_pylist()
    seen = 0
    for batch in read_batches(found, Epoch(7, seed=seed)):
        for i, number in enumerate(batch.columns["number"].tolist()):
            row = table[number]
            expected = read_stamp(row["stamp_npz"])
            for layer in layers[:3]:
                for b, band in enumerate(bands):
                    assert batch.layers[layer][i, b].tobytes() == expected[f"{layer}_{band}"].tobytes()
            assert batch.layers["maskbits"][i].tobytes() == expected["maskbits"].tobytes()
            assert batch.columns["task_id"][i] == row["task_id"]
            assert batch.columns["region_split"][i] == row["region_split"]
            np.testing.assert_equal(batch.columns["fold"][i], np.nan if row["fold"] is None else row["fold"])
            seen += 1
        image = batch.layers["image"]
        assert image.dtype == np.float32
        assert image.flags.c_contiguous
        assert image.shape == (len(batch), len(bands), 5, 5)
        assert batch.layers["maskbits"].dtype == np.int32
        assert batch.one_by_one == 0
        assert batch.columns["number"].dtype == np.int64
        assert batch.columns["fold"].dtype == np.float64
    assert seen == len(OK)


def test_rows_without_a_stamp_are_counted_by_status(stamps: StampSet) -> None:
    assert stamps.skipped == {"CENTROID_FAILED": 1, "NO_COVERAGE": 8, "OFF_BRICK": 2}
    assert stamps.stamps == len(OK)
    assert "8 NO_COVERAGE" in str(stamps)


def test_without_a_seed_rows_come_in_the_order_of_the_files(stamps: StampSet, folder: Path) -> None:
    files = sorted(folder.rglob("*.parquet"))
    expected = [n for f in files for n in pq.read_table(f).column("number").to_pylist() if n in OK]
    assert numbers(stamps, Epoch(10)) == expected


def test_the_key_fixes_the_order(stamps: StampSet) -> None:
    epoch = Epoch(10, seed=3, number=1, buffer_row_groups=3)
    order = numbers(stamps, epoch)
    assert numbers(stamps, epoch) == order
    assert numbers(pickle.loads(pickle.dumps(stamps)), epoch) == order
    others = [replace(epoch, number=2), replace(epoch, seed=4), replace(epoch, seed=None)]
    orders = [order, *(numbers(stamps, other) for other in others)]
    assert len({tuple(o) for o in orders}) == 4
    assert all(sorted(o) == OK for o in orders)


def test_rows_are_shuffled_across_the_row_groups_of_a_buffer(stamps: StampSet) -> None:
    """Neighbours of the files are neighbours in 2 of 62 places or so, not in most; row groups alone would keep them."""
    order = numbers(stamps, Epoch(10, seed=3, buffer_row_groups=4))
    assert sum(b == a + 1 for a, b in pairwise(order)) < 8


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    world_size=st.integers(1, 7),
    workers=st.integers(1, 4),
    batch=st.integers(1, 9),
    buffer=st.integers(1, 5),
    seed=st.one_of(st.none(), st.integers(0, 5)),
    remainder=st.sampled_from(Remainder),
)
def test_ranks_and_workers_share_every_stamp_once(
    stamps: StampSet, world_size: int, workers: int, batch: int, buffer: int, seed: int | None, remainder: Remainder
) -> None:
    epoch = Epoch(batch, seed, 2, buffer, remainder)
    read = [numbers(stamps, epoch, share) for share in shares(world_size, workers)]
    everything = sorted(n for part in read for n in part)
    assert len(set(everything)) == len(everything)
    assert set(everything) <= set(OK)
    left_out = stamps.left_out(epoch, world_size * workers)
    assert len(everything) + left_out == len(OK)
    sizes = {len(part) for part in read}
    if remainder is Remainder.KEEP:
        assert left_out == 0
        assert max(sizes) - min(sizes) <= 1
    else:
        assert len(sizes) == 1
        assert left_out < world_size * workers * (batch if remainder is Remainder.WHOLE_BATCHES else 1)
        assert remainder is Remainder.EQUAL_ROWS or all(size % batch == 0 for size in sizes)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    group=st.integers(1, 9),
    failed=st.sets(st.integers(0, 40), max_size=12),
    readers=st.integers(1, 5),
)
def test_sets_of_any_shape_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], group: int, failed: set[int], readers: int
) -> None:
    bad = dict.fromkeys(failed, "OFF_BRICK")
    where = write_set(tmp_path_factory.mktemp("any"), rows, row_group_rows=group, failed=bad)
    found = find_stamps(StampSource((str(where),), columns=("number",)))
    read = sorted(n for share in shares(1, readers) for n in numbers(found, Epoch(4, seed=1), share))
    assert read == [i for i in range(sum(rows)) if i not in failed]


def test_splits(folder: Path) -> None:
    by_split = {
        split: set(numbers(find_stamps(StampSource((str(folder),), splits=(split,), columns=("number",))), Epoch()))
        for split in ("train", "val")
    }
    assert by_split["train"] | by_split["val"] == set(OK)
    assert not by_split["train"] & by_split["val"]
    assert by_split["val"] == set(numbers(_found(folder / "region_split=val"), Epoch()))
    with pytest.raises(FileNotFoundError, match="test"):
        find_stamps(StampSource((str(folder),), splits=("test",)))


def _found(*paths: Path, **more: object) -> StampSet:
    return find_stamps(StampSource(tuple(map(str, paths)), columns=("number",), **more))  # type: ignore[arg-type]


def test_any_filesystem(folder: Path, stamps: StampSet) -> None:
    """One that neither maps files nor knows their folder, as a store of objects."""
    other = SubTreeFileSystem(str(folder), LocalFileSystem())
    found = find_stamps(StampSource(("region_split=train", "region_split=val"), columns=("number",), filesystem=other))
    assert sorted(numbers(found, Epoch(seed=1))) == OK
    with pytest.raises(ValueError, match="filesystem="):
        find_stamps(StampSource(("s3://bucket/set",)))


def commit(folder: Path, files: list[Path]) -> None:
    tree = {str(f.relative_to(folder)): {"size_bytes": f.stat().st_size, "crc32": 0} for f in files}
    (folder / "_manifest.json").write_text(json.dumps({"plan_id": "x", "files": tree}))
    (folder / "_stage.json").write_text("{}")


def test_of_a_stage_only_committed_files_are_read(tmp_path: Path) -> None:
    where = write_set(tmp_path, (5, 5, 5))
    files = sorted(where.rglob("*.parquet"))
    (where / "_stage.json").write_text("{}")
    with pytest.raises(ValueError, match="not finished"):
        _found(where)
    commit(where, files[:2])
    assert sorted(numbers(_found(where), Epoch())) == list(range(10))
    assert sorted(numbers(_found(where / "region_split=train"), Epoch())) == list(range(10))
    (where / "_old").mkdir()
    files[2].rename(where / "_old" / "part.parquet")
    (where / "_manifest.json").unlink()
    (where / "_stage.json").unlink()
    assert sorted(numbers(_found(where), Epoch())) == list(range(10))
    commit(where, files[:2])
    files[0].write_bytes(files[0].read_bytes() + b"x")
    with pytest.raises(ValueError, match="another size"):
        _found(where)


def test_a_file_named_twice_is_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        _found(folder, folder / "region_split=val")


def compressed(number: int) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays(number))  # type: ignore[arg-type]
    return buffer.getvalue()


def wide_floats(number: int) -> bytes:
    return encode_stamp(
        {key: a.astype(">f8" if a.dtype == np.float32 else a.dtype) for key, a in arrays(number).items()}
    )


MIXED = (
    encoded,
    compressed,
    lambda n: gzip.compress(encoded(n)),
    lambda n: encode_stamp(arrays(n, "griz")),
    wide_floats,
    lambda n: encode_stamp({"maskbits": arrays(n)["maskbits"], **arrays(n)}),
)


def test_mixed_layouts_are_read_and_told(tmp_path: Path) -> None:
    where = write_set(tmp_path, (40, 33), make=lambda n: MIXED[n % len(MIXED)](n), row_group_rows=16)
    found = find_stamps(StampSource((str(where),), layers=("image", "maskbits"), columns=("number",)))
    batches = list(read_batches(found, Epoch(9, seed=1)))
    assert sum(batch.one_by_one for batch in batches) == sum(n % len(MIXED) in (1, 2) for n in range(73))
    seen = {}
    for batch in batches:
        for number, image, mask in zip(
            batch.columns["number"].tolist(), batch.layers["image"], batch.layers["maskbits"], strict=True
        ):
            seen[number] = image
            stored = read_stamp(MIXED[number % len(MIXED)](number))
            np.testing.assert_array_equal(image, np.stack([stored[f"image_{b}"] for b in "grz"]).astype(np.float32))
            np.testing.assert_array_equal(mask, stored["maskbits"])
    assert sorted(seen) == list(range(73))


def flipped(blob: bytes, at: int) -> bytes:
    return blob[:at] + bytes([blob[at] ^ 0x20]) + blob[at + 1 :]


DAMAGED = {
    "truncated": lambda n: encoded(n)[:-40],
    "empty": lambda n: b"",
    "not an archive": lambda n: b"x" * len(encoded(n)),
    "npy header": lambda n: flipped(encoded(n), 60),
    "shape": lambda n: encoded(n).replace(b"(5, 5)", b"(5, 4)", 1),
    "CRC": lambda n: flipped(encoded(n), StampLayout.of(encoded(n)).members["invvar_g"].crc_byte[1]),
    "other size": lambda n: encode_stamp(arrays(n, size=6)),
    "other bands": lambda n: encode_stamp(arrays(n, "gr")),
    "mask of floats": lambda n: encode_stamp({k: a.astype(np.float32) for k, a in arrays(n).items()}),
}


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("row", [8, 13])
def test_a_damaged_stamp_stops_the_reader_with_its_place(tmp_path: Path, what: str, row: int) -> None:
    where = write_set(tmp_path, (20,), make=lambda n: DAMAGED[what](n) if n == row else encoded(n))
    found = find_stamps(StampSource((str(where),), layers=("image", "maskbits"), columns=("number",)))
    with pytest.raises(ValueError, match=r"part-000.parquet, row group 1, row \d"):
        list(read_batches(found, Epoch(4, seed=1)))


def test_a_stamp_without_status_ok_stops_the_reader(tmp_path: Path) -> None:
    where = write_set(tmp_path, (20,), make=lambda n: None if n == 11 else encoded(n))
    with pytest.raises(ValueError, match="row group 1: 7 rows have a stamp, but 8 the status OK"):
        list(read_batches(_found(where), Epoch()))


def test_a_changed_page_is_found_on_request(tmp_path: Path) -> None:
    where = write_set(tmp_path, (8,), compression="none")
    (file,) = where.rglob("*.parquet")
    data, pixels = file.read_bytes(), arrays(5)["image_r"].tobytes()[:24]
    assert pixels in data
    file.write_bytes(data.replace(pixels, bytes(24), 1))
    assert len(numbers(_found(where), Epoch())) == 8
    with pytest.raises(OSError, match=r"(?i)crc"):
        numbers(_found(where, page_checksums=True), Epoch())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"columns": ("nothing",)}, "no column nothing"),
        ({"stamp_column": "ctrl_stamp_npz"}, "no column ctrl_stamp_npz"),
        ({"layers": ("psf",)}, "no psf_g"),
        ({"columns": ("stamp_npz",)}, "decoded"),
        ({"bands": "gg"}, "differ"),
        ({"layers": ()}, "neither may be empty"),
        ({"paths": "folder"}, "several"),
    ],
)
def test_what_is_not_there_is_an_error(folder: Path, source: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(read_batches(find_stamps(StampSource(**{"paths": (str(folder),), **source})), Epoch()))  # type: ignore[arg-type]


def test_wrong_shares_and_epochs_are_errors() -> None:
    for wrong in ({"rank": 1}, {"worker": -1}, {"workers": 0}):
        with pytest.raises(ValueError, match="count from 0"):
            Share(**wrong)
    with pytest.raises(ValueError, match="positive"):
        Epoch(0)


def test_memory_is_given_again_only_when_nothing_refers_to_it(stamps: StampSet) -> None:
    epoch = Epoch(4, seed=1, buffer_row_groups=2)
    expected = [batch.layers["image"].copy() for batch in read_batches(stamps, epoch)]
    kept = list(read_batches(stamps, epoch))
    views = [batch.layers["image"][1:, 0] for batch in read_batches(stamps, epoch)]
    raw = [memoryview(batch.layers["image"]) for batch in read_batches(stamps, epoch)]
    for image, batch, view, buffer in zip(expected, kept, views, raw, strict=True):
        np.testing.assert_array_equal(batch.layers["image"], image)
        np.testing.assert_array_equal(view, image[1:, 0])
        np.testing.assert_array_equal(np.asarray(buffer), image)
    places = [batch.layers["image"].ctypes.data for batch in read_batches(stamps, epoch)]
    assert len(set(places)) < len(places) / 2, "what is let go is used again"
