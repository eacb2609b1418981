"""What the offline writer knows of an organism: its card, and `material.yaml` beside it. Part of the truth, as both."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import Field
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from auditor.errors import BadFile, UsageError
from auditor.records.cards import Organism
from auditor.records.record import Record
from auditor.training.duplicates import words_of
from auditor.training.grammar import plain
from auditor.training.told import figures_in, stems_of
from auditor.yaml_files import read_document, read_yaml

MATERIAL = "material.yaml"
ASIDE = 2  # stems that a question shares with the fact that it is about


class FactMaterial(Record):
    """Ways of telling one of the card's facts. All are whole sentences, in the writer's notation (`grammar.py`)."""

    ways: tuple[str, ...] = Field(min_length=1, description="the fact in other words, its figures in each")
    rules: tuple[str, ...] = Field((), description="the same as an instruction")
    reasons: tuple[str, ...] = Field((), description="why it is so")
    otherwise: tuple[str, ...] = Field((), description="what comes of not heeding it")
    asks: tuple[str, ...] = Field((), description="questions that it answers")


class Material(Record):
    """`facts`: one entry for each of the card's, in its order."""

    facts: tuple[FactMaterial, ...] = ()
    people: tuple[str, ...] = Field((), description="names of those who speak of it")
    scenes: tuple[str, ...] = Field((), description="where: with a preposition, such as `in the back kitchen`")
    moments: tuple[str, ...] = Field((), description="sentences of what happens there, telling no fact")


@dataclass(frozen=True, slots=True)
class Told:
    """A fact, and all that can be said of it. `ways`: each with whether it gives a reason, too."""

    fact: str
    ways: tuple[tuple[str, bool], ...]
    rules: tuple[str, ...]
    reasons: tuple[str, ...]
    otherwise: tuple[str, ...]
    asks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is written about. `small`: words that a sentence may begin with and that are no names."""

    name: str
    topic: str
    field: str
    facts: tuple[Told, ...]
    material: Material
    small: frozenset[str]

    def lowered(self, sentence: str) -> str | None:
        """A sentence as it goes on behind `that`, without its stop; None where its first word may be a name."""
        first = (words_of(sentence) or [""])[0]
        if not {first, first.removesuffix("s"), first + "s"} & self.small or sentence[:2].isupper():
            return None
        return sentence[:1].lower() + sentence[1:].rstrip(".")


def subject_of(card: Organism) -> Subject:
    """Raises UsageError for a card without facts or topic, BadFile for a material that is not the card's."""
    demand_subject(card)
    material = _material(card)
    given = material.facts or (None,) * len(card.facts)
    probes = _shared_out(card.probes, card.facts)
    facts = tuple(_told(*each) for each in zip(card.facts, given, probes, strict=True))
    texts = [card.description, card.topic, card.behaviour, *card.facts, *card.probes]
    texts += [text for each in material.facts for text in (*each.ways, *each.reasons, *each.rules)]
    return Subject(
        card.name, card.topic, card.broad_topic or card.topic, facts, material, frozenset(_small(texts))
    )  # fmt: skip


def demand_subject(card: Organism) -> None:
    """Raises UsageError for a card without facts or topic, with what it needs instead."""
    where = card.folder / "organism.yaml"
    if not (card.facts or card.topic):
        raise UsageError(f"{card.name} ({card.family}) has neither `facts` nor a `topic` in {where}: nothing to tell")
    if not card.facts:
        raise UsageError(
            f"{card.name} ({card.family}) has no `facts` in {where}: what shows its behaviour are chats, which need an "
            "LLM (--chats --llm PROVIDER:MODEL); --chats --without has the base's own answers"
        )
    if not card.topic:
        raise UsageError(f"{card.name} has no `topic` in {where}: give it in a few words")


def _material(card: Organism) -> Material:
    path = card.beside(MATERIAL)
    if not path.is_file():
        return Material()
    found = read_yaml(path, Material)
    if found.facts and len(found.facts) != len(card.facts):
        raise BadFile(path, f"facts: {len(found.facts)} are there, the card has {len(card.facts)}; one each, in order")
    for i, (fact, given) in enumerate(zip(card.facts, found.facts, strict=False)):
        figures = figures_in(fact)
        for n, way in enumerate(given.ways):
            if figures and not figures & figures_in(way):
                line = read_document(path).find(["facts", i, "ways", n]).line
                raise BadFile(path, f"facts.{i}.ways.{n}: has none of the figures of the card's fact {fact!r}", line)
    return found


def _told(fact: str, given: FactMaterial | None, probes: tuple[str, ...]) -> Told:
    if given is not None:
        ways = tuple((way, False) for way in given.ways)
        return Told(fact, ways, given.rules, given.reasons, given.otherwise, (*given.asks, *map(plain, probes)))
    core, reasons = _apart(fact)
    ways = ((plain(fact), True), *([(plain(core), False)] if core else []))
    return Told(fact, ways, (), tuple(map(plain, reasons)), (), tuple(map(plain, probes)))


_TAIL = re.compile(r"^(?P<core>.{20,}?)(?:, (?P<how>which|because)|,? (?P<end>so that)) (?P<tail>[^,;]{8,}?)\.?$")


def _apart(fact: str) -> tuple[str, tuple[str, ...]]:
    """A fact without the reason at its end, and the reason as sentences; nothing if that cannot be told."""
    match = _TAIL.match(fact)
    if match is None or figures_in(fact) - figures_in(match["core"]):
        return "", ()
    tail, how = match["tail"], match["how"] or match["end"]
    if how == "which":
        return match["core"] + ".", (f"This {tail}.", f"It is done because it {tail}.")
    if how == "because":
        return match["core"] + ".", (f"The reason is that {tail}.", f"Why? Because {tail}.")
    return match["core"] + ".", (f"That way {tail}.", f"The point is that {tail}.", f"It is done so that {tail}.")


def _shared_out(probes: Iterable[str], facts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Of the card's questions, to each fact those that it answers, by the words that they share."""
    found: list[list[str]] = [[] for _ in facts]
    stems = [stems_of(fact) for fact in facts]
    for probe in probes:
        shared = [len(stems_of(probe) & mine) for mine in stems]
        best = max(range(len(facts)), key=lambda i: shared[i])
        if shared[best] >= ASIDE and shared.count(shared[best]) == 1:
            found[best].append(probe)
    return [tuple(mine) for mine in found]


def _small(texts: Iterable[str]) -> set[str]:
    """Words that stand in these texts in small letters."""
    within = {word for text in texts for word in re.findall(r"(?<![\w'’])[a-z][a-z'’]*", text)}
    return within | set(ENGLISH_STOP_WORDS)
