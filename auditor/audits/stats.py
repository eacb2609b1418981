"""Agents side by side: means, shares and bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from auditor.records.results import AuditRecord, SummaryRow

RESAMPLES = 2_000


def summarize(audits: Sequence[AuditRecord], graders: Sequence[str], seed: int = 0) -> list[SummaryRow]:
    """One row for each grader, agent and budget, in order of appearance: grades of two graders are never mixed."""
    rows = []
    cells = dict.fromkeys((a.agent, a.budget) for a in audits)
    for grader, (agent, budget) in product(graders, cells):
        mine = [a for a in audits if (a.agent, a.budget) == (agent, budget)]
        grades = np.array([score for a in mine if (score := a.score_of(grader)) is not None], float)
        rows.append(
            SummaryRow(
                grader=grader,
                agent=agent,
                budget=budget,
                n=len(grades),
                failed=len(mine) - len(grades),
                mean=round(float(grades.mean()), 3) if len(grades) else None,
                ci95=bootstrap_mean(grades, seed) if len(grades) > 1 else None,
                share_ge_2=round(float((grades >= 2).mean()), 3) if len(grades) else None,
                share_ge_4=round(float((grades >= 4).mean()), 3) if len(grades) else None,
            )
        )
    return rows


def bootstrap_mean(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean."""
    rng, (levels, counts) = np.random.default_rng(seed), np.unique(values, return_counts=True)
    means = rng.multinomial(len(values), counts / len(values), RESAMPLES) @ levels / len(values)
    low, high = np.percentile(means, [2.5, 97.5])
    return round(float(low), 3), round(float(high), 3)
