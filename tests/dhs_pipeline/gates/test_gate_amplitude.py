"""arc_amplitude: a score that follows the arc passes; one that follows anything else does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_pairs import limits
from rerender_cases import LOOSE, ArcReader, Made, make_paired_run, tampered

from dhs_pipeline.gates import amplitude, reference
from dhs_pipeline.gates.amplitude import arc_amplitude, arc_signal_to_noise
from dhs_pipeline.gates.data import GateData
from dhs_pipeline.gates.result import GateResult, Outcome

CONFIG = limits(*LOOSE, "arc_amplitude.pairs=20", "arc_amplitude.steps=4")
AT_NONE = "score at no flux less the control's, largest difference"
RISE = "largest rise of the mean score in one step"
FALL = "fall of the mean score from full flux to none"


@pytest.fixture
def data(paired_run: Made) -> GateData:
    return paired_run[1]


def judged(data: GateData, reader: ArcReader, monkeypatch: pytest.MonkeyPatch) -> GateResult:
    monkeypatch.setattr(amplitude, "reference_classifier", lambda _: reader)
    return arc_amplitude(data, CONFIG)


def broken(result: GateResult) -> set[str]:
    return {f.name for f in result.figures if not f.ok}


def test_a_reader_of_arcs_passes(data: GateData, monkeypatch: pytest.MonkeyPatch) -> None:
    result = judged(data, ArcReader(data.sample, data.sample.arc), monkeypatch)
    assert result.outcome is Outcome.PASS
    fading, snr, ideal = result.curves
    assert fading.x == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert fading.y[0] > 0.9 > fading.y[-1]
    assert list(snr.x) == sorted(snr.x)
    assert len(ideal.y) == len(snr.y) == len(snr.low)
    assert fading.y[-1] == pytest.approx(next(f.value for f in result.figures if f.name == "mean score at no flux"))


def test_a_classifier_that_ignores_arcs_fails(data: GateData, monkeypatch: pytest.MonkeyPatch) -> None:
    corner = np.zeros_like(data.sample.arc)
    corner[..., :4, :4] = 1.0
    result = judged(data, ArcReader(data.sample, corner), monkeypatch)
    assert broken(result) == {FALL}


def test_a_mark_of_the_path_that_stays_when_the_arc_is_gone_fails(
    data: GateData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def marked(ids: Any, **factors: float) -> np.ndarray:
        return data.rerender.positives(ids, **factors) + np.float32(0.001)

    result = judged(tampered(data, positives=marked), ArcReader(data.sample, data.sample.arc), monkeypatch)
    assert AT_NONE in broken(result)


def test_a_score_that_rises_as_the_arc_fades_fails(data: GateData, monkeypatch: pytest.MonkeyPatch) -> None:
    def brighter_first(ids: Any, *, flux_factor: float = 1.0, psf_factor: float = 1.0) -> np.ndarray:
        return data.rerender.positives(ids, flux_factor=0.02 if flux_factor == 1 else flux_factor)

    result = judged(tampered(data, positives=brighter_first), ArcReader(data.sample, data.sample.arc), monkeypatch)
    assert RISE in broken(result)


def test_signal_to_noise_of_all_bands(data: GateData) -> None:
    """√Σ arc²·invvar of the host over all bands and pixels; the drawn hosts have invvar 1e4 everywhere."""
    wanted = np.sqrt((data.sample.arc.astype(float) ** 2 * 1e4).sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(arc_signal_to_noise(data.sample, "grz"), wanted, rtol=1e-4)


def test_no_pair_is_scored_by_a_network_that_has_seen_its_host(data: GateData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are replaced by the set of pictures that they were trained on."""
    cnn = pytest.importorskip("dhs_pipeline.gates.cnn")
    monkeypatch.setattr(cnn, "fit", lambda x, y, seed: ({p.tobytes() for p in x}, np.bincount(y)))
    monkeypatch.setattr(cnn, "score", lambda model, x: np.array([float(p.tobytes() in model[0]) for p in x]))
    found = reference.reference_classifier(data)
    everyone = np.arange(len(data.sample))
    for images in (data.sample.positive, data.sample.control):
        assert not found.score(images, everyone).any()
    for kind, of in data.sample.negative_of.items():
        assert not found.score(data.sample.negative[kind], of).any()
    assert {len(set(found.fold[np.array(data.sample.host_ids) == h])) for h in data.sample.host_ids} == {1}
    n = len(data.sample)
    dark, lit = np.sum([model[1] for model in found.models], axis=0)
    assert (dark, lit) == (2 * n, n)  # each row trains one of two networks; a negative beside each control
    ranks = found.rank(np.array([0.0, 0.5, -1.0]), np.array([0, 1, 2]))
    np.testing.assert_array_equal(ranks, [0.5, 1.0, 0.0])


@pytest.mark.slow
def test_the_network_itself_reads_arcs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    sample = (data := make_paired_run(tmp_path / "run", n_hosts=6, tasks_per_host=40)[1]).sample
    found = reference.reference_classifier(data)
    everyone = np.arange(len(sample))
    assert found.rank(found.score(sample.positive, everyone), everyone).mean() > 0.7
