"""Gen7: a Sersic profile with Gaussian clumps and a colour gradient, made from a key alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from dhs_gen.hybrid_sources.sersic import check_sersic, elliptical_radius, mirrored, sersic_image
from dhs_gen.streams import stream

CLUMP_RADII_RE = (0.4, 1.6)
"""Clumps lie between these elliptical radii, in effective radii: where the stars of a disc form."""
COLOUR_SENSE = {"g": 1.0, "r": 0.0, "z": -1.0}
"""Sign of the gradient's exponent per band: r is the reference, g gains in the outskirts what z loses."""
_SOFTENING_RE = 0.1
_SOFTENING_PIX = 0.5
_MAX_GRADIENT_MAG_PER_DEX = 2.0
_PLACEMENTS = 200


@dataclass(frozen=True)
class ClumpSettings:
    """How clumpy a source may be.

    Parameters
    ----------
    n_clumps
        Fewest and most clumps.
    sigma_re
        Range of a clump's Gaussian σ, in effective radii.
    flux_fraction
        Range of the fraction of the image's total flux that all clumps hold together.
    """

    n_clumps: tuple[int, int]
    sigma_re: tuple[float, float]
    flux_fraction: tuple[float, float]

    def __post_init__(self) -> None:
        check_clump_ranges(n_clumps=self.n_clumps, sigma_re=self.sigma_re, flux_fraction=self.flux_fraction)


@dataclass(frozen=True, eq=False)
class HybridTemplate:
    """A template and what it was made of.

    Parameters
    ----------
    pixels
        (H, W) float64 of unit sum.
    n_clumps, clump_flux_fraction
        Number of clumps, and their share of the sum: 0 if there are none.
    flux_on_image
        Share of the smooth profile's flux over the infinite plane that falls on the image.
    """

    pixels: NDArray[np.float64]
    n_clumps: int
    clump_flux_fraction: float
    flux_on_image: float


class HybridMeta(TypedDict):
    """What :func:`generate_hybrid_source` made: centre (column, row from 0) and sizes in pixels, phi in radians."""

    n_clumps: int
    clump_flux_fraction: float
    re_pix: float
    n_sersic: float
    q: float
    phi: float
    x0: float
    y0: float
    gradient_strength: float
    flux_on_image: float
    bands: str


class HybridSource(TypedDict):
    """``img``: (H, W), or (bands, H, W), float32, flux per pixel; ``meta``: how it was made."""

    img: NDArray[np.float32]
    meta: HybridMeta


def generate_hybrid_source(
    key: str,
    H: int = 96,
    W: int = 96,
    re_pix: float = 6.0,
    n_sersic: float = 1.0,
    q: float = 0.8,
    n_clumps_range: tuple[int, int] = (2, 6),
    clump_sigma_pix_range: tuple[float, float] = (0.8, 2.0),
    clump_flux_frac_range: tuple[float, float] = (0.05, 0.25),
    gradient_strength: float = 0.2,
    normalize_sum: bool = True,
    salt: str = "",
) -> HybridSource:
    """Clumpy Sersic source in one band, the reference band r.

    The orientation, the sub-pixel position of the centre and the clumps follow from ``key`` and ``salt`` alone. A
    colour gradient cannot be seen in one band: ``gradient_strength`` is recorded, and changes the image only in
    :func:`generate_hybrid_source_bands`, whose r band equals this image.

    .. warning:: The image is flux per pixel. A renderer takes surface brightness:
       ``to_surface_brightness(img, pixscale_arcsec)`` with the pixel scale of *this* image.

    Parameters
    ----------
    key
        Names the source, such as the task_id.
    H, W
        Rows and columns.
    re_pix
        Circularised effective radius in pixels: half of the smooth light lies in the ellipse with semi-axes re/√q and
        re √q. Any positive size; the profile is integrated over the pixels.
    n_sersic
        Sersic index, 0.2 to 8; 1 is exponential, 4 de Vaucouleurs.
    q
        Axis ratio in (0, 1].
    n_clumps_range
        Fewest and most clumps. They lie between 0.4 and 1.6 re, uniformly over the area of that elliptical ring.
    clump_sigma_pix_range
        Range of a clump's Gaussian σ in pixels; clumps are round on the image.
    clump_flux_frac_range
        Range of the share of the image's total flux that all clumps hold together. A source that draws no clump has
        the fraction 0, whatever the range.
    gradient_strength
        Recorded in the metadata.
    normalize_sum
        True: the image sums to 1. False: the source has unit flux over the infinite plane and light that falls off the
        image is missing: the same image times ``meta["flux_on_image"]``.
    salt
        Another salt makes another source for the same key.

    Returns
    -------
    dict
        ``img`` (H, W) float32, finite and not negative, and ``meta``, see :class:`HybridMeta`.

    Raises
    ------
    ValueError
        If an argument is out of range, or the image does not come out finite.
    """
    made = generate_hybrid_source_bands(
        key, "r", H, W, re_pix, n_sersic, q, n_clumps_range, clump_sigma_pix_range, clump_flux_frac_range,
        gradient_strength, normalize_sum, salt,
    )  # fmt: skip
    return HybridSource(img=made["img"][0], meta=made["meta"])


def generate_hybrid_source_bands(
    key: str,
    bands: str | Sequence[str] = "grz",
    H: int = 96,
    W: int = 96,
    re_pix: float = 6.0,
    n_sersic: float = 1.0,
    q: float = 0.8,
    n_clumps_range: tuple[int, int] = (2, 6),
    clump_sigma_pix_range: tuple[float, float] = (0.8, 2.0),
    clump_flux_frac_range: tuple[float, float] = (0.05, 0.25),
    gradient_strength: float = 0.2,
    normalize_sum: bool = True,
    salt: str = "",
) -> HybridSource:
    """Clumpy Sersic source in several bands, with a colour gradient: :func:`colour_channels`.

    Parameters
    ----------
    key, H, W, re_pix, n_sersic, q, n_clumps_range, clump_sigma_pix_range, clump_flux_frac_range, salt
        As in :func:`generate_hybrid_source`; the ranges hold in the r band.
    bands
        Any of g, r, z in any order, each once.
    gradient_strength
        −d(g−r)/dlog₁₀R = −d(r−z)/dlog₁₀R in mag per dex; positive makes the outskirts bluer.
    normalize_sum
        True: each band sums to 1. False: each band sums to ``meta["flux_on_image"]``.

    Returns
    -------
    dict
        ``img`` (bands, H, W) float32 and ``meta``. The bands' fluxes are not in it: they come from the source's
        magnitude and colours.

    Raises
    ------
    ValueError
        As :func:`generate_hybrid_source`, and if a band is unknown or given twice.
    """
    if not isinstance(key, str):
        raise ValueError(f"key must be a string, got {key!r}")
    check_sersic((H, W), re_pix, n_sersic, q)
    check_bands(bands)
    check_clump_ranges(
        n_clumps_range=n_clumps_range,
        clump_sigma_pix_range=clump_sigma_pix_range,
        clump_flux_frac_range=clump_flux_frac_range,
    )
    check_gradient(gradient_strength, "gradient_strength")
    pose = stream(key, "hybrid_pose", salt=salt)
    phi = float(pose.uniform(0.0, math.pi))
    x0 = 0.5 * (W - 1) + float(pose.uniform(-0.5, 0.5))
    y0 = 0.5 * (H - 1) + float(pose.uniform(-0.5, 0.5))
    low, high = clump_sigma_pix_range
    clumps = ClumpSettings(n_clumps_range, (low / re_pix, high / re_pix), clump_flux_frac_range)
    made = hybrid_template(key, (H, W), re_pix, n_sersic, q, clumps, (x0, y0), phi, salt)
    channels = colour_channels(made.pixels, bands, gradient_strength, re_pix, q, (x0, y0), phi)
    img = (channels if normalize_sum else channels * made.flux_on_image).astype(np.float32)
    if not np.isfinite(img).all():
        raise ValueError(f"NaN/Inf in the image of key={key!r}")
    meta = HybridMeta(
        n_clumps=made.n_clumps,
        clump_flux_fraction=made.clump_flux_fraction,
        re_pix=float(re_pix),
        n_sersic=float(n_sersic),
        q=float(q),
        phi=phi,
        x0=x0,
        y0=y0,
        gradient_strength=float(gradient_strength),
        flux_on_image=made.flux_on_image,
        bands="".join(bands),
    )
    return HybridSource(img=img, meta=meta)


def hybrid_template(
    key: str,
    shape: tuple[int, int],
    re_pix: float,
    n_sersic: float,
    axis_ratio: float,
    clumps: ClumpSettings,
    centre_xy_pix: tuple[float, float] | None = None,
    phi_rad: float = 0.0,
    salt: str = "",
) -> HybridTemplate:
    """Template of a clumpy Sersic source, without colour.

    Parameters
    ----------
    key, salt
        Name the source; clumps come from ``stream(key, "hybrid_clumps", salt=salt)``.
    shape, re_pix, n_sersic, axis_ratio, centre_xy_pix, phi_rad
        As in :func:`dhs_gen.hybrid_sources.sersic.sersic_image`.
    clumps
        Ranges of the clumps.

    Raises
    ------
    ValueError
        If an argument is out of range, or no clump finds a place on the image.
    """
    smooth = sersic_image(shape, re_pix, n_sersic, axis_ratio, centre_xy_pix, phi_rad)
    on_image = float(smooth.sum())
    smooth /= on_image
    rng = stream(key, "hybrid_clumps", salt=salt)
    n_clumps = int(rng.integers(clumps.n_clumps[0], clumps.n_clumps[1] + 1))
    fraction = float(rng.uniform(*clumps.flux_fraction))
    if n_clumps == 0:
        return HybridTemplate(smooth, 0, 0.0, on_image)
    ring = _ring(rng, n_clumps)
    sigma_pix = re_pix * rng.uniform(*clumps.sigma_re, n_clumps)
    share = rng.dirichlet(np.full(n_clumps, 2.0))
    centre = _middle(shape) if centre_xy_pix is None else centre_xy_pix
    x, y = _on_image(rng, ring, shape, re_pix, axis_ratio, centre, phi_rad)
    light = _gaussians(shape, x, y, sigma_pix, share)
    light *= fraction / light.sum()
    smooth *= 1.0 - fraction
    return HybridTemplate(smooth + light, n_clumps, fraction, on_image)


def colour_channels(
    pixels: NDArray[np.float64],
    bands: str | Sequence[str],
    gradient_mag_per_dex: float,
    re_pix: float,
    axis_ratio: float,
    centre_xy_pix: tuple[float, float] | None = None,
    phi_rad: float = 0.0,
) -> NDArray[np.float64]:
    """One channel per band, with a colour that changes with the elliptical radius R.

    Band b is ``pixels`` × (R/re)^(0.4 Γ c_b) with Γ the gradient and c = +1, 0, −1 in g, r, z, normalised to unit sum:
    then g − r = −2.5 log₁₀(F_g/F_r) falls by Γ mag per dex, and so does r − z. R² is softened by
    (0.1 re)² + (0.5 pix)², so that the centre has a finite colour and the pixel that holds it a single one.

    Parameters
    ----------
    pixels
        (H, W), the r band.
    bands
        Any of g, r, z.
    gradient_mag_per_dex
        Γ; positive makes the outskirts bluer.
    re_pix, axis_ratio, centre_xy_pix, phi_rad
        Of the source, as in :func:`dhs_gen.hybrid_sources.sersic.sersic_image`.

    Returns
    -------
    ndarray
        (bands, H, W) float64; each channel sums to 1.
    """
    centre = _middle(pixels.shape) if centre_xy_pix is None else centre_xy_pix
    out = np.empty((len(bands), *pixels.shape))
    factor = None
    for channel, band in zip(out, bands, strict=True):
        sense = COLOUR_SENSE[band]
        if sense == 0.0 or gradient_mag_per_dex == 0.0:
            channel[:] = pixels / pixels.sum()
            continue
        if factor is None:
            factor = _colour_factor(pixels.shape, gradient_mag_per_dex, re_pix, axis_ratio, centre, phi_rad)
        np.multiply(pixels, factor, out=channel) if sense > 0 else np.divide(pixels, factor, out=channel)
        channel /= channel.sum()
    return out


def _colour_factor(
    shape: tuple[int, int],
    gradient_mag_per_dex: float,
    re_pix: float,
    axis_ratio: float,
    centre_xy_pix: tuple[float, float],
    phi_rad: float,
) -> NDArray[np.float64]:
    """(R/re)^(0.4 Γ) of every pixel; one quadrant is enough if the source is upright in the middle of the image."""
    upright = centre_xy_pix == _middle(shape) and phi_rad == 0.0
    part = ((shape[0] + 1) // 2, (shape[1] + 1) // 2) if upright else shape
    r2 = elliptical_radius(part, axis_ratio, centre_xy_pix, phi_rad) ** 2
    softened2 = r2 / re_pix**2 + _SOFTENING_RE**2 + (_SOFTENING_PIX / re_pix) ** 2
    factor = softened2 ** (0.2 * gradient_mag_per_dex)
    return mirrored(factor, shape) if upright else factor


def check_bands(bands: str | Sequence[str]) -> None:
    """ValueError unless ``bands`` are some of g, r and z, each once."""
    if len(bands) == 0 or len(set(bands)) != len(bands) or not set(bands) <= set(COLOUR_SENSE):
        raise ValueError(f"bands must be some of {', '.join(COLOUR_SENSE)}, each once, got {bands!r}")


def check_gradient(value: float, name: str) -> None:
    """ValueError unless the gradient is a number of at most 2 mag per dex."""
    if not abs(value) <= _MAX_GRADIENT_MAG_PER_DEX:
        raise ValueError(f"{name} must be within ±{_MAX_GRADIENT_MAG_PER_DEX:g} mag per dex, got {value!r}")


def check_clump_ranges(**ranges: tuple[float, float]) -> None:
    """ValueError that names the argument unless number, width and flux fraction (in this order) are good ranges."""
    (count_name, counts), (sigma_name, _), (fraction_name, fractions) = ranges.items()
    for name, pair in ranges.items():
        if len(pair) != 2 or not 0 <= pair[0] <= pair[1] < math.inf:
            raise ValueError(f"{name} must be a range low <= high of finite non-negative numbers, got {pair!r}")
    if any(isinstance(n, bool) or not isinstance(n, int | np.integer) for n in counts):
        raise ValueError(f"{count_name} must be two whole numbers, got {counts!r}")
    if ranges[sigma_name][0] == 0:
        raise ValueError(f"{sigma_name} must be positive, got {ranges[sigma_name]!r}")
    if fractions[1] >= 1:
        raise ValueError(f"{fraction_name} must stay below 1, got {fractions!r}")


def _middle(shape: tuple[int, ...]) -> tuple[float, float]:
    return 0.5 * (shape[1] - 1), 0.5 * (shape[0] - 1)


def _ring(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """(2, n): places in the ring of clumps along and across the major axis of a round source, in effective radii."""
    low, high = CLUMP_RADII_RE
    radius = np.sqrt(rng.uniform(low**2, high**2, n))
    azimuth = rng.uniform(0.0, 2.0 * math.pi, n)
    return radius * np.stack([np.cos(azimuth), np.sin(azimuth)])


def _on_image(
    rng: np.random.Generator,
    ring: NDArray[np.float64],
    shape: tuple[int, int],
    re_pix: float,
    axis_ratio: float,
    centre_xy_pix: tuple[float, float],
    phi_rad: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(columns, rows) of clumps at places of the ring; those that fall off the image are drawn again."""
    stretch = math.sqrt(axis_ratio)
    cos, sin = re_pix * math.cos(phi_rad), re_pix * math.sin(phi_rad)
    for _ in range(_PLACEMENTS):
        along, across = ring[0] / stretch, ring[1] * stretch
        x, y = centre_xy_pix[0] + cos * along - sin * across, centre_xy_pix[1] + sin * along + cos * across
        off = (x < -0.5) | (x > shape[1] - 0.5) | (y < -0.5) | (y > shape[0] - 0.5)
        if not off.any():
            return x, y
        ring[:, off] = _ring(rng, int(off.sum()))
    raise ValueError(
        f"re_pix {re_pix!r} is too large for H, W = {shape[0]}, {shape[1]}: clumps between {CLUMP_RADII_RE[0]} and "
        f"{CLUMP_RADII_RE[1]} re find no place on the image"
    )


def _gaussians(
    shape: tuple[int, int],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    sigma_pix: NDArray[np.float64],
    share: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Sum of round Gaussians of fluxes ``share``, integrated over pixels: a Gaussian over a pixel is a product."""
    scale = 1.0 / (math.sqrt(2.0) * sigma_pix[:, None])
    in_columns, in_rows = (
        0.5 * np.diff(erf((np.arange(side + 1) - 0.5 - at[:, None]) * scale))
        for side, at in ((shape[1], x), (shape[0], y))
    )
    return (share[:, None] * in_rows).T @ in_columns
