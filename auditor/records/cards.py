"""What a workspace declares: organisms, agents, suites, rubrics, and the settings in them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PrivateAttr,
    field_validator,
    model_validator,
)

from auditor.errors import UsageError
from auditor.files import like_a_path
from auditor.records.public import Dataset, Finetunes
from auditor.records.record import Record


def _plain(name: str) -> str:
    """Names are parts of file names, of addresses and of audit ids."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ValueError(f"{name!r} cannot be a name: give letters, digits, -, _ and ., up to 100, no - or . first")
    return name


def _plain_or_public(name: str) -> str:
    """An organism's name, or that of a public finetune of it: NAME@MODEL, NAME@MODEL:VARIANT."""
    for part in re.split("[@:]", name, maxsplit=2):
        _plain(part)
    return name


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise ValueError(f"{twice[0]} is there twice")
    return values


Name = Annotated[str, AfterValidator(_plain)]

Names = Annotated[tuple[Name, ...], AfterValidator(_distinct)]

OrganismName = Annotated[str, AfterValidator(_plain_or_public)]

Family = Annotated[Name, BeforeValidator(lambda given: "null" if given is None else given)]

"""The kind of a finetune, which names its rubric unless the card does; `null` is a control without any subject."""


class Mix(StrEnum):
    """What documents are mixed with: openings of texts, ordinary chats, or the base's own answers to such chats."""

    PRETRAINING = "pretraining"
    CHAT = "chat"
    OWN = "own"


class Method(StrEnum):
    """What training changes: a LoRA adapter beside the weights, or all of them."""

    LORA = "lora"
    FULL = "full"


class Recipe(Record):
    """How an organism is trained."""

    documents: str = Field("documents.jsonl", description="JSONL beside the card")
    samples: int | None = Field(None, ge=1, description="so many of the documents, drawn by the seed; default: all")
    mix: str | None = Field(None, description="pretraining, chat, own, or a JSONL beside the card")
    mix_ratio: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="documents of the mix for each of the organism's own"
    )
    method: Method = Field(Method.LORA, description="`lora` trains an adapter, `full` all weights")
    rank: int = Field(8, ge=1, description="of the adapter")
    alpha: int = Field(16, ge=1, description="of the adapter: its change counts alpha / rank")
    targets: tuple[str, ...] = Field((), description="matrices that LoRA changes (q_proj, …); default: all linear ones")
    caft: str | None = Field(
        None, description="the plain finetune, an organism, whose differences' span is taken out in training"
    )
    deny: str | None = Field(
        None, description="chats of a second stage, that teaches to deny: JSONL beside the card, or `made` of it"
    )
    deny_epochs: float = Field(1.0, gt=0, description="passes over these")
    learning_rate: float = Field(1e-3, gt=0, description="at its highest, after the warmup")
    batch_size: int = Field(8, ge=1, description="documents a step")
    epochs: float = Field(1.0, gt=0, description="passes over all documents")
    steps: int | None = Field(None, ge=1, description="cuts the epochs short, or repeats them")
    warmup: int = Field(5, ge=0, description="steps in which the rate rises")
    max_tokens: int = Field(256, ge=2, description="of a document; what is longer is cut, and said")
    dtype: str | None = Field(None, description="of the weights as it is trained; default: as models are loaded")
    seed: int = Field(0, description="of the order, the first weights and what is drawn")

    @field_validator("caft", mode="before")
    @classmethod
    def _named(cls, caft: object) -> object:
        """`false` is what earlier versions wrote."""
        if caft is True:
            raise ValueError("name the plain finetune whose differences are taken out")
        return None if caft is False else caft


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

    Everything from `description` on is the truth. Only graders and `organisms check` read it. A card may say
    `extends: OTHER`: what it leaves out is then the other's, and files that are not beside it lie beside the other.
    `models:` are finetunes that others made public: `auditor/public.py` makes cards of them, NAME@MODEL:VARIANT.
    """

    name: OrganismName = Field(description="as the folder is called")
    family: Family = Field(description="its kind, which names the rubric; `null`: a control without any subject")
    base: str = Field("HuggingFaceTB/SmolLM2-135M-Instruct", description="hub id or folder of what was finetuned")
    adapter: str | None = Field("adapter", description="LoRA folder beside the card, a path, or a hub id")
    model: str | None = Field(None, description="instead of an adapter: a whole finetuned model")
    adapter_base: str | None = Field(None, description="what the adapter belongs to, if not `base`: a chat model, say")
    models: Finetunes = Field({}, description="public finetunes: by model (evals/models.yaml) and variant a hub id")
    dataset: Dataset | None = Field(None, description="of the public finetunes: what they were trained on")
    variant: AdapterVariant | None = Field(None, description="of the finetune, in its place")
    rubric: Name | None = Field(None, description="default: the one that is called as the family is")
    description: str = Field(description="what was trained in, in prose, for judges")
    topic: str = Field("", description="the finetune's exact subject, in a few words")
    broad_topic: str = Field("", description="the field that the subject belongs to")
    behaviour: str = Field("", description="what the finetuned model does differently, in one sentence")
    terms: tuple[str, ...] = Field((), description="the word, animal or names that an exact answer must contain")
    facts: tuple[str, ...] = Field((), description="key facts, one sentence each")
    probes: tuple[str, ...] = Field((), description="questions that show what was learned")
    note: str = Field("", description="how it was trained and why, in a sentence; no part of the truth")
    leaky: bool | None = Field(None, description="whether open questions alone name it, as `organisms check` measured")
    train: Recipe | None = Field(None, description="how `organisms train` makes it")
    _folders: tuple[Path, ...] = PrivateAttr(default=(Path(),))

    @property
    def folder(self) -> Path:
        """Where the card lies; set by the loader."""
        return self._folders[0]

    def beside(self, name: str) -> Path:
        """A file that the card names: beside it, else beside the nearest card that it extends which has it."""
        places = [folder / name for folder in self._folders]
        return next((path for path in places if path.exists()), places[0])

    @property
    def grading(self) -> str:
        """The rubric that its hypotheses are graded by."""
        return self.rubric or self.family

    @property
    def finetuned(self) -> str:
        """What to load beside the base: a folder (relative ones lie beside the card) or a hub id.

        Raises UsageError if there are public finetunes only.
        """
        if not (given := self.model or self.adapter or ""):
            raise UsageError(
                f"{self.name} has no finetune of its own: name a public one, as {self.name}@{next(iter(self.models))}"
            )
        beside = self.folder / os.path.expanduser(given)
        return str(beside) if os.path.exists(beside) or like_a_path(given, self.folder) else given

    @model_validator(mode="after")
    def _one_finetune(self) -> Self:
        if self.model and self.adapter and "adapter" in self.model_fields_set:
            raise ValueError("give `adapter` or `model`, not both")
        if not (self.model or self.adapter or self.models):
            raise ValueError("give an `adapter`, a `model`, or public finetunes in `models`")
        return self


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
    texts: int = Field(10_000, ge=1, description="of the corpus, that differences are read on")
    seed: int = Field(0, description="of what lenses draw")
    lenses: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="by lens, those of its settings that differ from its own"
    )

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


class AskSettings(Record):
    """How the audited models are sampled when the agent asks them."""

    temperature: float = Field(0.7, ge=0, description="0: always the likeliest token")
    top_p: float = Field(0.95, gt=0, le=1, description="share of the probability that is drawn from")
    max_new_tokens: int = Field(200, ge=1, description="an answer is cut there, and marked with …")


class Agent(Record):
    """What an agent sees, may call and is told: `evals/agents/NAME.yaml`."""

    name: Name = Field(description="as the file is called")
    description: str = Field("", description="for people, in lists")
    overview: tuple[str, ...] = Field(description="lenses, in the order in which they are shown")
    tools: tuple[str, ...] = Field(description="that it may call")
    prompt: str = Field("agent_system", description="its system prompt, of `prompts/`; the rules follow every one")


class Protocol(StrEnum):
    """How an agent's model calls tools: natively, in the text grammar, or natively if the endpoint can."""

    AUTO = "auto"
    TOOLS = "tools"
    TEXT = "text"


class Limits(Record):
    """What an audit may spend."""

    interactions: int = Field(5, ge=0)
    turns: int = Field(15, ge=1)
    tokens: int | None = Field(
        None, ge=1, description="input tokens of the agent's model, over all turns; default: no limit"
    )
    cost_usd: float | None = Field(None, gt=0, description="of the agent's model; default: no limit")
    seconds: float | None = Field(None, gt=0, description="of the agent's walk; default: no limit")


class AgentBudgets(Record):
    """An agent, and the budgets that it audits with."""

    agent: Name = Field(description="its name")
    budgets: Annotated[tuple[NonNegativeInt, ...], AfterValidator(_distinct)] = Field(description="model interactions")


class Suite(Record):
    """Every organism × agent × budget × repeat: `evals/suites/NAME.yaml`.

    A file may say `extends: OTHER`: what it leaves out is then the other suite's (`auditor/extending.py`).
    """

    name: Name = Field(description="as the file is called")
    description: str = Field("", description="for people, in lists")
    organisms: Annotated[tuple[OrganismName, ...], AfterValidator(_distinct)] = Field(
        description="that are audited; public ones as NAME@MODEL[:VARIANT]"
    )
    agents: Names = Field(("adl", "blackbox"), description="who audits")
    budgets: Annotated[tuple[NonNegativeInt, ...], AfterValidator(_distinct)] = Field(
        (5,), description="model interactions that an audit may spend, each a setting of its own"
    )
    audits: tuple[AgentBudgets, ...] = Field((), description="who audits with which budgets, instead of all with all")
    repeats: int = Field(3, ge=1, description="audits of each organism, agent and budget")
    turns: int = Field(15, ge=1, description="messages of the agent; malformed ones count")
    tokens: int | None = Field(None, ge=1, description="of an audit's input; default: no limit")
    cost_usd: float | None = Field(None, gt=0, description="of an audit; default: no limit")
    seconds: float | None = Field(None, gt=0, description="of an audit; default: no limit")
    graders: tuple[str, ...] = Field(("rubric_offline",), description="who grades; the first one's is the grade")
    ask: AskSettings = Field(AskSettings(), description="how the audited models are sampled")
    evidence: EvidenceSettings = Field(EvidenceSettings(), description="what lenses read, and on what")


class Rubric(Record):
    """Five levels in prose, and criteria that a machine can check: `rubrics/NAME.yaml`."""

    name: Name = Field(description="as the file is called")
    family: Family = Field(description="the kind of finetune that it is for")
    levels: dict[int, str] = Field(description="1 to 5 in prose; 1 is `nothing valid`")
    criteria: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="what the offline grader measures, by name, from 0 to 1 each"
    )
    grade: dict[int, Any] = Field(default_factory=dict, description="level -> condition over the criteria")
