"""Gen5: source templates made from HST COSMOS galaxies."""

from __future__ import annotations

from dhs_gen.cosmos_sources.builder import build_cosmos_bank, find_catalogue_file
from dhs_gen.cosmos_sources.hdf5 import ImportLimits, import_hdf5_bank
from dhs_gen.cosmos_sources.templates import BankSettings
from dhs_gen.source_banks.bank import (
    BankError,
    BankWriter,
    Column,
    SourceBank,
    choose_template,
    open_bank,
    write_bank,
)
from dhs_gen.source_banks.rejects import BankSummary, TemplateReject

__all__ = [
    "BankError",
    "BankSettings",
    "BankSummary",
    "BankWriter",
    "Column",
    "ImportLimits",
    "SourceBank",
    "TemplateReject",
    "build_cosmos_bank",
    "choose_template",
    "find_catalogue_file",
    "import_hdf5_bank",
    "open_bank",
    "write_bank",
]
