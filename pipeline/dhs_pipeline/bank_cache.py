"""Source banks on S3: one copy per machine, on a local disk, that all its processes map into memory.

A bank is read at random places by every task, so it is memory-mapped; processes that map the same file share one copy
in the page cache. A bank on S3 is therefore copied once to a folder of the machine, under a name made of its digest, by
whichever process comes first; the others wait for it. The copy gets its name when it is whole and its checksum is
right, and nothing here removes one again.

The folder is ``$DHS_BANK_CACHE``, or one of the user's own below the temporary directory.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dhs_gen.source_banks.writer import BANK_FILE, FORMAT_VERSION, IMAGES_FILE, META_FILE, REJECTS_FILE
from dhs_pipeline.storage import Location, StorageError

CACHE_VARIABLE = "DHS_BANK_CACHE"

_CHUNK_BYTES = 8 << 20
_SPARE_BYTES = 64 << 20
"""Left free on the disk after a bank: logs and shuffle files live there too."""


@dataclass(frozen=True)
class _RemoteBank:
    """A built bank on S3, as its ``bank.json`` and one listing describe it."""

    where: Location
    description: bytes
    images_sha256: str
    n_templates: int
    sizes: dict[str, int]

    @property
    def name(self) -> str:
        """Digest of the images, and of what bank.json says of them: the same images may be described anew."""
        return f"{self.images_sha256[:16]}-{hashlib.sha256(self.description).hexdigest()[:8]}"

    @property
    def total_bytes(self) -> int:
        return sum(self.sizes.values())


def cache_root() -> Path:
    """Where copies of banks lie on this machine."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"dhs-banks-{os.getuid()}"


def local_bank(bank: Location, root: Path | None = None) -> Path:
    """The folder of a built bank on this machine: the bank itself, or a checked copy of one on S3.

    Parameters
    ----------
    bank
        Folder of a built bank, local or ``s3://``.
    root
        Where copies lie; None takes :func:`cache_root`.

    Returns
    -------
    Path
        A folder that :func:`dhs_gen.source_banks.open_bank` can open.

    Raises
    ------
    StorageError
        If there is no built bank, a file of it is missing or not what its checksum says, or the disk is full.
    """
    if not bank.is_s3:
        return Path(bank.uri)
    remote = _describe(bank)
    root = cache_root() if root is None else root
    final = root / remote.name
    if _is_whole(final):
        return final
    _make_root(root)
    with _only_one(root / f".{remote.name}.lock"):
        if not _is_whole(final):  # another process may have been first
            _copy(remote, final)
    return final


def require_built(bank: Location) -> None:
    """StorageError unless a built bank lies there; on S3 nothing else can be used, or built."""
    if not (bank / BANK_FILE).exists():
        raise StorageError(
            f"{bank}: no built source bank (there is no {BANK_FILE}); on s3:// only built banks can be used: "
            "build it with `dhs bank SOURCE FOLDER` and copy the folder there"
        )


# --- the bank on S3 -----------------------------------------------------------------------------------------------


def _describe(bank: Location) -> _RemoteBank:
    require_built(bank)
    description = (bank / BANK_FILE).read_bytes()
    try:
        info = json.loads(description)
        version, digest, templates = info["format_version"], str(info["images_sha256"]), int(info["n_templates"])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{bank / BANK_FILE}: cannot be understood ({type(error).__name__}: {error}): copy the bank there again"
        ) from error
    if version != FORMAT_VERSION or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise StorageError(
            f"{bank / BANK_FILE}: format_version {version!r} with images_sha256 {digest[:16]!r}; this release reads "
            f"version {FORMAT_VERSION} with a SHA-256: build the bank again"
        )
    there = {file.name: size for file, size in bank.files_with_sizes()}
    for name in (IMAGES_FILE, META_FILE):
        if name not in there:
            raise StorageError(f"{bank}: has no {name}: the bank is incomplete; copy the whole folder there again")
    sizes = {name: there[name] for name in (IMAGES_FILE, META_FILE, REJECTS_FILE) if name in there}
    return _RemoteBank(bank, description, digest, templates, sizes)


# --- the copy -----------------------------------------------------------------------------------------------------


def _is_whole(folder: Path) -> bool:
    return (folder / BANK_FILE).is_file()


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{root}: cannot make this folder for source banks ({error.strerror}); set {CACHE_VARIABLE}"
        ) from error


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Wait until no other process of this machine holds the lock; the kernel frees it when a holder dies.

    The file stays: removing it would let two processes lock different files of one name. Reading is enough to lock it,
    which another user's file allows too.
    """
    try:
        try:
            descriptor = os.open(lock, os.O_RDONLY | os.O_CREAT, 0o666)
        except PermissionError:  # fs.protected_regular: no O_CREAT on another user's file in a folder for all
            descriptor = os.open(lock, os.O_RDONLY)
    except OSError as error:
        raise StorageError(
            f"{lock.parent}: cannot write source banks here ({error.strerror}); set {CACHE_VARIABLE}"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _copy(remote: _RemoteBank, final: Path) -> None:
    """Fetch, check and rename. What an earlier process left behind is not taken up: its checksum would cost as much."""
    partial = final.with_name(f".{final.name}.partial-{os.getuid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _check_room(remote, final.parent)
        partial.mkdir()
        digests = {name: _fetch(remote.where / name, partial / name, size) for name, size in remote.sizes.items()}
        if digests[IMAGES_FILE] != remote.images_sha256:
            raise StorageError(
                f"{remote.where / IMAGES_FILE}: has SHA-256 {digests[IMAGES_FILE][:12]}… but {BANK_FILE} says "
                f"{remote.images_sha256[:12]}…: copy the bank there again"
            )
        _check_rows(remote, partial / META_FILE)
        (partial / BANK_FILE).write_bytes(remote.description)
        os.rename(partial, final)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _no_room(remote, final.parent) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fetch(source: Location, target: Path, size: int) -> str:
    """Copy one file and return its SHA-256."""
    digest, copied = hashlib.sha256(), 0
    with source.open_input() as stream, target.open("wb") as out:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            copied += out.write(chunk)
    if copied != size:
        raise StorageError(f"{source}: {copied:,} bytes came of {size:,}; it was replaced or cut off meanwhile")
    return digest.hexdigest()


def _check_rows(remote: _RemoteBank, meta: Path) -> None:
    """bank.json has no checksum of the table: that it can be read, and has a row for each template, has to do."""
    try:
        rows = pq.read_table(meta).num_rows
    except (pa.ArrowException, OSError) as error:
        line = " ".join(str(error).split())
        raise StorageError(f"{remote.where / META_FILE}: cannot be read ({line}): copy the bank there again") from error
    if rows != remote.n_templates:
        raise StorageError(
            f"{remote.where / META_FILE}: has {rows} rows but {BANK_FILE} says {remote.n_templates} templates: "
            "copy the bank there again"
        )


def _check_room(remote: _RemoteBank, root: Path) -> None:
    if shutil.disk_usage(root).free < remote.total_bytes + _SPARE_BYTES:
        raise _no_room(remote, root)


def _no_room(remote: _RemoteBank, root: Path) -> StorageError:
    return StorageError(
        f"{remote.where}: the bank needs {remote.total_bytes / 1e9:.2f} GB, {root} has "
        f"{shutil.disk_usage(root).free / 1e9:.2f} GB free; set {CACHE_VARIABLE} to a folder on a larger disk"
    )


# --- the command --------------------------------------------------------------------------------------------------


def add_commands(commands: Any) -> None:
    """``dhs bank-stage``."""
    text = "copy built source banks from s3:// to this machine, as the first task would"
    parser = commands.add_parser("bank-stage", help=text, description=text)
    parser.add_argument("banks", metavar="URI", nargs="+", help="built bank, local or s3://")
    parser.add_argument("--into", metavar="DIR", help=f"folder of the copies; default: ${CACHE_VARIABLE}")
    parser.set_defaults(run=_stage)


def _stage(args: argparse.Namespace) -> None:
    root = Path(os.path.abspath(args.into)) if args.into else None
    staged = {}
    for given in args.banks:
        bank = Location.of(given)
        require_built(bank)
        staged[bank.uri] = str(local_bank(bank, root))
    print(json.dumps(staged, indent=2))
