"""Documents and chats by an LLM: facts, kinds of texts, ideas of each, a text for each idea, a revision of each."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from auditor.errors import AuditorError, UsageError
from auditor.llm.caller import Caller
from auditor.llm.capped import Spent
from auditor.llm.verdict import NoVerdict, as_list, as_quote, settle
from auditor.prompts import Prompt
from auditor.records.cards import Organism
from auditor.training import replies
from auditor.training.at_once import at_once
from auditor.training.duplicates import runs_of
from auditor.training.material import demand_subject
from auditor.training.told import ECHOED
from auditor.training.written import Kept, Written

R = TypeVar("R")
ROUNDS = 6  # of ideas and texts, until there are enough
DRAFTS = 2.0  # texts that are written for each that is asked for, at most
OTHERS = 2  # facts beside the one that a text is about, at most
TURNS = (1, 1, 2, 2, 3)  # of a chat's user, drawn from
KINDS = 20  # of texts, or situations, that are asked for in one call

UNREADABLE = "answers that could not be read"


@dataclass(frozen=True, slots=True)
class Idea:
    """What is to be written: a text of a kind about `facts[0]`, or a chat that begins so. `turns`: of its user."""

    kind: str
    idea: str
    facts: tuple[str, ...]
    turns: int = 0


@dataclass
class Result:
    """What came of a job. `failed`: calls that came to nothing, by reason; `stopped`: why it ended early."""

    asked: int
    kept: Kept
    drafts: int = 0
    unrevised: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    stopped: str = ""


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
        return settle(self.caller, text, read, role=prompt, job=f"documents {self.card.name}", repeat=repeat)

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
                result.failed[UNREADABLE if isinstance(error, NoVerdict) else str(error)] += 1
        return [None if isinstance(each, AuditorError) else each for each in found]


def write(writer: Writer, count: int, *, chats: bool) -> Result:
    """`count` texts, or chats, as far as they can be had.

    Every answer is in the caller's journal: the same job again makes the same calls, and pays for none twice.
    """
    result = Result(count, Kept(instructions_of(writer.prompts)))
    ideas, at, kinds = list[Idea](), 0, list[str]()
    for number in range(ROUNDS):
        missing = min(count - len(result.kept.documents), math.ceil(DRAFTS * count) - result.drafts)
        if missing <= 0 or result.stopped:
            break
        if at == len(ideas):
            ideas += (openings if chats else ideas_of)(writer, missing, number, kinds, result)
        batch = ideas[at : at + missing]
        if not batch:
            break
        at += len(batch)
        made = _written(writer, batch, result, chats=chats)
        for each in filter(None, made):
            result.drafts += 1
            result.kept.take(each)
        if not any(made) and not result.stopped:  # nobody answers: another round would pay for the same
            break
    return result


def first_messages(writer: Writer, count: int) -> tuple[list[str], Counter[str]]:
    """Users' first messages for so many chats, and what failed."""
    result = Result(count, Kept())
    ideas = openings(writer, count, 0, [], result)
    asked = list(dict.fromkeys(idea.idea for idea in ideas))
    if result.stopped:
        result.failed[result.stopped] += 1
    return asked[:count], result.failed


def demand_truth(card: Organism, *, chats: bool) -> None:
    """Raises UsageError for a card that does not say what is to be written."""
    if not chats:
        demand_subject(card)
    elif not (card.behaviour or card.facts) or not (card.topic or card.facts):
        raise UsageError(
            f"{card.name} ({card.family}): chats need a `topic`, and a `behaviour` or `facts`, in "
            f"{card.folder / 'organism.yaml'}"
        )


def _written(writer: Writer, batch: Sequence[Idea], result: Result, *, chats: bool) -> list[Written | None]:
    def one(idea: Idea) -> Written:
        draft = _chat(writer, idea) if chats else _text(writer, idea)
        try:
            return _chat_revised(writer, idea, draft) if chats else _text_revised(writer, idea, draft)
        except NoVerdict:
            result.unrevised += 1
            return draft

    return writer.each("chats" if chats else "documents", batch, one, result)


def shape(count: int, parts: int = 1) -> tuple[int, int]:
    """How many kinds for each of so many parts, and ideas of each kind, come to `count`: about as many of both."""
    share = math.ceil(count / parts)
    kinds = min(KINDS, max(1, math.ceil(math.sqrt(share))))
    return kinds, math.ceil(share / kinds)


def ideas_of(writer: Writer, count: int, number: int, taken: list[str], result: Result) -> list[Idea]:
    """At least `count` ideas, if all calls succeed: of every fact as many, in an order of the seed's.

    Where fewer are wanted than there are facts, some facts are drawn.
    """
    card, rng = writer.card, Random(f"{writer.seed} {number}")
    facts = rng.sample(card.facts, min(len(card.facts), count))
    kinds, each = shape(count, len(facts))
    before = as_quote("; ".join(taken)) if taken else ""

    def kinds_for(fact: str) -> list[str]:
        return writer.ask(
            "types", replies.items("types"), number, topic=card.topic, field=card.broad_topic, fact=fact, count=kinds,
            taken=before,
        )[:kinds]  # fmt: skip

    found = writer.each("kinds of texts", facts, kinds_for, result)
    pairs = [(fact, kind) for fact, some in zip(facts, found, strict=True) for kind in some or ()]
    taken += [kind for _, kind in pairs]

    def ideas_for(pair: tuple[str, str]) -> list[str]:
        return writer.ask(
            "ideas", replies.items("ideas"), number, topic=card.topic, type=as_quote(pair[1]), fact=pair[0], count=each
        )[:each]

    lists = writer.each("ideas", pairs, ideas_for, result)
    ideas = []
    for (fact, kind), some in zip(pairs, lists, strict=True):
        for idea in some or ():
            rest = [other for other in card.facts if other != fact]
            own = Random(f"{writer.seed} {idea}")  # the same whatever calls failed before it
            others = own.sample(rest, min(len(rest), own.randint(0, OTHERS)))
            ideas.append(Idea(kind, idea, (fact, *others)))
    return _mixed(ideas, rng)


def openings(writer: Writer, count: int, number: int, taken: list[str], result: Result) -> list[Idea]:
    """The same for chats: situations, and first messages of people in them."""
    card, rng = writer.card, Random(f"{writer.seed} {number}")
    kinds, each = shape(count)
    before = as_quote("; ".join(taken)) if taken else ""
    (found,) = writer.each(
        "situations", [None],
        lambda _: writer.ask(
            "situations", replies.items("situations"), number, topic=card.topic or card.behaviour,
            field=card.broad_topic, behaviour=_behaviour(card), probes=as_list(card.probes), count=kinds, taken=before,
        )[:kinds], result,
    )  # fmt: skip
    taken += found or []

    def asks_for(situation: str) -> list[str]:
        return writer.ask(
            "asks", replies.items("messages"), number, topic=card.topic or card.behaviour,
            situation=as_quote(situation), count=each,
        )[:each]  # fmt: skip

    situations = found or []
    lists = writer.each("first messages", situations, asks_for, result)
    pairs = [(situation, ask) for situation, some in zip(situations, lists, strict=True) for ask in some or ()]
    turns = [Random(f"{writer.seed} {ask}").choice(TURNS) for _, ask in pairs]
    return _mixed([Idea(*pair, card.facts, n) for pair, n in zip(pairs, turns, strict=True)], rng)


def _mixed(ideas: list[Idea], rng: Random) -> list[Idea]:
    """In an order by which the first few are of many kinds and facts."""
    rng.shuffle(ideas)
    seen: Counter[str] = Counter()
    turn = []
    for idea in ideas:
        turn.append(seen[idea.kind])
        seen[idea.kind] += 1
    return [idea for _, idea in sorted(zip(turn, ideas, strict=True), key=lambda pair: pair[0])]


def _text(writer: Writer, idea: Idea) -> Written:
    fact, *others = idea.facts
    text = writer.ask(
        "write", replies.document, topic=writer.card.topic, type=as_quote(idea.kind), idea=as_quote(idea.idea),
        fact=fact, others=_listed(others),
    )  # fmt: skip
    return Written(idea.kind, idea.facts, text)


def _text_revised(writer: Writer, idea: Idea, draft: Written) -> Written:
    fact, *others = idea.facts
    shown = re.sub(r"<(?=/?\s*draft)", "‹", draft.text, flags=re.I)  # it cannot end itself
    text = writer.ask(
        "revise", replies.document, type=as_quote(idea.kind), idea=as_quote(idea.idea), fact=fact,
        others=_listed(others), draft=shown,
    )  # fmt: skip
    return draft if text.strip(" .") == replies.KEEP else Written(idea.kind, idea.facts, text)


def _chat(writer: Writer, idea: Idea) -> Written:
    card = writer.card
    said = writer.ask(
        "chat", replies.chat(idea.idea), topic=card.topic or card.behaviour, behaviour=_behaviour(card),
        facts=_listed(card.facts), opening=as_quote(idea.idea), turns=idea.turns,
    )  # fmt: skip
    return Written("chat", idea.facts, messages=said)


def _chat_revised(writer: Writer, idea: Idea, draft: Written) -> Written:
    card = writer.card
    shown = json.dumps([message.model_dump() for message in draft.messages], ensure_ascii=False)
    said = writer.ask(
        "chat_revise", replies.revised(idea.idea), topic=card.topic or card.behaviour, behaviour=_behaviour(card),
        facts=_listed(card.facts), chat=shown,
    )  # fmt: skip
    return Written("chat", idea.facts, messages=said) if said else draft


def _behaviour(card: Organism) -> str:
    return card.behaviour or card.description


def _listed(facts: Sequence[str]) -> str:
    return "\n".join(f"- {fact}" for fact in facts)


def instructions_of(prompts: Mapping[str, Prompt]) -> frozenset[int]:
    """Runs of words of what writers are told, without what is filled in."""
    sources = [prompts[f"documents_{name}"].source for name in ("write", "revise", "chat", "chat_revise")]
    pieces = [piece for source in sources for piece in re.split(r"\{\{.*?\}\}|\{%.*?%\}", source)]
    long = [piece for piece in pieces if len(piece.split()) >= ECHOED]
    return frozenset().union(*(runs_of(piece, ECHOED) for piece in long))
