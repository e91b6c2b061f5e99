"""Power law, multipoles and subhalos: deflections against lenstronomy and integrals, bounds, errors."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendering_cases import (
    PIXSCALE_ARCSEC,
    Case,
    arc_error,
    default_accuracy,
    oracle,
    perturbed_case,
    random_subhalos,
    rendered,
    summary,
)
from scipy.integrate import quad

from dhs_gen.lensing.models import MassModel, deflection
from dhs_gen.lensing.pixel_field import NODES, add_galaxy, interpolate, node_weights, split_halos
from dhs_gen.lensing.rays import shoot
from dhs_gen.lensing.reference import lens_kwargs, lens_model_list
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.lensing.tnfw import Subhalos, add_halo, add_halos, projected_density, total_mass

ANGLE = st.floats(0.0, 2 * math.pi)
FRACTION = st.floats(-0.2, 0.2)
SUBHALOS = st.builds(
    lambda seed, count, theta_e: random_subhalos(np.random.default_rng(seed), count, theta_e),
    st.integers(0, 10**6),
    st.integers(0, 8),
    st.floats(0.2, 2.5),
)
LENSES = st.builds(
    MassModel,
    st.floats(0.0, 3.0),
    st.one_of(st.sampled_from([0.0, 1e-12, 1e-6, 0.9]), st.floats(0.0, 0.9)),
    ANGLE,
    st.floats(0.0, 0.2),
    ANGLE,
    st.one_of(st.sampled_from([1.5, 2.0, 2.0 + 1e-12, 2.5]), st.floats(1.5, 2.5)),
    FRACTION,
    ANGLE,
    FRACTION,
    ANGLE,
    st.one_of(st.none(), SUBHALOS),
)
MICRO_ARCSEC = 1e-6
TABLE_ERROR = 5e-6
"""Of the halos' tables, over alpha_Rs."""


def halo(rs: float = 0.2, alpha_rs: float = 0.01, tau: float = 4.0, x: float = 0.0, y: float = 0.0) -> Subhalos:
    return Subhalos(*(np.array([value]) for value in (x, y, rs, alpha_rs, tau * rs)))


def only(subhalos: Subhalos) -> MassModel:
    return MassModel(0.0, 0.0, 0.0, 0.0, 0.0, subhalos=subhalos)


def positions() -> tuple[np.ndarray, np.ndarray]:
    """Points from 0.001 to 16 arcsec of the lens, on the axes among others."""
    rng = np.random.default_rng(1)
    r, phi = 10 ** rng.uniform(-3.0, 1.2, 200), rng.uniform(0.0, 2 * math.pi, 200)
    on_axes = np.array([0.001, 0.3, 5.0])
    zero = np.zeros(3)
    x = np.concatenate([r * np.cos(phi), on_axes, -on_axes, zero, zero])
    return x, np.concatenate([r * np.sin(phi), zero, zero, on_axes, -on_axes])


def lenstronomys(lens: MassModel, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    from lenstronomy.LensModel.lens_model import LensModel

    return np.array(LensModel(lens_model_list(lens)).alpha(x, y, lens_kwargs(lens)))


@given(LENSES)
@settings(max_examples=60)
def test_deflection_is_lenstronomys_to_a_micro_arcsec(lens: MassModel) -> None:
    """lenstronomy holds a TNFW constant within R_s/1000 of its centre: points there are left out."""
    x, y = positions()
    clear = np.ones(x.size, bool)
    if lens.subhalos is not None:
        halos = lens.subhalos
        r = np.hypot(x[:, None] - halos.x_arcsec, y[:, None] - halos.y_arcsec)
        clear = (r > halos.rs_arcsec / 900.0).all(axis=1)
    found = np.array(deflection(lens, x, y))
    assert np.abs(found - lenstronomys(lens, x, y))[:, clear].max() < MICRO_ARCSEC


@given(LENSES)
def test_centre_is_not_deflected_by_the_galaxy(lens: MassModel) -> None:
    galaxy = dataclasses.replace(lens, subhalos=None)
    assert [float(a) for a in deflection(galaxy, np.array(0.0), np.array(0.0))] == [0.0, 0.0]
    assert np.isfinite(deflection(lens, np.array([0.0, 1e-300, -1e-12]), np.zeros(3))).all()


@given(LENSES, st.floats(0.05, 4.0))
def test_no_ray_from_beyond_the_reach_meets_the_source(lens: MassModel, extent: float) -> None:
    reach = lens.reach_arcsec(extent)
    phi = np.linspace(0.0, 2 * math.pi, 721)
    for factor in (1.0001, 1.3, 3.0, 20.0):
        x, y = factor * reach * np.cos(phi), factor * reach * np.sin(phi)
        alpha_x, alpha_y = deflection(lens, x, y)
        assert np.hypot(x - alpha_x, y - alpha_y).min() > extent


@pytest.mark.parametrize("slope", [1.5, 1.9, 2.0, 2.2, 2.5])
def test_reach_is_not_much_wider_than_it_must_be(slope: float) -> None:
    """A round galaxy, where the bound is exact: the farthest ray to the edge of the source comes from there."""
    lens = MassModel(1.2, 0.0, 0.0, 0.0, 0.0, slope)
    reach = lens.reach_arcsec(0.7)
    assert reach - float(deflection(lens, np.array(reach), np.array(0.0))[0]) == pytest.approx(0.7, abs=1e-5)


@pytest.mark.parametrize("slope", [1.5, 1.8, 2.0, 2.3, 2.5])
def test_round_power_law_deflects_theta_e_at_theta_e(slope: float) -> None:
    r = np.array([0.1, 1.3, 4.0])
    alpha, across = deflection(MassModel(1.3, 0.0, 0.4, 0.0, 0.0, slope), r, np.zeros(3))
    np.testing.assert_allclose(alpha, 1.3 * (r / 1.3) ** (2.0 - slope), rtol=1e-12)
    assert np.abs(across).max() < 1e-12


def test_power_law_passes_into_the_sie() -> None:
    x, y = positions()
    sie = MassModel(1.3, 0.4, 0.4, 0.03, 1.0)
    near = dataclasses.replace(sie, slope=2.0 + 1e-9)
    np.testing.assert_allclose(deflection(near, x, y), deflection(sie, x, y), atol=1e-7)


@pytest.mark.parametrize(("order", "name"), [(3, "a3"), (4, "a4")])
def test_convergence_of_a_multipole_is_largest_on_its_lobes(order: int, name: str) -> None:
    """κ = a_m/(2r) cos m(φ − φ_m), by central differences of the deflection."""
    phi_m, fraction, theta_e, step = 0.3, 0.05, 1.4, 1e-5
    lens = MassModel(theta_e, 0.0, 0.0, 0.0, 0.0, **{f"{name}_frac": fraction, f"{name}_phi_rad": phi_m})
    plain = MassModel(theta_e, 0.0, 0.0, 0.0, 0.0)
    for r, phi in ((0.8, phi_m), (1.7, phi_m + math.pi / order), (2.0, 1.9)):
        x, y = r * math.cos(phi), r * math.sin(phi)
        kappa = 0.0
        for sign, model in ((1.0, lens), (-1.0, plain)):
            along = np.diff(deflection(model, np.array([x - step, x + step]), np.full(2, y))[0])[0]
            across = np.diff(deflection(model, np.full(2, x), np.array([y - step, y + step]))[1])[0]
            kappa += sign * (along + across) / (4 * step)
        expected = fraction * theta_e / (2 * r) * math.cos(order * (phi - phi_m))
        assert kappa == pytest.approx(expected, abs=1e-6)


# ------------------------------------------------------------------------------------------------------ subhalos


@pytest.mark.parametrize("tau", [0.05, 0.3, 1.0, 5.0, 30.0, 100.0, 500.0])
def test_halo_is_lenstronomys_over_all_truncations(tau: float) -> None:
    rs, alpha_rs = 0.3, 0.05
    x = rs * np.geomspace(1.01e-3, 1e3, 4000)
    lens = only(halo(rs, alpha_rs, tau))
    found = np.array(deflection(lens, x, np.zeros_like(x)))
    assert np.abs(found - lenstronomys(lens, x, np.zeros_like(x))).max() < TABLE_ERROR * alpha_rs


def test_deflection_near_the_centre_of_a_halo_is_the_mass_inside() -> None:
    """α(r) = (2/r) ∫ κ r' dr', where lenstronomy's core would be."""
    rs, alpha_rs, tau = 0.2, 0.02, 3.0

    def kappa(r: float) -> float:
        return alpha_rs / (2 * rs * (1 - math.log(2))) * projected_density(r / rs, tau)

    for r in (1e-6, 1e-5, 1e-4, 1e-3, 0.02, 0.2, 2.0):
        edges = [0.0, *np.geomspace(1e-9, r, 8)]
        mass = sum(quad(lambda s: kappa(max(s, 1e-12)) * s, a, b)[0] for a, b in itertools.pairwise(edges))
        assert float(deflection(only(halo(rs, alpha_rs, tau)), r, 0.0)[0]) == pytest.approx(
            2 * mass / r, abs=TABLE_ERROR * alpha_rs
        )


@pytest.mark.parametrize("tau", [0.3, 2.0, 20.0])
def test_far_halo_is_a_point_of_its_total_mass(tau: float) -> None:
    """∫ 4π ρ r² dr of the truncated profile; far away α = 4 G M/(c² D) / r."""
    mass = quad(lambda x: x / (1 + x) ** 2 * tau**2 / (tau**2 + x**2), 0.0, np.inf)[0]
    assert total_mass(tau) == pytest.approx(mass, rel=1e-8)
    alpha = float(deflection(only(halo(0.1, 0.01, tau)), 1e4, 0.0)[0])
    assert alpha == pytest.approx(0.01 / (1 - math.log(2)) * mass * 0.1 / 1e4, rel=0.01)


@given(SUBHALOS)
@settings(max_examples=15)
def test_largest_deflection_of_a_halo_bounds_it(halos: Subhalos) -> None:
    for i, bound in enumerate(halos.max_deflections_arcsec()):
        one = halo(halos.rs_arcsec[i], halos.alpha_rs_arcsec[i], halos.trunc_arcsec[i] / halos.rs_arcsec[i])
        r = halos.rs_arcsec[i] * np.geomspace(1e-3, 1e3, 400)
        alpha = deflection(only(one), r, np.zeros_like(r))[0]
        assert 0.95 * bound < alpha.max() <= bound


@given(st.integers(0, 10**6), st.sampled_from([5, 9, 75]))
@settings(max_examples=25)
def test_split_field_is_the_sum_over_all_halos(seed: int, s: int) -> None:
    """The interpolated part is wrong by less than 5e-4 of the far halos' largest deflection, and 2e-5 arcsec."""
    rng = np.random.default_rng(seed)
    halos = random_subhalos(rng, 60, 1.2)
    geometry, tables = halos.geometry(), halos.tables()
    x_centre, y_centre = rng.uniform(-2.0, 2.0, 2)
    field, near = np.zeros((NODES, 2, NODES)), np.empty(60, np.int64)
    count = split_halos(geometry, tables, x_centre, y_centre, PIXSCALE_ARCSEC, field, near)
    step = PIXSCALE_ARCSEC / s
    first_x = x_centre + 0.5 * (step - PIXSCALE_ARCSEC)
    worst = 0.0
    for row in range(s):
        y = y_centre + 0.5 * (step - PIXSCALE_ARCSEC) + step * row
        split, full = np.zeros((2, s)), np.zeros((2, s))
        weights = node_weights(75)[s]
        interpolate(field, np.ascontiguousarray(weights[:, row]), weights[:, :s], s, split)
        for i in near[:count]:
            add_halo(geometry, tables, i, first_x, step, s, y, split)
        add_halos(geometry, tables, first_x, step, s, y, full)
        worst = max(worst, float(np.abs(split - full).max()))
    assert count < 60
    assert worst < 2e-5
    assert worst < 5e-4 * halos.max_deflections_arcsec().max()


@given(st.integers(0, 10**6), st.sampled_from([None, 1.7, 2.3]))
@settings(max_examples=25)
def test_interpolated_deflection_of_a_galaxy_is_its_deflection(seed: int, slope: float | None) -> None:
    """Two sides of a square from the centre and farther, the cubic is wrong by less than 1e-3 of theta_E."""
    rng = np.random.default_rng(seed)
    extra = {} if slope is None else {"slope": slope, "a4_frac": 0.02}
    lens = MassModel(1.5, rng.uniform(0, 0.35), rng.uniform(0, 3), 0.08, rng.uniform(0, 3), **extra)
    side = PIXSCALE_ARCSEC * rng.choice([0.2, 1.0])
    angle, distance = rng.uniform(0, 2 * math.pi), side * rng.uniform(2.0, 12.0)
    x_centre, y_centre = distance * math.cos(angle), distance * math.sin(angle)
    field = np.zeros((NODES, 2, NODES))
    add_galaxy(tuple(lens.params().tolist()), lens.extras(), x_centre, y_centre, side, field)
    s, weights = 25, node_weights(75)[25]
    offset = (np.arange(s) + 0.5) / s - 0.5
    for row in range(s):
        alpha = np.zeros((2, s))
        interpolate(field, np.ascontiguousarray(weights[:, row]), weights[:, :s], s, alpha)
        x, y = x_centre + side * offset, np.full(s, y_centre + side * offset[row])
        np.testing.assert_allclose(
            alpha, deflection(lens, x, y), atol=1e-3 * lens.theta_e_arcsec * (2 * side / distance) ** 3
        )


def test_image_made_inside_a_pixel_by_a_subhalo_is_found() -> None:
    """Between corners that see nothing of it, a compact halo makes a second image; its light against a fine grid."""
    at = 3 * PIXSCALE_ARCSEC
    lens = only(halo(0.01, 0.5, 5.0, x=at))
    pixels = np.zeros((1, 13, 13))
    pixels[0, 2:11, 2:11] = 1 / 81
    template = SourceTemplate(pixels, 0.01, 0.01)
    light = shoot(lens, template, (at + 0.28, 0.0), (4.0, 4.0), 9, PIXSCALE_ARCSEC, default_accuracy()).on_grid(9)[0, 0]
    t = (np.arange(901) / 900 - 0.5) * PIXSCALE_ARCSEC
    x, y = np.meshgrid(at + t, t)
    alpha_x, alpha_y = deflection(lens, x, y)
    met = (np.abs(x - alpha_x - at - 0.28) < 0.045) & (np.abs(y - alpha_y) < 0.045)
    assert 0.002 < met.mean() < 0.01
    assert light[4, 7] * 0.09**2 == pytest.approx(met.mean(), rel=0.1)


# ---------------------------------------------------------------------------------------------------------- arcs


def require_lenstronomys_arcs(cases: list[Case]) -> None:
    """No pixel off by more than 0.5 % of the peak, and the flux within 0.5 %."""
    found = [arc_error(case.name, rendered(case), oracle(case)) for case in cases]
    for field in ("of_peak", "of_flux"):
        median, p95, largest, name = summary(found, field)
        print(f"\n{len(found)} tasks, {field}: median {median:.3%}, 95 % {p95:.3%}, max {largest:.3%} ({name})")
    assert [e for e in found if not max(e.of_peak, e.of_flux) <= 0.005] == []


def test_arcs_of_perturbed_lenses_agree_with_lenstronomy() -> None:
    """EPL, multipoles and subhalos together."""
    require_lenstronomys_arcs([perturbed_case(3, "hybrid", 6), perturbed_case(2, "noisy", 6)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hybrid", "noisy"])
def test_arcs_of_80_perturbed_lenses_agree_with_lenstronomy(kind: str) -> None:
    require_lenstronomys_arcs([perturbed_case(index, kind, 12) for index in range(40)])


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slope", 1.4),
        ("slope", 2.6),
        ("slope", math.nan),
        ("a3_frac", 1.0),
        ("a4_frac", -1.0),
        ("a4_phi_rad", math.inf),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} must .* got {value!r}$"):
        dataclasses.replace(MassModel(1.0, 0.1, 0.0, 0.01, 0.0), **{name: value})


def test_a_needle_has_no_power_law() -> None:
    with pytest.raises(ValueError, match=r"^e must not exceed 0.9 unless the slope is 2, got 0.95$"):
        MassModel(1.0, 0.95, 0.0, 0.0, 0.0, slope=2.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_arcsec": [0.0, 1.0]}, "subhalo_y_arcsec must be a list as long as"),
        ({"x_arcsec": [math.nan]}, "subhalo_x_arcsec must be finite, got "),
        ({"rs_arcsec": [0.0]}, "subhalo_rs_arcsec must be positive, got 0.0"),
        ({"alpha_rs_arcsec": [-0.1]}, "subhalo_alpha_rs_arcsec must not be negative, got -0.1"),
        ({"trunc_arcsec": [1000.0]}, "subhalo_trunc_arcsec must be 0.05 to 500 scale radii, got 5000.0"),
    ],
)
def test_a_wrong_subhalo_is_named(changes: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(halo(), **changes)
