"""The tables say what they hold."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dhs_gen.status import Status
from dhs_pipeline.schemas import COMPACTED, CUTOUTS, HOSTS, MANIFEST, METRICS, REJECTS, STAMPS, WIDE, table_from_rows

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
