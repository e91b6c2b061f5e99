"""The rules of the house that a program can check: imports run one way, and randomness is keyed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests_support import REPO

PIPELINE = REPO / "pipeline"
KERNELS = sorted((PIPELINE / "dhs_gen").rglob("*.py"))
FINDER = sorted((PIPELINE / "dhs_finder").rglob("*.py"))
MODULES = sorted(PIPELINE.rglob("*.py"))
KERNEL_LIBRARIES = {"numpy", "numba", "scipy", "astropy", "dhs_gen"}
STANDARD_LIBRARY_WITHOUT_CLOCK = {"time", "datetime", "random", "socket", "subprocess", "threading"}


def top_level_imports(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        yield from imported(node)


def imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module.split(".")[0]


def name(path: Path) -> str:
    return str(path.relative_to(PIPELINE))


@pytest.mark.parametrize("path", KERNELS, ids=name)
def test_kernels_import_neither_the_pipeline_nor_spark_nor_s3(path: Path) -> None:
    tree = ast.parse(path.read_text())
    everything = {module for node in ast.walk(tree) for module in imported(node)}
    assert not everything & {"dhs_pipeline", "dhs_finder", "pyspark", "boto3"}
    outside = {m for m in top_level_imports(tree) if m not in sys.stdlib_module_names and m != "__future__"}
    assert outside <= KERNEL_LIBRARIES
    assert not everything & STANDARD_LIBRARY_WITHOUT_CLOCK


@pytest.mark.parametrize("path", FINDER, ids=name)
def test_the_finder_imports_neither_the_pipeline_nor_spark_nor_s3(path: Path) -> None:
    """torch is imported by the modules that are named after it alone: the reader works without."""
    tree = ast.parse(path.read_text())
    everything = {module for node in ast.walk(tree) for module in imported(node)}
    assert not everything & {"dhs_pipeline", "pyspark", "boto3"}
    assert path.name.startswith("torch_") or "torch" not in everything


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_randomness_is_keyed(path: Path) -> None:
    """No global generator, no salted hash()."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "hash"
            assert not called.startswith(("np.random.", "random.")) or called in {
                "np.random.Generator",
                "np.random.Philox",
            }
