"""An LLM that writes, what it is to write, and what came of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from auditor.errors import AuditorError
from auditor.llm.at_once import at_once
from auditor.llm.caller import Caller
from auditor.llm.capped import Spent
from auditor.llm.verdict import TRIES, NoVerdict, as_quote, settle
from auditor.prompts import Prompt
from auditor.records.cards import Organism
from auditor.training import replies
from auditor.training.duplicates import plain
from auditor.training.written import Kept

R = TypeVar("R")
KINDS = 20  # of texts, or situations, that are asked for in one call


@dataclass(frozen=True, slots=True)
class Idea:
    """What is to be written: a text of a kind about `facts[0]`, or a chat that begins so. `turns`: of its user."""

    kind: str
    idea: str
    facts: tuple[str, ...]
    turns: int = 0


@dataclass
class Result:
    """What came of a job. `failed`: calls that came to nothing, by reason; `unrevised`: drafts whose editor's call did;
    `named`: of what is named in lists (kinds, ideas, …), how many were asked for and how many came; `stopped`: why it
    ended early.
    """

    asked: int
    kept: Kept
    drafts: int = 0
    unrevised: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    named: dict[str, tuple[int, int]] = field(default_factory=dict)
    stopped: str = ""


@dataclass
class Stock:
    """What was thought of: `kinds` so far, in so many `rounds`, and `ideas` that are not written yet."""

    kinds: list[str] = field(default_factory=list)
    rounds: int = 0
    ideas: list[Idea] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)

    def add(self, ideas: Sequence[Idea]) -> bool:
        """Put in a round's ideas, but for those that were there, in other letters or marks; whether it has any."""
        self.rounds += 1
        for idea in ideas:
            if (words := plain(idea.idea)) not in self._known:
                self._known.add(words)
                self.ideas.append(idea)
        return bool(ideas)

    def draw(self, count: int) -> list[Idea]:
        """Take out the first so many."""
        drawn, self.ideas = self.ideas[:count], self.ideas[count:]
        return drawn

    def taken(self) -> str:
        """The kinds as one quotation."""
        return as_quote("; ".join(self.kinds)) if self.kinds else ""


@dataclass(frozen=True)
class Writer:
    """An LLM with what it is told: the card's truth and the prompts."""

    card: Organism
    caller: Caller
    prompts: Mapping[str, Prompt]
    seed: int
    workers: int
    tell: Callable[[str], None] = lambda line: None

    def ask(self, prompt: str, read: Callable[[str], R], repeat: int = 0, **values: Any) -> R:
        """What `read` finds in the answer to a prompt. Raises NoVerdict, and what `Caller.call` raises."""
        text = self.prompts[f"documents_{prompt}"].render(**values)
        job = f"documents {self.card.name}"
        return settle(self.caller, text, read, role=prompt, job=job, repeat=repeat, kept=True)

    def each(self, what: str, items: Sequence[Any], work: Callable[[Any], R], result: Result) -> list[R | None]:
        """`work` of every item, several at once; None where it came to nothing, which is counted in `result`."""
        every = max(1, len(items) // 10)

        def progress(done: int) -> None:
            if done % every == 0 or done == len(items):
                self.tell(f"{what}: {done} of {len(items)}")

        found = at_once(items, work, self.workers, progress)
        for error in found:
            if isinstance(error, Spent):
                result.stopped = str(error)
            elif isinstance(error, AuditorError):
                result.failed[reason_of(error)] += 1
        return [None if isinstance(each, AuditorError) else each for each in found]

    def named(
        self, what: str, prompt: str, items: Sequence[Any], values: Callable[[Any], dict[str, Any]], count: int,
        stock: Stock, result: Result,
    ) -> list[list[str]]:  # fmt: skip
        """For every item the list of `count` texts that a prompt asks for; how many came is counted in `result`."""
        read = replies.items({"asks": "messages"}.get(prompt, prompt))

        def work(item: Any) -> list[str]:
            return self.ask(prompt, read, stock.rounds, count=count, **values(item))[:count]

        found = self.each(what, items, work, result)
        there = [some for some in found if some is not None]
        asked, came = result.named.get(what, (0, 0))
        result.named[what] = (asked + count * len(there), came + sum(map(len, there)))
        return [some or [] for some in found]


def reason_of(error: AuditorError) -> str:
    """As calls that came to nothing are counted under."""
    if isinstance(error, NoVerdict):
        return f"gave no answer that can be used in {TRIES} tries: {error.problem}"
    return str(error)


def shape(count: int, parts: int = 1) -> tuple[int, int]:
    """How many kinds for each of so many parts, and ideas of each kind, come to `count`: about as many of both."""
    share = math.ceil(count / parts)
    kinds = min(KINDS, max(1, math.ceil(math.sqrt(share))))
    return kinds, math.ceil(share / kinds)


def mixed(ideas: list[Idea], rng: Random) -> list[Idea]:
    """In an order by which the first few are of many kinds and facts."""
    rng.shuffle(ideas)
    seen: Counter[str] = Counter()
    turn = []
    for idea in ideas:
        turn.append(seen[idea.kind])
        seen[idea.kind] += 1
    return [idea for _, idea in sorted(zip(turn, ideas, strict=True), key=lambda pair: pair[0])]


def listed(facts: Sequence[str]) -> str:
    return "\n".join(f"- {fact}" for fact in facts)
