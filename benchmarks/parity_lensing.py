"""Parity of the mass models with their oracles, as Markdown.

    python benchmarks/parity_lensing.py [--lenses N] [--arcs N]

Deflections of N random lenses per model at 500 points from 0.001 to 16 arcsec of the centre; arcs of N random tasks
against lenstronomy on a fine grid (tests/dhs_gen/rendering_cases.py). Needs the development extra.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "dhs_gen"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lenstronomy.Cosmo.lens_cosmo import LensCosmo
from lenstronomy.LensModel.lens_model import LensModel
from parity_rows import ParityRow
from rendering_cases import Case, arc_error, oracle, perturbed_case, random_case, random_subhalos, rendered
from scipy import stats

from dhs_gen.lensing.cosmology import Cosmology, sigma_crit_msun_mpc2, theta_e_sis_arcsec
from dhs_gen.lensing.models import MassModel, deflection
from dhs_gen.lensing.populations import VelocityDispersionFunction
from dhs_gen.lensing.reference import lens_kwargs, lens_model_list
from dhs_gen.lensing.subhalos import nfw_angles

LENSTRONOMY = "lenstronomy 1.13.6"
OLDER = f"{LENSTRONOMY}, whose G is older"
DEFLECTION, ARC = 1e-6, 0.005
"""Tolerances: arcsec; fraction of the arc's peak and of its flux."""

PLANCK18 = Cosmology(67.66, 0.30966)


def rows(lenses: int = 200, arcs: int = 10) -> list[ParityRow]:
    """All comparisons of the mass models."""
    return [*_deflections(lenses), *_arcs(arcs), *_populations()]


def random_sie(rng: np.random.Generator) -> MassModel:
    """Over the full ranges of the parameters."""
    return MassModel(*rng.uniform([0.0, 0.0, 0.0, 0.0, 0.0], [3.0, 0.6, math.pi, 0.2, math.pi]).tolist())


def random_epl(rng: np.random.Generator) -> MassModel:
    return dataclasses.replace(random_sie(rng), e=float(rng.uniform(0.0, 0.9)), slope=float(rng.uniform(1.5, 2.5)))


def random_multipoles(rng: np.random.Generator) -> MassModel:
    a3, phi3, a4, phi4 = rng.uniform([-0.2, 0.0, -0.2, 0.0], [0.2, 2.0, 0.2, 1.6]).tolist()
    return dataclasses.replace(random_sie(rng), a3_frac=a3, a3_phi_rad=phi3, a4_frac=a4, a4_phi_rad=phi4)


def random_halos(rng: np.random.Generator) -> MassModel:
    return MassModel(0.0, 0.0, 0.0, 0.0, 0.0, subhalos=random_subhalos(rng, 20, 1.2))


def random_composite(rng: np.random.Generator) -> MassModel:
    angular, halos = random_multipoles(rng), random_halos(rng).subhalos
    return dataclasses.replace(angular, slope=float(rng.uniform(1.5, 2.5)), subhalos=halos)


def _deflections(lenses: int) -> list[ParityRow]:
    models: dict[str, Callable[[np.random.Generator], MassModel]] = {
        "SIE + shear": random_sie,
        "EPL + shear, slope 1.5-2.5": random_epl,
        "SIE + shear + multipoles 3, 4": random_multipoles,
        "20 truncated NFW subhalos": random_halos,
        "EPL + shear + multipoles + 20 subhalos": random_composite,
    }
    figure = f"largest difference of the deflection, {lenses} lenses, arcsec"
    return [
        ParityRow(name, LENSTRONOMY, figure, max(_difference(make, i) for i in range(lenses)), DEFLECTION)
        for name, make in models.items()
    ]


def _difference(make: Callable[[np.random.Generator], MassModel], index: int) -> float:
    rng = np.random.default_rng([30, index])
    lens = make(rng)
    r, phi = 10 ** rng.uniform(-3.0, 1.2, 500), rng.uniform(0.0, 2 * math.pi, 500)
    x, y = r * np.cos(phi), r * np.sin(phi)
    if (halos := lens.subhalos) is not None:  # lenstronomy's TNFW has a core of R_s/1000
        clear = (np.hypot(x[:, None] - halos.x_arcsec, y[:, None] - halos.y_arcsec) > halos.rs_arcsec / 900).all(axis=1)
        x, y = x[clear], y[clear]
    expected = LensModel(lens_model_list(lens)).alpha(x, y, lens_kwargs(lens))
    return float(np.abs(np.array(deflection(lens, x, y)) - np.array(expected)).max())


def _arcs(count: int) -> list[ParityRow]:
    made: list[ParityRow] = []
    kinds: dict[str, Callable[[int, str], Case]] = {
        "arcs, SIE + shear": random_case,
        "arcs, EPL + shear + multipoles + 12 subhalos": lambda index, kind: perturbed_case(index, kind, 12),
    }
    for name, make in kinds.items():
        cases = [make(index, kind) for kind in ("hybrid", "noisy") for index in range(count)]
        errors = [arc_error(case.name, rendered(case), oracle(case)) for case in cases]
        for field, figure in (("of_peak", "largest pixel difference over the peak"), ("of_flux", "flux, relative")):
            worst = max(getattr(error, field) for error in errors)
            made.append(ParityRow(name, f"{LENSTRONOMY}, fine grid", f"{figure}, {len(cases)} tasks", worst, ARC))
    return made


def _populations() -> list[ParityRow]:
    rng = np.random.default_rng(40)
    z_l, sigma = rng.uniform(0.05, 1.0, 100), rng.uniform(100.0, 400.0, 100)
    z_s = z_l + rng.uniform(0.1, 3.0, 100)
    oracles = [LensCosmo(a, b, PLANCK18.astropy()) for a, b in zip(z_l, z_s, strict=True)]
    theta = np.array([o.sis_sigma_v2theta_E(s) for o, s in zip(oracles, sigma, strict=True)])
    critical = np.array([o.sigma_crit for o in oracles])
    angles = nfw_angles(np.array(1e9), np.array(12.0), float(z_l[0]), float(z_s[0]), PLANCK18)
    nfw = oracles[0].nfw_physical2angle(1e9, 12.0)
    vdf = VelocityDispersionFunction(2.32, 2.67, 161.0, 100.0, 400.0)
    u, frozen = np.linspace(0.0, 1.0, 101), stats.gengamma(a=2.32 / 2.67, c=2.67, scale=161.0)
    expected = frozen.ppf(frozen.cdf(100.0) + u * (frozen.cdf(400.0) - frozen.cdf(100.0)))
    compared = (
        ("θ_E of a dispersion", LENSTRONOMY, theta_e_sis_arcsec(sigma, z_l, z_s, PLANCK18), theta, 1e-5),
        ("critical density", OLDER, sigma_crit_msun_mpc2(z_l, z_s, PLANCK18), critical, 5e-4),
        ("R_s, alpha_Rs of an NFW halo", OLDER, np.array(angles), np.array(nfw), 5e-4),
        ("dispersions drawn", "scipy gengamma", vdf.draw(u), expected, 1e-6),
    )
    return [
        ParityRow(subject, peer, "largest relative difference", float(np.abs(found / right - 1.0).max()), tolerance)
        for subject, peer, found, right, tolerance in compared
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lenses", type=int, default=200, help="lenses per model (default 200)")
    parser.add_argument("--arcs", type=int, default=10, help="tasks per kind of template and model (default 10)")
    arguments = parser.parse_args()
    print("| subject | oracle | figure | measured | tolerance |\n|---|---|---|---|---|")
    for row in rows(arguments.lenses, arguments.arcs):
        print(f"| {row.subject} | {row.oracle} | {row.figure} | {row.measured:.1e} | {row.tolerance:g} |")


if __name__ == "__main__":
    main()
