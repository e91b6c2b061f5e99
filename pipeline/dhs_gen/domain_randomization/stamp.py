"""Artifacts on a stamp of several bands: what is coherent over bands, what belongs to one, and what masks see.

Everything is drawn from a key without the label and scaled by the host's pixels before an arc is added, so that a
positive and the control of the same task get the same artifacts to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhs_gen.domain_randomization.anisotropy import Ellipticity
from dhs_gen.domain_randomization.background import background_plane
from dhs_gen.domain_randomization.config import ArtifactConfig
from dhs_gen.domain_randomization.cosmic_rays import CosmicRay, render_cosmic_ray
from dhs_gen.domain_randomization.draws import (
    draw_background_amplitude,
    draw_band,
    draw_direction,
    draw_jitter,
    draw_other_band_ratio,
    draw_psf,
    draw_ray,
    draw_star,
)
from dhs_gen.domain_randomization.saturation import (
    SaturatedStar,
    StarLayer,
    StarPsf,
    render_saturated,
    render_unsaturated,
    saturation_level_sigma,
)
from dhs_gen.domain_randomization.scale import mad_sigma
from dhs_gen.noise import add_arc_variance, arc_shot_noise
from dhs_gen.streams import stream

SURVEY_BANDS = "grz"
"""Bands among which a single-band artifact chooses, whichever are asked for: no band depends on the bandset."""
_SATURATED_BITS = {"g": 1 << 2 | 1 << 5, "r": 1 << 3 | 1 << 6, "z": 1 << 4 | 1 << 7}
"""SATUR and ALLMASK of a band (DR10 bitmasks page): saturated in every exposure."""


@dataclass(frozen=True, eq=False)
class DrawnArtifacts:
    """What the key says, before any pixel is seen."""

    key: str
    jitter_pix: tuple[float, float]
    psf: Mapping[str, Ellipticity]
    background_phi_rad: float | None
    background_sigma: Mapping[str, float | None]
    ray: CosmicRay | None
    ray_band: str | None
    star: SaturatedStar | None
    star_band: str | None
    other_band_ratio: Mapping[str, float]


@dataclass(frozen=True)
class ArtifactRecord:
    """What was done to a stamp. Brightnesses are nanomaggy/pix; positions (column, row) on the stamp, from 0.

    Parameters
    ----------
    jitter_x_pix, jitter_y_pix
        Shift of host and arc, whole pixels included.
    psf_e1, psf_e2
        Per band, of the arc's PSF.
    sigma_nmgy
        Per band: MAD sigma of the host's pixels, the unit of all amplitudes.
    bg_phi_rad, bg_amp_nmgy
        Direction of the background's rise, and its height half a stamp from the centre per band; None without one.
    n_cosmic_rays
        0 or 1.
    cosmic_band, cosmic_kind, cosmic_peak_nmgy, cosmic_length_pix, cosmic_x_pix, cosmic_y_pix
        None without one. The band need not be one of the stamp's: then the stamp shows nothing.
    sat_band, sat_level_nmgy, sat_x_pix, sat_y_pix, sat_masked_pix
        Saturated band, its level (None if it is not one of the stamp's), star's centre and number of pixels that lost
        their weight; None without a star.
    """

    jitter_x_pix: float
    jitter_y_pix: float
    psf_e1: Mapping[str, float]
    psf_e2: Mapping[str, float]
    sigma_nmgy: Mapping[str, float]
    bg_phi_rad: float | None
    bg_amp_nmgy: Mapping[str, float | None]
    n_cosmic_rays: int
    cosmic_band: str | None
    cosmic_kind: str | None
    cosmic_peak_nmgy: float | None
    cosmic_length_pix: float | None
    cosmic_x_pix: float | None
    cosmic_y_pix: float | None
    sat_band: str | None
    sat_level_nmgy: float | None
    sat_x_pix: float | None
    sat_y_pix: float | None
    sat_masked_pix: int | None

    def columns(self) -> dict[str, object]:
        """Flat, names with units; per-band columns for the bands of the stamp."""
        flat: dict[str, object] = {
            "artifact_jitter_x_pix": self.jitter_x_pix,
            "artifact_jitter_y_pix": self.jitter_y_pix,
            "artifact_bg_phi_rad": self.bg_phi_rad,
            "artifact_n_cosmic_rays": self.n_cosmic_rays,
            "artifact_cosmic_band": self.cosmic_band,
            "artifact_cosmic_kind": self.cosmic_kind,
            "artifact_cosmic_peak_nmgy": self.cosmic_peak_nmgy,
            "artifact_cosmic_length_pix": self.cosmic_length_pix,
            "artifact_cosmic_x_pix": self.cosmic_x_pix,
            "artifact_cosmic_y_pix": self.cosmic_y_pix,
            "artifact_sat_band": self.sat_band,
            "artifact_sat_level_nmgy": self.sat_level_nmgy,
            "artifact_sat_x_pix": self.sat_x_pix,
            "artifact_sat_y_pix": self.sat_y_pix,
            "artifact_sat_masked_pix": self.sat_masked_pix,
        }
        for band in self.sigma_nmgy:
            flat |= {
                f"artifact_psf_e1_{band}": self.psf_e1[band],
                f"artifact_psf_e2_{band}": self.psf_e2[band],
                f"artifact_sigma_{band}_nmgy": self.sigma_nmgy[band],
                f"artifact_bg_amp_{band}_nmgy": self.bg_amp_nmgy[band],
            }
        return flat


@dataclass(frozen=True, eq=False)
class ArtifactLayer:
    """One band with its artifacts, before the arc.

    Parameters
    ----------
    image, invvar
        (size, size) float32, nanomaggy/pix and 1/nanomaggy².
    painted, paint
        Saturated pixels and what they hold, arc or no arc.
    masked
        Pixels that lost their weight.
    """

    image: NDArray[np.float32]
    invvar: NDArray[np.float32]
    painted: NDArray[np.bool_] | None
    paint: NDArray[np.float32] | None
    masked: NDArray[np.bool_] | None


def draw_artifacts(key: str, bandset: str, size_pix: int, cfg: ArtifactConfig) -> DrawnArtifacts:
    """All draws of one stamp.

    Parameters
    ----------
    key
        The task's id, which does not say whether there is an arc.
    bandset, size_pix
        Bands and side of the stamp.
    cfg
        Strengths.
    """
    shape = (size_pix, size_pix)
    ray, star = draw_ray(key, "", shape, cfg), draw_star(key, "", shape, cfg)
    return DrawnArtifacts(
        key=key,
        jitter_pix=draw_jitter(key, "", cfg),
        psf={b: draw_psf(key, "", b, cfg) for b in bandset},
        background_phi_rad=draw_direction(key, "", cfg),
        background_sigma={b: draw_background_amplitude(key, "", b, cfg) for b in bandset},
        ray=ray,
        ray_band=None if ray is None else draw_band(key, "artifact_cosmic_ray_band", "", SURVEY_BANDS),
        star=star,
        star_band=None if star is None else draw_band(key, "artifact_saturation_band", "", SURVEY_BANDS),
        other_band_ratio={} if star is None else {b: draw_other_band_ratio(key, "", b, cfg) for b in bandset},
    )


class StampArtifacts:
    """The artifacts of one stamp once the host's pixels are known.

    Parameters
    ----------
    drawn
        What the key says.
    hosts, weights
        Image and invvar of the host per band, already jittered.
    psfs
        Shape of a star per band.
    g_eff
        Electrons per nanomaggy per band.
    """

    def __init__(
        self,
        drawn: DrawnArtifacts,
        hosts: Mapping[str, NDArray[np.float32]],
        weights: Mapping[str, NDArray[np.float32]],
        psfs: Mapping[str, StarPsf],
        g_eff: Mapping[str, float],
    ) -> None:
        self._drawn, self._psfs, self._g_eff = drawn, psfs, g_eff
        self._sigma = {b: mad_sigma(hosts[b][weights[b] > 0]) for b in hosts}
        self.layers = {b: self._layer(b, hosts[b], weights[b]) for b in hosts}

    def mask(self, maskbits: NDArray[np.int32]) -> NDArray[np.int32]:
        """MASKBITS with the saturated pixels marked."""
        marked = maskbits
        for band, layer in self.layers.items():
            if layer.masked is not None and layer.masked.any():
                marked = np.where(layer.masked, marked | _SATURATED_BITS[band], marked).astype(maskbits.dtype)
        return marked

    def record(self) -> ArtifactRecord:
        drawn, ray, star = self._drawn, self._drawn.ray, self._drawn.star
        dx, dy = drawn.jitter_pix
        ray_sigma = None if drawn.ray_band is None else self._sigma.get(drawn.ray_band)
        return ArtifactRecord(
            jitter_x_pix=dx,
            jitter_y_pix=dy,
            psf_e1={b: drawn.psf[b].e1 for b in self.layers},
            psf_e2={b: drawn.psf[b].e2 for b in self.layers},
            sigma_nmgy=self._sigma,
            bg_phi_rad=drawn.background_phi_rad,
            bg_amp_nmgy={
                b: None if (a := drawn.background_sigma[b]) is None else a * s for b, s in self._sigma.items()
            },
            n_cosmic_rays=int(ray is not None),
            cosmic_band=drawn.ray_band,
            cosmic_kind=None if ray is None else ray.kind,
            cosmic_peak_nmgy=None if ray is None or ray_sigma is None else ray.amplitude_sigma * ray_sigma,
            cosmic_length_pix=None if ray is None else ray.length_pix,
            cosmic_x_pix=None if ray is None else ray.x_pix + dx,
            cosmic_y_pix=None if ray is None else ray.y_pix + dy,
            sat_band=drawn.star_band,
            sat_level_nmgy=self._level_nmgy(),
            sat_x_pix=None if star is None else star.x_pix + dx,
            sat_y_pix=None if star is None else star.y_pix + dy,
            sat_masked_pix=None
            if star is None
            else sum(int(layer.masked.sum()) for layer in self.layers.values() if layer.masked is not None),
        )

    def _layer(self, band: str, host: NDArray[np.float32], invvar: NDArray[np.float32]) -> ArtifactLayer:
        drawn, shape = self._drawn, (host.shape[0], host.shape[1])
        added = np.zeros(shape)
        height = drawn.background_sigma[band]
        if drawn.background_phi_rad is not None and height is not None:
            added += height * self._sigma[band] * background_plane(shape, drawn.background_phi_rad)
        if drawn.ray is not None and drawn.ray_band == band:
            peak = drawn.ray.amplitude_sigma * self._sigma[band]
            added += peak * render_cosmic_ray(drawn.ray, shape, drawn.jitter_pix)
        star = self._star_layer(band, shape)
        if star is None:
            return ArtifactLayer(_sum(host, added), invvar, None, None, None)
        rng = stream(drawn.key, "artifact_saturation_noise", band=band)
        added += star.light + arc_shot_noise(star.light, self._g_eff[band], rng)
        image = _sum(host, added)
        weight = add_arc_variance(invvar, star.light, self._g_eff[band])
        paint = star.paint.astype(np.float32)
        image[star.painted] = paint[star.painted]
        weight[star.masked] = 0.0
        return ArtifactLayer(image, weight, star.painted, paint, star.masked)

    def _star_layer(self, band: str, shape: tuple[int, int]) -> StarLayer | None:
        """The star as this band sees it.

        A star is there in every band, and saturates one: exposures of 30 to 200 s are full at different magnitudes. Its
        brightness is counted in each band's own MAD sigma, so that a band looks the same whichever others are made.
        """
        drawn = self._drawn
        if drawn.star is None:
            return None
        psf = self._psfs[band]
        level = self._sigma[band] * saturation_level_sigma(drawn.star, psf)
        if band == drawn.star_band:
            return render_saturated(drawn.star, shape, drawn.jitter_pix, psf, level)
        peak = drawn.other_band_ratio[band] * level / psf.at(drawn.star.r0_pix)
        return render_unsaturated(drawn.star, shape, drawn.jitter_pix, psf, peak)

    def _level_nmgy(self) -> float | None:
        drawn = self._drawn
        if drawn.star is None or drawn.star_band not in self.layers:
            return None
        psf = self._psfs[drawn.star_band]
        return self._sigma[drawn.star_band] * saturation_level_sigma(drawn.star, psf)


def _sum(host: NDArray[np.float32], added: NDArray[np.float64]) -> NDArray[np.float32]:
    """Host plus light; pixels to which nothing is added keep their bits."""
    image = host.copy()
    touched = added != 0
    image[touched] = (host[touched].astype(np.float64) + added[touched]).astype(np.float32)
    return image
