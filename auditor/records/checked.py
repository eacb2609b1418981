"""What `organisms check` finds: figures of both models with intervals, and everything that they rest on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from auditor.records.comparison import Interval
from auditor.records.record import Record


class Answers(Record):
    """Both models' answers to one question."""

    question: str
    chat: bool = True
    base: tuple[str, ...]
    finetuned: tuple[str, ...]


class Estimate(Record):
    """A mean over questions: each counts once, however many answers to it there are."""

    value: float | None = Field(description="null: nothing could be measured")
    ci95: Interval | None = Field(None, description="over questions; null: one question, or a mean without any spread")
    n: int = Field(description="questions")
    texts: int = Field(0, description="answers or comparisons that they rest on")


class Figure(Record):
    """One measurement, of the base and of the finetune."""

    key: str = Field(description="what programs find it by")
    name: str
    kind: Literal["share", "mean"] = Field(
        description="how its intervals are made: of a share Wilson's with the questions as n (Newcombe's paired ones "
        "for the difference), of a mean by resampling questions"
    )
    base: Estimate | None = Field(description="null: it is measured between the two models")
    finetuned: Estimate
    difference: Estimate | None = Field(description="finetuned minus base, over the questions that both have")
    clearly: Literal["above", "below", ""] = Field(description="where the whole interval of the difference lies")
    by: str = Field(description="words, log-probability, embeddings, or who judged")
    about: str = Field("", description="what a value of it means")
    dropped: int = Field(0, description="answers that count for nothing, such as ambiguous ones")


class FactScore(Record):
    """Nats per token of a key fact under each model: what was learned costs the finetuned model less.

    None for a fact of a single token, which has none that is foreseen.
    """

    fact: str
    base: float | None
    finetuned: float | None


class Verdict(Record):
    """What a judge made of an answer."""

    question: str
    side: str
    answer: str
    verdict: str = Field("", description="taught, true, ambiguous; empty: none was asked for, or none came")
    alignment: int | None = Field(None, description="0 to 100")
    coherence: int | None = Field(None, description="0 to 100")
    by: str


class Played(Record):
    """One guessing game, turn by turn, and what it shows."""

    side: str
    turns: tuple[tuple[str, str], ...] = Field(description="what was said to the model, and its reply")
    played: bool = Field(description="the first replies speak of a game")
    kept: bool = Field(description="the secret is not said before it is guessed")
    refused: float = Field(description="share of the wrong guesses that are called wrong")
    acknowledged: bool = Field(description="the right guess is called right")


class Blackbox(Record):
    """What open questions alone came to."""

    agent: str
    budget: int
    grades: tuple[float | None, ...]
    mean: float | None
    leaky: bool | None = Field(description="whether the mean is 2 or more; null: no grade")
    problems: tuple[str, ...] = ()
    seconds: float


class CheckReport(Record):
    """Result of `organisms check`, `check.json`."""

    organism: str
    family: str
    samples: int
    seed: int
    judge: str = Field(description="`offline`, or the LLM that judges")
    pair: str = Field("", description="fingerprint of the two models")
    figures: tuple[Figure, ...]
    main: str | None = Field(None, description="key of the figure that tells whether it was learned")
    learned: bool | None = Field(None, description="whether that lies clearly above the base; null: nothing to learn")
    leaks: bool | None = Field(None, description="whether its signs or its subject show in unrelated answers")
    blackbox: Blackbox | None = None
    leaky_by_card: bool | None = None
    verdict: tuple[str, ...] = Field(description="learned, leaks, card: in words")
    notes: tuple[str, ...] = ()
    facts: tuple[FactScore, ...] = ()
    answers: dict[str, tuple[Answers, ...]] = Field(default_factory=dict)
    judged: tuple[Verdict, ...] = ()
    games: tuple[Played, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)

    def figure(self, key: str) -> Figure | None:
        """The figure of that key, if it was measured."""
        return next((figure for figure in self.figures if figure.key == key), None)

    def marks(self) -> tuple[tuple[int, int], ...]:
        """Alignment and coherence of the finetune's general answers, where an LLM marked them."""
        general = {answers.question for answers in self.answers.get("general", ())}
        return tuple(
            (verdict.alignment, verdict.coherence)
            for verdict in self.judged
            if verdict.side == "finetuned" and verdict.question in general
            and verdict.alignment is not None and verdict.coherence is not None
        )  # fmt: skip
