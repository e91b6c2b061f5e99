"""Everything that a cluster's node needs besides its operating system and Python, in one folder to upload.

``python bootstrap/make_bundle.py`` (``make wheel``) downloads the wheels that requirements-cluster.lock pins, for
Amazon Linux 2023 and Python 3.11, puts this project's own wheel beside them, and writes

==================  ==============================================================================================
``wheels/``         the wheels; nothing in them is built on the node
``requirements.txt``  name, version and SHA-256 of each of them: what ``pip install --require-hashes`` takes
``jobs/``           the entry points for spark-submit
``bootstrap/``      ``install.sh``, the bootstrap action
``bundle.json``     version, platform, Python, and every file with its bytes and SHA-256
``SHA256SUMS``      the same for ``sha256sum --check``, bundle.json included
==================  ==============================================================================================

The same lock file and the same sources give the same bytes: no clock, no machine path, no registry address.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements-cluster.lock"

ARCHITECTURES = ("x86_64", "aarch64")
PYTHON = "3.11"
"""On all EMR releases from 7.1 on, and on emr-spark-8 (EMR Release Guide)."""
GLIBC = 34
"""Amazon Linux 2023 has glibc 2.34: wheels for any glibc up to that one run on it (PEP 600)."""
OLDEST_GLIBC = 5
"""manylinux1, the oldest that PEP 600 has a name for."""

_REPRODUCIBLE = {"SOURCE_DATE_EPOCH": "1577836800"}
"""Seconds since 1970 that hatchling writes into the wheel as the time of every file."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the bundle for a cluster.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "bundle", help="folder to make anew")
    parser.add_argument("--arch", choices=ARCHITECTURES, default=ARCHITECTURES[0], help="aarch64 is Graviton")
    args = parser.parse_args(argv)
    try:
        count, size = make_bundle(args.out, args.arch)
    except subprocess.CalledProcessError as error:
        print(f"make_bundle: {' '.join(error.cmd[:5])} … ended with code {error.returncode}", file=sys.stderr)
        return 1
    print(f"{args.out}: {count} wheels, {size / 1e6:.0f} MB, for {platform_tags(args.arch)[0]} and Python {PYTHON}")
    return 0


def make_bundle(out: Path, arch: str) -> tuple[int, int]:
    """Write the bundle, whole or not at all; returns its number of wheels and its bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".bundle-") as scratch:
        bundle = Path(scratch) / "bundle"
        wheels = bundle / "wheels"
        wheels.mkdir(parents=True)
        download(wheels, arch)
        build_wheel(wheels)
        fill(bundle, platform_tags(arch)[0])
        count = len(list(wheels.iterdir()))
        size = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
        shutil.rmtree(out, ignore_errors=True)
        bundle.rename(out)
    return count, size


def platform_tags(arch: str) -> list[str]:
    """Platform tags of wheels that run on Amazon Linux 2023, the newest glibc first."""
    tags = [f"manylinux_2_{minor}_{arch}" for minor in range(GLIBC, OLDEST_GLIBC - 1, -1)]
    return [*tags, *(f"{old}_{arch}" for old in ("manylinux2014", "manylinux2010", "manylinux1"))]


def download(wheels: Path, arch: str) -> None:
    """The wheels that the lock file pins, from the index that pip is configured for."""
    platforms = [word for tag in platform_tags(arch) for word in ("--platform", tag)]
    _pip(
        *("download", "--require-hashes", "--only-binary=:all:", "--dest", str(wheels)),
        *(*platforms, "--python-version", PYTHON, "--implementation", "cp", "--abi", f"cp{PYTHON.replace('.', '')}"),
        *("-r", str(LOCK)),
    )


def build_wheel(wheels: Path) -> Path:
    """This project's own wheel."""
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT))
    (wheel,) = wheels.glob(f"dark_halo_scope-{version()}-*.whl")
    return wheel


def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def fill(bundle: Path, platform: str) -> None:
    """Everything in a bundle besides the wheels, which lie there already."""
    for folder, pattern in (("jobs", "*.py"), ("bootstrap", "*.sh")):
        (bundle / folder).mkdir()
        for file in sorted((ROOT / folder).glob(pattern)):
            shutil.copy(file, bundle / folder)
    (bundle / "requirements.txt").write_text(requirements(bundle / "wheels"))
    document = {
        "name": "dark-halo-scope",
        "version": version(),
        "platform": platform,
        "python": PYTHON,
        "files": [{"path": path, "bytes": size, "sha256": digest} for path, size, digest in _files(bundle)],
    }
    (bundle / "bundle.json").write_text(json.dumps(document, indent=2) + "\n")
    (bundle / "SHA256SUMS").write_text("".join(f"{digest}  {path}\n" for path, _, digest in _files(bundle)))


def requirements(wheels: Path) -> str:
    """One line for each wheel: with these hashes pip takes these files and no others."""
    lines = []
    for wheel in sorted(wheels.glob("*.whl")):
        name, number, *_ = parse_wheel_filename(wheel.name)
        lines.append(f"{name}=={number} --hash=sha256:{_sha256(wheel)}\n")
    return "".join(sorted(lines))


def _files(bundle: Path) -> list[tuple[str, int, str]]:
    """(path, bytes, SHA-256) of every file so far, by path."""
    files = sorted(file for file in bundle.rglob("*") if file.is_file())
    return [(file.relative_to(bundle).as_posix(), file.stat().st_size, _sha256(file)) for file in files]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    subprocess.run(command, check=True, env=os.environ | _REPRODUCIBLE)


if __name__ == "__main__":
    sys.exit(main())
