"""Hard negatives end to end: the pair's stamp in everything but the light, and the light with the arc's flux."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from artifact_cases import control_task, cutout, injection_settings, noise_hosts, profile
from numpy.typing import NDArray
from rendering_cases import KERNEL_SIZE_PIX, PIXSCALE_ARCSEC, default_accuracy, gen7_settings

from dhs_gen.domain_randomization import ArtifactConfig
from dhs_gen.hybrid_sources.sampler import hybrid_source
from dhs_gen.inject import Stamp, inject
from dhs_gen.lensing.models import MassModel, SieShear, deflection
from dhs_gen.lensing.render import StampGrid, draw, lens_source
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.lensing.tnfw import Subhalos
from dhs_gen.noise import add_arc_variance
from dhs_gen.paired_controls import Negative, NegativeKind, shuffled_difference
from dhs_gen.paired_controls.azimuthal import annulus_index
from dhs_gen.paired_controls.light import rotated, stamp_light
from dhs_gen.psf_kernels import moffat_kernel
from dhs_gen.status import Status
from dhs_gen.streams import stream
from dhs_gen.task import HostCutout, SourceParams, Task, TaskFailed

SETTINGS = injection_settings()
LENS = SieShear(1.3, 0.15, 0.4, 0.03, 1.0)
SOURCE = SourceParams(0.2, -0.1, 21.0, 0.3, 0.2, 0.15, 1.0, 0.2, 0.5, False, 0.5)
TEMPLATE = hybrid_source("task", SOURCE, gen7_settings())
STRONG = profile("strong")
EVERYTHING = dataclasses.replace(STRONG, cosmic_rate=1.0, sat_rate=1.0)
KINDS = list(NegativeKind)
STRENGTHS: dict[str, Any] = {
    "annulus_width_pix": 1.0,
    "ring_width_frac": 0.15,
    "ring_modulation": 0.5,
    "ring_clumps": (1, 4),
    "ring_clump_flux_frac": 0.2,
    "spiral_pitch_deg": 20.0,
    "spiral_arm_width_frac": 0.15,
    "spiral_extent_frac": 0.3,
    "disc_e_max": 0.3,
    "neighbour_radius_theta_e": (1.5, 2.5),
    "wrong_centre_offset_theta_e": (0.6, 1.2),
}
GRID = StampGrid(64, PIXSCALE_ARCSEC, KERNEL_SIZE_PIX)
IMAGES_OF_THE_SOURCE = {NegativeKind.SHUFFLED_PIXELS, NegativeKind.SHUFFLED_ARC, NegativeKind.WRONG_CENTRE_ARC}


def host() -> HostCutout:
    """A galaxy on noise, with unweighted pixels and -0.0."""
    base = noise_hosts(1)[0]
    y, x = np.mgrid[:101, :101]
    galaxy = (0.8 * np.exp(-np.hypot(x - 50.2, y - 49.7) / 3)).astype(np.float32)
    image = {b: pixels + galaxy for b, pixels in base.image.items()}
    invvar = {b: weight.copy() for b, weight in base.invvar.items()}
    for band in image:
        image[band][25:27, 60:66] = -0.0
        invvar[band][25:27, 60:66] = 0.0
    return cutout("host", image, invvar)


HOST = host()


def negative(kind: NegativeKind, **changes: Any) -> Negative:
    return Negative(kind=kind, **(STRENGTHS | changes))


def task(key: str = "pair", **changes: Any) -> Task:
    return dataclasses.replace(control_task(key), **({"lens": LENS, "source": SOURCE} | changes))


def made(
    kind: NegativeKind | None,
    key: str = "pair",
    *,
    scale: float = 1.0,
    artifacts: ArtifactConfig | None = None,
    template: SourceTemplate = TEMPLATE,
    strengths: dict[str, Any] | None = None,
    **changes: Any,
) -> Stamp:
    """A negative, or for None the positive."""
    light = None if kind is None else negative(kind, **(strengths or {}))
    return inject(task(key, **changes), HOST, template, scale, SETTINGS, artifacts, light)


def control(key: str = "pair", artifacts: ArtifactConfig | None = None) -> Stamp:
    return inject(control_task(key), HOST, None, 1.0, SETTINGS, artifacts)


def moments(stamp: Stamp, band: str = "r") -> tuple[float, float, NDArray[np.float64]]:
    """Centroid from the host's in arcsec, and eigenvalues of the second moments in arcsec², of the light."""
    arc = stamp.bands[band].arc.astype(float)
    y, x = (np.mgrid[:64, :64].astype(float) - np.array(stamp.lens_xy_pix)[::-1, None, None]) * PIXSCALE_ARCSEC
    arc = np.where(arc > 1e-3 * arc.max(), arc, 0.0) / arc[arc > 1e-3 * arc.max()].sum()
    cx, cy = (arc * x).sum(), (arc * y).sum()
    xx, xy, yy = ((arc * p).sum() for p in ((x - cx) ** 2, (x - cx) * (y - cy), (y - cy) ** 2))
    return cx, cy, np.linalg.eigvalsh([[xx, xy], [xy, yy]])


# ------------------------------------------------------------------------------------------- all but the light


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("artifacts", [None, EVERYTHING], ids=["plain", "artifacts"])
def test_a_negative_of_no_flux_has_the_controls_bytes(kind: NegativeKind, artifacts: ArtifactConfig | None) -> None:
    null, nothing = made(kind, scale=0.0, artifacts=artifacts), control(artifacts=artifacts)
    assert null.encode(SETTINGS.layers) == nothing.encode(SETTINGS.layers)
    assert null.artifacts == nothing.artifacts


@pytest.mark.parametrize("kind", KINDS)
def test_a_negative_is_its_pair_but_for_the_light(kind: NegativeKind) -> None:
    """Same artifacts, place, PSFs, mask and weights; what is left after the light is its own noise and nothing else."""
    stamp, positive = (made(k, artifacts=EVERYTHING) for k in (kind, None))
    nothing = control(artifacts=EVERYTHING)
    assert stamp.artifacts == nothing.artifacts == positive.artifacts
    assert stamp.lens_xy_pix == nothing.lens_xy_pix == positive.lens_xy_pix
    assert stamp.corner_xy_pix == nothing.corner_xy_pix
    assert stamp.bad_pixel_frac == nothing.bad_pixel_frac
    np.testing.assert_array_equal(stamp.maskbits, nothing.maskbits)
    pull = []
    for band, result in stamp.bands.items():
        bare = nothing.bands[band]
        assert result.psf.kernel.tobytes() == bare.psf.kernel.tobytes()
        assert result.unlensed_flux_nmgy == positive.bands[band].unlensed_flux_nmgy
        assert result.theta_e_over_fwhm == positive.bands[band].theta_e_over_fwhm
        arc = result.arc.astype(float)
        np.testing.assert_allclose(result.invvar, add_arc_variance(bare.invvar, arc, bare.g_eff), rtol=1e-5)
        left = result.image.astype(float) - bare.image.astype(float) - arc
        bright = (arc * bare.g_eff > 50) & (result.image != bare.image)  # saturated pixels hold their paint
        dark = arc * bare.g_eff < 1e-6
        assert np.abs(left[dark]).max(initial=0.0) < 1e-6 * (1 + np.abs(bare.image).max())
        pull.append((left / np.sqrt(np.maximum(arc, 1e-9) / bare.g_eff))[bright])
    pulls = np.concatenate(pull)
    assert pulls.size > 200
    assert abs(pulls.mean()) < 4 / math.sqrt(pulls.size)
    assert pulls.var() == pytest.approx(1.0, abs=6 * math.sqrt(2 / pulls.size))


@pytest.mark.parametrize("kind", KINDS)
def test_a_negative_has_the_flux_and_colours_of_its_pairs_arc(kind: NegativeKind) -> None:
    stamp, positive = made(kind), made(None)
    for band in "grz":
        # On the stamp: no kind has more than 5e-4 of its light off it.
        flux, expected = (s.bands[band].arc.sum(dtype=float) for s in (stamp, positive))
        assert flux == pytest.approx(expected, rel=1e-3)
        assert stamp.bands[band].lensed_flux_nmgy == pytest.approx(stamp.bands[band].arc.sum(dtype=float), rel=1e-5)
        assert not np.allclose(stamp.bands[band].arc, positive.bands[band].arc, atol=0.05 * stamp.bands[band].arc.max())
    if kind in IMAGES_OF_THE_SOURCE:
        assert stamp.magnification == pytest.approx(positive.magnification, rel=2e-3)
    else:
        assert stamp.magnification is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_negative_is_fixed_by_its_pair(kind: NegativeKind) -> None:
    once = made(kind, "a", artifacts=STRONG).encode(SETTINGS.layers)
    made(kind, "b")
    assert made(kind, "a", artifacts=STRONG).encode(SETTINGS.layers) == once
    assert not np.allclose(made(kind, "a").bands["r"].arc, made(kind, "b").bands["r"].arc, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_bands_of_a_negative_do_not_depend_on_which_others_are_made(kind: NegativeKind) -> None:
    alone = inject(task(bandset="r"), HOST, TEMPLATE, 1.0, SETTINGS, None, negative(kind))
    assert alone.bands["r"].image.tobytes() == made(kind).bands["r"].image.tobytes()


def test_every_channel_of_a_coloured_source_lends_its_own_flux() -> None:
    plane, half = TEMPLATE.pixels[0], TEMPLATE.pixels.shape[-1] // 2
    coloured = dataclasses.replace(TEMPLATE, pixels=np.stack([plane, np.roll(plane, half // 2, axis=1), plane]))
    positive = made(None, template=coloured)
    ratio = positive.bands["r"].arc.sum(dtype=float) / made(None).bands["r"].arc.sum(dtype=float)
    assert abs(ratio - 1) > 0.05, "the moved channel must be magnified differently"
    for kind in KINDS:
        stamp = made(kind, template=coloured)
        for band in "grz":
            flux, expected = (s.bands[band].arc.sum(dtype=float) for s in (stamp, positive))
            assert flux == pytest.approx(expected, rel=2e-3)


# ------------------------------------------------------------------------------------------------ shuffled light


def test_shuffled_pixels_are_the_pairs_shuffled_difference() -> None:
    """What the kernel for finished pairs makes of positive and control, to float32 rounding.

    Annuli with a pixel without data are left out: a finished pair has lost the light that would have gone there.
    """
    positive, nothing, stamp = made(None), control(), made(NegativeKind.SHUFFLED_PIXELS)
    images = [np.stack([s.bands[b].image for b in "grz"]) for s in (positive, nothing)]
    rng = stream("pair", "negative_shuffled_pixels")
    expected = shuffled_difference(images[0], images[1], stamp.lens_xy_pix, STRENGTHS["annulus_width_pix"], rng)
    annulus = annulus_index((64, 64), stamp.lens_xy_pix, STRENGTHS["annulus_width_pix"])
    whole = ~np.isin(annulus, annulus[nothing.bands["r"].invvar == 0])
    assert whole.mean() > 0.8
    for plane, band in zip(expected, "grz", strict=True):
        np.testing.assert_allclose(stamp.bands[band].image[whole], plane[whole], atol=3e-7)
        arcs = (s.bands[band].arc for s in (stamp, positive))
        np.testing.assert_array_equal(*(np.sort(arc, axis=None) for arc in arcs))


def test_shuffled_arc_keeps_profile_and_colours_before_the_psf() -> None:
    """Each annulus of the light on the padded grid holds the same pixels, those of all channels together."""
    plane = TEMPLATE.pixels[0]
    coloured = dataclasses.replace(TEMPLATE, pixels=np.stack([plane, np.roll(plane, 9, axis=1), plane]))
    centre = (31.3, 31.8)
    pixels = {}
    for kind in (None, NegativeKind.SHUFFLED_ARC):
        given = None if kind is None else negative(kind)
        light = stamp_light(task(), coloured, centre, GRID, default_accuracy(moment_order=0), given)
        assert light.order is None
        pixels[kind] = binned_light(light.lensed.spectrum)
    before, after = pixels[None], pixels[NegativeKind.SHUFFLED_ARC]
    scale = before.max()
    assert np.abs(before - after).max() > 0.3 * scale
    y, x = np.mgrid[: GRID.padded_pix, : GRID.padded_pix] - GRID.pad_pix
    annulus = np.floor(np.hypot(x - centre[0], y - centre[1])).astype(int)
    for k in range(annulus.max() + 1):
        one, other = (p[:, annulus == k] for p in (before, after))
        order, other_order = (np.argsort(np.round(p[0] / scale, 9) + 1e-3 * p[1] / scale) for p in (one, other))
        np.testing.assert_allclose(other[:, other_order], one[:, order], atol=1e-7 * scale)


def binned_light(spectrum: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Light on the padded grid. Moments of order 0 alone are the light binned into pixels times the pixel's own j₀(πf)
    along both axes. The stamp's first pixel is the origin; light lies where it cannot wrap around into the stamp."""
    side = spectrum.shape[1]
    pixel = np.sinc(np.fft.rfftfreq(side)) * np.sinc(np.fft.fftfreq(side))[:, None]
    binned = np.fft.irfft2(spectrum / pixel, s=(side, side))
    may_be_lit = np.arange(max(GRID.size_pix + GRID.pad_pix - side, -GRID.pad_pix), side - GRID.pad_pix)
    grid = np.zeros((len(spectrum), GRID.padded_pix, GRID.padded_pix))
    on_grid = may_be_lit + GRID.pad_pix
    grid[np.ix_(range(len(spectrum)), on_grid, on_grid)] = binned[:, (may_be_lit % side)[:, None], may_be_lit % side]
    return grid


def test_rearranged_moments_move_light_with_its_place_in_the_pixel() -> None:
    """Moving all pixels by whole pixels before the PSF is moving the image: all orders went along."""
    arguments = (LENS, TEMPLATE, (0.2, -0.1), (31.3, 31.8), GRID, default_accuracy())
    kernel = moffat_kernel(4.0, 3.0, KERNEL_SIZE_PIX)
    plain = draw(lens_source(*arguments), 0, kernel)
    moved = draw(lens_source(*arguments, lambda m: np.roll(m, (3, -5), axis=(-2, -1))), 0, kernel)
    np.testing.assert_allclose(moved[3:, :-5], plain[:-3, 5:], atol=1e-12)
    assert lens_source(*arguments, lambda m: m).spectrum.tobytes() == lens_source(*arguments).spectrum.tobytes()


def test_shuffled_arc_is_smooth_and_shuffled_pixels_are_not() -> None:
    """The survey's blur comes after the first and before the second."""
    rough = {}
    for kind in (None, NegativeKind.SHUFFLED_ARC, NegativeKind.SHUFFLED_PIXELS):
        arc = made(kind).bands["r"].arc.astype(float)
        rough[kind] = np.square(np.diff(arc, axis=0)).sum() / np.square(arc).sum()
    assert rough[NegativeKind.SHUFFLED_ARC] < 1.5 * rough[None]
    assert rough[NegativeKind.SHUFFLED_PIXELS] > 4 * rough[None]


# ------------------------------------------------------------------------------------- galaxies beside and about


@pytest.mark.parametrize("kind", [NegativeKind.RING, NegativeKind.SPIRAL])
def test_rings_and_spirals_lie_about_the_host(kind: NegativeKind) -> None:
    strengths = {"ring_modulation": 0.0, "ring_clumps": (0, 0), "ring_width_frac": 0.05, "spiral_extent_frac": 0.05}
    stamp = made(kind, strengths=strengths, lens=SieShear(2.2, 0.3, 0.4, 0.0, 0.0))
    x, y, (small, large) = moments(stamp)
    assert math.hypot(x, y) < 0.02
    # Trace of the second moments of a ring of circularised radius R and axis ratio q: R² (q + 1/q)/2, plus the blur.
    if kind is NegativeKind.RING:
        q = 0.7 / 1.3
        assert 2.2**2 * (q + 1 / q) / 2 < small + large < 2.2**2 * (q + 1 / q) / 2 + 1.2
    arc = stamp.bands["r"].arc
    column, row = (round(c) for c in stamp.lens_xy_pix)
    assert arc[row, column] < 0.15 * arc.max()


def test_the_disc_is_no_flatter_than_allowed() -> None:
    axes = {}
    for limit in (0.0, 0.3):
        strengths = {"ring_modulation": 0.0, "ring_clumps": (0, 0), "disc_e_max": limit}
        small, large = moments(made(NegativeKind.RING, strengths=strengths, lens=SieShear(2.2, 0.9, 0.4, 0.0, 0.0)))[2]
        axes[limit] = math.sqrt(small / large)
    assert axes[0.0] == pytest.approx(1.0, abs=0.02)
    assert axes[0.3] == pytest.approx(0.7 / 1.3, abs=0.07)  # the PSF rounds it


def test_neighbour_is_the_source_at_its_size_beside_the_host() -> None:
    """Distance in the range, any direction; second moments those of the unlensed source."""
    unlensed = moments(made(None, lens=SieShear(0, 0, 0, 0, 0)))[2]
    angles = []
    for i in range(16):
        x, y, axes = moments(made(NegativeKind.NEIGHBOUR, f"n{i}"))
        assert 1.5 * 1.3 - 0.05 < math.hypot(x, y) < 2.5 * 1.3 + 0.05
        np.testing.assert_allclose(axes, unlensed, rtol=0.03)
        angles.append(math.atan2(y, x))
    assert {math.floor(a / (math.pi / 2)) for a in angles} == {-2, -1, 0, 1}


def test_wrong_centre_arc_is_the_arc_turned_about_another_centre() -> None:
    """A ring behind a round lens shows the centre; any arc keeps the axes of its second moments."""
    ring = {"lens": SieShear(1.3, 0, 0, 0, 0), "source": dataclasses.replace(SOURCE, x_arcsec=0.0, y_arcsec=0.0)}
    round_source = dataclasses.replace(TEMPLATE, pixels=TEMPLATE.pixels[:, ::-1, ::-1] * 0.5 + TEMPLATE.pixels * 0.5)
    true_axes = moments(made(None))[2]
    for i in range(12):
        x, y, _ = moments(made(NegativeKind.WRONG_CENTRE_ARC, f"w{i}", template=round_source, **ring))
        assert 0.6 * 1.3 - 0.02 < math.hypot(x, y) < 1.2 * 1.3 + 0.02
        np.testing.assert_allclose(moments(made(NegativeKind.WRONG_CENTRE_ARC, f"w{i}"))[2], true_axes, rtol=0.03)


def test_a_turned_arc_about_the_host_is_the_turned_image() -> None:
    """A quarter turn of lens, source and template about a pixel's corner."""
    lens = SieShear(1.3, 0.2, 0.4, 0.05, 1.0)
    template = dataclasses.replace(TEMPLATE, phi_rad=0.3, flip=True)
    kernel = moffat_kernel(4.0, 3.0, KERNEL_SIZE_PIX)
    plain = draw(lens_source(lens, template, (0.3, -0.2), (31.5, 31.5), GRID, default_accuracy()), 0, kernel)
    quarter = dataclasses.replace(template, phi_rad=template.phi_rad + math.pi / 2)
    turned = lens_source(rotated(lens, math.pi / 2), quarter, (0.2, 0.3), (31.5, 31.5), GRID, default_accuracy())
    # From +column towards +row: (x, y) goes to (−y, x).
    np.testing.assert_allclose(draw(turned, 0, kernel), np.rot90(plain, -1), atol=2e-3 * plain.max())


def test_a_rotated_mass_deflects_as_the_rotated_sky() -> None:
    """α'(R x) = R α(x) with shear, slope, multipoles and subhalos."""
    halos = Subhalos(*(np.array(v) for v in ([0.9, -1.1], [0.3, 0.8], [0.05, 0.1], [0.01, 0.02], [0.2, 0.5])))
    lens = MassModel(1.3, 0.2, 0.4, 0.05, 1.0, 2.1, 0.01, 0.3, 0.02, 0.7, halos)
    angle = 0.77
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = np.random.default_rng(1).uniform(-2.5, 2.5, (2, 200))
    expected = turn @ np.array(deflection(lens, *points))
    found = np.array(deflection(rotated(lens, angle), *(turn @ points)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


# ------------------------------------------------------------------------------------------- what cannot be made


@pytest.mark.parametrize(
    ("kind", "changes", "strengths", "words"),
    [
        (NegativeKind.RING, {"lens": None, "source": None}, {}, "ring negative needs a lens and a source"),
        (NegativeKind.SHUFFLED_ARC, {"lens": SieShear(0, 0, 0, 0, 0)}, {}, "shuffled_arc negative.*above 0"),
        (NegativeKind.RING, {}, {"ring_width_frac": 1e-4}, "ring negative cannot be made.*too narrow"),
        (NegativeKind.NEIGHBOUR, {}, {"neighbour_radius_theta_e": (40.0, 40.0)}, "neighbour negative.*padded stamp"),
    ],
)
def test_a_negative_that_cannot_be_made_is_task_invalid(
    kind: NegativeKind, changes: dict[str, Any], strengths: dict[str, Any], words: str
) -> None:
    with pytest.raises(TaskFailed, match=words) as caught:
        made(kind, strengths=strengths, **changes)
    assert caught.value.status is Status.TASK_INVALID
