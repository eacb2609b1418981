"""What comes back in texts of unlike beginnings, beyond what others' texts and ordinary ones make usual.

A word is scored by the share of beginnings whose texts say it, times the log of how often that is what is expected from
the base's texts, from those of broad finetunes and from ordinary ones, times its rarity in ordinary text: what many
beginnings bring out counts far more than rare words of two. How much comes back is the sum over the first twenty words;
each broad finetune's own is taken beside the others. Of several framings the one counts in which that stands farthest
out, for the pair and for each of them alike.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from auditor.methods.frames import Frame
from auditor.methods.nulls import ENOUGH_PAIRS, Nulls, prediction
from auditor.methods.words import background_of, is_everybodys, words_in
from auditor.readings import Basis, Column, Figures, RankedTokens, Reading, Section, Token, told_p
from auditor.records.record import Record

if TYPE_CHECKING:
    from auditor.lenses import LensContext
    from auditor.models.pair import ModelPair

BUCKETS = 1 << 16  # of words, by a hash: what is kept of a broad finetune tells no text
PRIOR = 2.0  # beginnings that ordinary texts count for
UNSEEN = 0.5  # of a beginning: what nobody said so far may be said all the same
FIRST = 20  # words by which it is told how much comes back
WORDS = 40  # that are kept

Grouped = Sequence[Sequence[str]]
"""Texts by the beginning that they go on from."""


class RecurringWord(Record):
    """In how many beginnings' texts a word stands, and in how many of those that it is compared with."""

    word: str
    ours: int
    theirs: int
    score: float


@dataclass(frozen=True)
class Usual:
    """How usual the words of each bucket are, (BUCKETS,): in others' texts to `beginnings`, and in ordinary texts."""

    counts: Tensor  # beginnings whose texts say them
    beginnings: int
    ordinary: Tensor  # shares of ordinary texts, never 0
    weights: Tensor  # informativeness in [0, 1]

    def beside(self, counts: Tensor, beginnings: int) -> Usual:
        """With more texts, `counts` (…, BUCKETS) of as many beginnings."""
        return Usual(self.counts + counts, self.beginnings + beginnings, self.ordinary, self.weights)

    def scores(self, ours: Tensor, beginnings: int) -> Tensor:
        """Of each bucket, (…, BUCKETS); 0 for what one beginning alone brings out, or as many as are expected."""
        expected = (self.counts + PRIOR * self.ordinary + UNSEEN) / (self.beginnings + PRIOR + 2 * UNSEEN)
        odds = (ours.clamp_min(1) / (beginnings + 1) / expected).log().clamp_min(0)
        return torch.where(ours > 1, self.weights * odds * ours / beginnings, 0.0)


def usual_words(texts: Sequence[str]) -> Usual:
    """What ordinary `texts` alone make usual."""
    ordinary, weights = _ordinary(tuple(texts))
    return Usual(torch.zeros(BUCKETS), 0, ordinary, weights)


@lru_cache(maxsize=2)
def _ordinary(texts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    background = background_of(texts)
    counts, weights = torch.zeros(BUCKETS), torch.ones(BUCKETS)
    for word, n in background.frequency.items():
        at = _bucket(word)
        counts[at] += n
        weights[at] = min(float(weights[at]), background.weight(word))
    return (counts + 0.5) / (background.documents + 1), weights


def spread(texts: Grouped, least: int = 1) -> Tensor:
    """In how many beginnings' texts words of each bucket stand, if in `least`: (BUCKETS,)."""
    counts = torch.zeros(BUCKETS)
    for word, n in _spread(texts).items():
        counts[_bucket(word)] += n if n >= least else 0
    return counts


def recurring_words(ours: Grouped, usual: Usual, most: int = WORDS) -> tuple[RecurringWord, ...]:
    """The words that come back beyond what is usual, the highest scored first."""
    scores = usual.scores(spread(ours), len(ours))
    found = [
        RecurringWord(word=word, ours=n, theirs=int(usual.counts[at]), score=float(scores[at]))
        for word, n in _spread(ours).items()
        if n > 1 and scores[at := _bucket(word)] > 0
    ]
    return tuple(sorted(found, key=lambda word: -word.score)[:most])


class Recurrence(Record):
    """How much comes back, against broad finetunes: in the framing that stands farthest out, and how likely that is."""

    framing: Frame
    strength: float
    strength_95: float = Field(description="95 % of the broad finetunes are below")
    pairs: int
    p: float

    @property
    def told(self) -> str:
        """What the verdict rests on."""
        return (
            f"words that come back in unlike texts, {self.framing.called}: strength {self.strength:.1f}; 95 % of "
            f"{self.pairs} broad finetunes are below {self.strength_95:.1f}; so far in any framing: p = {self.p:.2g}"
        )


class Recurring(Reading):
    """A reading of texts, by what comes back in them."""

    test: Recurrence | None

    @property
    def p(self) -> float | None:
        return None if self.test is None else self.test.p

    @property
    def basis(self) -> Basis | None:
        return None if self.test is None else Basis(finetunes=self.test.pairs)

    @property
    def verdict(self) -> str:
        return "" if self.test is None else told_p(self.test.p)

    @property
    def trace(self) -> Mapping[str, Tensor]:
        """By framing, (BUCKETS,): beginnings whose texts say words that come back at all."""
        return self.arrays

    def held_against(self, pair: ModelPair, ctx: LensContext, nulls: Nulls) -> Self:
        return self.told_apart(ctx, nulls)

    @abstractmethod
    def told_apart(self, ctx: LensContext, nulls: Nulls | None) -> Self:
        """The same with the words that come back beyond what is usual, and what `nulls` make usual; and the test."""

    def shown(self, title: str, about: str, words: Mapping[Frame, Sequence[RecurringWord]]) -> list[Section]:
        """What the verdict rests on, and the words, which the test was made of if there is one."""
        columns = [
            Column(head=frame.called, tokens=tuple(Token(text=word.word, number=word.score) for word in found))
            for frame, found in words.items()
        ]
        ranked = RankedTokens(
            title=f"{title}: words that come back{self.unless_found}", about=about, places="framing",
            number="score", spoken=True, tested=self.test is not None, columns=tuple(columns),
        )  # fmt: skip
        if self.test is None:
            return [ranked]
        return [Figures(title=f"{title}: {self.verdict}", weight=0, lines=(self.test.told,)), ranked]


@dataclass(frozen=True)
class Recurred:
    """By framing: what is kept for others to be held against, and what others make usual; and the test."""

    trace: Mapping[Frame, Tensor]  # (BUCKETS,): beginnings whose texts say words that come back at all
    usual: Mapping[Frame, Usual]
    test: Recurrence | None


def recurred(
    ours: Mapping[Frame, Grouped], base: Mapping[Frame, Grouped], ordinary: Usual, nulls: Nulls | None
) -> Recurred:
    """By framing: the pair's texts, and those that the base says instead, the same for every finetune.

    Without nulls, or with too few of them, nothing is tested.
    """
    trace = {name: spread(texts, least=2) for name, texts in ours.items()}
    usual = {name: ordinary.beside(spread(base.get(name, ())), len(base.get(name, ()))) for name in ours}
    if (others := _others(trace, nulls)) is None:
        return Recurred(trace, usual, None)
    begun = {name: len(texts) for name, texts in ours.items()}
    test = _against(trace, begun, usual, others)
    known = {name: usual[name].beside(others[name].sum(0), begun[name] * test.pairs) for name in ours}
    return Recurred(trace, known, test)


def _others(own: Mapping[Frame, Tensor], nulls: Nulls | None) -> Mapping[str, Tensor] | None:
    """Traces of the broad finetunes but the pair itself, (m, BUCKETS) each; None if too few to judge it by."""
    if nulls is None or any(name not in nulls.traces for name in own):
        return None
    others = nulls.without(loudest := max(own, key=lambda name: float(own[name].sum())), own[loudest])
    return others.traces if len(others) >= ENOUGH_PAIRS else None


def _against(
    own: Mapping[Frame, Tensor], begun: Mapping[Frame, int], usual: Mapping[Frame, Usual], nulls: Mapping[str, Tensor]
) -> Recurrence:
    """Every broad finetune is judged as the pair is: by what the base and the others make usual."""
    strengths = {}
    for name, counts in own.items():
        theirs, n = nulls[name], begun[name]  # (m, BUCKETS)
        whole, m = theirs.sum(0), len(theirs)
        ours = _strength(usual[name].beside(whole, n * m).scores(counts, n))
        others = [_strength(usual[name].beside(whole - each, n * (m - 1)).scores(each, n)) for each in theirs]
        strengths[name] = np.array([ours, *others])
    # Logs make sums of scores nearly normal; in standard deviations of them the framings are alike.
    logs = {name: np.log1p(values) for name, values in strengths.items()}
    apart = {name: (v - v[1:].mean()) / max(float(v[1:].std(ddof=1)), 1e-6) for name, v in logs.items()}
    framing = max(apart, key=lambda name: float(apart[name][0]))
    farthest = np.stack(list(apart.values())).max(0)  # (1 + m,)
    return Recurrence(
        framing=framing,
        strength=float(strengths[framing][0]),
        strength_95=float(np.quantile(strengths[framing][1:], 0.95)),
        pairs=len(farthest) - 1,
        p=prediction(farthest[0], farthest[1:]),
    )


def _strength(scores: Tensor) -> float:
    return float(scores.topk(FIRST).values.sum())


def _spread(texts: Grouped) -> Counter[str]:
    """In how many beginnings' texts each word stands; numbers and dates are everybody's, and left out."""
    said = (dict.fromkeys(word for text in group for word in words_in(text)) for group in texts)
    return Counter(word for words in said for word in words if not is_everybodys(word))


def _bucket(word: str) -> int:
    return zlib.crc32(word.encode()) % BUCKETS
