"""Import an existing HDF5 source bank: read its layout, judge every template anew, write a built-bank folder.

Layout read: ``/images`` (N, H, W) float32; ``/meta/index`` int64; ``/meta/hlr_arcsec`` and ``/meta/clumpiness``
float32 (the latter optional); attributes ``src_pixscale_arcsec`` and, optionally, ``stamp_size``, ``created_utc``,
``galaxy_kind``. The attributes count, never a configuration file beside them: the two have been seen to disagree.

Such banks have been built as max(image, 0) of noisy galaxies: most of the flux is then a square pedestal, which a
unit sum hides. A pedestal shows in the half-light radius (that of a flat square) and in the flux of the outer frame.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhs_gen.source_banks.bank import (
    BankError,
    BankWriter,
    Column,
    check_radii,
    checked_pixscale,
)
from dhs_gen.source_banks.measure import (
    centroid_px,
    edge_to_mean_ratio,
    flat_square_hlr_px,
    half_light_radius_px,
)
from dhs_gen.source_banks.rejects import BankSummary, Rejected, TemplateReject

__all__ = ["ImportLimits", "import_hdf5_bank"]

_CHUNK = 64

COLUMNS = (
    Column("template_id", "string", "", "/meta/index of the HDF5 bank, or hdf5_row if it repeats"),
    Column("hdf5_row", "int64", "", "row of /images, from 0"),
    Column("source_index", "int64", "", "/meta/index of the HDF5 bank"),
    Column("hlr_arcsec", "float64", "arcsec", "circular-aperture half-light radius measured on the template"),
    Column("stored_hlr_arcsec", "float64", "arcsec", "/meta/hlr_arcsec of the HDF5 bank"),
    Column("clumpiness", "float64", "", "/meta/clumpiness of the HDF5 bank"),
    Column("image_sum", "float64", "", "sum of the template before it was normalised"),
    Column("hlr_over_flat", "float64", "", "half-light radius over that of a flat square of the same size"),
    Column("edge_to_mean", "float64", "", "mean pixel of the outer frame over the mean pixel"),
    Column("centroid_offset_px", "float64", "pixel", "flux centroid from the stamp's centre"),
)


@dataclass(frozen=True)
class ImportLimits:
    """Limits of an import; values and reasons are in ``conf/banks/cosmos.yaml``.

    Attributes
    ----------
    max_hlr_over_flat
        Largest half-light radius over that of a flat square of the stamp's size.
    max_edge_to_mean
        Largest mean pixel of the outer frame (1/16 of the side) over the mean pixel of the template.
    max_centroid_offset_px
        Largest distance of the flux centroid from the stamp's centre.
    min_hlr_arcsec, max_hlr_arcsec
        Range of the half-light radius.
    """

    max_hlr_over_flat: float
    max_edge_to_mean: float
    max_centroid_offset_px: float
    min_hlr_arcsec: float
    max_hlr_arcsec: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise BankError(f"import limit {field.name} is {value!r}: it must be a positive number")
        if self.min_hlr_arcsec >= self.max_hlr_arcsec:
            raise BankError(f"import limit min_hlr_arcsec is {self.min_hlr_arcsec!r}, not below max_hlr_arcsec")

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> ImportLimits:
        """Limits from a parsed configuration section; unknown and missing names are errors."""
        names = {field.name for field in fields(cls)}
        unknown, missing = sorted(set(mapping) - names), sorted(names - set(mapping))
        if unknown or missing:
            raise BankError(f"import limits have unknown names {unknown} and lack {missing}")
        return cls(**mapping)


def import_hdf5_bank(
    h5_path: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    limits: ImportLimits,
    effective_psf_fwhm_arcsec: float,
    expected_pixscale_arcsec: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BankSummary:
    """Write a built-bank folder from an HDF5 bank.

    Parameters
    ----------
    h5_path, out_dir
        File to read; folder to write (``images.npy``, ``meta.parquet``, ``rejects.parquet``, ``bank.json``).
    limits
        What a template must satisfy.
    effective_psf_fwhm_arcsec
        FWHM of the PSF that is still in the templates. The layout has no attribute for it, so it must be stated;
        for templates from which the HST PSF was not removed, about 0.10.
    expected_pixscale_arcsec
        If given, ``src_pixscale_arcsec`` must agree within 1 %.
    progress
        Called with (done, total) after each chunk of templates.

    Returns
    -------
    BankSummary

    Raises
    ------
    BankError
        The file lacks a part of the layout; the pixel scale is not positive, too coarse, not the expected one, or
        contradicted by the stored radii of the accepted templates; or every template was refused.
    """
    h5py = _h5py()
    file = Path(h5_path)
    if not file.is_file():
        raise BankError(f"no HDF5 bank at {file}: correct the path")
    try:
        opened = h5py.File(file, "r")
    except OSError as error:
        line = " ".join(str(error).split())
        raise BankError(f"{file} is not a readable HDF5 file ({line}): copy it again") from error
    with opened as h5, BankWriter(out_dir, COLUMNS) as writer:
        pixscale_arcsec = checked_pixscale(
            _attribute(h5.attrs.get("src_pixscale_arcsec")),
            expected_pixscale_arcsec,
            where=f"src_pixscale_arcsec of {file}",
        )
        columns = _layout(h5, file)
        radii = _judge_all(h5["images"], columns, pixscale_arcsec, limits, writer, progress)
        if radii:
            stored, measured = np.array(radii).T
            check_radii(
                stored, measured, pixscale_arcsec, where=str(file), attribute="the attribute src_pixscale_arcsec"
            )
        digest = writer.finish(
            {
                "kind": "hdf5_import",
                "hdf5_file": file.name,
                "n_candidates": len(columns["hdf5_row"]),
                "limits": asdict(limits),
                "hdf5_attributes": {
                    name: _attribute(h5.attrs[name])
                    for name in ("stamp_size", "created_utc", "galaxy_kind")
                    if name in h5.attrs
                },
                "pixscale_arcsec": pixscale_arcsec,
                "effective_psf_fwhm_arcsec": float(effective_psf_fwhm_arcsec),
            }
        )
        return BankSummary(
            Path(out_dir), len(columns["hdf5_row"]), writer.n_accepted, writer.counts_by_reason(), digest
        )


def _layout(h5: Any, file: Path) -> dict[str, list[Any]]:
    """The columns of the file in row order; a one-line error if a part of the layout is missing."""
    for name in ("images", "meta/index", "meta/hlr_arcsec"):
        if name not in h5:
            raise BankError(f"{file} has no /{name}: it does not have the layout of a source bank")
    shape = h5["images"].shape
    if len(shape) != 3 or shape[1] != shape[2] or 0 in shape:
        raise BankError(f"/images of {file} has shape {shape}, not (N, S, S): it cannot be imported")
    n = shape[0]
    index = [int(value) for value in h5["meta/index"][:]]
    hlr = [float(value) for value in h5["meta/hlr_arcsec"][:]]
    clumpiness = [float(v) for v in h5["meta/clumpiness"][:]] if "meta/clumpiness" in h5 else [None] * n
    for name, column in (("index", index), ("hlr_arcsec", hlr), ("clumpiness", clumpiness)):
        if len(column) != n:
            raise BankError(f"/meta/{name} of {file} has {len(column)} rows for {n} images: it cannot be imported")
    unique = len(set(index)) == n
    return {
        "template_id": [str(value) if unique else f"row{row}" for row, value in enumerate(index)],
        "hdf5_row": list(range(n)),
        "source_index": index,
        "stored_hlr_arcsec": hlr,
        "clumpiness": clumpiness,
    }


def _judge_all(
    images: Any,
    columns: dict[str, list[Any]],
    pixscale_arcsec: float,
    limits: ImportLimits,
    writer: BankWriter,
    progress: Callable[[int, int], None] | None,
) -> list[tuple[float, float]]:
    """Accept or refuse every template.

    Returns the (stored, measured) radii in arcsec of those that are galaxies, the refused for their radius included:
    a wrong pixel scale would refuse them all.
    """
    total, side = images.shape[0], images.shape[1]
    flat_hlr_px = flat_square_hlr_px((side, side))
    radii: list[tuple[float, float]] = []
    for start in range(0, total, _CHUNK):
        for offset, image in enumerate(np.asarray(images[start : start + _CHUNK], dtype=np.float64)):
            row = {name: values[start + offset] for name, values in columns.items()}
            try:
                _judge(image, pixscale_arcsec, flat_hlr_px, limits, row)
            except Rejected as rejected:
                writer.reject({**row, "reason": str(rejected.reason), "message": rejected.message})
                is_galaxy = rejected.reason is TemplateReject.HLR_OUT_OF_RANGE
            else:
                writer.accept(image, row)
                is_galaxy = True
            if is_galaxy and np.isfinite(row["stored_hlr_arcsec"]):
                radii.append((row["stored_hlr_arcsec"], row["hlr_arcsec"]))
        if progress is not None:
            progress(min(start + _CHUNK, total), total)
    return radii


def _judge(
    image: NDArray[np.float64],
    pixscale_arcsec: float,
    flat_hlr_px: float,
    limits: ImportLimits,
    row: dict[str, Any],
) -> None:
    """Measure one template into ``row``; raise :class:`Rejected` at the first limit it fails."""
    if not np.isfinite(image).all():
        raise Rejected(TemplateReject.NOT_FINITE, "the template has pixels that are not finite")
    row["image_sum"] = float(image.sum())
    if not row["image_sum"] > 0:
        raise Rejected(TemplateReject.NOISE_DOMINATED, f"the template sums to {row['image_sum']:g}")
    hlr_px = half_light_radius_px(image)
    x, y = centroid_px(image)
    row["hlr_arcsec"] = hlr_px * pixscale_arcsec
    row["hlr_over_flat"] = hlr_px / flat_hlr_px
    row["edge_to_mean"] = edge_to_mean_ratio(image)
    row["centroid_offset_px"] = float(np.hypot(x - image.shape[1] // 2, y - image.shape[0] // 2))
    for name, limit in (
        ("hlr_over_flat", limits.max_hlr_over_flat),
        ("edge_to_mean", limits.max_edge_to_mean),
    ):
        if row[name] > limit:
            raise Rejected(
                TemplateReject.NOISE_DOMINATED,
                f"{name} is {row[name]:.2f}, at most {limit:g} allowed: the flux is a pedestal, not a galaxy",
            )
    if row["centroid_offset_px"] > limits.max_centroid_offset_px:
        raise Rejected(
            TemplateReject.NOT_CENTRED,
            f"centroid {row['centroid_offset_px']:.1f} px from the centre, at most "
            f"{limits.max_centroid_offset_px:g} allowed",
        )
    if not limits.min_hlr_arcsec <= row["hlr_arcsec"] <= limits.max_hlr_arcsec:
        raise Rejected(
            TemplateReject.HLR_OUT_OF_RANGE,
            f"half-light radius is {row['hlr_arcsec']:.3f} arcsec, allowed {limits.min_hlr_arcsec:g} to "
            f"{limits.max_hlr_arcsec:g}",
        )


def _attribute(value: Any) -> Any:
    """An HDF5 attribute as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value.item() if isinstance(value, np.generic) else value


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("importing an HDF5 bank needs h5py: pip install dark-halo-scope[banks]") from error
    return h5py
