"""Numbers that an earlier manifest lacks and that may be drawn, from the same keyed streams as in stage 4a."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dhs_gen.streams import unit_interval

Draw = Callable[[str], float | int]

DRAWN: Mapping[str, Draw] = {
    "src_flip": lambda task_id: int(unit_interval(task_id, salt="src_flip") < 0.5),
    "template_u": lambda task_id: unit_interval(task_id, salt="template_u"),
}
"""Column → its value for a task_id: a task keeps it however often and in whatever order it is imported."""
