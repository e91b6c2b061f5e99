"""The template of a task with a colour gradient: channels in the order of the bands, and their arcs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from rendering_cases import Case, arc_error, configuration, gen7_settings, lensed_source, oracle, random_case

from dhs_gen.hybrid_sources.sampler import HybridSettings, hybrid_source
from dhs_gen.hybrid_sources.sersic_clumps import ClumpSettings, colour_channels
from dhs_gen.lensing.render import draw
from dhs_gen.task import SourceParams

SOURCE = SourceParams(0, 0, 22, 0, 0, 0.2, 1.0, 0.25, 0.9, True, 0.5)
COLOURED = dataclasses.replace(gen7_settings(), gradient_mag_per_dex=0.3)


def coloured_case(index: int, strength: float) -> Case:
    """A random case whose template has one channel per band of grz."""
    case = random_case(index, "hybrid")
    channels = colour_channels(case.template.pixels[0], "grz", strength, gen7_settings().re_pix, 0.7)
    return dataclasses.replace(case, template=dataclasses.replace(case.template, pixels=channels))


@pytest.mark.parametrize("bandset", ["grz", "gz", "r", "z"])
def test_channels_are_in_the_order_of_the_bands(bandset: str) -> None:
    template = hybrid_source("task", SOURCE, COLOURED, bandset)
    whole = dict(zip("grz", hybrid_source("task", SOURCE, COLOURED, "grz").pixels, strict=True))
    assert template.pixels.shape[0] == len(bandset)
    for band, channel in zip(bandset, template.pixels, strict=True):
        np.testing.assert_array_equal(channel, whole[band])
    edge = [channel[0].sum() for channel in whole.values()]
    assert edge[0] > edge[1] > edge[2]  # bluer outskirts: more of g far out


def test_r_is_the_template_without_a_gradient() -> None:
    plain = hybrid_source("task", SOURCE, gen7_settings())
    assert plain.pixels.shape[0] == 1
    np.testing.assert_allclose(hybrid_source("task", SOURCE, COLOURED, "grz").pixels[1], plain.pixels[0], rtol=1e-12)


def test_a_gradient_needs_the_bands() -> None:
    with pytest.raises(ValueError, match=r"bandset must be given with a gradient of 0\.3"):
        hybrid_source("task", SOURCE, COLOURED)
    with pytest.raises(ValueError, match="bands must be some of g, r, z, each once, got 'gi'"):
        hybrid_source("task", SOURCE, COLOURED, "gi")
    with pytest.raises(ValueError, match=r"gradient_mag_per_dex must be within ±2 .* got nan"):
        dataclasses.replace(COLOURED, gradient_mag_per_dex=math.nan)


@pytest.mark.parametrize("index", [0, 3, 5])
def test_arcs_of_every_channel_agree_with_lenstronomy(index: int) -> None:
    """0.5 % of the peak and of the flux, for a gradient as steep as the range allows (0.5 mag per dex)."""
    case = coloured_case(index, 0.5)
    lensed = lensed_source(case)
    arcs = [draw(lensed, channel, case.psf.kernel) for channel in range(3)]
    for channel, arc in enumerate(arcs):
        error = arc_error(f"{case.name}-{'grz'[channel]}", arc, oracle(case, channel=channel))
        assert error.of_peak < 0.005, error
        assert error.of_flux < 0.005, error
    assert np.abs(arcs[0] / arcs[0].sum() - arcs[2] / arcs[2].sum()).max() > 0.001 * arcs[1].max() / arcs[1].sum()


def test_the_ablations_differ_in_one_thing_each() -> None:
    """gen7a: smooth; gen7b: the same with clumps; gen7c: the same with a gradient, and gen7's numbers."""

    def template(name: str) -> np.ndarray:
        made = configuration(f"generations/{name}")["source"]
        clumps = ClumpSettings(
            tuple(made["n_clumps"]), tuple(made["clump_sigma_re"]), tuple(made["clump_flux_fraction"])
        )
        chosen = HybridSettings(made["re_pix"], made["half_size_re"], clumps, made["gradient_mag_per_dex"])
        return hybrid_source("task", SOURCE, chosen, "grz").pixels

    a, b, c, full = (template(name) for name in ("gen7a", "gen7b", "gen7c", "gen7"))
    assert [t.shape[0] for t in (a, b, c, full)] == [1, 1, 3, 3]
    assert 0.02 < 0.5 * np.abs(b - a).sum() < 0.25  # what moved is the clumps' share, less its overlap with the disc
    np.testing.assert_allclose(c[1], b[0], rtol=1e-12)
    np.testing.assert_array_equal(c, full)
