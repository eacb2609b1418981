"""From tokens and samples to a theme: words that agree over lenses and belong together."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from auditor.agent.reading import Reading, TokenList
from auditor.lens.words import Background, as_word, words_in
from auditor.models.embed import Embedder

RELATED = 0.35  # cosine of MiniLM word embeddings from which two words count as related
THEME_WORDS = 14
LENS_SHARE, TEXT_SHARE = 1.0, 1.0  # how much tokens and how much samples count


@dataclass(frozen=True, slots=True)
class Theme:
    """A subject as the evidence spells it: its words, central ones first."""

    words: tuple[str, ...]
    weight: float  # of its words among all the evidence's, in [0, 1]
    enrichment: float  # how much nearer steered texts are to it than plain ones, in standard errors

    @property
    def phrase(self) -> str:
        """The subject in two or three words, for a question."""
        return " and ".join(self.words[:2]) if len(self.words) > 1 else "".join(self.words)


def token_scores(lists: Sequence[TokenList], background: Background) -> dict[str, float]:
    """Words weighted by rank, agreement over positions and lenses, and rarity in ordinary text."""
    seen: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    for found in lists:
        usual = {as_word(token) for token in found.baseline}
        selected = {as_word(token) for token in found.selected}
        for rank, token in enumerate(found.tokens):
            word = as_word(token)
            if word is None or word in usual:
                continue
            score = (1.5 if word in selected else 1.0) * (0.3 if found.sink else 1.0) / (1 + rank / 10)
            place = (found.lens, found.layer)
            seen[word][place] = seen[word].get(place, 0.0) + score
    # The root over positions: ten agreeing positions of one lens are less than two agreeing lenses.
    return {
        word: background.weight(word) * sum(math.sqrt(score) for score in places.values())
        for word, places in seen.items()
    }


def text_scores(texts: Sequence[str], plain: Sequence[str], background: Background) -> dict[str, float]:
    """Words of `texts` that `plain` lacks: smoothed log-odds of document frequency, times rarity."""
    if not texts:
        return {}
    ours = Counter(word for text in texts for word in set(words_in(text)))
    theirs = Counter(word for text in plain for word in set(words_in(text)))
    scores = {}
    for word, n in ours.items():
        if n < 2:
            continue
        usual = (background.frequency[word] + 0.5) / (background.documents + 1)
        plain_rate = (theirs[word] + usual) / (len(plain) + 1)
        rate = n / (len(texts) + 1)
        if rate > plain_rate:
            scores[word] = background.weight(word) * math.log(rate / plain_rate) * math.sqrt(n / len(texts))
    return scores


def combined(parts: Sequence[tuple[float, dict[str, float]]]) -> dict[str, float]:
    """Sum of scores, each source scaled so that its twenty best words weigh `share` together."""
    total: dict[str, float] = defaultdict(float)
    for share, scores in parts:
        mass = sum(sorted(scores.values(), reverse=True)[:20])
        for word, score in scores.items():
            total[word] += share * score / mass if mass > 0 else 0.0
    return dict(total)


def find_themes(
    scores: dict[str, float], reading: Reading, embed: Embedder, count: int = 2
) -> list[Theme]:
    """The heaviest groups of related words, with how much the steered texts lean to each."""
    ranked = sorted(scores, key=lambda word: -scores[word])[:120]
    if len(ranked) < 3:
        return []
    weights = np.array([scores[word] for word in ranked], np.float32)
    vectors = embed(ranked)
    cosine = vectors @ vectors.T
    themes = []
    left = np.ones(len(ranked), bool)
    for _ in range(count):
        support = np.where(left, weights, 0) @ np.maximum(cosine - RELATED / 2, 0)
        pull = np.where(left, np.sqrt(weights) * support, -1)
        centre = int(pull.argmax())
        if pull[centre] <= 0:
            break
        near = [i for i in np.flatnonzero(left & (cosine[centre] > RELATED)) if i != centre]
        near.sort(key=lambda i: -float(weights[i] * cosine[centre, i]))
        members = [centre, *near[: THEME_WORDS - 1]]
        left[members] = False
        words = tuple(ranked[i] for i in members)
        share = float(weights[members].sum() / weights.sum())
        themes.append(Theme(words, share, enrichment(words, reading, embed)))
    return themes


def enrichment(words: Sequence[str], reading: Reading, embed: Embedder) -> float:
    """Welch's t between steered and plain texts' similarity to the theme; 0 without steered texts."""
    if len(reading.steered) < 3 or len(reading.unsteered) < 3:
        return 0.0
    theme = embed([", ".join(words[:8])])[0]
    steered, plain = embed(reading.steered) @ theme, embed(reading.unsteered) @ theme
    error = math.sqrt(steered.var(ddof=1) / len(steered) + plain.var(ddof=1) / len(plain))
    return float((steered.mean() - plain.mean()) / max(error, 1e-6))
