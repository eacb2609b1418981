"""Agents side by side: one value made of runs' records, which tables, charts and reports show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from auditor.comparison.costs import costs_of, matched
from auditor.comparison.headline import headline
from auditor.comparison.judged import agreement, confidence, facts
from auditor.comparison.notes import noted, notes_on
from auditor.comparison.scores import Contender, Run, Score, Scores, scores_of
from auditor.comparison.statistics import detectable, holm, mean_interval, paired_p, share_interval, spread_of
from auditor.records.comparison import Cell, Comparison, Difference, Standing
from auditor.records.findings import Grade

LOWEST, HIGHEST = 1, 5  # of the rubrics' levels
ALIKE = 1e-9


Trust = Callable[[Run, str], str]
"""How far a grader of a run can be trusted, in a line."""


def compare(runs: Sequence[Run], graders: Sequence[str] = (), trust: Trust | None = None) -> Comparison:
    """Every contender of `runs`, by each grader alone.

    `graders`: only these, the first of them for the headline. What is left out of a figure is counted and noted.
    """
    scores = scores_of(runs, graders)
    cells = {grader: cells_of(grader, given) for grader, given in scores.by_grader.items()}
    standings = [each for grader in cells for each in standings_of(grader, cells[grader], scores)]
    differences = [each for grader in cells for each in differences_of(grader, cells[grader])]
    between, missing = agreement(scores.by_grader)
    said, sure = headline(standings, differences)
    return Comparison(
        headline=said,
        certainty=sure,
        runs=tuple(noted(run) for run in runs),
        graders=tuple(scores.by_grader),
        judges={
            grader: trust(*scores.origins[grader])
            for grader in scores.by_grader
            if trust is not None and grader in scores.origins
        },
        standings=tuple(standings),
        differences=tuple(differences),
        agreement=between,
        matched=tuple(each for grader in cells for each in matched(grader, standings)),
        confidence=tuple(each for grader, given in scores.by_grader.items() for each in confidence(grader, given)),
        facts=tuple(each for grader, given in scores.by_grader.items() for each in facts(grader, given)),
        cells=tuple(cell for of in cells.values() for cell in of),
        notes=(*notes_on(runs, scores, standings), *missing),
    )


def cells_of(grader: str, scores: Sequence[Score]) -> list[Cell]:
    """By contender and organism; a grade that is itself a mean of verdicts counts once."""
    found: dict[tuple[Contender, str], list[Score]] = defaultdict(list)
    for score in scores:
        found[score.contender, score.organism].append(score)
    return [
        Cell(
            grader=grader, contender=contender.name, organism=organism, family=of[0].record.family,
            base=of[0].record.base, scores=tuple(each.grade.score for each in of),
            mean=float(np.mean([each.grade.score for each in of])),
        )
        for (contender, organism), of in found.items()
    ]  # fmt: skip


def standings_of(grader: str, cells: Sequence[Cell], scores: Scores) -> list[Standing]:
    """One row a contender, those without any grade too."""
    mine: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        mine[cell.contender].append(cell)
    graded: dict[Contender, list[Score]] = defaultdict(list)
    for score in scores.by_grader.get(grader, ()):
        graded[score.contender].append(score)
    return [
        _standing(grader, contender, mine[contender.name], graded[contender], scores) for contender in scores.audits
    ]


def _standing(
    grader: str, contender: Contender, cells: Sequence[Cell], graded: Sequence[Score], scores: Scores
) -> Standing:
    means = [cell.mean for cell in cells]
    each = [score for cell in cells for score in cell.scores]
    left_out = scores.left_out(contender, grader)
    interval, how = mean_interval(means, least=LOWEST, most=HIGHEST) if means else (None, "")
    n, two, four = len(means), sum(m >= 2 for m in means), sum(m >= 4 for m in means)
    checks = [check for score in graded for check in score.record.checks]
    verdicts = [(score.organism, verdicts_of(score.grade)) for score in graded]
    return Standing(
        grader=grader, contender=contender.name, agent=contender.agent, budget=contender.budget, llm=contender.llm,
        run=contender.run, n=len(each), failed=sum(left_out.values()), left_out=left_out, organisms=n,
        mean=round(float(np.mean(means)), 3) if means else None, ci95=interval, interval=how,
        share_ge_2=round(two / n, 3) if n else None, share_ge_4=round(four / n, 3) if n else None,
        share_ge_2_ci95=share_interval(two, n), share_ge_4_ci95=share_interval(four, n),
        runs_ge_2=round(float(np.mean(np.array(each) >= 2)), 3) if each else None,
        runs_ge_4=round(float(np.mean(np.array(each) >= 4)), 3) if each else None,
        spread=spread_of(verdicts) if n > 1 else None,
        costs=costs_of([score.record for score in graded]) if graded else None,
        claims=len(checks), claims_held=round(sum(c.holds for c in checks) / len(checks), 3) if checks else None,
    )  # fmt: skip


def verdicts_of(grade: Grade) -> list[float]:
    """The single verdicts of a judge that gave several; else the grade."""
    several = grade.details.get("scores")
    return [float(value) for value in several] if isinstance(several, list) and several else [grade.score]


def differences_of(grader: str, cells: Sequence[Cell]) -> list[Difference]:
    """Every two contenders, over the organisms that both have a grade for."""
    means: dict[str, dict[str, float]] = defaultdict(dict)
    for cell in cells:
        means[cell.contender][cell.organism] = cell.mean
    found = []
    for first, second in combinations(means, 2):
        shared = [organism for organism in means[first] if organism in means[second]]
        if shared:
            found.append((first, second, [means[first][name] - means[second][name] for name in shared]))
    ps = [paired_p(values) for _, _, values in found]
    corrected = holm([p for p, _ in ps])
    return [_difference(grader, *pair, *p, of_all) for pair, p, of_all in zip(found, ps, corrected, strict=True)]


def _difference(
    grader: str, first: str, second: str, values: Sequence[float], p: float, least: float, of_all: float
) -> Difference:
    span = HIGHEST - LOWEST
    interval, how = mean_interval(values, least=-span, most=span)
    shown, needed = detectable(values)
    shown = shown if shown is not None and shown <= span else None
    better, worse = sum(v > ALIKE for v in values), sum(v < -ALIKE for v in values)
    return Difference(
        grader=grader, first=first, second=second, organisms=len(values), mean=round(float(np.mean(values)), 3),
        ci95=interval, interval=how, p=round(p, 4), p_least=round(least, 4), p_holm=round(of_all, 4), better=better,
        alike=len(values) - better - worse, worse=worse, detectable=shown, needed=needed,
    )  # fmt: skip
