"""Stamps made again: the stored bits where nothing changes, and what is asked for where something does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rerender_cases import PAIRED, Made, inject_into, look_at
from scipy.signal import fftconvolve

from dhs_gen.psf import moffat_for_psfsize
from dhs_pipeline.gates.data import GateData
from dhs_pipeline.gates.rerender import Rerenderer, open_rerenderer
from dhs_pipeline.gates.result import CannotRun
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.storage import Location


@pytest.fixture
def made(paired_run: Made) -> Made:
    return paired_run


def opened(data: GateData) -> Rerenderer:
    assert data.rerender is not None
    return data.rerender


def bits(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images).view(np.uint32)


def test_all_members_come_out_with_the_stored_bits_whatever_the_order(made: Made) -> None:
    sample, rerender = made[1].sample, opened(made[1])
    order = np.random.default_rng(1).permutation(len(sample))
    ids = [sample.task_ids[i] for i in order]
    np.testing.assert_array_equal(bits(rerender.positives(ids)), bits(sample.positive[order]))
    np.testing.assert_array_equal(bits(rerender.controls(ids)), bits(sample.control[order]))
    np.testing.assert_array_equal(bits(rerender.arcs(ids)), bits(sample.arc[order]))
    assert len(sample.negative_of) >= 4
    for kind, of in sample.negative_of.items():
        again = rerender.negatives([sample.task_ids[i] for i in of], kind)
        np.testing.assert_array_equal(bits(again), bits(sample.negative[kind]))


def test_flux_factor_scales_the_arc_and_zero_leaves_the_control(made: Made) -> None:
    sample, rerender = made[1].sample, opened(made[1])
    ids = sample.task_ids
    np.testing.assert_allclose(rerender.arcs(ids, flux_factor=0.25), 0.25 * sample.arc, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(bits(rerender.positives(ids, flux_factor=0.0)), bits(sample.control))
    for kind in ("ring", "shuffled_pixels", "neighbour"):
        np.testing.assert_array_equal(bits(rerender.negatives(ids, kind, flux_factor=0.0)), bits(sample.control))


def test_psf_factor_is_that_of_psfsize(made: Made) -> None:
    """Against kernels of the multiplied psfsize that are handed in; the hosts' pixels stay."""
    sample, rerender = made[1].sample, opened(made[1])
    ids = sample.task_ids[:6]
    wide = rerender.arcs(ids, psf_factor=1.3)
    wanted = rerender.arcs_by_kernel(
        ids,
        sample.lens_xy_pix[:6],
        lambda psfsize, beta, size: moffat_for_psfsize(1.3 * psfsize, beta, 0.262, size).kernel,
    )
    np.testing.assert_allclose(wide, wanted, atol=1e-6 * wanted.max())
    assert np.abs(wide - sample.arc[:6]).max() > 0.05 * sample.arc[:6].max()
    dark = rerender.positives(ids, psf_factor=1.3, flux_factor=0.0)
    np.testing.assert_array_equal(bits(dark), bits(sample.control[:6]))


def test_a_kernel_of_one_pixel_gives_light_that_the_psf_turns_into_the_arc(made: Made) -> None:
    """The stored arc is that light convolved with the survey's kernel, where all of it is on the stamp."""
    sample, rerender = made[1].sample, opened(made[1])
    near = [i for i in range(len(sample)) if sample.column("theta_e_arcsec")[i] < 1.2][:2]
    ids = [sample.task_ids[i] for i in near]

    def point(psfsize: float, beta: float, size: int) -> np.ndarray:
        kernel = np.zeros((size, size))
        kernel[size // 2, size // 2] = 1.0
        return kernel

    light = rerender.arcs_by_kernel(ids, sample.lens_xy_pix[near], point)
    kernel = moffat_for_psfsize(1.3, rerender.moffat_beta["r"], 0.262, 63).kernel
    for mine, stored in zip(light[:, 1], sample.arc[near][:, 1], strict=True):
        blurred = fftconvolve(mine.astype(float), kernel, mode="same")
        np.testing.assert_allclose(blurred[16:48, 16:48], stored[16:48, 16:48], atol=0.02 * stored.max())


def test_one_artifact_of_another_profile(made: Made) -> None:
    """A tilted plane: its second differences vanish, in every band, and no two pairs have the same."""
    sample, rerender = made[1].sample, opened(made[1])
    ids = sample.task_ids[:4]
    plane = rerender.controls(ids, artifacts="strong", only="enable_bg_plane").astype(float) - sample.control[:4]
    assert (np.abs(plane).max(axis=(2, 3)) > 1e-4).all()
    np.testing.assert_allclose(np.diff(plane, n=2, axis=-1), 0.0, atol=1e-6)
    assert len({p.tobytes() for p in plane}) == 4
    with pytest.raises(ValueError, match=r"only must be one of enable_.*got 'jitter'"):
        rerender.controls(ids, artifacts="strong", only="jitter")


def test_artifacts_of_the_set_itself(made: Made, tmp_path: Path) -> None:
    run = RunDir(Location.of(shutil.copytree(made[0].where.uri, tmp_path / "run")))
    inject_into(run, run.config().generation("gen7").with_artifacts("strong").with_pairing("same_host"))
    sample, rerender = (data := look_at(run, "gen7_strong_same_host")).sample, opened(data)
    ids = sample.task_ids[:8]
    np.testing.assert_array_equal(bits(rerender.positives(ids)), bits(sample.positive[:8]))
    np.testing.assert_array_equal(bits(rerender.controls(ids)), bits(sample.control[:8]))
    assert (rerender.controls(ids, artifacts="none") != sample.control[:8]).any()


def test_the_run_is_found_above_the_set_or_given(made: Made, tmp_path: Path) -> None:
    run, data = made
    ids = data.sample.task_ids[:2]
    other = Location.of(tmp_path / "copied" / "elsewhere")
    for stamps, given in (
        (run.phase4c(PAIRED), None),
        (run.phase4p5(PAIRED) / "region_split=train", None),
        (run.phase4c(PAIRED) / "stamps", run),
        (Location.of(f"{other}/phase4c/{PAIRED}/stamps"), run),
    ):
        np.testing.assert_array_equal(open_rerenderer(stamps, given).positives(ids), data.sample.positive[:2])
    with pytest.raises(CannotRun, match=r"no run\.json in the folders above"):
        open_rerenderer(other)


def test_what_is_missing_is_named(made: Made, tmp_path: Path) -> None:
    run, data = made
    copy = RunDir(Location.of(shutil.copytree(run.where.uri, tmp_path / "run")))
    stamps = copy.phase4c(PAIRED) / "stamps"
    with pytest.raises(CannotRun, match="1 pairs are not in the run's manifest, nobody"):
        open_rerenderer(stamps).positives(["nobody"])
    shutil.copytree(copy.phase4c(PAIRED).uri, copy.phase4c("gen7_copy").uri)
    with pytest.raises(CannotRun, match="cannot be told from its folder"):
        open_rerenderer(Location.of(tmp_path), copy)
    file = copy.phase4c(PAIRED) / "_stage.json"
    summary = file.read_json()
    file.write_json(summary | {"inputs": summary["inputs"] | {"cosmos_bank": "/nowhere/bank"}})
    with pytest.raises(CannotRun, match="/nowhere/bank: the cosmos source bank"):
        open_rerenderer(stamps)
    file.write_json(json.loads(json.dumps(summary).replace('"arc": "rendered"', '"arc": "painted"')))
    with pytest.raises(CannotRun, match="made by another version"):
        open_rerenderer(stamps)
    file.write_json(summary)
    shutil.rmtree(copy.cutouts.uri)
    with pytest.raises(CannotRun, match="cutouts: the run's cutouts is not there"):
        open_rerenderer(stamps)
    assert data.sample.same_host
