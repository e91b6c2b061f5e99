"""Stage 4c on Spark: render, add and measure, one generation at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dhs_gen.inject import BandResult, InjectionSettings, Stamp, inject
from dhs_gen.lensing.rays import Accuracy
from dhs_gen.paired_controls.kinds import SampleKind
from dhs_gen.paired_controls.negative import Negative
from dhs_gen.status import Status
from dhs_gen.task import HostCutout, Task, TaskFailed
from dhs_pipeline.commit import committed_files
from dhs_pipeline.config import FROM_ROW, ArtifactProfile, Generation, MatchedHost, MixtureSource, RunConfig
from dhs_pipeline.cutouts import read_cutouts
from dhs_pipeline.matching import read_matches
from dhs_pipeline.pairs import MatchOf, Member, members_of
from dhs_pipeline.receipts import Receipt, UnitWriter
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import METRICS, STAMPS, TASK, table_from_rows
from dhs_pipeline.sources import Banks, MadeSource, SourceMaker, check_banks, source_maker
from dhs_pipeline.stage import open_stage, require_finished, run_units
from dhs_pipeline.storage import Location

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_STAMP_ROW_GROUP = 128
"""Rows of the stamps table that a worker renders before it writes them: about 20 MB with all layers, uncompressed."""

_RESULTS = pa.schema(list(STAMPS)[len(TASK) :])
"""What 4c adds to the columns of a task."""


@dataclass(frozen=True)
class Shard:
    """A row group of a manifest file: the unit of restart."""

    manifest: str
    row_group: int
    rows: int

    @property
    def part(self) -> str:
        return Location(self.manifest).name

    @property
    def unit(self) -> str:
        return f"{self.part.removeprefix('part-').removesuffix('.parquet')}-{self.row_group:04d}"


def run_injection(
    spark: SparkSession,
    run: RunDir,
    generation: Generation,
    banks: Banks,
    config: RunConfig,
    *,
    partitions: int | None,
    force: bool,
    progress: bool,
) -> dict[str, Any]:
    """Render every task of the manifest in one generation; returns the stage's JSON.

    Every manifest row ends in exactly one row of stamps and of metrics, with a status; of a paired generation in one
    row for each member of its pair.

    Raises
    ------
    StageError
        If 4a or 4b has not finished.
    ValueError
        If the generation's bank is missing or not what it states.
    """
    banks_used = check_banks(generation, banks, config.manifest.folds)
    digests = require_finished(run.phase4a, "4a")["digests"] | require_finished(run.phase4b, "4b")["digests"]
    inputs = {"manifest": digests["manifest"], "cutouts": digests["cutouts"], **banks_used}
    if generation.matches_hosts:
        inputs["hosts"] = digests["hosts"]
    settings = injection_config(generation, config)
    stage = open_stage("4c", run.phase4c(generation.name), settings, inputs, force=force)
    shards = list_shards(run)
    committed_files(run.phase4b, "cutouts")  # all there, before the first task
    done = stage.finished_receipts()
    pending = [s for s in shards if s.unit not in done]
    if not pending and (finished := stage.finished_summary()) is not None:
        return finished
    cutouts, hosts = run.cutouts, run.hosts
    members = 1 if generation.pairing is None else generation.pairing.members

    def work(units: Iterator[Shard]) -> Iterator[Receipt]:
        renderer = Renderer(generation, banks, config)
        for shard in units:
            stamps = renderer.batches(read_shard(shard), cutouts / shard.part, hosts / shard.part)
            yield _write_shard(stage.writer(shard.unit), stamps)

    fresh = run_units(
        spark,
        stage,
        f"4c {generation.name}",
        pending,
        work,
        done=done.values(),
        partitions=partitions,
        rows_of=lambda shard: shard.rows * members,
        progress=progress,
    )
    extra = {"generation": generation.name, "manifest_rows": sum(s.rows for s in shards)}
    return stage.finish([*done.values(), *fresh], extra)


def _write_shard(writer: UnitWriter, stamps: Iterator[pa.Table]) -> Receipt:
    """Stamps as they come, and the metrics of all of them."""
    light: list[pa.Table] = [METRICS.empty_table()]

    def passing() -> Iterator[pa.Table]:
        for batch in stamps:
            light.append(batch.select(METRICS.names).cast(METRICS))
            yield batch

    writer.write_stream("stamps", passing(), STAMPS, row_group_rows=_STAMP_ROW_GROUP)
    metrics = pa.concat_tables(light).combine_chunks()
    writer.write("metrics", metrics, row_group_rows=65_536)
    return writer.finish(metrics.num_rows, Counter(metrics.column("status").to_pylist()), _counts(metrics))


def _counts(stamps: pa.Table) -> dict[str, Counter[str]]:
    """Rows by kind of member, and of negatives by kind."""
    kinds, negatives = stamps.column("sample_kind"), stamps.column("negative_kind").drop_null()
    return {
        "rows_by_sample_kind": Counter(kinds.to_pylist()),
        "rows_by_negative_kind": Counter(negatives.to_pylist()),
    }


def injection_config(generation: Generation, config: RunConfig) -> dict[str, Any]:
    """The part of the configuration that decides the bytes of a stamp."""
    return {
        "generation": generation.model_dump(mode="json"),
        "survey": config.survey.model_dump(mode="json"),
        "rendering": config.rendering.model_dump(mode="json"),
        "stamp": config.stamp.model_dump(mode="json"),
        "artifacts": [p.model_dump(mode="json") for p in used_profiles(generation, config)],
        "folds": config.manifest.folds,
    }


def used_profiles(generation: Generation, config: RunConfig) -> list[ArtifactProfile]:
    """The artifact profiles that a generation may apply.

    Raises
    ------
    ConfigError
        If there is no file of that name.
    """
    name = generation.artifact_profile
    return [config.artifact_profile(n) for n in (config.mixture.artifact_profiles if name == FROM_ROW else (name,))]


def injection_settings(config: RunConfig) -> InjectionSettings:
    survey, rendering = config.survey, config.rendering
    return InjectionSettings(
        pixscale_arcsec=survey.pixscale_arcsec,
        kernel_size_pix=survey.psf_kernel_size_pix,
        moffat_beta={str(b): v for b, v in survey.moffat_beta.items()},
        electrons_per_nmgy_per_exposure={str(b): v for b, v in survey.electrons_per_nmgy_per_exposure.items()},
        bad_mask=survey.bad_mask,
        layers=tuple(config.stamp.layers),
        accuracy=Accuracy(
            rendering.rays_per_resolution,
            rendering.min_supersampling,
            rendering.max_supersampling,
            rendering.moment_order,
        ),
    )


def list_shards(run: RunDir) -> list[Shard]:
    """Every row group of the manifest's files, in order."""
    shards = []
    for file in committed_files(run.phase4a, "manifest"):
        with file.open_input() as source:
            metadata = pq.ParquetFile(source).metadata
        shards += [Shard(file.uri, i, metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups)]
    return shards


def read_shard(shard: Shard) -> pa.Table:
    with Location(shard.manifest).open_input() as source:
        return pq.ParquetFile(source, page_checksum_verification=True).read_row_group(shard.row_group)


class Renderer:
    """Turns manifest rows into stamp rows for one generation. One per worker task: it holds the open banks."""

    def __init__(self, generation: Generation, banks: Banks, config: RunConfig) -> None:
        self._generation = generation
        self._make_source: SourceMaker = source_maker(generation, banks, config.manifest.folds)
        self._settings = injection_settings(config)
        self._artifacts = {p.name: p.strengths() for p in used_profiles(generation, config)}
        self._flux_scale = 0.0 if generation.arc == "zero_flux" else 1.0

    def render(self, tasks: pa.Table, cutout_part: Location, host_part: Location | None = None) -> pa.Table:
        """MANIFEST rows → STAMPS rows, in the same order, the members of a pair next to each other.

        ``host_part`` (a file of phase4a/hosts) is needed by pairings with matched hosts alone.
        """
        return pa.concat_tables([STAMPS.empty_table(), *self.batches(tasks, cutout_part, host_part)]).combine_chunks()

    def batches(self, tasks: pa.Table, cutout_part: Location, host_part: Location | None = None) -> Iterator[pa.Table]:
        """As :meth:`render`, a few rows at a time: stamps are heavy, and a unit of a survey has a thousand."""
        members = self.members(tasks, cutout_part, host_part)
        cutouts = _cutouts_of(cutout_part, [m.row for m in members])
        made = tasks.select(TASK.names) if self._generation.pairing is None else _tasks_of(members)
        for first in range(0, len(members), _STAMP_ROW_GROUP):
            some = members[first : first + _STAMP_ROW_GROUP]
            rows = [self._result(member, cutouts.get(member.row["host_id"])) for member in some]
            results = table_from_rows(rows, _RESULTS)
            yield pa.table([*made.slice(first, len(some)).columns, *results.columns], schema=STAMPS)

    def members(self, tasks: pa.Table, cutout_part: Location, host_part: Location | None = None) -> list[Member]:
        """MANIFEST rows → the rows to render, in their order."""
        match_of = self._match_of(cutout_part, host_part)
        return [m for row in tasks.to_pylist() for m in members_of(row, self._generation, match_of)]

    def _match_of(self, cutout_part: Location, host_part: Location | None) -> MatchOf | None:
        pairing = self._generation.pairing
        if pairing is None or not isinstance(pairing.control, MatchedHost):
            return None
        if host_part is None:
            raise ValueError(f"host_part must be given for the pairing {pairing.name}, got None")
        return read_matches(host_part, cutout_part, pairing.control).__getitem__

    def stamp(self, member: Member, cutout: HostCutout | None) -> tuple[Stamp, MadeSource | None]:
        """The stamp of one row, or TaskFailed with the status it ends in."""
        if member.failure is not None:
            raise member.failure
        row = member.row
        task = Task.from_row(row)
        if cutout is None:
            raise TaskFailed(Status.CUTOUT_MISSING, f"no cutout of host {row['host_id']}")
        try:
            made = None if member.is_dark else self._make_source(task, row["source_mode"])
            artifacts = self._artifacts[self._profile(row)]
        except ValueError as error:  # a parameter that no source can have, as a foreign manifest may hold
            raise TaskFailed(Status.TASK_INVALID, str(error)) from error
        template = None if made is None else made.template
        negative = self._negative(member)
        return inject(task, cutout, template, self._flux_scale, self._settings, artifacts, negative), made

    def _negative(self, member: Member) -> Negative | None:
        """What takes the arc's place, with its strengths."""
        pairing = self._generation.pairing
        if member.negative is None or pairing is None or pairing.negatives is None:
            return None
        return pairing.negatives.negative(member.negative)

    def _profile(self, row: Mapping[str, Any]) -> str:
        """Name of the row's artifact profile: the generation's, or the row's own."""
        name = self._generation.artifact_profile
        if name != FROM_ROW:
            return name
        if row["artifact_profile"] not in self._artifacts:
            raise ValueError(
                f"artifact_profile must be one of {', '.join(self._artifacts)}, got {row['artifact_profile']!r}"
            )
        return str(row["artifact_profile"])

    def _result(self, member: Member, cutout: HostCutout | None) -> dict[str, object]:
        result = self._variant(member) | member.pair_columns() | {"arc_injected": 0, "cutout_ok": 0}
        try:
            stamp, made = self.stamp(member, cutout)
        except TaskFailed as failure:
            return result | {"status": failure.status.value, "message": failure.message}
        has_arc = member.kind is SampleKind.POSITIVE and made is not None and self._flux_scale > 0
        return result | _stamp_columns(stamp, made, self._settings.layers) | {"arc_injected": int(has_arc)}

    def _variant(self, member: Member) -> dict[str, object]:
        """What the row is rendered as; known also when it cannot be."""
        generation, row = self._generation, member.row
        mixed = isinstance(generation.source, MixtureSource)
        mode = row["source_mode"] if mixed else generation.source and generation.source.mode
        return {
            "gen_variant": (mixed and row["gen_variant"]) or generation.name,
            "source_mode": "none" if row["is_control"] or member.is_dark else (mode or "none"),
            "artifact_profile": row["artifact_profile"]
            if generation.artifact_profile == FROM_ROW
            else generation.artifact_profile,
        }


def _tasks_of(members: Sequence[Member]) -> pa.Table:
    """Columns of the tasks of paired rows; those of others are the manifest's."""
    return table_from_rows([member.task_columns() for member in members], TASK)


def _cutouts_of(part: Location, rows: Sequence[Mapping[str, Any]]) -> dict[str, HostCutout]:
    bands = "".join(sorted({b for row in rows for b in row["bandset"]}))
    return _cached_cutouts(part, frozenset(row["host_id"] for row in rows), bands)


@lru_cache(maxsize=2)
def _cached_cutouts(part: Location, host_ids: frozenset[str], bands: str) -> dict[str, HostCutout]:
    """Neighbouring shards share hosts."""
    return read_cutouts(part, set(host_ids), bands)


def _stamp_columns(stamp: Stamp, made: MadeSource | None, layers: tuple[str, ...]) -> dict[str, object]:
    columns: dict[str, object] = {
        "status": Status.OK.value,
        "cutout_ok": 1,
        "lens_x_pix": stamp.lens_xy_pix[0],
        "lens_y_pix": stamp.lens_xy_pix[1],
        "stamp_corner_x_pix": stamp.corner_xy_pix[0],
        "stamp_corner_y_pix": stamp.corner_xy_pix[1],
        "template_id": None if made is None else made.template_id,
        "source_psf_fwhm_arcsec": None if made is None else made.psf_fwhm_arcsec,
        "magnification": stamp.magnification,
        "bad_pixel_frac": stamp.bad_pixel_frac,
        "stamp_npz": stamp.encode(layers),
    }
    for band, result in stamp.bands.items():
        columns |= _band_columns(band, result)
    return columns if stamp.artifacts is None else columns | stamp.artifacts.columns()


def _band_columns(b: str, result: BandResult) -> dict[str, object]:
    return {
        f"psfsize_used_{b}_arcsec": result.psf.psfsize_arcsec,
        f"psf_fwhm_used_{b}_arcsec": result.psf.fwhm_arcsec,
        f"psf_cut_frac_{b}": result.psf.cut_fraction,
        f"theta_e_over_fwhm_{b}": result.theta_e_over_fwhm,
        f"unlensed_flux_{b}_nmgy": result.unlensed_flux_nmgy,
        f"lensed_flux_{b}_nmgy": result.lensed_flux_nmgy,
        f"off_stamp_frac_{b}": result.off_stamp_frac,
        f"arc_snr_{b}": result.snr.matched_filter,
        f"arc_peak_snr_{b}": result.snr.peak,
        f"g_eff_{b}": result.g_eff,
    }
