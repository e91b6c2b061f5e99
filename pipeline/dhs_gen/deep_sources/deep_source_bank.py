"""Build a deep source bank from a folder of FITS cutouts: python -m dhs_gen.deep_sources.deep_source_bank --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dhs_gen.deep_sources.builder import build_deep_source_bank
from dhs_gen.deep_sources.importer import import_deep_bank
from dhs_gen.deep_sources.npz import load_bank
from dhs_gen.deep_sources.settings import DeepSettings

__all__ = ["build_deep_source_bank", "import_deep_bank", "load_bank"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the bank and print what was refused; the exit code is 0, or 2 if there is no bank."""
    given = _parser().parse_args(arguments)
    hdu = given.hdu if given.hdu is None or not given.hdu.isdigit() else int(given.hdu)
    try:
        settings, from_file = _settings(given.settings)
        summary = build_deep_source_bank(
            given.fits_dir,
            given.out_npz,
            given.n_sources,
            given.stamp_size,
            given.src_pixscale_arcsec,
            given.target_pixscale_arcsec,
            given.seed,
            given.max_files,
            given.min_abs_sum,
            target_psf_fwhm_arcsec=from_file if given.target_psf_fwhm_arcsec is None else given.target_psf_fwhm_arcsec,
            psf_fwhm_arcsec=given.psf_fwhm_arcsec,
            zero_point_mag=given.zero_point_mag,
            image_hdu=hdu,
            plane=given.plane,
            min_sources=given.min_sources,
            settings=settings,
        )
    except (ValueError, OSError) as error:
        print(f"deep_source_bank: {error}", file=sys.stderr)
        return 2
    print(f"{summary.path}: {summary.n_accepted} sources of {summary.n_candidates} files")
    for reason, count in summary.rejected_by_reason.items():
        print(f"  refused {reason}: {count}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deep_source_bank", description=__doc__)
    parser.add_argument("--fits-dir", required=True, help="folder of cutouts (.fits, .fits.fz, …), searched below too")
    parser.add_argument("--out-npz", required=True)
    parser.add_argument("--n-sources", type=int, default=20_000, help="at most this many")
    parser.add_argument("--stamp-size", type=int, default=96, help="pixels of images")
    parser.add_argument("--src-pixscale-arcsec", type=float, default=0.168, help="of the cutouts; their WCS must agree")
    parser.add_argument("--target-pixscale-arcsec", type=float, default=0.262, help="of images")
    parser.add_argument("--seed", default="1337", help="key of the order in which files are taken")
    parser.add_argument("--max-files", type=int, help="look at no more than this many")
    parser.add_argument("--min-abs-sum", type=float, default=0.0, help="smallest flux, in the units of the files")
    parser.add_argument("--target-psf-fwhm-arcsec", type=float, help="deconvolve to this FWHM")
    parser.add_argument("--psf-fwhm-arcsec", type=float, help="seeing of files that do not state it")
    parser.add_argument("--zero-point-mag", type=float, help="AB zero point of files that do not state it")
    parser.add_argument("--hdu", help="number or EXTNAME of the image HDU")
    parser.add_argument("--plane", type=int, help="plane of a cube, from 0")
    parser.add_argument("--min-sources", type=int, help="fewer are an error (default: max(100, 10 %% of --n-sources))")
    parser.add_argument("--settings", type=Path, help="YAML with the sections of conf/banks/deep.yaml")
    return parser


def _settings(file: Path | None) -> tuple[DeepSettings | None, float | None]:
    """Settings and target PSF of a configuration file; without one, the defaults and no deconvolution."""
    if file is None:
        return None, None
    import yaml

    section = dict(yaml.safe_load(file.read_text(encoding="utf-8"))["build"])
    target = section.pop("target_psf_fwhm_arcsec", None)
    return DeepSettings.from_mapping(section), target


if __name__ == "__main__":
    sys.exit(main())
