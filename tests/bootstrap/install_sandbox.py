"""A machine made of folders: install.sh runs for real, with stand-ins for ``aws``, ``sudo`` and a broken Python.

The small bundle holds the real wheel and, in place of its dependencies, a wheel with one ``.pth`` file: it points to a
folder of links to what requirements-cluster.lock names, and to nothing else, in the environment that runs the tests.
Everything else of the bundle is written by bootstrap/make_bundle.py.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from dhs_pipeline.warm import cached_kernels, warm_kernels
from tests_support import REPO

INSTALL = REPO / "bootstrap" / "install.sh"
MACHINE = os.uname().machine

needs_bundles_python = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="a bundle is for Python 3.11, the one of EMR; this is another"
)

AWS = """#!/bin/bash
# aws s3 cp|sync with s3:// below $AWS_ROOT. $AWS_FAILURES (a file) holds how many calls are still to fail;
# $AWS_TRUNCATE names a file that arrives without its last byte.
set -e
echo "$*" >>"$AWS_LOG"
left=$(cat "$AWS_FAILURES" 2>/dev/null || echo 0)
if ((left > 0)); then
  echo $((left - 1)) >"$AWS_FAILURES"
  echo "fatal error: SlowDown" >&2
  exit 1
fi
words=()
for word; do [[ $word == --* ]] || words+=("${word/s3:\\/\\//$AWS_ROOT/}"); done
if [[ ${words[1]} == sync ]]; then
  rm -rf "${words[3]}"
fi
cp -R "${words[2]}" "${words[3]}"
if [[ -n $AWS_TRUNCATE && -e ${words[3]}/$AWS_TRUNCATE ]]; then truncate -s -1 "${words[3]}/$AWS_TRUNCATE"; fi
"""

BROKEN_PYTHON = """#!/bin/bash
# Python that dies while it makes an environment, as a node does that is taken away.
if [[ $1 == -m && $2 == venv ]]; then
  mkdir -p "$3/bin" && touch "$3/bin/half"
  exit 137
fi
exec "$REAL_PYTHON" "$@"
"""

SUDO = """#!/bin/bash
echo "$*" >>"$SUDO_LOG"
AS_ROOT=1 exec "$@"
"""

MKDIR = """#!/bin/bash
# Only root may make folders below $ONLY_ROOT.
for word; do
  if [[ -n $ONLY_ROOT && $word == "$ONLY_ROOT"* && -z $AS_ROOT ]]; then echo "Permission denied" >&2; exit 1; fi
done
exec /bin/mkdir "$@"
"""


@dataclass
class Sandbox:
    """Folders of one machine and the environment that its programs run in."""

    where: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tools.mkdir(parents=True)
        for name, text in (("aws", AWS), ("sudo", SUDO), ("mkdir", MKDIR), ("broken-python", BROKEN_PYTHON)):
            (self.tools / name).write_text(text)
            (self.tools / name).chmod(0o755)
        self.buckets.mkdir()

    @property
    def tools(self) -> Path:
        return self.where / "tools"

    @property
    def home(self) -> Path:
        return self.where / "opt" / "dhs"

    @property
    def buckets(self) -> Path:
        """What s3:// holds for ``aws``."""
        return self.where / "s3"

    def calls(self, tool: str) -> list[str]:
        """What a stand-in was called with so far."""
        log = self.where / f"{tool}.log"
        return log.read_text().splitlines() if log.exists() else []

    def fail_next(self, calls: int) -> None:
        (self.where / "failures").write_text(str(calls))

    def install(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(INSTALL), *arguments, **variables)

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A program on this machine; of the tests' own environment it sees only how to reach S3."""
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        environment |= {
            "PATH": f"{self.tools}:/usr/bin:/bin",
            "HOME": str(self.where),
            "DHS_HOME": str(self.home),
            "DHS_PYTHON": sys.executable,
            "DHS_RETRY_SECONDS": "0",
            "REAL_PYTHON": sys.executable,
            "AWS_ROOT": str(self.buckets),
            "AWS_LOG": str(self.where / "aws.log"),
            "AWS_FAILURES": str(self.where / "failures"),
            "SUDO_LOG": str(self.where / "sudo.log"),
        }
        environment |= self.variables | variables
        return subprocess.run(command, env=environment, cwd=self.where, capture_output=True, text=True, check=False)

    def as_a_task(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A program in the environment that install.sh wrote for tasks."""
        return self.run("/bin/bash", "-c", f'source "{self.home}/env.sh"; exec "$@"', "bash", *command, **variables)


def snapshot(folder: Path) -> Mapping[str, int]:
    """Every file with the time of its last change, nanoseconds."""
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in sorted(folder.rglob("*")) if f.is_file()}


def make_bundle_module() -> ModuleType:
    """bootstrap/make_bundle.py, which is a script and not in a package."""
    spec = importlib.util.spec_from_file_location("make_bundle", REPO / "bootstrap" / "make_bundle.py")
    if spec is None or spec.loader is None:
        raise ImportError("bootstrap/make_bundle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_bundle(folder: Path, *, platform: str = f"manylinux_2_34_{MACHINE}") -> Path:
    """The real wheel, and links to the packages of this environment in place of its dependencies."""
    bundle = make_bundle_module()
    (folder / "wheels").mkdir(parents=True)
    bundle.build_wheel(folder / "wheels")
    _stand_in(folder / "wheels", _linked_packages(folder.with_name(f"{folder.name}-packages")))
    bundle.fill(folder, platform)
    return folder


def empty_bundle(folder: Path, *, platform: str = f"manylinux_2_34_{MACHINE}") -> Path:
    """A bundle with one wheel that cannot be installed: for what has to stop before that."""
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels" / "nothing-1.0-py3-none-any.whl").write_bytes(b"no wheel")
    make_bundle_module().fill(folder, platform)
    return folder


def lend_kernels(cache: Path, site_packages: Path) -> None:
    """Kernels that this process has compiled, as if an earlier run of install.sh had, all but those of dhs_gen.moffat.

    Compiling all of them takes a quarter of a minute, and the tests that follow need them here anyway. numba names the
    folder of a cache by the path of the sources (``get_suitable_cache_subpath`` in numba/core/caching.py).
    """
    warm_kernels()
    for kernel in cached_kernels().values():
        source = Path(kernel.py_func.__code__.co_filename)
        if source.stem == "moffat":
            continue
        installed = site_packages / source.parent.relative_to(REPO / "pipeline")
        folder = cache / f"{installed.name}_{hashlib.sha1(str(installed).encode()).hexdigest()}"
        folder.mkdir(parents=True, exist_ok=True)
        for file in Path(kernel.stats.cache_path).glob(f"{source.stem}.*.nb[ic]"):
            shutil.copy(file, folder)


def locked(lock: str) -> dict[str, str]:
    """Name → version of what a lock file holds."""
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ ]+) ", (REPO / lock).read_text(), re.MULTILINE))


def _linked_packages(folder: Path) -> Path:
    folder.mkdir()
    for name in locked("requirements-cluster.lock"):
        files = metadata.distribution(name).files or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(sysconfig.get_path("purelib")) / top)
    return folder


def _stand_in(wheels: Path, packages: Path) -> None:
    info = "tests_packages-1.0.dist-info"
    files = {
        "tests_packages.pth": f"{packages}\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tests-packages\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheels / "tests_packages-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in (files | {f"{info}/RECORD": record}).items():
            wheel.writestr(name, text)
