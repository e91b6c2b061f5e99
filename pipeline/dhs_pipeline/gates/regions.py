"""What the gates on pixels share: layers that must be there, distances from the lens, the scale of noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dhs_pipeline.gates.data import PairSample
from dhs_pipeline.gates.pictures import noise_sigma
from dhs_pipeline.gates.result import CannotRun


def arc_of(sample: PairSample) -> NDArray[np.float32]:
    """(n, bands, H, W) noise-free arcs, nanomaggy/pix.

    Raises
    ------
    CannotRun
        If there is no pair, or the set does not carry the layer.
    """
    need_pairs(sample)
    if sample.arc is None:
        raise CannotRun("the set does not carry the layer arc")
    return sample.arc


def control_weight_of(sample: PairSample) -> NDArray[np.float32]:
    """(n, bands, H, W) invvar of the controls, 1/nanomaggy²; raises as :func:`arc_of`."""
    need_pairs(sample)
    if sample.control_invvar is None:
        raise CannotRun("the controls do not carry the layer invvar")
    return sample.control_invvar


def weight_of(sample: PairSample) -> NDArray[np.float32]:
    """(n, bands, H, W) invvar of the positives, 1/nanomaggy²; raises as :func:`arc_of`."""
    need_pairs(sample)
    if sample.invvar is None:
        raise CannotRun("the positives do not carry the layer invvar")
    return sample.invvar


def noise_scale(sample: PairSample) -> NDArray[np.float64]:
    """(bands,) typical noise of the controls, nanomaggy/pix: the unit of both classes' pictures."""
    return noise_sigma(control_weight_of(sample))


def distance_pix(sample: PairSample) -> NDArray[np.float64]:
    """(n, H, W) distance of each pixel's centre from the lens centre."""
    rows, columns = sample.control.shape[-2:]
    x, y = sample.lens_xy_pix[:, 0, None], sample.lens_xy_pix[:, 1, None]
    return np.hypot((np.arange(columns) - x)[:, None, :], (np.arange(rows) - y)[:, :, None])


def n_hosts(sample: PairSample) -> int:
    """Number of different hosts of the positives."""
    return len(set(sample.host_ids))


def need_pairs(sample: PairSample) -> None:
    """Raises CannotRun if there is no pair."""
    if len(sample) == 0:
        raise CannotRun("there is no pair in the sample")
