"""The tables say what they hold."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest

from dhs_gen.status import Status
from dhs_pipeline.schemas import COMPACTED, CUTOUTS, HOSTS, MANIFEST, METRICS, REJECTS, STAMPS, WIDE, table_from_rows
from dhs_pipeline.storage import write_parquet_stream

ALL = {
    "hosts": HOSTS,
    "rejects": REJECTS,
    "cutouts": CUTOUTS,
    "manifest": MANIFEST,
    "stamps": STAMPS,
    "metrics": METRICS,
    "wide": WIDE,
}
UNITS = {"_arcsec": "arcsec", "_rad": "rad", "_pix": "pix", "_deg": "deg", "_nmgy": "nanomaggy", "_km_s": "km/s"}


@pytest.mark.parametrize("name", ALL)
def test_every_column_has_a_meaning_and_its_unit(name: str) -> None:
    for field in ALL[name]:
        assert field.metadata[b"description"], field.name
        for suffix, unit in UNITS.items():
            if field.name.endswith(suffix):
                assert field.metadata[b"unit"].decode() in (unit, f"{unit}/pix"), field.name


def test_enumerations_stand_in_the_metadata() -> None:
    assert STAMPS.field("status").metadata[b"values"].decode().split("|") == [s.value for s in Status]


def test_stamps_are_the_manifest_plus_results_and_metrics_leave_the_pixels_out() -> None:
    assert STAMPS.names[: len(MANIFEST)] == MANIFEST.names
    assert STAMPS.names == [*METRICS.names, "stamp_npz"]
    assert [n for n in COMPACTED.names if n not in STAMPS.names] == ["region_split_4a"]


def test_rows_must_fit() -> None:
    schema = pa.schema([pa.field("a", pa.int32(), nullable=False), pa.field("b", pa.string())])
    assert table_from_rows([{"a": 1}], schema).to_pylist() == [{"a": 1, "b": None}]
    with pytest.raises(ValueError, match=r"\['c'\]"):
        table_from_rows([{"a": 1, "c": 2}], schema)
    with pytest.raises(ValueError, match="'a' may not be null"):
        table_from_rows([{"b": "x"}], schema)


@pytest.mark.parametrize("cells", [[b"a", None, b"", b"\x00yz"], [None, None], [b""], []])
def test_bytes_come_through_as_arrow_itself_would_hold_them(cells: list[bytes | None]) -> None:
    schema = pa.schema([pa.field("blob", pa.binary()), pa.field("n", pa.int32())])
    table = table_from_rows([{"blob": cell, "n": 1} for cell in cells], schema)
    table.validate(full=True)
    assert table.column("blob").combine_chunks().equals(pa.array(cells, pa.binary()))


def test_many_bytes_are_kept_in_pieces_and_written_as_one() -> None:
    schema = pa.schema([pa.field("blob", pa.binary())])
    rng = np.random.default_rng(1)
    cells = [None if i % 7 == 3 else rng.bytes(150_000 + 1000 * (i % 5)) for i in range(128)]
    table = table_from_rows([{"blob": cell} for cell in cells], schema)
    table.validate(full=True)
    pieces = [chunk.nbytes for chunk in table.column("blob").chunks]
    assert len(pieces) > 4
    assert max(pieces) < 4 << 20
    assert table.column("blob").to_pylist() == cells
    whole = pa.table([pa.array(cells, pa.binary())], schema=schema)
    in_pieces, at_once = io.BytesIO(), io.BytesIO()
    for of, sink in ((table, in_pieces), (whole, at_once)):
        write_parquet_stream([of], schema, sink, row_group_rows=128)
    assert in_pieces.getvalue() == at_once.getvalue()
