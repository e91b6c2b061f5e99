"""What all configuration models share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class ConfigError(ValueError):
    """Configuration that cannot be used; the message is one line for the user."""


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Band = Literal["g", "r", "z"]


Positive = Annotated[float, Field(gt=0)]


NonNegative = Annotated[float, Field(ge=0)]


Fraction = Annotated[float, Field(ge=0, le=1)]


Range = tuple[float, float]
