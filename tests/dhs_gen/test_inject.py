"""One stamp, end to end: controls and nulls keep the survey's bytes, arcs carry the fluxes that the row asks for."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rendering_cases import KERNEL_SIZE_PIX, PIXSCALE_ARCSEC, configuration, default_accuracy, gen7_settings

from dhs_gen.hybrid_sources.sampler import hybrid_source
from dhs_gen.inject import InjectionSettings, Stamp, inject, stamp_window
from dhs_gen.lensing.models import SieShear
from dhs_gen.lensing.render import StampGrid, draw, lens_source
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.stamps import decode_stamp_npz, read_stamp
from dhs_gen.status import Status
from dhs_gen.task import HostCutout, SourceParams, Task, TaskFailed

BAD_MASK = sum(1 << bit for bit in configuration("survey/dr10")["bad_maskbits"])
GAIN = {"g": 7300.0, "r": 7150.0, "z": 7850.0}
SETTINGS = InjectionSettings(
    pixscale_arcsec=PIXSCALE_ARCSEC,
    kernel_size_pix=KERNEL_SIZE_PIX,
    moffat_beta={"g": 3.0, "r": 2.85, "z": 2.6},
    electrons_per_nmgy_per_exposure=GAIN,
    bad_mask=BAD_MASK,
    layers=("invvar", "arc", "maskbits"),
    accuracy=default_accuracy(),
)
LENS = SieShear(1.3, 0.15, 0.4, 0.03, 1.0)
SOURCE = SourceParams(0.2, -0.1, 21.0, 0.3, 0.2, 0.15, 1.0, 0.2, 0.5, False, 0.5)
TRANSMISSION = {"g": 0.80, "r": 0.87, "z": 0.93}


def cutout(**changes: Any) -> HostCutout:
    """101 px of correlated-free sky with a host, -0.0 pixels, pixels without weight and bad mask bits."""
    rng = np.random.default_rng(11)
    size, centroid = 101, (50.3, 49.6)
    y, x = np.mgrid[:size, :size]
    host = 2.0 * np.exp(-np.hypot(x - centroid[0], y - centroid[1]) / 3.0)
    image, invvar = {}, {}
    for band, sigma in (("g", 0.003), ("r", 0.005), ("z", 0.01)):
        pixels = (host + sigma * rng.standard_normal(host.shape)).astype(np.float32)
        pixels[30:34, 30:70] = -0.0
        weight = np.full(host.shape, 1 / sigma**2, np.float32)
        weight[45:48, 20:80] = 0.0
        image[band], invvar[band] = pixels, weight
    maskbits = np.zeros(host.shape, np.int32)
    maskbits[60:64, 50:60] = 1 << 1
    maskbits[20:24] = 1 << 11
    values: dict[str, Any] = {
        "host_id": "host",
        "status": Status.OK,
        "message": None,
        "corner_xy_pix": (700, 1200),
        "centroid_xy_pix": centroid,
        "image": image,
        "invvar": invvar,
        "maskbits": maskbits,
        "psfsize_arcsec": {"g": 1.5, "r": 1.3, "z": 1.2},
        "nexp": {"g": 2.0, "r": 3.0, "z": 4.0},
    }
    return HostCutout(**(values | changes))


def task(**changes: Any) -> Task:
    values: dict[str, Any] = {
        "task_id": "task-1",
        "bandset": "grz",
        "stamp_size_pix": 64,
        "mw_transmission": TRANSMISSION,
        "lens": LENS,
        "source": SOURCE,
    }
    return Task(**(values | changes))


TEMPLATE = hybrid_source("task-1", SOURCE, gen7_settings())
CONTROL = {"lens": None, "source": None}


def injected(flux_scale: float = 1.0, host: HostCutout | None = None, **changes: Any) -> Stamp:
    return inject(task(**changes), host or cutout(), TEMPLATE, flux_scale, SETTINGS)


def control() -> Stamp:
    return inject(task(**CONTROL), cutout(), None, 1.0, SETTINGS)


# ------------------------------------------------------------------------------------------- controls and nulls


def test_control_is_the_cutout_bit_for_bit() -> None:
    host, stamp = cutout(), control()
    window, _ = stamp_window(host, 64)
    for band in "grz":
        assert stamp.bands[band].image.tobytes() == host.image[band][window].tobytes()
        assert stamp.bands[band].invvar.tobytes() == host.invvar[band][window].tobytes()
        assert not stamp.bands[band].arc.any()
    assert stamp.maskbits is not None
    assert stamp.maskbits.tobytes() == host.maskbits[window].tobytes()
    assert stamp.magnification is None
    assert stamp.bands["r"].lensed_flux_nmgy is None
    assert stamp.bands["r"].snr.matched_filter is None


def test_null_injection_has_the_controls_bytes() -> None:
    null = injected(flux_scale=0.0)
    assert np.signbit(null.bands["r"].image[null.bands["r"].image == 0]).any(), "a -0.0 must be there to survive"
    assert null.encode(SETTINGS.layers) == control().encode(SETTINGS.layers)
    assert null.bands["r"].unlensed_flux_nmgy == 0.0
    assert null.magnification is not None


def test_host_arrays_are_not_touched() -> None:
    host = cutout()
    before = {b: (host.image[b].tobytes(), host.invvar[b].tobytes()) for b in "grz"}
    injected(host=host)
    assert {b: (host.image[b].tobytes(), host.invvar[b].tobytes()) for b in "grz"} == before


def test_pixels_without_data_hold_no_arc() -> None:
    made, dark = injected(), control()
    for band, result in made.bands.items():
        blind = dark.bands[band].invvar == 0
        assert blind.sum() > 100
        assert (result.arc[blind] > 0).any()  # the layer is the truth, data or not
        assert result.image[blind].tobytes() == dark.bands[band].image[blind].tobytes()
        assert (result.image[~blind] != dark.bands[band].image[~blind]).any()


def test_pixels_without_arc_keep_their_bits() -> None:
    host, stamp = cutout(), injected()
    window, _ = stamp_window(host, 64)
    for band in "grz":
        # Less than 1e-3 electrons: no Poisson count falls there in this task.
        dark = stamp.bands[band].arc * stamp.bands[band].g_eff < 1e-3
        moved = np.abs(stamp.bands[band].image - host.image[band][window])[dark]
        assert moved.max(initial=0.0) < 1e-6


# -------------------------------------------------------------------------------------------------- the window


@pytest.mark.parametrize("size", [64, 63, 33])
@pytest.mark.parametrize("centroid", [(50.0, 50.0), (49.5, 50.5), (50.3, 49.6), (51.49, 48.51), (55.0, 44.999)])
def test_host_is_within_half_a_pixel_of_the_stamps_centre(size: int, centroid: tuple[float, float]) -> None:
    (rows, columns), (x, y) = stamp_window(cutout(centroid_xy_pix=centroid), size)
    assert rows.stop - rows.start == columns.stop - columns.start == size
    assert (columns.start + x, rows.start + y) == pytest.approx(centroid)
    assert abs(x - (size - 1) / 2) <= 0.5
    assert abs(y - (size - 1) / 2) <= 0.5


def test_corner_on_the_brick_and_pixels_agree() -> None:
    stamp = control()
    host = cutout()
    column, row = (c - c0 for c, c0 in zip(stamp.corner_xy_pix, host.corner_xy_pix, strict=True))
    np.testing.assert_array_equal(stamp.bands["g"].image, host.image["g"][row : row + 64, column : column + 64])
    assert (stamp.lens_xy_pix[0] + column, stamp.lens_xy_pix[1] + row) == pytest.approx(host.centroid_xy_pix)


def test_arc_is_centred_on_the_hosts_light() -> None:
    """A source behind a round lens makes a ring about the host's sub-pixel centroid."""
    stamp = injected(lens=SieShear(1.3, 0, 0, 0, 0), source=dataclasses.replace(SOURCE, x_arcsec=0.0, y_arcsec=0.0))
    arc = stamp.bands["r"].arc.astype(float)
    arc[arc < 0.02 * arc.max()] = 0.0
    rows, columns = np.mgrid[:64, :64]
    quadrants = np.array([arc[:, columns[0] < stamp.lens_xy_pix[0]].sum(), arc.sum()])
    assert quadrants[0] / quadrants[1] == pytest.approx(0.5, abs=0.1)
    r2 = (columns - stamp.lens_xy_pix[0]) ** 2 + (rows - stamp.lens_xy_pix[1]) ** 2
    # The second moment of a ring of radius R is R², plus the widths of source and PSF.
    assert 1.3**2 < float((arc * r2).sum() / arc.sum()) * PIXSCALE_ARCSEC**2 < 1.3**2 + 1.0


def test_each_band_has_its_own_psf() -> None:
    """Three draws of the kernel that the band says it used, one at a time."""
    stamp = injected()
    grid = StampGrid(64, PIXSCALE_ARCSEC, KERNEL_SIZE_PIX)
    source_xy_arcsec = (SOURCE.x_arcsec, SOURCE.y_arcsec)
    lensed = lens_source(LENS, TEMPLATE, source_xy_arcsec, stamp.lens_xy_pix, grid, SETTINGS.accuracy)
    for band, result in stamp.bands.items():
        alone = draw(lensed, 0, result.psf.kernel) * result.unlensed_flux_nmgy
        has_data = result.invvar > 0
        np.testing.assert_allclose(result.arc[has_data], alone[has_data], atol=1e-6 * alone.max(), err_msg=band)


def test_unlensed_source_lands_where_the_row_says() -> None:
    spot = np.zeros((1, 5, 5))
    spot[0, 2, 2] = 1.0
    source = dataclasses.replace(SOURCE, x_arcsec=0.6, y_arcsec=-0.9)
    template = SourceTemplate(spot, 0.05, 0.05)
    stamp = inject(task(lens=SieShear(0, 0, 0, 0, 0), source=source), cutout(), template, 1.0, SETTINGS)
    arc = stamp.bands["r"].arc.astype(float)
    rows, columns = np.mgrid[:64, :64]
    assert (columns * arc).sum() / arc.sum() == pytest.approx(stamp.lens_xy_pix[0] + 0.6 / PIXSCALE_ARCSEC, abs=0.02)
    assert (rows * arc).sum() / arc.sum() == pytest.approx(stamp.lens_xy_pix[1] - 0.9 / PIXSCALE_ARCSEC, abs=0.02)


# ------------------------------------------------------------------------------------------------ flux and noise


def test_unlensed_flux_is_magnitude_colour_and_dust() -> None:
    """r = 21.0, g − r = 0.3, r − z = 0.2, dimmed by the Milky Way's transmission."""
    stamp = injected()
    for band, mag in (("g", 21.3), ("r", 21.0), ("z", 20.8)):
        expected = 10 ** (0.4 * (22.5 - mag)) * TRANSMISSION[band]
        assert stamp.bands[band].unlensed_flux_nmgy == pytest.approx(expected, rel=1e-12)


def test_dust_dims_the_arc_by_exactly_the_transmission() -> None:
    dusty, clear = injected(), injected(mw_transmission=dict.fromkeys("grz", 1.0))
    for band in "grz":
        np.testing.assert_allclose(
            dusty.bands[band].arc, clear.bands[band].arc * np.float32(TRANSMISSION[band]), rtol=3e-7, atol=1e-12
        )


@pytest.mark.parametrize("transmission", [None, 0.0, -0.5, 1.2, math.nan])
def test_impossible_transmission_is_task_invalid(transmission: float | None) -> None:
    with pytest.raises(TaskFailed, match="mw_transmission_r") as caught:
        injected(mw_transmission=TRANSMISSION | {"r": transmission})
    assert caught.value.status is Status.TASK_INVALID


def test_lensed_flux_is_magnified_less_what_falls_off_the_stamp() -> None:
    stamp = injected()
    assert stamp.magnification is not None
    assert stamp.magnification > 2
    for result in stamp.bands.values():
        total = result.unlensed_flux_nmgy * stamp.magnification
        assert result.lensed_flux_nmgy == pytest.approx(result.arc.sum(dtype=float), rel=1e-5)
        assert result.lensed_flux_nmgy == pytest.approx(total * (1 - result.off_stamp_frac), rel=1e-9)
        assert -1e-3 < result.off_stamp_frac < 0.02


def test_light_off_a_small_stamp_is_counted() -> None:
    whole, part = injected(), injected(stamp_size_pix=12)
    assert part.magnification == pytest.approx(whole.magnification, rel=1e-3)
    column, row = (p - w for p, w in zip(part.corner_xy_pix, whole.corner_xy_pix, strict=True))
    for band in "grz":
        inside = whole.bands[band].arc[row : row + 12, column : column + 12].sum(dtype=float)
        total = whole.magnification * whole.bands[band].unlensed_flux_nmgy
        assert part.bands[band].off_stamp_frac > 0.1
        assert part.bands[band].off_stamp_frac == pytest.approx(1 - inside / total, abs=2e-3)


def test_added_noise_is_the_arcs_own() -> None:
    """(image − host − arc)/√(arc/G) over pixels with counts has mean 0 and variance 1, band by band, uncorrelated."""
    host = cutout()
    window, _ = stamp_window(host, 64)
    residuals: dict[str, list[NDArray[np.float64]]] = {b: [] for b in "grz"}
    lit = (injected().bands["g"].arc * GAIN["g"] * 2 > 50) & (host.invvar["g"][window] > 0)
    for index in range(30):
        stamp = injected(host=host, task_id=f"task-{index}")
        for band, result in stamp.bands.items():
            assert result.g_eff == pytest.approx(GAIN[band] * host.nexp[band])
            arc = result.arc.astype(float)
            noise = result.image.astype(float) - host.image[band][window] - arc
            residuals[band].append((noise / np.sqrt(np.maximum(arc, 1e-9) / result.g_eff))[lit])
    flat = {b: np.concatenate(r) for b, r in residuals.items()}
    n = flat["g"].size
    assert n > 5000
    for band in "grz":
        assert abs(flat[band].mean()) < 4 / math.sqrt(n)
        assert flat[band].var() == pytest.approx(1.0, abs=5 * math.sqrt(2 / n))
    for one, two in (("g", "r"), ("r", "z"), ("g", "z")):
        assert abs(np.corrcoef(flat[one], flat[two])[0, 1]) < 4 / math.sqrt(n)
    assert abs(np.corrcoef(residuals["g"][0], residuals["g"][1])[0, 1]) < 5 / math.sqrt(lit.sum())


def test_bands_alike_in_everything_still_differ_in_noise() -> None:
    """Equal flux, PSF, exposures and gain: the arcs are the same array, their noise is not."""
    host = cutout(psfsize_arcsec=dict.fromkeys("grz", 1.3), nexp=dict.fromkeys("grz", 3.0))
    settings = dataclasses.replace(
        SETTINGS, moffat_beta=dict.fromkeys("grz", 3.0), electrons_per_nmgy_per_exposure=dict.fromkeys("grz", 7000.0)
    )
    grey = task(source=dataclasses.replace(SOURCE, gr_mag=0.0, rz_mag=0.0), mw_transmission=dict.fromkeys("grz", 1.0))
    stamp = inject(grey, host, TEMPLATE, 1.0, settings)
    window, _ = stamp_window(host, 64)
    bands = stamp.bands
    np.testing.assert_array_equal(bands["g"].arc, bands["r"].arc)
    lit = (bands["g"].arc * bands["g"].g_eff > 50) & (host.invvar["g"][window] > 0)
    noise = {b: (bands[b].image.astype(float) - host.image[b][window] - bands[b].arc)[lit] for b in "grz"}
    for one, two in (("g", "r"), ("r", "z"), ("g", "z")):
        assert abs(np.corrcoef(noise[one], noise[two])[0, 1]) < 5 / math.sqrt(lit.sum())


def test_weights_lose_the_arcs_variance() -> None:
    host, stamp = cutout(), injected()
    window, _ = stamp_window(host, 64)
    result, before = stamp.bands["z"], host.invvar["z"][window].astype(float)
    weighted = before > 0
    expected = 1 / (1 / before[weighted] + np.maximum(result.arc[weighted], 0) / result.g_eff)
    np.testing.assert_allclose(result.invvar[weighted], expected, rtol=1e-6)
    assert not result.invvar[~weighted].any()


# ------------------------------------------------------------------------------------------------------ metrics


def test_snr_is_the_brute_force_sum_over_good_pixels() -> None:
    host, stamp = cutout(), injected()
    window, _ = stamp_window(host, 64)
    bits, weight = host.maskbits[window], host.invvar["r"][window]
    arc = stamp.bands["r"].arc
    total = sum(
        float(arc[i, j]) ** 2 * float(weight[i, j])
        for i in range(64)
        for j in range(64)
        if not int(bits[i, j]) & BAD_MASK
    )
    assert stamp.bands["r"].snr.matched_filter == pytest.approx(math.sqrt(total), rel=1e-5)


def test_bad_pixels_are_masked_or_without_weight_in_any_band() -> None:
    host = cutout()
    host.invvar["z"][80:82] = 0.0
    stamp = inject(task(), host, TEMPLATE, 1.0, SETTINGS)
    window, _ = stamp_window(host, 64)
    bad = (host.maskbits[window] == 2) | (host.invvar["g"][window] == 0) | (host.invvar["z"][window] == 0)
    assert stamp.bad_pixel_frac == pytest.approx(bad.mean(), abs=1e-12)


def test_missing_maskbits_give_null_metrics_not_flattering_ones() -> None:
    stamp = injected(host=cutout(maskbits=None))
    assert stamp.bad_pixel_frac is None
    assert all(r.snr.matched_filter is None and r.snr.peak is None for r in stamp.bands.values())
    assert "maskbits" not in read_stamp(stamp.encode(SETTINGS.layers))


def test_theta_e_over_fwhm_uses_the_fwhm_not_psfsize() -> None:
    result = injected().bands["r"]
    assert result.theta_e_over_fwhm == pytest.approx(1.3 / result.psf.fwhm_arcsec)
    assert result.psf.fwhm_arcsec < 0.85 * 1.3
    assert result.psf.psfsize_arcsec == pytest.approx(1.3, rel=1e-4)


# ----------------------------------------------------------------------------------------------------- statuses


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"status": Status.NO_COVERAGE, "message": "g has none"}, Status.NO_COVERAGE, "g has none"),
        ({"status": Status.FILE_MISSING}, Status.FILE_MISSING, "host"),
        ({"nexp": {"g": 2.0, "r": 0.0, "z": 4.0}}, Status.EXPOSURES_MISSING, "band r.*0"),
        ({"nexp": {"g": 2.0, "r": 3.0, "z": math.nan}}, Status.EXPOSURES_MISSING, "band z.*nan"),
        ({"psfsize_arcsec": {"g": 0.0, "r": 1.3, "z": 1.2}}, Status.PSF_UNSOLVABLE, "band g.*0"),
        ({"psfsize_arcsec": {"g": 1.5, "r": 0.1, "z": 1.2}}, Status.PSF_UNSOLVABLE, "band r.*0.1"),
        ({"psfsize_arcsec": {"g": 1.5, "r": 1.3, "z": math.nan}}, Status.PSF_UNSOLVABLE, "band z.*nan"),
        ({"centroid_xy_pix": (20.0, 50.0)}, Status.STAMP_OFF_CUTOUT, "column 20.0"),
        ({"centroid_xy_pix": (50.0, 90.0)}, Status.STAMP_OFF_CUTOUT, "row 90.0"),
    ],
)
@pytest.mark.parametrize("positive", [True, False])
def test_what_cannot_be_made_ends_in_a_named_status(
    changes: dict[str, Any], status: Status, words: str, positive: bool
) -> None:
    """Controls fail as positives do: the classes must lose the same hosts."""
    made = task() if positive else task(**CONTROL)
    with pytest.raises(TaskFailed, match=words) as caught:
        inject(made, cutout(**changes), TEMPLATE if positive else None, 1.0, SETTINGS)
    assert caught.value.status is status


# -------------------------------------------------------------------------------------------- bytes and layouts


def test_same_task_gives_the_same_bytes_whatever_came_before() -> None:
    first = injected().encode(SETTINGS.layers)
    injected(task_id="another", lens=SieShear(0.7, 0.2, 1.0, 0.0, 0.0))
    control()
    assert injected().encode(SETTINGS.layers) == first
    assert injected(task_id="another").encode(SETTINGS.layers) != first


def test_bands_do_not_depend_on_which_others_are_made() -> None:
    everything, alone = injected(), injected(bandset="r")
    assert list(alone.bands) == ["r"]
    assert alone.bands["r"].image.tobytes() == everything.bands["r"].image.tobytes()
    images, bandset = decode_stamp_npz(alone.encode(()))
    assert bandset == "r"
    assert images.shape == (1, 64, 64)


def test_layers_are_written_when_asked_for() -> None:
    stamp = injected()
    assert set(read_stamp(stamp.encode(()))) == {f"image_{b}" for b in "grz"}
    every = read_stamp(stamp.encode(("invvar", "arc", "maskbits")))
    assert set(every) == {f"{k}_{b}" for k in ("image", "invvar", "arc") for b in "grz"} | {"maskbits"}
    assert all(every[k].dtype == np.float32 for k in every if k != "maskbits")
    with np.load(io.BytesIO(stamp.encode(("arc",)))) as archive:
        np.testing.assert_array_equal(archive["arc_z"], stamp.bands["z"].arc)


def test_each_band_takes_its_own_channel_of_a_coloured_template() -> None:
    plane, half = TEMPLATE.pixels[0], TEMPLATE.pixels.shape[-1] // 2
    moved = np.roll(plane, half // 2, axis=1)
    coloured = dataclasses.replace(TEMPLATE, pixels=np.stack([plane, moved, plane]))
    stamp = inject(task(), cutout(), coloured, 1.0, SETTINGS)
    plain = injected()
    for band, same in (("g", True), ("r", False), ("z", True)):
        difference = np.abs(stamp.bands[band].arc - plain.bands[band].arc).max() / plain.bands[band].arc.max()
        assert bool(difference < 1e-6) is same
