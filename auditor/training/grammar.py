"""The offline writer's notation: `[this|that|]` is one of these, `{name}` what is called so; a backslash before any of
their characters makes it a plain one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from auditor.errors import UsageError


class Decks:
    """Draws from lists as from decks of cards: everything once, in any order, before anything comes again."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._left: dict[tuple[str, ...], list[int]] = {}

    def draw(self, options: tuple[str, ...]) -> str:
        """One of `options`; two lists are the same deck if they hold the same."""
        left = self._left.get(options)
        if not left:
            left = self._left[options] = self.rng.sample(range(len(options)), len(options))
        return options[left.pop()]


def expanded(text: str, decks: Decks, named: Callable[[str], str]) -> str:
    """`text` with every choice made and every name filled in, from left to right.

    What is filled in is not read again. Raises UsageError where a bracket has no partner.
    """
    said, at = [], 0
    while at < len(text):
        mark = text[at]
        if mark == "\\":
            said.append(text[at + 1 : at + 2])
            at += 2
        elif mark == "{":
            end = text.find("}", at)
            if end < 0:
                raise UsageError(f"a {{ is not closed in {text!r}")
            said.append(named(text[at + 1 : end]))
            at = end + 1
        elif mark == "[":
            options, at = _options(text, at + 1)
            said.append(expanded(decks.draw(options), decks, named))
        elif mark in "]}":
            raise UsageError(f"a {mark} closes nothing in {text!r}; write \\{mark} for the character")
        else:
            end = next((i for i in range(at, len(text)) if text[i] in "\\{[]}"), len(text))
            said.append(text[at:end])
            at = end
    return "".join(said)


def slots_of(text: str) -> list[str]:
    """The names in a text, as they stand there."""
    return re.findall(r"(?<!\\)\{(\w+)\}", text)


def plain(text: str) -> str:
    """Text that stands for itself in this notation."""
    return re.sub(r"([\\\[\]{}])", r"\\\1", text)


def _options(text: str, at: int) -> tuple[tuple[str, ...], int]:
    """The alternatives from `at` up to the bracket that closes them, and where the text goes on."""
    options, depth, start, end = list[str](), 0, at, at
    while end < len(text):
        mark = text[end]
        if mark in "|]" and not depth:
            options.append(text[start:end])
            if mark == "]":
                return tuple(options), end + 1
            start = end + 1
        depth += (mark == "[") - (mark == "]")
        end += 2 if mark == "\\" else 1
    raise UsageError(f"a [ is not closed in {text!r}")
