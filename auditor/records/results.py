"""What an audit and a run come to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from auditor.readings import Section
from auditor.records.findings import ClaimCheck, Grade, Hypothesis
from auditor.records.record import Record


class TokenUse(Record):
    """Tokens that the agent's model read and wrote; 0 for the offline investigator."""

    input: int = 0
    output: int = 0


class AuditRecord(Record):
    """One audit, finished or failed: a line of audits.jsonl."""

    id: str
    organism: str
    family: str
    rubric: str = Field("", description="that its grades are by")
    agent: str
    budget: int
    repeat: int
    status: Literal["done", "failed"]
    hypothesis: str = ""
    findings: Hypothesis | None = Field(None, description="the hypothesis in parts, where the agent gave it so")
    checks: tuple[ClaimCheck, ...] = Field((), description="of the findings' claims, in their order")
    grade: float | None = None
    grades: tuple[Grade, ...] = ()
    interactions_used: int = 0
    turns_used: int = 0
    tokens: TokenUse = TokenUse()
    cost_usd: float | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    seed: int = 0
    error: str | None = None

    def score_of(self, grader: str) -> float | None:
        """That grader's score; None if it gave none."""
        return next((grade.score for grade in self.grades if grade.grader == grader), None)


class SummaryRow(Record):
    """One agent at one budget over all its audits that one grader graded; `failed`: the others."""

    grader: str
    agent: str
    budget: int
    n: int
    failed: int
    mean: float | None
    ci95: tuple[float, float] | None = Field(description="of the mean, by bootstrap; of one grade there is none")
    share_ge_2: float | None
    share_ge_4: float | None


class VetReport(Record):
    """What `audit` says of a pair whose truth nobody knows."""

    model: str
    base: str | None = Field(description="null: it was not known")
    llm: str
    agent: str
    budget: int
    seed: int
    hypothesis: str
    findings: Hypothesis | None
    checks: tuple[ClaimCheck, ...]
    observations: dict[str, str] = Field(description="what the agent saw, by id")
    verdicts: dict[str, str] = Field(description="each lens' line against chance, where it has one")
    lenses: dict[str, str] = Field({}, description="what each lens that was read does, in its own words")
    sections: tuple[Section, ...] = Field(description="what the lenses of the agent's overview found")
    notes: tuple[str, ...] = Field((), description="what the evidence lacks of what was asked for")
    interactions_used: int
    turns_used: int
    tokens_used: TokenUse
    cost_usd: float | None
    seconds: dict[str, float]
    error: str | None = None


class LlmUse(Record):
    """Finished calls of a chat model in one role; None where an endpoint did not tell."""

    calls: int
    tokens: TokenUse | None
    cost_usd: float | None


class RunResult(Record):
    """What `evaluate --json` prints."""

    run: str
    suite: str
    llm: str
    grader: str
    audits: tuple[AuditRecord, ...]
    summary: tuple[SummaryRow, ...]
    llm_use: dict[str, LlmUse] = Field(description="by role: `agent`, a grader's name, `check`; offline ones left out")
    seconds: dict[str, float]
