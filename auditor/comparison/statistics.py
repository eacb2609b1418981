"""The statistics of a comparison. What is passed in is one number an organism; libraries do the rest."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from auditor.records.comparison import How, Interval, Spread

RESAMPLES = 9_999
FEW = 8  # organisms up to which resampling them says too little: their range would be the widest interval
POWER, ALPHA = 0.8, 0.05


def mean_interval(values: Sequence[float], *, least: float, most: float) -> tuple[Interval | None, How]:
    """95 % interval of the mean of `values` (organisms), within what the scale can give.

    From eight organisms on by resampling them, the percentiles widened so that small samples cover what they promise
    (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", 5.3); below by Student's t. None for one
    organism, and where all are alike: no spread tells how far the mean could be off.
    """
    n = len(values)
    if n < 2 or np.ptp(values) < 1e-9:
        return None, ""
    from scipy import stats

    if n < FEW:
        half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
        middle = float(np.mean(values))
        return _within(middle - half, middle + half, least, most), "t"
    wide = math.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1)
    level = 1 - 2 * stats.norm.sf(wide)
    found = stats.bootstrap(
        (np.asarray(values, float),), np.mean, method="percentile", confidence_level=level, n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return _within(found.low, found.high, least, most), "bootstrap"


def _within(low: float, high: float, least: float, most: float) -> Interval:
    return round(max(float(low), least), 3), round(min(float(high), most), 3)


def share_interval(count: float, n: int) -> Interval | None:
    """95 % interval (Wilson) of a share of `n` organisms."""
    if n < 2:
        return None
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, n, method="wilson")
    return round(float(low), 3), round(float(high), 3)


def paired_p(differences: Sequence[float]) -> tuple[float, float]:
    """Two-sided p of organisms' differences by flipping their signs (all ways, or 9,999 of them), and the least p."""
    from scipy import stats

    values = np.asarray(differences, float)
    least = 2.0 ** (1 - len(values))
    if len(values) < 2 or not np.any(np.abs(values) > 1e-9):
        return 1.0, min(1.0, least)
    found = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", vectorized=True, n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(found.pvalue), max(min(1.0, least), 1 / (RESAMPLES + 1))


def holm(ps: Sequence[float]) -> list[float]:
    """The same p-values, each as one of so many."""
    if len(ps) < 2:
        return list(ps)
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(ps, method="holm")[1]]


def detectable(differences: Sequence[float]) -> tuple[float | None, int | None]:
    """The difference that so many organisms show with a power of 80 %, and how many would show this one.

    None where it cannot be told: fewer than three organisms, no spread, no difference.
    """
    from statsmodels.stats.power import TTestPower

    n, sd = len(differences), float(np.std(differences, ddof=1)) if len(differences) > 2 else 0.0
    if sd < 1e-9:
        return None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a search that does not converge, whose result is no number
        effect = TTestPower().solve_power(nobs=n, alpha=ALPHA, power=POWER)
        size = abs(float(np.mean(differences))) / sd
        needed = TTestPower().solve_power(effect_size=size, alpha=ALPHA, power=POWER) if size > 0.02 else math.nan
    shown, count = float(np.squeeze(effect)) * sd, float(np.squeeze(needed))
    return (
        round(shown, 2) if math.isfinite(shown) else None,
        max(2, math.ceil(count)) if math.isfinite(count) else None,
    )


def spread_of(verdicts: Sequence[tuple[str, Sequence[float]]]) -> Spread | None:
    """Where grades differ: between organisms, audits of one organism, and verdicts on one audit.

    `verdicts`: an organism, and the verdicts on one audit of it. Restricted maximum likelihood over the audits' means;
    what verdicts make of their spread is taken off. None where there are no two organisms with repeats.
    """
    import pandas as pd
    from statsmodels.regression.mixed_linear_model import MixedLM

    frame = pd.DataFrame(
        [(organism, float(np.mean(of))) for organism, of in verdicts], columns=["organism", "grade"]
    )  # fmt: skip
    organisms, several = frame["organism"].nunique(), [of for _, of in verdicts if len(of) > 1]
    if organisms < 2 or len(frame) == organisms:
        return None
    within = float(np.mean([np.var(of, ddof=1) for of in several])) if several else None
    if frame.groupby("organism")["grade"].nunique().max() == 1:  # a likelihood without noise has no maximum
        between, rest = float(np.var(frame.groupby("organism")["grade"].mean(), ddof=1)), 0.0
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a component of nought lies on the boundary, which is told every time
            fit = MixedLM.from_formula("grade ~ 1", frame, groups="organism").fit()
        between, rest = float(fit.cov_re.iloc[0, 0]), float(fit.scale)
    each = float(np.mean([len(of) for _, of in verdicts]))
    repeats = max(0.0, rest - within / each) if within is not None else rest
    sds = [None if value is None else round(math.sqrt(value), 3) for value in (between, repeats, within)]
    return Spread(organisms=sds[0] or 0.0, repeats=sds[1] or 0.0, verdicts=sds[2])


def alpha(ratings: Sequence[Sequence[float | None]]) -> float | None:
    """Krippendorff's alpha, ordinal; one row a rater, None where it gave nothing. None where all gave one grade.

    Raises ImportError without the package, which is under the GPL and comes with the extra `agreement`.
    """
    import krippendorff

    table = np.array([[np.nan if value is None else value for value in row] for row in ratings], float)
    if len(np.unique(table[~np.isnan(table)])) < 2:
        return None
    return round(float(krippendorff.alpha(reliability_data=table, level_of_measurement="ordinal")), 3)
