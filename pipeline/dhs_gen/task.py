"""One manifest row and one host cutout, as the kernels see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.models import ISOTHERMAL, MassModel
from dhs_gen.lensing.tnfw import Subhalos
from dhs_gen.status import Status
from dhs_gen.units import mag_to_nmgy


class TaskFailed(Exception):  # noqa: N818 - it names an outcome, not a defect
    """A row that cannot be rendered; it ends with this status and message."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class SourceParams:
    """The source of a task; angles and offsets as in the manifest."""

    x_arcsec: float
    y_arcsec: float
    mag_r: float
    gr_mag: float
    rz_mag: float
    reff_arcsec: float
    n_sersic: float
    e: float
    phi_rad: float
    flip: bool
    template_u: float

    def flux_nmgy(self, band: str) -> float:
        """Unlensed flux before extinction in g, r or z."""
        mag = {"g": self.mag_r + self.gr_mag, "r": self.mag_r, "z": self.mag_r - self.rz_mag}[band]
        return float(mag_to_nmgy(mag))


@dataclass(frozen=True)
class Task:
    """What one manifest row asks for. ``lens`` and ``source`` are None in controls.

    ``fold`` is that of the host's sky region (:mod:`dhs_gen.source_banks.folds`).
    """

    task_id: str
    bandset: str
    stamp_size_pix: int
    mw_transmission: Mapping[str, float | None]
    lens: MassModel | None
    source: SourceParams | None
    fold: int | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Task:
        """Read a manifest row.

        Raises
        ------
        TaskFailed
            TASK_INVALID if a positive lacks a parameter or one is out of range.
        """
        is_control = bool(row["is_control"])
        try:
            return cls(
                task_id=row["task_id"],
                bandset=row["bandset"],
                stamp_size_pix=row["stamp_size_pix"],
                mw_transmission={b: row[f"mw_transmission_{b}"] for b in row["bandset"]},
                lens=None if is_control else _lens(row),
                source=None if is_control else _source(row),
                fold=row.get("region_fold"),
            )
        except (TypeError, ValueError) as error:
            raise TaskFailed(Status.TASK_INVALID, str(error)) from error


def _lens(row: Mapping[str, Any]) -> MassModel:
    """The mass of a row; a column that is absent or null is a part the mass does not have."""
    return MassModel(
        float(row["theta_e_arcsec"]),
        float(row["lens_e"]),
        float(row["lens_phi_rad"]),
        float(row["shear"]),
        float(row["shear_phi_rad"]),
        _slope(row.get("lens_model"), row.get("lens_gamma")),
        *_multipole(row, "lens_a3"),
        *_multipole(row, "lens_a4"),
        _subhalos(row),
    )


def _slope(model: str | None, gamma: float | None) -> float:
    if model not in (None, "SIE", "EPL"):
        raise ValueError(f"lens_model must be 'SIE' or 'EPL', got {model!r}")
    if model == "EPL":
        if gamma is None:
            raise ValueError("lens_gamma must be given for lens_model 'EPL', got None")
        return float(gamma)
    if gamma is not None and float(gamma) != ISOTHERMAL:
        raise ValueError(f"lens_gamma must be null or 2 for lens_model {model!r}, got {gamma!r}")
    return ISOTHERMAL


def _multipole(row: Mapping[str, Any], name: str) -> tuple[float, float]:
    """(a_m over θ_E, angle of a lobe) of ``lens_a3`` or ``lens_a4``."""
    fraction, phi_rad = row.get(f"{name}_frac"), row.get(f"{name}_phi_rad")
    if fraction is None:
        return 0.0, 0.0
    if phi_rad is None:
        raise ValueError(f"{name}_phi_rad must be given with {name}_frac = {fraction!r}, got None")
    return float(fraction), float(phi_rad)


def _subhalos(row: Mapping[str, Any]) -> Subhalos | None:
    columns = {f.name: row.get(f"subhalo_{f.name}") for f in fields(Subhalos)}
    given = [name for name, values in columns.items() if values is not None]
    if not given:
        return None
    if missing := [name for name in columns if name not in given]:
        raise ValueError(f"subhalo_{missing[0]} must be given with subhalo_{given[0]}, got None")
    return Subhalos(**{name: np.asarray(values, dtype=np.float64) for name, values in columns.items()})


def _source(row: Mapping[str, Any]) -> SourceParams:
    return SourceParams(
        x_arcsec=float(row["src_x_arcsec"]),
        y_arcsec=float(row["src_y_arcsec"]),
        mag_r=float(row["src_mag_r"]),
        gr_mag=float(row["src_gr"]),
        rz_mag=float(row["src_rz"]),
        reff_arcsec=float(row["src_reff_arcsec"]),
        n_sersic=float(row["src_n_sersic"]),
        e=float(row["src_e"]),
        phi_rad=float(row["src_phi_rad"]),
        flip=bool(row["src_flip"]),
        template_u=float(row["template_u"]),
    )


@dataclass(frozen=True, eq=False)
class HostCutout:
    """Real pixels about one host.

    Parameters
    ----------
    host_id
        The host.
    status, message
        Why there are no pixels, or OK.
    corner_xy_pix
        Brick (column, row) of the first pixel, from 0.
    centroid_xy_pix
        Light centroid on the cutout, (column, row) from 0.
    image, invvar
        Per band, (size, size) float32: nanomaggy/pix and 1/nanomaggy².
    maskbits
        (size, size) int32, or None if the survey gave none.
    psfsize_arcsec, nexp
        Per band, at the host.
    """

    host_id: str
    status: Status
    message: str | None
    corner_xy_pix: tuple[int, int]
    centroid_xy_pix: tuple[float, float]
    image: Mapping[str, NDArray[np.float32]]
    invvar: Mapping[str, NDArray[np.float32]]
    maskbits: NDArray[np.int32] | None
    psfsize_arcsec: Mapping[str, float]
    nexp: Mapping[str, float]
