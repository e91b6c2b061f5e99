"""A small convolutional network in plain PyTorch: the strong probe of the gates. CPU, one thread, seconds.

Its reproducibility is that of PyTorch on one machine: a fixed seed, one thread.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhs_pipeline.gates.result import CannotRun

EPOCHS = 8
_BATCH = 64
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-3
_POOLED = 4
"""Side of the coarse map that tells where on the stamp a feature lies."""


def train_and_score(
    x: NDArray[np.float32], y: NDArray[np.intp], x_new: NDArray[np.float32], seed: int, epochs: int = EPOCHS
) -> NDArray[np.float64]:
    """Train on some pictures, score others.

    Three strided convolutions; mean, maximum and a coarse map of the features; one linear layer. About 26,000 weights.
    Pictures are turned and mirrored at random while it learns.

    Parameters
    ----------
    x, x_new
        (n, channels, H, W) float32 pictures of order 1.
    y
        (n,) 0 or 1.

    Raises
    ------
    CannotRun
        If PyTorch is not installed.
    """
    model = fit(x, y, seed, epochs)
    return score(model, x_new)


def fit(x: NDArray[np.float32], y: NDArray[np.intp], seed: int, epochs: int = EPOCHS) -> Any:
    """The trained network; arguments as :func:`train_and_score`."""
    torch = _torch()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _network(torch, x.shape[1])
        optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        steps = epochs * math.ceil(len(x) / _BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
        loss_of = torch.nn.BCEWithLogitsLoss()
        pictures, labels = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.float32))
        model.train()
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(_BATCH):
                batch = _turned(torch, pictures[rows])
                optimizer.zero_grad()
                loss_of(model(batch).squeeze(1), labels[rows]).backward()
                optimizer.step()
                schedule.step()
    return model.eval()


def score(model: Any, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) logits of pictures under a trained network."""
    torch = _torch()
    with torch.inference_mode():
        parts = [model(part).squeeze(1).numpy() for part in torch.from_numpy(np.ascontiguousarray(x)).split(512)]
    return np.concatenate(parts).astype(np.float64)


def _torch() -> Any:
    try:
        import torch
    except (ImportError, OSError) as error:
        raise CannotRun(f"the convolutional probe needs PyTorch (extra `finder`): {error}") from error
    return torch


def _network(torch: Any, channels: int) -> Any:
    nn = torch.nn

    class Pool(nn.Module):  # type: ignore[name-defined]
        def forward(self, x: Any) -> Any:
            where = nn.functional.adaptive_avg_pool2d(x, _POOLED).flatten(1)
            return torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3)), where], dim=1)

    def block(a: int, b: int, size: int) -> list[Any]:
        return [nn.Conv2d(a, b, size, stride=2, padding=size // 2), nn.BatchNorm2d(b), nn.ReLU()]

    return nn.Sequential(
        *block(channels, 16, 5), *block(16, 32, 3), *block(32, 64, 3), Pool(), nn.Linear(64 * (2 + _POOLED**2), 1)
    )


def _turned(torch: Any, batch: Any) -> Any:
    """The batch turned by quarter turns and mirrored at random, the same for the whole batch."""
    batch = torch.rot90(batch, int(torch.randint(4, (1,))), dims=(2, 3))
    return batch.flip(3) if torch.rand(1) < 0.5 else batch
