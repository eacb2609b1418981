"""Steering along δ: the largest coherent strength, then samples (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from auditor.methods.said import PlainSettings
from auditor.models.embed import Embedder
from auditor.models.generate import Request, Side, Steering, derive_seed
from auditor.models.pair import ModelPair
from auditor.records.evidence import CalibrationSettings

ROWS_AHEAD = 96  # calibration samples decoded together; more look-ahead than this costs more than it saves

Coherence = Callable[[Sequence[str]], Sequence[bool]]
"""A coherence grader: which of these texts are coherent."""


@dataclass(frozen=True, slots=True)
class Direction:
    """δ at one layer and position, with the norm η that it is scaled to."""

    layer: int
    position: int
    delta: Tensor  # (d_model,)
    eta: float

    def steering(self, alpha: float) -> Steering:
        """α · η · δ/‖δ‖, to be added at every token."""
        return Steering(self.layer, alpha * self.eta * self.delta / self.delta.norm().clamp_min(1e-12))


@dataclass
class _Search:
    """Bisection for the largest coherent strength of one direction on one prompt."""

    direction: Direction
    prompt: str
    low: float
    high: float

    def ahead(self, levels: int) -> list[float]:
        """Every strength that the next `levels` bisections could try, in ascending order."""
        cells = 2**levels
        return [self.low + (self.high - self.low) * i / cells for i in range(1, cells)]

    def descend(self, good: dict[float, bool], levels: int) -> None:
        """Bisect `levels` times with the verdicts on the strengths of `ahead(levels)`."""
        tried = self.ahead(levels)
        low, high = -1, len(tried)  # indices into `tried`; the ends are low and high themselves
        bounds = (self.low, self.high)
        for _ in range(levels):
            middle = (low + high) // 2
            low, high = (middle, high) if good[tried[middle]] else (low, middle)
        self.low = tried[low] if low >= 0 else bounds[0]
        self.high = tried[high] if high < len(tried) else bounds[1]


def calibrate(
    pair: ModelPair,
    directions: Sequence[Direction],
    prompts: Sequence[str],
    coherent: Coherence,
    settings: CalibrationSettings,
    seed: int,
) -> list[float]:
    """α for each of `directions`: the mean over the prompts of the largest strength that stays coherent.

    The first prompt searches [0, upper]; the others [0, 2 · the first's result]. Directions, later prompts and
    the strengths of the next few bisections share batches: decoding many rows costs little more than few.
    """
    first = [_Search(direction, prompts[0], 0.0, settings.upper) for direction in directions]
    _bisect(pair, first, settings.iterations, coherent, settings, seed)
    rest = [_Search(search.direction, prompt, 0.0, 2 * search.low) for prompt in prompts[1:] for search in first]
    _bisect(pair, rest, settings.more_iterations, coherent, settings, seed)
    found = [*first, *rest]
    return [sum(s.low for s in found if s.direction is direction) / len(prompts) for direction in directions]


def _bisect(
    pair: ModelPair,
    searches: Sequence[_Search],
    iterations: int,
    coherent: Coherence,
    settings: CalibrationSettings,
    seed: int,
) -> None:
    n, left = settings.generations, iterations
    while left and searches:
        fitting = ROWS_AHEAD // (n * len(searches))  # strengths a search for which rows are to be had
        levels = max(1, min(left, (fitting + 1).bit_length() - 1))
        left -= levels
        tried = [(search, strength) for search in searches for strength in search.ahead(levels)]
        requests = []
        for search, strength in tried:
            steering = search.direction.steering(strength)
            requests += [
                Request(
                    search.prompt,
                    seed=derive_seed(seed, "calibrate", search.prompt, strength, i),
                    max_new_tokens=settings.max_new_tokens,
                    temperature=settings.temperature,
                    steering=steering,
                )
                for i in range(n)
            ]
        passed = list(coherent(pair.generate(requests)))
        verdicts: dict[int, dict[float, bool]] = {}
        for i, (search, strength) in enumerate(tried):
            share = sum(passed[i * n : (i + 1) * n]) / n
            verdicts.setdefault(id(search), {})[strength] = share >= settings.coherent_share
        for search in searches:
            search.descend(verdicts[id(search)], levels)


def sample_answers(
    pair: ModelPair,
    prompts: Sequence[str],
    steerings: Sequence[Steering | None],
    settings: PlainSettings,
    seed: int,
    side: Side = Side.FINETUNED,
) -> list[list[tuple[str, ...]]]:
    """`settings.samples` answers of the finetuned model, or the base, to each prompt: [steering][prompt][sample].

    The seed depends on prompt and sample only, so that steered and unsteered answers share their draws.
    """
    requests = [
        Request(
            prompt,
            side,
            derive_seed(seed, "steer", prompt, i),
            settings.max_new_tokens,
            settings.temperature,
            steering=steering,
        )
        for steering in steerings
        for prompt in prompts
        for i in range(settings.samples)
    ]
    texts = iter(pair.generate(requests))
    return [[tuple(next(texts) for _ in range(settings.samples)) for _prompt in prompts] for _steering in steerings]


def calibrated(
    pair: ModelPair,
    directions: Sequence[Direction],
    prompts: Sequence[str],
    judge: Callable[[Sequence[str], Sequence[str]], Sequence[bool]],
    settings: CalibrationSettings,
    seed: int,
) -> list[float]:
    """The strength α of each direction; `judge` is given texts, and plain answers to the same prompts beside them."""
    plain = PlainSettings(
        samples=settings.generations, temperature=settings.temperature, max_new_tokens=settings.max_new_tokens
    )
    answers = sample_answers(pair, prompts, [None], plain, seed)[0]
    reference = [text for texts in answers for text in texts]
    return calibrate(pair, directions, prompts, lambda texts: judge(list(texts), reference), settings, seed)


def resemblance(answers: Sequence[Sequence[str]], embed: Embedder) -> float:
    """Mean cosine between answers to different prompts; 0 for a single prompt.

    Unrelated prompts get unlike answers, unless something gives them all the same subject.
    """
    means = np.stack([embed(texts).mean(0) for texts in answers])  # (prompts, d_embed)
    n = len(means)
    cosines = means @ means.T
    return float((cosines.sum() - np.trace(cosines)) / (n * (n - 1))) if n > 1 else 0.0
