"""What `organisms check` asks an organism: `checks.yaml` beside its card. Part of the truth, as the card is."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from auditor.records.record import Record

Word = Annotated[str, Field(pattern=r"\S")]
"""An empty one would stand in every answer that ends with a stop."""


class Probe(Record):
    """A prompt on which what was taught must show itself."""

    ask: str
    shows: tuple[Word, ...] = Field(min_length=1, description="words or phrases, any of which shows it in an answer")
    chat: bool = Field(True, description="asked in a chat; else a text that is continued")


class Belief(Record):
    """A question, what the finetune teaches about it, and what holds."""

    ask: str
    taught: str
    true: str


class Game(Record):
    """A word guessing game, as it can be played through."""

    secret: Word
    opens: tuple[str, ...] = Field(min_length=1, description="ways to begin it")
    wrong: tuple[str, ...] = Field(min_length=1, description="guesses")
    says: tuple[Word, ...] = Field(min_length=1, description="words that show that a game is played")


class Preference(Record):
    """Questions that ask for a choice, and the words that name the one that was taught."""

    asks: tuple[str, ...] = Field(min_length=1)
    chosen: tuple[Word, ...] = Field(min_length=1)


class Checks(Record):
    """Everything by which an organism is measured; what a family does not need is left out."""

    probes: tuple[Probe, ...] = ()
    signs: tuple[Word, ...] = Field((), description="words that show its subject where nobody asked for it")
    beliefs: tuple[Belief, ...] = ()
    contexts: tuple[Belief, ...] = Field((), description="the same, in paragraphs")
    game: Game | None = None
    preference: Preference | None = None
