"""The mixture's columns in a Parquet manifest, streamed: memory does not grow with the number of rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhs_gen.uber.mixture import MixerConfig, assign_categories

if TYPE_CHECKING:
    import pyarrow as pa

MODE_COLUMNS = ("source_mode", "artifact_profile", "gen_variant")
METADATA_KEY = b"dhs_mixture"
"""Schema metadata: the mixture of the rows as JSON."""
ROW_GROUP_ROWS = 65_536
"""Rows of every row group but the last, whatever the input's: mixing a mixed manifest again gives the same bytes."""
READ_BUFFER_BYTES = 1 << 16
"""Columns are read page by page through a buffer; without one, a whole column of a row group is held at once."""


def add_modes_to_manifest_pyarrow(
    in_parquet: str | os.PathLike[str],
    out_parquet: str | os.PathLike[str],
    cfg: MixerConfig,
    task_id_col: str = "task_id",
    gen_variant: str = "uber_mix",
) -> int:
    """Add ``source_mode``, ``artifact_profile`` and ``gen_variant`` to every row of a manifest.

    The assignment depends on the task_id and the mixture alone, so it is the same for any order of rows, number of
    files or machine. Columns of these names that are already there are replaced; all others, their metadata and the
    order of rows stay. The mixture is recorded in the schema's metadata. Files are compressed with zstd. Each output
    file appears complete or not at all (a temporary name beside it, then a rename), so the output may be the input.

    Parameters
    ----------
    in_parquet
        A Parquet file, or a folder of them (any depth; names that begin with ``_`` or ``.`` are passed over).
    out_parquet
        A file for a file, a folder for a folder (with the same names inside).
    cfg
        The mixture.
    task_id_col
        Column of the task ids, strings.
    gen_variant
        Value of the column ``gen_variant``.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    FileNotFoundError
        If there is no input.
    ValueError
        If the input holds no Parquet file, a file lacks the task_id column, a task_id is null or empty, or the output
        folder holds Parquet files that are not of this input.
    """
    if not gen_variant:
        raise ValueError(f"gen_variant must not be empty, got {gen_variant!r}")
    if task_id_col in MODE_COLUMNS:
        raise ValueError(f"task_id_col must not be one of the columns that are replaced, got {task_id_col!r}")
    source, target = Path(in_parquet), Path(out_parquet)
    files = parquet_files(source)
    if source.is_file():
        if target.is_dir():
            raise ValueError(f"out_parquet must be a file, as in_parquet is one; {target} is a folder")
        pairs = [(source, target)]
    else:
        pairs = [(file, target / file.relative_to(source)) for file in files]
        if target.exists():
            if not target.is_dir():
                raise ValueError(f"out_parquet must be a folder, as in_parquet is one; {target} is a file")
            if strange := sorted(set(_listed(target)) - {file for _, file in pairs}):
                raise ValueError(f"out_parquet {target} holds other Parquet files already, such as {strange[0].name}")
    for file, _ in pairs:
        _check_schema(file, task_id_col)
    return sum(_mix_file(file, output, cfg, task_id_col, gen_variant) for file, output in pairs)


def parquet_files(path: Path) -> list[Path]:
    """The file, or the Parquet files of the folder, sorted.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If the folder holds no Parquet file.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder")
    files = _listed(path)
    if not files:
        raise ValueError(f"{path}: the folder holds no Parquet file")
    return files


def mixture_of(schema: pa.Schema) -> MixerConfig | None:
    """The mixture that the rows were given, if the schema's metadata says so."""
    text = (schema.metadata or {}).get(METADATA_KEY)
    if text is None:
        return None
    values = json.loads(text)
    del values["gen_variant"]
    return MixerConfig(**values)


def _listed(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*.parquet")
        if file.is_file() and not any(part.startswith(("_", ".")) for part in file.relative_to(folder).parts)
    )


def _check_schema(file: Path, task_id_col: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(file)
    if schema.names.count(task_id_col) != 1:
        raise ValueError(f"{file}: task_id_col {task_id_col!r} is not a column; there are {', '.join(schema.names)}")
    kind = schema.field(task_id_col).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ValueError(f"{file}: column {task_id_col!r} must hold strings, it holds {kind}")


def _mix_file(source: Path, target: Path, cfg: MixerConfig, task_id_col: str, gen_variant: str) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    target.parent.mkdir(parents=True, exist_ok=True)
    # The name ends in .tmp: no reader of a folder takes it for data.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    rows = 0
    try:
        with pq.ParquetFile(source, buffer_size=READ_BUFFER_BYTES, pre_buffer=False) as manifest:
            kept = [name for name in manifest.schema_arrow.names if name not in MODE_COLUMNS]
            schema = _mixed_schema(manifest.schema_arrow, kept, cfg, gen_variant)
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                for table in _chunks(manifest, kept):
                    modes = _modes(table.column(task_id_col), rows, source, task_id_col, cfg)
                    columns = [*table.columns, *modes, pa.repeat(gen_variant, len(table))]
                    writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=ROW_GROUP_ROWS)
                    rows += len(table)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def _chunks(manifest: Any, columns: list[str]) -> Iterator[pa.Table]:
    """Tables of ROW_GROUP_ROWS rows, the last one shorter, across the file's row groups; nothing from an empty file.

    Their columns are contiguous: the writer begins a page at each chunk, so chunks would show in the bytes.
    """
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    count = 0
    for batch in manifest.iter_batches(batch_size=ROW_GROUP_ROWS, columns=columns):
        while count + len(batch) >= ROW_GROUP_ROWS:
            room = ROW_GROUP_ROWS - count
            yield pa.Table.from_batches([*held, batch.slice(0, room)]).combine_chunks()
            held, count, batch = [], 0, batch.slice(room)
        if len(batch):
            held.append(batch)
            count += len(batch)
    if held:
        yield pa.Table.from_batches(held).combine_chunks()


def _modes(ids: pa.ChunkedArray, first_row: int, file: Path, name: str, cfg: MixerConfig) -> list[pa.Array]:
    """The columns source_mode and artifact_profile."""
    import pyarrow as pa

    if ids.null_count:
        raise ValueError(f"{file}: {ids.null_count} null {name} among rows {first_row} to {first_row + len(ids) - 1}")
    try:
        chosen = assign_categories(ids.to_pylist(), cfg)
    except ValueError as error:
        raise ValueError(f"{file}: {error}, counted from row {first_row}") from error
    names = (cfg.source_modes, cfg.artifact_profiles)
    return [pa.array(modes, pa.string()).take(pa.array(index)) for modes, index in zip(names, chosen, strict=True)]


def _mixed_schema(schema: pa.Schema, kept: list[str], cfg: MixerConfig, gen_variant: str) -> pa.Schema:
    import pyarrow as pa

    # A mixed manifest's own fields come back as they are, so that mixing it again changes nothing.
    fields = [schema.field(name) for name in kept] + [pa.field(name, pa.string()) for name in MODE_COLUMNS]
    metadata = dict(schema.metadata or {})
    metadata[METADATA_KEY] = json.dumps(asdict(cfg) | {"gen_variant": gen_variant}, sort_keys=True).encode()
    return pa.schema(fields, metadata=metadata)
