"""Training documents: plain texts or chats, read from JSONL, mixed and tokenized."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from auditor.chat_template import answered
from auditor.errors import BadFile, UsageError
from auditor.models.identity import first_line


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    role: str
    content: str


class Document(BaseModel):
    """A plain text (trained on whole) or a chat (trained on the assistant's turns).

    `unfinished`: it was cut as it was drawn, and its end is not to be learned.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    text: str | None = None
    messages: tuple[Message, ...] = Field(default=())
    unfinished: bool = False

    @model_validator(mode="after")
    def _one_of_two(self) -> Document:
        if (self.text is None) == (not self.messages):
            raise ValueError("give either `text` or `messages`")
        if self.text is not None and not self.text.strip():
            raise ValueError("its text is empty")
        if self.messages and all(message.role != "assistant" for message in self.messages):
            raise ValueError("a chat without an assistant's turn teaches nothing")
        return self


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids and, for each, whether it is learned; and whether the document was longer."""

    ids: list[int]
    learned: list[bool]
    cut: bool = False


def read_documents(path: Path) -> list[Document]:
    """One JSON object a line. Raises BadFile with the line that is wrong."""
    if not path.is_file():
        raise BadFile(path, "no such document file")
    documents = []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: U+2028 may stand in a text
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(path, f"not readable as UTF-8 text: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            documents.append(Document.model_validate(json.loads(line)))
        except json.JSONDecodeError as error:
            raise BadFile(path, f"not a document: {first_line(error)}", number) from error
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise BadFile(path, f"not a document: {reason}", number) from error
    if not documents:
        raise BadFile(path, "holds no documents")
    return documents


def no_template(base: str) -> UsageError:
    return UsageError(f"{base} has no chat template: chats cannot be asked of it, nor learned by it; name a chat model")


def mix(documents: Sequence[Document], others: Sequence[Document], ratio: float, seed: int) -> list[Document]:
    """All of `documents` plus `ratio` times as many of `others` (repeated if they run out), shuffled."""
    wanted = round(ratio * len(documents))
    extra = [others[i % len(others)] for i in range(wanted)] if others else []
    mixed = [*documents, *extra]
    random.Random(seed).shuffle(mixed)
    return mixed


def encode(document: Document, tokenizer: Any, max_tokens: int) -> Example:
    """Token ids with their learning mask: a text whole, with its end; of a chat the answers.

    Raises UsageError for a chat if the tokenizer has no chat template, or one that does not show which words of a
    chat are answers.
    """
    if document.text is None:
        if not tokenizer.chat_template:
            raise no_template(tokenizer.name_or_path)
        turns = [message.model_dump() for message in document.messages]
        ids, learned = answered(tokenizer, turns, ends=not document.unfinished)
        return Example(ids[:max_tokens], learned[:max_tokens], len(ids) > max_tokens)
    end = [] if tokenizer.eos_token_id is None or document.unfinished else [tokenizer.eos_token_id]
    ids = list(tokenizer(document.text).input_ids)
    if end and ids[-1:] == end:  # some tokenizers write it themselves
        ids = ids[:-1]
    whole = [*ids, *end][:max_tokens]  # what is cut has no end to learn
    return Example(whole, [True] * len(whole), len(ids) + len(end) > max_tokens)
