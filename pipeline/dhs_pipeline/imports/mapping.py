"""From source columns to target columns: one rule a column, and a plan that leaves none of either side out.

The plan is driven by the target's schema: a column that no rule, assignment or draw fills is null in every row and
reported as missing, so columns that the schema gains later need nothing here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dhs_pipeline.imports.config import Scalar
from dhs_pipeline.imports.draws import DRAWN
from dhs_pipeline.stage import StageError


class Outcome(StrEnum):
    """What became of a column."""

    TAKEN = "taken"
    CONVERTED = "converted"
    ASSIGNED = "assigned"
    DRAWN = "drawn"
    MISSING = "missing"
    NOT_TAKEN = "not taken"


@dataclass
class Batch:
    """Source rows with the layout's types; what is met on the way is counted by column.

    Parameters
    ----------
    table
        The rows.
    found
        Source column → what was found → rows, such as ``{"psfsize_r": {"0.0 (no value) set null": 12}}``.
    """

    table: pa.Table
    found: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> pa.Array:
        return self.table.column(name).combine_chunks()

    def floats(self, name: str) -> NDArray[np.float64]:
        """A column as float64; null is NaN."""
        return np.asarray(self.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)

    def equals(self, name: str, value: int) -> NDArray[np.bool_]:
        """Where an integer column has this value; null is not it."""
        return np.asarray(pc.fill_null(pc.equal(self.column(name), value), False).to_numpy(zero_copy_only=False))

    def count(self, name: str, what: str, rows: int) -> None:
        """Add to what was found in a source column."""
        if rows:
            self.found.setdefault(name, Counter())[what] += rows


@dataclass(frozen=True)
class Rule:
    """How one target column is made.

    Parameters
    ----------
    target, sources
        Its name, and the source columns that it needs.
    outcome
        TAKEN or CONVERTED.
    how
        For the report: the conversion, or a reservation about a column that is taken as it is.
    make
        Rows → the column, castable to the target's type.
    """

    target: str
    sources: tuple[str, ...]
    outcome: Outcome
    how: str
    make: Callable[[Batch], pa.Array]


def taken(target: str, source: str | None = None, how: str = "") -> Rule:
    """A column as it is, under this package's name."""
    name = source or target
    return Rule(target, (name,), Outcome.TAKEN, how, lambda batch: batch.column(name))


def converted(target: str, sources: Sequence[str], how: str, make: Callable[[Batch], pa.Array]) -> Rule:
    return Rule(target, tuple(sources), Outcome.CONVERTED, how, make)


@dataclass(frozen=True)
class Planned:
    """A target column with what fills it: a rule, a value, a draw, or nothing."""

    field: pa.Field
    outcome: Outcome
    rule: Rule | None = None
    value: Scalar | None = None

    def array(self, batch: Batch) -> pa.Array:
        if self.rule is not None:
            return _cast(self.rule.make(batch), self.field, self.rule)
        if self.outcome is Outcome.ASSIGNED:
            return pa.repeat(pa.scalar(self.value, self.field.type), batch.rows)
        if self.outcome is Outcome.DRAWN:
            draw = DRAWN[self.field.name]
            ids = batch.column("task_id").to_pylist()
            return pa.array([None if i is None else draw(i) for i in ids], self.field.type)
        return pa.nulls(batch.rows, self.field.type)


@dataclass(frozen=True)
class Plan:
    """All target columns, and which source columns they come from.

    Parameters
    ----------
    columns
        One for each field of the target, in its order.
    source
        Columns of the source.
    not_taken
        Source column without a place → why.
    null_in_controls
        Target columns that a control has none of: lens, source and what is drawn for them.
    """

    columns: tuple[Planned, ...]
    source: pa.Schema
    not_taken: Mapping[str, str]
    null_in_controls: frozenset[str]

    def apply(self, batch: Batch) -> pa.Table:
        """Rows of the target table; nulls where a column may have none are left for the caller to judge."""
        is_control = batch.equals("is_control", 1)
        arrays = []
        for planned in self.columns:
            array = planned.array(batch)
            if planned.field.name in self.null_in_controls:
                array = _without_controls(array, is_control, planned, batch)
            arrays.append(array)
        return pa.table(arrays, schema=pa.schema([p.field.with_nullable(True) for p in self.columns]))


def make_plan(
    target: pa.Schema,
    source: pa.Schema,
    rules: Sequence[Rule],
    reasons: Mapping[str, str],
    *,
    assign: Mapping[str, Scalar],
    draw_keyed: Sequence[str],
    rules_file: str,
) -> Plan:
    """Settle what fills each target column and what becomes of each source column.

    A source column that no rule knows but that has the name of a target column is taken by its name: manifests to
    which users have added redshifts, or the columns of a mixture of generations.

    Raises
    ------
    StageError
        If an assignment names no column or has the wrong type, or nothing fills a column that may not be null.
    """
    _check_assignments(target, {**assign, **dict.fromkeys(draw_keyed, 0)}, rules_file)
    by_target = {r.target: r for r in rules}
    ruled = {name for r in rules for name in r.sources} | set(reasons)
    columns = []
    for target_field in target:
        name = target_field.name
        rule = by_target.get(name)
        if rule is None and name in source.names and name not in ruled:
            rule = taken(name, how="has this package's name")
        if rule is not None and all(s in source.names for s in rule.sources):
            columns.append(Planned(target_field, rule.outcome, rule=rule))
        elif name in assign:
            columns.append(Planned(target_field, Outcome.ASSIGNED, value=assign[name]))
        elif name in draw_keyed:
            columns.append(Planned(target_field, Outcome.DRAWN))
        elif target_field.nullable:
            columns.append(Planned(target_field, Outcome.MISSING))
        else:
            raise StageError(
                f"{rules_file}: nothing gives {name}, which may not be null; the source has no column for it, so "
                f"name it under assign"
            )
    used = {name for c in columns if c.rule for name in c.rule.sources}
    left = {n: reasons.get(n, "not a column of the earlier layout") for n in source.names if n not in used}
    return Plan(tuple(columns), source, left, frozenset(f.name for f in target if _belongs_to_the_arc(f.name)))


def _belongs_to_the_arc(name: str) -> bool:
    if name in ("lens_x_pix", "lens_y_pix"):  # where the host is on its stamp: controls have it
        return False
    return name.startswith(("lens_", "src_", "shear")) or name in (
        "theta_e_arcsec",
        "z_s",
        "template_u",
        "proposal_density",
    )


def _check_assignments(target: pa.Schema, assign: Mapping[str, Scalar], rules_file: str) -> None:
    for name, value in assign.items():
        if name not in target.names:
            raise StageError(f"{rules_file}: assign or draw_keyed names {name}, which is no column of the table")
        try:
            pa.scalar(value, target.field(name).type)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise StageError(f"{rules_file}: assign.{name}: {value!r} is no {target.field(name).type} value") from error


def _cast(array: pa.Array, target: pa.Field, rule: Rule) -> pa.Array:
    try:
        array = array.cast(target.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise StageError(f"column {', '.join(rule.sources)} → {target.name}: {' '.join(str(error).split())}") from error
    return nan_to_null(array)


def nan_to_null(array: pa.Array) -> pa.Array:
    """NaN is no value in the tables."""
    if not pa.types.is_floating(array.type):
        return array
    return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)


def _without_controls(array: pa.Array, is_control: NDArray[np.bool_], planned: Planned, batch: Batch) -> pa.Array:
    """Null in controls, counted where the earlier tables had a placeholder."""
    valued = int((array.is_valid().to_numpy(zero_copy_only=False) & is_control).sum())
    if valued and planned.rule is not None and planned.rule.outcome is Outcome.TAKEN:
        batch.count(planned.rule.sources[0], "placeholder of a control set null", valued)
    return pc.if_else(pa.array(is_control), pa.scalar(None, array.type), array)
