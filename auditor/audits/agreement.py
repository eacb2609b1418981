"""How two gradings of the same hypotheses agree: scikit-learn's kappa and confusion matrix, scipy's bootstrap."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import combinations
from statistics import mean

import numpy as np
from scipy.stats import bootstrap
from sklearn import config_context
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from auditor.audits.labels import ENOUGH, LEVELS, Labelled, labellers_of
from auditor.records.calibration import Fit, LabellerPair, Repeated

RESAMPLES = 1_000  # of 2 to 3 ms each


def levels_of(grades: Sequence[float]) -> list[int]:
    """The nearest levels; halves go to the even one, so that they lean neither way."""
    return [round(grade) for grade in grades]


def fit_of(labels: Sequence[float], scores: Sequence[float]) -> Fit:
    """Of a judge's `scores` beside `labels`, one at least."""
    truth, given = levels_of(labels), levels_of(scores)
    apart = np.abs(np.subtract(truth, given))
    return Fit(
        n=len(truth),
        kappa=kappa_of(truth, given) if len(truth) >= ENOUGH else None,
        exact=_short((apart == 0).mean()),
        within_one=_short((apart <= 1).mean()),
        mean_error=_short(np.subtract(scores, labels).mean()),
    )


def kappa_of(first: Sequence[int], second: Sequence[int]) -> float | None:
    """Quadratic-weighted kappa of two gradings; None where it is undefined: all grades are the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is told here by None
        value = _kappa(first, second)
    return None if math.isnan(value) else _short(value)


def interval_of(labels: Sequence[float], scores: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """Kappa's 95 % interval, by bootstrap over hypotheses; None if some resamples have no kappa."""
    with warnings.catch_warnings(), config_context(skip_parameter_validation=True):
        warnings.simplefilter("ignore")
        found = bootstrap(
            (levels_of(labels), levels_of(scores)), _kappa, paired=True, vectorized=False, method="percentile",
            n_resamples=RESAMPLES, rng=np.random.default_rng(seed),
        ).confidence_interval  # fmt: skip
    return None if math.isnan(found.low) or math.isnan(found.high) else (_short(found.low), _short(found.high))


def confusion_of(labels: Sequence[float], scores: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    """Counts: rows are the labels' levels, columns the judge's."""
    counts = confusion_matrix(levels_of(labels), levels_of(scores), labels=LEVELS)
    return tuple(tuple(int(count) for count in row) for row in counts)


def repeated_of(verdicts: Sequence[Sequence[float]]) -> Repeated | None:
    """How a judge agrees with itself; None unless it gave the same number of verdicts, two or more, on each."""
    count = len(verdicts[0]) if verdicts else 0
    if count < 2 or any(len(each) != count for each in verdicts):
        return None
    columns = [levels_of(column) for column in zip(*verdicts, strict=True)]
    kappas = [kappa_of(first, second) for first, second in combinations(columns, 2)]
    known = [kappa for kappa in kappas if kappa is not None]
    return Repeated(
        n=len(verdicts),
        verdicts=count,
        unanimous=_short(mean(len(set(each)) == 1 for each in verdicts)),
        kappa=_short(mean(known)) if known else None,
    )


def labellers_agree(labels: Sequence[Labelled]) -> tuple[LabellerPair, ...]:
    """Every two labellers, on what both have graded."""
    found = []
    for first, second in combinations(labellers_of(labels), 2):
        both = [each.grades for each in labels if {first, second} <= each.grades.keys()]
        if both:
            fit = fit_of([grades[first] for grades in both], [grades[second] for grades in both])
            told = fit.model_dump(include={"n", "kappa", "exact", "within_one"})
            found.append(LabellerPair(first=first, second=second, **told))
    return tuple(found)


def _kappa(first: Sequence[int], second: Sequence[int]) -> float:
    return float(cohen_kappa_score(first, second, labels=LEVELS, weights="quadratic"))


def _short(value: float) -> float:
    return round(float(value), 4)
