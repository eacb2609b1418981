"""How graders agree, how far stated confidence can be believed, and which facts were found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np

from auditor.comparison.scores import Score
from auditor.comparison.statistics import alpha
from auditor.records.comparison import Agreement, Bin, Confidence, FactsFound

RIGHT = 4  # the grade from which a hypothesis names what was trained
BINS = 5
FOUND = {"exact": ("exact",), "outlined": ("exact", "abstracted", "outline")}  # as graders call it
MISSING = "Krippendorff's alpha needs the package krippendorff (GPL): pip install 'auditor-adl[agreement]'"


def agreement(by_grader: Mapping[str, Sequence[Score]]) -> tuple[tuple[Agreement, ...], list[str]]:
    """Of every two graders over the audits that both graded, and of each judge's own verdicts; and what is missing."""
    grades = {grader: {id(s.record): s.grade.score for s in scores} for grader, scores in by_grader.items()}
    found, missing = [], list[str]()

    def add(between: tuple[str, ...], what: Literal["graders", "verdicts"], rows: list[list[float | None]]) -> None:
        try:
            value = alpha(rows)
        except ImportError:
            value, missing[:] = None, [MISSING]
        means = tuple(round(float(np.mean([x for x in row if x is not None])), 3) for row in rows)
        found.append(
            Agreement(between=between, what=what, audits=len(rows[0]), alpha=value,
                      means=means if what == "graders" else ())
        )  # fmt: skip

    for first, second in combinations(grades, 2):
        if both := list(grades[first].keys() & grades[second].keys()):
            add((first, second), "graders", [[grades[name][audit] for audit in both] for name in (first, second)])
    for grader, scores in by_grader.items():
        several = [said for score in scores if len(said := _list(score.grade.details.get("scores"))) > 1]
        if several:
            count = max(map(len, several))
            add((grader,), "verdicts", [[of[i] if i < len(of) else None for of in several] for i in range(count)])
    return tuple(found), missing


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def confidence(grader: str, scores: Sequence[Score]) -> list[Confidence]:
    """By agent, over its budgets: the confidence that it stated, and how often it was right."""
    stated: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for score in scores:
        if score.record.findings is not None:
            pair = (score.record.findings.confidence, score.grade.score >= RIGHT)
            stated[score.contender.agent_name].append(pair)
    if not stated:
        return []
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    found = []
    for agent, pairs in stated.items():
        says, right = np.array([s for s, _ in pairs]), np.array([r for _, r in pairs], float)
        shares, means = calibration_curve(right, says, n_bins=BINS, strategy="uniform")
        places = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], says)  # as scikit-learn puts what is on an edge
        sizes = [int(n) for n in np.bincount(places, minlength=BINS) if n]
        curve = tuple(
            Bin(stated=round(float(m), 3), right=round(float(s), 3), n=n)
            for m, s, n in zip(means, shares, sizes, strict=True)
        )
        rate = float(right.mean())
        found.append(
            Confidence(
                grader=grader, agent=agent, n=len(pairs), right=round(rate, 3), stated=round(float(says.mean()), 3),
                brier=round(float(brier_score_loss(right, says, pos_label=1)), 3),
                brier_constant=round(rate * (1 - rate), 3), curve=curve,
            )
        )  # fmt: skip
    return found


def facts(grader: str, scores: Sequence[Score]) -> list[FactsFound]:
    """Shares of key facts, over organisms that have some; nothing for graders that look for none."""
    cells: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        told = [fact for fact in _list(score.grade.details.get("facts")) if isinstance(fact, dict)]
        if told:
            said = [str(fact.get("verdict", fact.get("found", ""))) for fact in told]
            exact, outlined = (sum(s in FOUND[how] for s in said) / len(said) for how in ("exact", "outlined"))
            cells[score.contender.name][score.organism].append((exact, outlined))
    return [
        FactsFound(
            grader=grader, contender=contender, organisms=len(organisms),
            exact=round(float(np.mean([np.mean([e for e, _ in of]) for of in organisms.values()])), 3),
            outlined=round(float(np.mean([np.mean([o for _, o in of]) for of in organisms.values()])), 3),
        )
        for contender, organisms in cells.items()
    ]  # fmt: skip
