"""What an import did with every column, as a table on the screen and as JSON beside the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from dhs_pipeline import __version__
from dhs_pipeline.imports.mapping import Batch, Outcome, Plan
from dhs_pipeline.imports.source import Source, null_count
from dhs_pipeline.storage import Location

REPORT_FILE = "import_report.json"


@dataclass
class Tally:
    """Counts over all rows of an import, by column."""

    rows: int = 0
    source_nulls: Counter[str] = field(default_factory=Counter)
    source_found: dict[str, Counter[str]] = field(default_factory=dict)
    target_nulls: Counter[str] = field(default_factory=Counter)

    def add_source(self, batch: Batch) -> None:
        """Count the rows of a batch and what its rules met; call it after they ran."""
        self.rows += batch.rows
        for name in batch.table.column_names:
            self.source_nulls[name] += null_count(batch.table.column(name))
        for name, found in batch.found.items():
            self.source_found.setdefault(name, Counter()).update(found)

    def add_target(self, table: pa.Table) -> None:
        for name in table.column_names:
            self.target_nulls[name] += table.column(name).null_count


def column_report(plan: Plan, tally: Tally) -> dict[str, Any]:
    """Each source column and each target column, with its outcome."""
    return {"source_columns": _source_columns(plan, tally), "target_columns": _target_columns(plan, tally)}


def _source_columns(plan: Plan, tally: Tally) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name in plan.source.names:
        uses = [c for c in plan.columns if c.rule is not None and name in c.rule.sources]
        entry: dict[str, Any]
        if uses:
            as_is = next((c for c in uses if c.outcome is Outcome.TAKEN), uses[0])
            entry = {"outcome": as_is.outcome.value, "to": [c.field.name for c in uses]}
            if as_is.rule is not None and as_is.rule.how:
                entry["how"] = as_is.rule.how
        else:
            entry = {"outcome": Outcome.NOT_TAKEN.value, "why": plan.not_taken[name]}
        entry["null_rows"] = tally.source_nulls[name]
        if found := tally.source_found.get(name):
            entry["found"] = dict(sorted(found.items()))
        entries[name] = entry
    return entries


def _target_columns(plan: Plan, tally: Tally) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for planned in plan.columns:
        entry: dict[str, Any] = {"outcome": planned.outcome.value}
        if planned.rule is not None:
            entry["from"] = list(planned.rule.sources)
            if planned.rule.how:
                entry["how"] = planned.rule.how
        elif planned.outcome is Outcome.ASSIGNED:
            entry["value"] = planned.value
        elif planned.outcome is Outcome.DRAWN:
            entry["how"] = "keyed by task_id"
        entry["null_rows"] = tally.target_nulls[planned.field.name]
        entries[planned.field.name] = entry
    return entries


def write_report(
    out: Location, kind: str, layout: str, source: Source, columns: Mapping[str, Any], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Write ``import_report.json``; returns it."""
    report = {
        "kind": kind,
        "layout": layout,
        "source": source.where.uri,
        "source_files": len(source.files),
        "source_rows": source.rows,
        "code_version": __version__,
        **extra,
        **columns,
    }
    (out / REPORT_FILE).write_json(report)
    return report


def report_text(report: Mapping[str, Any]) -> str:
    """The report as lines for a terminal."""
    lines = [f"{report['kind']} {report['source']}: {report.get('source_rows', '?')} rows ({report['layout']})"]
    lines += [f"  {key}: {_plain(value)}" for key, value in report.items() if key not in _SHOWN_OTHERWISE]
    if "source_columns" in report:
        lines += ["", f"{'source column':<28}{'outcome':<11}{'null':>9}  to, how or why"]
        lines += [_source_line(name, entry) for name, entry in report["source_columns"].items()]
    if "target_columns" in report:
        lines += ["", f"{'column here':<30}{'outcome':<11}{'null':>9}  from, how or value"]
        lines += [_target_line(name, entry) for name, entry in report["target_columns"].items()]
    return "\n".join(lines)


_SHOWN_OTHERWISE = ("kind", "layout", "source", "source_rows", "code_version", "source_columns", "target_columns")


def _source_line(name: str, entry: Mapping[str, Any]) -> str:
    parts = [", ".join(entry.get("to", ())), entry.get("how", entry.get("why", ""))]
    parts += [f"{what}: {rows} rows" for what, rows in entry.get("found", {}).items()]
    return f"{name:<28}{entry['outcome']:<11}{entry['null_rows']:>9}  {'; '.join(p for p in parts if p)}"


def _target_line(name: str, entry: Mapping[str, Any]) -> str:
    value = f"{entry['value']!r} in every row" if "value" in entry else ""
    parts = [", ".join(entry.get("from", ())), value, entry.get("how", "")]
    return f"{name:<30}{entry['outcome']:<11}{entry['null_rows']:>9}  {'; '.join(p for p in parts if p)}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) or "none"
    return str(value)
