"""The data set under PyTorch's DataLoader: nothing lost with workers and ranks, and epochs that workers hear of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from stamp_files import write_set

from dhs_finder.stamp_set import Epoch, Remainder, StampSource, find_stamps

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from dhs_finder.torch_dataset import StampDataset  # noqa: E402

ROWS = 61


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"), (30, 20, 11))


def dataset(folder: Path, epoch: Epoch, rank: int = 0, world_size: int = 1) -> StampDataset:
    stamps = find_stamps(StampSource((str(folder),), layers=("image", "maskbits"), columns=("number", "task_id")))
    return StampDataset(stamps, epoch, rank=rank, world_size=world_size)


def loaded(loader: DataLoader) -> list[int]:
    found = []
    for batch in loader:
        assert batch["image"].dtype == torch.float32
        assert batch["image"].shape[1:] == (3, 5, 5)
        assert batch["maskbits"].dtype == torch.int32
        assert batch["image"][:, 0, 0, 0].tolist() == batch["number"].tolist()
        assert batch["task_id"] == [f"task{n}" for n in batch["number"].tolist()]
        found += batch["number"].tolist()
    return found


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_two_workers_lose_nothing_and_hear_of_the_epoch(folder: Path, context: str) -> None:
    data = dataset(folder, Epoch(8, seed=1))
    loader = DataLoader(data, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context=context)
    first = loaded(loader)
    data.set_epoch(1)
    second = loaded(loader)
    data.set_epoch(0)
    assert loaded(loader) == first
    assert second != first
    assert sorted(first) == sorted(second) == list(range(ROWS))


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_get_equal_numbers_of_batches_and_no_stamp_twice(folder: Path, workers: int) -> None:
    epoch = Epoch(4, seed=2, remainder=Remainder.WHOLE_BATCHES)
    found = []
    for rank in range(3):
        data = dataset(folder, epoch, rank, 3)
        loader = DataLoader(data, batch_size=None, num_workers=workers)
        batches = [batch["number"].tolist() for batch in loader]
        assert len(batches) == data.batches(workers) == {0: 5, 2: 4}[workers]
        assert all(len(batch) == 4 for batch in batches)
        found += [n for batch in batches for n in batch]
    assert len(set(found)) == len(found) == {0: 60, 2: 48}[workers]


def test_tensors_that_are_kept_do_not_change(folder: Path) -> None:
    data = dataset(folder, Epoch(4, seed=1, buffer_row_groups=1))
    kept = [batch["image"][:, 0] for batch in data]
    for tensor, batch in zip(kept, data, strict=True):
        assert torch.equal(tensor, batch["image"][:, 0])


def test_the_reader_itself_needs_no_torch() -> None:
    code = "import sys, dhs_finder.reader; assert 'torch' not in sys.modules; assert 'dhs_pipeline' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
