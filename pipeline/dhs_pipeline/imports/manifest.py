"""An earlier 44-column manifest → the run directory that stage 4a would leave, from which 4b and 4c go on.

Every source row ends in the manifest or, with a reason, in the rejects. Hosts are the distinct (brickname, ra, dec) of
the rows. Columns without a place here are kept beside the manifest in ``phase4a/source_columns``, by task_id.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dhs_gen.status import RejectReason
from dhs_gen.uber.mixer import MixerConfig, assign_modes_many
from dhs_pipeline.config import Mixture, RunConfig
from dhs_pipeline.imports.config import ManifestImport
from dhs_pipeline.imports.layouts import MANIFEST_44
from dhs_pipeline.imports.mapping import Batch, Plan, Rule, converted, make_plan, taken
from dhs_pipeline.imports.report import REPORT_FILE, Tally, column_report, write_report
from dhs_pipeline.imports.source import Source, check_layout, check_unique, open_source, read_batches, source_schema
from dhs_pipeline.imports.spill import count_bricks, sorted_by_brick
from dhs_pipeline.imports.tasks import TASK_REASONS, check_zero_point, task_rules
from dhs_pipeline.manifest.hosts import fold_of_region
from dhs_pipeline.receipts import Receipt, WrittenFile
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import HOSTS, MANIFEST, MIXTURE, REJECTS
from dhs_pipeline.stage import StageError, StageRun, is_finished, open_stage
from dhs_pipeline.storage import Location, encode_parquet

SOURCE_COLUMNS = "source_columns"
_ROW = "_source_row"
_ROW_GROUP = 4096
_BRICKNAME = re.compile(r"^\d{4}[pm]\d{3}$")
_BANDSET = re.compile(r"^(?=.)g?r?z?$")

_REASONS = {
    **TASK_REASONS,
    "w1mag": "tables here have no W1 magnitude",
    "rz": "is mag_r - mag_z",
    "zw1": "tables here have no W1 magnitude",
}


def import_manifest(
    where: Location, run: RunDir, config: RunConfig, settings: ManifestImport, *, rules_file: str, force: bool
) -> dict[str, Any]:
    """Import a manifest; returns the report.

    Parameters
    ----------
    where
        A Parquet file or a folder of them, in the 44-column layout.
    run
        Run directory to make.
    config
        Configuration of the run that goes on from here; gives extinction coefficients and part sizes.
    settings, rules_file
        What may be added, and the file that says so.

    Raises
    ------
    StageError
        If the source is not in the layout, repeats a task_id, has fluxes other than nanomaggies, or gives no task.
    """
    source = open_source(where)
    check_layout(source, MANIFEST_44)
    plan = plan_manifest(source_schema(source, MANIFEST_44), config, settings, rules_file)
    check_unique(source, MANIFEST_44, settings.batch_rows)
    bricks = _check_rows(source, settings)
    run.start(config, force=force)
    stage = _open(run, source, config, settings, force=force)
    if is_finished(stage.where) and (run.where / REPORT_FILE).exists():
        return (run.where / REPORT_FILE).read_json()

    stage.begin(None, source.rows)
    done = _Done()
    rows = _with_row_numbers(read_batches(source, MANIFEST_44, settings.batch_rows))
    for table in sorted_by_brick(rows, bricks, settings.spill_rows):
        _import_bricks(table, plan, config, stage, done)
    if not done.receipts:
        raise StageError(f"{where}: none of its rows is a task: {dict(done.rejects)}")
    done.close(stage)
    summary = stage.finish(done.receipts, done.summary(source), done.reject_files)
    extra = {
        "rows_by_status": {"TASK": summary["rows"], **dict(sorted(done.rejects.items()))},
        "hosts": done.hosts,
        "hosts_whose_rows_disagree": dict(sorted(done.conflicts.items())),
    }
    return write_report(run.where, "manifest", MANIFEST_44.name, source, column_report(plan, done.tally), extra)


def plan_manifest(source: pa.Schema, config: RunConfig, settings: ManifestImport, rules_file: str) -> Plan:
    """What becomes of each column."""
    extinction = {str(b): a for b, a in config.survey.extinction_per_ebv.items()}
    rules = [
        *task_rules(extinction),
        taken("mag_r", "rmag", how="as it is: whether it was dereddened is not established"),
        taken("mag_z", "zmag", how="as it is: whether it was dereddened is not established"),
        converted(
            "src_mag_r",
            ("rmag", "src_dmag"),
            "rmag + src_dmag",
            lambda batch: pa.array(batch.floats("rmag") + batch.floats("src_dmag")),
        ),
        converted(
            "region_fold",
            ("region_id",),
            f"a hash of the region, as in stage 4a: {config.manifest.folds} folds",
            lambda batch: _folds(batch, config.manifest.folds),
        ),
        *_mixture_rules(source, config.mixture),
    ]
    return make_plan(
        MANIFEST,
        source,
        rules,
        _REASONS,
        assign=settings.assign,
        draw_keyed=settings.draw_keyed,
        rules_file=rules_file,
    )


def _folds(batch: Batch, folds: int) -> pa.Array:
    regions = batch.column("region_id").to_pylist()
    return pa.array([None if r is None else fold_of_region(r, folds) for r in regions], pa.int32())


def _mixture_rules(source: pa.Schema, mixture: Mixture) -> list[Rule]:
    """The columns that a mixer wrote, or the run's own mixture of the tasks' names."""
    if all(name in source.names for name in MIXTURE.names):
        return [taken(name) for name in MIXTURE.names]
    mixer = mixture.mixer()

    def assigned(name: str) -> Callable[[Batch], pa.Array]:
        return lambda batch: _assign(batch, mixer, name)

    return [
        *(
            converted(name, ("task_id",), f"drawn by the mixture {mixture.name}", assigned(name))
            for name in ("source_mode", "artifact_profile")
        ),
        converted(
            "gen_variant",
            ("task_id",),
            f"name of the mixture {mixture.name}",
            lambda batch: pa.array([mixture.gen_variant] * batch.rows, pa.string()),
        ),
    ]


def _assign(batch: Batch, mixer: MixerConfig, name: str) -> pa.Array:
    """A row without a name is rejected later, and gets nothing here."""
    ids = batch.column("task_id").to_pylist()
    modes = iter(assign_modes_many([i for i in ids if i], mixer)[name])
    return pa.array([next(modes) if i else None for i in ids], pa.string())


def _check_rows(source: Source, settings: ManifestImport) -> Counter[str]:
    """Rows of each brick; StageError if the fluxes have another zero point."""
    other = 0

    def counted() -> Iterator[pa.Table]:
        nonlocal other
        for table in read_batches(source, MANIFEST_44, settings.batch_rows, only=["brickname", "ab_zp_nmgy"]):
            other += check_zero_point(Batch(table))
            yield table

    bricks = count_bricks(counted())
    if other:
        raise StageError(f"{source.where}: ab_zp_nmgy is not 22.5 in {other} row(s): its fluxes are not nanomaggies")
    return bricks


def _open(run: RunDir, source: Source, config: RunConfig, settings: ManifestImport, *, force: bool) -> StageRun:
    wanted = config.model_dump(mode="json", exclude={"rendering", "compact", "generations"})
    wanted["import"] = settings.model_dump(mode="json")
    inputs = {"parent": source.where.uri, "parent_rows": str(source.rows)}
    return open_stage("4a", run.phase4a, wanted, inputs, force=force)


def _with_row_numbers(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    first = 0
    for table in tables:
        yield table.append_column(_ROW, pa.array(np.arange(first, first + table.num_rows)))
        first += table.num_rows


@dataclass
class _Done:
    """What the import has written so far."""

    tally: Tally = field(default_factory=Tally)
    receipts: list[Receipt] = field(default_factory=list)
    rejects: Counter[str] = field(default_factory=Counter)
    reject_files: dict[str, WrittenFile] = field(default_factory=dict)
    conflicts: Counter[str] = field(default_factory=Counter)
    hosts: int = 0
    bricks: int = 0

    def reject(self, rejected: pa.Table, stage: StageRun) -> None:
        if rejected.num_rows:
            self.rejects.update(rejected.column("reason").to_pylist())
            self._write(rejected, stage)

    def close(self, stage: StageRun) -> None:
        """The rejects table is always there."""
        if not self.reject_files:
            self._write(REJECTS.empty_table(), stage)

    def _write(self, rejected: pa.Table, stage: StageRun) -> None:
        relative = f"rejects/part-{len(self.reject_files):05d}.parquet"
        data = encode_parquet(rejected, row_group_rows=65_536)
        (stage.where / relative).write_bytes(data)
        self.reject_files[relative] = WrittenFile.of(data)

    def summary(self, source: Source) -> dict[str, Any]:
        """The keys of stage 4a's JSON; an imported manifest has no proposal density."""
        return {
            "parent_rows": self.hosts + self.rejects.total(),
            "hosts": self.hosts,
            "rejects_by_reason": dict(sorted(self.rejects.items())),
            "bricks": self.bricks,
            "proposal_density_axes": {},
            "reject_files": list(self.reject_files),
            "imported_rows": source.rows,
        }


def _import_bricks(table: pa.Table, plan: Plan, config: RunConfig, stage: StageRun, done: _Done) -> None:
    """Whole bricks: rejects, and parts of hosts with their tasks."""
    batch = Batch(table.drop_columns([_ROW]))
    tasks = plan.apply(batch)
    row = table.column(_ROW)
    reasons, messages = _judge(tasks, config)
    done.tally.add_source(batch)
    good = np.array([r is None for r in reasons], bool)
    done.reject(_rejects(tasks, row, reasons, messages, ~good), stage)
    order = np.flatnonzero(good)
    keys = tasks.select(["brickname", "host_id"]).append_column(_ROW, row).take(order)
    order = order[pc.sort_indices(keys, [(n, "ascending") for n in keys.column_names]).to_numpy()]
    tasks, kept = tasks.take(order), table.take(order)
    done.tally.add_target(tasks)
    for first, count in _part_slices(tasks, config.manifest.hosts_per_part):
        _write_part(tasks.slice(first, count), kept.slice(first, count), plan, config, stage, done)


def _part_slices(tasks: pa.Table, hosts_per_part: int) -> Iterator[tuple[int, int]]:
    """(first row, rows) of parts of whole bricks, as stage 4a cuts them."""
    bricks, hosts = tasks.column("brickname").to_pylist(), tasks.column("host_id").to_pylist()
    first = held = 0
    for i in range(len(bricks)):
        new_host = i == 0 or hosts[i] != hosts[i - 1]
        if i > first and bricks[i] != bricks[i - 1] and held >= hosts_per_part:
            yield first, i - first
            first, held = i, 0
        held += new_host
    if len(bricks) > first:
        yield first, len(bricks) - first


def _write_part(tasks: pa.Table, kept: pa.Table, plan: Plan, config: RunConfig, stage: StageRun, done: _Done) -> None:
    writer = stage.writer(f"{len(done.receipts):05d}")
    hosts = _hosts(tasks, kept.column(_ROW), done)
    writer.write("hosts", hosts, row_group_rows=_ROW_GROUP)
    writer.write("manifest", _strict(tasks, MANIFEST), row_group_rows=config.manifest.tasks_per_shard)
    beside = kept.select(["task_id", *plan.not_taken])
    writer.write(SOURCE_COLUMNS, beside, row_group_rows=_ROW_GROUP)
    done.receipts.append(writer.finish(tasks.num_rows, {"TASK": tasks.num_rows}))
    done.hosts += hosts.num_rows
    done.bricks += len(pc.unique(tasks.column("brickname")))


def _hosts(tasks: pa.Table, row: pa.ChunkedArray, done: _Done) -> pa.Table:
    """One row per host: that of its first row in the source. Hosts whose rows disagree are counted by column."""
    ids = tasks.column("host_id").to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))  # sorted by host, then by source row
    first_of_row = np.repeat(starts, np.diff(np.append(starts, len(ids))))
    columns = []
    for target in HOSTS:
        if target.name == "parent_row":
            columns.append(row.take(starts))
        elif target.name in tasks.column_names:
            column = tasks.column(target.name).combine_chunks()
            differs = _differs(column, column.take(pa.array(first_of_row)))
            if differs.any():
                done.conflicts[target.name] += len(np.unique(first_of_row[differs]))
            columns.append(column.take(pa.array(starts)).cast(target.type))
        else:
            columns.append(pa.nulls(len(starts), target.type))
    return _strict(pa.table(columns, names=HOSTS.names), HOSTS)


def _differs(a: pa.Array, b: pa.Array) -> np.ndarray:
    if pa.types.is_nested(a.type):  # nothing earlier fills a list
        return np.zeros(len(a), bool)
    unequal = pc.fill_null(pc.not_equal(a, b), False)
    return np.asarray(pc.or_(unequal, pc.xor(a.is_null(), b.is_null())).to_numpy(zero_copy_only=False))


def _strict(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for target in schema:
        if not target.nullable and table.column(target.name).null_count:
            raise StageError(f"column {target.name} may not be null")
    return pa.table([table.column(n) for n in schema.names], schema=schema)


def _judge(tasks: pa.Table, config: RunConfig) -> tuple[list[str | None], list[str | None]]:
    """The first reason why a row is no task, with what was found."""
    reasons: list[str | None] = [None] * tasks.num_rows
    messages: list[str | None] = [None] * tasks.num_rows

    def reject(reason: RejectReason, column: str, is_bad: Any) -> None:
        for i, value in enumerate(tasks.column(column).to_pylist()):
            if reasons[i] is None and is_bad(value):
                reasons[i], messages[i] = reason.value, f"{column} {value}"

    def missing(value: Any) -> bool:
        return value is None

    reject(RejectReason.POSITION_INVALID, "ra_deg", lambda v: v is None or not 0 <= v < 360)
    reject(RejectReason.POSITION_INVALID, "dec_deg", lambda v: v is None or not abs(v) <= 90)
    reject(RejectReason.BRICKNAME_INVALID, "brickname", lambda v: v is None or not _BRICKNAME.match(v))
    for target in MANIFEST:
        if not target.nullable:
            reject(RejectReason.TASK_UNUSABLE, target.name, missing)
    bands = set(config.survey.bands)
    reject(RejectReason.TASK_UNUSABLE, "bandset", lambda v: not (_BANDSET.match(v or "") and set(v) <= bands))
    reject(RejectReason.TASK_UNUSABLE, "is_control", lambda v: v not in (0, 1))
    reject(RejectReason.TASK_UNUSABLE, "stamp_size_pix", lambda v: v is None or v <= 0)
    models = (MANIFEST.field("lens_model").metadata or {}).get(b"values", b"").decode().split("|")
    reject(RejectReason.TASK_UNUSABLE, "lens_model", lambda v: v is not None and v not in models)
    is_control = tasks.column("is_control").to_pylist()
    for i, model in enumerate(tasks.column("lens_model").to_pylist()):
        if reasons[i] is None and model is None and not is_control[i]:
            reasons[i], messages[i] = RejectReason.TASK_UNUSABLE.value, "no lens_model, and is_control is 0"
    return reasons, messages


def _rejects(
    tasks: pa.Table, row: pa.ChunkedArray, reasons: list[str | None], messages: list[str | None], bad: np.ndarray
) -> pa.Table:
    index = np.flatnonzero(bad)
    ids = tasks.column("task_id").to_pylist()
    made = {
        "reason": pa.array([reasons[i] for i in index], pa.string()),
        "message": pa.array([f"task {ids[i]}: {messages[i]}" for i in index], pa.string()),
        "parent_row": row.take(pa.array(index)),
    }
    columns = [
        made[f.name] if f.name in made else tasks.column(f.name).take(pa.array(index)).cast(f.type) for f in REJECTS
    ]
    return pa.table(columns, schema=REJECTS)
