"""How long a setting has to be trained until its behaviour shows as often as the plain one's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

LONGER, SHORTER = 1.5, 0.6  # times, where nothing tells better
ROUNDING = 1e-9  # 0.75 lies 0.15 over 0.6


@dataclass(frozen=True, slots=True)
class Tried:
    """A training of so many steps, and the share of probes on which its behaviour shows."""

    steps: int
    rate: float


def match(
    first: Tried, wanted: float, band: float, passes: float, tries: int, rate_of: Callable[[int], float]
) -> tuple[Tried | None, list[Tried]]:
    """The training whose rate is within `band` of `wanted`, and all that were tried; none if none of them is.

    `passes`: times the first one's steps, as the first guess where its rate is too low; `rate_of` trains and tells.
    """
    tried = [first]
    while not abs(tried[-1].rate - wanted) <= band + ROUNDING:  # nor is a rate that could not be measured
        steps = next_steps(tried, wanted, passes) if len(tried) <= tries else None
        if steps is None:
            return None, tried
        tried.append(Tried(steps, rate_of(steps)))
    return tried[-1], tried


def next_steps(tried: Sequence[Tried], wanted: float, passes: float) -> int | None:
    """Between those whose rates lie below and above, as a straight line has it; else longer, or shorter.

    None if that was tried already.
    """
    below = [each for each in tried if each.rate < wanted]
    above = [each for each in tried if each.rate >= wanted]
    if below and above:
        low, high = max(below, key=lambda each: each.steps), min(above, key=lambda each: each.steps)
        guess = low.steps + (wanted - low.rate) / (high.rate - low.rate) * (high.steps - low.steps)
    elif below:
        guess = max(each.steps for each in below) * (passes if len(tried) == 1 and passes > 1 else LONGER)
    elif above:
        guess = min(each.steps for each in above) * SHORTER
    else:
        return None
    steps = max(1, round(guess))
    return None if any(each.steps == steps for each in tried) else steps
