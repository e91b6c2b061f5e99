"""The commit of a stage: one small file, put once, that names every file of its output with size and checksum.

Workers write files whole or not at all under names that follow from the input, so a retried or speculative attempt
writes the same bytes to the same place. The driver then puts ``_manifest.json`` if it is absent (S3: If-None-Match)
and marks the stage with ``_SUCCESS``. Until then nothing downstream reads the stage; from then on its readers take the
files that the manifest names and no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from dhs_pipeline.receipts import WrittenFile
from dhs_pipeline.storage import Location

MANIFEST = "_manifest.json"
SUCCESS = "_SUCCESS"


class CommitError(RuntimeError):
    """Output that is not what was committed; the message is one line for the user."""


def commit(where: Location, plan_id: str, files: Mapping[str, WrittenFile]) -> None:
    """Make ``files`` the output of the stage at ``where``, and everything else no part of it.

    Raises
    ------
    CommitError
        If another driver has committed other files for the same stage.
    """
    _remove_strays(where, files)
    manifest = {"plan_id": plan_id, "files": {path: asdict(file) for path, file in sorted(files.items())}}
    data = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    if (where / MANIFEST).put_if_absent(data):
        return
    if (difference := _first_difference(committed(where), files)) is not None:
        raise CommitError(
            f"{where}: another run has committed other output here ({difference}); see that only one runs, then --force"
        )


def mark_finished(where: Location) -> None:
    (where / SUCCESS).write_bytes(b"")


def is_finished(where: Location) -> bool:
    return (where / SUCCESS).exists()


def withdraw(where: Location) -> None:
    """Take back the commit of a stage that lost files and will be worked on again."""
    (where / SUCCESS).delete()
    (where / MANIFEST).delete()


def committed(where: Location) -> dict[str, WrittenFile]:
    """Relative path → file, as committed.

    Raises
    ------
    CommitError
        If nothing has been committed there.
    """
    if not (where / MANIFEST).exists():
        raise CommitError(f"{where}: nothing is committed here (no {MANIFEST}); run the stage first")
    tree: Mapping[str, Any] = (where / MANIFEST).read_json()
    return {path: WrittenFile(**file) for path, file in tree["files"].items()}


def committed_files(where: Location, table: str) -> list[Location]:
    """Files of one table, in order of name; CommitError as :func:`committed`, or if one of them is gone or changed."""
    files = {path: file for path, file in committed(where).items() if path.startswith(f"{table}/")}
    _check_sizes(where, files)
    return [where / path for path in sorted(files)]


def is_whole(where: Location) -> bool:
    """Whether the stage is committed and all its files are there, with their sizes."""
    if not is_finished(where) or not (where / MANIFEST).exists():
        return False
    try:
        _check_sizes(where, committed(where))
    except CommitError:
        return False
    return True


def verify(where: Location) -> list[str]:
    """Read every committed file again: relative paths of those that are not, byte for byte, what was committed."""
    files = committed(where)
    with ThreadPoolExecutor(8) as pool:
        good = pool.map(lambda item: _is_as_written(where / item[0], item[1]), files.items())
        return [path for path, ok in zip(files, good, strict=True) if not ok]


def _is_as_written(file: Location, wanted: WrittenFile) -> bool:
    try:
        return WrittenFile.of(file.read_bytes()) == wanted
    except FileNotFoundError:
        return False


def sizes_of(where: Location) -> dict[str, int]:
    """Relative path → bytes of every Parquet file below a stage's folder."""
    base = len(where.uri) + 1
    return {file.uri[base:]: size for file, size in where.files_with_sizes(".parquet", recursive=True)}


def _check_sizes(where: Location, files: Mapping[str, WrittenFile]) -> None:
    sizes = sizes_of(where)
    bad = [path for path, file in sorted(files.items()) if sizes.get(path) != file.size_bytes]
    if bad:
        raise CommitError(
            f"{where}: {len(bad)} of {len(files)} committed files are gone or have another size ({bad[0]}, …); "
            "run that stage again: it makes what is missing"
        )


def _remove_strays(where: Location, files: Mapping[str, WrittenFile]) -> None:
    for path in sizes_of(where).keys() - files.keys():
        (where / path).delete()


def _first_difference(old: Mapping[str, WrittenFile], new: Mapping[str, WrittenFile]) -> str | None:
    return next((path for path in sorted({*old, *new}) if old.get(path) != new.get(path)), None)
