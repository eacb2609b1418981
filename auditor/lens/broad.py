"""Broad finetunes of a base: what any finetuning shifts, and what of a shift they do not account for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 0.1  # of the mean square of what is fitted on: two dozen finetunes must not fit noise


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
