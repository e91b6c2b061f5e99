"""One manifest row and one host cutout, as the kernels see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.models import SieShear
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
    """What one manifest row asks for. ``lens`` and ``source`` are None in controls."""

    task_id: str
    bandset: str
    stamp_size_pix: int
    mw_transmission: Mapping[str, float | None]
    lens: SieShear | None
    source: SourceParams | None

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
            )
        except (TypeError, ValueError) as error:
            raise TaskFailed(Status.TASK_INVALID, str(error)) from error


def _lens(row: Mapping[str, Any]) -> SieShear:
    return SieShear(
        float(row["theta_e_arcsec"]),
        float(row["lens_e"]),
        float(row["lens_phi_rad"]),
        float(row["shear"]),
        float(row["shear_phi_rad"]),
    )


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
