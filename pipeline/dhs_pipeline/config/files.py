"""Reading the YAML of conf/, and saying what is wrong with it: the file, the key, what was found, what is allowed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from dhs_pipeline.config.base import ConfigError

M = TypeVar("M", bound=BaseModel)


def conf_root() -> Path:
    """The conf/ folder: $DHS_CONF if set, else the one in the wheel, else the one of the checkout."""
    if chosen := os.environ.get("DHS_CONF"):
        return Path(chosen)
    packaged = Path(str(files("dhs_pipeline") / "conf"))
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[3] / "conf"


def load_yaml(folder: str, where: str) -> dict[str, Any]:
    """One section file as plain keys and values, for a package that checks them itself."""
    return read_yaml(find(folder, where))


def load_section(model: type[M], folder: str, where: str) -> M:
    """Read and validate one section file, such as ``load_section(Generation, "generations", "gen7")``."""
    path = find(folder, where)
    return validate(model, read_section(folder, where), path)


def config_hash(config: BaseModel | Mapping[str, Any]) -> str:
    """SHA-256 over the configuration as sorted JSON."""
    tree = config.model_dump(mode="json") if isinstance(config, BaseModel) else dict(config)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def find(folder: str, where: str) -> Path:
    if where.endswith((".yaml", ".yml")):
        path = Path(where)
        if not path.is_file():
            raise ConfigError(f"{where}: no such configuration file")
        return path
    path = conf_root() / folder / f"{where}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise ConfigError(f"{folder}: nothing is called {where!r}; there are {', '.join(known) or 'none'}")
    return path


def read_section(folder: str, where: str) -> dict[str, Any]:
    """One file, with what it refers to by name put in its place, so that no number stands in two files.

    A mixture names generations whose sources it takes, a generation its pairing, a mass model its population of
    subhalos.
    """
    tree = read_yaml(find(folder, where))
    if folder == "generations" and isinstance(source := tree.get("source"), dict):
        for mode, name in (source.get("sources") or {}).items():
            if isinstance(name, str):
                source["sources"][mode] = read_section("generations", name).get("source")
    if folder == "generations" and isinstance(name := tree.get("pairing"), str):
        tree["pairing"] = read_yaml(find("pairing", name))
    if folder == "mass" and isinstance(name := tree.get("subhalos"), str):
        tree["subhalos"] = read_yaml(find("subhalos", name))
    return tree


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(tree).__name__}")
    return tree


def apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected key=value, such as manifest.replicates=2")
    *parents, last = key.split(".")
    node: Any = tree
    for depth, name in enumerate(parents):
        child = node.get(name) if isinstance(node, dict) else None
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: there is no section {'.'.join(parents[: depth + 1])!r}")
        node = child
    node[last] = yaml.safe_load(text)


def validate(model: type[M], tree: dict[str, Any], path: Path, origins: Mapping[str, Path] | None = None) -> M:
    """Validate, and blame the file that a section came from."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        path = (origins or {}).get(str(first["loc"][0]) if first["loc"] else "", path)
        key = ".".join(str(part) for part in first["loc"]) or "(file)"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ConfigError(f"{path}: {key}: {_explain(model, first)}{more}") from error


def _explain(model: type[BaseModel], problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return f"unknown key; allowed: {', '.join(_allowed_keys(model, problem['loc'][:-1]))}"
    if problem["type"] == "missing":
        return "this key is required"
    message = problem["msg"].removeprefix("Value error, ")
    found = problem["input"]
    return message if isinstance(found, dict) else f"{message}, found {found!r}"


def _allowed_keys(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Keys of the section at ``path``; list positions and the tags of unions name no field and are passed over."""
    candidates = [model]
    for step in path:
        fields = [c.model_fields[step] for c in candidates if isinstance(step, str) and step in c.model_fields]
        candidates = [m for field in fields for m in _models_in(field.annotation)] or candidates
    return sorted({key for candidate in candidates for key in candidate.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation such as ``tuple[Generation, ...]`` or ``A | B`` is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
