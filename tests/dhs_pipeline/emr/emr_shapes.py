"""Checks a request against botocore's model of the service: what AWS would reject and neither botocore nor moto does.

botocore itself checks unknown keys, types and required members, but no enumeration, pattern or length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import boto3

_TYPES = {"string": str, "boolean": bool, "integer": int, "long": int, "double": float, "float": float}


def _python(pattern: str) -> str:
    """Java writes characters beyond U+FFFF as surrogate pairs, which Python does not read so."""
    return pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")


@cache
def input_shape(service: str, operation: str) -> Any:
    client = boto3.client(service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    return client.meta.service_model.operation_model(operation).input_shape


def problems(service: str, operation: str, request: dict[str, Any], *, ignore: tuple[str, ...] = ()) -> list[str]:
    """What is wrong with a request, one line per place; empty if nothing."""
    found = _walk(input_shape(service, operation), request, operation)
    return [line for line in found if not any(line.startswith(f"{operation}.{name}:") for name in ignore)]


def _walk(shape: Any, value: Any, at: str) -> Iterator[str]:
    if shape.type_name == "structure":
        yield from _structure(shape, value, at)
    elif shape.type_name == "list":
        if not isinstance(value, list):
            yield f"{at}: expected a list, found {type(value).__name__}"
            return
        yield from _length(shape, len(value), at)
        for i, element in enumerate(value):
            yield from _walk(shape.member, element, f"{at}[{i}]")
    elif shape.type_name == "map":
        if not isinstance(value, dict):
            yield f"{at}: expected a map, found {type(value).__name__}"
            return
        yield from _length(shape, len(value), at)
        for key, element in value.items():
            yield from _walk(shape.key, key, f"{at}[{key!r}] (key)")
            yield from _walk(shape.value, element, f"{at}[{key!r}]")
    else:
        yield from _scalar(shape, value, at)


def _structure(shape: Any, value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at}: expected a structure, found {type(value).__name__}"
        return
    for name in shape.required_members:
        if name not in value:
            yield f"{at}.{name}: required, and missing"
    for name, element in value.items():
        if name not in shape.members:
            yield f"{at}.{name}: unknown key"
        else:
            yield from _walk(shape.members[name], element, f"{at}.{name}")


def _scalar(shape: Any, value: Any, at: str) -> Iterator[str]:
    kind = _TYPES[shape.type_name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        yield f"{at}: expected {shape.type_name}, found {value!r}"
        return
    if shape.type_name == "string":
        yield from _length(shape, len(value), at)
        if shape.enum and value not in shape.enum:
            yield f"{at}: {value!r} is none of {shape.enum}"
        if (pattern := shape.metadata.get("pattern")) and not re.fullmatch(_python(pattern), value):
            yield f"{at}: {value!r} does not match {pattern}"
    elif shape.type_name != "boolean":
        yield from _length(shape, value, at)


def _length(shape: Any, size: float, at: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield f"{at}: {size} is less than {low}"
    if high is not None and size > high:
        yield f"{at}: {size} is more than {high}"
