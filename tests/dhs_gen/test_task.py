"""A manifest row as a task."""

from __future__ import annotations

from typing import Any

import pytest

from dhs_gen.lensing.models import SieShear
from dhs_gen.status import Status
from dhs_gen.task import Task, TaskFailed


def row(**changes: Any) -> dict[str, Any]:
    values = {
        "task_id": "t", "is_control": False, "bandset": "grz", "stamp_size_pix": 64,
        "mw_transmission_g": 0.9, "mw_transmission_r": 0.95, "mw_transmission_z": 0.97,
        "theta_e_arcsec": 1.2, "lens_e": 0.1, "lens_phi_rad": 0.2, "shear": 0.03, "shear_phi_rad": 0.4,
        "src_x_arcsec": 0.1, "src_y_arcsec": -0.2, "src_mag_r": 22.5, "src_gr": 0.3, "src_rz": 0.2,
        "src_reff_arcsec": 0.15, "src_n_sersic": 1.0, "src_e": 0.2, "src_phi_rad": 1.0, "src_flip": True,
        "template_u": 0.7,
    }  # fmt: skip
    return values | changes


def test_a_positive_reads_every_column() -> None:
    task = Task.from_row(row())
    assert task.lens == SieShear(1.2, 0.1, 0.2, 0.03, 0.4)
    source = task.source
    assert source is not None
    assert (source.x_arcsec, source.y_arcsec, source.reff_arcsec, source.n_sersic) == (0.1, -0.2, 0.15, 1.0)
    assert (source.e, source.phi_rad, source.flip, source.template_u) == (0.2, 1.0, True, 0.7)
    assert task.mw_transmission == {"g": 0.9, "r": 0.95, "z": 0.97}


def test_flux_follows_the_magnitude_in_r_and_the_colours() -> None:
    """r = 22.5 is 1 nanomaggy; g is 0.3 mag fainter, z 0.2 mag brighter."""
    source = Task.from_row(row()).source
    assert source is not None
    assert source.flux_nmgy("r") == pytest.approx(1.0)
    assert source.flux_nmgy("g") == pytest.approx(10**-0.12)
    assert source.flux_nmgy("z") == pytest.approx(10**0.08)


def test_a_control_needs_no_lens() -> None:
    task = Task.from_row(row(is_control=True, theta_e_arcsec=None, src_mag_r=None))
    assert task.lens is None
    assert task.source is None


@pytest.mark.parametrize("changes", [{"theta_e_arcsec": None}, {"lens_e": 1.2}, {"shear": -0.1}, {"src_mag_r": None}])
def test_a_positive_that_cannot_be_rendered_is_task_invalid(changes: dict[str, Any]) -> None:
    with pytest.raises(TaskFailed) as caught:
        Task.from_row(row(**changes))
    assert caught.value.status is Status.TASK_INVALID
    assert caught.value.message
