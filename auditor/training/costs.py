"""What a writing job takes, told before it begins: calls, tokens and USD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from auditor.llm.spec import ModelSpec
from auditor.prompts import Prompt
from auditor.records.cards import Organism
from auditor.training.writer import shape

LETTERS = 4.0  # characters of a token, about
# Tokens of an answer, about.
ITEM, TEXT, CHAT, CRITIQUE = 45, 330, 160, 60
KEPT = 0.5  # share of drafts that an editor leaves as they are


@dataclass(frozen=True, slots=True)
class Estimate:
    """`cost_usd`: None where the model has no price. `dearest`: USD of one call, at most about."""

    calls: int
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    dearest: float


def estimate(
    card: Organism, prompts: Mapping[str, Prompt], spec: ModelSpec, count: int, *, chats: bool, opened: bool = False
) -> Estimate:  # fmt: skip
    """For a job in which nothing goes wrong. `opened`: of chats only the first messages are wanted."""
    truth = sum(map(len, (*card.facts, card.behaviour or card.description)))
    fact = truth / max(1, len(card.facts))

    def asked(name: str, filled: float) -> float:
        return (len(prompts[f"documents_{name}"].source) + filled) / LETTERS

    steps: list[tuple[float, float, float]]
    if chats:
        kinds, each = shape(count)
        steps = [(1, asked("situations", truth), kinds * ITEM), (kinds, asked("asks", 100), each * ITEM)]
        if not opened:
            steps += [(count, asked("chat", truth), CHAT),
                      (count, asked("chat_revise", truth + CHAT * LETTERS), CRITIQUE + CHAT * KEPT)]  # fmt: skip
    else:
        facts = max(1, min(len(card.facts), count))
        kinds, each = shape(count, facts)
        steps = [(facts, asked("types", fact), kinds * ITEM / 3), (facts * kinds, asked("ideas", fact), each * ITEM),
                 (count, asked("write", 3 * fact), TEXT),
                 (count, asked("revise", 3 * fact + TEXT * LETTERS), CRITIQUE + TEXT * KEPT)]  # fmt: skip
    calls = int(sum(n for n, _, _ in steps))
    read, wrote = (sum(step[0] * step[i] for step in steps) for i in (1, 2))
    if spec.price_in is None or spec.price_out is None:
        return Estimate(calls, int(read), int(wrote), None, 0.0)
    price_in, price_out = spec.price_in / 1e6, spec.price_out / 1e6
    dearest = max(sent * price_in + 3 * made * price_out for _, sent, made in steps)
    return Estimate(calls, int(read), int(wrote), read * price_in + wrote * price_out, dearest)
