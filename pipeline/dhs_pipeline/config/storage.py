"""Time-outs, retries and sizes of the S3 client (conf/storage)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dhs_pipeline.config.base import Model, NonNegative, Positive

_Count = Annotated[int, Field(ge=1, le=100)]
_Size = Annotated[int, Field(ge=1)]

KIB = 1 << 10
MIB = 1 << 20


class StorageSettings(Model):
    """How s3:// is read and written."""

    name: str
    connect_timeout_seconds: Positive
    read_timeout_seconds: Positive
    retry_mode: Literal["standard", "adaptive"]
    request_attempts: _Count
    body_attempts: _Count
    backoff_seconds: NonNegative
    max_backoff_seconds: NonNegative
    max_connections: _Count
    parallel_requests: _Count
    parallel_read_above_mib: _Size
    read_part_mib: _Size
    multipart_above_mib: _Size
    write_part_mib: Annotated[int, Field(ge=5, le=5120)]
    parquet_tail_kib: _Size
    parquet_read_ahead_kib: _Size
    parquet_cache_mib: _Size

    @model_validator(mode="after")
    def _consistent(self) -> StorageSettings:
        if self.max_connections < self.parallel_requests:
            raise ValueError(
                f"max_connections must be at least parallel_requests ({self.parallel_requests}), "
                f"got {self.max_connections}"
            )
        return self
