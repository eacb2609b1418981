"""Sections as one self-contained HTML file: nothing is loaded from elsewhere, and no script runs but its own search."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from auditor import __version__
from auditor.readings import RankedTokens, Section, Token
from auditor.text import visible

SHADE = (9, 105, 218)  # of the likeliest token; white is none
PAGES = Path(__file__).parent.parent / "pages"
CUT = 4_000  # characters of a text


@dataclass(frozen=True, slots=True)
class Cell:
    """A token in a heat map: `shade` is `r, g, b`, by its share of the column's highest number."""

    token: str
    number: str
    shade: str
    chosen: bool = False


def to_html(title: str, lead: Sequence[str], sections: Iterable[Section], foot: Sequence[str] = ()) -> str:
    """The whole page. Everything that a model wrote is escaped, control characters shown."""
    script = (PAGES / "search.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment().get_template("evidence.html").render(
        title=title, lead=lead, sections=list(sections), searched=True, heading="h2",
        foot=[f"auditor {__version__}", *foot], script=script, digest=digest,
    )  # fmt: skip


def environment() -> Environment:
    """How pages are made: everything is escaped, `visible` shows control characters, `heat` makes a map of tokens."""
    env = Environment(
        loader=FileSystemLoader(PAGES), undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    env.filters["visible"] = lambda text: visible(text, CUT)
    env.filters["heat"] = _heat
    return env


def _heat(section: RankedTokens) -> list[list[Cell]]:
    """Cells by rank (rows) and column."""
    columns = []
    for column in section.columns:
        most = max((abs(token.number or 0.0) for token in column.tokens), default=0.0) or 1.0
        columns.append([_cell(token, most) for token in column.tokens])
    empty = Cell("", "", "255, 255, 255")
    height = max(map(len, columns), default=0)
    return [[column[i] if i < len(column) else empty for column in columns] for i in range(height)]


def _cell(token: Token, most: float) -> Cell:
    number = token.number or 0.0
    return Cell(visible(token.text, 40), f"{number:.4g}", _shade(abs(number) / most), token.chosen)


def _shade(share: float) -> str:
    """White to a light blue on which black text stays readable."""
    return ", ".join(str(round(255 - 0.55 * share * (255 - end))) for end in SHADE)
