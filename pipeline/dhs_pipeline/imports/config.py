"""What an import may add to what it finds: conf/imports, checked at the door."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dhs_pipeline.config.base import Model
from dhs_pipeline.imports.draws import DRAWN

Scalar = float | int | str
Rows = Annotated[int, Field(ge=1)]


class ManifestImport(Model):
    """conf/imports/manifest.yaml.

    Nothing that the earlier manifest lacks gets a value unless it is named here, and each such column is reported.
    """

    name: str
    assign: dict[str, Scalar]
    draw_keyed: tuple[str, ...]
    batch_rows: Rows
    spill_rows: Rows

    @field_validator("draw_keyed")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(names) - set(DRAWN)):
            raise ValueError(f"draw_keyed knows {', '.join(DRAWN)}, not {', '.join(unknown)}")
        return names

    @model_validator(mode="after")
    def _once(self) -> ManifestImport:
        if both := sorted(set(self.assign) & set(self.draw_keyed)):
            raise ValueError(f"{', '.join(both)}: either assigned or drawn, not both")
        return self


class StampsImport(Model):
    """conf/imports/stamps.yaml and paired.yaml."""

    name: str
    assign: dict[str, Scalar]
    physics_invalid: Literal["fail", "keep"]
    batch_rows: Rows
