"""What was said in an observation: texts with their speaker and prompt, and lists of tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from auditor.agent.content import Span
from auditor.readings import Figures, RankedTokens, Section, SideBySide, SmallTable

FINETUNED, BASE, READING = "finetuned", "base", "reading"
TOKENS = "tokens"
TOKENS_OF = 60  # tokens of a column that a claim may rest on
PROMPTS = ("prompt", "opening")  # under which tools tell what was asked
TEXTS = (FINETUNED, "steered", "amplified", "plain", "text")  # … and what was said, however short
SENTENCE_OF = 40  # characters under which a piece goes with the next
_PAGES = re.compile(r"\A\(page [^\n]*\)\n")  # the line over the first of several
_ITEM = re.compile(r"\[(\d+)\]\Z")
WORDS = 4  # from which a string counts as a text, whatever it is told under
_PIECE = re.compile(r"[^.!?\n]+[.!?\n]*\s*|[.!?\n]+\s*")


@dataclass(frozen=True, slots=True)
class Utterance:
    """A text of an observation: who said it, to what, and what the base said to the same."""

    observation: str
    speaker: str
    text: str
    prompt: str = ""
    base: str | None = None
    item: int | None = None  # of the observation: its number there

    @property
    def finetuned(self) -> bool:
        """Whether it is the finetuned model that says it, pushed or not."""
        return not self.listed and self.speaker != BASE

    @property
    def listed(self) -> bool:
        """Whether it is what a lens reads, not what a model says."""
        return self.speaker.startswith((TOKENS, READING))


@dataclass(frozen=True, slots=True)
class Piece:
    """A sentence or two of an utterance, or a whole list of tokens."""

    of: Utterance
    span: Span

    @property
    def text(self) -> str:
        return self.of.text[slice(*self.span)]


def utterances(name: str, text: str, section: Section | None = None) -> list[Utterance]:
    """Everything said in the observation `name`: a section of the overview, or a tool's result as it was shown.

    A result is JSON; what is none (an error, a result that was cut) is taken as it stands.
    """
    if section is not None:
        return [*_of_section(name, section), Utterance(name, READING, text.partition("\n")[0])]
    text = _PAGES.sub("", text)
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return [Utterance(name, READING, line.strip()) for line in text.splitlines() if line.strip()]
    if isinstance(value, dict) and value.keys() == {"page", "of", "items"}:
        value = value["items"]
    if not isinstance(value, list):
        return list(_of_value(name, value))
    if value and all(isinstance(item, str) for item in value):
        return [replace(said, item=i) for i, item in enumerate(value) for said in _of_value(name, [item])]
    return [replace(said, item=i) for i, item in enumerate(value) for said in _of_value(name, item)]


def part_of(name: str, said: Sequence[Utterance]) -> list[Utterance]:
    """Of an observation's utterances those of the item that `name` is of (`E4[7]`); all of them without one."""
    number = _ITEM.search(name)
    return list(said) if number is None else [each for each in said if each.item == int(number[1])]


def whole(name: str) -> str:
    """The observation that an item's name is of: `E4` of `E4[7]`."""
    return _ITEM.sub("", name)


def pieces_of(said: Utterance) -> list[Piece]:
    """Sentences with their places, short ones with the next; lists of tokens whole."""
    if said.listed:
        return [Piece(said, (0, len(said.text)))]
    pieces, start = [], 0
    for match in _PIECE.finditer(said.text):
        if match.end() - start >= SENTENCE_OF:
            pieces.append(Piece(said, (start, match.end())))
            start = match.end()
    if start < len(said.text):
        pieces.append(Piece(said, (start, len(said.text))))
    return pieces


def _of_section(name: str, section: Section) -> Iterator[Utterance]:
    match section:
        case SideBySide():
            for number, row in enumerate(section.rows):
                by_base = [i for i, column in enumerate(section.columns) if column.role == "base"]
                base = next((row.texts[i][0] for i in by_base if row.texts[i]), None)
                for column, texts in zip(section.columns, row.texts, strict=True):
                    speaker = {"base": BASE, "plain": FINETUNED}.get(column.role, column.label)
                    beside = None if speaker == BASE else base
                    yield from (Utterance(name, speaker, text, row.prompt, beside, number) for text in texts)
        case RankedTokens():
            for place in section.columns:
                words = ", ".join(token.text.strip() for token in place.tokens[:TOKENS_OF])
                yield Utterance(name, f"{TOKENS} at {section.places} {place.head}", words)
        case SmallTable():
            yield from (Utterance(name, READING, " | ".join(row)) for row in section.rows)
        case Figures():
            yield from (Utterance(name, READING, line) for line in section.lines)


def _of_value(name: str, value: Any, key: str = "") -> Iterator[Utterance]:
    """Of a tool's result: items with a prompt, answers by speaker or by prompt, or lists of tokens by place."""
    if isinstance(value, Mapping):
        said = {each: _texts(each, item) for each, item in value.items()}
        if any(said.values()):
            yield from _of_item(name, value, {each: texts for each, texts in said.items() if texts})
        elif value and all(isinstance(item, int | float) for item in value.values()):
            yield Utterance(name, _listed(key), ", ".join(word.strip() for word in value))
        else:
            for each, item in value.items():
                yield from _of_value(name, item, f"{key}, {each}" if key else str(each))
    elif isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            yield Utterance(name, _listed(key), ", ".join(item.strip() for item in value))
        else:
            for item in value:
                yield from _of_value(name, item, key)
    elif isinstance(value, str) and value.strip():
        yield Utterance(name, READING, f"{key}: {value}" if key else value)


def _of_item(name: str, item: Mapping[str, Any], said: Mapping[str, list[str]]) -> Iterator[Utterance]:
    prompt = next((str(item[key]) for key in PROMPTS if key in item), "")
    base = next(iter(said.get(BASE, ())), None)
    for key, texts in said.items():
        if key in PROMPTS:
            continue
        by_prompt = not prompt and key not in (*TEXTS, BASE)  # answers under their prompts
        speaker, asked = ("steered", key) if by_prompt else (key, prompt)
        beside = None if speaker == BASE else base
        yield from (Utterance(name, speaker, text, asked, beside) for text in texts)


def _texts(key: str, item: Any) -> list[str]:
    """The texts under a key; none if they are tokens, figures, or something else."""
    texts = [item] if isinstance(item, str) else item
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        return []
    long = sum(len(text.split()) for text in texts) >= WORDS * len(texts)
    return texts if key in (*TEXTS, BASE, *PROMPTS) or long else []


def _listed(key: str) -> str:
    return f"{TOKENS} at {key}" if key else TOKENS
