"""What an audit and a run come to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from auditor.readings import Section
from auditor.records.cards import AdapterVariant
from auditor.records.comparison import Difference, Standing
from auditor.records.findings import ClaimCheck, Grade, Hypothesis
from auditor.records.record import Record
from auditor.records.report import Document


class TokenUse(Record):
    """Tokens that the agent's model read and wrote; 0 for the offline investigator."""

    input: int = 0
    output: int = 0


class Target(Record):
    """Which two models. `base`: none where nobody knows it."""

    name: str
    base: str | None
    finetuned: str
    variant: AdapterVariant | None = None
    adapter_base: str | None = Field(None, description="what the adapter belongs to, if not `base`")


Sources = dict[str, tuple[str, ...]]
"""Of `base` and `finetuned`: `hub:ORG/NAME@COMMIT`, `tensors:SHA256`, as far as anybody knows."""


class LlmUse(Record):
    """Finished calls of a chat model in one role; None where an endpoint did not tell."""

    calls: int
    tokens: TokenUse | None
    cost_usd: float | None


class AuditRecord(Record):
    """One audit, however it ended: a line of audits.jsonl.

    `done`: there is a hypothesis. `failed`: there is none, through no fault of the agent. `invalid`: it saw nothing of
    the models. `leaked`: it was sent something of the truth. Only those that are done count.
    """

    id: str = Field(pattern=r"^[^./\\][^/\\]*$", description="a file's name, too")
    organism: str
    family: str
    base: str = Field("", description="the model that it was made of")
    rubric: str = Field("", description="that its grades are by")
    agent: str
    budget: int
    repeat: int
    status: Literal["done", "failed", "invalid", "leaked"]
    hypothesis: str = ""
    findings: Hypothesis | None = Field(None, description="the hypothesis in parts, where the agent gave it so")
    checks: tuple[ClaimCheck, ...] = Field((), description="of the findings' claims, in their order")
    grade: float | None = None
    grades: tuple[Grade, ...] = ()
    interactions_used: int = 0
    turns_used: int = 0
    tokens: TokenUse = TokenUse()
    cost_usd: float | None = None
    judges: LlmUse | None = Field(None, description="what its grading took, apart from the agent")
    llm: str = Field("", description="who played the agent")
    protocol: str = Field("", description="in which it called tools")
    pair: str = Field("", description="fingerprint of the two models")
    sources: Sources = Field({}, description="where their content comes from")
    evidence: dict[str, str] = Field(
        default_factory=dict, description="keys of the readings that it was given, by lens"
    )
    lens_seconds: float | None = Field(None, description="what its readings took when they were computed")
    ended_by: str = Field("", description="the limit that made it conclude, if one did")
    notes: tuple[str, ...] = Field((), description="what else one must know of it")
    seconds: dict[str, float] = Field(default_factory=dict)
    seed: int = 0
    error: str | None = None

    def score_of(self, grader: str) -> float | None:
        """That grader's score; None if it gave none."""
        return next((grade.score for grade in self.grades if grade.grader == grader), None)


class Trace(Record):
    """What the tests against chance come to, of the lenses that the agent was shown."""

    p: float = Field(description="how likely so strong a trace is in a finetune without a subject")
    tested: tuple[str, ...] = Field(description="lenses with a p-value; the least one counts, times how many there are")
    strongest: str


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
    trace: Trace | None = Field(None, description="null: nothing could be tested against chance")
    sources: Sources = Field({}, description="where the models' content comes from")
    about: str = Field("", description="what one should know of the pair: how its base is known, say")
    lenses: dict[str, str] = Field({}, description="what each lens that was read does, in its own words")
    sections: tuple[Section, ...] = Field(description="what the lenses of the agent's overview found")
    notes: tuple[str, ...] = Field((), description="what the evidence lacks of what was asked for")
    interactions_used: int
    turns_used: int
    tokens_used: TokenUse
    cost_usd: float | None
    seconds: dict[str, float]
    error: str | None = None
    content: Document | None = Field(None, description="the report as Markdown and page show it")

    def _repr_html_(self) -> str:
        from auditor.views.notebook import framed
        from auditor.views.report_page import to_html

        return framed(to_html(self.content)) if self.content is not None else ""


class RunResult(Record):
    """What `evaluate --json` prints."""

    run: str
    suite: str
    llm: str
    grader: str
    audits: tuple[AuditRecord, ...]
    headline: str = Field("", description="which agent is better, by how much")
    certainty: str = Field("", description="how sure that is")
    summary: tuple[Standing, ...]
    differences: tuple[Difference, ...] = ()
    llm_use: dict[str, LlmUse] = Field(description="by role: `agent`, a grader's name, `check`; offline ones left out")
    seconds: dict[str, float]
    open: int = Field(0, description="audits that were not made: a limit was reached")
    trust: dict[str, str] = Field({}, description="by grader: how far its grades can be trusted, in a line")
