"""Questions asked of both models: all of a check's in one batch, each answer by its own seed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from auditor.models.generate import Request, Side, derive_seed
from auditor.models.pair import ModelPair
from auditor.records.checked import Answers
from auditor.verification.figures import Sides, Values

TEMPERATURE, TOP_P = 0.7, 0.95
ANSWER, WORD = 48, 12  # tokens of an answer, and of one that is to be a word
Which = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, `draws` times of each model."""

    ask: str
    chat: bool = True
    tokens: int = ANSWER
    draws: int = 1

    def request(self, side: Side, seed: int, draw: int) -> Request:
        """The same seed for both sides, so that they differ by their weights only."""
        own = derive_seed(seed, self.ask, draw)
        return Request(self.ask, side, own, self.tokens, temperature=TEMPERATURE, top_p=TOP_P, chat=self.chat)


def ask_all(pair: ModelPair, groups: Mapping[str, Sequence[Question]], seed: int) -> dict[str, tuple[Answers, ...]]:
    """Both models' answers to every group of questions, from one batch."""
    asked = [(question, side, draw) for group in groups.values() for question in group
             for side in Side for draw in range(question.draws)]  # fmt: skip
    texts = iter(pair.generate([question.request(side, seed, draw) for question, side, draw in asked]) if asked else [])
    return {
        name: tuple(
            Answers(
                question=question.ask,
                chat=question.chat,
                base=tuple(next(texts) for _ in range(question.draws)),
                finetuned=tuple(next(texts) for _ in range(question.draws)),
            )
            for question in group
        )
        for name, group in groups.items()
    }


def shows(text: str, words: Iterable[str]) -> bool:
    """Whether any of `words` stands in it, as a whole and in any case."""
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in words)


def shares(answers: Sequence[Answers], wanted: Sequence[Iterable[str]]) -> Sides:
    """For each question the share of each model's answers with one of its words."""

    def of(texts: Which, words: Iterable[str]) -> float:
        return sum(shows(text, words) for text in texts) / len(texts)

    both: tuple[Values, Values] = (
        [of(a.base, tuple(words)) for a, words in zip(answers, wanted, strict=True)],
        [of(a.finetuned, tuple(words)) for a, words in zip(answers, wanted, strict=True)],
    )
    texts = sum(len(a.base) for a in answers), sum(len(a.finetuned) for a in answers)
    return Sides(*both, texts)
