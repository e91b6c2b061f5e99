"""The digest sees every change of content and none of arrangement."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from blake3 import blake3

from dhs_pipeline.digest import Digest, digest_path, digest_table
from dhs_pipeline.storage import Location, StorageError, write_parquet

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("x", pa.float64()),
        ("n", pa.int32()),
        ("blob", pa.binary()),
        ("pixels", pa.list_(pa.float32())),
        ("region_split", pa.string()),
    ]
)


def rows() -> list[dict[str, object]]:
    rng = np.random.default_rng(1)
    return [
        {
            "id": f"t{i}",
            "x": rng.normal(),
            "n": i,
            "blob": bytes([i, 0]),
            "pixels": [1.0, float(i)],
            "region_split": "val",
        }
        for i in range(20)
    ]


def hashed_by_hand(content: list[dict[str, object]]) -> Digest:
    """The rule of the digest, cell by cell."""
    widths = {"x": "<d", "n": "<q"}
    names = sorted(n for n in SCHEMA.names if n != "region_split")
    total = 0
    for row in content:
        numbers = [row[n] for n in names if n in widths]
        text = "\0".join(names).encode() + bytes(v is not None for v in numbers)
        text += b"".join(struct.pack(widths[n], row[n] or 0) for n in names if n in widths)
        for name in (n for n in names if n not in widths):
            value = np.float32(row[name]).tobytes() if name == "pixels" and row[name] is not None else row[name]
            cell = value.encode() if isinstance(value, str) else value
            text += struct.pack("<q", -1) if cell is None else struct.pack("<q", len(cell)) + cell
        total += int.from_bytes(blake3(text).digest(16), "little")
    return Digest(total % 2**128, len(content))


@pytest.mark.parametrize("column", ["id", "x", "n", "blob", "pixels"])
def test_digest_follows_its_rule(column: str) -> None:
    assert digest(rows()) == hashed_by_hand(rows())
    repeated = [r | {"id": f"θ{i % 3}"} for i, r in enumerate(rows())]
    assert digest(repeated) == hashed_by_hand(repeated)
    some_null = [r | {column: None} if i % 3 == 0 else r for i, r in enumerate(repeated)]
    assert digest(some_null) == hashed_by_hand(some_null)
    all_null = [r | {column: None} for r in repeated]
    assert digest(all_null) == hashed_by_hand(all_null)
    assert digest([]) == Digest()


def digest(content: list[dict[str, object]]) -> Digest:
    return digest_table(pa.Table.from_pylist(content, schema=SCHEMA))


def test_order_files_row_groups_and_compression_do_not_matter(tmp_path: Path) -> None:
    whole = digest(rows())
    assert digest(rows()[::-1]) == whole
    assert digest(rows()[:7]) + digest(rows()[7:]) == whole
    for k, part in enumerate((rows()[:3], rows()[3:])):
        where = Location.of(tmp_path / "set" / f"{k}.parquet")
        write_parquet(pa.Table.from_pylist(part, schema=SCHEMA), where, row_group_rows=4, pixel_compression="snappy")
    assert digest_path(Location.of(tmp_path / "set")) == whole
    assert Digest.parse(str(whole)) == whole


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "t"),
        ("x", None),
        ("x", -0.0),
        ("n", 99),
        ("blob", b"\x00"),
        ("blob", None),
        ("pixels", [1.0]),
        ("id", None),
    ],
)
def test_every_change_of_a_cell_shows(column: str, value: object) -> None:
    before = rows()
    before[0]["x"] = 0.0
    changed = [dict(r) for r in before]
    changed[0][column] = value
    assert digest(changed) != digest(before)


def test_lost_doubled_and_swapped_cells_show() -> None:
    whole = digest(rows())
    assert digest(rows()[1:]) != whole
    assert digest([*rows(), rows()[0]]) != whole
    swapped = rows()
    swapped[0]["x"], swapped[1]["x"] = swapped[1]["x"], swapped[0]["x"]
    assert digest(swapped) != whole


def test_null_is_not_zero_and_text_does_not_run_together() -> None:
    base = rows()[0]
    assert digest([base | {"n": None}]) != digest([base | {"n": 0}])
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    one = digest_table(pa.Table.from_pylist([{"a": "xy", "b": "z"}], schema=schema))
    other = digest_table(pa.Table.from_pylist([{"a": "x", "b": "yz"}], schema=schema))
    assert one != other


def test_split_labels_and_chosen_columns_are_left_out() -> None:
    relabelled = [r | {"region_split": "train"} for r in rows()]
    assert digest(relabelled) == digest(rows())
    table = pa.Table.from_pylist(rows(), schema=SCHEMA)
    assert digest_table(table, ["id", "x"]) == digest_table(table.select(["id", "x"]))


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no Parquet file"):
        digest_path(Location.of(tmp_path))
    where = Location.of(tmp_path / "x.parquet")
    write_parquet(pa.Table.from_pylist(rows(), schema=SCHEMA), where)
    assert digest_path(where, ["id", "n"]).rows == 20
    with pytest.raises(StorageError, match="no column y"):
        digest_path(where, ["id", "y"])


def plain_digest(table: pa.Table) -> str:
    """The definition, cell by cell from Python values: binary and text columns alone."""
    names = sorted(table.column_names)
    total = 0
    for row in table.to_pylist():
        text = "\0".join(names).encode()
        for name in names:
            cell = row[name].encode() if isinstance(row[name], str) else row[name]
            text += (-1 if cell is None else len(cell)).to_bytes(8, "little", signed=True) + (cell or b"")
        total += int.from_bytes(blake3(text).digest(16), "little")
    return f"{total % 2**128:032x}-{table.num_rows}"


def with_bytes_below_nulls(dtype: pa.DataType) -> pa.Array:
    full = pa.array([b"abc", b"nobody's", b"", b"de", b"nobody's"], dtype)
    valid = pa.array([True, False, True, True, False])
    return pa.Array.from_buffers(dtype, 5, [valid.buffers()[1], *full.buffers()[1:]])


@pytest.mark.parametrize("dtype", [pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("cut", [(0, 5), (1, 3), (4, 1), (2, 0)])
def test_binary_cells_are_hashed_where_they_lie(dtype: pa.DataType, cut: tuple[int, int]) -> None:
    """Whatever the array behind them: sliced, in pieces, without any value, with bytes that belong to no cell."""
    blob = with_bytes_below_nulls(dtype)
    table = pa.table({"blob": blob, "id": pa.array(["a", None, "c", "d", ""]), "none": pa.nulls(5, dtype)})
    part = table.slice(*cut)
    assert str(digest_table(part)) == plain_digest(part)
    pieces = pa.concat_tables([part, table.slice(0, 0), table])
    assert pieces.column("blob").num_chunks > 1
    assert str(digest_table(pieces)) == plain_digest(pieces)


def test_stamps_are_not_copied() -> None:
    table = pa.table({"blob": pa.array([bytes(100_000)] * 50)})
    tracemalloc.start()
    try:
        digest_table(table)
        python_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert python_bytes < 1e6
