"""From a generation's configuration to the function that makes a task's source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dhs_gen.cosmos_sources import SourceBank, open_bank
from dhs_gen.cosmos_sources.sampler import cosmos_source
from dhs_gen.hybrid_sources.sampler import HybridSettings, hybrid_source
from dhs_gen.hybrid_sources.sersic_clumps import ClumpSettings
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.task import Task
from dhs_pipeline.config import CosmosSource, Generation, HybridSource
from dhs_pipeline.storage import Location


@dataclass(frozen=True)
class MadeSource:
    """A template, and its name in the bank it comes from (None: procedural)."""

    template: SourceTemplate
    template_id: str | None


SourceMaker = Callable[[Task], MadeSource | None]
"""The source of a task; None for controls."""


def source_maker(generation: Generation, bank_path: Location | None) -> SourceMaker:
    """How this generation makes sources. Opens the bank, so call it where the sources are made.

    Raises
    ------
    ValueError
        If the generation needs a bank and none is given, or the bank is not what the generation states.
    """
    source = generation.source
    if source is None:
        return lambda task: None
    if isinstance(source, HybridSource):
        return _hybrid(source)
    return _cosmos(_open(source, generation, bank_path))


def check_bank(generation: Generation, bank_path: Location | None) -> dict[str, str]:
    """Open the bank as a worker will; returns the inputs to record. Raises as :func:`source_maker`."""
    if not isinstance(generation.source, CosmosSource):
        return {}
    bank = _open(generation.source, generation, bank_path, full_check=True)
    return {"bank": str(bank.path), "bank_digest": bank.digest}


def _open(
    source: CosmosSource, generation: Generation, bank_path: Location | None, *, full_check: bool = False
) -> SourceBank:
    if bank_path is None:
        raise ValueError(f"generation {generation.name} needs a source bank; give one with --bank")
    if bank_path.is_s3:
        raise ValueError(f"{bank_path}: a bank is memory-mapped; copy it to a local disk of every node first")
    return open_bank(bank_path.uri, expected_pixscale_arcsec=source.pixscale_arcsec, full_check=full_check)


def _hybrid(source: HybridSource) -> SourceMaker:
    settings = HybridSettings(
        re_pix=source.re_pix,
        half_size_re=source.half_size_re,
        clumps=ClumpSettings(source.n_clumps, source.clump_sigma_re, source.clump_flux_fraction),
        gradient_mag_per_dex=source.gradient_mag_per_dex,
    )

    def make(task: Task) -> MadeSource | None:
        if task.source is None:
            return None
        return MadeSource(hybrid_source(task.task_id, task.source, settings, task.bandset), None)

    return make


def _cosmos(bank: SourceBank) -> SourceMaker:
    def make(task: Task) -> MadeSource | None:
        if task.source is None:
            return None
        template, template_id = cosmos_source(task.source, bank)
        return MadeSource(template, template_id)

    return make
