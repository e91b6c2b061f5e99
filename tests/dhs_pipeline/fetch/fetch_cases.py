"""What the tests of the fetch share: small maps, a clock that does not wait, one call to fetch and its rows."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from bad_server import BadServer

from dhs_pipeline.config import Survey, load_section
from dhs_pipeline.fetch.files import Shard, files_of
from dhs_pipeline.fetch.record import read_record
from dhs_pipeline.fetch.run import run_fetch
from dhs_pipeline.fetch.settings import load_fetch_settings
from dhs_pipeline.fetch.work import FetchPlan
from dhs_pipeline.storage import Location

BRICK, OTHER = "0591m305", "0594p100"
SURVEY = load_section(Survey, "survey", "dr10")
ONE_BAND = SURVEY.model_copy(update={"bands": ("r",)})
IMAGE = f"coadd/059/{BRICK}/legacysurvey-{BRICK}-image-r.fits.fz"

Row = dict[str, Any]


class FakeClock:
    """Sleeping only moves its hands."""

    def __init__(self) -> None:
        self._now = 1000.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        with self._lock:
            return self._now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds
            self.slept.append(seconds)


@lru_cache(maxsize=64)
def fits_map(name: str) -> bytes:
    """A compressed map of its own, 10 to 20 kB."""
    rng = np.random.default_rng(list(name.encode()))
    image = rng.normal(0, 1, (60, 60)).astype(np.float32)
    out = io.BytesIO()
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image, compression_type="GZIP_2", quantize_level=0)])
    hdus.writeto(out)
    return out.getvalue()


def serve(server: BadServer, bricks: Sequence[str] = (BRICK,), survey: Survey = ONE_BAND) -> None:
    for brick in bricks:
        server.files |= {f.path: fits_map(f.path) for f in files_of(brick, survey)}


def sums_path(brick: str) -> str:
    return f"coadd/{brick[:3]}/{brick}/legacysurvey_dr10_south_coadd_{brick[:3]}_{brick}.sha256sum"


def serve_sums(server: BadServer, brick: str = BRICK) -> None:
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {path.rpartition('/')[2]}\n"
        for path, content in server.files.items()
        if f"/{brick}/" in path
    ]
    server.files[sums_path(brick)] = "".join(lines).encode()


def fetch(
    server: BadServer,
    where: Path | str,
    bricks: Sequence[str] = (BRICK,),
    *,
    survey: Survey = ONE_BAND,
    clock: FakeClock | None = None,
    jobs: int = 1,
    shard: Shard | None = None,
    ask_again: bool = False,
    scratch: Path | None = None,
    **changes: object,
) -> dict[str, Any]:
    """Fetch without waiting and without jitter; ``changes`` are of conf/fetch."""
    values = {"base_url": server.url, "chunk_kilobytes": 1, "start_jitter_s": 0} | changes
    plan = FetchPlan(
        bricks=list(bricks),
        survey=survey,
        settings=load_fetch_settings("dr10", [f"{key}={value}" for key, value in values.items()]),
        destination=Location.of(where),
        jobs=jobs,
        shard=shard or Shard(),
        ask_again=ask_again,
        scratch=scratch,
    )
    return run_fetch(plan, progress=False, clock=clock or FakeClock(), uniform=lambda: 0.5)


def rows_of(where: Path | str) -> dict[str, Row]:
    return {row["path"]: row for row in read_record(Location.of(where)).to_pylist()}


def statuses_of(where: Path | str) -> dict[str, str]:
    return {path: row["status"] for path, row in rows_of(where).items()}


def files_below(where: Path) -> dict[str, bytes]:
    return {str(p.relative_to(where)): p.read_bytes() for p in (where / "coadd").rglob("*") if p.is_file()}


def partials_below(where: Path) -> list[str]:
    return sorted(p.name for p in (where / "_fetch" / "partial").rglob("*") if p.is_file() and p.suffix != ".lock")
