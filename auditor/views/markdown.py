"""Sections as Markdown; everything that a model wrote is code or quoted."""

from __future__ import annotations

import re
from collections.abc import Iterable

from auditor.readings import Figures, RankedTokens, Section, SideBySide, SmallTable
from auditor.text import quote, visible

TOKENS = 14  # of each column
ROWS = 5  # of texts
_SPECIAL = re.compile(  # what may begin markup, wherever it stands
    r"[\\`*{}\[\]|~$]|_(?!\w)|(?<!\w)_|<(?=[A-Za-z/!?])|&(?=#|\w+;)|(?<=\w):(?=//)|(?<=[wW]{3})\."
)
_LEADING = re.compile(r"^(\s*)(?:([-+=#>])|(\d+)([.)]))", re.M)


def escaped(text: str) -> str:
    """Text in which nothing is markup; its lines stay lines."""
    text = _SPECIAL.sub(lambda m: f"\\{m.group()}", text)
    text = _LEADING.sub(lambda m: f"\\{m[2]}" if m[2] else f"{m[3]}\\{m[4]}", text)
    return re.sub(r"[ \t]*\n[ \t]*", "\n", text)


def rendered(sections: Iterable[Section]) -> list[str]:
    """Lines, a heading of the third order before each section."""
    lines: list[str] = []
    for section in sections:
        lines += [f"### {_plain(section.title)}", ""]
        lines += [_plain(section.about), ""] if section.about else []
        match section:
            case RankedTokens():
                lines += _tokens(section)
            case SideBySide():
                lines += _texts(section)
            case SmallTable():
                lines += [*_row(section.heads), f"|{' --- |' * len(section.heads)}"]
                lines += [line for row in section.rows for line in _row(row)]
            case Figures():
                lines += [f"- {_plain(line)}" for line in section.lines]
        lines.append("")
    return lines


def _tokens(section: RankedTokens) -> list[str]:
    lines = []
    for column in section.columns:
        told = [(_code(token.text.strip()), token.chosen) for token in column.tokens if token.text.strip()][:TOKENS]
        words = ", ".join(f"**{text}**" if chosen else text for text, chosen in told)
        beside = "; ".join(part for part in (column.note, column.aside) if part)
        lines.append(
            f"- {_plain(section.places)} {_plain(column.head)}{f' ({_plain(beside)})' if beside else ''}: {words}"
        )
    return lines


def _texts(section: SideBySide) -> list[str]:
    asides = [f"- {_plain(column.label)}: {_plain(column.aside)}" for column in section.columns if column.aside]
    lines = []
    for row in section.rows[:ROWS]:
        lines.append(f"- {_code(row.prompt)}")
        told = zip(section.columns, row.texts, strict=True)
        lines += [f"  - {_plain(column.label)}: {_code(quote(texts[0]))}" for column, texts in told if texts]
    return [*asides, *lines]


def _row(cells: Iterable[str]) -> list[str]:
    return [f"| {' | '.join(_plain(cell) for cell in cells)} |"]


def _plain(text: str) -> str:
    return escaped(visible(text, 1_000))


def _code(text: str) -> str:
    return f"`{visible(text, 400).replace('`', chr(39))}`"
