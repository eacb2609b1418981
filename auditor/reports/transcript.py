"""One audit as it is read: its hypothesis, its claims with the passages that carry them, and what was said."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from auditor.agent.observed import BASE, Utterance, utterances
from auditor.reports.text import Part, differing
from auditor.text import readable

NAMES = {"system": "the agent's instructions", "human": "to the agent", "ai": "agent", "tool": "result"}
_SECTIONS = re.compile(r"(?=^## E\d+\b)", re.M)
_SECTION = re.compile(r"## (E\d+)\b")
_OBSERVATION = re.compile(r"\A(O\d+)\n")


@dataclass(frozen=True, slots=True)
class Answers:
    """What each speaker said to one prompt; where two are nearly alike, words that the base's has not are marked."""

    prompt: str
    said: Sequence[tuple[str, Sequence[Sequence[Part]]]]


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a message: an observation under its id, or plain text."""

    id: str = ""
    text: str = ""
    answers: Sequence[Answers] = ()
    lists: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a transcript."""

    kind: str
    name: str
    pieces: Sequence[Piece]
    calls: Sequence[str] = ()
    took: str = ""
    shared: bool = field(default=False)  # the same in many audits


def message_of(told: Mapping[str, Any]) -> Message:
    """A message as it is kept, laid out."""
    kind, data = str(told["type"]), told["data"]
    content = data["content"] if isinstance(data["content"], str) else json.dumps(data["content"], ensure_ascii=False)
    of = f" of {data['name']}" if kind == "tool" and data.get("name") else ""
    calls = [f"{call['name']}({json.dumps(call['args'], ensure_ascii=False)})" for call in data.get("tool_calls") or ()]
    pieces = _result(content) if kind == "tool" else _overview(content) if kind == "human" else [_plain(content)]
    return Message(
        kind=kind, name=NAMES.get(kind, kind) + readable(of, 100), pieces=[piece for piece in pieces if piece.text or
        piece.answers or piece.lists], calls=[readable(call, 4_000) for call in calls], took=_took(data),
    )  # fmt: skip


def _plain(content: str) -> Piece:
    return Piece(text=readable(content.strip()))


def _overview(content: str) -> list[Piece]:
    """The sections of an overview apart, each under its id."""
    pieces = []
    for part in _SECTIONS.split(content):
        head = _SECTION.match(part)
        pieces.append(Piece(id=head[1] if head else "", text=readable(part.strip())))
    return pieces


def _result(content: str) -> list[Piece]:
    """A tool's result: answers beside one another, token lists by place; what is neither as it stands."""
    head = _OBSERVATION.match(content)
    if head is None:
        return [_plain(content)]
    name, text = head[1], content[head.end() :]
    said = utterances(name, text)
    answers = [each for each in said if each.prompt]
    lists = [(readable(each.speaker, 200), readable(each.text, 2_000)) for each in said if not each.prompt]
    if not said:
        return [Piece(id=name, text=readable(text))]
    return [Piece(id=name, answers=_beside(answers), lists=lists)]


def _beside(said: Sequence[Utterance]) -> list[Answers]:
    """By prompt, in order; each speaker's texts."""
    prompts: dict[str, dict[str, list[str]]] = {}
    for each in said:
        prompts.setdefault(each.prompt, {}).setdefault(each.speaker, []).append(each.text)
    rows = []
    for prompt, speakers in prompts.items():
        base = speakers.get(BASE)
        told = [
            (readable(speaker, 100), [
                differing(text, base[min(i, len(base) - 1)]) if base and speaker != BASE else [Part(readable(text))]
                for i, text in enumerate(texts)
            ])
            for speaker, texts in speakers.items()
        ]  # fmt: skip
        rows.append(Answers(readable(prompt, 2_000), told))
    return rows


def _took(data: Mapping[str, Any]) -> str:
    took = (data.get("response_metadata") or {}).get("call")
    if not isinstance(took, dict):
        return ""
    tokens = took.get("tokens") or (None, None)
    parts = [f"{took.get('seconds', 0):.1f} s"]
    parts += [f"{tokens[0]} tokens in, {tokens[1]} out"] if None not in tokens else []
    parts += [f"attempt {took['attempts']}"] if (took.get("attempts") or 1) > 1 else []
    parts += [f"{took['cost_usd']:.4f} USD"] if took.get("cost_usd") else []
    return " · ".join(parts)
