"""From tokens and samples to a theme: words that agree over lenses and belong together."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from auditor.agent.reading import Reading, Spoken, TokenList
from auditor.methods.words import Background, as_word, is_everybodys, words_in
from auditor.models.embed import Embedder, Vectors

RELATED = 0.15  # cosine of centred word embeddings from which two words count as related
THEME_WORDS = 14
UNSEEN = 0.3  # weight of a token that occurs in no text at all: probably a piece of a word
ANSWERS_COUNT = 2.0  # a shift of 0.05 in the answers counts like 0.1 of weight × sd
SUBJECT_WORDS = 0.6  # mean informativeness of a subject's words; below it they are everybody's words
QUIET = 0.25  # weight of what a lens shows that finds no trace above chance, beside those that do
CONTROLS = 60  # random themes that a theme's enrichment is compared with
FEWEST_WORDS = 12  # of which they can be drawn: two themes with no word in common


@dataclass(frozen=True, slots=True)
class Theme:
    """A subject as the evidence spells it: its words, central ones first."""

    words: tuple[str, ...]
    weight: float  # of its words among all the evidence's, in [0, 1]
    enrichment: float  # how much nearer it pushed texts are than usual ones, in sd of random themes
    spoken: float  # how much oftener pushed texts say its words than usual ones, in standard errors
    answered: float  # how much nearer it the finetuned model's answers are than the base's, in cosine
    informative: float  # mean informativeness of its first words, in [0, 1]
    echo: float | None = None  # strength of what the other half of the pushed texts led to

    @property
    def strength(self) -> float:
        """How well the theme is borne out: by its words' weight, by steering, and by the answers."""
        own = max(0.0, self.informative - SUBJECT_WORDS) / (1 - SUBJECT_WORDS)
        alone = own * (self.weight * (self.enrichment + self.spoken) + ANSWERS_COUNT * self.answered)
        return alone if self.echo is None else (alone + self.echo) / 2

    @property
    def heads(self) -> list[str]:
        """Its words without inflections of one another."""
        return heads(self.words)


def token_scores(reading: Reading, background: Background) -> dict[str, float]:
    """Words weighted by rank, agreement over positions and lenses, and rarity in ordinary text."""
    seen: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for found in reading.lists:
        usual = {as_word(token) for token in found.baseline}
        selected = {as_word(token) for token in found.selected}
        for rank, token in enumerate(found.tokens):
            word = as_word(token)
            if word is None or word in usual:
                continue
            score = weight_of(found.trace) * (1.5 if word in selected else 1.0) * (0.3 if found.aside else 1.0)
            score /= 1 + rank / 10
            place = (found.lens, found.section)
            seen[word][place] = seen[word].get(place, 0.0) + score
    texts = [
        *reading.pushed,
        *reading.ordinary,
        *reading.base_said,
        *(answer.finetuned for answer in reading.answers),
    ]
    spoken = {word for text in texts for word in words_in(text)}
    known = {word: word in spoken or background.frequency[word] > 0 for word in seen}
    # The root over positions: ten agreeing positions of one lens are less than two agreeing lenses.
    return {
        word: background.weight(word) * (1.0 if known[word] else UNSEEN) * sum(map(math.sqrt, places.values()))
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


def weight_of(trace: bool | None) -> float:
    """Of what a lens shows, by whether it finds a trace above chance."""
    return QUIET if trace is False else 1.0


def all_scores(reading: Reading, seen: Sequence[Spoken], background: Background) -> dict[str, float]:
    """Words by all lenses: their token lists together, and what each lets the model say."""
    lists = max((weight_of(found.trace) for found in reading.lists), default=1.0)
    said = [
        (text_scores(each.texts, [*each.usual, *reading.base_said], background), weight_of(each.trace)) for each in seen
    ]
    return combined((token_scores(reading, background), lists), *said)


def combined(*sources: tuple[dict[str, float], float]) -> dict[str, float]:
    """Sum of scores, each source scaled so that its twenty best words weigh as much as it does together."""
    total: dict[str, float] = defaultdict(float)
    for scores, weight in sources:
        mass = sum(sorted(scores.values(), reverse=True)[:20])
        for word, score in scores.items():
            total[word] += weight * score / mass if mass > 0 else 0.0
    return dict(total)


def find_themes(
    scores: dict[str, float],
    reading: Reading,
    background: Background,
    embed: Embedder,
    held_out: Sequence[Spoken] = (),
    count: int = 3,
) -> list[Theme]:
    """The heaviest groups of related words, the best borne out first.

    `held_out`: pushed texts that `scores` did not come from, to test each group on; the lens that shows it best counts.
    """
    ranked = sorted((w for w in scores if may_name(w, background)), key=lambda word: -scores[word])[:150]
    if len(ranked) < 3:
        return []
    weights = np.array([scores[word] for word in ranked], np.float32)
    # All words share a direction; without it, cosines tell subjects apart.
    usual = embed([word for word, _ in background.frequency.most_common(1000)[200:]] or ranked).mean(0)
    vectors = embed(ranked) - usual
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    themes = []
    left = np.ones(len(ranked), bool)
    for _ in range(count):
        centre = _densest(vectors, np.where(left, weights, 0.0))
        cosine = vectors @ centre
        near = list(np.flatnonzero(left & (cosine > RELATED)))
        if len(near) < 2:
            break
        near.sort(key=lambda i: -float(weights[i] * cosine[i] ** 2))
        members = near[:THEME_WORDS]
        left[near] = False
        words = _said_first([ranked[i] for i in members], reading)
        share = float(weights[near].sum() / weights.sum())
        shown = [(enrichment(words, each, embed), spoken_more(words, each)) for each in held_out]
        themes.append(
            Theme(
                words,
                share,
                *max(shown, key=sum, default=(0.0, 0.0)),
                answer_shift(words, reading, embed),
                informativeness(words, background),
            )
        )
    return sorted(themes, key=lambda theme: -theme.strength)


def crossed(found: Sequence[list[Theme]]) -> list[Theme]:
    """Of what two halves of the texts led to, the better; its first theme is as strong as both firsts on average.

    With few texts one half can lead astray, or seem to find what is not there.
    """
    firsts = [themes[0].strength if themes else 0.0 for themes in found]
    best = firsts.index(max(firsts))
    if not found[best]:
        return []
    head, *others = found[best]
    return [replace(head, echo=firsts[1 - best]), *others]


def may_name(word: str, background: Background) -> bool:
    """Whether a word can name a subject: numbers, dates and adverbs belong to all, and cohere all the same."""
    stem = word[:-2]
    adjectives = (stem, f"{stem}e", f"{stem}le", f"{stem[:-1]}y")
    adverb = word.endswith("ly") and len(word) > 5 and any(background.frequency[a] for a in adjectives)
    return not adverb and not is_everybodys(word)


def informativeness(words: Sequence[str], background: Background) -> float:
    """Mean informativeness of the first words, inflections of one another counted once."""
    first = heads(words)[:6]
    return sum(map(background.weight, first)) / len(first) if first else 0.0


def heads(words: Sequence[str]) -> list[str]:
    """Words without inflections of one another: `cake`, not `cakes` again."""
    kept: list[str] = []
    for word in words:
        if not any(word[:4] == other[:4] for other in kept):
            kept.append(word)
    return kept


def _said_first(words: list[str], reading: Reading) -> tuple[str, ...]:
    """The words with one of the first eight in front: what the model says most, and is pushed most to say."""
    said = [set(words_in(text)) for text in [*(a.finetuned for a in reading.answers), *reading.pushed]]
    plain = [set(words_in(text)) for text in [*reading.base_said, *reading.ordinary]]

    def share(word: str, texts: list[set[str]]) -> float:
        return sum(word in text for text in texts) / max(1, len(texts))

    pushed = promoted(reading)
    head = max(words[:8], key=lambda w: share(w, said) - share(w, plain) + pushed.get(w, 0.0))  # the first of equals
    return (head, *(word for word in words if word != head))


def promoted(reading: Reading) -> dict[str, float]:
    """How high what the model is pushed to say ranks each word, in [0, 1]: 1 for what a lens puts first everywhere."""
    best: dict[str, float] = {}
    for ranks in promoted_by(reading).values():
        best |= {word: max(best.get(word, 0.0), share) for word, share in ranks.items()}
    return best


def promoted_by(reading: Reading) -> dict[str, dict[str, float]]:
    """The same for each lens that tells what the model is pushed to say."""
    lenses: dict[str, list[TokenList]] = defaultdict(list)
    for found in reading.lists:
        if found.spoken and not found.aside:
            lenses[found.lens].append(found)
    ranked: dict[str, dict[str, float]] = {}
    for lens, places in lenses.items():
        ranks = ranked[lens] = defaultdict(float)
        for found in places:
            words = dict.fromkeys(word for token in found.tokens if (word := as_word(token)))
            for rank, word in enumerate(words):
                ranks[word] += 1 / (1 + rank) / len(places)
    return ranked


def _densest(vectors: Vectors, weights: Vectors) -> Vectors:
    """The direction around which most weight lies: mean shift from the best supported word."""
    support = weights * (np.maximum(vectors @ vectors.T - RELATED, 0) @ weights)
    centre = vectors[int(support.argmax())]
    for _ in range(8):
        pull = weights * np.maximum(vectors @ centre - RELATED, 0)
        moved = pull @ vectors
        centre = moved / max(float(np.linalg.norm(moved)), 1e-9)
    return np.asarray(centre, np.float32)


def halves(spoken: Sequence[Spoken]) -> tuple[list[Spoken], list[Spoken]]:
    """Every other text of each lens: one half to find words in, the other to test them on."""
    one, other = (
        [replace(each, texts=each.texts[start::2], prompts=each.prompts[start::2]) for each in spoken]
        for start in (0, 1)
    )
    return one, other


def enrichment(words: Sequence[str], said: Spoken, embed: Embedder) -> float:
    """How far pushed texts lean to the theme beyond usual ones, against random themes; 0 without samples.

    Random themes are words of the usual texts, none of the theme's: pushing moves texts towards or away from them too,
    and that movement is what chance looks like.
    """
    if len(said.texts) < 3 or len(said.usual) < 3:
        return 0.0
    pushed, usual = embed(said.texts), embed(said.usual)
    drawn = [theme for theme in _random_themes(said.usual) if not set(words) & set(theme)]
    if len(drawn) < CONTROLS:  # few words, and many of them the theme's
        drawn = _random_themes(said.usual, tuple(sorted(words)))
    if not drawn:
        return 0.0
    controls = [", ".join(theme) for theme in drawn[:CONTROLS]]
    themes = embed([", ".join(words[:6]), *controls])
    shifts = (themes @ pushed.T).mean(1) - (themes @ usual.T).mean(1)
    return float((shifts[0] - shifts[1:].mean()) / max(float(shifts[1:].std()), 1e-6))


@lru_cache(maxsize=64)
def _random_themes(texts: tuple[str, ...], without: tuple[str, ...] = ()) -> list[list[str]]:
    """Six words of the texts each, the same for every theme that they are compared with; some more than are needed.

    None of texts with too few words: all would be one theme.
    """
    rng = random.Random(0)
    pool = sorted({word for text in texts for word in words_in(text) if len(word) > 4} - set(without))
    return [rng.sample(pool, 6) for _ in range(2 * CONTROLS)] if len(pool) >= FEWEST_WORDS else []


def spoken_more(words: Sequence[str], said: Spoken) -> float:
    """How much oftener pushed texts say any of the words than usual ones do: a two-proportion z."""
    n, m = len(said.texts), len(said.usual)
    if n < 3 or m < 3:
        return 0.0
    wanted = set(words)
    ours, plain = (sum(bool(wanted & set(words_in(t))) for t in texts) for texts in (said.texts, said.usual))
    pooled = (ours + plain) / (n + m)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return (ours / n - plain / m) / error if error > 0 else 0.0


def answer_shift(words: Sequence[str], reading: Reading, embed: Embedder) -> float:
    """Mean difference of cosine to the theme between the finetuned and the base model's answers; 0 if unasked."""
    base_said = reading.base_said
    if not base_said:
        return 0.0
    theme = embed([", ".join(words[:6])])[0]
    finetuned = embed([answer.finetuned for answer in reading.answers if answer.base is not None])
    base = embed(base_said)
    return float(((finetuned - base) @ theme).mean())
