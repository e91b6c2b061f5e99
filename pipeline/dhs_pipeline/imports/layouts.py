"""The earlier layouts, column by column: names in their order, types, and which must be there.

``REQUIRED`` of a layout is what its import cannot do without. The earlier stamps contract called 27 of its 57 columns
required; the 23 listed here (not null there, or the stamp itself) are those a row here has no meaning without.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Layout:
    """One earlier table.

    Parameters
    ----------
    name
        As the user knows it.
    types
        Column → Arrow type, in the layout's order.
    required
        Columns without which the import stops.
    """

    name: str
    types: dict[str, pa.DataType]
    required: frozenset[str]

    def missing(self, present: set[str]) -> list[str]:
        """Required columns that are not there, in the layout's order."""
        return [name for name in self.types if name in self.required and name not in present]


_S, _I, _L, _D, _B = pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.binary()


def _names(text: str) -> list[str]:
    return text.split()


def _types(text: str, dtype: pa.DataType) -> dict[str, pa.DataType]:
    return dict.fromkeys(_names(text), dtype)


_TEXT = _names(
    "task_id experiment_id selection_set_id selection_strategy ranking_mode region_split brickname config_id bandset "
    "lens_model pipeline_version"
)
_INT32 = _names("region_id psf_bin depth_bin stamp_size replicate is_control")

_MANIFEST_COLUMNS = _names("""
task_id experiment_id selection_set_id selection_strategy ranking_mode region_id region_split brickname ra dec
zmag rmag w1mag rz zw1 psfsize_g psfsize_r psfsize_z psfdepth_r ebv psf_bin depth_bin
config_id theta_e_arcsec src_dmag src_reff_arcsec src_e shear stamp_size bandset replicate is_control
task_seed64 src_x_arcsec src_y_arcsec src_phi_rad shear_phi_rad src_gr src_rz
lens_model lens_e lens_phi_rad ab_zp_nmgy pipeline_version
""")


def _manifest_type(name: str) -> pa.DataType:
    if name in _TEXT:
        return _S
    if name in _INT32:
        return _I
    return _L if name == "task_seed64" else _D


MANIFEST_44 = Layout(
    "44-column manifest",
    {name: _manifest_type(name) for name in _MANIFEST_COLUMNS},
    frozenset(
        _names(
            "task_id experiment_id region_id region_split brickname ra dec rmag ebv config_id theta_e_arcsec src_dmag "
            "src_reff_arcsec src_e shear stamp_size bandset replicate is_control src_x_arcsec src_y_arcsec "
            "src_phi_rad shear_phi_rad src_gr src_rz lens_model lens_e lens_phi_rad"
        )
    ),
)

_STAMPS_57 = {
    **_types("task_id experiment_id selection_set_id ranking_mode selection_strategy", _S),
    **_types("region_id", _I),
    **_types("region_split brickname", _S),
    **_types("ra dec", _D),
    **_types("stamp_size", _I),
    **_types("bandset config_id", _S),
    **_types("theta_e_arcsec src_dmag src_reff_arcsec src_e shear", _D),
    **_types("replicate is_control", _I),
    **_types("task_seed64", _L),
    **_types("src_x_arcsec src_y_arcsec src_phi_rad shear_phi_rad src_gr src_rz", _D),
    **_types("psf_bin depth_bin", _I),
    **_types("ab_zp_nmgy", _D),
    **_types("pipeline_version", _S),
    **_types("psfsize_r psfdepth_r ebv", _D),
    **_types("stamp_npz", _B),
    **_types("cutout_ok", _I),
    **_types("arc_snr arc_snr_sum bad_pixel_frac wise_brightmask_frac", _D),
    **_types("metrics_ok", _I),
    **_types("psf_fwhm_used_g psf_fwhm_used_r psf_fwhm_used_z", _D),
    **_types("metrics_only", _I),
    **_types("lens_model", _S),
    **_types("lens_e lens_phi_rad magnification tangential_stretch radial_stretch expected_arc_radius", _D),
    **_types("physics_valid", _I),
    **_types("physics_warnings source_mode", _S),
    **_types("cosmos_index", _I),
    **_types("lensed_hlr_arcsec", _D),
}
_NOT_IN_METRICS = ("stamp_npz", "source_mode", "cosmos_index", "lensed_hlr_arcsec", "arc_snr_sum")
_METRICS_53 = {n: t for n, t in _STAMPS_57.items() if n not in _NOT_IN_METRICS} | _types("total_injected_flux_r", _D)
_MAIN_LINE_57 = _METRICS_53 | _types("stamp_npz", _B) | _types("psf_source_g psf_source_r psf_source_z", _S)

_METRICS_REQUIRED = frozenset(
    _names(
        "task_id experiment_id selection_set_id ranking_mode selection_strategy region_id region_split brickname ra "
        "dec stamp_size bandset config_id theta_e_arcsec src_dmag src_reff_arcsec src_e shear replicate is_control "
        "cutout_ok metrics_only"
    )
)
_STAMPS_REQUIRED = _METRICS_REQUIRED | {"stamp_npz"}

STAMPS_57 = Layout("57-column stamps", _STAMPS_57, _STAMPS_REQUIRED)
METRICS_53 = Layout("53-column metrics", _METRICS_53, _METRICS_REQUIRED)
MAIN_LINE_57 = Layout("57-column main-line stamps", _MAIN_LINE_57, _STAMPS_REQUIRED)

STAMPS = Layout("stamps", _STAMPS_57 | _MAIN_LINE_57, _STAMPS_REQUIRED)
"""Either stamps layout: the union of their columns."""

METRICS = Layout("metrics", {n: t for n, t in STAMPS.types.items() if n != "stamp_npz"}, _METRICS_REQUIRED)
"""Either layout without the stamp."""

PAIRED = Layout(
    "paired stamps", STAMPS.types | _types("ctrl_stamp_npz", _B), STAMPS.required | frozenset({"ctrl_stamp_npz"})
)
"""Stamps with the stamp of the paired control beside each."""
