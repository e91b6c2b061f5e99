"""A clean sample of pairs made in a second: round hosts in noise, arcs of isothermal lenses, their Poisson noise."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from dhs_gen.noise import add_arc_variance, arc_shot_noise
from dhs_pipeline.config import load_section
from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.gates.data import GateData, PairSample

BANDS, SIZE, PIXSCALE_ARCSEC, PSF_SIGMA_PIX = "grz", 64, 0.262, 1.5
SIGMA_NMGY = np.array([0.003, 0.004, 0.010])
GAIN = 20000.0
_Y, _X = np.mgrid[:SIZE, :SIZE].astype(np.float64)


def small_config(**changes: Any) -> GatesConfig:
    """The declared limits, for samples of 180 pairs."""
    config = load_section(GatesConfig, "gates", "default")
    return config.model_copy(
        update={"max_standard_error": 0.05, "max_host_standard_error": 0.2, "resamples": 100, **changes}
    )


@lru_cache
def make_sample(
    n_pairs: int = 180, n_hosts: int = 30, *, seed: int = 1, flux: float = 1.0, about_grid: bool = False
) -> PairSample:
    """Pairs on the same hosts; arcs about the host, or by mistake about the middle of the stamp.

    Tests share it and leave its arrays as they are.
    """
    rng = np.random.default_rng(seed)
    host = np.arange(n_pairs) % n_hosts
    centres = 31.5 + rng.uniform(-0.5, 0.5, (n_hosts, 2))
    mags = rng.uniform(19.0, 20.5, n_hosts)
    images = np.stack([_host(c, m, rng) for c, m in zip(centres, mags, strict=True)])
    theta_e, source = rng.uniform(3.0, 9.0, n_pairs), rng.normal(0.0, 1.0, (n_pairs, 2))
    about = np.full((n_pairs, 2), 31.5) if about_grid else centres[host]
    arc = flux * np.stack([make_arc(*of) for of in zip(about, theta_e, source, strict=True)])
    noise = np.stack([arc_shot_noise(a, GAIN, rng) for a in arc])
    control = images[host]
    weight = np.broadcast_to((SIGMA_NMGY**-2.0).astype(np.float32)[:, None, None], control.shape).copy()
    pairs = {
        "task_id": [f"task{i}" for i in range(n_pairs)],
        "host_id": [f"host{h}" for h in host],
        "theta_e_arcsec": theta_e * PIXSCALE_ARCSEC,
        "theta_e_over_fwhm_r": theta_e / (2.355 * PSF_SIGMA_PIX),
        "src_x_arcsec": source[:, 0] * PIXSCALE_ARCSEC,
        "src_y_arcsec": source[:, 1] * PIXSCALE_ARCSEC,
        "lens_x_pix": centres[host, 0],
        "lens_y_pix": centres[host, 1],
        **{f"g_eff_{b}": np.full(n_pairs, GAIN) for b in BANDS},
        **{f"mag_{b}": mags[host] for b in BANDS},
        "z_l": 0.4 + 0.1 * (mags[host] - 20.0),
    }
    return PairSample(
        pairs=pa.table(pairs),
        control_host_ids=tuple(pairs["host_id"]),
        control_task_ids=tuple(f"control{i}" for i in range(n_pairs)),
        positive=added(control, arc + noise),
        control=control,
        arc=arc.astype(np.float32),
        invvar=np.stack([add_arc_variance(w, a, GAIN) for w, a in zip(weight, arc, strict=True)]),
        control_invvar=weight,
        negative_of={},
        negative={},
        negative_light={},
        negative_task_ids={},
    )


def make_arc(centre_xy_pix: NDArray[Any], theta_e_pix: float, source_xy_pix: NDArray[Any]) -> NDArray[np.float64]:
    """(bands, H, W) image of a round Gaussian source behind an isothermal sphere; exactly 0 far from it."""
    x, y = _X - centre_xy_pix[0], _Y - centre_xy_pix[1]
    shrink = 1.0 - theta_e_pix / np.maximum(np.hypot(x, y), 1e-6)
    light = np.exp(-((x * shrink - source_xy_pix[0]) ** 2 + (y * shrink - source_xy_pix[1]) ** 2) / 2.0)
    light[light < 1e-6] = 0.0
    return gaussian_filter(light, PSF_SIGMA_PIX, truncate=4.0) * np.array([0.03, 0.04, 0.06])[:, None, None]


def _host(centre_xy_pix: NDArray[Any], mag: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(bands, H, W): a round galaxy in noise that is a little correlated."""
    radius = np.hypot(_X - centre_xy_pix[0], _Y - centre_xy_pix[1])
    profile = gaussian_filter(np.exp(-radius / 2.0), PSF_SIGMA_PIX)
    flux = 10.0 ** (0.4 * (22.5 - mag)) * np.array([0.4, 1.0, 1.6])
    noise = np.stack([gaussian_filter(rng.normal(size=(SIZE, SIZE)), 0.45) for _ in BANDS])
    noise *= (SIGMA_NMGY / noise.std(axis=(1, 2)))[:, None, None]
    return (flux[:, None, None] * profile / profile.sum() + noise).astype(np.float32)


def added(image: NDArray[np.float32], light: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.where(light == 0, image, (image.astype(np.float64) + light).astype(np.float32))


def with_negatives(sample: PairSample, kind: str, light: NDArray[np.float64], seed: int = 2) -> PairSample:
    """Every pair gets a negative of this light, with its noise."""
    rng = np.random.default_rng(seed)
    noise = np.stack([arc_shot_noise(a, GAIN, rng) for a in light])
    return replace(
        sample,
        negative_of={kind: np.arange(len(sample))},
        negative={kind: added(sample.control, light + noise)},
        negative_light={kind: light.astype(np.float32)},
        negative_task_ids={kind: tuple(f"negative{i}" for i in range(len(sample)))},
    )


def gate_data(sample: PairSample, rows: pa.Table | None = None, **changes: Any) -> GateData:
    """The sample as a whole set: its positives and controls are all its rows."""
    both = pa.concat_tables(
        [
            sample.pairs.append_column("arc_injected", pa.array([arc] * len(sample))).append_column(
                "cutout_ok", pa.array([1] * len(sample))
            )
            for arc in (1, 0)
        ]
    )
    data = GateData(both if rows is None else rows, sample, BANDS, PIXSCALE_ARCSEC, None, "there is no run", None)
    return replace(data, **changes)


def noisy(images: NDArray[np.float32], sigmas: float, seed: int = 3) -> NDArray[np.float32]:
    """White noise added, in units of the sky's."""
    noise = np.random.default_rng(seed).normal(size=images.shape) * (sigmas * SIGMA_NMGY)[:, None, None]
    return (images + noise).astype(np.float32)


def resampled(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Moved by half a pixel both ways, bilinearly."""
    where = [_Y + 0.5, _X + 0.5]
    flat = [map_coordinates(image, where, order=1, mode="nearest") for image in images.reshape(-1, SIZE, SIZE)]
    return np.array(flat, np.float32).reshape(images.shape)


def in_half_precision(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return images.astype(np.float16).astype(np.float32)
