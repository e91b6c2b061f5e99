"""One module for local paths and s3://, with the same behaviour for both."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhs_pipeline.storage import Location, StorageError, write_parquet

STORES = {"moto": "s3_bucket", "seaweed": "seaweed_bucket"}


@pytest.fixture(params=["local", *STORES])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return Location.of(tmp_path / "store")
    return Location.of(request.getfixturevalue(STORES[request.param])) / tmp_path.name


def test_bytes_tables_and_listings(root: Location) -> None:
    file = root / "a" / "part-0.parquet"
    assert not file.exists()
    assert file.size() is None
    table = pa.table({"x": [1.0, 2.0], "s": ["p", None]})
    size = write_parquet(table, file)
    (root / "a" / "_hidden.parquet").write_bytes(b"no")
    (root / "b" / "note.json").write_json({"k": [1, 2]})
    assert file.size() == size
    assert file.read_table().equals(table)
    assert [f.name for f in root.files(".parquet", recursive=True)] == ["part-0.parquet"]
    assert root.folders() == ["a", "b"]
    assert (root / "b" / "note.json").read_json() == {"k": [1, 2]}
    root.delete()
    assert not file.exists()


def test_overwriting_replaces_whole_files(root: Location) -> None:
    file = root / "x.bin"
    file.write_bytes(b"long content")
    file.write_bytes(b"new")
    assert file.read_bytes() == b"new"
    assert len(root.files()) == 1


NAMES = ("a b.bin", "50%.bin", "100%25.bin", "ü–é.bin", "a+b.bin", "a&b=c.bin", "(x)[y]'z'.bin", "q?#.bin")


def test_names_of_all_kinds(root: Location) -> None:
    for number, name in enumerate(NAMES):
        (root / "in all" / name).write_bytes(bytes([number]))
    assert sorted(f.name for f in (root / "in all").files()) == sorted(NAMES)
    assert root.folders() == ["in all"]
    for number, name in enumerate(NAMES):
        assert (root / "in all" / name).read_bytes() == bytes([number])
        assert (root / "in all" / name).size() == 1
    (root / "in all").delete()
    assert (root / "in all").files() == []


def test_folders_are_there_while_something_is_in_them(root: Location) -> None:
    assert not root.exists()
    assert not root.is_dir()
    assert root.files(recursive=True) == []
    assert root.folders() == []
    (root / "a" / "b" / "x.bin").write_bytes(b"1")
    (root / "a" / "y.bin").write_bytes(b"22")
    (root / "ab.bin").write_bytes(b"333")
    for folder in (root, root / "a", root / "a" / "b"):
        assert folder.exists()
        assert folder.is_dir()
        assert folder.size() is None
    file = root / "a" / "y.bin"
    assert file.exists()
    assert not file.is_dir()
    assert file.size() == 2
    assert not (root / "a" / "y").exists()
    assert [(f.name, size) for f, size in (root / "a").files_with_sizes()] == [("y.bin", 2)]
    assert [(f.name, size) for f, size in root.files_with_sizes(recursive=True)] == [
        ("x.bin", 1), ("y.bin", 2), ("ab.bin", 3)
    ]  # fmt: skip
    (root / "a").delete()
    assert not (root / "a").exists()
    assert [f.name for f in root.files(recursive=True)] == ["ab.bin"]
    (root / "a").delete()


def test_missing_files_are_not_found(root: Location) -> None:
    for read in (Location.read_bytes, Location.open_input, Location.read_json, Location.read_table):
        with pytest.raises(FileNotFoundError):
            read(root / "nothing.parquet")


def test_empty_files(root: Location) -> None:
    file = root / "_SUCCESS"
    file.write_bytes(b"")
    assert file.exists()
    assert file.size() == 0
    assert file.read_bytes() == b""
    with file.open_input() as source:
        assert source.read() == b""
    assert root.files() == []


def test_columns_that_are_not_there_are_an_error(root: Location) -> None:
    write_parquet(pa.table({"x": [1.0]}), root / "t.parquet")
    assert (root / "t.parquet").read_table(["x"]).column_names == ["x"]
    with pytest.raises(pa.ArrowInvalid, match="nothing"):
        (root / "t.parquet").read_table(["nothing"])


def test_put_if_absent_writes_once(root: Location) -> None:
    file = root / "deep" / "_plan.json"
    assert file.put_if_absent(b"first")
    assert not file.put_if_absent(b"second")
    assert file.read_bytes() == b"first"
    file.delete()
    assert file.put_if_absent(b"third")
    assert [f.name for f in (root / "deep").files()] == []
    assert file.read_bytes() == b"third"


def _race(file: Location, number: int, start: float) -> bool:
    time.sleep(max(0.0, start - time.time()))
    return file.put_if_absent(b"%d" % number * 1000)


@pytest.mark.parametrize("root", ["local", "seaweed"], indirect=True)
def test_of_many_processes_one_puts(root: Location) -> None:
    """The children are forked after this process has used its own client. Not on moto, whose threads look whether
    there is an object, and put theirs some steps later.
    """
    file = root / "_manifest.json"
    assert not file.exists()
    with multiprocessing.get_context("fork").Pool(4) as pool:
        won = pool.starmap(_race, [(file, number, time.time() + 0.3) for number in range(4)])
    assert sum(won) == 1
    assert file.read_bytes() == b"%d" % won.index(True) * 1000


def test_a_damaged_page_is_noticed(root: Location) -> None:
    table = pa.table({"x": [np.random.default_rng(1).bytes(100)]})
    file = root / "t.parquet"
    write_parquet(table, file, pixel_compression="none")
    raw = bytearray(file.read_bytes())
    raw[raw.index(table.column("x")[0].as_py())] ^= 1
    file.write_bytes(raw)
    with pytest.raises(OSError, match="CRC"):
        file.read_table()


def test_names_are_normalised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Location.of("s3a://bucket/x/").uri == "s3://bucket/x"
    assert Location.of(f"file://{tmp_path}/y").uri == f"{tmp_path}/y"
    monkeypatch.chdir(tmp_path)
    assert Location.of("rel").uri == str(tmp_path / "rel")
    assert Location.of("rel/../other/").uri == str(tmp_path / "other")
    with pytest.raises(StorageError, match="only local paths and s3://"):
        Location.of("hdfs://name/x")
    for nowhere in ("s3://", "s3:///x"):
        with pytest.raises(StorageError, match="names no bucket"):
            Location.of(nowhere)


def test_a_path_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make this folder") as error:
        Location.of(tmp_path / "file" / "below").make_dir()
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot write here"):
        Location.of(tmp_path).check_writable()


def test_a_bucket_that_is_not_there_is_one_line(s3_bucket: str) -> None:
    with pytest.raises(StorageError, match="cannot write here") as error:
        Location.of(s3_bucket + "-missing").check_writable()
    assert "\n" not in str(error.value)


def test_metadata_survives(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("x", pa.float64(), metadata={"unit": "arcsec"})])
    where = Location.of(tmp_path / "t.parquet")
    write_parquet(pa.table({"x": [1.0]}, schema=schema), where)
    assert pq.read_schema(where.uri).field("x").metadata == {b"unit": b"arcsec"}
