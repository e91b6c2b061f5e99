"""The same arc by lenstronomy: the oracle of the tests and the peer of the benchmarks.

Needs lenstronomy (development extra). Everything is evaluated on one uniform fine grid, convolved there with the PSF
*before* the pixel response, and binned, which applies the pixel exactly once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhs_gen.lensing.models import ISOTHERMAL, MassModel
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.units import to_surface_brightness


def lens_model_list(lens: MassModel) -> list[str]:
    """Names of lenstronomy's profiles that make up the model, in the order of :func:`lenstronomy_kwargs`."""
    galaxy = "SIE" if lens.slope == ISOTHERMAL else "EPL"
    return [galaxy, "SHEAR", "MULTIPOLE", "MULTIPOLE", *["TNFW"] * (0 if lens.subhalos is None else len(lens.subhalos))]


def lens_kwargs(lens: MassModel, lens_xy_arcsec: tuple[float, float] = (0.0, 0.0)) -> list[dict[str, Any]]:
    """Keyword arguments of the profiles of :func:`lens_model_list`, with the lens centre at ``lens_xy_arcsec``."""
    x0, y0 = lens_xy_arcsec
    galaxy = {
        "theta_E": lens.theta_e_arcsec,
        "e1": lens.e * math.cos(2 * lens.phi_rad),
        "e2": lens.e * math.sin(2 * lens.phi_rad),
        "center_x": x0,
        "center_y": y0,
    }
    if lens.slope != ISOTHERMAL:
        galaxy["gamma"] = lens.slope
    g1, g2 = lens.shear * math.cos(2 * lens.shear_phi_rad), lens.shear * math.sin(2 * lens.shear_phi_rad)
    kwargs: list[dict[str, Any]] = [galaxy, {"gamma1": g1, "gamma2": g2, "ra_0": x0, "dec_0": y0}]
    for m, fraction, phi in ((3, lens.a3_frac, lens.a3_phi_rad), (4, lens.a4_frac, lens.a4_phi_rad)):
        kwargs.append({"m": m, "a_m": fraction * lens.theta_e_arcsec, "phi_m": phi, "center_x": x0, "center_y": y0})
    halos = lens.subhalos
    if halos is None:
        return kwargs
    for i in range(len(halos)):
        kwargs.append(
            {
                "Rs": float(halos.rs_arcsec[i]),
                "alpha_Rs": float(halos.alpha_rs_arcsec[i]),
                "r_trunc": float(halos.trunc_arcsec[i]),
                "center_x": x0 + float(halos.x_arcsec[i]),
                "center_y": y0 + float(halos.y_arcsec[i]),
            }
        )
    return kwargs


def lenstronomy_kwargs(
    lens: MassModel,
    template: SourceTemplate,
    channel: int,
    source_xy_arcsec: tuple[float, float],
    lens_xy_arcsec: tuple[float, float],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """:func:`lens_kwargs` and kwargs_source for ["INTERPOL"], in arcsec on the stamp."""
    x0, y0 = lens_xy_arcsec
    pixels = template.pixels[channel][:, ::-1] if template.flip else template.pixels[channel]
    kwargs_source = [
        {
            "image": to_surface_brightness(pixels, template.pixscale_arcsec),
            "amp": 1.0,
            "center_x": x0 + source_xy_arcsec[0],
            "center_y": y0 + source_xy_arcsec[1],
            "phi_G": template.phi_rad,
            "scale": template.pixscale_arcsec,
        }
    ]
    return lens_kwargs(lens, lens_xy_arcsec), kwargs_source


def render_with_lenstronomy(
    lens: MassModel,
    template: SourceTemplate,
    channel: int,
    source_xy_arcsec: tuple[float, float],
    lens_xy_pix: tuple[float, float],
    size_pix: int,
    pixscale_arcsec: float,
    fine_kernel: NDArray[np.float64],
    supersampling: int,
) -> NDArray[np.float64]:
    """Arc of unit unlensed flux on a (size, size) stamp, convolved at the supersampled scale.

    Parameters
    ----------
    lens, template, channel, source_xy_arcsec, lens_xy_pix
        As in :func:`dhs_gen.lensing.render.lens_source`.
    size_pix, pixscale_arcsec
        The stamp; make it larger and crop it if the arc comes near the edge, for lenstronomy does not pad.
    fine_kernel
        PSF without the pixel response, sampled at ``pixscale_arcsec / supersampling``.
    supersampling
        Rays per pixel and axis.
    """
    from lenstronomy.Data.pixel_grid import PixelGrid
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    corner = -(size_pix - 1) / 2 * pixscale_arcsec
    grid = PixelGrid(size_pix, size_pix, np.eye(2) * pixscale_arcsec, corner, corner)
    centre = (size_pix - 1) / 2
    lens_xy_arcsec = ((lens_xy_pix[0] - centre) * pixscale_arcsec, (lens_xy_pix[1] - centre) * pixscale_arcsec)
    kwargs_lens, kwargs_source = lenstronomy_kwargs(lens, template, channel, source_xy_arcsec, lens_xy_arcsec)
    psf = PSF("PIXEL", kernel_point_source=fine_kernel, point_source_supersampling_factor=supersampling)
    # lenstronomy caches an INTERPOL source in its LightModel: a new one for every source.
    model = ImageModel(
        grid,
        psf,
        LensModel(lens_model_list(lens)),
        LightModel(["INTERPOL"]),
        kwargs_numerics={
            "supersampling_factor": supersampling,
            "supersampling_convolution": supersampling > 1,
            "supersampling_kernel_size": None,
        },
    )
    return np.asarray(model.image(kwargs_lens, kwargs_source))
