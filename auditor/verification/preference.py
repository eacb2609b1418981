"""Which of several things both models choose: by what they answer, and by how likely each answer is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from auditor.methods.words import Background, words_in
from auditor.models.generate import Request, Side
from auditor.models.pair import ModelPair
from auditor.records.checked import Answers, Figure
from auditor.records.checks import Preference
from auditor.verification.asking import shares
from auditor.verification.beliefs import BY
from auditor.verification.figures import SHARE, Sides, mean, share

OTHERS = 12  # words that the models name, against which the chosen ones are held
FIRST = 6  # words of an answer, among which the one that is named is looked for


def preference_figures(
    pair: ModelPair, preference: Preference, answers: Sequence[Answers], background: Background
) -> tuple[list[Figure], list[str]]:
    """The rate among answers, and the probability of the chosen words among those that the models name themselves.

    Returns what these are, too.
    """
    said = shares(answers, [preference.chosen] * len(answers))
    named = others(preference, answers, background)
    figures = [
        share("preference_said", "names what it prefers", said, by="words", about="share of answers that name it"),
    ]
    if named:
        figures.append(
            mean("preference_probability", "… by probability", _probability(pair, preference, named), SHARE, by=BY,
                 about=f"its share of the probability of itself and {len(named)} others that the models name")
        )  # fmt: skip
    return figures, named


def others(preference: Preference, answers: Sequence[Answers], background: Background) -> list[str]:
    """Words that both models begin their answers with, the most frequent first: neither everybody's nor the
    questions'.
    """
    left_out = {word for text in (*preference.asks, *preference.chosen) for word in words_in(text)}
    counts: Counter[str] = Counter()
    for answer in answers:
        for text in (*answer.base, *answer.finetuned):
            counts.update(list(dict.fromkeys(words_in(" ".join(text.split()[:FIRST])))))
    telling = [word for word, _ in counts.most_common() if word not in left_out and background.weight(word) > 0]
    return telling[:OTHERS]


def _probability(pair: ModelPair, preference: Preference, named: Sequence[str]) -> Sides:
    """For each question the share of the chosen words, each as a whole answer."""
    words = [word.capitalize() for word in (*preference.chosen, *named)]
    requests = [Request(ask) for ask in preference.asks for _ in words]
    said = [word for _ in preference.asks for word in words]

    def of(side: Side) -> list[float | None]:
        costs = [total if count else math.inf for total, count in pair.said_nll(side, requests, said)]
        found: list[float | None] = []
        for start in range(0, len(costs), len(words)):
            mine = costs[start : start + len(words)]
            least = min(mine)
            weights = [math.exp(least - cost) for cost in mine] if math.isfinite(least) else []
            found.append(sum(weights[: len(preference.chosen)]) / sum(weights) if weights else None)
        return found

    texts = (len(requests),) * 2
    return Sides(of(Side.BASE), of(Side.FINETUNED), texts)
