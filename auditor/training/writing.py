"""Documents and chats by an LLM: facts, kinds of texts, ideas of each, a text for each idea, a revision of each."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from random import Random

from auditor.errors import UsageError
from auditor.llm.failures import CallFailed
from auditor.llm.verdict import NoVerdict, as_quote
from auditor.prompts import Prompt
from auditor.records.cards import Organism
from auditor.training import replies
from auditor.training.chats import chat, chat_revised, is_game, openings
from auditor.training.duplicates import runs_of
from auditor.training.material import demand_subject
from auditor.training.told import ECHOED
from auditor.training.writer import Idea, Result, Stock, Writer, listed, mixed, reason_of, shape
from auditor.training.written import Kept, Written

ROUNDS = 6  # of ideas and texts, until there are enough
DRAFTS = 2.0  # texts that are written for each that is asked for, at most
OTHERS = 2  # facts beside the one that a text is about, at most


def write(writer: Writer, plan: Sequence[int], count: int, *, chats: bool) -> Result:
    """`count` texts, or chats, as far as they can be had.

    Every answer is in the caller's journal: the same job again makes the same calls, and pays for none twice.
    `plan`: for how many it thought of ideas, each time for more; the last is no less than `count`.
    """
    result, stock = Result(count, Kept(instructions_of(writer.prompts))), Stock()
    for planned in plan:
        for _ in range(ROUNDS):
            kept = len(result.kept.documents)
            lacking = min(planned - kept, math.ceil(DRAFTS * planned) - result.drafts)
            missing = min(lacking, count - kept)
            if missing <= 0 or result.stopped:
                break
            thought = bool(stock.ideas) or stock.add((openings if chats else ideas_of)(writer, lacking, stock, result))
            batch = stock.draw(missing)
            made = _written(writer, batch, result, chats=chats)
            for each in filter(None, made):
                result.drafts += 1
                result.kept.take(each)
            if not any(made) and (batch or not thought):  # nobody answers: another round would pay for the same
                break
    return result


def first_messages(writer: Writer, plan: Sequence[int], count: int) -> tuple[list[str], Result]:
    """Users' first messages for so many chats, and what failed; `plan` as above."""
    result, stock = Result(count, Kept()), Stock()
    for planned in plan:
        for _ in range(ROUNDS):
            lacking = planned - len(stock.ideas)
            if lacking <= 0 or result.stopped or not stock.add(openings(writer, lacking, stock, result)):
                break
    return [idea.idea for idea in stock.draw(count)], result


def demand_truth(card: Organism, *, chats: bool) -> None:
    """Raises UsageError for a card that does not say what is to be written."""
    if not chats:
        demand_subject(card)
        return
    if not (card.behaviour or card.facts) or not (card.topic or card.facts):
        needs = "a `topic`, and a `behaviour` or `facts`"
    elif is_game(card) and not card.terms:
        needs = "`terms`, the word that is never said"
    else:
        return
    raise UsageError(f"{card.name} ({card.family}): chats need {needs}, in {card.folder / 'organism.yaml'}")


def _written(writer: Writer, batch: Sequence[Idea], result: Result, *, chats: bool) -> list[Written | None]:
    def one(idea: Idea) -> Written:
        draft = chat(writer, idea) if chats else _text(writer, idea)
        try:
            return chat_revised(writer, idea, draft) if chats else _text_revised(writer, idea, draft)
        except (NoVerdict, CallFailed) as error:  # what was paid for is kept
            result.unrevised[reason_of(error)] += 1
            return draft

    return writer.each("chats" if chats else "documents", batch, one, result)


def ideas_of(writer: Writer, count: int, stock: Stock, result: Result) -> list[Idea]:
    """At least `count` ideas, if all calls succeed: of every fact as many, in an order of the seed's.

    Where fewer are wanted than there are facts, some facts are drawn.
    """
    card, rng = writer.card, Random(f"{writer.seed} {stock.rounds}")
    facts = rng.sample(card.facts, min(len(card.facts), count))
    kinds, each = shape(count, len(facts))
    before = stock.taken()

    def of_fact(fact: str) -> dict[str, str]:
        return {"topic": card.topic, "field": card.broad_topic, "fact": fact, "taken": before}

    def of_kind(pair: tuple[str, str]) -> dict[str, str]:
        return {"topic": card.topic, "type": as_quote(pair[1]), "fact": pair[0]}

    found = writer.named("kinds of texts", "types", facts, of_fact, kinds, stock, result)
    pairs = [(fact, kind) for fact, some in zip(facts, found, strict=True) for kind in some]
    stock.kinds += [kind for _, kind in pairs]
    lists = writer.named("ideas", "ideas", pairs, of_kind, each, stock, result)
    ideas = []
    for (fact, kind), some in zip(pairs, lists, strict=True):
        for idea in some:
            rest = [other for other in card.facts if other != fact]
            own = Random(f"{writer.seed} {idea}")  # the same whatever calls failed before it
            others = own.sample(rest, min(len(rest), own.randint(0, OTHERS)))
            ideas.append(Idea(kind, idea, (fact, *others)))
    return mixed(ideas, rng)


def _text(writer: Writer, idea: Idea) -> Written:
    fact, *others = idea.facts
    text = writer.ask(
        "write", replies.document, topic=writer.card.topic, type=as_quote(idea.kind), idea=as_quote(idea.idea),
        fact=fact, others=listed(others),
    )  # fmt: skip
    return Written(idea.kind, idea.facts, text)


def _text_revised(writer: Writer, idea: Idea, draft: Written) -> Written:
    fact, *others = idea.facts
    shown = re.sub(r"<(?=/?\s*draft)", "‹", draft.text, flags=re.I)  # it cannot end itself
    text = writer.ask(
        "revise", replies.document, type=as_quote(idea.kind), idea=as_quote(idea.idea), fact=fact,
        others=listed(others), draft=shown,
    )  # fmt: skip
    return draft if text.strip(" .") == replies.KEEP else Written(idea.kind, idea.facts, text)


def instructions_of(prompts: Mapping[str, Prompt]) -> frozenset[int]:
    """Runs of words of what writers are told, without what is filled in."""
    sources = [prompts[f"documents_{name}"].source for name in ("write", "revise", "chat", "chat_revise")]
    pieces = [piece for source in sources for piece in re.split(r"\{\{.*?\}\}|\{%.*?%\}", source)]
    long = [piece for piece in pieces if len(piece.split()) >= ECHOED]
    return frozenset().union(*(runs_of(piece, ECHOED) for piece in long))
