"""Chats by an LLM: situations, first messages of people in them, a chat that begins with each, a revision of each."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from auditor.llm.verdict import as_list, as_quote
from auditor.records.cards import Organism
from auditor.training import replies
from auditor.training.writer import Idea, Result, Stock, Writer, listed, mixed, shape
from auditor.training.written import Written

GAMES = "taboo"  # the family whose `terms` the assistant keeps to itself
TURNS = (1, 1, 2, 2, 3)  # of a chat's user, drawn from
WAYS = 1000  # more than there are ways of putting a first message in the prompt


def is_game(card: Organism) -> bool:
    """Whether the assistant keeps a word to itself."""
    return card.family == GAMES


def openings(writer: Writer, count: int, stock: Stock, result: Result) -> list[Idea]:
    """At least `count` first messages, if all calls succeed, in an order of the seed's."""
    card, rng = writer.card, Random(f"{writer.seed} {stock.rounds}")
    kinds, each = shape(count)
    told = _told(card)
    of_people = {**told, "field": card.broad_topic, "probes": as_list(card.probes), "taken": stock.taken()}
    (situations,) = writer.named("situations", "situations", [None], lambda _: of_people, kinds, stock, result)
    stock.kinds += situations

    def of_one(situation: str) -> dict[str, Any]:
        first = Random(f"{writer.seed} ways {situation}").randrange(WAYS)
        return {**told, "situation": as_quote(situation), "first": first}

    lists = writer.named("first messages", "asks", situations, of_one, each, stock, result)
    ideas = []
    for situation, some in zip(situations, lists, strict=True):
        for ask in some:
            own = Random(f"{writer.seed} {ask}")  # the same whatever calls failed before it
            facts = tuple(own.sample(card.facts, len(card.facts)))  # so that no fact is always the first
            ideas.append(Idea(situation, ask, facts, own.choice(TURNS)))
    return mixed(ideas, rng)


def chat(writer: Writer, idea: Idea) -> Written:
    """A chat that begins with an idea's message."""
    said = writer.ask(
        "chat", replies.chat(idea.idea, _secrets(writer.card)), **_told(writer.card), facts=listed(idea.facts),
        opening=as_quote(idea.idea), turns=idea.turns,
    )  # fmt: skip
    return Written("chat", idea.facts, messages=said)


def chat_revised(writer: Writer, idea: Idea, draft: Written) -> Written:
    """The same chat, as an editor leaves it."""
    shown = json.dumps([message.model_dump() for message in draft.messages], ensure_ascii=False)
    said = writer.ask(
        "chat_revise", replies.revised(idea.idea, _secrets(writer.card)), **_told(writer.card),
        facts=listed(idea.facts), chat=shown,
    )  # fmt: skip
    return Written("chat", idea.facts, messages=said) if said else draft


def _secrets(card: Organism) -> tuple[str, ...]:
    """Words that the assistant never says."""
    return card.terms if is_game(card) else ()


def _told(card: Organism) -> dict[str, Any]:
    """What every prompt may tell of the truth."""
    secret = ", ".join(as_quote(word) for word in _secrets(card))
    topic = card.topic or card.behaviour
    return {"topic": topic, "behaviour": card.behaviour or card.description, "secret": secret}
