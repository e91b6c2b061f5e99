"""What gates look at: a light table of every row, and the pixels of a sample of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dhs_pipeline.gates.rerender import Rerenderer

PAIR_COLUMNS = pa.schema(
    [
        pa.field("pair_id", pa.string()),
        pa.field("sample_kind", pa.string()),  # positive, control, negative
        pa.field("negative_kind", pa.string()),  # null in others
    ]
)
"""What makes a set one of pairs."""

PIXEL_FACTS = pa.schema(
    [
        pa.field("file", pa.string()),  # below the folder of the stamps
        pa.field("file_row", pa.int64()),  # row in it, from 0
        pa.field("row_in_file", pa.int64()),  # rank of the row's pair among the pairs of the file
        pa.field("split", pa.string()),  # of the folder region_split=<split>, else of the column region_split
        pa.field("stamp_bytes", pa.int64()),
        pa.field("stamp_keys", pa.string()),  # keys of the NPZ, in their order, joined by ","
        pa.field("stamp_dtypes", pa.string()),  # dtypes of the images, in band order, joined by ","
        pa.field("stamp_shapes", pa.string()),
        pa.field("pixels_hash", pa.string()),  # blake2b of the images' bytes in band order; null without a stamp
        pa.field("pixels_nan", pa.int64()),
        pa.field("pixels_zero", pa.int64()),
        pa.field("pixels_min", pa.float64()),
        pa.field("pixels_max", pa.float64()),
    ]
)
"""What the scan of a set adds to each row: facts that need the stamp but not its picture.

Members of a pair lie next to each other in one order of classes, so the row's own place in the file tells its class by
design. Nobody feeds it to a network; what must not tell is the place of the pair, so ``row_in_file`` is that.
"""


@dataclass(frozen=True, eq=False)
class PairSample:
    """Pixels of n pairs, row i of every array being pair i. Only pairs whose members are all OK are in it.

    Parameters
    ----------
    pairs
        (n) the light rows of the positives, with all columns of STAMPS but the stamp.
    control_host_ids
        (n) host of each control; the positive's own in a set of ``same_host`` pairs.
    control_task_ids
        (n) their names.
    positive, control
        (n, bands, H, W) float32, nanomaggy/pix.
    arc
        (n, bands, H, W) float32: the positive's noise-free arc. None if the set does not carry the layer.
    invvar, control_invvar
        (n, bands, H, W) float32, 1/nanomaggy²; None if the set does not carry the layer.
    negative_of
        Kind of hard negative → indices of the pairs that have one.
    negative, negative_light, negative_task_ids
        Kind → (m, bands, H, W) images and noise-free light, and (m) names; the light is None without the layer.
    """

    pairs: pa.Table
    control_host_ids: tuple[str, ...]
    control_task_ids: tuple[str, ...]
    positive: NDArray[np.float32]
    control: NDArray[np.float32]
    arc: NDArray[np.float32] | None
    invvar: NDArray[np.float32] | None
    control_invvar: NDArray[np.float32] | None
    negative_of: dict[str, NDArray[np.intp]]
    negative: dict[str, NDArray[np.float32]]
    negative_light: dict[str, NDArray[np.float32] | None]
    negative_task_ids: dict[str, tuple[str, ...]]

    def __len__(self) -> int:
        return self.pairs.num_rows

    @property
    def host_ids(self) -> tuple[str, ...]:
        """(n) host of each positive: the blocks of the bootstrap and of the cross-validation."""
        return tuple(self.pairs.column("host_id").to_pylist())

    @property
    def task_ids(self) -> tuple[str, ...]:
        return tuple(self.pairs.column("task_id").to_pylist())

    @property
    def same_host(self) -> bool:
        """Whether every control is the positive's own host."""
        return self.control_host_ids == self.host_ids

    def column(self, name: str) -> NDArray[np.float64]:
        """A numeric column of the positives as float64, null as NaN."""
        return self.pairs.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)

    @property
    def lens_xy_pix(self) -> NDArray[np.float64]:
        """(n, 2) lens centre on the stamp, (column, row) from 0."""
        return np.stack([self.column("lens_x_pix"), self.column("lens_y_pix")], axis=1)

    def take(self, pairs: Sequence[int] | NDArray[np.intp]) -> PairSample:
        """The sample cut down to some of its pairs, in the given order."""
        chosen = np.asarray(pairs, dtype=np.intp)
        new_index = {int(old): new for new, old in enumerate(chosen)}
        kept = {
            k: np.array([j for j, i in enumerate(of) if int(i) in new_index], np.intp)
            for k, of in self.negative_of.items()
        }

        def some(array: NDArray[np.float32] | None, index: NDArray[np.intp] = chosen) -> NDArray[np.float32] | None:
            return None if array is None else array[index]

        return PairSample(
            pairs=self.pairs.take(chosen),
            control_host_ids=tuple(self.control_host_ids[i] for i in chosen),
            control_task_ids=tuple(self.control_task_ids[i] for i in chosen),
            positive=self.positive[chosen],
            control=self.control[chosen],
            arc=some(self.arc),
            invvar=some(self.invvar),
            control_invvar=some(self.control_invvar),
            negative_of={
                k: np.array([new_index[int(self.negative_of[k][j])] for j in js], np.intp) for k, js in kept.items()
            },
            negative={k: self.negative[k][js] for k, js in kept.items()},
            negative_light={k: some(self.negative_light[k], js) for k, js in kept.items()},
            negative_task_ids={k: tuple(self.negative_task_ids[k][j] for j in js) for k, js in kept.items()},
        )


@dataclass(frozen=True, eq=False)
class GateData:
    """A data set as gates see it.

    Parameters
    ----------
    rows
        Every row of the set: the columns of STAMPS without the stamp, and PIXEL_FACTS. A column that a foreign set
        does not have is absent.
    sample
        Pixels of a sample of pairs; may be empty.
    bandset, pixscale_arcsec
        Bands of the sample's arrays, in order, and their scale.
    rerender
        Makes stamps of the set again with something changed; None where the run's manifest, cutouts or bank are not
        at hand, with the reason in ``no_rerender``.
    real_lenses
        (m, bands, H, W) stamps of real lenses, or None.
    no_sample
        Why the sample is empty, where it is.
    """

    rows: pa.Table
    sample: PairSample
    bandset: str
    pixscale_arcsec: float
    rerender: Rerenderer | None
    no_rerender: str
    real_lenses: NDArray[np.float32] | None
    no_sample: str = ""
