"""Source banks that tests draw: a few exponential discs, written as every builder writes a bank."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dhs_gen.source_banks import Column, write_bank
from dhs_pipeline.storage import Location

COLUMNS = (Column("template_id", "string", "", "name"), Column("hlr_arcsec", "float64", "arcsec", "radius"))


def drawn_bank(folder: Path, kind: str, pixscale_arcsec: float, templates: int) -> Location:
    """Exponential discs of different sizes."""
    y, x = np.indices((41, 41)) - 20.0
    radii_pix = np.linspace(3.0, 6.0, templates)
    images = [np.exp(-1.678 * np.hypot(x, y) / r) for r in radii_pix]
    rows = [
        {"template_id": f"{kind}{i}", "hlr_arcsec": float(r) * pixscale_arcsec * 0.95} for i, r in enumerate(radii_pix)
    ]
    info = {"kind": kind, "pixscale_arcsec": pixscale_arcsec, "effective_psf_fwhm_arcsec": 0.12}
    write_bank(folder, images, rows, [], columns=COLUMNS, info=info)
    return Location.of(folder)


def upload(folder: Location, to: Location) -> Location:
    """A bank's folder copied to S3, as a user would."""
    for file in sorted(Path(folder.uri).iterdir()):
        (to / file.name).write_bytes(file.read_bytes())
    return to
