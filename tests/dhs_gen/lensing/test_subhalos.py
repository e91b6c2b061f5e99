"""The population of subhalos: mass function, mass, number, profile parameters."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import yaml
from scipy import stats
from scipy.integrate import quad

from dhs_gen.lensing.cosmology import Cosmology, arcsec_per_mpc, sigma_crit_msun_mpc2
from dhs_gen.lensing.models import MassModel, deflection
from dhs_gen.lensing.subhalos import (
    SubhaloPopulation,
    bound_masses_msun,
    draw_subhalos,
    expected_number,
    lens_mass_msun,
    nfw_angles,
    nfw_radius_mpc,
)
from dhs_gen.lensing.tnfw import total_mass
from dhs_gen.streams import stream
from tests_support import REPO

PLANCK18 = Cosmology(67.66, 0.30966)
LENS = (1.2, 0.5, 2.0)  # theta_E, z_l, z_s


def cdm(**changes: float) -> SubhaloPopulation:
    values = yaml.safe_load((REPO / "conf" / "subhalos" / "cdm.yaml").read_text(encoding="utf-8"))
    del values["name"]
    return SubhaloPopulation(**(values | changes))


def test_masses_follow_the_mass_function() -> None:
    """Kolmogorov-Smirnov against the integrated power law, and its slope by maximum likelihood."""
    population = cdm()
    masses = population.masses(stream("t", "subhalos").uniform(size=20_000))
    power = population.mass_slope + 1
    low, high = population.mass_low_msun, population.mass_high_msun
    cdf = (masses**power - low**power) / (high**power - low**power)
    assert stats.kstest(cdf, "uniform").pvalue > 0.01
    logs = np.log(masses / low)
    expected = (
        quad(lambda t: t * math.exp(power * t), 0, math.log(high / low))[0]
        / quad(lambda t: math.exp(power * t), 0, math.log(high / low))[0]
    )
    assert logs.mean() == pytest.approx(expected, abs=4 * logs.std() / math.sqrt(logs.size))
    assert low <= masses.min() < 1.01 * low
    assert masses.max() <= high


def test_a_slope_of_minus_one_is_uniform_in_the_logarithm() -> None:
    population = cdm(mass_slope=-1.0)
    assert population.masses(np.array([0.0, 0.5, 1.0])) == pytest.approx([1e7, 10**8.5, 1e10])


@pytest.mark.parametrize("mass", [1e6, 1e8, 1e10])
@pytest.mark.parametrize("concentration", [4.0, 10.0, 25.0])
def test_profile_is_lenstronomys(mass: float, concentration: float) -> None:
    """To 5e-4: lenstronomy's constants are older than astropy's."""
    from lenstronomy.Cosmo.lens_cosmo import LensCosmo

    oracle = LensCosmo(0.5, 2.0, PLANCK18.astropy()).nfw_physical2angle(mass, concentration)
    found = nfw_angles(np.array(mass), np.array(concentration), 0.5, 2.0, PLANCK18)
    assert [float(v) for v in found] == pytest.approx([float(v) for v in oracle], rel=5e-4)


def test_concentration_is_that_of_duffy_and_others() -> None:
    """c(M = 2e12/h, z = 0) = 5.71 and 5.71 · 2^-0.47 at z = 1, with the scatter in dex."""
    mass = np.array(2e12 / 0.6766)
    assert float(cdm().concentrations(mass, 0.0, PLANCK18, np.array(0.0))) == pytest.approx(5.71)
    assert float(cdm().concentrations(mass, 1.0, PLANCK18, np.array(1.0))) == pytest.approx(5.71 * 2**-0.47 * 10**0.15)
    assert float(cdm().truncations_kpc(np.array(8e7))) == pytest.approx(2.8)


def test_bound_mass_is_the_mass_of_the_truncated_profile() -> None:
    c, tau = 12.0, 4.0
    inside = quad(lambda x: x / (1 + x) ** 2 * tau**2 / (tau**2 + x**2), 0, np.inf)[0]
    whole = quad(lambda x: x / (1 + x) ** 2, 0, c)[0]
    assert float(bound_masses_msun(np.array(1e8), np.array(c), np.array(tau))) == pytest.approx(1e8 * inside / whole)


@pytest.mark.parametrize("slope", [1.8, 2.0, 2.2])
def test_mass_of_the_lens_is_what_its_deflection_says(slope: float) -> None:
    """M(<R) = Σ_crit π R α(R) for a round lens."""
    theta_e, z_l, z_s = LENS
    radius = 2.0 * theta_e
    alpha = float(deflection(MassModel(theta_e, 0, 0, 0, 0, slope), np.array(radius), np.array(0.0))[0])
    area = math.pi * radius * alpha / float(arcsec_per_mpc(z_l, PLANCK18)) ** 2
    expected = area * float(sigma_crit_msun_mpc2(z_l, z_s, PLANCK18))
    assert lens_mass_msun(theta_e, 2.0, slope, z_l, z_s, PLANCK18) == pytest.approx(expected, rel=1e-9)


def test_ellipticity_lowers_that_mass_by_three_per_cent() -> None:
    """The mean of the radial deflection over the circle is M(<R)/(π R Σ_crit)."""
    phi = np.linspace(0, 2 * math.pi, 720, endpoint=False)
    x, y = 2.4 * np.cos(phi), 2.4 * np.sin(phi)
    alpha_x, alpha_y = deflection(MassModel(1.2, 0.35, 0.3, 0, 0), x, y)
    assert np.mean(alpha_x * np.cos(phi) + alpha_y * np.sin(phi)) == pytest.approx(0.968 * 1.2, rel=1e-3)


def test_expected_mass_is_the_fraction_of_the_lens() -> None:
    """Mean over 300 lenses of the mass in subhalos, as their deflections at infinity say, within 4 sigma."""
    theta_e, z_l, z_s = LENS
    population = cdm(f_sub=0.02, mass_high_msun=1e9)
    in_disc = lens_mass_msun(theta_e, population.radius_theta_e, 2.0, z_l, z_s, PLANCK18)
    unit = float(sigma_crit_msun_mpc2(z_l, z_s, PLANCK18)) / float(arcsec_per_mpc(z_l, PLANCK18)) ** 2
    fractions, numbers = [], []
    for i in range(300):
        halos = draw_subhalos(population, theta_e, z_l, z_s, PLANCK18, stream(f"lens-{i}", "subhalos"))
        tau = halos.trunc_arcsec / halos.rs_arcsec
        r_alpha = halos.alpha_rs_arcsec * halos.rs_arcsec / (1 - math.log(2)) * total_mass(tau)  # r α far away
        fractions.append(math.pi * r_alpha.sum() * unit / in_disc)
        numbers.append(len(halos))
    error = np.std(fractions) / math.sqrt(300)
    assert np.mean(fractions) == pytest.approx(0.02, abs=4 * error)
    assert error < 0.0004
    mean = expected_number(population, theta_e, 2.0, z_l, z_s, PLANCK18)
    assert np.mean(numbers) == pytest.approx(mean, abs=4 * math.sqrt(mean / 300))
    assert np.var(numbers) / mean == pytest.approx(1.0, abs=4 * math.sqrt(2 / 300))


def test_centres_are_uniform_over_the_disc() -> None:
    halos = draw_subhalos(cdm(f_sub=0.5), *LENS, PLANCK18, stream("t", "subhalos"))
    assert len(halos) > 1000
    r = np.hypot(halos.x_arcsec, halos.y_arcsec)
    assert stats.kstest((r / 2.4) ** 2, "uniform").pvalue > 0.01
    assert stats.kstest(np.arctan2(halos.y_arcsec, halos.x_arcsec) / (2 * math.pi) + 0.5, "uniform").pvalue > 0.01


def test_default_population_is_of_a_size_that_can_be_rendered() -> None:
    """About a hundred halos for a typical lens, deflecting 1e-4 to a few 1e-2 arcsec."""
    assert 40 < expected_number(cdm(), LENS[0], 2.0, *LENS[1:], PLANCK18) < 200
    halos = draw_subhalos(cdm(), *LENS, PLANCK18, stream("t", "subhalos"))
    assert 5e-5 < np.median(halos.max_deflections_arcsec()) < 2e-3


def test_draws_depend_on_the_key_alone() -> None:
    first, again, other = (draw_subhalos(cdm(), *LENS, PLANCK18, stream(name, "subhalos")) for name in ("a", "a", "b"))
    for field in dataclasses.fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
    assert len(first) != len(other) or (first.x_arcsec != other.x_arcsec).any()


def test_no_mass_no_subhalos() -> None:
    assert len(draw_subhalos(cdm(f_sub=0.0), *LENS, PLANCK18, stream("t", "subhalos"))) == 0
    assert len(draw_subhalos(cdm(), 0.0, 0.5, 2.0, PLANCK18, stream("t", "subhalos"))) == 0


def test_nfw_radius_holds_200_times_the_critical_density() -> None:
    radius = float(nfw_radius_mpc(np.array(1e10), np.array(1.0), 0.5, PLANCK18))
    density = 1e10 / (4 / 3 * math.pi * radius**3)
    assert density == pytest.approx(200 * float(PLANCK18.critical_density_msun_mpc3(0.5)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("f_sub", 1.0),
        ("f_sub", math.nan),
        ("mass_low_msun", 0.0),
        ("mass_slope", math.inf),
        ("concentration_scatter_dex", -0.1),
        ("radius_theta_e", -1.0),
    ],
)
def test_wrong_settings_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} must .* got {value!r}$"):
        cdm(**{name: value})


def test_the_mass_range_must_be_ordered() -> None:
    with pytest.raises(ValueError, match="mass_low_msun must be below mass_high_msun"):
        cdm(mass_low_msun=1e11)
    with pytest.raises(ValueError, match=r"^theta_e_arcsec must not be negative, got -1.0$"):
        draw_subhalos(cdm(), -1.0, 0.5, 2.0, PLANCK18, stream("t", "subhalos"))
