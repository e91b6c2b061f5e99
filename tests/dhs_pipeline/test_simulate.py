"""The simulated bricks against independent truths: astropy's WCS, GalSim's drawing, the NEA formula, aperture
photometry, noise statistics on blank sky, and the layout of real bricks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sep
import yaml
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import binary_dilation

from dhs_pipeline.config import ConfigError
from dhs_pipeline.simulate import (
    SimulatedSurvey,
    SimulationSettings,
    load_simulation_settings,
    simulate_survey,
)
from dhs_pipeline.simulate.profiles import Ellipse, draw, moffat_transform, sersic_transform

REPO = Path(__file__).resolve().parents[2]
CONF = REPO / "conf" / "simulation" / "default.yaml"
REAL_MOSAIC = REPO.parent / "shared" / "data" / "dr10_layout"
REAL_SURVEY = REPO.parent / "shared" / "data" / "dr6_brick"
BANDS = ("g", "r", "z")
PIX = 0.262
BAD_BITS = sum(1 << b for b in (1, 2, 3, 4, 5, 6, 7, 10, 12, 13))


@pytest.fixture(scope="module")
def settings() -> SimulationSettings:
    return load_simulation_settings(CONF)


@pytest.fixture(scope="module")
def survey(settings: SimulationSettings, tmp_path_factory: pytest.TempPathFactory) -> SimulatedSurvey:
    return simulate_survey(tmp_path_factory.mktemp("survey"), settings)


@pytest.fixture(scope="module")
def calm(settings: SimulationSettings, tmp_path_factory: pytest.TempPathFactory) -> SimulatedSurvey:
    """One brick with hosts alone: no neighbours, no field, no bright stars, no strip."""
    field = settings.field.model_copy(update={"galaxies_per_arcmin2": 0.0, "stars_per_arcmin2": 0.0})
    changed = {
        "field": field,
        "bricks": settings.bricks[1:],
        "neighbours": settings.neighbours.model_copy(update={"mean_per_host": 0.0}),
        "hosts": settings.hosts.model_copy(update={"on_uncovered_strip": 0, "on_bright_star": 0}),
        "bright_stars": settings.bright_stars.model_copy(update={"mag_r": ()}),
        "uncovered_strip_px": 0,
    }
    return simulate_survey(tmp_path_factory.mktemp("calm"), settings.model_copy(update=changed))


@pytest.fixture(scope="module")
def starry(settings: SimulationSettings, tmp_path_factory: pytest.TempPathFactory) -> SimulatedSurvey:
    """A brick of a few unsaturated stars of r = 17 in practically no noise, one host out of the way."""
    noise = settings.noise.model_copy(
        update={
            "sky_sigma_nmgy": dict.fromkeys(BANDS, 1e-5),
            "electrons_per_nmgy_per_exposure": dict.fromkeys(BANDS, 1e12),
        }
    )
    field = settings.field.model_copy(
        update={"galaxies_per_arcmin2": 0.0, "stars_per_arcmin2": 0.8, "star_mag_r": (17.5, 18.0)}
    )
    changed = {
        "noise": noise,
        "field": field,
        "bricks": settings.bricks[:1],
        "neighbours": settings.neighbours.model_copy(update={"mean_per_host": 0.0}),
        "hosts": settings.hosts.model_copy(
            update={"per_brick": 1, "on_uncovered_strip": 0, "on_bright_star": 0, "mag_r": (24.0, 24.1)}
        ),
        "bright_stars": settings.bright_stars.model_copy(update={"mag_r": ()}),
        "uncovered_strip_px": 0,
    }
    return simulate_survey(tmp_path_factory.mktemp("starry"), settings.model_copy(update=changed))


def folder(survey: SimulatedSurvey, brick: str) -> Path:
    return survey.data_dir / "coadd" / brick[:3] / brick


def read(survey: SimulatedSurvey, brick: str, product: str, band: str = "") -> np.ndarray:
    name = f"legacysurvey-{brick}-{product}{'-' + band if band else ''}.fits.fz"
    return fits.getdata(folder(survey, brick) / name, 1)


def parent(survey: SimulatedSurvey) -> list[dict]:
    return pq.read_table(survey.parent_path).to_pylist()


def test_positions_agree_with_the_wcs_of_the_files(survey: SimulatedSurvey) -> None:
    for row in parent(survey):
        path = folder(survey, row["brickname"]) / f"legacysurvey-{row['brickname']}-image-r.fits.fz"
        wcs = WCS(fits.getheader(path, 1))
        x, y = wcs.all_world2pix(row["ra"], row["dec"], 0)
        assert abs(x - row["bx"]) < 0.01
        assert abs(y - row["by"]) < 0.01
        assert row["brickname"] == _name(*wcs.wcs.crval)


def _name(ra: float, dec: float) -> str:
    return f"{int(ra * 10):04d}{'p' if dec >= 0 else 'm'}{int(abs(dec) * 10):03d}"


def test_north_is_up_and_east_is_left(survey: SimulatedSurvey) -> None:
    path = next(folder(survey, "0301m050").glob("*image-r*"))
    header = fits.getheader(path, 1)
    wcs, centre = WCS(header), (header["NAXIS1"] - 1) / 2
    (ra0, dec0), (ra1, _), (_, dec1) = (
        wcs.all_pix2world(centre + dx, centre + dy, 0) for dx, dy in ((0, 0), (10, 0), (0, 10))
    )
    assert ra1 < ra0
    assert dec1 > dec0
    assert header["CD1_1"] == pytest.approx(-PIX / 3600)
    assert (ra0, dec0) == pytest.approx((header["CRVAL1"], header["CRVAL2"]))


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("brick", ["0301m050", "2102p025"])
def test_blank_sky_has_the_noise_that_invvar_says(survey: SimulatedSurvey, brick: str, band: str) -> None:
    image, invvar = (read(survey, brick, p, band).astype(np.float64) for p in ("image", "invvar"))
    chi = blank_chi(image, invvar, read(survey, brick, "maskbits"))
    sky = chi[np.isfinite(chi)]
    assert sky.size > 0.3 * chi.size
    mad = 1.4826 * np.median(np.abs(sky - np.median(sky)))
    assert 0.93 < mad < 1.07
    for left, right in ((chi[:, :-1], chi[:, 1:]), (chi[:-1], chi[1:])):
        both = np.isfinite(left) & np.isfinite(right)
        assert 0.13 < np.corrcoef(left[both], right[both])[0, 1] < 0.22


def blank_chi(image: np.ndarray, invvar: np.ndarray, maskbits: np.ndarray) -> np.ndarray:
    """image * sqrt(invvar) with everything but blank sky as NaN."""
    chi = image * np.sqrt(invvar)
    _, segments = sep.extract(np.ascontiguousarray(chi), 1.2, minarea=5, segmentation_map=True)
    bad = binary_dilation(segments > 0, iterations=6) | (invvar <= 0) | ((maskbits & BAD_BITS) != 0)
    return np.where(bad, np.nan, chi)


@pytest.mark.parametrize("band", BANDS)
def test_drawn_stars_have_the_psfsize_of_the_map(starry: SimulatedSurvey, band: str) -> None:
    brick = "0301m050"
    image = read(starry, brick, "image", band).astype(np.float64)
    size_map = read(starry, brick, "psfsize", band)
    found = sep.extract(image, 0.05, minarea=9)
    ratios = []
    for x, y in zip(found["x"], found["y"], strict=True):
        crowd = np.hypot(found["x"] - x, found["y"] - y) < 70
        if crowd.sum() > 1 or not (31 <= x < 869 and 31 <= y < 869):
            continue
        row, column = round(y), round(x)
        p = image[row - 31 : row + 32, column - 31 : column + 32]
        p = p / p.sum()
        nea = PIX**2 / np.sum(p**2)
        ratios.append(2.3548 * np.sqrt(nea / (4 * np.pi)) / size_map[row, column])
    assert len(ratios) >= 3
    np.testing.assert_allclose(ratios, 1.0, atol=0.01)


def test_psfsize_map_is_smooth_and_in_the_range_of_real_bricks(survey: SimulatedSurvey) -> None:
    limits = {"g": (1.27, 1.90), "r": (1.21, 1.50), "z": (1.04, 1.62)}  # 44 real bricks
    for band, (low, high) in limits.items():
        size = read(survey, "2102p025", "psfsize", band)
        covered = size[size > 0]
        assert low < np.median(covered) < high
        assert 0.02 < np.ptp(covered) / np.median(covered) < 0.10
        step = np.diff(size, axis=1)[(size[:, 1:] > 0) & (size[:, :-1] > 0)]
        assert np.abs(step).max() < 0.003


@pytest.mark.parametrize("band", BANDS)
def test_aperture_photometry_finds_the_catalogue_flux(calm: SimulatedSurvey, band: str) -> None:
    """8 arcsec apertures on isolated hosts: 0.5-4 % of a high-n profile lies outside; noise averages out."""
    rows = parent(calm)
    brick, radius_px = rows[0]["brickname"], 8.0 / PIX
    image, invvar = (read(calm, brick, p, band).astype(np.float64) for p in ("image", "invvar"))
    x, y, flux = (np.array([row[c] for row in rows]) for c in ("bx", "by", f"flux_{band}"))
    measured, error, _ = sep.sum_circle(image, x, y, radius_px, var=1.0 / np.maximum(invvar, 1e-9), subpix=5)
    error = 1.5 * error  # correlated pixels: sqrt of the summed correlation function, (1 + 2 (0.145)) per axis
    assert np.average(measured / flux, weights=(flux / error) ** 2) == pytest.approx(0.98, abs=0.025)
    assert np.all(np.abs(measured - 0.98 * flux) < 4 * error + 0.04 * flux)


def test_catalogue_errors_follow_the_nea_formula(survey: SimulatedSurvey, settings: SimulationSettings) -> None:
    clean = [row for row in parent(survey) if row["maskbits"] == 0]
    for row in clean:
        for band in BANDS:
            nexp = read_nexp(survey, row, band)
            if nexp == 0:
                assert row[f"psfdepth_{band}"] == row[f"psfsize_{band}"] == 0
                continue
            sigma = settings.noise.sky_sigma_nmgy[band] * np.sqrt(settings.noise.n_exposures[band] / nexp)
            nea_px = 4 * np.pi * (row[f"psfsize_{band}"] / 2.3548 / PIX) ** 2
            assert row[f"psfdepth_{band}"] == pytest.approx(1 / (sigma**2 * nea_px), rel=1e-3)
            assert 0 < row[f"flux_ivar_{band}"] < row[f"psfdepth_{band}"] * 1.3  # extended: noisier than a point


_NEXP: dict[tuple[str, str], np.ndarray] = {}


def read_nexp(survey: SimulatedSurvey, row: dict, band: str) -> int:
    key = (row["brickname"], band)
    if key not in _NEXP:
        _NEXP[key] = read(survey, row["brickname"], "nexp", band)
    return int(_NEXP[key][round(row["by"]), round(row["bx"])])


@pytest.mark.parametrize("galaxy", [None, (4.0, 1.0, 0.1, -0.15), (1.0, 0.4, -0.2, 0.1)])
def test_drawing_agrees_with_galsim(galaxy: tuple[float, float, float, float] | None) -> None:
    galsim = pytest.importorskip("galsim")
    alpha, beta, offset = 0.8, 2.6, (0.3, -0.4)
    expected, ellipse = galsim.Moffat(beta=beta, scale_radius=alpha), None
    if galaxy is not None:
        n, a, e1, e2 = galaxy
        e = np.hypot(e1, e2)
        truth = galsim.Sersic(n=n, half_light_radius=1.0, trunc=0.0 if n == 1 else 8.0)
        truth = truth.dilate(a * np.sqrt((1 - e) / (1 + e))).shear(g1=-e1, g2=-e2)
        expected = galsim.Convolve(truth, expected)
        ellipse = Ellipse(sersic_transform(n), a, e1, e2)
    accurate = galsim.GSParams(folding_threshold=1e-4, maxk_threshold=1e-5)
    target = expected.withGSParams(accurate).drawImage(nx=81, ny=81, scale=PIX, offset=offset, dtype=float).array
    drawn = draw(40, offset, alpha, moffat_transform(beta), ellipse, PIX)
    np.testing.assert_allclose(drawn, target, atol=3e-5 * target.max())


def test_position_angle_runs_from_north_through_east() -> None:
    """e2 > 0, e1 = 0 is phi = 45 deg: the major axis points north-east, which is up and left."""
    image = draw(20, (0, 0), 0.8, moffat_transform(3.0), Ellipse(sersic_transform(1.0), 1.0, 0.0, 0.4), PIX)
    assert image[25, 15] > 2 * image[25, 25]


def test_masks_cover_the_star_and_the_strip_and_few_hosts(survey: SimulatedSurvey) -> None:
    for brick, uncovered_band in (("0301m050", "g"), ("2102p025", "z")):
        bits = read(survey, brick, "maskbits")
        for bit in (0, 1, 2, 3, 4, 5, 6, 7, 11):
            assert np.any(bits & (1 << bit)), f"bit {bit} is set nowhere"
        for number, band in enumerate(BANDS):
            nexp, invvar = read(survey, brick, "nexp", band), read(survey, brick, "invvar", band)
            image, psfsize = read(survey, brick, "image", band), read(survey, brick, "psfsize", band)
            np.testing.assert_array_equal(nexp == 0, invvar == 0)
            np.testing.assert_array_equal(nexp == 0, psfsize == 0)
            saturated = (bits & (1 << (5 + number))) != 0
            strip = (nexp == 0) & ~saturated
            assert bool(strip.any()) == (band == uncovered_band)
            assert np.all(image[strip] == 0)
            assert image[saturated].max() > 20
    rows = parent(survey)
    dirty = [r for r in rows if r["maskbits"] & BAD_BITS or min(r[f"psfsize_{b}"] for b in BANDS) == 0]
    assert 4 <= len(dirty) <= 0.15 * len(rows)


def test_parent_has_red_hosts_in_the_asked_range(survey: SimulatedSurvey) -> None:
    rows = [r for r in parent(survey) if min(r[f"flux_{b}"] for b in BANDS) > 0]
    r_mag, g_r, r_z = (
        np.array([22.5 - 2.5 * np.log10(r["flux_r"]) for r in rows]),
        np.array([-2.5 * np.log10(r["flux_g"] / r["flux_r"]) for r in rows]),
        np.array([-2.5 * np.log10(r["flux_r"] / r["flux_z"]) for r in rows]),
    )
    assert 19.4 < r_mag.min() < r_mag.max() < 21.7
    assert 1.2 < np.median(g_r) < 2.0
    assert 0.8 < np.median(r_z) < 1.5
    assert {r["type"] for r in rows} <= {"DEV", "SER"}
    assert all(1 / r["mw_transmission_g"] == pytest.approx(10 ** (0.4 * 3.214 * r["ebv"])) for r in rows)


def test_two_runs_give_the_same_bytes(survey: SimulatedSurvey, settings: SimulationSettings, tmp_path: Path) -> None:
    again = simulate_survey(tmp_path, settings)
    first = sorted(p for p in survey.data_dir.rglob("*") if p.is_file())
    assert len(first) == 2 * 13 + 1
    for path in first:
        assert path.read_bytes() == (again.data_dir / path.relative_to(survey.data_dir)).read_bytes(), path.name


def test_files_hold_no_time_stamp(survey: SimulatedSurvey) -> None:
    """A gzip stream starts 1f 8b 08, flags, then four bytes of time: these are zero."""
    content = next(folder(survey, "0301m050").glob("*psfsize-g*")).read_bytes()
    assert content.count(b"\x1f\x8b\x08\x00") == content.count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00") == 81


@pytest.mark.parametrize("change", [{"sead": 1}, {"field": {"stars": 3}}])
def test_unknown_key_is_an_error(change: dict, tmp_path: Path) -> None:
    tree = yaml.safe_load(CONF.read_text())
    for key, value in change.items():
        tree[key] = {**tree[key], **value} if isinstance(value, dict) else value
    path = tmp_path / "simulation.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match="unknown key"):
        load_simulation_settings(path)


def test_brick_must_be_named_after_its_centre(tmp_path: Path) -> None:
    tree = yaml.safe_load(CONF.read_text())
    tree["bricks"][0]["name"] = "0301p050"
    path = tmp_path / "simulation.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match="must be called 0301m050"):
        load_simulation_settings(path)


@pytest.mark.realdata
@pytest.mark.skipif(not REAL_MOSAIC.is_dir(), reason="needs ../shared/data/dr10_layout")
def test_layout_is_that_of_the_real_mosaic(survey: SimulatedSurvey) -> None:
    """Same file names, HDU count, dtype, tiling and parent dtypes as brick 0591m305."""
    real_folder, ours = REAL_MOSAIC / "coadd" / "059" / "0591m305", folder(survey, "0301m050")
    real_names = {p.name.replace("0591m305", "0301m050") for p in real_folder.iterdir()}
    assert {p.name for p in ours.iterdir()} == real_names
    for path in ours.iterdir():
        with fits.open(path) as a, fits.open(real_folder / path.name.replace("0301m050", "0591m305")) as b:
            assert len(a) == len(b)
            assert a[0].data is None
            assert a[1].header["BITPIX"] == b[1].header["BITPIX"]
            assert a[1].tile_shape == b[1].tile_shape == (100, 100)
    real = pq.read_schema(REAL_MOSAIC / "lrg_parent_0591m305.parquet")
    mine = pq.read_schema(survey.parent_path)
    for field in real:
        if field.name != "host":
            assert mine.field(field.name).type == field.type, field.name


@pytest.mark.realdata
@pytest.mark.skipif(not REAL_SURVEY.is_dir(), reason="needs ../shared/data/dr6_brick")
@pytest.mark.parametrize("product", ["image", "invvar", "nexp"])
def test_compression_is_that_of_a_genuine_survey_brick(survey: SimulatedSurvey, product: str) -> None:
    def described(path: Path) -> dict:
        with fits.open(path, disable_image_compression=True) as hdus:
            h = hdus[1].header
            steps = hdus[1].data["ZSCALE"] if product == "image" else []
            return {
                "algorithm": h["ZCMPTYPE"].replace("RICE_ONE", "RICE_1"),
                "dither": h.get("ZQUANTIZ"),
                "bitpix": h["ZBITPIX"],
                "bunit": h.get("BUNIT"),
                "step": sorted({round(float(s), 9) for s in steps} - {0.0}),
            }

    ours = folder(survey, "0301m050") / f"legacysurvey-0301m050-{product}-g.fits.fz"
    assert described(ours) == described(REAL_SURVEY / f"legacysurvey-0959p805-{product}-g.fits.fz")
