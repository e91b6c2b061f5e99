"""The public helper functions of ``dhs_gen`` under the names that existing notebooks import.

Units, and what the functions do to an image, are in their own modules: :mod:`dhs_gen.units`, :mod:`dhs_gen.streams`,
:mod:`dhs_gen.resample`, :mod:`dhs_gen.convolve` and :mod:`dhs_gen.psf_kernels`.
"""

from __future__ import annotations

from dhs_gen.convolve import fft_convolve2d
from dhs_gen.psf_kernels import elliptical_moffat_kernel, gaussian_kernel, moffat_kernel
from dhs_gen.resample import bilinear_resample, pad_or_crop_center
from dhs_gen.streams import blake2b_u64, categorical_from_hash, rng_from_hash, stream
from dhs_gen.units import from_surface_brightness, to_surface_brightness

__all__ = [
    "bilinear_resample",
    "blake2b_u64",
    "categorical_from_hash",
    "elliptical_moffat_kernel",
    "fft_convolve2d",
    "from_surface_brightness",
    "gaussian_kernel",
    "moffat_kernel",
    "pad_or_crop_center",
    "rng_from_hash",
    "stream",
    "to_surface_brightness",
]
