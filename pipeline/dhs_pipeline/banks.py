"""The BANK and DEEP_BANK arguments: a built bank is used where it is, anything else is built into the run first.

A built bank may lie on S3 (:mod:`dhs_pipeline.bank_cache` copies it to the machines that need it); what has to be built
is read from a local disk and built on one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dhs_gen.cosmos_sources import BankSettings, ImportLimits, build_cosmos_bank, find_catalogue_file, import_hdf5_bank
from dhs_gen.deep_sources import DeepSettings, build_deep_source_bank, import_deep_bank
from dhs_pipeline.bank_cache import require_built
from dhs_pipeline.config import load_yaml
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.sources import Banks
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location

Progress = Callable[[int, int], None]

_ORIGIN = "origin.json"
_BUILT = "bank.json"
_KINDS = {"cosmos": ("hst_cosmos_f814w", "hdf5_import"), "deep": ("deep_ground",)}
"""What bank.json says of the banks that may be given under each option."""


def prepare_banks(cosmos: Location | None, deep: Location | None, run: RunDir) -> Banks:
    """Built banks made from what was given; those that have to be built lie in the run directory."""
    return Banks(
        cosmos=None if cosmos is None else prepare_cosmos_bank(cosmos, run.where / "bank"),
        deep=None if deep is None else prepare_deep_bank(deep, run.where / "deep_bank"),
    )


def prepare_cosmos_bank(given: Location, into: Location, *, progress: Progress | None = None) -> Location:
    """A built bank made from ``given``: itself, a GalSim real-galaxy folder, or the earlier HDF5 layout.

    Raises
    ------
    StageError
        If ``given`` is none of these.
    """
    return _prepare(given, into, "cosmos", lambda settings: _build_cosmos(given, into, settings, progress))


def prepare_deep_bank(given: Location, into: Location, *, psf_fwhm_arcsec: float | None = None) -> Location:
    """A built bank made from ``given``: itself, a folder of FITS cutouts, or a NPZ bank (the earlier layout too).

    ``psf_fwhm_arcsec`` is the seeing of a NPZ bank that does not state it; None takes that of conf/banks/deep.yaml.

    Raises
    ------
    StageError
        If ``given`` is none of these.
    """
    stated = None if psf_fwhm_arcsec is None else {"psf_fwhm_arcsec": psf_fwhm_arcsec}
    return _prepare(given, into, "deep", lambda settings: _build_deep(given, into, settings, stated))


def _prepare(given: Location, into: Location, mode: str, build: Callable[[dict[str, Any]], None]) -> Location:
    if (given / _BUILT).exists():
        found = str(describe(given).get("kind"))
        if found not in _KINDS[mode]:
            raise StageError(f"{given}: is a bank of kind {found!r}, wanted is {' or '.join(_KINDS[mode])}")
        return given
    if given.is_s3:
        require_built(given)
    settings = load_yaml("banks", mode)
    origin = {"source": given.uri, "settings": settings}
    if (into / _BUILT).exists():
        _check_origin(into, origin)
        return into
    if into.is_s3:
        raise StageError(
            f"{given}: has to be built into {into} first, and a bank is built on a local disk: "
            "build it with `dhs bank SOURCE FOLDER` and give that folder, or a copy of it on s3://"
        )
    build(settings)
    (into / _ORIGIN).write_json(origin)
    return into


def _check_origin(bank: Location, wanted: dict[str, Any]) -> None:
    """A bank of another run's source or settings must not be taken for this one's."""
    found = (bank / _ORIGIN).read_json() if (bank / _ORIGIN).exists() else {}
    if found != wanted:
        raise StageError(
            f"{bank}: exists and was made from {found.get('source', 'something else')} or with other settings; "
            "choose another OUT"
        )


def _build_cosmos(given: Location, into: Location, settings: dict[str, Any], progress: Progress | None) -> None:
    if given.name.endswith((".h5", ".hdf5")) and given.exists():
        import_hdf5_bank(
            given.uri,
            into.uri,
            limits=ImportLimits.from_mapping(settings["hdf5_import"]),
            effective_psf_fwhm_arcsec=settings["build"]["target_psf_fwhm_arcsec"],
            expected_pixscale_arcsec=settings["build"].get("pixscale_arcsec"),
        )
        return
    if not given.is_dir():
        raise StageError(f"{given}: no such source bank (a built bank, a GalSim real-galaxy folder or a .h5 file)")
    find_catalogue_file(given.uri)
    build_cosmos_bank(given.uri, into.uri, BankSettings.from_mapping(settings["build"]), progress=progress)


def _build_deep(given: Location, into: Location, settings: dict[str, Any], stated: dict[str, float] | None) -> None:
    build = dict(settings["build"])
    target_psf_fwhm_arcsec = build.pop("target_psf_fwhm_arcsec")
    deep = DeepSettings.from_mapping(build)
    if given.name.endswith(".npz") and given.exists():
        import_deep_bank(given.uri, into.uri, settings=deep, **(stated or settings["npz"]))
        return
    if not given.is_dir():
        raise StageError(f"{given}: no such deep bank (a built bank, a folder of FITS cutouts or a .npz file)")
    npz = into / "deep.npz"
    into.make_dir()
    build_deep_source_bank(
        given.uri, npz.uri, **settings["folder"], target_psf_fwhm_arcsec=target_psf_fwhm_arcsec, settings=deep
    )
    import_deep_bank(npz.uri, into.uri, settings=deep)


def describe(bank: Location) -> dict[str, Any]:
    """What bank.json says."""
    return dict((bank / _BUILT).read_json())
