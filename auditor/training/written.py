"""What a writer made, and which of it is kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from auditor.training.documents import Message
from auditor.training.duplicates import Sieve
from auditor.training.told import fault_of

REPEATED, NEARLY = "repeats another word for word", "repeats nearly half of another"


@dataclass(frozen=True, slots=True)
class Written:
    """A text, or a chat, of a kind; and the facts of which it should tell one at least."""

    kind: str
    facts: tuple[str, ...]
    text: str = ""
    messages: tuple[Message, ...] = ()

    @property
    def said(self) -> str:
        """All that is learned from it, and of a chat what is asked, too."""
        return self.text or "\n".join(message.content for message in self.messages)

    @property
    def told(self) -> str:
        """What is held against the facts: a text, or the assistant's turns."""
        return self.text or "\n".join(each.content for each in self.messages if each.role == "assistant")

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Of a chat each message with its answer."""
        said = [message.content for message in self.messages]
        return list(zip(said[::2], said[1::2], strict=False))

    def line(self) -> str:
        """As `documents.jsonl` has it."""
        if self.text:
            return json.dumps({"genre": self.kind, "text": self.text}, ensure_ascii=False)
        return json.dumps({"messages": [each.model_dump() for each in self.messages]}, ensure_ascii=False)


@dataclass
class Kept:
    """What is good and not there yet, in order; and how many were dropped for what reason."""

    instructions: frozenset[int] = frozenset()
    documents: list[Written] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    _sieve: Sieve = field(default_factory=Sieve)

    def take(self, written: Written) -> bool:
        """Keep it, or count why not."""
        fault = fault_of(written.told, written.facts, self.instructions, written.pairs)
        twin = None if fault else self._sieve.twin(written.said)
        if twin is not None:
            fault = REPEATED if twin[1] == 1 else NEARLY
        if fault:
            self.dropped[fault] += 1
            return False
        self._sieve.add(written.said)
        self.documents.append(written)
        return True


def as_lines(documents: Iterable[Written]) -> str:
    """The file's content."""
    return "".join(each.line() + "\n" for each in documents)


def reasons(dropped: Counter[str]) -> Sequence[str]:
    """In words, the most frequent first."""
    return [f"{count} {reason}" for reason, count in sorted(dropped.items(), key=lambda item: (-item[1], item[0]))]
