"""What the writing LLM's answers must look like; what they say is data."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from auditor.llm.verdict import Unreadable, field, read_json
from auditor.training.documents import Message

LONGEST_ITEM = 600  # characters of a kind, an idea, a situation, a first message
KEEP = "KEEP"

_DOCUMENT = re.compile(r"<document>(.*?)</document>", re.S)


def items(name: str) -> Callable[[str], list[str]]:
    """A reader of `{name: [texts]}`."""

    def read(text: str) -> list[str]:
        found = field(read_json(text), name, list)
        good = [each.strip() for each in found if isinstance(each, str) and 0 < len(each.strip()) <= LONGEST_ITEM]
        if not good:
            raise Unreadable(f"`{name}` must hold texts, each of at most {LONGEST_ITEM} characters")
        return list({each.casefold(): each for each in good}.values())

    return read


def document(text: str) -> str:
    """The text between the tags. Raises Unreadable."""
    found = _DOCUMENT.findall(text)
    if not found or not found[-1].strip():
        raise Unreadable("the text must stand between <document> and </document>")
    return str(found[-1]).strip()


def chat(opening: str) -> Callable[[str], tuple[Message, ...]]:
    """A reader of a whole chat that begins with `opening`."""

    def read(text: str) -> tuple[Message, ...]:
        return _chat(field(read_json(text), "messages", list), opening)

    return read


def revised(opening: str) -> Callable[[str], tuple[Message, ...]]:
    """The same; nothing where the chat is to stay as it is."""

    def read(text: str) -> tuple[Message, ...]:
        found = field(read_json(text), "messages", list)
        return _chat(found, opening) if found else ()

    return read


def _chat(found: Sequence[object], opening: str) -> tuple[Message, ...]:
    turns = []
    for i, each in enumerate(found):
        wanted = "assistant" if i % 2 else "user"
        content = each.get("content") if isinstance(each, dict) and each.get("role") == wanted else None
        if not isinstance(content, str) or not content.strip():
            raise Unreadable("`messages` must take turns, the user's first, each with `role` and a text as `content`")
        turns.append(Message(role=wanted, content=content.strip()))
    if not turns or len(turns) % 2:
        raise Unreadable("`messages` must end with an answer of the assistant's")
    if turns[0].content.split() != opening.split():
        raise Unreadable("the first message must be the one that was given, word for word")
    return tuple(turns)
