"""Figures of both models, and whether one lies clearly above the other. The question is the unit, not the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from auditor.comparison.statistics import mean_interval, share_interval
from auditor.records.checked import Estimate, Figure

Values = Sequence[float | None]
Floats = NDArray[np.float64]
Kind = Literal["share", "mean"]
DIGITS = 3


@dataclass(frozen=True, slots=True)
class Scale:
    """What values can be, at least and at most."""

    least: float = -math.inf
    most: float = math.inf


SHARE, POINTS, ANY = Scale(0, 1), Scale(0, 100), Scale()


@dataclass(frozen=True, slots=True)
class Sides:
    """A value for each question of the base and of the finetune, in one order; None where nothing counts."""

    base: Values
    finetuned: Values
    texts: tuple[int, int] = (0, 0)  # that they rest on


def share(key: str, name: str, found: Sides, *, by: str, about: str = "", dropped: int = 0) -> Figure:
    """A share of questions, or of what was said to them: Wilson's intervals, Newcombe's for the difference."""
    base, finetuned = (
        _of_share(values, n) for values, n in zip((found.base, found.finetuned), found.texts, strict=True)
    )
    difference = _share_difference(found)
    return Figure(
        key=key, name=name, kind="share", base=base, finetuned=finetuned, difference=difference,
        clearly=clearly(difference), by=by, about=about, dropped=dropped,
    )  # fmt: skip


def mean(
    key: str, name: str, found: Sides, scale: Scale = ANY, *, by: str, about: str = "", dropped: int = 0
) -> Figure:
    """A mean over questions, its intervals by resampling them (Student's t where they are few)."""
    base, finetuned = (
        _of_mean(values, scale, n) for values, n in zip((found.base, found.finetuned), found.texts, strict=True)
    )
    gaps, width = [b - a for a, b in _pairs(found)], scale.most - scale.least
    difference = _of_mean(gaps, Scale(-width, width), 0) if gaps else None
    return Figure(
        key=key, name=name, kind="mean", base=base, finetuned=finetuned, difference=difference,
        clearly=clearly(difference), by=by, about=about, dropped=dropped,
    )  # fmt: skip


def between(
    key: str, name: str, values: Values, *, by: str, about: str = "", dropped: int = 0, texts: int = 0
) -> Figure:
    """A mean of what is measured between the two models, where 0 is no difference."""
    found = _of_mean(values, ANY, texts)
    return Figure(
        key=key, name=name, kind="mean", base=None, finetuned=found, difference=None, clearly=clearly(found),
        by=by, about=about, dropped=dropped,
    )  # fmt: skip


def averaged(
    key: str, name: str, parts: Sequence[tuple[Figure, Sides, str]], *, by: str, about: str = ""
) -> Figure | None:
    """The mean of several shares that both models have; None without any.

    `parts`: each with what it is over, by name; those over the same have a value for each question, in one order. Its
    intervals join the parts' own (Zou and Donner 2008, "Construction of confidence limits about effect measures"),
    the wider, the more two of them move together from question to question.
    """
    if not parts:
        return None
    base, finetuned, difference = (
        _joined([getattr(figure, which) for figure, _, _ in parts], _alikes([(pick(s), over) for _, s, over in parts]))
        for which, pick in (
            ("base", lambda sides: sides.base), ("finetuned", lambda sides: sides.finetuned), ("difference", _gaps)
        )
    )  # fmt: skip
    return Figure(
        key=key, name=name, kind="share", base=base, finetuned=finetuned, difference=difference,
        clearly=clearly(difference), by=by, about=about, dropped=sum(figure.dropped for figure, _, _ in parts),
    )  # fmt: skip


def clearly(difference: Estimate | None) -> Literal["above", "below", ""]:
    """On which side of 0 the whole interval lies."""
    if difference is None or difference.ci95 is None:
        return ""
    low, high = difference.ci95
    return "above" if low > 0 else "below" if high < 0 else ""


def _pairs(found: Sides) -> list[tuple[float, float]]:
    both = zip(found.base, found.finetuned, strict=True)
    return [(a, b) for a, b in both if a is not None and b is not None]


def _known(values: Values) -> list[float]:
    return [value for value in values if value is not None]


def _of_share(values: Values, texts: int) -> Estimate:
    known = _known(values)
    if not known:
        return Estimate(value=None, n=0, texts=texts)
    interval = share_interval(sum(known), len(known))
    return Estimate(value=_rounded(float(np.mean(known))), ci95=interval, n=len(known), texts=texts)


def _of_mean(values: Values, scale: Scale, texts: int) -> Estimate:
    known = _known(values)
    if not known:
        return Estimate(value=None, n=0, texts=texts)
    interval, _ = mean_interval(known, least=scale.least, most=scale.most)
    return Estimate(value=_rounded(float(np.mean(known))), ci95=interval, n=len(known), texts=texts)


def _share_difference(found: Sides) -> Estimate | None:
    """Newcombe 1998 ("Improved confidence intervals for the difference between binomial proportions based on paired
    data", method 10): Wilson's intervals joined, less what both models have in common.

    It lies between the two shares as they are printed: a question that only one model has a value for counts on its
    side, and what they have in common weighs as much as the questions that both have (partially overlapping samples).
    """
    base, tuned = np.array(_known(found.base)), np.array(_known(found.finetuned))
    n = min(len(base), len(tuned))
    if not n:
        return None
    value = float(tuned.mean() - base.mean())
    first, second = (share_interval(float(side.sum()), len(side)) for side in (base, tuned))
    if first is None or second is None:
        return Estimate(value=_rounded(value), n=n)
    alike = _alike(_pairs(found)) * len(_pairs(found)) / math.sqrt(len(base) * len(tuned))
    below = _hypotenuse(tuned.mean() - second[0], first[1] - base.mean(), alike)
    above = _hypotenuse(second[1] - tuned.mean(), base.mean() - first[0], alike)
    return Estimate(value=_rounded(value), ci95=(_rounded(value - below), _rounded(value + above)), n=n)


def _alike(pairs: Sequence[tuple[float, float]]) -> float:
    """The correlation φ, corrected for continuity: a few questions that all agree leave something open."""
    base, tuned = np.array(pairs).reshape(-1, 2).T
    spread = float(base.std() * tuned.std()) if pairs else 0.0
    if spread == 0:
        return 0.0
    shared = float(np.mean(base * tuned) - base.mean() * tuned.mean())
    return (max(0.0, shared - 0.5 / len(base)) if shared > 0 else shared) / spread


def _hypotenuse(a: float, b: float, alike: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * alike * a * b + b * b))


def _gaps(found: Sides) -> Values:
    """For each question how far the finetune lies above the base."""
    both = zip(found.base, found.finetuned, strict=True)
    return [None if a is None or b is None else b - a for a, b in both]


def _alikes(parts: Sequence[tuple[Values, str]]) -> Floats:
    """(parts, parts) How alike they move: Pearson's r over the questions that two share, 0 if below, or none shared."""
    found = np.eye(len(parts))
    for i, (one, over) in enumerate(parts):
        for j, (other, also_over) in enumerate(parts[:i]):
            if over == also_over:
                both = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
                found[i, j] = found[j, i] = _together(both)
    return found


def _together(both: Sequence[tuple[float, float]]) -> float:
    one, other = np.array(both).reshape(-1, 2).T
    spread = float(one.std() * other.std()) if both else 0.0
    return max(0.0, float(np.mean(one * other) - one.mean() * other.mean()) / spread) if spread else 0.0


def _joined(parts: Sequence[Estimate], alike: Floats) -> Estimate:
    values = [part.value for part in parts if part.value is not None]
    middle, n, texts = float(np.mean(values)), sum(part.n for part in parts), sum(part.texts for part in parts)
    intervals = [part.ci95 for part in parts if part.ci95 is not None]
    if len(intervals) < len(parts):
        return Estimate(value=_rounded(middle), n=n, texts=texts)
    below = np.array([value - low for value, (low, _) in zip(values, intervals, strict=True)])
    above = np.array([high - value for value, (_, high) in zip(values, intervals, strict=True)])
    lower, upper = (math.sqrt(float(side @ alike @ side)) / len(parts) for side in (below, above))
    return Estimate(value=_rounded(middle), ci95=(_rounded(middle - lower), _rounded(middle + upper)), n=n, texts=texts)


def _rounded(value: float) -> float:
    return round(value, DIGITS)
