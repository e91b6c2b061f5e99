"""A fast wrong kernel fails the benchmark; the benchmark's truth needs none of our kernels."""

import kernel
import numpy as np
import pytest
from bench import truth
from bench.goals import exit_code
from bench.peers import galsim_of_lensed, lens_and_light, lenstronomy_by_hand, lenstronomy_by_the_book
from bench.scenes import BandPsf, Scene, error_percent
from kernel import Cost, Told, Try, best_tries, our_kernel, search

from dhs_gen.lensing import render
from dhs_gen.lensing.models import MassModel
from dhs_gen.lensing.rays import Accuracy
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.psf import moffat_for_psfsize

ACCURACY = Accuracy(rays_per_resolution=1.0, min_supersampling=3, max_supersampling=75, moment_order=3)


@pytest.fixture(scope="module")
def scene():
    """A disc of two colours near the caustic, on a small stamp."""
    y, x = np.indices((41, 41)) - 20.0
    channels = [np.exp(-1.678 * np.hypot(x, y) / r) * (np.hypot(x, y) < 19) for r in (3.0, 5.0)]
    psfs = []
    for band, psfsize, beta in (("g", 1.4, 3.0), ("r", 1.2, 3.0), ("z", 1.1, 3.5)):
        psf = moffat_for_psfsize(psfsize, beta, 0.262, 31)
        psfs.append(BandPsf(band, psf.kernel, psf.fwhm_arcsec / 0.262, beta))
    return Scene(
        lens=MassModel(1.2, 0.2, 0.4, 0.05, 1.1),
        template=SourceTemplate(np.array([c / c.sum() for c in channels]), 0.05, 0.05, phi_rad=0.4, flip=True),
        source_xy_arcsec=(0.12, 0.08),
        lens_xy_pix=(15.8, 16.3),
        psfs=tuple(psfs),
        size_pix=32,
        pixscale_arcsec=0.262,
        kernel_size_pix=31,
    )


@pytest.fixture(scope="module")
def true(scene):
    return truth.true_arcs(scene)


def told(scene, true):
    """What the benchmark tells of one task, with made-up costs of a very fast kernel."""
    ours = error_percent(our_kernel(scene, ACCURACY)(), true)
    converged = error_percent(our_kernel(scene, kernel.CONVERGED)(), true)
    cost = Cost([Try(0, 5, 0.1)], {5: 1.0}, [1e-6])
    return Told("gen5", [ours], [converged], 1e-3, 1e-3, [Try(0, 5, 0.1)], cost, cost, cost).measurement()


def test_our_kernel_passes(scene, true):
    found = told(scene, true)
    assert found.verdict == "MET"
    assert exit_code([found]) == 0


@pytest.mark.parametrize(
    "broken",
    [
        lambda image: 1.01 * image,
        lambda image: 0.5 * (image + np.roll(image, 1, axis=1)),  # half a pixel to the side
        lambda image: image * np.where(image == image.max(), np.nan, 1.0),
    ],
    ids=["one per cent too bright", "half a pixel off", "a pixel that is not finite"],
)
def test_a_wrong_kernel_fails_however_fast(scene, true, monkeypatch, broken):
    good = render.draw
    monkeypatch.setattr(render, "draw", lambda *given: broken(good(*given)))
    found = told(scene, true)
    assert found.value > 1e5
    assert found.verdict == "WRONG"
    assert exit_code([found]) == 1


def test_wrong_rays_fail_too(scene, true, monkeypatch):
    good = render.lens_source
    monkeypatch.setattr(
        render,
        "lens_source",
        lambda lens, template, source, at, *rest: good(lens, template, (source[0] + 0.01, source[1]), at, *rest),
    )
    assert told(scene, true).verdict == "WRONG"


def test_truth_is_converged_in_cells_and_rays(scene, true):
    assert error_percent(truth.true_arcs(scene, cells=15, rays_per_cell=7), true) < 0.05


def test_peers_converge_to_the_truth(scene, true):
    """All of them and the truth agree, by four ways of convolving: none has a shift or a factor of its own."""
    assert error_percent(lenstronomy_by_the_book(scene, 9)(), true) < 0.3
    assert error_percent(lenstronomy_by_hand(scene, 9)(), true) < 0.3
    assert error_percent(galsim_of_lensed(scene, 5)(), true) < 0.5


def test_both_lenstronomys_are_the_same_arcs(scene):
    book, hand = lenstronomy_by_the_book(scene, 3)(), lenstronomy_by_hand(scene, 3)()
    assert error_percent(hand, book) < 1e-6


def test_profiles_without_effect_are_left_out(scene):
    mass, kwargs, _ = lens_and_light(scene)
    assert list(mass.lens_model_list) == ["SIE", "SHEAR"]
    assert len(kwargs) == 2


def test_the_search_ends_each_task_at_its_smallest_setting():
    errors = {("a", 3): 5.0, ("a", 5): 0.3, ("b", 3): 0.1, ("c", 3): 9.0, ("c", 5): 8.0, ("c", 7): 7.0}
    truths = [{"g": np.array([1.0])}] * 3

    def peer(scene, factor):
        return lambda: {"g": np.array([1.0 + errors[scene, factor] / 100 - 1e-9])}

    best = best_tries(search(peer, ["a", "b", "c"], truths, (3, 5, 7)))
    assert {x.task: (x.factor, x.passes) for x in best} == {0: (5, True), 1: (3, True), 2: (7, False)}


def test_ratios_of_one_setting_and_of_each_its_own():
    cost = Cost([Try(0, 3, 0.1), Try(1, 7, 0.2)], {3: 1.0, 7: 9.0}, [0.1, 0.3])
    assert cost.reaches_all
    assert cost.one_for_all == pytest.approx(18.0 / 0.4)
    assert cost.each_its_own == pytest.approx(10.0 / 0.4)
    assert not Cost([Try(0, 3, 0.4)], {3: 1.0}, [0.1]).reaches_all
