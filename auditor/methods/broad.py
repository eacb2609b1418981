"""Broad finetunes of a base: what any finetuning shifts, and what of a shift they do not account for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auditor.methods.nulls import ENOUGH_PAIRS, prediction
from auditor.methods.words import as_word, is_everybodys
from auditor.records.evidence import AgainstBroad

WORDS = 20
SPOKEN = 0.1  # a word counts from this share on of what it would get if all tokens were said alike
EDGE = 0.005  # shares are not told apart nearer to 0 and 1
RIDGE = 0.1  # of the mean square of what is fitted on: two dozen finetunes must not fit noise


Cohesion = Callable[[Sequence[str]], float]
"""How much tokens hang together, in standard deviations above random words."""


def told(found: AgainstBroad) -> str:
    """What its p-value rests on."""
    return (
        f"against {found.broad} broad finetunes {in_short(found.p)}: {found.unlike:.0%} of what it promotes is nothing "
        f"that they account for (95 % of theirs: under {found.unlike_95:.0%}), and what is left coheres by "
        f"{found.cohesion:.1f} sd (under {found.cohesion_95:.1f})"
    )


def in_short(p: float) -> str:
    """A p-value to three digits."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def judged_words(tokenizer: Any, said: Tensor) -> Tensor:
    """Ids of the words that the base says in ordinary text, where `said` (vocab,) is its mean distribution; of all
    tokens that it says if it says too few words. Numbers and dates are everybody's, and do not count.
    """
    ids = (said >= SPOKEN / len(said)).nonzero()[:, 0].tolist()
    read = {i: as_word(tokenizer.decode([i])) for i in ids}
    words = [i for i, word in read.items() if word and not is_everybodys(word)]
    return torch.tensor(words if len(words) >= WORDS else ids)


def likeliest(tokenizer: Any, judged: Tensor, scores: Tensor) -> list[tuple[str, ...]]:
    """The WORDS highest of each row of `scores` (m, v), which are of the tokens `judged` (v,), as they print."""
    best = judged[scores.topk(min(WORDS, len(judged))).indices].tolist()
    return [tuple(tokenizer.decode([i]) for i in row) for row in best]


def against_broad(
    tokenizer: Any, judged: Tensor, own: Tensor, halves: Tensor, others: Tensor, cohesion: Cohesion
) -> AgainstBroad | None:
    """What the finetune `own` (v,) promotes of the tokens `judged` (v,) that `others` (m, v) do not account for; None
    if they are too few. `halves` (2, v): the same from one and from the other half of the texts.

    A subject is promoted beyond what any finetuning promotes (`unlike`) and hangs together (`cohesion`); both are
    measured on each of the others, too. The p-value is of their sum, each in its standard deviations over the others.
    """
    if len(others) < ENOUGH_PAIRS:
        return None
    left = unaccounted(own, halves, others)
    read = likeliest(tokenizer, judged, torch.stack([found.rest for found in left]))
    cohesions = np.array([cohesion(tokens) for tokens in read])
    shares = np.array([found.share for found in left])
    # The root makes right-skewed cohesion nearly normal, the logit does it for shares.
    roots = np.sqrt(cohesions.clip(0))
    logits = np.log(shares.clip(EDGE, 1 - EDGE)) - np.log1p(-shares.clip(EDGE, 1 - EDGE))
    both = sum((values - values[1:].mean()) / max(values[1:].std(ddof=1), 1e-6) for values in (roots, logits))
    return AgainstBroad(
        broad=len(others),
        words=read[0],
        cohesion=float(cohesions[0]),
        cohesion_95=float(np.quantile(cohesions[1:], 0.95)),
        unlike=float(shares[0]),
        unlike_95=float(np.quantile(shares[1:], 0.95)),
        p=prediction(both[0], both[1:]),
    )


@dataclass(frozen=True, slots=True)
class Unaccounted:
    """What of a row (v,) is left after a fit on others, and its share of the square of the row's difference to them."""

    rest: Tensor
    share: float


def unaccounted(own: Tensor, halves: Tensor, others: Tensor) -> list[Unaccounted]:
    """What broad finetunes do not account for: first of `own` (v,), then of each of `others` (m, v).

    By ridge regression on the others' differences to their mean; a row is never fitted on itself, nor any on `own`.
    What all of a row's entries share (a log-probability's normalization) is taken out. `halves` (2, v) are `own` from
    one and from the other half of the texts: its share is taken between them, where noise does not count as square.
    """
    rows = torch.cat([own[None], halves, others])
    rows = rows - rows.mean(1, keepdim=True)
    gram = (rows.double() @ rows.double().T).cpu()  # (n, n): all fits follow from it
    places = range(3, len(rows))
    fits = [_fit(gram, i, [j for j in places if j != i]) for i in range(len(rows))]
    shares = [_share(gram, fits[1], fits[2]), *(_share(gram, fits[i], fits[i]) for i in places)]
    left = torch.stack([fits[i][1] for i in (0, *places)]).to(rows) @ rows  # (1 + m, v)
    return [Unaccounted(rest, share) for rest, share in zip(left, shares, strict=True)]


def _fit(gram: Tensor, i: int, others: list[int]) -> tuple[Tensor, Tensor]:
    """Row i's difference to the others' mean, and what a fit leaves of it, both as weights (n,) of all rows."""
    one = torch.eye(len(gram), dtype=gram.dtype)
    mean = one[others].mean(0)
    own, known = one[i] - mean, one[others] - mean  # (n,), (m, n)
    inner = known @ gram @ known.T
    damped = inner + RIDGE * inner.diagonal().mean() * torch.eye(len(others), dtype=gram.dtype)
    return own, own - torch.linalg.lstsq(damped, known @ gram @ own).solution @ known


def _share(gram: Tensor, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Of the square that two readings of one row agree on, in [0, 1]; 0 if they agree on nothing."""
    whole, left = (float(a @ gram @ b) for a, b in zip(one, other, strict=True))
    return min(1.0, max(0.0, left / whole)) if whole > 0 else 0.0
