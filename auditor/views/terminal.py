"""Sections on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from auditor.readings import Column, Figures, RankedTokens, Section, SideBySide, SmallTable
from auditor.text import visible

TOKENS = 14  # of each column
ROWS = 5  # of texts
CUT = 200  # characters of a text


def rendered(sections: Iterable[Section]) -> Iterator[RenderableType]:
    """Each section as what rich can print; markup that a model wrote is only text in it."""
    for section in sections:
        match section:
            case RankedTokens():
                yield _tokens(section)
            case SideBySide():
                for part in section.parts():
                    yield _texts(part)
            case SmallTable():
                yield _table(section)
            case Figures():
                yield Text.from_markup(
                    "\n".join([f"[bold]{_shown(section.title)}[/]", *(f"  [dim]{_shown(x)}[/]" for x in section.lines)])
                )
        if section.about:
            yield Text(section.about, style="dim")


def _tokens(section: RankedTokens) -> Table:
    table = Table(title=_shown(section.title), title_justify="left")
    table.add_column(section.places, justify="right")
    table.add_column("tokens")
    for column in section.columns:
        table.add_row(_shown(column.head), _column(column))
    return table


def _column(column: Column) -> str:
    told = [(_shown(token.text.strip()), token.chosen) for token in column.tokens[:TOKENS]]
    words = " ".join(f"[bold]{text}[/]" if chosen else text for text, chosen in told if text)
    below = [f"[dim]{_shown(column.note)}[/]"] if column.note else []
    below += [f"[yellow]{_shown(column.aside)}[/]"] if column.aside else []
    return "\n".join([words, *below])


def _texts(part: SideBySide) -> RenderableType:
    if aside := part.columns[0].aside:
        return Text(visible(f"{part.title}: {aside}", CUT))
    table = Table(title=_shown(part.title), title_justify="left")
    for label in ("prompt", *(column.label for column in part.columns)):
        table.add_column(_shown(label), ratio=1 if label == "prompt" else 2)
    for row in part.rows[:ROWS]:
        table.add_row(*(_shown(text) for text in (row.prompt, *(texts[0] if texts else "" for texts in row.texts))))
    return table


def _table(section: SmallTable) -> Table:
    table = Table(*(_shown(head) for head in section.heads), title=_shown(section.title), title_justify="left")
    for row in section.rows:
        table.add_row(*(_shown(cell) for cell in row))
    return table


def _shown(text: str) -> str:
    return escape(visible(text, CUT))
