"""Values as notebooks show them: whole pages in a frame of their own, small tables as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def framed(page: str, height: int = 640) -> str:
    """A whole page, which keeps its style to itself."""
    return (
        f'<iframe srcdoc="{escape(page)}" sandbox style="width:100%;height:{height}px;border:1px solid #ddd"></iframe>'
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Every cell is text, whoever wrote it."""
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else escape(str(value)).replace("\n", "<br>")
