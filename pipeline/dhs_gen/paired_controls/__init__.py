"""Gen5-Prime: pairs, hard negatives and core masks."""

from dhs_gen.paired_controls.kinds import NegativeKind, SampleKind, member_id, negative_kind

__all__ = ["NegativeKind", "SampleKind", "member_id", "negative_kind"]
