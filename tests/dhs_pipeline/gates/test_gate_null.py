"""null_injection: what the path does to a host shows, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_pairs import limits
from rerender_cases import LOOSE, Made, half_pixel_right, tampered, thumbnails, with_sample

from dhs_pipeline.gates import null
from dhs_pipeline.gates.data import GateData
from dhs_pipeline.gates.null import null_injection
from dhs_pipeline.gates.result import CannotRun, GateResult, Outcome

CONFIG = limits(*LOOSE, "null_injection.pairs=24")


@pytest.fixture
def data(paired_run: Made) -> GateData:
    return paired_run[1]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(null, "PICTURE_PROBES", {"linear": thumbnails})


def broken(result: GateResult) -> set[str]:
    return {f.name for f in result.figures if not f.ok}


def test_a_clean_set_passes_with_an_auc_of_one_half_exactly(data: GateData) -> None:
    result = null_injection(data, CONFIG)
    assert result.outcome is Outcome.PASS
    assert [f.value for f in result.figures] == [0.0, 0.0, 0.0, 0.0, 0.5]
    assert {f.rows for f in result.figures} == {24, 48}


def test_a_path_that_resamples_nulls_fails(data: GateData) -> None:
    def resampled(ids: Any, *, flux_factor: float = 1.0, psf_factor: float = 1.0) -> np.ndarray:
        images = data.rerender.positives(ids, flux_factor=flux_factor)
        return half_pixel_right(images) if flux_factor == 0 else images

    result = null_injection(tampered(data, positives=resampled), CONFIG)
    assert result.outcome is Outcome.FAIL
    assert "nulls: fraction of differing pixels" in broken(result)
    assert result.offenders[0].task_id in data.sample.task_ids


def test_one_bit_of_one_pixel_of_one_null_fails(data: GateData) -> None:
    def minus_zero(ids: Any, *, flux_factor: float = 1.0, psf_factor: float = 1.0) -> np.ndarray:
        images = data.rerender.positives(ids, flux_factor=flux_factor)
        if flux_factor == 0:
            images[3, 1, 5, 5] = np.nextafter(images[3, 1, 5, 5], np.float32(np.inf))
        return images

    result = null_injection(tampered(data, positives=minus_zero), CONFIG)
    assert broken(result) == {"nulls: fraction of differing pixels"}
    figures = {f.name: f.value for f in result.figures}
    assert figures["nulls: fraction of differing pixels"] == pytest.approx(1 / (24 * 3 * 64 * 64))
    assert figures["nulls: largest difference, last places"] == pytest.approx(1.0)
    assert len(result.offenders) == 1


def test_a_set_that_the_run_does_not_make_fails(data: GateData) -> None:
    result = null_injection(with_sample(data, positive=data.sample.positive * np.float32(1.005)), CONFIG)
    assert broken(result) == {"positives rendered again: fraction of differing pixels"}


def test_on_other_hosts_the_null_is_compared_with_its_own_host(data: GateData) -> None:
    others = tuple(h + "-other" for h in data.sample.control_host_ids)
    elsewhere = with_sample(data, control_host_ids=others, control=np.zeros_like(data.sample.control))
    assert null_injection(elsewhere, CONFIG).outcome is Outcome.PASS


def test_without_a_run_or_power_it_does_not_run(data: GateData) -> None:
    from dataclasses import replace

    with pytest.raises(CannotRun, match="no run here"):
        null_injection(replace(data, rerender=None, no_rerender="no run here"), CONFIG)
    with pytest.raises(CannotRun, match="have no power"):
        null_injection(data, limits("null_injection.pairs=24"))
