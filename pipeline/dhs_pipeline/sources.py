"""From a generation's configuration to the function that makes a task's source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dhs_gen.hybrid_sources.sampler import HybridSettings, hybrid_source
from dhs_gen.hybrid_sources.sersic_clumps import ClumpSettings
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.source_banks import BankError, SourceBank, open_bank
from dhs_gen.source_banks.folds import check_folds, template_of
from dhs_gen.source_banks.sampler import bank_source
from dhs_gen.source_banks.writer import IMAGES_FILE
from dhs_gen.task import Task
from dhs_pipeline.bank_cache import local_bank
from dhs_pipeline.config import CosmosSource, DeepSource, Generation, HybridSource, MixtureSource
from dhs_pipeline.storage import Location


@dataclass(frozen=True)
class MadeSource:
    """A source as it is rendered.

    Parameters
    ----------
    template
        Its shape.
    mode
        Kind of source: cosmos, deep or hybrid.
    template_id, psf_fwhm_arcsec
        Its name in the bank, and the blur that its pixels still hold at the size it is given here; None if procedural.
    """

    template: SourceTemplate
    mode: str
    template_id: str | None = None
    psf_fwhm_arcsec: float | None = None


SourceMaker = Callable[[Task, str | None], MadeSource | None]
"""(task, kind of source that its row names) → the source; None for controls."""


@dataclass(frozen=True)
class Banks:
    """Where the built banks lie, local or on S3; None for none."""

    cosmos: Location | None = None
    deep: Location | None = None

    def of(self, mode: str) -> Location | None:
        return {"cosmos": self.cosmos, "deep": self.deep}.get(mode)


BANK_OPTIONS: Mapping[str, str] = {"cosmos": "--bank (BANK=…)", "deep": "--deep-bank (DEEP_BANK=…)"}
"""How a user gives the bank of each kind."""


def source_maker(generation: Generation, banks: Banks, folds: int) -> SourceMaker:
    """How this generation makes sources. Opens the banks, so call it where the sources are made.

    Raises
    ------
    ValueError
        If the generation needs a bank and none is given, or a bank is not what the generation states.
    StorageError
        If a bank on S3 cannot be copied to this machine (:func:`dhs_pipeline.bank_cache.local_bank`).
    """
    if generation.source is None:
        return lambda task, mode: None
    if isinstance(generation.source, MixtureSource):
        makers: dict[str, SourceMaker] = {s.mode: _maker(s, generation, banks, folds) for s in generation.sources}
        return _mixture(makers)
    return _maker(generation.source, generation, banks, folds)


def check_banks(generation: Generation, banks: Banks, folds: int) -> dict[str, str]:
    """Open the banks as a worker will; returns the inputs to record. Raises as :func:`source_maker`."""
    inputs: dict[str, str] = {}
    for source in generation.sources:
        if not isinstance(source, HybridSource):
            bank = _open(source, generation, banks, folds, full_check=True)
            inputs |= {f"{source.mode}_bank": str(banks.of(source.mode)), f"{source.mode}_bank_digest": bank.digest}
    return inputs


def missing_banks(generation: Generation, banks: Banks) -> list[str]:
    """Kinds of bank that the generation needs and does not have."""
    return [s.mode for s in generation.sources if not isinstance(s, HybridSource) and banks.of(s.mode) is None]


def _maker(
    source: HybridSource | CosmosSource | DeepSource, generation: Generation, banks: Banks, folds: int
) -> SourceMaker:
    if isinstance(source, HybridSource):
        return _hybrid(source)
    return _from_bank(source, _open(source, generation, banks, folds), folds)


def _open(
    source: CosmosSource | DeepSource, generation: Generation, banks: Banks, folds: int, *, full_check: bool = False
) -> SourceBank:
    where = banks.of(source.mode)
    if where is None:
        raise ValueError(
            f"generation {generation.name} needs a {source.mode} source bank; give it with {BANK_OPTIONS[source.mode]}"
        )
    expected = source.pixscale_arcsec if isinstance(source, CosmosSource) else None
    folder = local_bank(where)
    if full_check:
        bank = open_bank(folder, expected_pixscale_arcsec=expected, full_check=True)
    else:
        bank = _mapped(folder, expected, _written_ns(folder / IMAGES_FILE))
    if isinstance(source, DeepSource) and bank.effective_psf_fwhm_arcsec > source.max_psf_fwhm_arcsec:
        raise BankError(
            f'{where} still holds a blur of {bank.effective_psf_fwhm_arcsec:g}" FWHM, more than the '
            f'{source.max_psf_fwhm_arcsec:g}" that generation {generation.name} allows: build it with deconvolution '
            "or raise max_psf_fwhm_arcsec"
        )
    check_folds(bank, folds)
    return bank


@lru_cache(maxsize=4)
def _mapped(folder: Path, expected_pixscale_arcsec: float | None, written_ns: int) -> SourceBank:
    """A bank as this process has it open: mapped once, with its folds dealt once, however many tasks it gets.

    ``written_ns`` is when the images were written: a bank that was built anew is opened anew.
    """
    return open_bank(folder, expected_pixscale_arcsec=expected_pixscale_arcsec, full_check=False)


def _written_ns(file: Path) -> int:
    return file.stat().st_mtime_ns if file.is_file() else 0


def _hybrid(source: HybridSource) -> SourceMaker:
    settings = HybridSettings(
        re_pix=source.re_pix,
        half_size_re=source.half_size_re,
        clumps=ClumpSettings(source.n_clumps, source.clump_sigma_re, source.clump_flux_fraction),
        gradient_mag_per_dex=source.gradient_mag_per_dex,
    )

    def make(task: Task, mode: str | None) -> MadeSource | None:
        if task.source is None:
            return None
        return MadeSource(hybrid_source(task.task_id, task.source, settings, task.bandset), "hybrid")

    return make


def _from_bank(source: CosmosSource | DeepSource, bank: SourceBank, folds: int) -> SourceMaker:
    def make(task: Task, mode: str | None) -> MadeSource | None:
        if task.source is None:
            return None
        if task.fold is None:
            raise ValueError("region_fold is null: which templates the row may use cannot be told")
        drawn = bank_source(task.source, bank, template_of(bank, task.source.template_u, task.fold, folds))
        return MadeSource(drawn.template, source.mode, drawn.template_id, drawn.psf_fwhm_arcsec)

    return make


def _mixture(makers: Mapping[str, SourceMaker]) -> SourceMaker:
    def make(task: Task, mode: str | None) -> MadeSource | None:
        if task.source is None:
            return None
        if mode is None or mode not in makers:
            raise ValueError(f"source_mode must be one of {', '.join(sorted(makers))}, got {mode!r}")
        return makers[mode](task, mode)

    return make
