"""The comparison in a sentence or two: which agent is better, by how much, how sure."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.records.comparison import Difference, Standing

SURE = 0.05


def headline(standings: Sequence[Standing], differences: Sequence[Difference]) -> tuple[str, str]:
    """The best contender against the best one of another agent, by the first grader; and how sure that is."""
    ranked = sorted(
        (each for each in standings if each.grader == standings[0].grader and each.mean is not None),
        key=lambda each: -(each.mean or 0.0),
    )
    if not ranked:
        return "Nothing is graded yet", ""
    best = ranked[0]
    rival = next((each for each in ranked if _agent(each) != _agent(best)), None) or next(iter(ranked[1:]), None)
    if rival is None:
        return f"{best.contender} is graded {best.mean:.2f} of 5 on average", f"{_over(best)}; nobody to compare with."
    found = next((d for d in differences if d.grader == best.grader and {d.first, d.second}
                  == {best.contender, rival.contender}), None)  # fmt: skip
    if found is None:
        grades = f"{best.contender} ({best.mean:.2f}) and {rival.contender} ({rival.mean:.2f})"
        return f"{grades} cannot be compared", "They share no organism."
    found = found if found.first == best.contender else turned(found)
    return _said(found), _sure(found)


def _said(found: Difference) -> str:
    if abs(found.mean) < 0.005:
        return f"{found.first} and {found.second} are alike"
    ahead, behind = (found.first, found.second) if found.mean > 0 else (found.second, found.first)
    sure = found.p_holm <= SURE
    verb, tail = ("is better than", "") if sure else ("is ahead of", ", which may be chance")
    return f"{ahead} {verb} {behind} by {abs(found.mean):.2f} on the scale of 1 to 5{tail}"


def _sure(found: Difference) -> str:
    interval = f"95 %: {signed(found.ci95[0])} to {signed(found.ci95[1])}; " if found.ci95 else ""
    if found.organisms == 1:
        return "On one organism: nothing tells how it would be on another."
    # The two were chosen among all: what was corrected for that decides.
    corrected = f" ({_p(found.p_holm)} among all differences)" if found.p_holm > found.p else ""
    told = f"{interval}p = {_p(found.p)}{corrected} on {found.organisms} organisms"
    if found.p_holm > SURE and found.p_least > SURE:
        return f"{told}, which cannot show less than p = {_p(found.p_least)}: add organisms."
    if found.p_holm > SURE and found.needed:
        return f"{told}; about {found.needed} would show a difference of this size four times in five."
    return f"{told}."


def signed(value: float) -> str:
    """With a minus sign, not a hyphen."""
    return f"{value:+.2f}".replace("-", "−")


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


def _over(standing: Standing) -> str:
    interval = f"95 %: {standing.ci95[0]:.2f} to {standing.ci95[1]:.2f}, on " if standing.ci95 else "On "
    return f"{interval}{standing.organisms} organism{'s' if standing.organisms != 1 else ''}"


def _p(p: float) -> str:
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"
