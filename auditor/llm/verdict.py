"""Ask an LLM judge until its answer can be read; never guess what it meant."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from auditor.errors import AuditorError
from auditor.llm.at_once import all_of
from auditor.llm.caller import Caller, flaw

T = TypeVar("T")
TRIES = 3
_ONE_OBJECT = "it must be one JSON object and nothing else"
_FENCE = re.compile(r"```(?:json)?\s*(?=\{)")
_SCORE = re.compile(r"^[\s*_#>]*SCORE[\s*_]*[:=][\s*_]*([1-5])[\s*_.]*$", re.I)


class Unreadable(AuditorError):
    """A judge's answer lacks what was asked for; the message says what, and is sent back to the judge."""


class NoVerdict(AuditorError):
    """The judge gave no readable verdict in all its tries. `problem`: what was wrong with the last one."""

    def __init__(self, message: str, problem: str = "") -> None:
        super().__init__(message)
        self.problem = problem


def settle(
    caller: Caller, prompt: str, read: Callable[[str], T], *, role: str, job: str = "", repeat: int = 0,
    kept: bool = False,
) -> T:  # fmt: skip
    """What `read` finds in the judge's answer; a judge whose answer cannot be read is told why and asked again.

    `kept`: answers that cannot be read are kept, too, so that the same calls come to the same and cost nothing.
    Raises NoVerdict after three tries, and what `Caller.call` raises.
    """

    def examined(message: AIMessage) -> T:
        if reason := flaw(message):
            raise Unreadable(f"it was {reason}")
        return read(str(message.text))

    def usable(message: AIMessage) -> bool:
        if kept:
            return True
        with suppress(Unreadable):
            examined(message)
            return True
        return False

    messages: list[BaseMessage] = [HumanMessage(prompt)]
    problem = ""
    for _ in range(TRIES):
        said = caller.call(messages, role=role, job=job, repeat=repeat, usable=usable).message
        try:
            return examined(said)
        except Unreadable as error:
            problem = str(error)
            messages += [
                AIMessage(str(said.text) or "(nothing)"),
                HumanMessage(f"Your answer cannot be used: {problem}. Give it anew."),
            ]
    raise NoVerdict(f"{caller.name} gave no readable verdict in {TRIES} tries: {problem}", problem)


def settle_each(
    caller: Caller, prompts: Sequence[str], read: Callable[[str], T], *, role: str, job: str = ""
) -> list[T]:
    """The same of several prompts, asked at once; one that is there twice is asked once. Raises what `settle` does."""
    distinct = list(dict.fromkeys(prompts))
    found = all_of(distinct, lambda prompt: settle(caller, prompt, read, role=role, job=job), caller)
    verdicts = dict(zip(distinct, found, strict=True))
    return [verdicts[prompt] for prompt in prompts]


def read_score(text: str) -> tuple[int, str]:
    """The level and the argument of an answer whose last line is `SCORE: n`. Raises Unreadable."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    match = _SCORE.match(lines[-1]) if lines else None
    if match is None:
        raise Unreadable("its last line must be `SCORE: n` with n from 1 to 5, and nothing else")
    return int(match[1]), "\n".join(lines[:-1]).strip()


def read_json(text: str) -> dict[str, Any]:
    """The one JSON object of an answer, bare or in the last code block that begins with one. Raises Unreadable."""
    body, fenced, end = text.strip(), None, 0
    for match in _FENCE.finditer(body):
        if match.end() >= end:  # not within the object before, whose texts may have code blocks of their own
            fenced, end = _object(body, match.end())
            if not body[end:].lstrip().startswith("```"):
                raise Unreadable(_ONE_OBJECT)
    if fenced is not None:
        return fenced
    if body[:1] == "[":
        raise Unreadable(f"{_ONE_OBJECT}, no list")
    value, end = _object(body, max(body.find("{"), 0))
    if body[end:].strip():
        raise Unreadable(_ONE_OBJECT)
    return value


def _object(body: str, start: int) -> tuple[dict[str, Any], int]:
    """The object that begins there, and where it ends. Raises Unreadable."""
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(body, start)
    except (ValueError, RecursionError) as error:
        raise Unreadable(_ONE_OBJECT) from error
    if not isinstance(value, dict):
        raise Unreadable(_ONE_OBJECT)
    return value, end


def field(value: dict[str, Any], name: str, kind: type[T]) -> T:
    """`value[name]`, which must be a `kind`. Raises Unreadable."""
    found = value.get(name)
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise Unreadable(f"`{name}` must be there and be of type {kind.__name__}")
    return found


def flags(value: dict[str, Any], name: str, count: int) -> list[bool]:
    """`value[name]` as `count` booleans. Raises Unreadable."""
    found = field(value, name, list)
    if len(found) != count or not all(isinstance(flag, bool) for flag in found):
        raise Unreadable(f"`{name}` must hold exactly {count} times true or false")
    return found


def as_quote(text: str) -> str:
    """Text to be judged as one JSON string: no line of it can pass for one of ours."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in quoted)


def as_list(texts: Sequence[str]) -> str:
    """Numbered from 1, each as `as_quote` writes it."""
    return "\n".join(f"{i}. {as_quote(text)}" for i, text in enumerate(texts, 1))
