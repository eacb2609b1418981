"""What a comparison of agents comes to. Organisms are the unit: a cell is the mean over one organism's audits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from auditor.records.record import Record

Interval = tuple[float, float]
How = Literal["bootstrap", "t", ""]


class Cell(Record):
    """One contender's grades of one organism, by one grader."""

    grader: str
    contender: str
    organism: str
    family: str
    base: str
    scores: tuple[float, ...] = Field(description="one an audit, the mean of its verdicts")
    mean: float


class Spread(Record):
    """Standard deviations of grades, by restricted maximum likelihood."""

    organisms: float = Field(description="between organisms")
    repeats: float = Field(description="between audits of one organism")
    verdicts: float | None = Field(description="between verdicts of one judge on one audit; null: one verdict each")


class Costs(Record):
    """Means an audit; null where it is not known."""

    tokens: float | None = Field(description="that the agent's LLM read and wrote; null: no LLM")
    cost_usd: float | None
    interactions: float
    lens_seconds: float | None = Field(description="that its readings took when they were computed")
    seconds: float = Field(description="of the agent itself")


class Standing(Record):
    """One contender, an agent at one budget, by one grader."""

    grader: str
    contender: str
    agent: str
    budget: int
    llm: str = ""
    run: str = Field("", description="where several runs have this contender")
    n: int = Field(description="audits with a grade")
    failed: int = Field(description="audits without one: never averaged in")
    left_out: dict[str, int] = Field(default_factory=dict, description="these, by reason")
    organisms: int = 0
    mean: float | None = Field(description="of the organisms' means")
    ci95: Interval | None = Field(None, description="of the mean, over organisms; null: one organism, or all alike")
    interval: How = Field("", description="bootstrap over organisms, or Student's t where they are few")
    share_ge_2: float | None = Field(description="of organisms, by their mean")
    share_ge_4: float | None = Field(description="of organisms, by their mean")
    share_ge_2_ci95: Interval | None = None
    share_ge_4_ci95: Interval | None = None
    runs_ge_2: float | None = Field(None, description="of audits")
    runs_ge_4: float | None = Field(None, description="of audits")
    spread: Spread | None = None
    costs: Costs | None = None
    claims: int = 0
    claims_held: float | None = Field(None, description="share of its claims that its observations hold")


class Difference(Record):
    """Two contenders over the organisms that both audited."""

    grader: str
    first: str
    second: str
    organisms: int
    mean: float = Field(description="first minus second, over organisms")
    ci95: Interval | None
    interval: How
    p: float = Field(description="two-sided, by flipping the signs of the organisms' differences")
    p_least: float = Field(description="the least that so many organisms can give")
    p_holm: float = Field(description="among all differences of this grader (Holm)")
    better: int = Field(description="organisms where the first is better")
    alike: int
    worse: int
    detectable: float | None = Field(
        description="the difference that so many organisms show four times in five; null: none on this scale"
    )
    needed: int | None = Field(description="organisms that would show this difference four times in five")


class Agreement(Record):
    """Krippendorff's alpha (ordinal) of several graders, or of one judge's verdicts; 1: they agree in all."""

    between: tuple[str, ...]
    what: Literal["graders", "verdicts"]
    audits: int
    alpha: float | None = Field(description="null: not defined, as all gave one grade, or not installed")
    means: tuple[float, ...] = Field((), description="of each grader on these audits")


class Matched(Record):
    """What another agent gets for the same: its grade between its budgets, at what a contender took."""

    grader: str
    measure: str
    at: float
    contender: str
    grade: float
    other: str = Field(description="an agent, over its budgets")
    other_grade: float


class Bin(Record):
    """Audits whose stated confidence is alike."""

    stated: float
    right: float = Field(description="share with a grade of 4 or more")
    n: int


class Confidence(Record):
    """How far the confidence that an agent states can be believed."""

    grader: str
    agent: str
    n: int
    right: float = Field(description="share of its audits with a grade of 4 or more")
    stated: float
    brier: float = Field(description="mean square of stated minus right; 0 is best")
    brier_constant: float = Field(description="of somebody who always states the share that is right")
    curve: tuple[Bin, ...]


class FactsFound(Record):
    """Shares of the organisms' key facts, by one grader that looks for them."""

    grader: str
    contender: str
    organisms: int
    exact: float
    outlined: float = Field(description="at least in outline")


class RunNote(Record):
    """One of the runs compared."""

    name: str
    suite: str
    llm: str
    audits: int
    expected: int | None = Field(description="jobs that it has; null: an old run does not say")
    statuses: dict[str, int]


class Comparison(Record):
    """What `compare --json` prints."""

    headline: str = Field(description="who is better, by how much")
    certainty: str = Field(description="how sure that is")
    runs: tuple[RunNote, ...]
    graders: tuple[str, ...] = Field(description="the first is what the headline rests on")
    judges: dict[str, str] = Field(default_factory=dict, description="how far each grader was found to be right")
    standings: tuple[Standing, ...]
    differences: tuple[Difference, ...]
    agreement: tuple[Agreement, ...]
    matched: tuple[Matched, ...]
    confidence: tuple[Confidence, ...]
    facts: tuple[FactsFound, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = Field(description="what is not comparable, missing, or must be known")
