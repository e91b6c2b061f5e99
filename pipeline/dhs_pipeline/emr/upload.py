"""The bundle's way to S3: wheels, lock, bootstrap and jobs under ``<stage-uri>/<version>/``."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dhs_pipeline.emr.client import EmrError
from dhs_pipeline.storage import Location

SUMS = "SHA256SUMS"
_DESCRIPTION = "bundle.json"
_NEEDED = (SUMS, _DESCRIPTION, "bootstrap/install.sh", "jobs/stage_4a_manifest.py")
_THREADS = 8


@dataclass(frozen=True)
class Upload:
    """What has been, or would be, copied: path inside the bundle → bytes."""

    target: Location
    copied: dict[str, int]
    there: dict[str, int]


def bundle_files(bundle: Path) -> dict[str, int]:
    """Files of a local bundle with their bytes.

    Raises
    ------
    EmrError
        If it is no bundle.
    """
    files = {str(p.relative_to(bundle)): p.stat().st_size for p in sorted(bundle.rglob("*")) if p.is_file()}
    if missing := [name for name in _NEEDED if name not in files]:
        raise EmrError(f"{bundle}: no bundle ({', '.join(missing)} missing); make it with `make bundle`")
    return files


def upload_bundle(
    bundle: Path, target: Location, *, everything: bool = False, tell: Callable[[str], None] = lambda _: None
) -> Upload:
    """Copy what is not there with the same size; SHA256SUMS goes last, so that a half-copied bundle shows.

    Where the SHA256SUMS that is there differs, a file of the same size may have other content: then all is copied,
    as with ``everything``.
    """
    files = bundle_files(bundle)
    sums = (bundle / SUMS).read_bytes()
    try:
        sums_there = (target / SUMS).read_bytes() if (target / SUMS).exists() else None
        trusted = not everything and sums_there in (None, sums)
        sizes = _sizes(target) if trusted else {}
        there = {name: size for name, size in files.items() if name != SUMS and sizes.get(name) == size}
        copied = {name: size for name, size in files.items() if name not in there and name != SUMS}

        def copy(name: str) -> None:
            (target / name).write_bytes((bundle / name).read_bytes())
            tell(name)

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(copy, copied))
        if sums_there != sums:
            (target / SUMS).write_bytes(sums)
            copied[SUMS] = files[SUMS]
        else:
            there[SUMS] = files[SUMS]
    except OSError as error:
        raise EmrError(f"{target}: cannot copy the bundle there ({' '.join(str(error).split())})") from error
    return Upload(target, copied, there)


def check_bundle(where: Location, version: str, architecture: str) -> None:
    """Look at a bundle, local or uploaded, before a cluster finds out at its start.

    Raises
    ------
    EmrError
        If there is none, or it is one of another version or for other machines.
    """
    try:
        if not (where / SUMS).exists() or not (where / _DESCRIPTION).exists():
            raise EmrError(f"{where}: no bundle there; `make bundle`, then `dhs emr upload`")
        found = (where / _DESCRIPTION).read_json()
    except OSError as error:
        raise EmrError(f"{where}: cannot be read ({' '.join(str(error).split())})") from error
    if found.get("version") != version:
        raise EmrError(f"{where}: is a bundle of version {found.get('version')}, this is {version}; `make bundle`")
    if not str(found.get("platform")).endswith(f"_{architecture}"):
        raise EmrError(
            f"{where}: is a bundle for {found.get('platform')}, the cluster is {architecture}: "
            f"`make bundle ARCH={architecture}`"
        )


def _sizes(target: Location) -> dict[str, int]:
    base = len(target.uri) + 1
    return {file.uri[base:]: size for file, size in target.files_with_sizes(recursive=True)}
