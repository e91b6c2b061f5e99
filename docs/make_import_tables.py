"""The mapping tables of docs/import.md, from the rules that imports use: python docs/make_import_tables.py.

Everything below the marker line of the page is written anew.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from dhs_pipeline.config import load_run_config, load_section
from dhs_pipeline.imports.config import ManifestImport, StampsImport
from dhs_pipeline.imports.layouts import MANIFEST_44, PAIRED
from dhs_pipeline.imports.manifest import plan_manifest
from dhs_pipeline.imports.mapping import Outcome, Plan, Planned
from dhs_pipeline.imports.stamps import PAIRED_KIND, plan_stamps

PAGE = Path(__file__).resolve().parent / "import.md"
MARKER = "<!-- Written by docs/make_import_tables.py from here on. -->\n"


def main() -> None:
    config = load_run_config("data")
    manifest = plan_manifest(
        pa.schema(MANIFEST_44.types.items()), config, load_section(ManifestImport, "imports", "manifest"), "manifest"
    )
    rules = load_section(StampsImport, "imports", "paired")
    stamps = plan_stamps(pa.schema(PAIRED.types.items()), PAIRED_KIND, config.survey, rules, "paired")
    head = PAGE.read_text(encoding="utf-8").partition(MARKER)[0]
    tables = [
        "\n## The 44-column manifest\n",
        *_source_table(manifest),
        *_missing_table(manifest),
        "\n## Stamps, metrics and pairs\n\nAll columns of the earlier stamps and metrics layouts and of pairs.\n",
        *_source_table(stamps),
        *_missing_table(stamps),
    ]
    PAGE.write_text(head + MARKER + "\n".join(tables) + "\n", encoding="utf-8")
    print(PAGE)


def _source_table(plan: Plan) -> list[str]:
    lines = ["| earlier column | outcome | here | how, or why not |", "|---|---|---|---|"]
    for name in plan.source.names:
        uses = [c for c in plan.columns if c.rule is not None and name in c.rule.sources]
        if not uses:
            lines.append(f"| `{name}` | not taken | | {plan.not_taken[name]} |")
        for outcome in (Outcome.TAKEN, Outcome.CONVERTED):
            for how, columns in _by_how([c for c in uses if c.outcome is outcome]).items():
                here = ", ".join(f"`{c}`" for c in columns)
                lines.append(f"| `{name}` | {outcome.value} | {here} | {how} |")
    return lines


def _by_how(columns: list[Planned]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for column in columns:
        if column.rule is not None:
            grouped.setdefault(column.rule.how, []).append(column.field.name)
    return grouped


def _missing_table(plan: Plan) -> list[str]:
    def named(outcome: Outcome) -> str:
        found = [c for c in plan.columns if c.outcome is outcome]
        texts = [f"`{c.field.name}`" + ("" if c.value is None else f" = {c.value}") for c in found]
        return ", ".join(texts) or "none"

    return [
        "\nColumns here that the earlier layout does not give:\n",
        *(f"- {o.value}: {named(o)}" for o in (Outcome.ASSIGNED, Outcome.DRAWN, Outcome.MISSING)),
    ]


if __name__ == "__main__":
    main()
