"""`list` and `show` for everything that a workspace holds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import yaml
from rich.markup import escape
from rich.table import Table

from auditor.cli.shared import out, print_json
from auditor.records.record import Record
from auditor.shelves import Loaded, Shelf

UNSHOWN = {"adapter", "path", "overrides", "broken", "note"}  # in the table; --json has all of it


def list_shelf(
    shelf: Shelf[Any],
    describe: Callable[[Loaded[Any]], dict[str, Any]],
    *,
    json: bool,
) -> None:
    """One row for each thing; where it is from and what it overrides; broken files last."""
    rows = [
        {
            "name": name,
            **describe(item),
            "source": item.root,
            "path": str(item.path),
            "overrides": [str(path) for path in item.overrides],
            "broken": None,
        }
        for name, item in sorted(shelf.items.items())
    ]
    if json:
        print_json([*rows, *_broken(shelf, list(rows[0]) if rows else [])])
        return
    columns = [key for key in (rows[0] if rows else {}) if key not in UNSHOWN]
    table = Table(*columns)
    if columns:
        table.columns[0].no_wrap = True  # what is typed is not cut
    for row in rows:
        cells = [escape("–" if row[column] is None else str(row[column])) for column in columns]
        if row["overrides"]:
            cells[-1] += f"\n[yellow]overrides {escape(', '.join(row['overrides']))}[/]"
        table.add_row(*cells)
    out.print(table)
    for name, problem in sorted(shelf.broken.items()):
        out.print(f"[red]broken[/] {escape(name)}: {escape(str(problem))}", highlight=False, soft_wrap=True)


def _broken(shelf: Shelf[Any], keys: list[str]) -> list[dict[str, Any]]:
    """Rows of the broken ones: `broken` says why, and what only a good file tells is null."""
    return [
        {
            **dict.fromkeys(keys),
            "name": name,
            "source": problem.root,
            "path": str(problem.path),
            "overrides": [str(path) for path in problem.overrides],
            "broken": str(problem.error),
        }
        for name, problem in sorted(shelf.broken.items())
    ]


def show_thing(value: Any, *, json: bool) -> None:
    """A declarative thing, field by field."""
    data = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    if json:
        print_json(data)
        return
    for key, content in data.items():
        if isinstance(content, list) and content and isinstance(content[0], str):
            out.print(f"[bold]{key}[/]")
            for line in content:
                out.print(f"  · {escape(line)}", highlight=False)
        elif content not in (None, "", [], {}):
            out.print(f"[bold]{key}[/]  {escape(str(content))}", highlight=False)


def show_card(card: Record, *, json: bool, **instead: Any) -> None:
    """A card as YAML that can be pasted; what is at its default is left out. `instead`: of fields, for YAML alone."""
    if json:
        print_json(card.model_dump(mode="json"))
        return
    data = card.model_dump(mode="json", exclude_defaults=True) | instead
    sys.stdout.write(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100))
