"""The BANK argument: a built bank is used where it is, anything else is built into the run first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dhs_gen.cosmos_sources import BankSettings, ImportLimits, build_cosmos_bank, find_catalogue_file, import_hdf5_bank
from dhs_pipeline.config import load_yaml
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location

_ORIGIN = "origin.json"


def prepare_bank(given: Location, into: Location, *, progress: Callable[[int, int], None] | None = None) -> Location:
    """A built bank made from ``given``: itself, a GalSim real-galaxy folder, or the earlier HDF5 layout.

    Raises
    ------
    StageError
        If ``given`` is none of these.
    """
    if (given / "bank.json").exists():
        return given
    settings = load_yaml("banks", "cosmos")
    origin = {"source": given.uri, "settings": settings}
    if (into / "bank.json").exists():
        _check_origin(into, origin)
        return into
    _build(given, into, settings, progress)
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


def _build(
    given: Location, into: Location, settings: dict[str, Any], progress: Callable[[int, int], None] | None
) -> None:
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


def describe(bank: Location) -> dict[str, Any]:
    """What bank.json says."""
    return dict((bank / "bank.json").read_json())
