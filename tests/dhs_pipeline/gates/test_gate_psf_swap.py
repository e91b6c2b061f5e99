"""psf_swap: arcs that are drawn with FWHM = psfsize fail, whatever the columns say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fake_pairs import limits
from rerender_cases import LOOSE, ArcReader, Made, tampered, with_sample

from dhs_gen.moffat import pixel_integrated_moffat
from dhs_pipeline.gates import psf_swap as module
from dhs_pipeline.gates.data import GateData
from dhs_pipeline.gates.psf_swap import psf_swap, psfsize_pix, sharpness, survey_kernel
from dhs_pipeline.gates.result import CannotRun, GateResult, Outcome

CONFIG = limits(*LOOSE, "psf_swap.pairs=12")
PIX = 0.262


@pytest.fixture
def data(paired_run: Made, monkeypatch: pytest.MonkeyPatch) -> GateData:
    seen = paired_run[1]
    monkeypatch.setattr(module, "reference_classifier", lambda _: ArcReader(seen.sample, seen.sample.arc))
    return seen


def broken(result: GateResult) -> set[str]:
    """What of the contract is broken: the names without the band."""
    return {f.name.replace(", g", "").replace(", r", "").replace(", z", "") for f in result.figures if not f.ok}


COLUMNS = "psfsize of the drawn kernel: median difference from the catalogue's"
STATED = "psfsize of the Moffat of the stated FWHM: largest difference from the stated psfsize"
AGAIN = "arc layer against arcs rendered again: largest difference over the arc's peak"
SHARPNESS = "sharpness of the arcs: median difference from arcs in the survey's PSF"


@pytest.mark.parametrize(
    ("fwhm_arcsec", "beta", "psfsize_arcsec"),
    [(0.960, 3.5, 1.20), (0.916, 3.0, 1.20), (1.229, 3.0, 1.60), (0.703, 2.5, 1.0)],
)
def test_psfsize_of_a_moffat(fwhm_arcsec: float, beta: float, psfsize_arcsec: float) -> None:
    """Calculated for DR10 by averaging over 0.262″ pixels; a profile without pixels would be 1.5 % smaller."""
    assert psfsize_pix(fwhm_arcsec / PIX, beta, 101) * PIX == pytest.approx(psfsize_arcsec, rel=2e-3)


def test_the_survey_kernel_has_the_psfsize_that_was_asked_for() -> None:
    kernel = survey_kernel(1.3 / PIX, 3.0, 63)
    assert kernel.sum() == pytest.approx(1.0)
    nea_arcsec2 = PIX**2 / (kernel**2).sum()
    assert 2.3548 * np.sqrt(nea_arcsec2 / (4 * np.pi)) == pytest.approx(1.3, rel=1e-4)
    with pytest.raises(CannotRun, match=r"no Moffat of beta 3 has a psfsize of 0\.10 px"):
        survey_kernel(0.1, 3.0, 63)


def test_sharpness_is_one_over_the_noise_equivalent_area() -> None:
    flat = np.zeros((2, 8, 8), np.float32)
    flat[0, 2:4, 2:7] = 3.0
    np.testing.assert_allclose(sharpness(flat), [0.1, np.nan])


def test_a_clean_set_passes_and_the_change_is_reported(data: GateData) -> None:
    result = psf_swap(data, CONFIG)
    assert result.outcome is Outcome.PASS
    changes = [f for f in result.figures if f.name.startswith("change of AUC")]
    assert [f.name[-4:].strip("x ") for f in changes] == ["0.8", "1.25"]
    assert all(f.low is not None and f.low <= f.value <= f.high for f in changes)


def wide_arcs(data: GateData) -> np.ndarray:
    """Arcs in a Moffat of FWHM = psfsize."""

    def kernel(psfsize: float, beta: float, size: int) -> np.ndarray:
        drawn = pixel_integrated_moffat(psfsize / PIX, beta, size)
        return drawn / drawn.sum()

    return data.rerender.arcs_by_kernel(data.sample.task_ids, data.sample.lens_xy_pix, kernel)


def drawn_wide(data: GateData, columns: dict[str, float]) -> GateData:
    """The set as a path that takes psfsize for a FWHM makes it; its rerenderer has the same fault."""
    arcs = dict(zip(data.sample.task_ids, wide_arcs(data), strict=True))

    def again(ids: Any, **_: float) -> np.ndarray:
        return np.stack([arcs[i] for i in ids])

    wrong = with_sample(data, arc=again(data.sample.task_ids), pairs=with_columns(data.sample.pairs, columns))
    return tampered(replace(wrong, rows=with_columns(data.rows, columns)), arcs=again)


def with_columns(table: pa.Table, factors: dict[str, float]) -> pa.Table:
    for name, factor in factors.items():
        for band in "grz":
            column = f"{name}_{band}_arcsec"
            values = [None if v is None else factor * v for v in table.column(column).to_pylist()]
            table = table.set_column(table.column_names.index(column), column, pa.array(values, pa.float64()))
    return table


def test_fwhm_for_psfsize_is_seen_in_honest_columns(data: GateData) -> None:
    """FWHM = psfsize = 1.3″ instead of 0.99″: the drawn psfsize is then 1.28 times the catalogue's."""
    wrong = drawn_wide(data, {"psf_fwhm_used": 1.3 / 0.98, "psfsize_used": 1.28})
    assert broken(psf_swap(wrong, CONFIG)) >= {COLUMNS, SHARPNESS}


def test_fwhm_for_psfsize_is_seen_in_the_stated_kernel(data: GateData) -> None:
    wrong = drawn_wide(data, {"psf_fwhm_used": 1.3 / 0.98})
    assert broken(psf_swap(wrong, CONFIG)) == {STATED, SHARPNESS}


def test_fwhm_for_psfsize_is_seen_in_the_pixels_alone(data: GateData) -> None:
    result = psf_swap(drawn_wide(data, {}), CONFIG)
    assert broken(result) == {SHARPNESS}
    assert all(f.value > 0.15 for f in result.figures if not f.ok)


def test_an_arc_layer_that_the_run_does_not_make_fails(data: GateData) -> None:
    other = with_sample(data, arc=data.sample.arc * np.float32(1.001))
    assert broken(psf_swap(other, CONFIG)) == {AGAIN}


def test_a_classifier_that_reads_the_psf_fails(data: GateData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are what an arc has in the set's PSF and not in a wider one."""
    wide = data.rerender.arcs(data.sample.task_ids, psf_factor=1.25)
    share = (data.sample.arc * wide).sum(axis=(1, 2, 3)) / (wide**2).sum(axis=(1, 2, 3))
    own = data.sample.arc - share[:, None, None, None] * wide
    monkeypatch.setattr(module, "reference_classifier", lambda _: ArcReader(data.sample, own))
    result = psf_swap(data, CONFIG)
    assert "change of AUC with the arcs' PSF x 1.25" in broken(result)


def test_pairs_with_a_saturated_star_are_left_out(data: GateData) -> None:
    pairs = data.sample.pairs
    band = pa.array(["r"] * pairs.num_rows, pa.string())
    starry = pairs.set_column(pairs.column_names.index("artifact_sat_band"), "artifact_sat_band", band)
    with pytest.raises(CannotRun, match="every pair has a saturated star"):
        psf_swap(with_sample(data, pairs=starry), CONFIG)
