"""The tables: one Arrow schema each, with units, meanings and enumerations in the column metadata.

These are the only definitions. Parquet files written with them carry the metadata, so a reader that knows nothing
of this package can see what a column holds::

    pq.read_schema(path).field("theta_e_arcsec").metadata   # {b"unit": b"arcsec", b"description": ...}
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa

from dhs_gen.paired_controls.kinds import NegativeKind, SampleKind
from dhs_gen.status import RedshiftSource, RejectReason, Status

BANDS = ("g", "r", "z")
"""Bands whose columns the tables have; a task uses the subset named in ``bandset``."""

SPLITS = ("train", "val", "test")

SOURCE_MODES = ("cosmos", "deep", "hybrid")


def _field(
    name: str,
    dtype: pa.DataType,
    description: str,
    unit: str = "",
    *,
    nullable: bool = True,
    values: type[StrEnum] | Sequence[str] | None = None,
) -> pa.Field:
    metadata = {"description": description}
    if unit:
        metadata["unit"] = unit
    if values is not None:
        metadata["values"] = "|".join(str(v) for v in values)
    return pa.field(name, dtype, nullable, metadata)


def _per_band(name: str, dtype: pa.DataType, description: str, unit: str = "") -> list[pa.Field]:
    """One nullable column per band; ``{b}`` in the name is the band."""
    return [_field(name.format(b=b), dtype, f"{description}, {b} band", unit) for b in BANDS]


def _schema(fields: Iterable[pa.Field], table: str) -> pa.Schema:
    return pa.schema(list(fields), {"table": table, "bands": "".join(BANDS)})


_FLOATS = pa.list_(pa.field("element", pa.float32()))
_FLOAT64S = pa.list_(pa.field("element", pa.float64()))
_F64, _I64, _I32, _STR = pa.float64(), pa.int64(), pa.int32(), pa.string()

_HOST_KEY = [
    _field("host_id", _STR, "release-brickid-objid where the parent has them, else brickname-objid", nullable=False),
    _field("brickname", _STR, "DR10 brick, <AAAa>c<BBB>"),
]

_HOST_PROPERTIES = [
    _field("ra_deg", _F64, "right ascension, ICRS", "deg"),
    _field("dec_deg", _F64, "declination, ICRS", "deg"),
    _field("type", _STR, "Tractor morphological type"),
    *_per_band("mag_{b}", _F64, "host magnitude as observed, not dereddened", "AB mag"),
    _field("z_l", _F64, "lens (host) redshift"),
    _field("z_l_source", _STR, "where z_l comes from", values=RedshiftSource),
    _field("z_l_column", _STR, "parent column that gave z_l"),
    _field("sigma_v_km_s", _F64, "stellar velocity dispersion of the host where the parent has it", "km/s"),
    _field("ebv_mag", _F64, "E(B-V), SFD98", "mag"),
    *_per_band("mw_transmission_{b}", _F64, "Milky Way transmission, linear"),
    *_per_band("psfsize_{b}_arcsec", _F64, "parent catalogue psfsize (noise-equivalent, not a FWHM)", "arcsec"),
    *_per_band("psfdepth_{b}_mag", _F64, "parent catalogue 5-sigma point-source depth", "AB mag"),
]

_REGION = [
    _field("region_id", _I64, "HEALPix pixel (NESTED, NSIDE in the stage's JSON) of the host"),
    _field("region_fold", _I32, "fold of the region: regions of different folds share no source template"),
    _field("region_split", _STR, "split of the region", values=SPLITS),
]

HOSTS = _schema(
    [
        *_HOST_KEY,
        _field("parent_row", _I64, "row of the parent catalogue, from 0", nullable=False),
        *_HOST_PROPERTIES,
        *_REGION,
    ],
    "hosts",
)

REJECTS = _schema(
    [
        *_HOST_KEY,
        _field("parent_row", _I64, "row of the parent catalogue, from 0", nullable=False),
        _field("reason", _STR, "why the row is not a host", nullable=False, values=RejectReason),
        _field("message", _STR, "what was found"),
        *_HOST_PROPERTIES,
    ],
    "rejects",
)

_TASK = [
    _field("task_id", _STR, "128-bit hexadecimal name; contains neither the generation nor the split", nullable=False),
    _field("experiment_id", _STR, "experiment the task belongs to", nullable=False),
    *_HOST_KEY,
    *_HOST_PROPERTIES,
    *_REGION,
    _field("config_id", _STR, "configuration of the injection design, or CONTROL", nullable=False),
    _field("replicate", _I32, "replicate of the configuration on this host", nullable=False),
    _field("is_control", _I32, "1: no arc in any generation", nullable=False),
    _field("bandset", _STR, "bands of the stamp", nullable=False),
    _field("stamp_size_pix", _I32, "side of the stamp", "pix", nullable=False),
    _field("lens_model", _STR, "mass model; null in controls", values=("SIE", "EPL")),
    _field("theta_e_arcsec", _F64, "circularised Einstein radius: pi theta_E^2 inside the critical curve", "arcsec"),
    _field("lens_e", _F64, "mass ellipticity (1-q)/(1+q)"),
    _field("lens_phi_rad", _F64, "mass position angle, from +column towards +row", "rad"),
    _field("shear", _F64, "external shear about the lens centre"),
    _field("shear_phi_rad", _F64, "shear position angle, period pi", "rad"),
    _field("lens_gamma", _F64, "three-dimensional slope of the mass, rho ~ r^-gamma; 2 for SIE"),
    _field("lens_a3_frac", _F64, "multipole m = 3 over theta_E: kappa = a_m/(2r) cos m(phi - phi_m); null: none"),
    _field("lens_a3_phi_rad", _F64, "position angle of the multipole m = 3, period 2 pi/3", "rad"),
    _field("lens_a4_frac", _F64, "multipole m = 4 over theta_E; null: none"),
    _field("lens_a4_phi_rad", _F64, "position angle of the multipole m = 4, period pi/2", "rad"),
    _field("subhalo_x_arcsec", _FLOAT64S, "subhalos, offset from the lens centre along +column", "arcsec"),
    _field("subhalo_y_arcsec", _FLOAT64S, "subhalos, offset from the lens centre along +row", "arcsec"),
    _field("subhalo_rs_arcsec", _FLOAT64S, "subhalos, NFW scale radius", "arcsec"),
    _field("subhalo_alpha_rs_arcsec", _FLOAT64S, "subhalos, NFW deflection at the scale radius", "arcsec"),
    _field("subhalo_trunc_arcsec", _FLOAT64S, "subhalos, truncation radius", "arcsec"),
    _field("lens_sigma_v_km_s", _F64, "velocity dispersion that gave theta_E (population designs)", "km/s"),
    _field("z_s", _F64, "source redshift"),
    _field("src_x_arcsec", _F64, "source offset from the lens centre along +column (West)", "arcsec"),
    _field("src_y_arcsec", _F64, "source offset from the lens centre along +row (North)", "arcsec"),
    _field("src_dmag", _F64, "src_mag_r - mag_r", "AB mag"),
    _field("src_mag_r", _F64, "unlensed r magnitude of the source before Milky Way extinction", "AB mag"),
    _field("src_gr", _F64, "unlensed g-r of the source", "AB mag"),
    _field("src_rz", _F64, "unlensed r-z of the source", "AB mag"),
    _field("src_reff_arcsec", _F64, "circularised half-light radius of the source", "arcsec"),
    _field("src_n_sersic", _F64, "Sersic index (procedural sources)"),
    _field("src_e", _F64, "source ellipticity (1-q)/(1+q) (procedural sources)"),
    _field("src_phi_rad", _F64, "source position angle; rotates a template", "rad"),
    _field("src_flip", _I32, "1: the template is mirrored before it is rotated"),
    _field("template_u", _F64, "uniform number in [0, 1) that picks the template of a bank"),
    _field(
        "proposal_density",
        _F64,
        "density q(x) this task was drawn with: probability of its design point times the densities of all "
        "continuous draws, in the units of the columns; axes in the stage's JSON",
    ),
]

_MIXTURE = [
    _field("gen_variant", _STR, "mixture that set the two columns below; used by mixture generations alone"),
    _field("source_mode", _STR, "kind of source in a mixture generation", values=SOURCE_MODES),
    _field("artifact_profile", _STR, "artifact profile in a mixture generation"),
]

TASK = pa.schema(_TASK)
"""What is the same in every generation."""

MIXTURE = pa.schema(_MIXTURE)
"""What a mixture says of a task."""

MANIFEST = _schema([*_TASK, *_MIXTURE], "manifest")

CUTOUTS = _schema(
    [
        *_HOST_KEY,
        _field("status", _STR, "how the cutout ended", nullable=False, values=Status),
        _field("message", _STR, "what was found, where"),
        _field("cutout_size_pix", _I32, "side of the cutout", "pix", nullable=False),
        _field("corner_x_pix", _I32, "brick column (from 0) of the cutout's first column", "pix"),
        _field("corner_y_pix", _I32, "brick row (from 0) of the cutout's first row", "pix"),
        _field("catalog_x_pix", _F64, "catalogue position, cutout column from 0", "pix"),
        _field("catalog_y_pix", _F64, "catalogue position, cutout row from 0", "pix"),
        _field("centroid_x_pix", _F64, "measured light centroid, cutout column from 0", "pix"),
        _field("centroid_y_pix", _F64, "measured light centroid, cutout row from 0", "pix"),
        *_per_band("psfsize_{b}_map_arcsec", _F64, "psfsize map at the host (noise-equivalent)", "arcsec"),
        *_per_band("nexp_{b}", _F64, "median number of exposures in the central 9x9 pixels"),
        *_per_band("image_{b}", _FLOATS, "cutout, row by row", "nanomaggy/pix"),
        *_per_band("invvar_{b}", _FLOATS, "inverse variance, row by row", "1/nanomaggy^2"),
        _field("maskbits", pa.list_(pa.field("element", _I32)), "DR10 MASKBITS, row by row"),
    ],
    "cutouts",
)

_ARTIFACTS = [
    _field("artifact_jitter_x_pix", _F64, "shift of host and arc along +column; null under a profile of none", "pix"),
    _field("artifact_jitter_y_pix", _F64, "shift of host and arc along +row", "pix"),
    _field("artifact_bg_phi_rad", _F64, "direction in which the background rises, from +column towards +row", "rad"),
    _field("artifact_n_cosmic_rays", _I32, "cosmic rays on the stamp"),
    _field("artifact_cosmic_band", _STR, "band that a cosmic ray hit; it need not be one of the stamp's", values=BANDS),
    _field("artifact_cosmic_kind", _STR, "kind of track"),
    _field("artifact_cosmic_peak_nmgy", _F64, "brightness of the track's ridge", "nanomaggy/pix"),
    _field("artifact_cosmic_length_pix", _F64, "length of the track", "pix"),
    _field("artifact_cosmic_x_pix", _F64, "middle of the track, stamp column from 0", "pix"),
    _field("artifact_cosmic_y_pix", _F64, "middle of the track, stamp row from 0", "pix"),
    _field("artifact_sat_band", _STR, "band in which a star saturates; need not be one of the stamp's", values=BANDS),
    _field("artifact_sat_level_nmgy", _F64, "brightness of a saturated pixel", "nanomaggy/pix"),
    _field("artifact_sat_x_pix", _F64, "the star, stamp column from 0; may lie off the stamp", "pix"),
    _field("artifact_sat_y_pix", _F64, "the star, stamp row from 0; may lie off the stamp", "pix"),
    _field("artifact_sat_masked_pix", _I32, "pixels that the star took the weight of", "pix"),
    *_per_band("artifact_psf_e1_{b}", _F64, "ellipticity of the arc's PSF along the columns"),
    *_per_band("artifact_psf_e2_{b}", _F64, "ellipticity of the arc's PSF along the diagonal"),
    *_per_band("artifact_sigma_{b}_nmgy", _F64, "MAD sigma of the host, the unit of amplitudes", "nanomaggy/pix"),
    *_per_band("artifact_bg_amp_{b}_nmgy", _F64, "rise of the background from centre to edge", "nanomaggy/pix"),
]

_PAIR = [
    _field("pair_id", _STR, "manifest task of the row; its own task_id where it is not paired", nullable=False),
    _field(
        "sample_kind",
        _STR,
        "positive: an arc is asked for, whether it came out or not; negative: light that is no arc, to which arc "
        "columns such as lensed_flux and arc_snr then refer; control: neither",
        nullable=False,
        values=SampleKind,
    ),
    _field("negative_kind", _STR, "what the light of a negative is; null in others", values=NegativeKind),
]

_RESULT = [
    _field("gen_variant", _STR, "generation, or mixture, that rendered the row", nullable=False),
    _field("source_mode", _STR, "kind of source; none without one", values=(*SOURCE_MODES, "none")),
    _field("artifact_profile", _STR, "artifact profile (conf/artifacts)"),
    *_PAIR,
    _field("arc_injected", _I32, "1: an arc of non-zero flux was added", nullable=False),
    _field("cutout_ok", _I32, "1: the stamp is there (status OK)", nullable=False),
    _field("status", _STR, "how the row ended", nullable=False, values=Status),
    _field("message", _STR, "what was found, where"),
    _field("lens_x_pix", _F64, "lens centre, stamp column from 0", "pix"),
    _field("lens_y_pix", _F64, "lens centre, stamp row from 0", "pix"),
    _field("stamp_corner_x_pix", _I32, "brick column (from 0) of the stamp's first column", "pix"),
    _field("stamp_corner_y_pix", _I32, "brick row (from 0) of the stamp's first row", "pix"),
    _field("template_id", _STR, "template of the bank"),
    _field("source_psf_fwhm_arcsec", _F64, "FWHM of the blur left in the template, at its size here", "arcsec"),
    _field("magnification", _F64, "lensed over unlensed flux before the PSF, on the padded grid; mean of the bands"),
    _field("bad_pixel_frac", _F64, "fraction of stamp pixels with a bad MASKBIT or no invvar in any band"),
    *_per_band("psfsize_used_{b}_arcsec", _F64, "noise-equivalent psfsize of the kernel that was drawn", "arcsec"),
    *_per_band("psf_fwhm_used_{b}_arcsec", _F64, "FWHM of the Moffat before the pixel", "arcsec"),
    *_per_band("psf_cut_frac_{b}", _F64, "PSF flux outside the kernel before it was normalised"),
    *_per_band("theta_e_over_fwhm_{b}", _F64, "theta_E over the PSF FWHM"),
    *_per_band("unlensed_flux_{b}_nmgy", _F64, "source flux after extinction, without the lens", "nanomaggy"),
    *_per_band("lensed_flux_{b}_nmgy", _F64, "arc flux on the stamp after extinction", "nanomaggy"),
    *_per_band("off_stamp_frac_{b}", _F64, "fraction of the lensed flux that falls off the stamp"),
    *_per_band("arc_snr_{b}", _F64, "matched-filter S/N of the arc over good pixels"),
    *_per_band("arc_peak_snr_{b}", _F64, "largest S/N of the arc in one good pixel"),
    *_per_band("g_eff_{b}", _F64, "electrons per nanomaggy of the coadd at the host", "e-/nanomaggy"),
    *_ARTIFACTS,
]

STAMPS = _schema(
    [
        *_TASK,
        *_RESULT,
        _field(
            "stamp_npz",
            pa.binary(),
            "NPZ: image_<b> and optional invvar_<b>, arc_<b>, maskbits; (size, size) arrays, rows to the North",
            "nanomaggy/pix",
        ),
    ],
    "stamps",
)

COMPACTED = _schema(
    [
        _field("region_split_4a", _STR, "split that 4a gave the region; the folder names the new one", values=SPLITS)
        if field.name == "region_split"
        else field
        for field in STAMPS
    ],
    "stamps",
)
"""Stamps after 4p5, below folders ``region_split=<split>``."""

METRICS = _schema([*_TASK, *_RESULT], "metrics")


RESULT = pa.schema(_RESULT)
"""What 4c adds to a row, beside the stamp."""

HOST_COLUMNS = tuple(f.name for f in (*_HOST_KEY, *_HOST_PROPERTIES, *_REGION))
"""Columns of a task that belong to its host."""

ARC_COLUMNS = tuple(TASK.names[TASK.names.index("lens_model") :])
"""Columns of a task that belong to its lens and source: null in controls of the manifest."""

NEGATIVE_COLUMNS = ("negative_kind", "neg_stamp_npz", "neg_status")
"""Columns of the wide layout that only pairs with a negative have."""


def wide_schema(narrow: pa.Schema, *, with_negatives: bool) -> pa.Schema:
    """STAMPS or COMPACTED → one row per pair: the positive's columns, and the stamps of the others beside them."""
    npz = "NPZ of the pair's {}, as stamp_npz; null if it failed or is not there"
    beside = [
        _field("ctrl_stamp_npz", pa.binary(), npz.format("control"), "nanomaggy/pix"),
        _field("ctrl_status", _STR, "how the control ended; null: the pairing has none", values=Status),
        _field("neg_stamp_npz", pa.binary(), npz.format("negative"), "nanomaggy/pix"),
        _field("neg_status", _STR, "how the negative ended", values=Status),
    ]
    fields = [f for f in (*narrow, *beside) if with_negatives or f.name not in NEGATIVE_COLUMNS]
    return _schema(fields, "wide")


WIDE = wide_schema(STAMPS, with_negatives=True)
"""Pairs side by side (``dhs wide``); in compacted sets as COMPACTED, below folders ``region_split=<split>``."""


def table_from_rows(rows: Sequence[dict[str, object]], schema: pa.Schema) -> pa.Table:
    """Rows by name → a table of exactly ``schema``.

    Raises
    ------
    ValueError
        If a row has a key that the schema does not, or lacks one that may not be null.
    """
    known = set(schema.names)
    for row in rows:
        if unknown := row.keys() - known:
            raise ValueError(f"row has columns that the {_table_name(schema)} table does not: {sorted(unknown)}")
    columns = [
        _joined([row.get(f.name) for row in rows]) if f.type == pa.binary() else [row.get(f.name) for row in rows]
        for f in schema
    ]
    arrays = [
        c if isinstance(c, pa.ChunkedArray) else pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)
    ]
    table = pa.table(arrays, schema=schema)
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise ValueError(f"{_table_name(schema)} column {field.name!r} may not be null")
    return table


_STAMPS_JOINED = 16
"""Stamps that are joined to one array: 3 MB of them stay below the blocks that the heap gives back at once
(session.ALLOCATOR), whose pages come anew each time. A multiple of the values after which the writer of Parquet looks
whether a page is full, so that pages do not depend on it."""


def _joined(cells: Sequence[Any]) -> pa.ChunkedArray:
    """Bytes or None → a binary column, by one copy; Arrow's builder grows and moves its memory time and again."""
    pieces = [cells[i : i + _STAMPS_JOINED] for i in range(0, len(cells), _STAMPS_JOINED)]
    return pa.chunked_array([_joined_piece(piece) for piece in pieces], pa.binary())


def _joined_piece(cells: Sequence[Any]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum([len(cell or b"") for cell in cells])])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"a binary column holds at most 2 GiB, got {offsets[-1]} bytes in {len(cells)} rows")
    valid = pa.array([cell is not None for cell in cells], pa.bool_())
    data = pa.py_buffer(b"".join(cell for cell in cells if cell is not None))
    buffers = [valid.buffers()[1], pa.py_buffer(offsets.astype(np.int32)), data]
    return pa.Array.from_buffers(pa.binary(), len(cells), buffers)


def _table_name(schema: pa.Schema) -> str:
    return (schema.metadata or {}).get(b"table", b"?").decode()
