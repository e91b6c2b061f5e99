"""One module for local paths and s3://, with the same behaviour for both."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhs_pipeline.storage import Location, StorageError, write_parquet


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return Location.of(tmp_path / "store")
    return Location.of(request.getfixturevalue("s3_bucket")) / tmp_path.name


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


def test_names_are_normalised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Location.of("s3a://bucket/x/").uri == "s3://bucket/x"
    assert Location.of(f"file://{tmp_path}/y").uri == f"{tmp_path}/y"
    monkeypatch.chdir(tmp_path)
    assert Location.of("rel").uri == str(tmp_path / "rel")
    assert Location.of("rel/../other/").uri == str(tmp_path / "other")
    with pytest.raises(StorageError, match="only local paths and s3://"):
        Location.of("hdfs://name/x")


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
