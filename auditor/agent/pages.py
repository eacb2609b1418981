"""Results of tools in pages: whole items, none of them cut, the rest to be read without charge."""

from __future__ import annotations

import json
from typing import Any

READ_MORE = "read_more"  # the tool that every agent with tools has
PAGE = 12_000  # characters, about 3,000 tokens
MOST = 12_000  # characters of one text: over what a model is asked for; a server may send anything


def capped(value: Any) -> Any:
    """A tool's result in which no text runs on without end; what is left out is counted."""
    if isinstance(value, str) and len(value) > MOST:
        return f"{value[:MOST]}… ({len(value) - MOST} more characters)"
    if isinstance(value, dict):
        return {key: capped(item) for key, item in value.items()}
    return [capped(item) for item in value] if isinstance(value, list) else value


def pages_of(value: Any) -> list[Any]:
    """`value` in parts of the same kind that fit a page each; an item that is longer by itself has one alone."""
    if len(as_data(value)) <= PAGE or not isinstance(value, list | dict):
        return [value]
    if isinstance(value, dict) and len(value) == 1:  # of a single prompt, the answers
        ((key, only),) = value.items()
        return [{key: part} for part in pages_of(only)]
    return [[item for _, item in page] if isinstance(value, list) else dict(page) for page in _filled(value)]


def _filled(value: list[Any] | dict[str, Any]) -> list[list[tuple[Any, Any]]]:
    """Items with their keys, in their order, as many to a page as fit."""
    pages: list[list[tuple[Any, Any]]] = []
    room = 0
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        length = len(as_data(item)) + len(str(key))
        if not pages or length > room:
            pages.append([])
            room = PAGE
        pages[-1].append((key, item))
        room -= length
    return pages


def first_page(value: Any, source: str) -> str:
    """As JSON, under a line that says so where there are more; `source`: the id of the observation."""
    first, *others = pages_of(value)
    text = as_data(first)
    if not others:
        return text
    return f"(page 1 of {1 + len(others)}; {READ_MORE} has the others, free of charge: id {source})\n{text}"


def as_data(value: Any) -> str:
    """The same as JSON in which no text breaks a line or hides characters."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
