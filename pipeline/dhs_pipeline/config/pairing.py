"""What stands beside each positive of a generation: its control and its hard negative."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dhs_gen.paired_controls.kinds import NegativeKind
from dhs_gen.paired_controls.negative import Negative
from dhs_gen.streams import check_probabilities
from dhs_pipeline.config.base import Fraction, Model, NonNegative, Positive

Count = Annotated[int, Field(ge=0)]


class SameHost(Model):
    """The control is the positive's own host without the arc."""

    kind: Literal["same_host"]


class MatchedHost(Model):
    """The control is another host nearby that looks alike; a tolerance of null leaves its quantity out of the match."""

    kind: Literal["matched_host"]
    match_within: Literal["region_id", "region_fold"]
    mag_r_tolerance_mag: Positive | None
    psfsize_r_tolerance_arcsec: Positive | None
    psfdepth_r_tolerance_mag: Positive | None

    @model_validator(mode="after")
    def _matches_something(self) -> MatchedHost:
        if self.mag_r_tolerance_mag is self.psfsize_r_tolerance_arcsec is self.psfdepth_r_tolerance_mag is None:
            raise ValueError("a matched host needs a tolerance in at least one quantity")
        return self


class Negatives(Model):
    """Which hard negative a pair has, and the strengths of all kinds; their fields are those of ``Negative``.

    ``weights`` has a probability for every kind, 0 where it is not wanted.
    """

    weights: dict[NegativeKind, Fraction]
    annulus_width_pix: Positive
    ring_width_frac: Positive
    ring_modulation: Fraction
    ring_clumps: tuple[Count, Count]
    ring_clump_flux_frac: Fraction
    spiral_pitch_deg: Annotated[float, Field(gt=0, lt=90)]
    spiral_arm_width_frac: Positive
    spiral_extent_frac: Positive
    disc_e_max: Annotated[float, Field(ge=0, lt=1)]
    neighbour_radius_theta_e: tuple[NonNegative, NonNegative]
    wrong_centre_offset_theta_e: tuple[NonNegative, NonNegative]

    @model_validator(mode="after")
    def _usable(self) -> Negatives:
        if missing := [str(kind) for kind in NegativeKind if kind not in self.weights]:
            raise ValueError(f"weights must name every kind of negative, missing: {', '.join(missing)}")
        check_probabilities(list(self.weights.values()), "weights")
        self.negative(NegativeKind.RING)
        return self

    def negative(self, kind: NegativeKind) -> Negative:
        """What ``inject`` takes."""
        return Negative(kind=kind, **self.model_dump(exclude={"weights"}))


class Pairing(Model):
    """The members of a pair beside its positive (conf/pairing); null for one that is not there."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    control: Annotated[SameHost | MatchedHost, Field(discriminator="kind")] | None
    negatives: Negatives | None

    @model_validator(mode="after")
    def _has_a_member(self) -> Pairing:
        if self.control is None and self.negatives is None:
            raise ValueError("a pairing has a control, negatives, or both; without either, pairing is null")
        return self

    @property
    def members(self) -> int:
        """Rows that a positive of the manifest gives."""
        return 1 + (self.control is not None) + (self.negatives is not None)
