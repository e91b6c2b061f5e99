"""Which files: the maps of a brick that stage 4b reads, and the bricks of a run, a list or a catalogue."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from dhs_pipeline.config import ConfigError, ParentColumns, Survey
from dhs_pipeline.fetch.settings import FetchSettings, Product
from dhs_pipeline.manifest.parent import ColumnMap, plan_parent, read_chunk, text_column
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.stage import StageError, require_finished
from dhs_pipeline.storage import Location

_BRICK = re.compile(r"\d{4}[pm]\d{3}")
_MAP_PRODUCTS: tuple[Product, ...] = ("image", "invvar", "nexp", "psfsize")


@dataclass(frozen=True)
class BrickFile:
    """One map: the same path below the base URL and below the destination."""

    brick: str
    product: Product
    path: str


@dataclass(frozen=True)
class Shard:
    """The share of one machine among ``of``: a brick belongs to the shard that its name hashes to."""

    index: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``i/n`` with i from 0 to n - 1; ConfigError if it is not."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not int(found[1]) < int(found[2]):
            raise ConfigError(f"--shard {text}: expected i/n with i from 0 to n - 1, such as 0/4, 1/4, 2/4 and 3/4")
        return cls(int(found[1]), int(found[2]))

    @property
    def tag(self) -> str:
        return f"{self.index}of{self.of}"

    def holds(self, brick: str) -> bool:
        return int.from_bytes(hashlib.sha256(brick.encode()).digest()[:8], "big") % self.of == self.index


def files_of(brick: str, survey: Survey) -> list[BrickFile]:
    """The maps that 4b opens for a host of this brick, in the order in which it opens them."""
    maps = [
        BrickFile(brick, product, _path(survey.map_path, brick, product, band))
        for product in _MAP_PRODUCTS
        for band in survey.bands
    ]
    return [*maps, BrickFile(brick, "maskbits", _path(survey.maskbits_path, brick, "maskbits", ""))]


def _path(pattern: str, brick: str, product: str, band: str) -> str:
    return pattern.format(folder=brick[:3], brick=brick, product=product, band=band)


def expected_bytes(file: BrickFile, settings: FetchSettings) -> int:
    return round(settings.expected_megabytes[file.product] * 1e6)


def chosen_bricks(bricks: Iterable[str], shard: Shard, limit: int | None) -> list[str]:
    """Each brick once, in the order of names; the shard's share, and of it the first ``limit``."""
    mine = sorted({brick for brick in bricks if shard.holds(brick)})
    return mine if limit is None else mine[:limit]


def bricks_of_run(run: RunDir) -> list[str]:
    """Bricks of the hosts of a finished 4a; StageError if it has not finished."""
    require_finished(run.phase4a, "4a")
    found: set[str] = set()
    for part in run.hosts.files(".parquet"):
        found.update(pc.unique(part.read_table(["brickname"]).column("brickname")).to_pylist())
    return sorted(found)


def bricks_of_list(file: Path) -> list[str]:
    """One brick per line; blank lines and what follows a # do not count.

    Raises
    ------
    ConfigError
        If there is no such file, it has no brick, or a line is not a brick name.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot read this list of bricks ({_reason(error)})") from error
    names = [(number, line.partition("#")[0].strip()) for number, line in enumerate(lines, start=1)]
    for number, name in names:
        if name and not _BRICK.fullmatch(name):
            raise ConfigError(f"{file}: line {number}: {name!r} is no brick name such as 1126p222")
    bricks = [name for _, name in names if name]
    if not bricks:
        raise ConfigError(f"{file}: no brick in this list; expected one name such as 1126p222 per line")
    return bricks


def bricks_of_parent(parent: Location, columns: ParentColumns) -> tuple[list[str], int]:
    """Bricks of a parent catalogue, and how many of its rows have none (4a rejects those).

    Raises
    ------
    StageError
        If it cannot be read, has no brick column, or no brick.
    """
    chunks, available = plan_parent(parent)
    wanted = columns.required.get("brickname") or columns.optional.get("brickname") or ("brickname",)
    column = _column(parent, available, wanted)
    found: set[str] = set()
    without = 0
    for chunk in chunks:
        for name in text_column(read_chunk(chunk, ColumnMap({"brickname": column}, ())), column):
            if name is not None and _BRICK.fullmatch(name):
                found.add(name)
            else:
                without += 1
    if not found:
        raise StageError(f"{parent}: column {column} holds no brick name such as 1126p222")
    return sorted(found), without


def _column(parent: Location, available: Sequence[str], wanted: Sequence[str]) -> str:
    by_lower = {name.lower(): name for name in available}
    for name in wanted:
        if name.lower() in by_lower:
            return by_lower[name.lower()]
    raise StageError(f"{parent}: no brick column (looked for {', '.join(wanted)})")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
