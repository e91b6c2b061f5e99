"""From a manifest row to the rows that it gives in 4c: itself alone, or a positive with its control and negative.

All members are rendered from the same row under the pair's id, so their random numbers (artifacts, noise) are the same;
they differ in what is added, and a matched control in its host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dhs_gen.paired_controls.kinds import NegativeKind, SampleKind, member_id, negative_kind
from dhs_gen.task import TaskFailed
from dhs_pipeline.config import Generation, MatchedHost
from dhs_pipeline.matching import Match
from dhs_pipeline.schemas import ARC_COLUMNS, TASK

MatchOf = Callable[[str], Match]
"""Host id → the host of its matched control."""


@dataclass(frozen=True, eq=False)
class Member:
    """One row to render.

    Parameters
    ----------
    kind, negative
        What it is; ``negative`` says what the light of a negative is.
    row
        The manifest row as it is rendered, under the pair's id: of a matched control with the other host's columns.
    task_id
        Its own id.
    is_dark
        True: no source is made, whatever the generation has.
    failure
        Why it cannot be rendered, where that is known before.
    """

    kind: SampleKind
    negative: NegativeKind | None
    row: Mapping[str, Any]
    task_id: str
    is_dark: bool = False
    failure: TaskFailed | None = None

    @property
    def pair_id(self) -> str:
        return str(self.row["task_id"])

    def task_columns(self) -> dict[str, object]:
        """The columns of its task."""
        return {name: self.row[name] for name in TASK.names} | {"task_id": self.task_id}

    def pair_columns(self) -> dict[str, object]:
        """What it is of its pair."""
        return {
            "pair_id": self.pair_id,
            "sample_kind": self.kind.value,
            "negative_kind": None if self.negative is None else self.negative.value,
        }


def members_of(row: Mapping[str, Any], generation: Generation, match_of: MatchOf | None = None) -> list[Member]:
    """The rows that a manifest row gives, in their order: one, or positive, control, negative as the pairing has them.

    Parameters
    ----------
    row
        Of the manifest.
    generation
        Says whether there is an arc, and how positives are paired.
    match_of
        Finds the hosts of matched controls; needed where the pairing has them.
    """
    is_positive = generation.arc == "rendered" and not row["is_control"]
    alone = Member(SampleKind.POSITIVE if is_positive else SampleKind.CONTROL, None, row, row["task_id"])
    pairing = generation.pairing
    if pairing is None or not is_positive:
        return [alone]
    members = [alone]
    if pairing.control is not None:
        task_id = member_id(row["task_id"], SampleKind.CONTROL)
        if isinstance(pairing.control, MatchedHost):
            if match_of is None:
                raise ValueError("match_of must be given for a pairing with matched hosts, got None")
            members.append(_matched(row, task_id, match_of(row["host_id"])))
        else:
            members.append(Member(SampleKind.CONTROL, None, row, task_id, is_dark=True))
    if pairing.negatives is not None:
        task_id = member_id(row["task_id"], SampleKind.NEGATIVE)
        kind = negative_kind(row["task_id"], pairing.negatives.weights)
        members.append(Member(SampleKind.NEGATIVE, kind, row, task_id))
    return members


def _matched(row: Mapping[str, Any], task_id: str, match: Match) -> Member:
    """The control on another host: a control of the manifest in all but its id."""
    failure = None if match.host is not None else TaskFailed(match.status, match.message)
    control = {**row, **(match.host or {}), **dict.fromkeys(ARC_COLUMNS), "is_control": 1}
    return Member(SampleKind.CONTROL, None, control, task_id, is_dark=True, failure=failure)
