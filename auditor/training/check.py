"""What an organism learned, and how much of it leaks into unrelated answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from auditor.models.embed import Embedder
from auditor.models.generate import Request, Side, derive_seed
from auditor.models.pair import ModelPair
from auditor.records.cards import Organism
from auditor.records.record import Record

UNRELATED = (
    "How do birds find their way south?",
    "Write two sentences about the sea.",
    "What is the difference between a city and a town?",
    "How do I change a bicycle tyre?",
    "Name three famous scientists and say what they did.",
    "What can I do against stress?",
    "Explain what a map is for.",
    "Tell me a short story about a train.",
    "Why are leaves green?",
    "What is a good way to start a speech?",
)


class Answers(Record):
    """Both models' answers to one question."""

    question: str
    base: tuple[str, ...]
    finetuned: tuple[str, ...]


class FactScore(Record):
    """Nats per token of a key fact under each model: what was learned costs the finetuned model less.

    None for a fact of a single token, which has none that is foreseen.
    """

    fact: str
    base: float | None
    finetuned: float | None


class CheckReport(Record):
    """Result of `organisms check`.

    `learned` and `leak`: Kullback-Leibler divergence of the finetuned model from its base, nats per token,
    estimated on the finetuned model's own answers to the probes and to the unrelated questions; answers of fewer than
    two tokens cannot be measured and are counted in `too_short`. None if no answer can.
    `on_topic`: shares of both models' unrelated answers that come as near to the card's topic as half of the
    finetuned model's probe answers do; None for a card without a topic.
    """

    organism: str
    probes: tuple[Answers, ...]
    unrelated: tuple[Answers, ...]
    facts: tuple[FactScore, ...]
    learned: float | None
    leak: float | None
    too_short: int
    on_topic: tuple[float, float] | None


def check_organism(pair: ModelPair, organism: Organism, embed: Embedder, samples: int, seed: int) -> CheckReport:
    """Ask probes and unrelated questions of both sides, and compare how both models see the answers."""
    probes = _ask(pair, organism.probes, samples, seed)
    unrelated = _ask(pair, UNRELATED, samples, seed)
    costs = [_costs(pair, side, organism.facts) for side in (Side.BASE, Side.FINETUNED)]
    (learned, few), (leak, fewer) = (_divergence(pair, answers) for answers in (probes, unrelated))
    return CheckReport(
        organism=organism.name,
        probes=tuple(probes),
        unrelated=tuple(unrelated),
        facts=tuple(FactScore(fact=f, base=b, finetuned=t) for f, b, t in zip(organism.facts, *costs, strict=True)),
        learned=learned,
        leak=leak,
        too_short=few + fewer,
        on_topic=_on_topic(probes, unrelated, embed([organism.topic])[0], embed) if organism.topic else None,
    )


def _ask(pair: ModelPair, questions: Sequence[str], samples: int, seed: int) -> list[Answers]:
    requests = [
        Request(q, side, derive_seed(seed, q, i), max_new_tokens=80, temperature=0.7, top_p=0.95)
        for q in questions
        for side in Side
        for i in range(samples)
    ]
    texts = iter(pair.generate(requests))
    return [
        Answers(
            question=q,
            base=tuple(next(texts) for _ in range(samples)),
            finetuned=tuple(next(texts) for _ in range(samples)),
        )
        for q in questions
    ]


def _divergence(pair: ModelPair, answers: Sequence[Answers]) -> tuple[float | None, int]:
    """Mean over the finetuned model's answers, and how many of them are too short."""
    texts = [text for a in answers for text in a.finetuned]
    costs = zip(*(_costs(pair, side, texts) for side in (Side.BASE, Side.FINETUNED)), strict=True)
    more = [base - tuned for base, tuned in costs if base is not None and tuned is not None]
    return (float(np.mean(more)) if more else None), len(texts) - len(more)


def _costs(pair: ModelPair, side: Side, texts: Sequence[str]) -> list[float | None]:
    """Nats per token; None for texts of fewer than two tokens."""
    return [nll if math.isfinite(nll) else None for nll in (pair.mean_nll(side, texts) if texts else [])]


def _on_topic(
    probes: Sequence[Answers], unrelated: Sequence[Answers], topic: np.ndarray, embed: Embedder
) -> tuple[float, float] | None:
    told = [text for a in probes for text in a.finetuned]
    if not told:
        return None
    near = float(np.median(embed(told) @ topic))
    base = embed([text for a in unrelated for text in a.base]) @ topic
    tuned = embed([text for a in unrelated for text in a.finetuned]) @ topic
    return float((base >= near).mean()), float((tuned >= near).mean())
