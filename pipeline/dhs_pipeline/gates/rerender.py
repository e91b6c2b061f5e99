"""Stamps of a set made again from its run, with one thing changed.

Nothing is simulated here: manifest row, cutout, source and artifacts go through :func:`dhs_gen.inject.inject` as in 4c,
so what is made again unchanged has the bits of what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import ValidationError

from dhs_gen.domain_randomization.config import ArtifactConfig
from dhs_gen.inject import InjectionSettings, Stamp, inject
from dhs_gen.lensing.render import StampGrid, draw, lens_source
from dhs_gen.lensing.templates import SourceTemplate
from dhs_gen.paired_controls import NegativeKind
from dhs_gen.task import HostCutout, Task, TaskFailed
from dhs_pipeline.config import FROM_ROW, ArtifactProfile, Generation, RunConfig
from dhs_pipeline.cutouts import read_cutouts
from dhs_pipeline.gates.result import CannotRun
from dhs_pipeline.injection import injection_settings
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.sources import BANK_OPTIONS, Banks, SourceMaker, check_banks, source_maker
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location

Images = NDArray[np.float32]
KernelOf = Callable[[float, float, int], NDArray[np.float64]]
"""(psfsize at the host in arcsec, the band's Moffat β, side in pixels) → effective PSF of unit sum."""


class Rerenderer(Protocol):
    """Renders positives and controls of a run by pair_id; all images (n, bands, H, W) float32, nanomaggy/pix."""

    @property
    def moffat_beta(self) -> Mapping[str, float]:
        """Slope of the survey's PSF per band."""

    def positives(
        self, pair_ids: Sequence[str], *, flux_factor: float = 1.0, psf_factor: float = 1.0
    ) -> NDArray[np.float32]:
        """The positives with the arc's flux, or the width of the arc's PSF, multiplied."""

    def arcs(
        self, pair_ids: Sequence[str], *, flux_factor: float = 1.0, psf_factor: float = 1.0
    ) -> NDArray[np.float32]:
        """The noise-free arcs of the same."""

    def arcs_by_kernel(
        self, pair_ids: Sequence[str], lens_xy_pix: NDArray[np.float64], kernel_of: KernelOf
    ) -> NDArray[np.float32]:
        """The noise-free arcs about given lens centres, (n, 2), convolved with kernels that the caller makes."""

    def controls(
        self, pair_ids: Sequence[str], *, artifacts: str | None = None, only: str | None = None
    ) -> NDArray[np.float32]:
        """The host without an arc.

        ``artifacts`` names another artifact profile than the set's own, and ``only`` the one switch of
        ``ArtifactConfig`` (``enable_…``) that stays on.
        """

    def negatives(self, pair_ids: Sequence[str], kind: str, *, flux_factor: float = 1.0) -> NDArray[np.float32]:
        """Hard negatives of one kind, whatever kind the set dealt to the pair."""


def open_rerenderer(stamps: Location, run: RunDir | None = None) -> Rerenderer:
    """The rerenderer of a set of stamps.

    Parameters
    ----------
    stamps
        Folder of the set: …/phase4c/<generation> or …/phase4p5/<generation> of a run, or a folder below.
    run
        Its run; None looks for run.json in the folders above.

    Raises
    ------
    CannotRun
        If the run, its record of the generation, the manifest, the cutouts or a bank is not there.
    """
    found = run if run is not None else _run_above(stamps)
    try:
        config = found.config()
    except StageError as error:
        raise CannotRun(f"stamps cannot be made again: {error}") from error
    summary = _summary_4c(found, _generation_name(stamps, found, config))
    try:
        generation = Generation.model_validate(summary["config"]["generation"])
        profiles = {p["name"]: ArtifactProfile.model_validate(p) for p in summary["config"]["artifacts"]}
    except (ValidationError, KeyError) as error:
        raise CannotRun(f"{found.where}: 4c was made by another version ({type(error).__name__})") from error
    for what, where in (("manifest", found.manifest), ("cutouts", found.cutouts)):
        if not where.files(".parquet"):
            raise CannotRun(f"{where}: the run's {what} is not there, so its stamps cannot be made again")
    banks = _banks(summary["inputs"], generation, config)
    return RunRerenderer(found, config, generation, profiles, banks)


def _run_above(stamps: Location) -> RunDir:
    at = stamps
    while "/" in at.uri.removeprefix("s3://").rstrip("/"):
        if (at / "run.json").exists():
            return RunDir(at)
        at = Location(at.uri.rsplit("/", 1)[0])
    raise CannotRun(f"{stamps}: no run.json in the folders above; give the run that made the set")


def _generation_name(stamps: Location, run: RunDir, config: RunConfig) -> str:
    """As the set's folder says, else the only generation of the run that has arcs."""
    parts = stamps.uri.split("/")
    finished = run.generations()
    for stage in ("phase4c", "phase4p5"):
        if stage in parts[:-1] and (name := parts[len(parts) - 1 - parts[::-1].index(stage) + 1]) in finished:
            return name
    lit = [name for name in finished if _summary_4c(run, name)["config"]["generation"]["arc"] == "rendered"]
    if len(lit) != 1:
        raise CannotRun(f"{stamps}: which generation of {run.where} it holds cannot be told from its folder")
    return lit[0]


def _summary_4c(run: RunDir, generation: str) -> dict[str, Any]:
    file = run.phase4c(generation) / "_stage.json"
    if not file.exists():
        raise CannotRun(f"{file}: not there; without 4c's record the stamps cannot be made again")
    return dict(file.read_json())


def _banks(inputs: Mapping[str, str], generation: Generation, config: RunConfig) -> Banks:
    """The banks that 4c used, found unchanged."""
    paths = {mode: inputs.get(f"{mode}_bank") for mode in BANK_OPTIONS}
    for mode, path in paths.items():
        if path is not None and not Location.of(path).exists():
            raise CannotRun(f"{path}: the {mode} source bank that rendered the set is not there")
    banks = Banks(**{mode: None if path is None else Location.of(path) for mode, path in paths.items()})
    try:
        used = check_banks(generation, banks, config.manifest.folds)
    except ValueError as error:
        raise CannotRun(str(error)) from error
    if changed := [key for key, value in used.items() if key.endswith("_digest") and inputs.get(key) != value]:
        raise CannotRun(f"{changed[0].removesuffix('_digest')}: not the source bank that rendered the set any more")
    return banks


class RunRerenderer:
    """The :class:`Rerenderer` of one generation of a run, in this process.

    Each manifest row and cutout is read once and kept: about 0.3 MB per host.
    """

    def __init__(
        self,
        run: RunDir,
        config: RunConfig,
        generation: Generation,
        profiles: Mapping[str, ArtifactProfile],
        banks: Banks,
    ) -> None:
        self._run, self._config, self._generation, self._profiles = run, config, generation, profiles
        self._settings: InjectionSettings = injection_settings(config)
        self._make_source: SourceMaker = source_maker(generation, banks, config.manifest.folds)
        self._rows: dict[str, Mapping[str, Any]] = {}
        self._cutouts: dict[str, HostCutout] = {}

    @property
    def moffat_beta(self) -> Mapping[str, float]:
        return self._settings.moffat_beta

    def positives(self, pair_ids: Sequence[str], *, flux_factor: float = 1.0, psf_factor: float = 1.0) -> Images:
        return self._images(pair_ids, lambda row, cutout: self._positive(row, cutout, flux_factor, psf_factor))

    def arcs(self, pair_ids: Sequence[str], *, flux_factor: float = 1.0, psf_factor: float = 1.0) -> Images:
        return self._stack(
            pair_ids,
            lambda row, cutout: _layer(self._positive(row, cutout, flux_factor, psf_factor), "arc"),
        )

    def arcs_by_kernel(self, pair_ids: Sequence[str], lens_xy_pix: NDArray[np.float64], kernel_of: KernelOf) -> Images:
        centre = dict(zip(pair_ids, lens_xy_pix.tolist(), strict=True))
        return self._stack(
            pair_ids, lambda row, cutout: self._arc_by_kernel(row, cutout, centre[row["task_id"]], kernel_of)
        )

    def controls(self, pair_ids: Sequence[str], *, artifacts: str | None = None, only: str | None = None) -> Images:
        def control(row: Mapping[str, Any], cutout: HostCutout) -> Stamp:
            strengths = self._artifacts(row, artifacts, only)
            return inject(Task.from_row(row), cutout, None, 0.0, self._settings, strengths)

        return self._images(pair_ids, control)

    def negatives(self, pair_ids: Sequence[str], kind: str, *, flux_factor: float = 1.0) -> Images:
        pairing = self._generation.pairing
        if pairing is None or pairing.negatives is None:
            raise CannotRun(f"generation {self._generation.name} has no hard negatives")
        strengths = pairing.negatives.negative(NegativeKind(kind))

        def negative(row: Mapping[str, Any], cutout: HostCutout) -> Stamp:
            task = Task.from_row(row)
            template, artifacts = self._template(task, row), self._artifacts(row)
            return inject(task, cutout, template, flux_factor, self._settings, artifacts, strengths)

        return self._images(pair_ids, negative)

    def _positive(self, row: Mapping[str, Any], cutout: HostCutout, flux_factor: float, psf_factor: float) -> Stamp:
        task = Task.from_row(row)
        wide = {b: psf_factor * v for b, v in cutout.psfsize_arcsec.items()} if psf_factor != 1 else None
        host = cutout if wide is None else replace(cutout, psfsize_arcsec=wide)
        return inject(task, host, self._template(task, row), flux_factor, self._settings, self._artifacts(row))

    def _arc_by_kernel(
        self, row: Mapping[str, Any], cutout: HostCutout, lens_xy_pix: Sequence[float], kernel_of: KernelOf
    ) -> Images:
        task, settings = Task.from_row(row), self._settings
        template = self._template(task, row)
        if task.lens is None or task.source is None or template is None:
            raise CannotRun(f"pair {task.task_id} has no arc to draw")
        grid = StampGrid(task.stamp_size_pix, settings.pixscale_arcsec, settings.kernel_size_pix)
        source_xy = (task.source.x_arcsec, task.source.y_arcsec)
        centre = (lens_xy_pix[0], lens_xy_pix[1])
        lensed = lens_source(task.lens, template, source_xy, centre, grid, settings.accuracy)
        channels = lensed.spectrum.shape[0]
        arcs = []
        for index, band in enumerate(task.bandset):
            kernel = kernel_of(cutout.psfsize_arcsec[band], settings.moffat_beta[band], settings.kernel_size_pix)
            flux = task.source.flux_nmgy(band) * float(task.mw_transmission[band] or np.nan)
            arcs.append(draw(lensed, index if channels > 1 else 0, kernel) * flux)
        return np.stack(arcs).astype(np.float32)

    def _template(self, task: Task, row: Mapping[str, Any]) -> SourceTemplate | None:
        made = self._make_source(task, row["source_mode"])
        return None if made is None else made.template

    def _artifacts(
        self, row: Mapping[str, Any], name: str | None = None, only: str | None = None
    ) -> ArtifactConfig | None:
        """Strengths of the row's own artifacts, or of another profile, or of one artifact of it."""
        own = self._generation.artifact_profile
        wanted = name or (row["artifact_profile"] if own == FROM_ROW else own)
        profile = self._profiles.get(wanted) or self._config.artifact_profile(wanted)
        if only is None:
            return profile.strengths()
        switches = [field for field in ArtifactProfile.model_fields if field.startswith("enable_")]
        if only not in switches:
            raise ValueError(f"only must be one of {', '.join(switches)}, got {only!r}")
        return profile.model_copy(update=dict.fromkeys(switches, False) | {only: True}).strengths()

    def _images(self, pair_ids: Sequence[str], stamp_of: Callable[[Mapping[str, Any], HostCutout], Stamp]) -> Images:
        return self._stack(pair_ids, lambda row, cutout: _layer(stamp_of(row, cutout), "image"))

    def _stack(self, pair_ids: Sequence[str], make: Callable[[Mapping[str, Any], HostCutout], Images]) -> Images:
        """(n, bands, H, W) in the order of the ids."""
        self._read(pair_ids)
        out = []
        for pair_id in pair_ids:
            row = self._rows[pair_id]
            try:
                out.append(make(row, self._cutouts[row["host_id"]]))
            except TaskFailed as failure:
                raise CannotRun(f"pair {pair_id} cannot be made again: {failure.status} {failure.message}") from failure
        return np.stack(out)

    def _read(self, pair_ids: Sequence[str]) -> None:
        """Rows and cutouts that have not been read before, file by file."""
        wanted = pa.array(sorted({i for i in pair_ids if i not in self._rows}), pa.string())
        if not len(wanted):
            return
        for part in self._run.manifest.files(".parquet"):
            here = pc.is_in(part.read_table(["task_id"]).column("task_id"), value_set=wanted)
            if pc.any(here).as_py():
                rows = part.read_table().filter(here).to_pylist()
                self._rows |= {row["task_id"]: row for row in rows}
                hosts = {row["host_id"] for row in rows} - self._cutouts.keys()
                self._cutouts |= read_cutouts(self._run.cutouts / part.name, hosts, self._config.stamp.bandset)
        if lost := [i for i in wanted.to_pylist() if i not in self._rows]:
            raise CannotRun(f"{len(lost)} pairs are not in the run's manifest, {lost[0]} among them")
        if lost := [i for i in wanted.to_pylist() if self._rows[i]["host_id"] not in self._cutouts]:
            raise CannotRun(f"the run has no cutout of the hosts of {len(lost)} pairs, {lost[0]} among them")


def _layer(stamp: Stamp, layer: str) -> Images:
    return np.stack([getattr(band, layer) for band in stamp.bands.values()])
