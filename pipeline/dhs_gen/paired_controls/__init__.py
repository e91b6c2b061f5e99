"""Gen5-Prime: pairs, hard negatives and core masks.

**The pair contract.** A pair has one id, which is the task_id of its positive, and up to three members: the positive,
its control and a hard negative. All have the same host, the same place on it, the same artifacts (drawn from the pair's
id) and the same processing, to the last cast (:func:`dhs_gen.inject.inject`). The only difference is the light: an arc,
none, or light that resembles an arc. Of no light, whatever its kind, the control's bytes are left.
"""

from __future__ import annotations

from dhs_gen.paired_controls.azimuthal import annulus_permutation, shuffle_annuli, shuffled_difference
from dhs_gen.paired_controls.core import (
    CoreFractions,
    core_dropout,
    core_fractions,
    core_is_dropped,
    core_mask,
    fill_core,
    theta_e_core_radius_pix,
)
from dhs_gen.paired_controls.kinds import NegativeKind, SampleKind, member_id, negative_kind
from dhs_gen.paired_controls.negative import Negative
from dhs_gen.paired_controls.procedural import ring_template, spiral_template

__all__ = [
    "CoreFractions",
    "Negative",
    "NegativeKind",
    "SampleKind",
    "annulus_permutation",
    "core_dropout",
    "core_fractions",
    "core_is_dropped",
    "core_mask",
    "fill_core",
    "member_id",
    "negative_kind",
    "ring_template",
    "shuffle_annuli",
    "shuffled_difference",
    "spiral_template",
    "theta_e_core_radius_pix",
]
