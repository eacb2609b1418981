"""How much a set of tokens hangs together, against what random words of the vocabulary do."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditor.models.embed import Vectors

Array = NDArray[np.float32]

_WORD = re.compile(r"[^\W\d_]{3,}")
_UNITS = "one two three four five six seven eight nine ten eleven twelve thirteen fifteen eighteen"
_NUMERAL = re.compile(
    rf"({_UNITS.replace(' ', '|')}|(four|six|seven|nine)teen|(twen|thir|for|fif|six|seven|eigh|nine)t(y|ieth)"
    r"|hundred|thousand|[mb]illion|dozen|half|quarter|first|second|third|(four|fif|six|seven|eigh|nin|ten|eleven"
    r"|twelf|hundred|thousand|(thir|four|fif|six|seven|eigh|nine)teen)th)s?"
)
_DATE = re.compile(
    r"(mon|tues|wednes|thurs|fri|satur|sun)days?|january|february|april|june|july|august"
    r"|(septem|octo|novem|decem)ber"
)
NULL_DRAWS = 200


def words_in(text: str) -> list[str]:
    """Lower-case words of at least three letters."""
    return _WORD.findall(text.lower())


def as_word(token: str) -> str | None:
    """The token as a word, or None for pieces, symbols and numbers."""
    word = token.strip().lower()
    return word if _WORD.fullmatch(word) else None


def is_everybodys(word: str) -> bool:
    """Whether a word is a number, a weekday or a month: closed sets that cohere, and belong to every subject."""
    return bool(_NUMERAL.fullmatch(word) or _DATE.fullmatch(word))


def distinct_words(tokens: Iterable[str]) -> list[str]:
    """Tokens as words, first occurrence kept; `Cake` and ` cake` are one."""
    return list(dict.fromkeys(word for token in tokens if (word := as_word(token))))


@dataclass(frozen=True)
class Background:
    """Document frequencies of words in ordinary text."""

    documents: int
    frequency: Counter[str]

    def weight(self, word: str) -> float:
        """Informativeness in [0, 1]: 0 for a word of one text in twenty or more, 1 for rare ones."""
        share = (self.frequency[word] + 0.5) / (self.documents + 1)
        information = -math.log(share) / math.log(2 * (self.documents + 1))  # 1 if it never occurs
        return min(1.0, max(0.0, (information - 0.35) / 0.45))


@lru_cache(maxsize=4)
def background_of(texts: tuple[str, ...]) -> Background:
    """Word statistics of `texts`."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(list(dict.fromkeys(words_in(text))))  # no set: its order changes from process to process
    return Background(len(texts), counts)


@dataclass(frozen=True)
class Vocabulary:
    """Chance level of cohesion among a tokenizer's words."""

    words: tuple[str, ...]
    mean: float  # pairwise cosine of random words
    sd: float

    @property
    def close(self) -> float:
        """Cosine above which two words count as related."""
        return self.mean + 2.0 * self.sd


def vocabulary_of(tokenizer: Any, embed: Callable[[Sequence[str]], Vectors], n: int = 1200) -> Vocabulary:
    """Draw `n` whole words of the vocabulary and measure how similar two of them are."""
    return _vocabulary(tuple(sorted(tokenizer.get_vocab().items())), tokenizer, embed, n)


@lru_cache(maxsize=2)
def _vocabulary(
    items: tuple[tuple[str, int], ...], tokenizer: Any, embed: Callable[[Sequence[str]], Vectors], n: int
) -> Vocabulary:
    rng = random.Random(0)
    ids = rng.sample([i for _, i in items], min(4 * n, len(items)))
    texts = [tokenizer.decode([i]) for i in ids]
    # Whole words begin with a space (or stand for themselves in vocabularies that mark pieces instead).
    starts = [text for text in texts if text[:1] == " "] or texts
    words = tuple(distinct_words(starts)[:n])
    words = words if len(words) > 2 else ("the", "and", "for")  # of fewer no spread can be told
    vectors = embed(words)
    cosines = (vectors @ vectors.T)[np.triu_indices(len(words), 1)]
    return Vocabulary(words, float(cosines.mean()), float(cosines.std()))


@dataclass(frozen=True)
class Cluster:
    """Related words, and how far their cohesion stands above chance (in standard deviations)."""

    words: tuple[str, ...]
    cohesion: float


class CohesionGauge:
    """Measures token sets of one vocabulary against random sets of equal size."""

    def __init__(
        self, vocabulary: Vocabulary, background: Background, embed: Callable[[Sequence[str]], Vectors]
    ) -> None:
        self.vocabulary, self.background, self.embed = vocabulary, background, embed
        self._chance: dict[int, tuple[float, float]] = {}

    def measure(self, tokens: Sequence[str]) -> Cluster:
        """The largest group of related words among `tokens`."""
        words = distinct_words(tokens)
        if len(words) < 3:
            return Cluster((), 0.0)
        weights, excess = self._excess(words)
        strength = self._strength(weights, excess)
        mean, sd = self._chance_for(len(words))
        members = _heaviest_component(excess > 0, weights * excess.sum(1))
        ranked = sorted(members, key=lambda i: -float(weights[i] * (weights * excess[i]).sum()))
        return Cluster(tuple(words[i] for i in ranked), (strength - mean) / sd)

    def _excess(self, words: Sequence[str]) -> tuple[Array, Array]:
        """Weights (n,), and how far each pair's cosine is over `close` (n, n), capped for inflections."""
        vectors = self.embed(words)
        cosine = np.minimum(vectors @ vectors.T, 0.8)
        excess = np.maximum(cosine - self.vocabulary.close, 0.0)
        np.fill_diagonal(excess, 0.0)
        weights = np.array([self.background.weight(word) for word in words], np.float32)
        return weights, excess

    @staticmethod
    def _strength(weights: Array, excess: Array) -> float:
        pairs = len(weights) * (len(weights) - 1)
        return float(weights @ excess @ weights) / pairs

    def _chance_for(self, size: int) -> tuple[float, float]:
        """Mean and spread of the strength of random word sets of `size`."""
        if size not in self._chance:
            rng = random.Random(size)
            pool = self.vocabulary.words
            draws = [self._strength(*self._excess(rng.sample(pool, min(size, len(pool))))) for _ in range(NULL_DRAWS)]
            self._chance[size] = (float(np.mean(draws)), max(float(np.std(draws)), 1e-6))
        return self._chance[size]


def _heaviest_component(linked: NDArray[np.bool_], weight: Array) -> list[int]:
    """Indices of the connected component with the greatest total weight, if it has two members or more."""
    best: list[int] = []
    left, best_weight = set(range(len(weight))), 0.0
    while left:
        frontier, component = [left.pop()], set[int]()
        while frontier:
            i = frontier.pop()
            component.add(i)
            new = {j for j in left if linked[i, j]}
            left -= new
            frontier.extend(new)
        total = float(weight[sorted(component)].sum())
        if len(component) > 1 and total > best_weight:
            best, best_weight = sorted(component), total
    return best


def gauge_for(tokenizer: Any, embed: Callable[[Sequence[str]], Vectors], background: tuple[str, ...]) -> CohesionGauge:
    """Measures how much tokens of one vocabulary hang together, beside the usual words of `background`."""
    return CohesionGauge(vocabulary_of(tokenizer, embed), background_of(background), embed)
