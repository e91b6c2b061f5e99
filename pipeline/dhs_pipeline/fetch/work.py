"""What is to be fetched, and what is done with one brick of it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from dhs_pipeline.config import Survey
from dhs_pipeline.fetch.download import Downloader, Sums
from dhs_pipeline.fetch.files import BrickFile, Shard, files_of
from dhs_pipeline.fetch.record import FetchRow, FetchStatus, Known, KnownFiles, folder_of
from dhs_pipeline.fetch.server import GivenUpError, Server
from dhs_pipeline.fetch.settings import FetchSettings
from dhs_pipeline.storage import Location


@dataclass(frozen=True)
class FetchPlan:
    """What is to be fetched, and where to.

    Parameters
    ----------
    bricks
        Names, each once.
    survey
        Bands and paths of the maps.
    settings
        Server and manners.
    destination
        Folder or s3:// prefix that will hold coadd/.
    jobs
        Connections at once.
    shard
        This machine's share; ``bricks`` are its own already.
    ask_again
        Also ask for files that the server answered 404 to on an earlier run.
    scratch
        Local folder of partial files; None: below the destination, for s3:// below the system's temporary folder.
    """

    bricks: Sequence[str]
    survey: Survey
    settings: FetchSettings
    destination: Location
    jobs: int
    shard: Shard = field(default_factory=Shard)
    ask_again: bool = False
    scratch: Path | None = None

    def partials(self) -> Path:
        """Folder of this shard's partial files."""
        if self.scratch is not None:
            return self.scratch / self.shard.tag
        if not self.destination.is_s3:
            return Path(folder_of(self.destination).uri) / "partial" / self.shard.tag
        name = hashlib.sha256(self.destination.uri.encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"dhs-fetch-{name}" / self.shard.tag


@dataclass(frozen=True)
class Outcome:
    """A file that is settled for this run: with a new row, or known from an earlier one."""

    file: BrickFile
    row: FetchRow | None
    known: Known | None


class Work:
    """What a thread does with a brick."""

    def __init__(self, plan: FetchPlan, known: KnownFiles, server: Server, partials: Path) -> None:
        self._plan = plan
        self._known = known
        self._base_url = server.base_url
        self._downloader = Downloader(server, plan.destination, partials)
        # Bricks come in the order of names, so a few folders are enough for all threads.
        self._present = lru_cache(maxsize=8)(self._list)

    def brick(self, brick: str) -> Iterator[Outcome]:
        """Every file of the brick, each to its end."""
        known = self._known.of(brick)
        files = files_of(brick, self._plan.survey)
        present = self._present(files[0].path.split(f"/{brick}/")[0])
        waiting = []
        for file in files:
            row = known.get(file.path)
            if row and self._is_settled(row, present.get(file.path)):
                yield Outcome(file, None, row)
            else:
                waiting.append(file)
        if waiting:
            yield from self._fetch(brick, waiting, known, present)

    def _fetch(
        self, brick: str, files: Sequence[BrickFile], known: Mapping[str, Known], present: Mapping[str, int]
    ) -> Iterator[Outcome]:
        try:
            sums = self._sums(brick)
        except GivenUpError as error:
            for file in files:
                yield Outcome(file, self._downloader.not_asked(file, error, "the brick's checksums"), None)
            return
        for file in files:
            row = None
            # There, and not under an OK row: left by a run that was killed before it wrote its row, or by other tools.
            recorded_ok = file.path in known and known[file.path].status is FetchStatus.OK
            if present.get(file.path) and not recorded_ok:
                row = self._downloader.adopt(file, sums)
            yield Outcome(file, row or self._downloader.fetch(file, sums), None)

    def _sums(self, brick: str) -> Sums:
        pattern = self._plan.settings.checksums_path
        return None if pattern is None else self._downloader.sums(pattern.format(folder=brick[:3], brick=brick))

    def _is_settled(self, known: Known, size: int | None) -> bool:
        if known.status is FetchStatus.NOT_FOUND:
            return size is None and known.source == self._base_url and not self._plan.ask_again
        return known.status is FetchStatus.OK and size is not None and size == known.bytes

    def _list(self, folder: str) -> dict[str, int]:
        """Path → bytes of the files below a folder of the destination."""
        prefix = len(self._plan.destination.uri) + 1
        listed = (self._plan.destination / folder).files_with_sizes(recursive=True)
        return {where.uri[prefix:]: size for where, size in listed}
