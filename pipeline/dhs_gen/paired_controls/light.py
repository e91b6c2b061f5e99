"""The light of a stamp: the arc of a positive, or what a hard negative has in its place.

Light is handed on as a lensed source of unit unlensed flux, whatever it is, so that what follows is the same for all:
PSF, flux, dust, noise and measurement know no kinds. A negative has the flux of its pair's arc on the padded grid, per
channel: brightness and colour tell nothing.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.models import MassModel
from dhs_gen.lensing.rays import Accuracy
from dhs_gen.lensing.render import LensedSource, StampGrid, lens_source
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.lensing.tnfw import Subhalos
from dhs_gen.paired_controls.azimuthal import annulus_permutation, permuted, shuffle_annuli
from dhs_gen.paired_controls.kinds import NegativeKind
from dhs_gen.paired_controls.negative import Negative
from dhs_gen.paired_controls.procedural import ring_template, spiral_template
from dhs_gen.status import Status
from dhs_gen.streams import stream
from dhs_gen.task import Task, TaskFailed

__all__ = ["StampLight", "rotated", "stamp_light"]

_Coordinate = TypeVar("_Coordinate", float, NDArray[np.float64])

_NO_LENS = MassModel(0.0, 0.0, 0.0, 0.0, 0.0)
_LEAST_FLUX_ON_GRID = 0.5
"""Light of which less falls on the padded grid is not scaled up to the arc's flux: it would be another source."""


@dataclass(frozen=True, eq=False)
class StampLight:
    """What is drawn on a stamp.

    Parameters
    ----------
    lensed
        The light before the PSF; its ``magnification`` is its flux over the source's unlensed flux, for any kind.
    order
        The stamp's pixels after PSF and noise change places by it (:func:`annulus_permutation`); None: they stay.
    magnification
        Mean over the channels, of what is an image of the source by a lens; None for RING, SPIRAL and NEIGHBOUR.
    """

    lensed: LensedSource
    order: NDArray[np.intp] | None
    magnification: float | None

    def placed(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """(H, W) light or noise of the stamp with its pixels where they belong."""
        return pixels if self.order is None else permuted(pixels, self.order)


def stamp_light(
    task: Task,
    template: SourceTemplate | None,
    lens_xy_pix: tuple[float, float],
    grid: StampGrid,
    accuracy: Accuracy,
    negative: Negative | None = None,
) -> StampLight | None:
    """The light of one task: None for a control, the arc for a positive, else that of the negative.

    A negative draws from ``stream(task_id, "negative_" + kind)``, the task_id being that of its pair.

    Parameters
    ----------
    task, template
        The manifest row and the shape of its source.
    lens_xy_pix
        The host's centroid on the stamp, (column, row) from 0.
    grid, accuracy
        The stamp and how well to render it.
    negative
        What to draw in place of the arc; None for positives and controls.

    Raises
    ------
    TaskFailed
        TASK_INVALID if a negative is asked of a task that has no source or a θ_E of 0, or its light cannot be made.
    """
    if template is None or task.lens is None or task.source is None:
        if negative is not None:
            raise TaskFailed(Status.TASK_INVALID, f"a {negative.kind} negative needs a lens and a source, got none")
        return None
    arc = _Arc(task.lens, template, (task.source.x_arcsec, task.source.y_arcsec), lens_xy_pix, grid, accuracy)
    if negative is None:
        return _image(arc.render())
    if task.lens.theta_e_arcsec == 0:
        raise TaskFailed(Status.TASK_INVALID, f"a {negative.kind} negative needs a theta_e_arcsec above 0, got 0")
    try:
        return _negative_light(arc, negative, stream(task.task_id, f"negative_{negative.kind}"))
    except ValueError as error:  # a shape that no template can have
        raise TaskFailed(Status.TASK_INVALID, f"a {negative.kind} negative cannot be made: {error}") from error


@dataclass(frozen=True, eq=False)
class _Arc:
    """All that a lensed source is made of."""

    lens: MassModel
    template: SourceTemplate
    source_xy_arcsec: tuple[float, float]
    lens_xy_pix: tuple[float, float]
    grid: StampGrid
    accuracy: Accuracy

    def render(self) -> LensedSource:
        return lens_source(self.lens, self.template, self.source_xy_arcsec, self.lens_xy_pix, self.grid, self.accuracy)

    def shuffled(self, width_pix: float, rng: np.random.Generator) -> LensedSource:
        """Before the PSF, the pixels change places within annuli about the lens: the blur then is the survey's."""
        centre = (self.lens_xy_pix[0] + self.grid.pad_pix, self.lens_xy_pix[1] + self.grid.pad_pix)
        return lens_source(
            self.lens, self.template, self.source_xy_arcsec, self.lens_xy_pix, self.grid, self.accuracy,
            lambda moments: shuffle_annuli(moments, centre, width_pix, rng),
        )  # fmt: skip

    def unlensed(self, template: SourceTemplate, xy_arcsec: tuple[float, float]) -> LensedSource:
        """Another template without a lens, at an offset from the host, with the flux of the arc in each channel."""
        seen = dataclasses.replace(self, lens=_NO_LENS, template=template, source_xy_arcsec=xy_arcsec).render()
        return _with_flux(seen, self.render().magnification)


def _negative_light(arc: _Arc, negative: Negative, rng: np.random.Generator) -> StampLight:
    match negative.kind:
        case NegativeKind.SHUFFLED_PIXELS:
            size = arc.grid.size_pix
            order = annulus_permutation((size, size), arc.lens_xy_pix, negative.annulus_width_pix, rng)
            return dataclasses.replace(_image(arc.render()), order=order)
        case NegativeKind.SHUFFLED_ARC:
            return _image(arc.shuffled(negative.annulus_width_pix, rng))
        case NegativeKind.WRONG_CENTRE_ARC:
            return _image(_moved_arc(arc, negative, rng).render())
        case NegativeKind.NEIGHBOUR:
            xy_arcsec = _draw_offset(negative.neighbour_radius_theta_e, arc.lens.theta_e_arcsec, rng)
            return StampLight(arc.unlensed(arc.template, xy_arcsec), None, None)
        case NegativeKind.RING | NegativeKind.SPIRAL:
            return StampLight(arc.unlensed(_procedural(arc.lens, negative, rng), (0.0, 0.0)), None, None)


def _image(lensed: LensedSource) -> StampLight:
    return StampLight(lensed, None, float(lensed.magnification.mean()))


def _procedural(lens: MassModel, negative: Negative, rng: np.random.Generator) -> SourceTemplate:
    """A ring or a spiral in the host's plane, which has the position angle and ellipticity of its mass."""
    e = min(lens.e, negative.disc_e_max)
    if negative.kind is NegativeKind.RING:
        return ring_template(
            lens.theta_e_arcsec,
            negative.ring_width_frac,
            negative.ring_modulation,
            negative.ring_clumps,
            negative.ring_clump_flux_frac,
            e,
            lens.phi_rad,
            rng,
        )
    return spiral_template(
        lens.theta_e_arcsec,
        negative.spiral_pitch_deg,
        negative.spiral_arm_width_frac,
        negative.spiral_extent_frac,
        e,
        lens.phi_rad,
        rng,
    )


def _moved_arc(arc: _Arc, negative: Negative, rng: np.random.Generator) -> _Arc:
    """Lens and source turned together by a random angle, about a centre beside the host."""
    angle_rad = float(rng.uniform(0.0, 2.0 * math.pi))
    dx, dy = _draw_offset(negative.wrong_centre_offset_theta_e, arc.lens.theta_e_arcsec, rng)
    x, y = arc.lens_xy_pix
    return dataclasses.replace(
        arc,
        lens=rotated(arc.lens, angle_rad),
        template=dataclasses.replace(arc.template, phi_rad=arc.template.phi_rad + angle_rad),
        source_xy_arcsec=_rotate(*arc.source_xy_arcsec, angle_rad),
        lens_xy_pix=(x + dx / arc.grid.pixscale_arcsec, y + dy / arc.grid.pixscale_arcsec),
    )


def rotated(lens: MassModel, angle_rad: float) -> MassModel:
    """The same mass turned about its centre, from +x towards +y, with shear, multipoles and subhalos."""
    halos = lens.subhalos
    if halos is not None:
        x_arcsec, y_arcsec = _rotate(halos.x_arcsec, halos.y_arcsec, angle_rad)
        halos = Subhalos(x_arcsec, y_arcsec, halos.rs_arcsec, halos.alpha_rs_arcsec, halos.trunc_arcsec)
    return dataclasses.replace(
        lens,
        phi_rad=lens.phi_rad + angle_rad,
        shear_phi_rad=lens.shear_phi_rad + angle_rad,
        a3_phi_rad=lens.a3_phi_rad + angle_rad,
        a4_phi_rad=lens.a4_phi_rad + angle_rad,
        subhalos=halos,
    )


def _rotate(x: _Coordinate, y: _Coordinate, angle_rad: float) -> tuple[_Coordinate, _Coordinate]:
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return cos * x - sin * y, sin * x + cos * y


def _draw_offset(
    radius_theta_e: tuple[float, float], theta_e_arcsec: float, rng: np.random.Generator
) -> tuple[float, float]:
    """(x, y) arcsec: uniform in distance and direction."""
    radius_arcsec = theta_e_arcsec * float(rng.uniform(*radius_theta_e))
    angle_rad = float(rng.uniform(0.0, 2.0 * math.pi))
    return radius_arcsec * math.cos(angle_rad), radius_arcsec * math.sin(angle_rad)


def _with_flux(lensed: LensedSource, flux: NDArray[np.float64]) -> LensedSource:
    """The same light with the flux of (channels,) over the padded grid; one channel serves any number."""
    least = float(lensed.magnification.min())
    if not least >= _LEAST_FLUX_ON_GRID:  # NaN too
        raise ValueError(
            f"at least {_LEAST_FLUX_ON_GRID:g} of its light must fall on the padded stamp, got {least:.3g}"
        )
    factor = flux / lensed.magnification
    return LensedSource(lensed.spectrum * factor[:, None, None], flux, lensed.grid)
