"""What the writing LLM's answers must look like; what they say is data."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from auditor.llm.verdict import Unreadable, as_quote, field, read_json
from auditor.training.documents import Message
from auditor.training.duplicates import plain, words_of

LONGEST_ITEM = 600  # characters of a kind, an idea, a situation, a first message
KEEP = "KEEP"
ALIKE = 0.6  # of the words of two messages, in their order

_DOCUMENT = re.compile(r"<document>(.*?)</document>", re.S)


def items(name: str) -> Callable[[str], list[str]]:
    """A reader of `{name: [texts]}`."""

    def read(text: str) -> list[str]:
        found = field(read_json(text), name, list)
        good = [each.strip() for each in found if isinstance(each, str) and 0 < len(each.strip()) <= LONGEST_ITEM]
        if not good:
            raise Unreadable(f"`{name}` must hold texts, each of at most {LONGEST_ITEM} characters")
        unlike = dict[str, str]()
        for each in good:
            unlike.setdefault(plain(each), each)
        return list(unlike.values())

    return read


def document(text: str) -> str:
    """The text between the tags. Raises Unreadable."""
    found = _DOCUMENT.findall(text)
    if not found or not found[-1].strip():
        raise Unreadable("the text must stand between <document> and </document>")
    return str(found[-1]).strip()


def chat(opening: str, secrets: Sequence[str] = ()) -> Callable[[str], tuple[Message, ...]]:
    """A reader of a whole chat that begins with `opening`, in which the assistant says none of `secrets`."""

    def read(text: str) -> tuple[Message, ...]:
        return _chat(field(read_json(text), "messages", list), opening, secrets)

    return read


def revised(opening: str, secrets: Sequence[str] = ()) -> Callable[[str], tuple[Message, ...]]:
    """The same; nothing where the chat is to stay as it is."""

    def read(text: str) -> tuple[Message, ...]:
        found = field(read_json(text), "messages", list)
        return _chat(found, opening, secrets) if found else ()

    return read


def _chat(found: Sequence[object], opening: str, secrets: Sequence[str]) -> tuple[Message, ...]:
    turns = []
    for i, each in enumerate(found):
        wanted = "assistant" if i % 2 else "user"
        content = each.get("content") if isinstance(each, dict) and each.get("role") == wanted else None
        if not isinstance(content, str) or not content.strip():
            raise Unreadable("`messages` must take turns, the user's first, each with `role` and a text as `content`")
        turns.append(Message(role=wanted, content=content.strip()))
    if not turns or len(turns) % 2:
        raise Unreadable("`messages` must end with an answer of the assistant's")
    if not _alike(turns[0].content, opening):
        raise Unreadable("the first message must be the one that was given, word for word")
    for word in secrets:
        if any(_says(turn.content, word) for turn in turns[1::2]):
            raise Unreadable(f"the assistant must not say {as_quote(word)}, only the user may")
    return Message(role="user", content=opening), *turns[1:]


def _alike(mine: str, given: str) -> bool:
    """Whether it is the given message, mended here and there at most: that one is then kept."""
    return SequenceMatcher(None, words_of(mine), words_of(given)).ratio() >= ALIKE or mine == given


def _says(text: str, word: str) -> bool:
    """Whether it stands there, whole or in the plural."""
    return re.search(rf"(?<!\w){re.escape(word)}s?(?!\w)", text, re.I) is not None
