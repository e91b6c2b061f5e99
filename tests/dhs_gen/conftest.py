"""Hypothesis draws the same examples in every run; a failing one is then found again by anybody."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("dhs_gen", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("dhs_gen")
