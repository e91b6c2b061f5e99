"""Gen6: source templates made from deep ground-based cutouts."""

from __future__ import annotations

from dhs_gen.deep_sources.builder import build_deep_source_bank
from dhs_gen.deep_sources.importer import import_deep_bank
from dhs_gen.deep_sources.npz import load_bank, load_fine_images
from dhs_gen.deep_sources.sampler import choose_index
from dhs_gen.deep_sources.settings import DeepSettings
from dhs_gen.source_banks.bank import BankError
from dhs_gen.source_banks.rejects import BankSummary, TemplateReject

__all__ = [
    "BankError",
    "BankSummary",
    "DeepSettings",
    "TemplateReject",
    "build_deep_source_bank",
    "choose_index",
    "import_deep_bank",
    "load_bank",
    "load_fine_images",
]
