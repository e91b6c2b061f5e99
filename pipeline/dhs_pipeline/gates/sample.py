"""The pixels of some pairs: chosen by a hash of their ids, read from the row groups that hold them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dhs_gen.stamps import decode_stamp_npz, read_stamp
from dhs_gen.streams import unit_intervals
from dhs_pipeline.gates.classes import CONTROL, NEGATIVE, POSITIVE, Index, Pairs, has, ok_rows, pairs_of, strings
from dhs_pipeline.gates.data import PairSample
from dhs_pipeline.gates.result import CannotRun
from dhs_pipeline.gates.scan import STAMP, DataSet
from dhs_pipeline.schemas import BANDS

_READERS = 4


@dataclass(frozen=True, eq=False)
class Pixels:
    """A decoded stamp: (bands, H, W) float32 each; layers are None where the stamp does not carry them."""

    image: NDArray[np.float32]
    bandset: str
    arc: NDArray[np.float32] | None
    invvar: NDArray[np.float32] | None


def read_sample(data: DataSet, rows: pa.Table, n_pairs: int) -> tuple[PairSample, str]:
    """A sample of pairs whose positive and control are OK, and its bandset.

    Pairs are taken in the order of a hash of their ids, so the sample depends on the pairs of the set alone. All have
    the commonest bands and shape of the set, so that their arrays stack.

    Parameters
    ----------
    rows
        The scan of the set.
    n_pairs
        At most so many.

    Raises
    ------
    CannotRun
        If the set has no such pairs; the message says why.
    """
    pairs = pairs_of(rows)
    for name in ("task_id", "host_id"):
        if not has(rows, name):
            raise CannotRun(f"the set has no column {name}")
    chosen = choose_pairs(rows, pairs, n_pairs)
    positive, control, negative = (pairs.first[kind][chosen] for kind in (POSITIVE, CONTROL, NEGATIVE))
    layouts = _layouts(rows)
    usable = (negative >= 0) & ok_rows(rows)[negative] & (layouts[negative] == layouts[positive])
    negatives = _negatives_by_kind(rows, negative, usable)
    stamps = read_stamps(data, rows, np.concatenate([positive, control, negative[usable]]))
    pixels = {row: decode(stamp) for row, stamp in stamps.items()}

    def images(members: Index) -> NDArray[np.float32]:
        return np.stack([pixels[int(i)].image for i in members])

    def layer(members: Index, name: str) -> NDArray[np.float32] | None:
        found = [getattr(pixels[int(i)], name) for i in members]
        return None if any(a is None for a in found) else np.stack(found)

    sample = PairSample(
        pairs=rows.take(positive),
        control_host_ids=_text(rows, "host_id", control),
        control_task_ids=_text(rows, "task_id", control),
        positive=images(positive),
        control=images(control),
        arc=layer(positive, "arc"),
        invvar=layer(positive, "invvar"),
        control_invvar=layer(control, "invvar"),
        negative_of=negatives,
        negative={kind: images(negative[of]) for kind, of in negatives.items()},
        negative_light={kind: layer(negative[of], "arc") for kind, of in negatives.items()},
        negative_task_ids={kind: _text(rows, "task_id", negative[of]) for kind, of in negatives.items()},
    )
    return sample, pixels[int(positive[0])].bandset


def choose_pairs(rows: pa.Table, pairs: Pairs, n_pairs: int) -> Index:
    """(m) pairs of the sample, in the order of their hash.

    Raises
    ------
    CannotRun
        If there is none.
    """
    ok, layouts = ok_rows(rows), _layouts(rows)
    whole = np.flatnonzero(pairs.whole)
    if not whole.size:
        raise CannotRun("no positive has one control of its own: the set holds no pairs")
    positive, control = pairs.first[POSITIVE][whole], pairs.first[CONTROL][whole]
    good = ok[positive] & ok[control]
    if not good.any():
        raise CannotRun(f"of {whole.size} pairs none has the stamps of both its positive and its control")
    alike = good & (layouts[positive] == layouts[control])
    if not alike.any():
        raise CannotRun("positives and controls differ in bands or shape: their pixels cannot be compared")
    commonest = min(Counter(layouts[positive[alike]]).items(), key=lambda item: (-item[1], item[0]))[0]
    same = whole[alike & (layouts[positive] == commonest)]
    order = np.argsort(unit_intervals(pairs.ids[same], salt="gate_sample"), kind="stable")
    return same[order[:n_pairs]]


def read_stamps(data: DataSet, rows: pa.Table, wanted: Sequence[int] | Index) -> dict[int, bytes]:
    """Stamps of some rows of the scan, by row; rows without a stamp are left out. Only their row groups are read."""
    index = pa.array(np.asarray(wanted, np.int64))
    files, places = rows.column("file").take(index).to_pylist(), rows.column("file_row").take(index).to_pylist()
    by_file: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row, name, place in zip(wanted, files, places, strict=True):
        by_file[name].append((int(row), place))
    with ThreadPoolExecutor(_READERS) as pool:
        parts = pool.map(lambda item: _read_file(data, *item), sorted(by_file.items()))
        return {row: stamp for part in parts for row, stamp in part.items()}


def decode(blob: bytes) -> Pixels:
    """A stamp's image and layers."""
    arrays = read_stamp(blob)
    bandset = "".join(b for b in BANDS if f"image_{b}" in arrays)

    def layer(name: str) -> NDArray[np.float32] | None:
        keys = [f"{name}_{b}" for b in bandset]
        there = keys and all(k in arrays for k in keys)
        return np.stack([np.asarray(arrays[k], np.float32) for k in keys]) if there else None

    image = layer("image")
    if image is None:
        image, bandset = decode_stamp_npz(blob)
    return Pixels(image, bandset, layer("arc"), layer("invvar"))


def empty_sample(rows: pa.Table) -> PairSample:
    """No pairs."""
    none = np.empty((0, len(BANDS), 0, 0), np.float32)
    return PairSample(rows.slice(0, 0), (), (), none, none, None, None, None, {}, {}, {}, {})


def _layouts(rows: pa.Table) -> NDArray[np.object_]:
    """Bands and shape of each row's stamp as text; None without a stamp."""

    def layout(keys: str | None, shapes: str | None) -> str | None:
        return None if keys is None else f"{[k for k in keys.split(',') if k.startswith('image_')]} {shapes}"

    pairs = zip(strings(rows, "stamp_keys"), strings(rows, "stamp_shapes"), strict=True)
    return np.array([layout(keys, shapes) for keys, shapes in pairs], dtype=object)


def _negatives_by_kind(rows: pa.Table, negative: Index, usable: NDArray[np.bool_]) -> dict[str, Index]:
    """Kind → indices of the sample's pairs with a usable negative of it, by name of the kind."""
    if not usable.any() or not has(rows, "negative_kind"):
        return {}
    kinds = strings(rows, "negative_kind")
    of = {int(i): str(kinds[negative[i]]) for i in np.flatnonzero(usable)}
    return {k: np.array([i for i, kind in of.items() if kind == k], np.intp) for k in sorted(set(of.values()))}


def _read_file(data: DataSet, name: str, wanted: Sequence[tuple[int, int]]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    with data.file(name).open_input() as source:
        parquet = pq.ParquetFile(source)
        sizes = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
        ends = np.cumsum(sizes)
        groups: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for row, place in wanted:
            groups[int(np.searchsorted(ends, place, side="right"))].append((row, place))
        for group, members in sorted(groups.items()):
            column = parquet.read_row_group(group, columns=[STAMP]).column(STAMP)
            start = int(ends[group]) - sizes[group]
            for row, place in members:
                if (stamp := column[place - start].as_py()) is not None:
                    found[row] = stamp
    return found


def _text(rows: pa.Table, name: str, members: Index) -> tuple[str, ...]:
    return tuple(str(value) for value in rows.column(name).take(pa.array(members)).to_pylist())
