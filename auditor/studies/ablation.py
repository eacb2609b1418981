"""What each lens is worth: agents that see one of them, beside an agent that sees none."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from auditor.comparison.compare import compare
from auditor.comparison.headline import turned
from auditor.comparison.scores import Run
from auditor.records.comparison import Difference, Standing
from auditor.records.record import Record
from auditor.records.results import AuditRecord

WITHOUT = "blackbox"  # the agent that has no lens


class AblationRow(Record):
    """One agent at one budget, by one grader: organisms are the unit, each the mean of its repeats."""

    grader: str
    agent: str
    budget: int
    organisms: int
    audits: int
    left_out: int = Field(description="failed, invalid or leaked audits, and those without a grade by this grader")
    mean: float | None
    worth: float | None = Field(description="mean difference to `blackbox` at this budget; null: nothing to compare")
    compared: int = Field(description="organisms that both have")
    ci95: tuple[float, float] | None = Field(None, description="of `worth`; null: one organism, or all alike")
    p: float | None = Field(None, description="of `worth`, by flipping the signs of the organisms' differences")


def ablation_rows(records: Sequence[AuditRecord]) -> list[AblationRow]:
    """The rows of `auditor study ablation`: by grader, budget and agent; graders are never mixed."""
    found = compare([Run("", {}, tuple(records))])
    rows = []
    for each in sorted(found.standings, key=lambda row: (found.graders.index(row.grader), row.budget)):
        without = [row for row in found.standings if (row.grader, row.agent, row.budget)
                   == (each.grader, WITHOUT, each.budget)]  # fmt: skip
        worth = _between(found.differences, each, without[0]) if without and each.agent != WITHOUT else None
        rows.append(
            AblationRow(
                grader=each.grader, agent=each.agent, budget=each.budget, organisms=each.organisms, audits=each.n,
                left_out=each.failed, mean=each.mean, worth=worth.mean if worth else None,
                compared=worth.organisms if worth else 0, ci95=worth.ci95 if worth else None,
                p=worth.p if worth else None,
            )
        )  # fmt: skip
    return rows


def _between(differences: Sequence[Difference], one: Standing, other: Standing) -> Difference | None:
    """One minus the other, if they share organisms."""
    for each in differences:
        if each.grader == one.grader and {each.first, each.second} == {one.contender, other.contender}:
            return each if each.first == one.contender else turned(each)
    return None
