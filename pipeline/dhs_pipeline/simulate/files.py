"""Write the maps of a brick as the survey does: one tile-compressed FITS file per map, data in HDU 1.

Compression follows legacypipe's ``get_compression_string``: image RICE with a step of 1e-4 nanomaggy, invvar
RICE with sigma/16, nexp and maskbits HCOMPRESS (lossless), psfsize GZIP (lossless), tiles of 100 x 100 px.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from dhs_gen.streams import blake2b_u64
from dhs_pipeline.config.base import Band
from dhs_pipeline.simulate.render import BandMaps
from dhs_pipeline.simulate.settings import BrickSettings, SimulationSettings

_TILE_PX = 100
_SUBTRACTIVE_DITHER_2 = 2
_DITHER_SEEDS = 10_000  # the FITS convention allows 1..10000
_COMPRESSION: dict[str, dict[str, Any]] = {
    "image": {
        "compression_type": "RICE_1",
        "quantize_level": -1e-4,
        "quantize_method": _SUBTRACTIVE_DITHER_2,
    },
    "invvar": {"compression_type": "RICE_1", "quantize_level": 16, "quantize_method": _SUBTRACTIVE_DITHER_2},
    "psfsize": {"compression_type": "GZIP_1", "quantize_level": 0},
    "nexp": {"compression_type": "HCOMPRESS_1"},
    "maskbits": {"compression_type": "HCOMPRESS_1"},
}
_BUNIT = {"image": "nanomaggy", "invvar": "1/nanomaggy^2", "psfsize": "arcsec"}
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_MTIME = slice(4, 8)


def brick_wcs(brick: BrickSettings, settings: SimulationSettings) -> WCS:
    """TAN, north up, east left, centred on the brick; no distortion."""
    header = fits.Header(_wcs_cards(brick, settings))
    return WCS(header)


def write_brick(
    data_dir: Path,
    brick: BrickSettings,
    maps: dict[Band, BandMaps],
    maskbits: NDArray[np.int32],
    settings: SimulationSettings,
) -> None:
    """Write coadd/<brick[:3]>/<brick>/legacysurvey-<brick>-*.fits.fz below ``data_dir``."""
    folder = data_dir / "coadd" / brick.name[:3] / brick.name
    folder.mkdir(parents=True, exist_ok=True)
    for band, band_maps in maps.items():
        for product in ("image", "invvar", "psfsize", "nexp"):
            path = folder / f"legacysurvey-{brick.name}-{product}-{band}.fits.fz"
            path.write_bytes(_fits_bytes(getattr(band_maps, product), product, band, brick, settings))
    path = folder / f"legacysurvey-{brick.name}-maskbits.fits.fz"
    path.write_bytes(_fits_bytes(maskbits, "maskbits", "", brick, settings))


def _fits_bytes(
    data: NDArray[Any], product: str, band: str, brick: BrickSettings, settings: SimulationSettings
) -> bytes:
    """The file in memory; the same data give the same bytes."""
    hdu = fits.CompImageHDU(
        data,
        header=_header(product, band, brick, settings),
        name="MASKBITS" if product == "maskbits" else None,
        tile_shape=(_TILE_PX, _TILE_PX),
        dither_seed=1 + blake2b_u64(settings.seed, brick.name, product, band) % _DITHER_SEEDS,
        **_COMPRESSION[product],
    )
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return _without_gzip_times(buffer.getvalue())


def _without_gzip_times(content: bytes) -> bytes:
    """Zero the time stamp that Python's gzip writes into each gzip-compressed tile of HDU 1."""
    out = bytearray(content)
    with fits.open(io.BytesIO(content), disable_image_compression=True) as hdus:
        table, header = hdus[1], hdus[1].header
        rows = np.asarray(table.data)
        heap = table.fileinfo()["datLoc"] + header.get("THEAP", header["NAXIS1"] * header["NAXIS2"])
        columns = [c for c in table.columns.names if c in ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA")]
        offsets = [int(rows[c][i][1]) for c in columns for i in range(len(rows)) if rows[c][i][0] > 0]
    for offset in offsets:
        start = heap + offset
        if out[start : start + 2] == _GZIP_MAGIC:
            out[start + _GZIP_MTIME.start : start + _GZIP_MTIME.stop] = bytes(4)
    return bytes(out)


def _header(product: str, band: str, brick: BrickSettings, settings: SimulationSettings) -> fits.Header:
    cards: list[tuple[str, Any, str]] = [
        ("ORIGIN", "simulated", "not survey data: the embedded demo input"),
        ("SURVEY", "DECaLS", ""),
        ("BRICKNAM", brick.name, "brick RRRr[pm]DDd"),
        ("BRICKID", brick.brickid, "brick id"),
        ("BRICKRA", brick.ra_deg, "[deg] brick centre"),
        ("BRICKDEC", brick.dec_deg, "[deg] brick centre"),
        *_wcs_cards(brick, settings),
        ("IMTYPE", product, "image type"),
    ]
    if band:
        cards += [("FILTER", band, ""), ("BAND", band, "")]
    if product == "image":
        cards.append(("MAGZERO", 22.5, "magnitude zeropoint"))
    if product in _BUNIT:
        cards.append(("BUNIT", _BUNIT[product], "AB mag = 22.5 - 2.5*log10(nanomaggy)" if band else ""))
    return fits.Header([fits.Card(*card) for card in cards])


def _wcs_cards(brick: BrickSettings, settings: SimulationSettings) -> list[tuple[str, Any, str]]:
    scale, centre = settings.pixscale_arcsec / 3600.0, (settings.brick_size_px + 1) / 2.0
    return [
        ("CTYPE1", "RA---TAN", "tangent plane"),
        ("CTYPE2", "DEC--TAN", "tangent plane"),
        ("CRVAL1", brick.ra_deg, "[deg] reference RA"),
        ("CRVAL2", brick.dec_deg, "[deg] reference Dec"),
        ("CRPIX1", centre, "reference x, first pixel is 1"),
        ("CRPIX2", centre, "reference y, first pixel is 1"),
        ("CD1_1", -scale, "CD matrix"),
        ("CD1_2", 0.0, "CD matrix"),
        ("CD2_1", 0.0, "CD matrix"),
        ("CD2_2", scale, "CD matrix"),
        ("EQUINOX", 2000.0, ""),
    ]
