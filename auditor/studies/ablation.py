"""What each lens is worth: agents that see one of them, beside an agent that sees none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from statistics import mean

from pydantic import Field

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
    ci95: tuple[float, float] | None = Field(None, description="of `worth`; null: not computed")


def ablation_rows(records: Sequence[AuditRecord]) -> list[AblationRow]:
    """The rows of `auditor study ablation`: by grader, budget and agent, in order of appearance; graders never mixed.

    SEAM: `auditor.comparison` has the statistics (clustered intervals, paired tests). Until it is called here, rows
    have means and differences, and no interval.
    """
    graders = dict.fromkeys(grade.grader for record in records for grade in record.grades)
    cells = dict.fromkeys((record.budget, record.agent) for record in records)
    rows = []
    for grader, (budget, agent) in product(graders, sorted(cells, key=lambda cell: cell[0])):
        mine = [r for r in records if (r.budget, r.agent) == (budget, agent)]
        own = _by_organism(mine, grader)
        none = _by_organism((r for r in records if (r.budget, r.agent) == (budget, WITHOUT)), grader)
        both = [name for name in own if name in none] if agent != WITHOUT else []
        graded = sum(_counts(r, grader) for r in mine)
        rows.append(
            AblationRow(
                grader=grader, agent=agent, budget=budget, organisms=len(own), audits=graded,
                left_out=len(mine) - graded, mean=mean(own.values()) if own else None,
                worth=mean(own[name] - none[name] for name in both) if both else None, compared=len(both),
            )
        )  # fmt: skip
    return rows


def _by_organism(records: Iterable[AuditRecord], grader: str) -> dict[str, float]:
    """The mean grade of each organism that has one."""
    found: dict[str, list[float]] = {}
    for record in records:
        if (score := record.score_of(grader)) is not None and record.status == "done":
            found.setdefault(record.organism, []).append(score)
    return {name: mean(scores) for name, scores in found.items()}


def _counts(record: AuditRecord, grader: str) -> bool:
    return record.status == "done" and record.score_of(grader) is not None
