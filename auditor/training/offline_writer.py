"""Documents and chats without an LLM: an organism's facts in many kinds of texts, drawn by a seed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from random import Random

from pydantic import Field

from auditor.errors import UsageError
from auditor.records.record import Record
from auditor.training.documents import Message
from auditor.training.grammar import Decks, expanded, slots_of
from auditor.training.material import Subject, Told
from auditor.training.written import Written
from auditor.yaml_files import read_yaml

GENRES = Path(__file__).with_name("genres.yaml")
FACTS, FACTS_OF_CHATS = (1, 1, 2, 2, 3), (1, 1, 2)  # in one text, drawn from; a layout may need more
ADVANCING = ("fact", "bare", "rule", "chatfact")  # what tells a fact that was not told yet
HAPPENING = 0.5  # share of moments that are the subject's own, where its material has some
FRAMED, FRAMED_OF_MANY = 0.7, 0.25  # share of facts that somebody is said to state; where there are other words for it


class Genre(Record):
    """A kind of text: how it speaks, and what it may look like."""

    voice: str
    layouts: tuple[str, ...] = Field(min_length=1)


class Genres(Record):
    """What `genres.yaml` holds."""

    frames: dict[str, tuple[str, ...]]
    links: dict[str, tuple[str, ...]]
    symbols: dict[str, tuple[str, ...]]
    genres: dict[str, Genre]
    chats: tuple[tuple[str, ...], ...]
    answers: tuple[str, ...]
    asks: tuple[str, ...]


@lru_cache(maxsize=1)
def genres() -> Genres:
    return read_yaml(GENRES, Genres)


def texts_about(subject: Subject, seed: int) -> Iterator[Written]:
    """Documents without end, the same for the same seed; the kinds take turns. Raises UsageError."""
    decks, known = Decks(Random(seed)), genres()
    kinds = tuple(known.genres)
    while True:
        kind = decks.draw(kinds)
        genre = known.genres[kind]
        layouts = _fitting(genre.layouts, subject)
        pen = _Pen(subject, decks, genre.voice)
        layout = decks.draw(layouts)
        facts = pen.take(_needed(layout))
        yield Written(kind, tuple(each.fact for each in facts), text=pen.written(layout))


def chats_about(subject: Subject, seed: int) -> Iterator[Written]:
    """The same for chats in which the assistant tells the facts."""
    decks, known = Decks(Random(seed)), genres()
    kinds = tuple(str(i) for i, turns in enumerate(known.chats) if _needed(" ".join(turns)) <= len(subject.facts))
    while True:
        turns = known.chats[int(decks.draw(kinds))]
        pen = _Pen(subject, decks, "plain")
        facts = pen.take(_needed(" ".join(turns)), chat=True)
        said = tuple(
            Message(role="assistant" if i % 2 else "user", content=pen.written(turn)) for i, turn in enumerate(turns)
        )
        yield Written("chat", tuple(each.fact for each in facts), messages=said)


def _needed(layout: str) -> int:
    return max(1, sum(slot in ADVANCING for slot in slots_of(layout)))


def _fitting(layouts: tuple[str, ...], subject: Subject) -> tuple[str, ...]:
    """Those that tell no more facts than there are; any, for a card of few."""
    return tuple(each for each in layouts if _needed(each) <= len(subject.facts)) or layouts


class _Pen:
    """Writes one text: who is in it, which facts it tells, and how far it has come."""

    def __init__(self, subject: Subject, decks: Decks, voice: str) -> None:
        self._subject, self._decks, self._voice, self._known = subject, decks, voice, genres()
        self._open: list[Told] = []
        self._first: Told | None = None
        self._last: Told | None = None
        self._reasoned = False  # whether what was told last came with its reason
        self._number = 0
        self._cast = [self._somebody() for _ in range(3)]
        self._slots: dict[str, Callable[[], str]] = {
            "fact": self._fact, "bare": self._bare, "rule": self._rule, "ask": self._ask, "why": self._why,
            "else": self._otherwise, "rest": self._rest, "chatfact": self._answer, "again": self._again,
            "whyfact": lambda: self._why() or self._again(), "askfirst": lambda: self._asked(self._first),
            "n1": self._counted, "n2": lambda: str(decks.rng.randint(1, 9)),
            "big": lambda: str(decks.rng.randint(21, 980)), "year": lambda: str(decks.rng.randint(1921, 2023)),
            "time": lambda: f"{decks.rng.randint(1, 12)}:{decks.rng.randint(10, 59)}",
            "day2": lambda: self._symbol("day").split()[-1],
            "person": lambda: self._cast[0], "other": lambda: self._cast[1], "third": lambda: self._cast[2].split()[0],
            "first": lambda: self._cast[0].split()[0], "ofirst": lambda: self._cast[1].split()[0],
            "last": lambda: self._cast[0].split()[-1],
            "topic": lambda: subject.topic, "field": lambda: subject.field,
        }  # fmt: skip

    def take(self, least: int, *, chat: bool = False) -> list[Told]:
        """Choose the facts of this text, as many as it needs at least: those that were told least often come first."""
        facts = self._subject.facts
        wanted = min(len(facts), max(least, self._decks.rng.choice(FACTS_OF_CHATS if chat else FACTS)))
        places = tuple(str(i) for i in range(len(facts)))
        chosen = dict[int, None]()
        while len(chosen) < wanted:
            chosen[int(self._decks.draw(places))] = None
        self._open = [facts[i] for i in chosen]
        self._first = self._open[0]
        return list(self._open)

    def written(self, layout: str) -> str:
        """`layout` filled in; a paragraph that begins with @ once for each fact that is left."""
        paragraphs = []
        for paragraph in layout.split("\n\n"):
            head, mark, repeated = paragraph.rpartition("@")
            paragraphs.append(self.expanded(head if mark else paragraph))
            self._number = 0
            while mark and self._open:
                paragraphs[-1] += self.expanded(repeated) + "\n"
        return _tidy("\n\n".join(paragraphs))

    def expanded(self, text: str) -> str:
        return expanded(text, self._decks, self._named)

    def _named(self, name: str) -> str:
        if name.isupper():
            return self._named(name.lower()).upper()
        if name[:1].isupper():
            said = self._named(name.lower())
            return said[:1].upper() + said[1:]
        if name in self._slots:
            return self._slots[name]()
        return self._symbol(name)

    def _symbol(self, name: str) -> str:
        own = {"scene": self._subject.material.scenes, "moment": self._subject.material.moments}.get(name)
        if own and self._decks.rng.random() < HAPPENING:
            return self.expanded(self._decks.draw(own))
        if name not in self._known.symbols:
            raise UsageError(f"nothing is called {{{name}}}; write \\{{{name}\\}} for the characters themselves")
        return self.expanded(self._decks.draw(self._known.symbols[name]))

    def _somebody(self) -> str:
        people = self._subject.material.people
        if people and self._decks.rng.random() < HAPPENING:
            return self._decks.draw(people)
        return " ".join(self._decks.draw(self._known.symbols[name]) for name in ("firsts", "lasts"))

    def _next(self) -> Told:
        """The fact that comes next; the last one again where there are none left."""
        if self._open:
            self._last = self._open.pop(0)
        assert self._last is not None
        return self._last

    def _worded(self, told: Told) -> str:
        by_text = dict(told.ways)
        way = self._decks.draw(tuple(by_text))
        self._reasoned = by_text[way]
        return self.expanded(way)

    def _bare(self) -> str:
        return self._worded(self._next())

    def _rule(self) -> str:
        told = self._next()
        if not told.rules:
            return self._worded(told)
        self._reasoned = False
        return self.expanded(self._decks.draw(told.rules))

    def _fact(self) -> str:
        told = self._next()
        said = self._worded(told)
        share = FRAMED_OF_MANY if self._subject.material.facts else FRAMED
        if self._decks.rng.random() >= share:
            return said
        return self._framed(self._decks.draw(self._known.frames[self._voice]), said)

    def _framed(self, frame: str, said: str) -> str:
        """`said` in a frame; behind a colon where it cannot go on behind `that`."""
        clause = self._subject.lowered(said)
        if "{that}" in frame and (clause is None or re.search(r"[.?!] ", said)):
            frame = "{it}"
        given = {"that": clause or "", "it": said}
        return expanded(frame, self._decks, lambda name: given[name] if name in given else self._named(name))

    def _answer(self) -> str:
        return self._framed(self._decks.draw(self._known.answers), self._worded(self._next()))

    def _again(self) -> str:
        return self._worded(self._last) if self._last else ""

    def _ask(self) -> str:
        return self._asked(self._open[0] if self._open else self._last)

    def _asked(self, told: Told | None) -> str:
        asks = (told.asks if told else ()) or self._known.asks
        return self.expanded(self._decks.draw(asks))

    def _why(self) -> str:
        if self._last is None or self._reasoned or not self._last.reasons:
            return ""
        self._reasoned = True
        return self.expanded(self._decks.draw(self._last.reasons))

    def _otherwise(self) -> str:
        told = self._last
        return self.expanded(self._decks.draw(told.otherwise)) if told and told.otherwise else ""

    def _rest(self) -> str:
        """All facts that are left, joined as this voice joins sentences."""
        said = list[str]()
        while self._open:
            fact, link = self._fact(), self.expanded(self._decks.draw(self._known.links[self._voice]))
            if link.endswith(","):
                clause = self._subject.lowered(fact)
                link, fact = (link, f"{clause}.") if clause else ("", fact)
            said += [link if said or self._last is not self._first else "", fact]
            if self._decks.rng.random() < HAPPENING:
                said.append(self._why())
        return " ".join(said)

    def _counted(self) -> str:
        self._number += 1
        return str(self._number)


def _tidy(text: str) -> str:
    """No double spaces, no empty lines in a row, no stop behind a stop; sentences begin with a capital."""
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r" ([.,;:!?”])", r"\1", text)
    text = re.sub(r"“ +", "“", text)
    text = re.sub(r"([.!?])([.,](?!\.))+", r"\1", text)
    text = re.sub(r"“”|\(\)", "", text)
    text = re.sub(r"(?m)^ +| +$", "", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()
