"""What 4b is told of maps that are not there: that the release has none, or that fetching them failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dhs_pipeline.fetch.record import FetchStatus, folder_of, read_not_ok
from dhs_pipeline.storage import Location


@dataclass(frozen=True)
class Absence:
    """Why maps are absent, as far as the record of a fetch knows.

    Parameters
    ----------
    not_in_release
        Message if the server answered 404 to one of them, else empty.
    failed
        What to add to a message if one of them could not be fetched, else empty.
    """

    not_in_release: str = ""
    failed: str = ""


def why_absent(data: Location, maps: Sequence[Location]) -> Absence:
    """Look maps that are not there up in the record of ``dhs bricks fetch`` below ``data``, if it has one."""
    known = _not_ok(data)
    rows = {where.name: known[path] for where in maps if (path := where.uri.removeprefix(f"{data}/")) in known}
    gone = {name: source for name, (status, _, source) in rows.items() if status == FetchStatus.NOT_FOUND}
    failed = {name: f"{status} ({message})" for name, (status, message, _) in rows.items() if name not in gone}
    return Absence(
        f"{', '.join(gone)}: 404 at {', '.join(sorted(set(gone.values())))}" if gone else "",
        f"; not fetched: {_grouped(failed)}" if failed else "",
    )


def _grouped(reasons: Mapping[str, str]) -> str:
    """``a, b: reason; c: reason``."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(group)}: {reason}" for reason, group in names.items())


def _not_ok(data: Location) -> Mapping[str, tuple[str, str | None, str]]:
    """Path → status, message, source of every file that is not OK; read once per process and state of the record."""
    parts = folder_of(data).files_with_sizes(".parquet")
    return _read(data.uri, tuple((part.name, size) for part, size in parts)) if parts else {}


@lru_cache(maxsize=2)
def _read(data: str, _parts: tuple[tuple[str, int], ...]) -> Mapping[str, tuple[str, str | None, str]]:
    rows = read_not_ok(Location(data), ["path", "status", "message", "source"])
    return {r["path"]: (r["status"], r["message"], r["source"]) for r in rows.to_pylist()}
