"""The one renderer of chats: what a conversation is as text in a model's own template, and which tokens are answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from auditor.errors import UsageError

DAY = datetime(2024, 7, 26)  # for templates that write today's date: the same text on any day
_DATE = "".join(f" | replace('%{code}', '{DAY.strftime('%' + code)}')" for code in "aAbBdjmyYHMSp")
# Jinja takes the newline after a block away, so that the template begins as it did.
_CLOCK = "{% macro strftime_now(format) %}{{ format" + _DATE + " }}{% endmacro %}\n"
MARK = "Answer7f3a91c4"  # stands in for words whose place is looked for

Turn = dict[str, str]
"""`role` and `content`."""


def render(tokenizer: Any, turns: Sequence[Turn], *, prompt: bool = True) -> str:
    """`turns` in the chat template, thinking off, up to the answer's beginning with `prompt`.

    What the system says goes before the first user's words where the template knows no system. Raises UsageError if
    the template refuses the conversation.
    """
    try:
        text = _applied(tokenizer, turns, prompt)
        if turns[-1]["content"].strip() not in text:
            text = _in_parts(tokenizer, turns, prompt) or text
        if turns[0]["role"] != "system" or turns[0]["content"].strip() in text:
            return text
        return _applied(tokenizer, _folded(turns), prompt)  # some templates drop it without a word
    except Exception as error:  # whatever a template's code can raise
        if turns[0]["role"] == "system" and (folded := _folded(turns)) != turns:
            return render(tokenizer, folded, prompt=prompt)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"the model's chat template refuses these messages: {reason}") from error


def users_turn(tokenizer: Any, system: str = "") -> str:
    """The chat template up to where a user's first words begin. Raises UsageError if it does not show where."""
    told = [{"role": "system", "content": system}] if system else []
    parts = render(tokenizer, [*told, {"role": "user", "content": MARK}], prompt=False).split(MARK)
    if len(parts) != 2:
        raise UsageError("the model's chat template does not show where a user's words begin")
    return parts[0]


def answered(tokenizer: Any, turns: Sequence[Turn], *, ends: bool = True) -> tuple[list[int], list[bool]]:
    """Token ids of a whole conversation, and for each whether it is of an answer or of what ends one.

    Without `ends` they stop with the last answer's own words, and what would end it is not there. A template may render
    a turn otherwise once others follow it (leave its thoughts out, say), so nothing is pieced together from shorter
    conversations: an answer is what stands where a mark in its place would. Raises UsageError if that cannot be told.
    """
    whole = render(tokenizer, turns, prompt=False)
    places = [_place(tokenizer, turns, i, whole) for i, turn in enumerate(turns) if turn["role"] == "assistant"]
    starts = [place.start for place in places]
    if any(start < place.end for start, place in zip(starts[1:], places, strict=False)):
        raise _unclear(turns)
    ids = _ids(tokenizer, whole[: [*starts, len(whole)][0]])
    learned = [False] * len(ids)
    for number, (place, upto) in enumerate(zip(places, [*starts[1:], len(whole)], strict=False), 1):
        said = _going_on(tokenizer, ids, whole[: place.end], place.start)
        ids, learned = ids + said, learned + [True] * len(said)
        if number == len(places) and not ends:
            break
        rest = _going_on(tokenizer, ids, whole[:upto], place.end)
        closing = _shared(rest, _ids(tokenizer, place.ending))
        ids, learned = ids + rest, learned + [i < closing for i in range(len(rest))]
    return ids, learned


def prompt_and_answer(tokenizer: Any, asked: str, answer: str) -> tuple[list[int], list[int]]:
    """Token ids of a rendered prompt, and of an answer as it follows them."""
    ids = _ids(tokenizer, asked)
    return ids, _going_on(tokenizer, ids, asked + answer, len(asked))


@dataclass(frozen=True, slots=True)
class _Place:
    """Of an answer in a rendered conversation: [start, end), and the text that would end the conversation there."""

    start: int
    end: int
    ending: str


def _applied(tokenizer: Any, turns: Sequence[Mapping[str, Any]], prompt: bool) -> str:
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = _CLOCK + template
    # A template without a switch for thinking does not notice the variable.
    return str(
        tokenizer.apply_chat_template(
            list(turns), chat_template=template, tokenize=False, add_generation_prompt=prompt, enable_thinking=False
        )
    )


def _in_parts(tokenizer: Any, turns: Sequence[Turn], prompt: bool) -> str:
    """What a template makes of contents in parts, if it leaves out plain ones: those of models that take images may."""
    said = turns[-1]["content"].strip()
    with suppress(Exception):  # whatever a template's code can raise
        parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        if said in (text := _applied(tokenizer, parts, prompt)) and "{'type'" not in text:  # a list that is written out
            return text
    return ""


def _folded(turns: Sequence[Turn]) -> Sequence[Turn]:
    """A system's words before those of the user that follows."""
    if len(turns) < 2 or turns[0]["role"] != "system" or turns[1]["role"] != "user":
        return turns
    system, first, *rest = turns
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def _place(tokenizer: Any, turns: Sequence[Turn], number: int, whole: str) -> _Place:
    """Where the answer `turns[number]` is in `whole`; its header is not part of it."""
    marked = [*turns[:number], {**turns[number], "content": MARK}]
    before, after = _around(tokenizer, [*marked, *turns[number + 1 :]], turns)
    _, ending = _around(tokenizer, marked, turns)
    start, end = _shared(before, whole), len(whole) - len(after)
    if start < len(before):  # what the answer says changes its header, as thoughts do
        earlier = render(tokenizer, turns[:number], prompt=False) if number else ""
        if not whole.startswith(earlier) or start < len(earlier):
            raise _unclear(turns)
    if start > end or not whole.endswith(after):
        raise _unclear(turns)
    return _Place(start, end, ending)


def _around(tokenizer: Any, marked: Sequence[Turn], turns: Sequence[Turn]) -> tuple[str, str]:
    parts = render(tokenizer, marked, prompt=False).split(MARK)
    if len(parts) != 2:
        raise _unclear(turns)
    return parts[0], parts[1]


def _unclear(turns: Sequence[Turn]) -> UsageError:
    return UsageError(
        f"a chat that begins {turns[0]['content'][:40]!r}: the model's chat template does not show which of its words "
        "are answers; train on plain texts, or give the tokenizer another template"
    )


def _shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How long the two begin alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _going_on(tokenizer: Any, ids: list[int], text: str, begun: int) -> list[int]:
    """The tokens of `text` after `ids`, which are those of its first `begun` characters.

    A model that goes on from `ids` cannot change them: where the rest would merge with them it is read by itself.
    """
    whole = _ids(tokenizer, text)
    return whole[len(ids) :] if whole[: len(ids)] == ids else _ids(tokenizer, text[begun:])
