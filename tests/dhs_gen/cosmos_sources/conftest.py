"""The bank built from the synthetic catalogue, once per session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cosmos_cases import BuiltBank, configuration, synthetic_galaxies, write_catalogue

from dhs_gen.cosmos_sources import BankSettings, ImportLimits, build_cosmos_bank


@pytest.fixture(scope="session")
def settings() -> BankSettings:
    return BankSettings.from_mapping(configuration()["build"])


@pytest.fixture(scope="session")
def limits() -> ImportLimits:
    return ImportLimits.from_mapping(configuration()["hdf5_import"])


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, settings: BankSettings) -> BuiltBank:
    folder = tmp_path_factory.mktemp("cosmos")
    galaxies = synthetic_galaxies()
    catalog_dir = write_catalogue(folder / "catalogue", galaxies)
    summary = build_cosmos_bank(catalog_dir, folder / "bank", settings)
    return BuiltBank(summary, catalog_dir, {str(galaxy.ident): galaxy for galaxy in galaxies})


@pytest.fixture
def bank_copy(built: BuiltBank, tmp_path: Path) -> Callable[[], Path]:
    """A function that gives a copy of the built bank to damage."""

    def copy() -> Path:
        return Path(shutil.copytree(built.summary.path, tmp_path / "damaged"))

    return copy
