"""A manifest row as a task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dhs_gen.lensing.models import MassModel
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
    assert task.lens == MassModel(1.2, 0.1, 0.2, 0.03, 0.4)
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


SUBHALOS = {
    "subhalo_x_arcsec": [0.5, -1.0], "subhalo_y_arcsec": [0.1, 0.3], "subhalo_rs_arcsec": [0.1, 0.2],
    "subhalo_alpha_rs_arcsec": [0.001, 0.004], "subhalo_trunc_arcsec": [0.4, 0.6],
}  # fmt: skip


def test_every_part_of_the_mass_is_read() -> None:
    angular = {"lens_a3_frac": 0.01, "lens_a3_phi_rad": 0.2, "lens_a4_frac": -0.02, "lens_a4_phi_rad": 0.3}
    lens = Task.from_row(row(lens_model="EPL", lens_gamma=2.1, **angular, **SUBHALOS)).lens
    assert lens is not None
    assert (lens.slope, lens.a3_frac, lens.a3_phi_rad, lens.a4_frac, lens.a4_phi_rad) == (2.1, 0.01, 0.2, -0.02, 0.3)
    assert lens.subhalos is not None
    for name, values in SUBHALOS.items():
        np.testing.assert_array_equal(getattr(lens.subhalos, name.removeprefix("subhalo_")), values)


def test_parts_that_are_null_are_parts_the_mass_does_not_have() -> None:
    nothing = dict.fromkeys(["lens_gamma", "lens_a3_frac", "lens_a3_phi_rad", "lens_a4_frac", *SUBHALOS])
    assert Task.from_row(row(lens_model="SIE", **nothing)).lens == MassModel(1.2, 0.1, 0.2, 0.03, 0.4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lens_model": "NFW"}, "lens_model must be 'SIE' or 'EPL', got 'NFW'"),
        ({"lens_model": "EPL"}, "lens_gamma must be given for lens_model 'EPL', got None"),
        ({"lens_model": "EPL", "lens_gamma": 3.2}, "slope must be in \\[1.5, 2.5\\], got 3.2"),
        ({"lens_model": "SIE", "lens_gamma": 2.1}, "lens_gamma must be null or 2 for lens_model 'SIE', got 2.1"),
        ({"lens_a3_frac": 0.01}, "lens_a3_phi_rad must be given with lens_a3_frac = 0.01, got None"),
        ({"lens_a4_frac": 1.5, "lens_a4_phi_rad": 0.0}, "a4_frac must be in \\(-1, 1\\), got 1.5"),
        (SUBHALOS | {"subhalo_rs_arcsec": None}, "subhalo_rs_arcsec must be given with subhalo_x_arcsec, got None"),
        (SUBHALOS | {"subhalo_rs_arcsec": [0.1]}, "subhalo_rs_arcsec must be a list as long as"),
        (SUBHALOS | {"subhalo_rs_arcsec": [0.1, -0.2]}, "subhalo_rs_arcsec must be positive, got -0.2"),
    ],
)
def test_a_mass_that_cannot_be_is_task_invalid(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskFailed, match=message) as caught:
        Task.from_row(row(**changes))
    assert caught.value.status is Status.TASK_INVALID
