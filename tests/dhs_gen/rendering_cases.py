"""Random rendering tasks and an oracle that shares no code with the renderer.

Used by the tests of the renderer and by ``benchmarks/rendering_accuracy.py``. Case ``index`` is the same in every
process. The oracle shoots rays with lenstronomy and convolves on a fine grid; from ``dhs_gen`` it takes the PSF
profile alone (which has its own tests against galsim).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import ndimage, signal

from dhs_gen.hybrid_sources.sampler import HybridSettings, hybrid_source
from dhs_gen.hybrid_sources.sersic_clumps import ClumpSettings
from dhs_gen.lensing.models import MassModel
from dhs_gen.lensing.rays import Accuracy
from dhs_gen.lensing.reference import lens_model_list, lenstronomy_kwargs
from dhs_gen.lensing.render import LensedSource, StampGrid, draw, lens_source
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.lensing.tnfw import Subhalos
from dhs_gen.psf import Psf, moffat_for_psfsize, pixel_integrated_moffat
from dhs_gen.task import SourceParams

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

STAMP_SIZE_PIX = 64
ORACLE_SUBPIXELS = 9
_CHUNK_RAYS = 1_000_000
_NATIVE_PIXSCALE_ARCSEC = 0.03


def configuration(name: str) -> dict[str, Any]:
    """A YAML file below conf/, as it is."""
    return yaml.safe_load((REPOSITORY / "conf" / f"{name}.yaml").read_text(encoding="utf-8"))


PIXSCALE_ARCSEC: float = configuration("survey/dr10")["pixscale_arcsec"]
KERNEL_SIZE_PIX: int = configuration("survey/dr10")["psf_kernel_size_pix"]


def default_accuracy(**changes: float) -> Accuracy:
    """conf/rendering/default.yaml, with changes."""
    values = configuration("rendering/default")
    del values["name"]
    return Accuracy(**(values | changes))


def gen7_settings() -> HybridSettings:
    """The hybrid source of conf/generations/gen7.yaml."""
    source = configuration("generations/gen7")["source"]
    clumps = ClumpSettings(
        tuple(source["n_clumps"]), tuple(source["clump_sigma_re"]), tuple(source["clump_flux_fraction"])
    )
    return HybridSettings(float(source["re_pix"]), float(source["half_size_re"]), clumps)


@dataclass(frozen=True, eq=False)
class Case:
    """One arc to render."""

    name: str
    lens: MassModel
    template: SourceTemplate
    source_xy_arcsec: tuple[float, float]
    lens_xy_pix: tuple[float, float]
    psf: Psf
    beta: float
    re_arcsec: float


# ------------------------------------------------------------------------------------------------------- cases


def random_case(index: int, kind: str) -> Case:
    """Case ``index`` of kind "hybrid" (Gen7's template), "noisy" (like an HST galaxy) or "real" (HST COSMOS)."""
    rng = np.random.default_rng([20, index, ("hybrid", "noisy", "real").index(kind)])
    theta_e = 0.0 if index % 10 == 9 else float(rng.uniform(0.0, 2.5))
    lens = MassModel(
        theta_e,
        float(rng.uniform(0.0, 0.35)),
        float(rng.uniform(0.0, math.pi)),
        float(rng.uniform(0.0, 0.08)),
        float(rng.uniform(0.0, math.pi)),
    )
    offset, azimuth = 0.8 * theta_e * math.sqrt(rng.uniform()), float(rng.uniform(0.0, 2.0 * math.pi))
    re_arcsec = float(np.exp(rng.uniform(math.log(0.04), math.log(0.35))))
    source = SourceParams(
        x_arcsec=offset * math.cos(azimuth),
        y_arcsec=offset * math.sin(azimuth),
        mag_r=22.5,
        gr_mag=0.0,
        rz_mag=0.0,
        reff_arcsec=re_arcsec,
        n_sersic=4.0 if index % 10 == 4 else float(rng.uniform(0.5, 2.5)),
        e=float(rng.uniform(0.0, 3.0 / 7.0)),  # q from 0.4 to 1
        phi_rad=float(rng.uniform(0.0, math.pi)),
        flip=bool(rng.integers(2)),
        template_u=0.5,
    )
    beta = float(rng.uniform(2.5, 3.5))
    return Case(
        name=f"{kind}-{index}",
        lens=lens,
        template=_template(kind, index, source, rng),
        source_xy_arcsec=(source.x_arcsec, source.y_arcsec),
        lens_xy_pix=tuple(31.5 + rng.uniform(-0.5, 0.5, 2)),
        psf=moffat_for_psfsize(float(rng.uniform(0.9, 1.7)), beta, PIXSCALE_ARCSEC, KERNEL_SIZE_PIX),
        beta=beta,
        re_arcsec=re_arcsec,
    )


def perturbed_case(index: int, kind: str, n_subhalos: int) -> Case:
    """The random case with another slope, multipoles and subhalos within twice θ_E, five of them on the ring."""
    case = random_case(index, kind)
    rng = np.random.default_rng([21, index, ("hybrid", "noisy", "real").index(kind)])
    lens = dataclasses.replace(
        case.lens,
        slope=float(rng.uniform(1.5, 2.5)),
        a3_frac=float(rng.uniform(-0.03, 0.03)),
        a3_phi_rad=float(rng.uniform(0.0, math.pi)),
        a4_frac=float(rng.uniform(-0.03, 0.03)),
        a4_phi_rad=float(rng.uniform(0.0, math.pi)),
        subhalos=random_subhalos(rng, n_subhalos, case.lens.theta_e_arcsec),
    )
    return dataclasses.replace(case, name=f"perturbed-{case.name}", lens=lens)


def random_subhalos(rng: np.random.Generator, count: int, theta_e_arcsec: float) -> Subhalos:
    """Halos of about 1e7 to 1e10 solar masses: R_s 0.02 to 0.5 arcsec, alpha_Rs 2e-4 to 0.03 arcsec."""
    radius = 2.0 * theta_e_arcsec * np.sqrt(rng.uniform(size=count))
    radius[:5] = theta_e_arcsec
    azimuth = rng.uniform(0.0, 2.0 * math.pi, count)
    size = rng.uniform(size=count)  # small halos deflect less
    rs = 0.02 * 25.0**size
    return Subhalos(
        radius * np.cos(azimuth), radius * np.sin(azimuth), rs, 2e-4 * 150.0**size, rs * rng.uniform(1.0, 10.0, count)
    )


def _template(kind: str, index: int, source: SourceParams, rng: np.random.Generator) -> SourceTemplate:
    if kind == "hybrid":
        return hybrid_source(f"case-{index}", source, gen7_settings())
    if kind == "noisy":
        hlr_pix = float(rng.uniform(4.0, 14.0))
        pixels = noisy_galaxy(hlr_pix, rng)
    else:
        stamps = real_galaxies()
        pixels, hlr_pix = stamps[index % len(stamps)]
    pixscale = source.reff_arcsec / hlr_pix
    return SourceTemplate(pixels[None], pixscale, pixscale, 0.0, source.phi_rad, source.flip)


def noisy_galaxy(hlr_pix: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(91, 91) unit-sum exponential disc with knots and noise correlated like a 0.1″ PSF at 0.03″ per pixel."""
    side, half = 91, 45
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    q = rng.uniform(0.4, 1.0)
    image = np.exp(-1.678 * np.sqrt(q * x**2 + y**2 / q) / hlr_pix)
    for _ in range(int(rng.integers(3, 9))):
        r, phi = hlr_pix * rng.uniform(0.2, 1.5), rng.uniform(0, 2 * math.pi)
        knot = np.exp(-((x - r * math.cos(phi)) ** 2 + (y - r * math.sin(phi)) ** 2) / (2 * 1.4**2))
        image += rng.uniform(0.1, 0.6) * knot
    noise = ndimage.gaussian_filter(rng.standard_normal((side, side)), 1.4)
    image += rng.uniform(0.01, 0.05) * noise / noise.std()
    taper = np.clip((half - np.hypot(x, y)) / 8.0, 0.0, 1.0)
    image *= 0.5 - 0.5 * np.cos(math.pi * taper)
    return image / image.sum()


@functools.lru_cache(maxsize=1)
def real_galaxies() -> list[tuple[NDArray[np.float64], float]]:
    """The brightest HST COSMOS stamps, tapered, unit sum, with half-light radii in pixels; [] where there are none."""
    path = SHARED_DATA / "cosmos23_10" / "real_galaxy_images_23.5_n1.fits"
    if not path.exists():
        return []
    from astropy.io import fits

    made = []
    with fits.open(path) as hdus:
        for hdu in hdus:
            if hdu.data is None or hdu.data.ndim != 2:
                continue
            image = np.asarray(hdu.data, dtype=np.float64)
            rows, columns = image.shape
            y, x = np.mgrid[:rows, :columns]
            inside = np.minimum.reduce([x, y, columns - 1 - x, rows - 1 - y]) / (0.15 * min(rows, columns))
            image *= 0.5 - 0.5 * np.cos(math.pi * np.clip(inside, 0.0, 1.0))
            image = ndimage.gaussian_filter(image, 1.0)
            image /= image.sum()
            r = np.hypot(x - np.sum(x * image), y - np.sum(y * image)).ravel()
            order = np.argsort(r)
            hlr_pix = float(r[order][np.searchsorted(np.cumsum(image.ravel()[order]), 0.5)])
            made.append((image, hlr_pix))
    return made


# ---------------------------------------------------------------------------------------------------- renderers


def lensed_source(case: Case, accuracy: Accuracy | None = None, size_pix: int = STAMP_SIZE_PIX) -> LensedSource:
    """The case before the PSF, on a stamp of ``size_pix`` whose first pixels are the case's first pixels."""
    return lens_source(
        case.lens,
        case.template,
        case.source_xy_arcsec,
        case.lens_xy_pix,
        StampGrid(size_pix, PIXSCALE_ARCSEC, KERNEL_SIZE_PIX),
        accuracy or default_accuracy(),
    )


def rendered(case: Case, accuracy: Accuracy | None = None) -> NDArray[np.float64]:
    """The arc as production makes it."""
    return draw(lensed_source(case, accuracy), 0, case.psf.kernel)


def oracle_rays_per_pixel(template: SourceTemplate) -> int:
    """An odd multiple of 9, at least 27, that puts a ray on every half template pixel; at most 99."""
    wanted = 2.0 * PIXSCALE_ARCSEC / template.pixscale_arcsec
    return int(9 * min(11, max(3, 2 * math.ceil((wanted / 9.0 - 1.0) / 2.0) + 1)))


def oracle(
    case: Case,
    rays_per_pixel: int | None = None,
    subpixels: int = ORACLE_SUBPIXELS,
    only_lit_pixels: bool = True,
    channel: int = 0,
) -> NDArray[np.float64]:
    """The same arc by lenstronomy's rays on a uniform fine grid and one fine convolution.

    The light is averaged over sub-pixels and convolved with the optical Moffat integrated over a *sub-pixel*; summing
    sub-pixels into pixels then applies the pixel response once. The support and the normalisation of the PSF are
    those of the production kernel.

    Parameters
    ----------
    case
        What to render.
    rays_per_pixel
        Per axis, a multiple of ``subpixels``; by default as the template needs.
    subpixels
        Per axis, odd.
    only_lit_pixels
        Skip pixels that a coarse pass over the whole padded grid finds dark with two pixels to spare.
    channel
        Of the template.
    """
    s = rays_per_pixel or oracle_rays_per_pixel(case.template)
    pad = KERNEL_SIZE_PIX // 2
    side = STAMP_SIZE_PIX + 2 * pad
    centre = (side - 1) / 2
    lens_xy_arcsec = tuple((c + pad - centre) * PIXSCALE_ARCSEC for c in case.lens_xy_pix)
    brightness = _Brightness(case, channel, lens_xy_arcsec)
    lit = _lit_pixels(case, brightness, side) if only_lit_pixels else np.ones((side, side), bool)
    rows, columns = np.nonzero(lit)
    first_row, first_column = int(rows.min()), int(columns.min())
    shape = (int(rows.max()) - first_row + 1, int(columns.max()) - first_column + 1)
    fine = np.zeros((shape[0], subpixels, shape[1], subpixels))
    step = (np.arange(s) + 0.5) / s - 0.5
    chunk = max(1, _CHUNK_RAYS // s**2)
    for start in range(0, rows.size, chunk):
        r, c = rows[start : start + chunk], columns[start : start + chunk]
        y = np.broadcast_to((r[:, None, None] - centre + step[:, None]) * PIXSCALE_ARCSEC, (r.size, s, s))
        x = np.broadcast_to((c[:, None, None] - centre + step[None, :]) * PIXSCALE_ARCSEC, (r.size, s, s))
        sb = brightness(x, y).reshape(r.size, subpixels, s // subpixels, subpixels, s // subpixels)
        fine[r - first_row, :, c - first_column, :] = sb.mean(axis=(2, 4))
    flux = fine.reshape(shape[0] * subpixels, shape[1] * subpixels) * (PIXSCALE_ARCSEC / subpixels) ** 2
    kernel = pixel_integrated_moffat(
        case.psf.fwhm_arcsec / PIXSCALE_ARCSEC * subpixels, case.beta, KERNEL_SIZE_PIX * subpixels
    )
    kernel /= kernel.sum()
    return _crop_and_bin(
        signal.fftconvolve(flux, kernel, mode="full"),
        (first_row * subpixels - kernel.shape[0] // 2, first_column * subpixels - kernel.shape[1] // 2),
        pad * subpixels,
        subpixels,
    )


class _Brightness:
    """Lensed surface brightness by lenstronomy; a new LightModel each time, for INTERPOL caches its spline."""

    def __init__(self, case: Case, channel: int, lens_xy_arcsec: tuple[float, float]) -> None:
        from lenstronomy.LensModel.lens_model import LensModel
        from lenstronomy.LightModel.light_model import LightModel

        self.kwargs_lens, self.kwargs_source = lenstronomy_kwargs(
            case.lens, case.template, channel, case.source_xy_arcsec, lens_xy_arcsec
        )
        self.lens, self.source = LensModel(lens_model_list(case.lens)), LightModel(["INTERPOL"])

    def ray_shooting(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        return self.lens.ray_shooting(x.ravel(), y.ravel(), self.kwargs_lens)

    def __call__(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.source.surface_brightness(*self.ray_shooting(x, y), self.kwargs_source)


def _lit_pixels(case: Case, brightness: _Brightness, side: int) -> NDArray[np.bool_]:
    """Pixels of which a ray comes near the template, two more around them, and the lens centre."""
    s = 5
    at = (np.arange(side * s) + 0.5) / s - 0.5 - (side - 1) / 2
    x, y = np.meshgrid(at * PIXSCALE_ARCSEC, at * PIXSCALE_ARCSEC)
    beta_x, beta_y = brightness.ray_shooting(x, y)
    source = brightness.kwargs_source[0]
    distance = np.hypot(beta_x - source["center_x"], beta_y - source["center_y"])
    near = (distance < case.template.radius_arcsec + 0.05).reshape(side, s, side, s).any(axis=(1, 3))
    lens = brightness.kwargs_lens[0]
    near |= np.hypot(x - lens["center_x"], y - lens["center_y"])[s // 2 :: s, s // 2 :: s] < 2 * PIXSCALE_ARCSEC
    return ndimage.binary_dilation(near, np.ones((3, 3)), iterations=2)


def _crop_and_bin(
    fine: NDArray[np.float64], origin: tuple[int, int], first: int, subpixels: int
) -> NDArray[np.float64]:
    """Sum a fine image, whose [0, 0] has index ``origin`` on the padded grid, into the pixels of the stamp."""
    length = STAMP_SIZE_PIX * subpixels
    canvas = np.zeros((length, length))
    take, put = [], []
    for start, size in zip(origin, fine.shape, strict=True):
        low, high = max(start, first), min(start + size, first + length)
        take.append(slice(low - start, max(high, low) - start))
        put.append(slice(low - first, max(high, low) - first))
    canvas[tuple(put)] = fine[tuple(take)]
    return canvas.reshape(STAMP_SIZE_PIX, subpixels, STAMP_SIZE_PIX, subpixels).sum(axis=(1, 3))


# ------------------------------------------------------------------------------------------------------- errors


@dataclass(frozen=True)
class ArcError:
    """How far an arc is from the truth."""

    name: str
    of_peak: float
    of_flux: float


def arc_error(name: str, arc: NDArray[np.float64], truth: NDArray[np.float64]) -> ArcError:
    """Largest pixel difference over the truth's peak, and relative difference of the flux on the stamp."""
    return ArcError(
        name,
        float(np.abs(arc - truth).max() / truth.max()),
        float(abs(arc.sum() - truth.sum()) / truth.sum()),
    )


def summary(errors: list[ArcError], field: str) -> tuple[float, float, float, str]:
    """(median, 95 %, maximum, case with the maximum) of ``of_peak`` or ``of_flux``."""
    values = np.array([dataclasses.asdict(e)[field] for e in errors])
    return (
        float(np.median(values)),
        float(np.percentile(values, 95)),
        float(values.max()),
        errors[int(values.argmax())].name,
    )
