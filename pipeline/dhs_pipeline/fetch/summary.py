"""What a fetch came to: counts by status, what the release does not have, what failed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dhs_pipeline import __version__
from dhs_pipeline.fetch.files import Shard
from dhs_pipeline.fetch.record import FetchRow, FetchStatus, Known
from dhs_pipeline.fetch.settings import FetchSettings

_LISTED = 100
"""Failures that a summary tells of; the record has all."""

SETTLED = frozenset({FetchStatus.OK, FetchStatus.NOT_FOUND})


class Tally:
    """Counts the files of one run, known and new."""

    def __init__(self, bricks: Sequence[str], settings: FetchSettings, shard: Shard) -> None:
        self._bricks = len(bricks)
        self._settings = settings
        self._shard = shard
        self._started = time.monotonic()
        self._statuses: Counter[str] = Counter()
        self._known = 0
        self._verified = 0
        self._bytes = 0
        self._bytes_fetched = 0
        self._requests = 0
        self._not_found: Counter[str] = Counter()
        self._failures: list[dict[str, Any]] = []
        self.failed_in_a_row = 0
        self.last_failure: str | None = None
        self.stopped: str | None = None

    def add_known(self, path: str, brick: str, known: Known) -> None:
        self._known += 1
        self._add(known.status, path, brick, known.bytes, known.verified)

    def add_new(self, row: FetchRow) -> None:
        self._requests += row.attempts
        self._add(row.status, row.path, row.brick, row.bytes, row.verified)
        if row.attempts:
            self._bytes_fetched += row.bytes or 0
        if row.status is FetchStatus.FAILED:
            self.failed_in_a_row += 1
            self.last_failure = row.message
        else:
            self.failed_in_a_row = 0
        if row.status not in SETTLED and len(self._failures) < _LISTED:
            self._failures.append({"path": row.path, "status": str(row.status), "message": row.message})

    def _add(self, status: FetchStatus, path: str, brick: str, size: int | None, verified: bool) -> None:
        self._statuses[str(status)] += 1
        self._bytes += size or 0
        self._verified += verified
        if status is FetchStatus.NOT_FOUND:
            self._not_found[brick] += 1

    def summary(self) -> dict[str, Any]:
        """As it is written to ``_fetch/summary.json``."""
        seconds = time.monotonic() - self._started
        return {
            "code_version": __version__,
            "source": self._settings.base_url,
            "shard": f"{self._shard.index}/{self._shard.of}",
            "bricks": self._bricks,
            "files": sum(self._statuses.values()),
            "files_by_status": dict(sorted(self._statuses.items())),
            "files_done_before": self._known,
            "files_verified_by_release": self._verified,
            "bytes": self._bytes,
            "bytes_fetched": self._bytes_fetched,
            "requests": self._requests,
            "seconds": round(seconds, 1),
            "megabytes_per_second": round(self._bytes_fetched / 1e6 / seconds, 2) if seconds > 0 else None,
            "stopped": self.stopped,
            "bricks_with_files_not_in_release": dict(sorted(self._not_found.items())),
            "failures": self._failures,
        }


def exit_code(summary: Mapping[str, Any]) -> int:
    """0: every file is OK or not in the release; 1: some are not, or the run stopped early."""
    return int(summary["stopped"] is not None or bool(set(summary["files_by_status"]) - SETTLED))
