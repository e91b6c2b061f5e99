"""The bootstrap action, run for real: what it installs, that it repeats nothing, and how it stops."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from install_sandbox import INSTALL, Sandbox, empty_bundle, lend_kernels, needs_bundles_python, small_bundle, snapshot

from dhs_pipeline.storage import Location
from drawn_banks import drawn_bank, upload
from tests_support import REPO

CLUSTER_BUNDLE = "s3://cluster/dhs/0"


# --- a machine on which it succeeds -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Installed:
    """A machine after three runs of install.sh: one that died, one that succeeded, one that had nothing to do."""

    machine: Sandbox
    bank: Location
    died: subprocess.CompletedProcess[str]
    left_behind: bool
    defaults: str
    succeeded: subprocess.CompletedProcess[str]
    repeated: subprocess.CompletedProcess[str]
    before: Mapping[str, int]
    after: Mapping[str, int]
    fetched_by_repetition: list[str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, s3_bucket: str) -> Installed:
    root = tmp_path_factory.mktemp("install")
    machine = Sandbox(root / "machine")
    small_bundle(machine.buckets / "cluster" / "dhs" / "0")
    bank = upload(drawn_bank(root / "bank", "hst_cosmos_f814w", 0.03, 12), Location.of(s3_bucket) / root.name / "bank")

    died = machine.install(CLUSTER_BUNDLE, DHS_PYTHON=str(machine.tools / "broken-python"))
    half = machine.home / "venv" / "bin" / "half"
    left_behind = half.exists() and not (machine.home / "installed").exists()
    defaults = (machine.home / "env.sh.new").read_text()

    lend_kernels(machine.home / "numba", machine.home / "venv" / "lib" / "python3.11" / "site-packages")
    options = ("--env", f"NUMBA_CPU_NAME={os.environ.get('NUMBA_CPU_NAME', '')}", "--bank", bank.uri)
    machine.fail_next(3)
    succeeded = machine.install(CLUSTER_BUNDLE, *options)
    before, calls = snapshot(machine.home), machine.calls("aws")
    repeated = machine.install(f"{CLUSTER_BUNDLE}/", *options)
    return Installed(
        machine=machine,
        bank=bank,
        died=died,
        left_behind=left_behind,
        defaults=defaults,
        succeeded=succeeded,
        repeated=repeated,
        before=before,
        after=snapshot(machine.home),
        fetched_by_repetition=machine.calls("aws")[len(calls) :],
    )


@needs_bundles_python
def test_a_run_that_dies_is_loud_and_the_next_one_does_it_anew(installed: Installed) -> None:
    assert installed.died.returncode != 0
    assert re.search(r'line \d+: ".* -m venv .*" ended with code 137', installed.died.stderr)
    assert installed.left_behind
    assert installed.succeeded.returncode == 0, installed.succeeded.stderr
    assert not (installed.machine.home / "venv" / "bin" / "half").exists()


@needs_bundles_python
def test_s3_may_fail_for_a_while(installed: Installed) -> None:
    assert installed.succeeded.stderr.count("SlowDown") == 3
    assert "attempt 3 of 5 failed: aws s3 cp" in installed.succeeded.stderr


@needs_bundles_python
def test_the_second_time_nothing_is_done(installed: Installed) -> None:
    assert installed.repeated.returncode == 0, installed.repeated.stderr
    assert "holds this bundle already" in installed.repeated.stdout
    assert installed.after == installed.before
    assert len(installed.fetched_by_repetition) == 1
    assert "SHA256SUMS" in installed.fetched_by_repetition[0]


@needs_bundles_python
def test_what_runs_is_the_wheel(installed: Installed) -> None:
    home = installed.machine.home
    code = "import dhs_gen, dhs_pipeline; print(dhs_gen.__file__); print(dhs_pipeline.__file__)"
    done = installed.machine.as_a_task("python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(home / "venv")) for line in done.stdout.splitlines())
    assert list((home / "venv").rglob("dhs_pipeline/conf/survey/dr10.yaml"))
    assert not (home / "bundle" / "wheels").exists()
    assert (home / "bundle" / "jobs" / "stage_4c_inject.py").exists()


@needs_bundles_python
def test_tasks_find_every_kernel_compiled(installed: Installed) -> None:
    """install.sh ends with ``dhs warm --check``; the folder must also be one that other users' tasks can use."""
    printed = re.findall(r'"signatures_(?:loaded|compiled)": (\d+)', installed.succeeded.stdout)
    loaded, compiled, loaded_then, compiled_then = (int(n) for n in printed)
    assert loaded > 5  # lent ones
    assert compiled > 3
    assert loaded_then > loaded
    assert compiled_then == 0
    cache = installed.machine.home / "numba"
    files = [f for f in cache.rglob("*") if f.is_file()]
    assert {f.suffix for f in files} == {".nbi", ".nbc"}
    assert all(f.stat().st_mode & 0o444 == 0o444 for f in files)
    assert all(f.stat().st_mode & 0o777 == 0o777 for f in [cache, *cache.iterdir()])
    assert all(f.stat().st_mode & 0o005 == 0o005 for f in (installed.machine.home / "venv" / "lib").rglob("*/"))


@needs_bundles_python
def test_tasks_find_the_bank(installed: Installed) -> None:
    banks = installed.machine.home / "banks"
    said = installed.repeated.stdout
    staged = json.loads(said[said.index("{") : said.index("}") + 1])
    copy = Path(staged[installed.bank.uri])
    assert copy.parent == banks
    assert f"banks/{copy.name}/images.npy" in installed.before  # from the run that installed, and not touched since
    assert banks.stat().st_mode & 0o777 == 0o777


@needs_bundles_python
def test_tasks_are_told_where_things_are(installed: Installed) -> None:
    home = installed.machine.home
    lines = installed.machine.as_a_task("/usr/bin/env").stdout.splitlines()
    told = dict(line.split("=", 1) for line in lines if "=" in line)
    wanted = {
        "PYSPARK_PYTHON": home / "venv" / "bin" / "python",
        "NUMBA_CACHE_DIR": home / "numba",
        "DHS_BANK_CACHE": home / "banks",
        "OMP_NUM_THREADS": 1,
    }
    assert {name: told[name] for name in wanted} == {name: str(value) for name, value in wanted.items()}
    assert told["PATH"].startswith(f"{home}/venv/bin:")
    assert "export NUMBA_CPU_NAME=generic\n" in installed.defaults
    assert "NUMBA_CPU_NAME" not in told or os.environ.get("NUMBA_CPU_NAME")
    assert installed.machine.calls("sudo") == []


# --- machines on which it stops -----------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path) -> Sandbox:
    made = Sandbox(tmp_path / "machine")
    empty_bundle(made.buckets / "cluster" / "dhs" / "0")
    return made


def stops(machine: Sandbox, done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode not in (0, 127), done.stdout
    assert re.search(message, done.stderr), done.stderr
    assert not (machine.home / "venv").exists()
    assert not (machine.home / "installed").exists()


def change_a_wheel(bundle: Path) -> None:
    next(bundle.glob("wheels/*")).write_bytes(b"No wheel")


def remove_a_wheel(bundle: Path) -> None:
    next(bundle.glob("wheels/*")).unlink()


def change_the_requirements(bundle: Path) -> None:
    (bundle / "requirements.txt").write_text("other==1.0\n")


def empty_the_sums(bundle: Path) -> None:
    (bundle / "SHA256SUMS").write_text("")


def cut_the_sums(bundle: Path) -> None:
    lines = (bundle / "SHA256SUMS").read_text().splitlines(keepends=True)
    (bundle / "SHA256SUMS").write_text("".join(line for line in lines if "requirements" not in line))


def remove_the_sums(bundle: Path) -> None:
    (bundle / "SHA256SUMS").unlink()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (change_a_wheel, r"nothing-1.0-py3-none-any.whl: FAILED[\s\S]*upload the bundle again"),
        (remove_a_wheel, r"nothing-1.0-py3-none-any.whl: FAILED open or read[\s\S]*upload the bundle again"),
        (change_the_requirements, "requirements.txt: FAILED"),
        (empty_the_sums, "not what make wheel wrote"),
        (cut_the_sums, "SHA256SUMS does not name requirements.txt"),
        (remove_the_sums, r"dhs/0/SHA256SUMS: cannot be fetched"),
    ],
)
def test_a_damaged_bundle_is_not_installed(machine: Sandbox, break_it: Callable[[Path], None], message: str) -> None:
    break_it(machine.buckets / "cluster" / "dhs" / "0")
    stops(machine, machine.install(CLUSTER_BUNDLE), message)


def test_a_file_cut_off_on_its_way(machine: Sandbox) -> None:
    stops(machine, machine.install(CLUSTER_BUNDLE, AWS_TRUNCATE="bundle.json"), "bundle.json: FAILED")


def test_a_folder_serves_as_well_and_what_it_does_not_name_is_not_kept(machine: Sandbox, tmp_path: Path) -> None:
    bundle = empty_bundle(tmp_path / "bundle")
    (bundle / "wheels" / "other-1.0-py3-none-any.whl").write_text("not named in SHA256SUMS")
    done = machine.install(str(bundle), DHS_PYTHON=str(machine.tools / "broken-python"))
    assert "ended with code 137" in done.stderr  # past the checks
    assert [f.name for f in (machine.home / "bundle" / "wheels").iterdir()] == ["nothing-1.0-py3-none-any.whl"]
    assert machine.calls("aws") == []


def test_s3_that_never_answers(machine: Sandbox) -> None:
    machine.fail_next(1000)
    stops(machine, machine.install(CLUSTER_BUNDLE), "attempt 5 of 5 failed.*\n.*SHA256SUMS: cannot be fetched")
    assert len(machine.calls("aws")) == 5


def test_a_machine_without_the_python(machine: Sandbox) -> None:
    done = machine.install(CLUSTER_BUNDLE, DHS_PYTHON="python3.11-of-another-machine")
    stops(machine, done, "python3.11-of-another-machine is not on this machine: EMR 7.1 and later")


def test_a_machine_of_another_architecture(machine: Sandbox, tmp_path: Path) -> None:
    bundle = empty_bundle(tmp_path / "bundle", platform="manylinux_2_34_sparc64")
    done = machine.install(str(bundle))
    stops(machine, done, "the bundle is for manylinux_2_34_sparc64, this is .*: make wheel ARCH=")


def test_another_python_version(machine: Sandbox, tmp_path: Path) -> None:
    (machine.tools / "python3.9").write_text('#!/bin/bash\nread -rd "" code\n"$REAL_PYTHON" -c "$FAKE$code" "${@:2}"\n')
    (machine.tools / "python3.9").chmod(0o755)
    fake = "import sys; sys.version_info = (3, 9, 1)\n"
    done = machine.install(CLUSTER_BUNDLE, DHS_PYTHON="python3.9", FAKE=fake)
    stops(machine, done, "the bundle is for Python 3.11, this is 3.9")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: install.sh BUNDLE_URI"),
        (["--bank"], "--bank needs a value"),
        (["a", "b"], "one BUNDLE_URI is needed, got a and b"),
        (["a", "--banks", "b"], "unknown option --banks"),
        (["a", "--env", "x"], "--env takes NAME=VALUE, got x"),
        (["/not/there"], "/not/there/SHA256SUMS: cannot be read"),
    ],
)
def test_arguments(machine: Sandbox, arguments: list[str], message: str) -> None:
    stops(machine, machine.install(*arguments), message)


def test_sudo_makes_the_folder_only_where_it_has_to(machine: Sandbox) -> None:
    machine.fail_next(1000)
    machine.install(CLUSTER_BUNDLE, ONLY_ROOT=str(machine.home))
    assert machine.home.is_dir()
    made, owned = machine.calls("sudo")
    assert made == f"mkdir -p {machine.home}"
    assert owned.startswith("chown ")
    assert owned.endswith(str(machine.home))


def test_scripts_have_no_faults_that_shellcheck_finds() -> None:
    tool = Path(sys.executable).parent / "shellcheck"
    scripts = sorted(str(f) for f in (REPO / "bootstrap").glob("*.sh"))
    assert str(INSTALL) in scripts
    done = subprocess.run([str(tool), *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert shutil.which("bash")
    assert INSTALL.stat().st_mode & 0o111
