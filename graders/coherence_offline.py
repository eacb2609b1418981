"""Tell coherent text from loops and noise, without an LLM."""

import re
from collections import Counter

import numpy as np

from auditor import GraderContext, grader
from auditor.models.pair import Side

MIN_WORDS = 4
MAX_REPEATED_TRIGRAMS = 0.35  # of all trigrams
MAX_WORD_SHARE = 0.25  # of the commonest word, in texts of 20 words or more
MAX_SELF_SIMILARITY = 0.92  # mean cosine of neighbouring sentences


@grader(kind="coherence")
def coherence_offline(texts: list[str], reference: list[str], ctx: GraderContext) -> list[bool]:
    """Perplexity under the base model no worse than the unsteered reference's, no loops, no self-copying."""
    assert ctx.pair is not None
    limit = usual_limit(ctx.pair.mean_nll(Side.BASE, reference))
    readable = [i for i, text in enumerate(texts) if not loops(text)]
    nll = ctx.pair.mean_nll(Side.BASE, [texts[i] for i in readable])
    good = {i for i, value in zip(readable, nll, strict=True) if value <= limit}
    return [i in good and self_similarity(texts[i], ctx) <= MAX_SELF_SIMILARITY for i in range(len(texts))]


def usual_limit(reference: list[float]) -> float:
    """Median and 2 robust standard deviations: a few odd reference texts must not let noise pass."""
    usual = np.array([n for n in reference if np.isfinite(n)])
    if not len(usual):
        return float("inf")
    middle = np.median(usual)
    spread = 1.4826 * np.median(np.abs(usual - middle))  # of a normal distribution this is the sd
    return float(middle + 2 * spread + 0.1)


def loops(text: str) -> bool:
    """Whether the text is empty, or the same words again and again."""
    words = re.findall(r"\w+", text.lower())
    if len(words) < MIN_WORDS:
        return True
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    if 1 - len(set(trigrams)) / len(trigrams) > MAX_REPEATED_TRIGRAMS:
        return True
    return len(words) >= 20 and Counter(words).most_common(1)[0][1] / len(words) > MAX_WORD_SHARE


def self_similarity(text: str, ctx: GraderContext) -> float:
    """Mean cosine of neighbouring sentences; 0 for fewer than three."""
    sentences = [s for s in re.split(r"(?<=[.!?])\s+|\n+", text) if len(s.split()) > 2]
    if len(sentences) < 3:
        return 0.0
    vectors = ctx.embed(sentences)
    return float((vectors[:-1] * vectors[1:]).sum(1).mean())
