"""radial_profile: what of the class lies in the radial profile, and what in the shape about it.

Shuffled negatives keep the arc's radial profile, so a classifier of profiles must not tell them from positives; what
one of pictures gains on it is azimuthal structure: arcs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dhs_pipeline.config.gates import GatesConfig, RadialLimits
from dhs_pipeline.gates.across_hosts import indistinguishable_across, reported_across
from dhs_pipeline.gates.data import GateData, PairSample
from dhs_pipeline.gates.pictures import stretch
from dhs_pipeline.gates.probes import (
    FEATURE_PROBES,
    Contest,
    cnn,
    hosts_of,
)
from dhs_pipeline.gates.regions import distance_pix, noise_scale
from dhs_pipeline.gates.result import CannotRun, Figure, GateResult, judge, reported

GATE = "radial_profile"

SHUFFLED = ("shuffled_arc", "shuffled_pixels")
"""Kinds of negatives that keep the profile: before the PSF, and after it."""


def radial_profile(data: GateData, config: GatesConfig) -> GateResult:
    """Positives against shuffled negatives of the same pairs by their annular means (g, r, z) about the lens centre.

    Judged: the AUC of the profiles of each shuffled kind. Reported: profiles and pictures of positives against
    controls, where the excess of light is physics; pictures against each shuffled kind; and the gap between the two.

    Raises
    ------
    CannotRun
        If the set has no shuffled negatives or too few, or the controls' invvar, the unit of pictures, is missing.
    """
    sample = data.sample
    kinds = [kind for kind in SHUFFLED if sample.negative_of.get(kind, np.empty(0)).size]
    if not kinds:
        raise CannotRun(f"the sample has no negatives of the kinds {' or '.join(SHUFFLED)}")
    figures: list[Figure] = []
    gaps = []
    for kind in kinds:
        of, name = sample.negative_of[kind], f"positives against {kind}"
        profiles, pictures = _contests(sample, sample.negative[kind], of, config.radial_profile)
        judged = indistinguishable_across(GATE, f"{name}, profiles", profiles, FEATURE_PROBES, config)
        seen = reported_across(GATE, f"{name}, pictures, cnn", pictures, cnn, config)
        gaps.append(seen.value - max(0.5, *(f.value for f in judged)))
        gap = reported(f"{name}: AUC of pictures over profiles", gaps[-1], rows=seen.rows, blocks=seen.blocks)
        figures += [*judged, seen, gap]
    everyone, name = np.arange(len(sample)), "positives against controls"
    profiles, pictures = _contests(sample, sample.control, everyone, config.radial_profile)
    for probe_name, probe in FEATURE_PROBES.items():
        figures.append(reported_across(GATE, f"{name}, profiles, {probe_name}", profiles, probe, config))
    figures.append(reported_across(GATE, f"{name}, pictures, cnn", pictures, cnn, config))
    message = (
        f"profiles do not tell positives from {' or '.join(kinds)}; pictures do, by {max(gaps):.3f} of AUC from the "
        "azimuthal structure"
    )
    return judge(GATE, figures, message)


def annular_means(
    images: NDArray[np.float32], distance_pix: NDArray[np.float64], limits: RadialLimits
) -> NDArray[np.float64]:
    """(n, bands, annuli) mean over the pixels whose centres lie in each annulus, nanomaggy/pix.

    Parameters
    ----------
    images
        (n, bands, H, W).
    distance_pix
        (n, H, W) from the centre of the annuli.
    limits
        Width of the annuli, and the radius up to which whole ones are taken.

    Raises
    ------
    ValueError
        If an annulus is empty.
    """
    annuli = int(limits.max_radius_pix / limits.bin_width_pix)
    where = np.minimum((distance_pix / limits.bin_width_pix).astype(np.intp), annuli).reshape(len(images), -1)
    out = np.empty((*images.shape[:2], annuli))
    for stamp, index in enumerate(where):
        pixels = np.bincount(index, minlength=annuli + 1)[:annuli]
        if not pixels.all():
            raise ValueError(f"bin_width_pix must give every annulus a pixel, got {limits.bin_width_pix:g}")
        for band, image in enumerate(images[stamp]):
            total = np.bincount(index, weights=image.ravel(), minlength=annuli + 1)[:annuli]
            out[stamp, band] = total / pixels
    return out


def _contests(
    sample: PairSample, others: NDArray[np.float32], of: NDArray[np.intp], limits: RadialLimits
) -> tuple[Contest, Contest]:
    """Stamps of some pairs against the positives of the same pairs: by profiles, and by pictures."""
    sigma, distance = noise_scale(sample), distance_pix(sample)[of]
    hosts = hosts_of(sample.host_ids, of)
    other_hosts = hosts if others is not sample.control else hosts_of(sample.control_host_ids, of)
    positive = sample.positive[of]

    def profiles(images: NDArray[np.float32]) -> NDArray[np.float32]:
        means = annular_means(images, distance, limits).astype(np.float32)
        return stretch(means[..., None], sigma).reshape(len(images), -1)

    return (
        Contest(profiles(others), profiles(positive), other_hosts, hosts),
        Contest(stretch(others, sigma), stretch(positive, sigma), other_hosts, hosts),
    )
