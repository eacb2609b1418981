"""The comparison in a sentence or two: which agent is better, by how much, how sure."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.records.comparison import Difference, Standing

SURE = 0.05


def headline(standings: Sequence[Standing], differences: Sequence[Difference]) -> str:
    """The best contender against the best one of another agent, by the first grader."""
    ranked = sorted(
        (each for each in standings if each.grader == standings[0].grader and each.mean is not None),
        key=lambda each: -(each.mean or 0.0),
    )
    if not ranked:
        return "Nothing is graded yet."
    best = ranked[0]
    rival = next((each for each in ranked if _agent(each) != _agent(best)), None) or next(iter(ranked[1:]), None)
    if rival is None:
        return (
            f"{best.contender} is graded {best.mean:.2f} of 5 on average{_of(best)}; there is nobody to compare with."
        )
    found = next((d for d in differences if d.grader == best.grader and {d.first, d.second}
                  == {best.contender, rival.contender}), None)  # fmt: skip
    if found is None:
        return f"{best.contender} ({best.mean:.2f}) and {rival.contender} ({rival.mean:.2f}) share no organism."
    if found.first != best.contender:
        found = turned(found)
    if found.p <= SURE and found.mean > 0:
        said = f"{best.contender} is better than {rival.contender}: {found.mean:+.2f} grades{_interval(found)}"
        return f"{said}, p = {_p(found.p)} on {found.organisms} organisms."
    said = f"{best.contender} is ahead of {rival.contender} by {found.mean:.2f} grades{_interval(found)}"
    if abs(found.mean) < 0.005:
        said = f"{best.contender} and {rival.contender} are alike{_interval(found)}"
    if found.organisms == 1:
        return f"{said}, on one organism: nothing tells how it would be on another."
    if found.p_least > SURE:
        return f"{said}, but {found.organisms} organisms cannot show more than p = {_p(found.p_least)}: add organisms."
    return f"{said}, which may be chance: p = {_p(found.p)} on {found.organisms} organisms."


def turned(found: Difference) -> Difference:
    """The same, seen from the other side."""
    return found.model_copy(
        update={
            "first": found.second,
            "second": found.first,
            "mean": -found.mean,
            "ci95": None if found.ci95 is None else (-found.ci95[1], -found.ci95[0]),
            "better": found.worse,
            "worse": found.better,
        }
    )


def _agent(standing: Standing) -> tuple[str, str, str]:
    return standing.agent, standing.llm, standing.run


def _of(standing: Standing) -> str:
    interval = f" (95 %: {standing.ci95[0]:.2f} to {standing.ci95[1]:.2f})" if standing.ci95 else ""
    return f"{interval} on {standing.organisms} organism{'s' if standing.organisms != 1 else ''}"


def _interval(found: Difference) -> str:
    return f" (95 %: {found.ci95[0]:+.2f} to {found.ci95[1]:+.2f})" if found.ci95 else ""


def _p(p: float) -> str:
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"
