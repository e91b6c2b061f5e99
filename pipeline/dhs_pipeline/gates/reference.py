"""The reference classifier of the gates that change an arc, and the pairs that they change.

It is the network of :mod:`dhs_pipeline.gates.cnn`, trained on the sample's positives against its controls and hard
negatives with half of the hosts, so that each pair is scored by a network that has not seen its host in any role.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhs_gen.streams import unit_intervals
from dhs_pipeline.gates.data import GateData, PairSample
from dhs_pipeline.gates.pictures import noise_sigma, stretch
from dhs_pipeline.gates.probes import Contest, host_folds, hosts_of
from dhs_pipeline.gates.rerender import Rerenderer
from dhs_pipeline.gates.result import CannotRun

FOLDS = 2


def rerenderer_of(data: GateData) -> Rerenderer:
    """CannotRun, with the reason, where there is none or no pair to render."""
    if data.rerender is None:
        raise CannotRun(data.no_rerender)
    if len(data.sample) == 0:
        raise CannotRun("there are no pairs: no positive with its control")
    return data.rerender


def picture_sigma(sample: PairSample) -> NDArray[np.float64]:
    """(bands,) noise of the set, nanomaggy/pix; CannotRun without the layer invvar."""
    if sample.invvar is None:
        raise CannotRun("the set carries no layer invvar, so pictures have no scale")
    return noise_sigma(sample.invvar)


def some_pairs(sample: PairSample, pairs: int, gate: str) -> NDArray[np.intp]:
    """Indices of at most ``pairs`` pairs, drawn by a hash of their names, in the order of the sample."""
    u = unit_intervals(sample.task_ids, salt=gate)
    return np.sort(np.argsort(u, kind="stable")[:pairs])


@dataclass(frozen=True, eq=False)
class Reference:
    """Two networks, and which of them may score a pair.

    Parameters
    ----------
    models
        By fold: trained on the rows of all other folds.
    fold
        (n) fold of each pair of the sample.
    sigma_nmgy
        (bands,) scale of the pictures.
    control_scores
        By fold: sorted scores of the controls in it, the yardstick of :meth:`rank`.
    """

    models: tuple[Any, ...]
    fold: NDArray[np.intp]
    sigma_nmgy: NDArray[np.float64]
    control_scores: tuple[NDArray[np.float64], ...]

    def score(self, images: NDArray[np.float32], pairs: NDArray[np.intp]) -> NDArray[np.float64]:
        """(m,) logits of (m, bands, H, W) images that belong to some pairs of the sample."""
        from dhs_pipeline.gates.cnn import score

        out = np.empty(len(pairs))
        pictures = stretch(images, self.sigma_nmgy)
        for k, model in enumerate(self.models):
            here = self.fold[pairs] == k
            if here.any():
                out[here] = score(model, pictures[here])
        return out

    def rank(self, scores: NDArray[np.float64], pairs: NDArray[np.intp]) -> NDArray[np.float64]:
        """(m,) fraction of held-out controls that score lower, ties one half: the mean of it is an AUC."""
        out = np.empty(len(pairs))
        for k, controls in enumerate(self.control_scores):
            here = self.fold[pairs] == k
            below = np.searchsorted(controls, scores[here], "left") + np.searchsorted(controls, scores[here], "right")
            out[here] = below / (2.0 * controls.size)
        return out


@lru_cache(maxsize=1)
def reference_classifier(data: GateData) -> Reference:
    """Trained once for all gates that ask for it.

    Raises
    ------
    CannotRun
        Without PyTorch, without the layer invvar, or with too few hosts.
    """
    from dhs_pipeline.gates.cnn import fit, score

    sample = data.sample
    sigma = picture_sigma(sample)
    dark = [sample.control, *sample.negative.values()]
    dark_hosts = sample.control_host_ids
    for kind in sample.negative:
        dark_hosts += hosts_of(sample.host_ids, sample.negative_of[kind])
    contest = Contest(
        stretch(np.concatenate(dark), sigma), stretch(sample.positive, sigma), dark_hosts, sample.host_ids
    )
    fold = host_folds(contest, FOLDS)
    models = tuple(fit(contest.x[fold != k], contest.labels[fold != k], k) for k in range(FOLDS))
    n_dark = len(contest.first)
    control_fold = fold[: len(sample)]
    scores = [np.sort(score(m, contest.first[: len(sample)][control_fold == k])) for k, m in enumerate(models)]
    return Reference(models, fold[n_dark:], sigma, tuple(scores))
