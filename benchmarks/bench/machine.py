"""Where a figure was measured, and how busy it was there."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("numpy", "scipy", "numba", "pyarrow", "pyspark", "lenstronomy", "galsim")


@dataclass(frozen=True)
class Machine:
    """What stays the same during a run; None and empty where the system does not say."""

    cpu: str
    cores: int
    governor: str | None
    memory_gb: float | None
    system: str
    python: str
    packages: dict[str, str]
    commit: str


def describe() -> Machine:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        cpu=_field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        cores=usable,
        governor=_text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        memory_gb=_memory_gb(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages={name: _version(name) for name in _PACKAGES},
        commit=_commit(),
    )


def load() -> float:
    """Processes that want to run, averaged over the last minute."""
    return round(os.getloadavg()[0], 2)


def in_words(machine: Machine, loads: tuple[float, float]) -> str:
    """Two lines of Markdown."""
    memory = "" if machine.memory_gb is None else f", {machine.memory_gb:.0f} GB"
    governor = "" if machine.governor is None else f", governor {machine.governor}"
    packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
    return (
        f"{machine.cores} cores of {machine.cpu}{memory}{governor}; load {loads[0]:g} at the start, {loads[1]:g} at "
        f"the end\n{machine.system}, Python {machine.python}, {packages}; commit {machine.commit}"
    )


def _commit() -> str:
    """Short hash of the working tree's commit, with a + if files differ from it; "unknown" outside of git."""
    here = Path(__file__).parent
    try:
        found = [
            subprocess.run(["git", "-C", str(here), *asked], capture_output=True, text=True, check=True).stdout.strip()
            for asked in (["rev-parse", "--short=10", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found[0] + ("+" if found[1] else "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _memory_gb() -> float | None:
    told = _field(Path("/proc/meminfo"), "MemTotal")
    return None if told is None else round(int(told.split()[0]) * 1024 / 1e9, 1)


def _field(file: Path, name: str) -> str | None:
    """The first value of a file of ``name : value`` lines."""
    for line in (_text(file) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
