"""The reader as a PyTorch data set; the only module here that imports torch.

loader = DataLoader(StampDataset(stamps, Epoch(seed=1)), batch_size=None, num_workers=2)
for number in range(epochs):
    loader.dataset.set_epoch(number)
    for batch in loader:
        batch["image"]   # (256, 3, 64, 64) float32
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from dhs_finder.reader import StampBatch, read_batches
from dhs_finder.stamp_set import Epoch, Share, StampSet

__all__ = ["StampDataset"]


class StampDataset(IterableDataset):
    """Batches of one rank as dicts, dealt among the workers of a DataLoader with ``batch_size=None``.

    Parameters
    ----------
    stamps
        What :func:`dhs_finder.stamp_set.find_stamps` found, the same in every rank.
    epoch
        How to read; :meth:`set_epoch` sets its number.
    rank, world_size
        This process among those that train together, ``torch.distributed.get_rank()`` and ``get_world_size()``.
        Processes that wait for each other at each step need an equal number of batches: an epoch whose ``remainder`` is
        not ``KEEP``.
    """

    def __init__(self, stamps: StampSet, epoch: Epoch, *, rank: int = 0, world_size: int = 1) -> None:
        super().__init__()
        self.stamps, self.epoch, self.share = stamps, epoch, Share(rank, world_size)
        # shared memory: workers that outlive an epoch (persistent_workers) see the new number
        self._number = torch.tensor(epoch.number).share_memory_()

    def set_epoch(self, number: int) -> None:
        """Number of the next pass; call it before each, as with ``DistributedSampler``."""
        self._number.fill_(number)

    def batches(self, workers: int) -> int:
        """Batches of this rank in an epoch, with so many workers (0 counts as 1)."""
        shares = [replace(self.share, worker=worker, workers=max(workers, 1)) for worker in range(max(workers, 1))]
        return sum(self.stamps.batches(self.epoch, share) for share in shares)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        share = self.share if worker is None else replace(self.share, worker=worker.id, workers=worker.num_workers)
        epoch = replace(self.epoch, number=int(self._number))
        return map(as_tensors, read_batches(self.stamps, epoch, share))


def as_tensors(batch: StampBatch) -> dict[str, Any]:
    """Layers and columns by name: tensors that share the batch's memory; columns of texts as lists."""
    columns = {name: c.tolist() if c.dtype == object else torch.from_numpy(c) for name, c in batch.columns.items()}
    return {**{layer: torch.from_numpy(array) for layer, array in batch.layers.items()}, **columns}
