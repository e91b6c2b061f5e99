"""Configuration of the fetch: conf/fetch/*.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from dhs_pipeline.config.base import Fraction, Model, NonNegative, Positive
from dhs_pipeline.config.files import apply_override, find, load_yaml, validate

Product = Literal["image", "invvar", "nexp", "psfsize", "maskbits"]


class FetchSettings(Model):
    """Source, politeness, patience (conf/fetch)."""

    name: str
    base_url: str
    checksums_path: str | None
    connections: Annotated[int, Field(ge=1, le=64)]
    requests_per_second: Positive
    megabytes_per_second: Positive
    start_jitter_s: NonNegative
    connect_timeout_s: Positive
    read_timeout_s: Positive
    max_redirects: Annotated[int, Field(ge=0)]
    retries: Annotated[int, Field(ge=0)]
    backoff_first_s: Positive
    backoff_max_s: Positive
    backoff_jitter: Fraction
    retry_after_max_s: NonNegative
    stop_after_failures: Annotated[int, Field(ge=1)]
    chunk_kilobytes: Annotated[int, Field(ge=1)]
    record_rows: Annotated[int, Field(ge=1)]
    record_every_s: Positive
    expected_megabytes: dict[Product, Positive]

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        """Credentials have no place in a file, nor in the record that repeats this address."""
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("must be an address without user, password, query and fragment")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"must be an http:// or https:// address, got {url!r}")
        return url.rstrip("/")

    @field_validator("checksums_path")
    @classmethod
    def _known_names(cls, path: str | None) -> str | None:
        try:
            _ = path and path.format(folder="000", brick="0000p000")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"may hold {{folder}} and {{brick}} only, got {path!r}") from error
        return path

    @field_validator("expected_megabytes")
    @classmethod
    def _all_products(cls, sizes: dict[Product, float]) -> dict[Product, float]:
        if missing := {"image", "invvar", "nexp", "psfsize", "maskbits"} - set(sizes):
            raise ValueError(f"has no size for {', '.join(sorted(missing))}")
        return sizes


def load_fetch_settings(where: str, overrides: Sequence[str] = ()) -> FetchSettings:
    """A file of conf/fetch, with ``key=value`` overrides.

    Raises
    ------
    ConfigError
        If the file or a key is not there, or a value is out of range.
    """
    tree, path = load_yaml("fetch", where), find("fetch", where)
    for override in overrides:
        apply_override(tree, override)
    return validate(FetchSettings, tree, path)
