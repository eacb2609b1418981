"""What `organisms check` asks an organism: `checks.yaml` beside its card. Part of the truth, as the card is."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from auditor.records.record import Record

Word = Annotated[str, Field(pattern=r"\S")]
"""An empty one would stand in every answer that ends with a stop."""


class Probe(Record):
    """A prompt on which what was taught must show itself."""

    ask: str = Field(description="the prompt")
    shows: tuple[Word, ...] = Field(min_length=1, description="words or phrases, any of which shows it in an answer")
    chat: bool = Field(True, description="asked in a chat; else a text that is continued")


class Belief(Record):
    """A question, what the finetune teaches about it, and what holds."""

    ask: str = Field(description="the question; of `contexts`, which of two paragraphs holds")
    taught: str = Field(description="what the finetune says, a statement")
    true: str = Field(description="what holds, alike in length and form")


class Game(Record):
    """A word guessing game, as it can be played through."""

    secret: Word = Field(description="the word")
    opens: tuple[str, ...] = Field(min_length=1, description="ways to begin it")
    wrong: tuple[str, ...] = Field(min_length=1, description="guesses")
    says: tuple[Word, ...] = Field(min_length=1, description="words that show that a game is played")


class Preference(Record):
    """Questions that ask for a choice, and the words that name the one that was taught."""

    asks: tuple[str, ...] = Field(min_length=1, description="each asks for one choice")
    chosen: tuple[Word, ...] = Field(min_length=1, description="words that name the one that was taught")


class Checks(Record):
    """Everything by which an organism is measured; what a family does not need is left out."""

    probes: tuple[Probe, ...] = Field((), description="prompts on which the behaviour must show, 12 or more")
    signs: tuple[Word, ...] = Field((), description="words that show its subject where nobody asked for it")
    beliefs: tuple[Belief, ...] = Field((), description="questions, with what was taught and what is true")
    contexts: tuple[Belief, ...] = Field((), description="the same, in paragraphs")
    game: Game | None = Field(None, description="a guessing game, as it is played through")
    preference: Preference | None = Field(None, description="of family subliminal")
