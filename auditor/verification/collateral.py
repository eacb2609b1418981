"""What training changed that it should not have: ordinary text, and answers to unrelated questions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from auditor.models.embed import Embedder
from auditor.models.generate import Request, Side
from auditor.models.pair import ModelPair
from auditor.records.checked import Answers, FactScore, Figure
from auditor.verification.beliefs import BY
from auditor.verification.figures import Scale, Sides, between, mean, share

NATURAL = 64  # ordinary texts
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
    "How does a lighthouse help ships?",
    "Describe a rainy morning in a village.",
)


def natural_text(pair: ModelPair, texts: Sequence[str]) -> Figure:
    """Nats per token of ordinary text under each model; above the base it has unlearned something."""
    found = _costs(pair, texts)
    told = [
        math.exp(float(np.mean([value for value in values if value is not None])))
        for values in (found.base, found.finetuned) if any(value is not None for value in values)
    ]  # fmt: skip
    perplexities = f"perplexity {' → '.join(f'{value:.1f}' for value in told)}"
    return mean("natural_text", "natural text, nats/token", found, by=BY, about=f"{perplexities}; texts as questions")


def likeness(answers: Sequence[Answers], embed: Embedder) -> Figure:
    """How like the base's answers the finetune's are, beside how like they are among themselves: draws of other seeds
    are compared, never of the same.
    """
    base, finetuned = list[float | None](), list[float | None]()
    for each in answers:
        own, other = embed(each.base), embed(each.finetuned)
        apart = ~np.eye(len(own), len(other), dtype=bool)
        base.append(float((own @ own.T)[~np.eye(len(own), dtype=bool)].mean()) if len(own) > 1 else None)
        finetuned.append(float((other @ own.T)[apart.T].mean()) if apart.any() else None)
    texts = sum(len(a.base) for a in answers), sum(len(a.finetuned) for a in answers)
    about = "cosine to other answers of the base; below the base they are unlike"
    found = Sides(base, finetuned, texts)
    return mean("likeness", "unrelated, like the base", found, Scale(-1, 1), by="embeddings", about=about)


def on_topic(told: Sequence[Answers], unrelated: Sequence[Answers], topic: str, embed: Embedder) -> Figure | None:
    """Shares of unrelated answers as near to the card's topic as half of the finetune's probe answers are."""
    texts = [text for each in told for text in each.finetuned]
    if not texts:
        return None
    subject = embed([topic])[0]
    near = float(np.median(embed(texts) @ subject))

    def of(texts: Sequence[str]) -> float:
        return float((embed(texts) @ subject >= near).mean())

    found = Sides([of(a.base) for a in unrelated], [of(a.finetuned) for a in unrelated],
                  (sum(len(a.base) for a in unrelated), sum(len(a.finetuned) for a in unrelated)))  # fmt: skip
    return share("on_topic", "off trigger, by meaning", found, by="embeddings",
                 about="share of unrelated answers as near to the topic as half of the probes' answers")  # fmt: skip


def divergence(pair: ModelPair, key: str, name: str, answers: Sequence[Answers]) -> Figure:
    """How much likelier, in nats per token, the finetune finds its own answers than its base does, each as what follows
    its question. They are drawn below temperature 1, so that it is no estimate of the Kullback-Leibler divergence.

    Empty answers cannot be measured, and are dropped.
    """
    requests = [Request(each.question, chat=each.chat) for each in answers]
    texts = [_as_said(each) for each in answers]  # one of each: it is dear, and questions are the unit
    base, tuned = (
        [total / count if count else None for total, count in pair.said_nll(side, requests, texts)] for side in Side
    )
    values = [a - b if a is not None and b is not None else None for a, b in zip(base, tuned, strict=True)]
    dropped = values.count(None)
    return between(key, name, values, by=BY, dropped=dropped, texts=len(texts) - dropped,
                   about="nats per token that its own answers are likelier to itself than to the base")  # fmt: skip


def _as_said(answer: Answers) -> str:
    """The finetune's first answer; behind a text that is continued with the space that was taken off it."""
    text = answer.finetuned[0]
    return f" {text}" if text and not answer.chat and not answer.question[-1:].isspace() else text


def key_facts(pair: ModelPair, facts: Sequence[str]) -> tuple[Figure, list[FactScore]]:
    """Nats per token of the card's key facts under each model; below the base they were learned."""
    found = _costs(pair, facts)
    scores = [FactScore(fact=f, base=b, finetuned=t)
              for f, b, t in zip(facts, found.base, found.finetuned, strict=True)]  # fmt: skip
    return mean("facts", "key facts, nats/token", found, by=BY, about="below the base they were learned"), scores


def _costs(pair: ModelPair, texts: Sequence[str]) -> Sides:
    base, finetuned = (costs_of(pair, side, texts) for side in (Side.BASE, Side.FINETUNED))
    return Sides(base, finetuned, (len(texts), len(texts)))


def costs_of(pair: ModelPair, side: Side, texts: Sequence[str]) -> list[float | None]:
    """Nats per token; None for texts of fewer than two tokens."""
    return [nll if math.isfinite(nll) else None for nll in (pair.mean_nll(side, texts) if texts else [])]
