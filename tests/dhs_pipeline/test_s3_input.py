"""Parquet over ranges of an S3 object: how much is fetched for what, and what happens when a range fails."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhs_pipeline.storage import Location, StorageError, StorageUnavailable, write_parquet
from dhs_pipeline.storage.s3_client import storage_settings
from dhs_pipeline.storage.s3_input import S3Input
from faulty_proxy import Fault, FaultyProxy, Request

ROWS, GROUP, STAMP_BYTES = 512, 128, 48_000
LIGHT = [f"d{i:02d}" for i in range(40)]


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """40 light columns about one of stamps: 24.6 MB in four row groups."""
    rng = np.random.default_rng(0)
    columns: dict[str, object] = {name: rng.normal(size=ROWS) for name in LIGHT}
    columns["stamp_npz"] = [rng.bytes(STAMP_BYTES) for _ in range(ROWS)]
    columns["last"] = np.arange(ROWS)
    return pa.table(columns)


@pytest.fixture
def stamps(proxy: FaultyProxy, seaweed_bucket: str, table: pa.Table) -> Location:
    file = Location.of(seaweed_bucket) / "stamps.parquet"
    if not file.exists():
        write_parquet(table, file, row_group_rows=GROUP)
    proxy.reset()
    return file


def fetched(proxy: FaultyProxy) -> int:
    return sum(r.body_bytes for r in proxy.requests)


def test_the_footer_is_one_request(stamps: Location, proxy: FaultyProxy) -> None:
    with stamps.open_input() as source:
        assert pq.ParquetFile(source).metadata.num_rows == ROWS
    assert [r.method for r in proxy.requests] == ["GET"]
    assert fetched(proxy) == storage_settings().parquet_tail_kib << 10


def test_one_row_group_is_itself_in_few_requests(stamps: Location, proxy: FaultyProxy, table: pa.Table) -> None:
    """6.2 MB of stamps in two parts, the columns before them in one request, the ones after them in one."""
    with stamps.open_input() as source:
        assert pq.ParquetFile(source).read_row_group(1).equals(table.slice(GROUP, GROUP))
    assert len(proxy.requests) <= 5
    assert fetched(proxy) < GROUP * STAMP_BYTES * 1.3


def test_light_columns_leave_the_stamps_where_they_are(stamps: Location, proxy: FaultyProxy, table: pa.Table) -> None:
    names = ["d03", "d35"]
    with stamps.open_input() as source:
        assert pq.ParquetFile(source).read(columns=names).equals(table.select(names))
    groups = ROWS // GROUP
    assert len(proxy.requests) <= 2 * (1 + groups)  # threads that ask at once may fetch a range twice
    assert fetched(proxy) <= ((2 * groups * storage_settings().parquet_read_ahead_kib) + 256) << 10
    proxy.reset()
    assert stamps.read_table(names).equals(table.select(names))
    assert len(proxy.requests) <= 2 + 2 * groups
    assert fetched(proxy) < 3_000_000


def test_a_whole_table_comes_once(stamps: Location, proxy: FaultyProxy, table: pa.Table) -> None:
    assert stamps.read_table().equals(table)
    assert fetched(proxy) < 1.1 * (stamps.size() or 0)


def test_all_ranges_are_of_one_version(stamps: Location, proxy: FaultyProxy) -> None:
    stamps.read_table()
    first, *later = proxy.requests
    assert first.if_match is None
    assert len({r.if_match for r in later}) == 1
    assert later[0].if_match is not None


def test_faults_between_ranges_are_overcome(
    stamps: Location, proxy: FaultyProxy, table: pa.Table, quick_retries: None
) -> None:
    faults = (Fault.TRUNCATED, Fault.SLOW_DOWN, Fault.RESET_IN_BODY, Fault.INTERNAL_ERROR, Fault.RESET)
    proxy.answer(*faults)
    assert stamps.read_table().equals(table)


def test_a_corrupt_range_is_found_by_the_checksum_of_its_page(stamps: Location, proxy: FaultyProxy) -> None:
    def corrupt_stamps(request: Request) -> Fault:
        return Fault.CORRUPT if request.if_match is not None else Fault.NONE

    proxy.rule = corrupt_stamps
    with pytest.raises(OSError, match="CRC"):
        stamps.read_table(["stamp_npz"])


def test_a_file_replaced_while_it_is_open_is_an_error(
    seaweed_bucket: str, proxy: FaultyProxy, tmp_path: Path, table: pa.Table
) -> None:
    file = Location.of(seaweed_bucket) / tmp_path.name / "t.parquet"
    write_parquet(table, file, row_group_rows=GROUP)
    with file.open_input() as source:
        parquet = pq.ParquetFile(source)
        write_parquet(table.slice(1), file, row_group_rows=GROUP)
        with pytest.raises(StorageError, match="replaced while it was being read") as error:
            parquet.read_row_group(1)
    assert "\n" not in str(error.value)


def test_a_store_that_goes_away_keeps_its_class_through_pyarrow(
    stamps: Location, proxy: FaultyProxy, quick_retries: None
) -> None:
    with stamps.open_input() as source:
        parquet = pq.ParquetFile(source)
        proxy.always(Fault.SLOW_DOWN)
        with pytest.raises(StorageUnavailable, match="503 SlowDown"):
            parquet.read_row_group(1)
    with pytest.raises(StorageUnavailable, match="cannot open"):
        stamps.open_input()


def test_it_reads_as_any_file_does(seaweed_bucket: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    """Random seeks and reads, long and short, against the same bytes in memory."""
    rng = np.random.default_rng(5)
    data = rng.bytes(3_000_000)
    file = Location.of(seaweed_bucket) / tmp_path.name / "x.bin"
    file.write_bytes(data)
    ours, plain = S3Input(file.uri), io.BytesIO(data)
    for _ in range(150):
        place, length = int(rng.integers(0, 3_100_000)), int(10 ** rng.uniform(0, 6.2))
        assert ours.seek(place) == plain.seek(place)
        assert ours.read(length) == plain.read(length)
        assert ours.tell() <= len(data) or ours.tell() == place
    assert ours.seek(-10, io.SEEK_END) == len(data) - 10
    assert ours.read() == data[-10:]
    assert ours.read(5) == b""


def test_memory_for_read_ahead_is_bounded(seaweed_bucket: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    file = Location.of(seaweed_bucket) / tmp_path.name / "x.bin"
    file.write_bytes(bytes(30 << 20))
    source = S3Input(file.uri)
    for place in range(0, 29 << 20, 1 << 20):
        source.seek(place)
        source.read(10)
    held = sum(map(len, source._windows.values()))
    assert held <= (storage_settings().parquet_cache_mib << 20) + (storage_settings().parquet_read_ahead_kib << 10)
    source.seek(-4, io.SEEK_END)
    before = len(proxy.requests)
    source.read(4)
    assert len(proxy.requests) == before  # the end of the file stays
