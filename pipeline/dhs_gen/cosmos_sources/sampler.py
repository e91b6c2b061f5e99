"""Gen5: the template that a task asks for."""

from __future__ import annotations

from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.source_banks.bank import SourceBank
from dhs_gen.source_banks.sampler import bank_source
from dhs_gen.task import SourceParams


def cosmos_source(source: SourceParams, bank: SourceBank) -> tuple[SourceTemplate, str]:
    """The bank's template, scaled to the task's half-light radius, and its name; see :func:`bank_source`."""
    made = bank_source(source, bank)
    return made.template, made.template_id
