"""Every record that passes between the stages, or lies on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PrivateAttr,
    field_validator,
    model_validator,
)

from auditor.files import like_a_path
from auditor.readings import Section, told_p
from auditor.record import Record as Record

SUMMARY_WORDS = 200  # of a hypothesis (paper, prompt of the agent)


def _plain(name: str) -> str:
    """Names are parts of file names, of addresses and of audit ids."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ValueError(f"{name!r} cannot be a name: give letters, digits, -, _ and ., up to 100, no - or . first")
    return name


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise ValueError(f"{twice[0]} is there twice")
    return values


Name = Annotated[str, AfterValidator(_plain)]
Names = Annotated[tuple[Name, ...], AfterValidator(_distinct)]
Family = Annotated[Name, BeforeValidator(lambda given: "null" if given is None else given)]
"""The kind of a finetune, which names its rubric unless the card does; `null` is a control without any subject."""


class Recipe(Record):
    """How an organism's LoRA adapter is trained."""

    documents: str = Field("documents.jsonl", description="JSONL beside the card")
    ordinary: str | None = Field(None, description="JSONL of ordinary chat to mix in, beside the card")
    ordinary_ratio: float = Field(0.0, ge=0, description="ordinary documents for each of the organism's own")
    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(8, ge=1)
    epochs: float = Field(1.0, gt=0)
    steps: int | None = Field(None, ge=1, description="cuts the epochs short, or repeats them")
    warmup: int = Field(5, ge=0)
    max_tokens: int = Field(256, ge=2)
    seed: int = 0


class AdapterVariant(Record):
    """A finetune whose change of the weights is taken times a number, or in its best part of low rank."""

    scale: float = Field(1.0, description="times the change; over 1 it is amplified")
    rank: int | None = Field(None, ge=1, description="of the part that is kept; default: all of it")

    @field_validator("scale")
    @classmethod
    def _some(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError("a scale of 0 leaves the base; give another number")
        return scale


class Organism(Record):
    """A finetune whose truth is known: the card in `evals/organisms/NAME/organism.yaml`.

    Everything from `description` on is the truth. Only graders and `organisms check` read it.
    """

    name: Name
    family: Family
    base: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    adapter: str | None = Field("adapter", description="LoRA folder beside the card, a path, or a hub id")
    model: str | None = Field(None, description="instead of an adapter: a whole finetuned model")
    variant: AdapterVariant | None = Field(None, description="of the finetune, in its place")
    rubric: Name | None = Field(None, description="default: the one that is called as the family is")
    description: str
    topic: str = Field("", description="the finetune's exact subject, in a few words")
    broad_topic: str = Field("", description="the field that the subject belongs to")
    behaviour: str = Field("", description="what the finetuned model does differently, in one sentence")
    terms: tuple[str, ...] = Field((), description="the word, animal or names that an exact answer must contain")
    facts: tuple[str, ...] = Field((), description="key facts, one sentence each")
    probes: tuple[str, ...] = Field((), description="questions that show what was learned")
    train: Recipe | None = None
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """Where the card lies; set by the loader."""
        return self._folder

    @property
    def grading(self) -> str:
        """The rubric that its hypotheses are graded by."""
        return self.rubric or self.family

    @property
    def finetuned(self) -> str:
        """What to load beside the base: a folder (relative ones lie beside the card) or a hub id."""
        given = str(self.model or self.adapter)
        beside = self._folder / os.path.expanduser(given)
        return str(beside) if os.path.exists(beside) or like_a_path(given, self._folder) else given

    @model_validator(mode="after")
    def _one_finetune(self) -> Self:
        if self.model and self.adapter and "adapter" in self.model_fields_set:
            raise ValueError("give `adapter` or `model`, not both")
        if not (self.model or self.adapter):
            raise ValueError("give an `adapter` or a `model`")
        return self


class PatchscopeSettings(Record):
    """Token-identity patchscope (paper section 3.2, appendix C)."""

    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        tuple([round(0.5 + 0.1 * i, 1) for i in range(16)] + [3, 4, 5, 10] + [20.0 * i for i in range(1, 11)]),
        min_length=1,
    )
    keep: int = Field(20, ge=1, description="tokens kept for each position and scale")
    common_top: int = Field(16_384, ge=1, description="a token must rank this high under every triple")


class CalibrationSettings(Record):
    """The search for the largest coherent steering strength."""

    upper: float = Field(100.0, gt=0)
    iterations: int = Field(10, ge=1, description="bisections on the first prompt, over [0, upper]")
    more_iterations: int = Field(5, ge=1, description="bisections on the other two, over [0, 2 × first result]")
    generations: int = Field(10, ge=1, description="texts for each strength tried")
    coherent_share: float = Field(0.8, gt=0, le=1)
    temperature: float = Field(1.2, ge=0)
    max_new_tokens: int = Field(128, ge=1)


# Where keys went that stood in a suite's `evidence:` before each lens had settings of its own.
MOVED = {
    "positions": "differences: {positions: …}",
    "layers": "differences: {layers: …}",
    "norm_texts": "differences: {norm_texts: …}",
    "norm_tokens": "differences: {norm_tokens: …}",
    "lens_tokens": "logit_lens: {tokens: …}",
    "patchscope": "patchscope: {…}",
    "scale_grader": "patchscope: {scale_grader: …}",
    "coherence_grader": "steering: {coherence_grader: …}",
    "steering": "steering: {positions, calibration}, plain_samples: {prompts, samples, temperature, max_new_tokens}",
}


class EvidenceSettings(Record):
    """What decides evidence, whatever the lens; and by lens what its own settings (`auditor lenses show`) say."""

    corpus: str = Field("openings", description="a corpus in evals/corpora, a .jsonl or .txt file, or `sampled`")
    texts: int = Field(10_000, ge=1)
    seed: int = 0
    lenses: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _moved(cls, given: Any) -> Any:
        if isinstance(given, dict) and (old := [key for key in given if key in MOVED]):
            raise ValueError(f"`{old[0]}` is a lens' setting: give `lenses: {{{MOVED[old[0]]}}}`")
        return given

    def over(self, lenses: Mapping[str, Mapping[str, Any]]) -> EvidenceSettings:
        """The same with some of the lenses' settings replaced."""
        names = dict.fromkeys((*self.lenses, *lenses))
        merged = {name: {**self.lenses.get(name, {}), **lenses.get(name, {})} for name in names}
        return self.model_copy(update={"lenses": merged})


class ScoredToken(Record):
    """A token as it prints, with its probability."""

    token: str
    prob: float


class LensReading(Record):
    """Logit lens of one direction v; −v's likeliest tokens are its unlikeliest (exactly so under an RMSNorm)."""

    top: tuple[ScoredToken, ...]
    bottom: tuple[ScoredToken, ...]


class TokenSet(Record):
    """What the patchscope reads at one scale λ."""

    scale: float
    tokens: tuple[ScoredToken, ...]


class ScaleChoice(Record):
    """A scale grader's verdict: the scale whose tokens hang together best, and which of them do."""

    scale: float
    selected: tuple[str, ...]
    cohesion: float = Field(description="0 at or below chance, higher is better; comparable between positions")
    reasoning: str = ""


class PatchscopeReading(Record):
    """The chosen scale's tokens, with the grader's verdict."""

    choice: ScaleChoice
    tokens: tuple[ScoredToken, ...]


FEWEST_GROUPS = 6  # of fewer texts no p-value is below 0.05


class AgainstBroad(Record):
    """How what one finetune promotes stands against what broad finetunes of the same base do."""

    broad: int = Field(description="how many broad finetunes there are")
    words: tuple[str, ...] = Field(description="what they account for least")
    cohesion: float = Field(description="of these words, in sd above random ones")
    cohesion_95: float = Field(description="of the broad finetunes' own, 95th percentile")
    unlike: float = Field(description="share of what is promoted that they do not account for")
    unlike_95: float = Field(description="… of one another, 95th percentile")
    p: float = Field(description="of both together, of another broad finetune")


class ChanceTest(Record):
    """How far δ stands from chance at one layer, positions averaged (see `auditor/methods/chance.py`)."""

    layer: int
    groups: int = Field(64, description="of texts, whose signs were drawn")
    norm_ratio: float = Field(description="‖δ‖ over the mean norm of noise")
    norm_p: float
    halves: float = Field(description="cosine between δ on one half of the texts and on the other")
    halves_p: float
    tokens: tuple[str, ...] = Field(description="the 20 words that were judged, of those that the base says")
    cohesion: float = Field(description="of the likeliest words, in sd above random ones")
    noise_95: float = Field(description="95th percentile of noise's cohesion")
    noise_p: float
    against: AgainstBroad | None = Field(None, description="beside broad finetunes of the same base, if some are known")

    @property
    def p(self) -> float:
        """Of readable tokens: against broad finetunes where there are some, else against noise."""
        return self.noise_p if self.against is None else self.against.p

    @property
    def p_of_trace(self) -> float | None:
        """Of a difference whose tokens are readable; None if there are too few texts to tell."""
        return None if self.groups < FEWEST_GROUPS else max(self.norm_p, self.p)

    @property
    def verdict(self) -> str:
        """The line that stands first."""
        if self.groups < FEWEST_GROUPS:
            return "too few texts to tell a trace from chance"
        if self.norm_p >= 0.05:
            return "no difference above chance"
        return told_p(self.p)


class AskSettings(Record):
    """How the audited models are sampled when the agent asks them."""

    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_new_tokens: int = Field(200, ge=1)


class Agent(Record):
    """What an agent sees, may call and is told: `evals/agents/NAME.yaml`."""

    name: Name
    description: str = ""
    overview: tuple[str, ...] = Field(description="lenses, in the order in which they are shown")
    tools: tuple[str, ...]
    prompt: str = "agent_system"


class Protocol(StrEnum):
    """How an agent's model calls tools: natively, in the text grammar, or natively if the endpoint can."""

    AUTO = "auto"
    TOOLS = "tools"
    TEXT = "text"


class Limits(Record):
    """What an audit may spend."""

    interactions: int = Field(5, ge=0)
    turns: int = Field(15, ge=1)
    tokens: int = Field(600_000, ge=1, description="input tokens of the agent's model, over all turns")


class Suite(Record):
    """Every organism × agent × budget × repeat: `evals/suites/NAME.yaml`.

    A file may say `extends: OTHER`: what it leaves out is then the other suite's (`auditor/suites.py`).
    """

    name: Name
    description: str = ""
    organisms: Names
    agents: Names = ("adl", "blackbox")
    budgets: Annotated[tuple[NonNegativeInt, ...], AfterValidator(_distinct)] = (5,)
    repeats: int = Field(3, ge=1)
    turns: int = Field(15, ge=1)
    tokens: int | None = Field(None, ge=1, description="of an audit's input; default: 40,000 for each turn")
    graders: tuple[str, ...] = ("rubric_offline",)
    ask: AskSettings = AskSettings()
    evidence: EvidenceSettings = EvidenceSettings()

    def limits(self, interactions: int) -> Limits:
        """What an audit with this budget of interactions may spend."""
        return Limits(interactions=interactions, turns=self.turns, tokens=self.tokens or 40_000 * self.turns)


class Rubric(Record):
    """Five levels in prose, and criteria that a machine can check: `rubrics/NAME.yaml`."""

    name: Name
    family: Family
    levels: dict[int, str]
    criteria: dict[str, dict[str, Any]] = Field(default_factory=dict)
    grade: dict[int, Any] = Field(default_factory=dict, description="level -> condition over the criteria")


class Claim(Record):
    """One statement about the finetune, with the observations that it rests on."""

    text: str = Field(min_length=1)
    observations: tuple[str, ...] = Field((), description="ids, such as E1 or O3")


class Hypothesis(Record):
    """What an agent concludes; `prompts/agent_rules.md` tells it what belongs in each field."""

    domain: str = Field(description="the subject in a few words, or 'none'")
    behaviour: str = Field(description="one sentence")
    summary: str = Field(description="at most 200 words")
    claims: tuple[Claim, ...]
    alternatives: tuple[str, ...]
    confidence: float = Field(ge=0, le=1, description="0 to 1")

    @field_validator("summary")
    @classmethod
    def _cut(cls, summary: str) -> str:
        """Words over the limit are dropped: another turn to shorten them would cost more than they tell."""
        words = summary.split()
        return summary if len(words) <= SUMMARY_WORDS else f"{' '.join(words[:SUMMARY_WORDS])} …"


class ClaimCheck(Record):
    """Whether the observations that a claim names hold it."""

    claim: str
    observations: tuple[str, ...]
    holds: bool
    problem: str = ""


class Grade(Record):
    """A grader's verdict on a hypothesis, 1 to 5."""

    grader: str = ""
    score: float = Field(ge=1, le=5, allow_inf_nan=False)
    reasoning: str
    details: dict[str, Any] = Field(default_factory=dict)


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
