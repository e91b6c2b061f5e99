"""Stage 4a on Spark: parent catalogue → hosts, rejects and manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dhs_gen.status import RejectReason
from dhs_pipeline.config import RunConfig
from dhs_pipeline.failures import told_in_one_line
from dhs_pipeline.manifest.hosts import CANDIDATES, normalise
from dhs_pipeline.manifest.parent import ColumnMap, ParentChunk, map_columns, plan_parent, read_chunk
from dhs_pipeline.manifest.tasks import density_axes, expand, tasks_per_host
from dhs_pipeline.receipts import Receipt, WrittenFile
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import HOSTS, REJECTS
from dhs_pipeline.stage import StageError, StageRun, open_stage, run_units
from dhs_pipeline.storage import Location, encode_parquet, write_parquet

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_REJECTS_PER_FILE = 500_000
_HOST_ROW_GROUP = 4096


def run_manifest(
    spark: SparkSession, run: RunDir, parent: Location, config: RunConfig, *, force: bool, progress: bool
) -> dict[str, Any]:
    """Make the hosts, rejects and manifest tables; returns the stage's JSON.

    Every parent row ends in exactly one of hosts and rejects. Hosts are written in parts of whole bricks; a part's
    tasks are one manifest file, whose row groups are the units of 4c.

    Raises
    ------
    StageError
        If the parent cannot be read, lacks a column, or no row of it is a host.
    """
    chunks, columns = check_parent(parent, config)
    wanted = config.model_dump(mode="json", exclude={"rendering", "compact", "generations", "artifacts"})
    inputs = {"parent": parent.uri, "parent_rows": str(sum(c.rows for c in chunks))}
    stage = open_stage("4a", run.phase4a, wanted, inputs, force=force)
    if (finished := stage.finished_summary()) is not None:
        return finished

    candidates = _candidates(spark, chunks, columns, config).persist()
    try:
        hosts_of_brick, rejected = _count(candidates)
        part_of_brick = _parts(hosts_of_brick, config.manifest.hosts_per_part)
        reject_files = _write_rejects(candidates, stage, sum(rejected.values()))
        if not part_of_brick:
            raise StageError(f"{parent}: none of its rows is a host: {dict(rejected)}")
        hosts = _write_hosts(spark, candidates, part_of_brick, stage)
    finally:
        candidates.unpersist()
    receipts = _write_tasks(spark, hosts, stage, config, progress)
    return stage.finish(
        receipts,
        {
            "parent_rows": sum(hosts.values()) + sum(rejected.values()),
            "hosts": sum(hosts.values()),
            "rejects_by_reason": dict(sorted(rejected.items())),
            "bricks": len(part_of_brick),
            "proposal_density_axes": density_axes(config),
            "reject_files": sorted(reject_files),
        },
        reject_files,
    )


def check_parent(parent: Location, config: RunConfig) -> tuple[list[ParentChunk], ColumnMap]:
    """Plan the reading of a parent; StageError if it is unreadable or lacks a column. Needs no Spark."""
    chunks, available = plan_parent(parent)
    return chunks, map_columns(parent, available, config.parent)


def _candidates(spark: SparkSession, chunks: list[ParentChunk], columns: ColumnMap, config: RunConfig) -> DataFrame:
    """Every parent row, normalised, with the reason why it is no host; duplicates included."""
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    plan = spark.createDataFrame([(c.uri, c.row_group, c.first_row, c.rows) for c in chunks], _CHUNK_DDL)

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in batch.to_pylist():
                table = normalise(read_chunk(ParentChunk(**row), columns), columns, config)
                yield from table.to_batches(max_chunksize=4096)

    rows = plan.repartition(len(chunks)).mapInArrow(read, _spark_schema(CANDIDATES))
    # The first good row of a host stays; the same host again is a reject.
    order = Window.partitionBy("host_id").orderBy(f.col("reason").isNotNull(), "parent_row")
    again = (f.row_number().over(order) > 1) & f.col("reason").isNull()
    duplicate = f.lit(RejectReason.DUPLICATE_HOST.value)
    return rows.withColumn("_again", again).select(
        *[c for c in CANDIDATES.names if c not in ("reason", "message")],
        f.when(f.col("_again"), duplicate).otherwise(f.col("reason")).alias("reason"),
        f.when(f.col("_again"), f.concat(f.lit("host_id again: "), "host_id"))
        .otherwise(f.col("message"))
        .alias("message"),
    )


_CHUNK_DDL = "uri string, row_group long, first_row long, rows long"


def _spark_schema(schema: pa.Schema) -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)


def _count(candidates: DataFrame) -> tuple[Counter[str], Counter[str]]:
    """Hosts of each brick, and rejects of each reason."""
    hosts: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for row in candidates.groupBy("brickname", "reason").count().collect():
        if row["reason"] is None:
            hosts[row["brickname"]] += row["count"]
        else:
            rejected[row["reason"]] += row["count"]
    return hosts, rejected


def _parts(hosts_of_brick: Mapping[str, int], hosts_per_part: int) -> dict[str, int]:
    """Brick → part: bricks in the order of their names, a new part once one holds ``hosts_per_part`` hosts."""
    parts: dict[str, int] = {}
    part = held = 0
    for brickname, hosts in sorted(hosts_of_brick.items()):
        if held >= hosts_per_part:
            part, held = part + 1, 0
        parts[brickname] = part
        held += hosts
    return parts


def _write_hosts(
    spark: SparkSession, candidates: DataFrame, part_of_brick: Mapping[str, int], stage: StageRun
) -> dict[int, int]:
    """Shuffle hosts to their parts and write each as one file; returns part → hosts."""
    from pyspark.sql import functions as f

    n_parts = max(part_of_brick.values()) + 1
    parts = spark.createDataFrame(list(part_of_brick.items()), "brickname string, part int")
    where = stage.where

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for part, hosts in _by_part(batches):
            write_parquet(hosts, where / f"hosts/part-{part:05d}.parquet", row_group_rows=_HOST_ROW_GROUP)
            yield pa.RecordBatch.from_pydict({"part": pa.array([part], pa.int32()), "hosts": [hosts.num_rows]})

    written = (
        candidates.where("reason is null")
        .join(f.broadcast(parts), "brickname")
        .repartition(min(n_parts, _partitions(spark)), "part")
        .sortWithinPartitions("part", "brickname", "host_id")
        .select(*HOSTS.names, "part")
        .mapInArrow(write, "part int, hosts long")
        .collect()
    )
    return {row["part"]: row["hosts"] for row in sorted(written)}


def _write_tasks(
    spark: SparkSession, hosts: Mapping[int, int], stage: StageRun, config: RunConfig, progress: bool
) -> list[Receipt]:
    """Expand each part of the hosts into its tasks."""

    def work(parts: Iterator[int]) -> Iterator[Receipt]:
        for part in parts:
            yield expand_part(stage, part, config)

    return run_units(
        spark,
        stage,
        "4a manifest",
        sorted(hosts),
        work,
        done=[],
        partitions=_partitions(spark),  # a part takes as long as Spark's own work for a partition: several share one
        rows_of=lambda part: hosts[part] * tasks_per_host(config),
        progress=progress,
    )


def _partitions(spark: SparkSession) -> int:
    return int(spark.sparkContext.defaultParallelism) * 4


def expand_part(stage: StageRun, part: int, config: RunConfig) -> Receipt:
    """Write the tasks of a part of the hosts, whose file is there."""
    writer = stage.writer(f"{part:05d}")
    hosts = (stage.where / f"hosts/part-{writer.unit}.parquet").read_table()
    tasks = expand(hosts, config)
    writer.adopt("hosts", hosts)
    writer.write("manifest", tasks, row_group_rows=config.manifest.tasks_per_shard)
    return writer.finish(tasks.num_rows, {"TASK": tasks.num_rows})


def _by_part(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    """Rows sorted by part → one HOSTS table per part."""
    held: list[pa.Table] = []
    current: int | None = None
    for batch in batches:
        table = pa.Table.from_batches([batch])
        for part in table.column("part").unique().to_pylist():
            rows = table.filter(pc.equal(table.column("part"), part)).select(HOSTS.names).cast(HOSTS)
            if part != current and held:
                yield current, pa.concat_tables(held).combine_chunks()  # type: ignore[misc]
                held = []
            current = part
            held.append(rows)
    if held:
        yield current, pa.concat_tables(held).combine_chunks()  # type: ignore[misc]


def _write_rejects(candidates: DataFrame, stage: StageRun, count: int) -> dict[str, WrittenFile]:
    """Write the rejected rows, in one file at least so that the table is always there; returns the files."""
    where = stage.where

    def write(index: int, rows: Iterator[Any]) -> Iterator[tuple[str, WrittenFile]]:
        table = pa.Table.from_pylist([r.asDict() for r in rows], schema=REJECTS)
        relative = f"rejects/part-{index:05d}.parquet"
        data = encode_parquet(table, row_group_rows=65_536)
        (where / relative).write_bytes(data)
        yield relative, WrittenFile.of(data)

    rejects = candidates.where("reason is not null").select(*REJECTS.names)
    files = rejects.repartition(1 + count // _REJECTS_PER_FILE, "parent_row").sortWithinPartitions("parent_row")
    with told_in_one_line("4a rejects"):
        return dict(sorted(files.rdd.mapPartitionsWithIndex(write).collect()))
