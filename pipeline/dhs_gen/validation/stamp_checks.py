"""What can be wrong with one stamp, and the sums over many."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dhs_gen.stamps import decode_stamp_npz

__all__ = ["FAULTS", "StampCheck", "StampTally", "check_stamp", "clumpiness"]

FAULTS = ("bad_decode", "bad_shape", "band_mismatch", "nonfinite", "flat", "mad_zero", "out_of_range", "missing_stamp")
_MAD_TO_SIGMA = 1.4826
_EXAMPLES = 5


@dataclass(frozen=True)
class StampCheck:
    """One stamp: its faults with what was found, and its measurements (none of a stamp that has no sound pixels).

    Parameters
    ----------
    faults
        Name (of :data:`FAULTS`) → what was found.
    bandset
        Of the decoded bytes; None if they could not be decoded.
    clumpiness
        Of the r band, else of the first.
    measured
        Band → (smallest pixel, largest pixel, sum of pixels, 1.4826 MAD), in the stamp's unit.
    """

    faults: dict[str, str]
    bandset: str | None = None
    clumpiness: float | None = None
    measured: dict[str, tuple[float, float, float, float]] = field(default_factory=dict)


def check_stamp(
    blob: bytes,
    bandset: str | None,
    expect_hw: tuple[int, int],
    expect_bands: int,
    flux_range: tuple[float, float],
) -> StampCheck:
    """Decode one stamp and look at it.

    Parameters
    ----------
    blob
        Stamp bytes of any layout.
    bandset
        Bands that the row claims; None where it does not say.
    expect_hw, expect_bands
        Shape; the number of bands counts only where the row does not name them.
    flux_range
        Lowest and highest plausible pixel, in the stamp's unit.
    """
    try:
        images, found = decode_stamp_npz(blob)
    except ValueError as error:
        return StampCheck({"bad_decode": str(error)})
    faults: dict[str, str] = {}
    if images.shape[1:] != tuple(expect_hw) or (bandset is None and len(images) != expect_bands):
        faults["bad_shape"] = f"{images.shape}"
    if bandset is not None and sorted(bandset) != sorted(found):
        faults["band_mismatch"] = f"the row says {bandset!r}, the stamp holds {found!r}"
    if not np.isfinite(images).all():
        bad = {b: int((~np.isfinite(i)).sum()) for b, i in zip(found, images, strict=True)}
        faults["nonfinite"] = f"pixels by band: {bad}"
        return StampCheck(faults, found)
    if images[0].size == 0:
        return StampCheck(faults, found)
    measured = {b: _measure(image) for b, image in zip(found, images, strict=True)}
    if flat := [b for b, (low, high, _, _) in measured.items() if low == high]:
        faults["flat"] = f"bands {flat}"
    if still := [b for b, (_, _, _, sigma) in measured.items() if sigma == 0]:
        faults["mad_zero"] = f"bands {still}"
    low, high = flux_range
    if outside := {b: m[:2] for b, m in measured.items() if m[0] < low or m[1] > high}:
        faults["out_of_range"] = f"smallest and largest pixel by band: {outside}"
    return StampCheck(faults, found, clumpiness(images[found.index("r") if "r" in found else 0]), measured)


def _measure(image: NDArray[np.float32]) -> tuple[float, float, float, float]:
    pixels = image.astype(np.float64)
    median = np.median(pixels)
    return (
        float(pixels.min()),
        float(pixels.max()),
        float(pixels.sum()),
        float(_MAD_TO_SIGMA * np.median(np.abs(pixels - median))),
    )


def clumpiness(image: NDArray[np.floating]) -> float | None:
    """Σ|I − ⟨I⟩₃ₓ₃| / Σ|I|: the part of the light that a 3 × 3 mean takes away; None of an image without light.

    After the S of Conselice 2003 (ApJS 147, 1), without its sky term: of a sky-dominated stamp it measures the noise.
    """
    pixels = np.asarray(image, dtype=np.float64)
    total = float(np.abs(pixels).sum())
    if total == 0:
        return None
    return float(np.abs(pixels - ndimage.uniform_filter(pixels, 3, mode="nearest")).sum()) / total


@dataclass(eq=False)
class StampTally:
    """Sums over the stamps that were looked at; grows by the sample, not by the dataset."""

    sampled: int = 0
    without_stamp: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    bandsets: Counter[str] = field(default_factory=Counter)
    clumpiness: list[float] = field(default_factory=list)
    measured: dict[str, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, check: StampCheck, where: str) -> None:
        """Count one stamp; ``where`` names its row."""
        self.sampled += 1
        for name, what in check.faults.items():
            self.add_fault(name, f"{where}: {what}")
        if check.bandset is not None:
            self.bandsets[check.bandset] += 1
        if check.clumpiness is not None:
            self.clumpiness.append(check.clumpiness)
        for band, values in check.measured.items():
            self.measured.setdefault(band, []).append(values)

    def add_fault(self, name: str, example: str) -> None:
        """Count a fault and keep the first few examples."""
        self.faults[name] += 1
        kept = self.examples.setdefault(name, [])
        if len(kept) < _EXAMPLES:
            kept.append(example)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; None where nothing was measured."""
        c = np.array(self.clumpiness)
        return {
            "sampled": self.sampled,
            "sampled_without_stamp": self.without_stamp,
            **{name: self.faults[name] for name in FAULTS},
            "clumpiness_mean": float(c.mean()) if c.size else None,
            "clumpiness_p10": float(np.percentile(c, 10)) if c.size else None,
            "clumpiness_p90": float(np.percentile(c, 90)) if c.size else None,
            "sampled_bandset_counts": dict(sorted(self.bandsets.items())),
            "flux": {band: _percentiles(values) for band, values in sorted(self.measured.items())},
        }


def _percentiles(values: list[tuple[float, float, float, float]]) -> dict[str, dict[str, float]]:
    """Over stamps: smallest, 1, 50, 99 % and largest of each measurement."""
    columns = np.array(values).T
    names = ("pixel_min", "pixel_max", "sum", "mad_sigma")
    marks = {"min": 0, "p1": 1, "p50": 50, "p99": 99, "max": 100}
    return {
        name: {mark: float(np.percentile(column, at)) for mark, at in marks.items()}
        for name, column in zip(names, columns, strict=True)
    }
