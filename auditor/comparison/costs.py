"""What contenders took, and what each agent gets for the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from auditor.records.comparison import Costs, Matched, Standing
from auditor.records.results import AuditRecord

MEASURES = ("tokens", "cost_usd", "interactions", "lens_seconds")


def costs_of(records: Sequence[AuditRecord]) -> Costs:
    """Means an audit; one that did not tell its cost leaves the mean untold."""
    tokens = [record.tokens.input + record.tokens.output for record in records]
    prices = [record.cost_usd for record in records]
    lens = [record.lens_seconds for record in records]
    known = [price for price in prices if price is not None]
    timed = [seconds for seconds in lens if seconds is not None]
    return Costs(
        tokens=round(float(np.mean(tokens)), 1) if any(tokens) else None,
        cost_usd=round(float(np.mean(known)), 6) if len(known) == len(prices) and any(tokens) else None,
        interactions=round(float(np.mean([record.interactions_used for record in records])), 2),
        lens_seconds=round(float(np.mean(timed)), 2) if len(timed) == len(lens) else None,
        seconds=round(float(np.mean([record.seconds.get("agent", 0.0) for record in records])), 2),
    )


def matched(grader: str, standings: Sequence[Standing]) -> list[Matched]:
    """For each contender the grade of every other agent at what this one took, read off between its budgets.

    Nothing is said outside of what the other agent's budgets took.
    """
    agents: dict[str, list[Standing]] = defaultdict(list)
    for each in standings:
        if each.grader == grader and each.mean is not None and each.costs is not None:
            agents[" · ".join(filter(None, (each.agent, each.llm, each.run)))].append(each)
    found = []
    for measure in MEASURES:
        curves = {name: _curve(of, measure) for name, of in agents.items()}
        for name, of in agents.items():
            for one in of:
                at = getattr(one.costs, measure)
                for other, curve in curves.items():
                    if at is None or other == name or len(curve) < 2 or not curve[0][0] <= at <= curve[-1][0]:
                        continue
                    grade = float(np.interp(at, [x for x, _ in curve], [y for _, y in curve]))
                    found.append(
                        Matched(grader=grader, measure=measure, at=at, contender=one.contender, grade=one.mean or 0.0,
                                other=other, other_grade=round(grade, 3))
                    )  # fmt: skip
    return found


def _curve(standings: Sequence[Standing], measure: str) -> list[tuple[float, float]]:
    """Cost and grade of an agent's budgets, by cost; empty if one of them is not known."""
    points = [(getattr(each.costs, measure), each.mean or 0.0) for each in standings]
    return sorted(points) if all(cost is not None for cost, _ in points) else []
