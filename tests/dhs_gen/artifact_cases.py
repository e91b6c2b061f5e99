"""Hosts with real and simulated noise, and what their noise looks like before and after artifacts.

Used by the tests of Gen8, by ``benchmarks/artifacts.py`` and by ``docs/figures_gen8.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rendering_cases import KERNEL_SIZE_PIX, PIXSCALE_ARCSEC, configuration, default_accuracy
from scipy import ndimage

from dhs_gen.domain_randomization import ArtifactConfig
from dhs_gen.inject import InjectionSettings, Stamp, inject, stamp_window
from dhs_gen.status import Status
from dhs_gen.task import HostCutout, Task
from dhs_pipeline.bricks import HostPosition, read_brick_cutouts
from dhs_pipeline.config import Survey, load_section
from dhs_pipeline.storage import Location

BRICK = "0591m305"
SIZE_PIX = 101
_SURVEY = configuration("survey/dr10")


def profile(name: str) -> ArtifactConfig:
    """conf/artifacts/<name>.yaml, with every artifact enabled for "none" too."""
    values = configuration(f"artifacts/{name}")
    del values["name"]
    return ArtifactConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def injection_settings() -> InjectionSettings:
    return InjectionSettings(
        pixscale_arcsec=PIXSCALE_ARCSEC,
        kernel_size_pix=KERNEL_SIZE_PIX,
        moffat_beta=_SURVEY["moffat_beta"],
        electrons_per_nmgy_per_exposure=_SURVEY["electrons_per_nmgy_per_exposure"],
        bad_mask=sum(1 << bit for bit in _SURVEY["bad_maskbits"]),
        layers=("invvar", "arc", "maskbits"),
        accuracy=default_accuracy(),
    )


def control_task(key: str, bandset: str = "grz") -> Task:
    return Task(key, bandset, 64, dict.fromkeys(bandset, 0.9), None, None)


def cutout(host_id: str, image: dict[str, Any], invvar: dict[str, Any], **changes: Any) -> HostCutout:
    half = (SIZE_PIX - 1) / 2
    values: dict[str, Any] = {
        "host_id": host_id,
        "status": Status.OK,
        "message": None,
        "corner_xy_pix": (0, 0),
        "centroid_xy_pix": (half + 0.2, half - 0.3),
        "image": image,
        "invvar": invvar,
        "maskbits": np.zeros((SIZE_PIX, SIZE_PIX), np.int32),
        "psfsize_arcsec": {"g": 1.4, "r": 1.3, "z": 1.2},
        "nexp": {"g": 3.0, "r": 3.0, "z": 3.0},
    }
    return HostCutout(**(values | changes))


def brick_hosts(data: Path) -> list[HostCutout]:
    """The 36 hosts of the real DECam brick."""
    parent = pq.read_table(data / "dr10_layout" / f"lrg_parent_{BRICK}.parquet").to_pylist()
    hosts = [HostPosition(str(r["objid"]), BRICK, r["ra"], r["dec"]) for r in parent]
    survey = load_section(Survey, "survey", "dr10")
    rows = read_brick_cutouts(Location.of(str(data / "dr10_layout")), BRICK, hosts, survey)
    return [_from_row(row) for row in rows if row["status"] == "OK"]


def _from_row(row: dict[str, Any]) -> HostCutout:
    square = (SIZE_PIX, SIZE_PIX)
    return HostCutout(
        host_id=row["host_id"],
        status=Status.OK,
        message=None,
        corner_xy_pix=(row["corner_x_pix"], row["corner_y_pix"]),
        centroid_xy_pix=(row["centroid_x_pix"], row["centroid_y_pix"]),
        image={b: np.reshape(row[f"image_{b}"], square) for b in "grz"},
        invvar={b: np.reshape(row[f"invvar_{b}"], square) for b in "grz"},
        maskbits=np.reshape(row["maskbits"], square),
        psfsize_arcsec={b: row[f"psfsize_{b}_map_arcsec"] for b in "grz"},
        nexp={b: row[f"nexp_{b}"] for b in "grz"},
    )


def dr10_hosts(data: Path) -> list[HostCutout]:
    """Four genuine DR10 cutouts, which come without weights: their own scatter gives them."""
    hosts = []
    for file in sorted((data / "cutouts_dr10").glob("0*.npz")):
        planes = np.load(file)["cutout"]
        image = {b: np.ascontiguousarray(planes[..., i]) for i, b in enumerate("grz")}
        sigma = {b: 1.4826 * np.median(np.abs(p - np.median(p))) for b, p in image.items()}
        invvar = {b: np.full((SIZE_PIX, SIZE_PIX), sigma[b] ** -2, np.float32) for b in "grz"}
        hosts.append(cutout(file.stem, image, invvar))
    return hosts


def noise_hosts(count: int, correlation: float = 0.16) -> list[HostCutout]:
    """Pure noise of unit variance whose neighbours correlate by that much along both axes, as in a coadd."""
    frequency = np.fft.fftfreq(SIZE_PIX)
    power = 1.0 + 2.0 * correlation * np.cos(2 * np.pi * frequency)
    transfer = np.sqrt(np.outer(power, power))
    hosts = []
    for index in range(count):
        rng = np.random.default_rng([8, index])
        white = {b: np.fft.fft2(rng.standard_normal((SIZE_PIX, SIZE_PIX))) for b in "grz"}
        image = {b: (0.004 * np.fft.ifft2(w * transfer).real).astype(np.float32) for b, w in white.items()}
        invvar = dict.fromkeys("grz", np.full((SIZE_PIX, SIZE_PIX), 0.004**-2, np.float32))
        hosts.append(cutout(f"noise-{index}", image, invvar))
    return hosts


@dataclass(frozen=True)
class Noise:
    """Standard deviation and correlation of neighbours along columns (x) and rows (y)."""

    std: float
    lag_x: float
    lag_y: float


@dataclass(frozen=True)
class NoiseChange:
    """The same pixels before and after artifacts, away from sources and artifacts."""

    before: Noise
    after: Noise
    n_stamps: int
    n_pixels: int

    @property
    def relative(self) -> tuple[float, float, float]:
        pairs = ((getattr(self.before, k), getattr(self.after, k)) for k in ("std", "lag_x", "lag_y"))
        std, lag_x, lag_y = (after / before - 1.0 for before, after in pairs)
        return std, lag_x, lag_y


def noise_change(hosts: list[HostCutout], config: ArtifactConfig, bands: str, keys_per_host: int) -> NoiseChange:
    """Noise of controls with artifacts against that of the host's own pixels, in units of the survey's sigma."""
    sums = np.zeros((2, 5))
    stamps = 0
    for host in hosts:
        for index in range(keys_per_host):
            stamp = inject(control_task(f"{host.host_id}/{index}"), host, None, 1.0, injection_settings(), config)
            window, _ = stamp_window(host, 64)
            stamps += 1
            for band in bands:
                sigma = 1.0 / np.sqrt(np.maximum(host.invvar[band][window], 1e-12))
                blank = blank_pixels(host.image[band][window], host.invvar[band][window], stamp, band)
                for k, pixels in enumerate((host.image[band][window], stamp.bands[band].image)):
                    sums[k] += _sums(pixels / sigma, blank)
    return NoiseChange(_noise(sums[0]), _noise(sums[1]), stamps, int(sums[0, 4]))


def blank_pixels(host: NDArray[np.float32], invvar: NDArray[np.float32], stamp: Stamp, band: str) -> NDArray[np.bool_]:
    """Neither near a source nor near an artifact."""
    sky = np.median(host)
    scatter = 1.4826 * np.median(np.abs(host - sky))
    bright = ndimage.gaussian_filter(host - sky, 1.5) > 1.0 * scatter
    blank = ~ndimage.binary_dilation(bright, iterations=5) & (invvar > 0)
    record = stamp.artifacts
    if record is None:
        return blank
    rows, columns = np.mgrid[: host.shape[0], : host.shape[1]]
    if record.cosmic_band == band:
        reach = 0.6 * record.cosmic_length_pix + 6
        blank &= np.hypot(columns - record.cosmic_x_pix, rows - record.cosmic_y_pix) > reach
    if record.sat_band is not None:
        blank[:] = False
    return blank


def _sums(pixels: NDArray[np.floating], blank: NDArray[np.bool_]) -> NDArray[np.float64]:
    if blank.sum() < 200:
        return np.zeros(5)
    p = np.where(blank, pixels - pixels[blank].mean(), 0.0)
    both_x, both_y = blank[:, 1:] & blank[:, :-1], blank[1:] & blank[:-1]
    variance = (p**2).sum() / blank.sum()
    return np.array(
        [
            (p**2).sum(),
            (p[:, 1:] * p[:, :-1]).sum() / both_x.sum() / variance * blank.sum(),
            (p[1:] * p[:-1]).sum() / both_y.sum() / variance * blank.sum(),
            variance * blank.sum(),
            blank.sum(),
        ]
    )


def _noise(sums: NDArray[np.float64]) -> Noise:
    n = sums[4]
    return Noise(float(np.sqrt(sums[0] / n)), float(sums[1] / n), float(sums[2] / n))
