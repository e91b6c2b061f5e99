"""Checks of finished stamps: one stamp's bytes, and whole Parquet datasets in bounded memory."""

from __future__ import annotations

from dhs_gen.stamps import decode_stamp_npz
from dhs_gen.validation.dataset import validate_parquet_stamps

__all__ = ["decode_stamp_npz", "validate_parquet_stamps"]
