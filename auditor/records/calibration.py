"""What people think of hypotheses, and how far a judge agrees with them."""

from __future__ import annotations

from pydantic import AliasChoices, Field

from auditor.records.cards import OrganismName
from auditor.records.findings import Hypothesis
from auditor.records.record import Record


class Label(Record):
    """One line of a labels file: the grade that somebody gave a hypothesis."""

    organism: OrganismName = Field(description="whose truth it is graded by")
    hypothesis: str = Field(min_length=1, description="as an agent wrote it")
    grade: int = Field(strict=True, ge=1, le=5, description="by the organism's rubric")
    id: str | None = Field(None, min_length=1, description="what messages call it; default: its line")
    labeller: str = Field("", description="who graded; needed where several did")
    findings: Hypothesis | None = Field(None, description="the hypothesis in parts, as audits.jsonl has it")


class Fit(Record):
    """How a judge's grades stand beside the labels. Grades between two levels count as the nearest one."""

    n: int
    kappa: float | None = Field(description="quadratic-weighted; null: undefined, or of too few labels")
    exact: float = Field(description="share of equal grades")
    within_one: float = Field(description="share of grades at most one apart")
    mean_error: float = Field(description="the judge's grade less the label, on average, before rounding")


class Repeated(Record):
    """How a judge agrees with itself over several verdicts on one hypothesis."""

    n: int
    verdicts: int = Field(description="on each hypothesis")
    unanimous: float = Field(description="share of hypotheses whose verdicts are all the same")
    kappa: float | None = Field(description="of two verdicts, the mean over all pairs; null: undefined")


class LabellerPair(Record):
    """How two labellers agree on what both have graded."""

    first: str
    second: str
    n: int
    kappa: float | None = Field(description="null: undefined, or of too few labels")
    exact: float
    within_one: float


class Calibration(Record):
    """How far a judge can be trusted, and what was measured: `evals/calibrations/NAME.json`."""

    name: str = Field(description="of its file: GRADER@MODEL, or GRADER where no LLM judges")
    grader: str
    llm: str = Field(description="the judge's model with all options that decide what it answers, or `offline`")
    labels: str = Field(description="the labels file's name")
    labels_sha256: str = Field(description="of organisms, hypotheses, grades and labellers, in no order")
    labellers: tuple[str, ...] = ()
    agreement: tuple[LabellerPair, ...] = Field((), description="of the labellers with one another")
    date: str = Field(description="ISO 8601, UTC")
    versions: dict[str, str]
    made_of: dict[str, str] = Field(description="hashes of the grader's source, and of prompts and rubrics")
    embedder: str
    repeats: int | None = Field(description="verdicts that an LLM gives on each hypothesis; null: none judges")
    fit: Fit
    ci95: tuple[float, float] | None = Field(description="of kappa, by bootstrap over hypotheses; null: there is none")
    confusion: tuple[tuple[int, ...], ...] = Field(description="rows: labels 1 to 5, columns: the judge's 1 to 5")
    rubrics: dict[str, Fit] = Field(
        description="by the rubric that labels are by; older files say `families`",
        validation_alias=AliasChoices("rubrics", "families"),
    )
    itself: Repeated | None = Field(description="null: it gives one verdict, or does not tell its verdicts")
    without: dict[str, str] = Field({}, description="hypotheses on which it gave no verdict, and why")
