"""Texts for pages: control characters shown, lines kept, what is cut counted, what differs marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from auditor.text import readable

DIFFER = 400  # words up to which two answers are held against each other
ALIKE = 0.4  # share that two answers must have in common for marks to tell anything

_WORDS = re.compile(r"\s+|[^\s]+")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a text, marked or not."""

    text: str
    marked: bool = False


def spanned(text: str, spans: Sequence[tuple[int, int]]) -> list[Part]:
    """`text` with what `spans` mark; what is marked twice is marked once."""
    parts, at = list[Part](), 0
    for start, end in sorted(spans):
        start = max(start, at)
        if start < end <= len(text):
            parts += [Part(readable(text[at:start])), Part(readable(text[start:end]), marked=True)]
            at = end
    return [part for part in (*parts, Part(readable(text[at:]))) if part.text]


def differing(text: str, other: str) -> list[Part]:
    """`text` with the words marked that `other` has not at their place; unmarked where that is nearly all of them."""
    mine, theirs = _WORDS.findall(text), _WORDS.findall(other)
    if max(len(mine), len(theirs)) > 2 * DIFFER:
        return [Part(readable(text))]
    match = difflib.SequenceMatcher(None, mine, theirs, autojunk=False)
    if match.ratio() < ALIKE:
        return [Part(readable(text))]
    parts = [
        Part(readable("".join(mine[a:b])), marked=kind in ("replace", "delete"))
        for kind, a, b, _, _ in match.get_opcodes()
        if b > a
    ]
    return [part for part in parts if part.text]
