"""What a run is made of, and what its audits share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol as Interface

from langgraph.checkpoint.sqlite import SqliteSaver

from auditor.config import Settings
from auditor.evaluation.store import RunStore
from auditor.llm.caller import Caller
from auditor.llm.spec import OFFLINE
from auditor.models.embed import Embedder
from auditor.records.cards import AdapterVariant, Organism, Protocol, Suite
from auditor.workspace import Workspace


class Progress(Interface):
    """Told what happens, as it happens; from several threads."""

    def stage(self, organism: str, stage: str) -> None: ...
    def note(self, organism: str, text: str) -> None: ...
    def audit(self, audit_id: str, state: str, interactions: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """One audit to be made."""

    organism: Organism
    agent: str
    budget: int
    repeat: int

    @property
    def id(self) -> str:
        return f"{self.organism.name}-{self.agent}-b{self.budget}-r{self.repeat}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that a run needs besides the organisms' weights."""

    workspace: Workspace
    suite: Suite
    settings: Settings
    seed: int
    workers: int
    store: RunStore
    progress: Progress
    protocol: Protocol = Protocol.AUTO
    variant: AdapterVariant | None = None  # of every organism, instead of its card's


def jobs_of(workspace: Workspace, suite: Suite) -> list[Job]:
    """In the order of the result: organism, agent, budget, repeat."""
    return [
        Job(workspace.organisms[name], agent, budget, repeat)
        for name in suite.organisms
        for agent in suite.agents
        for budget in suite.budgets
        for repeat in range(suite.repeats)
    ]


@dataclass(frozen=True, slots=True)
class Shared:
    """What all audits of a run use."""

    embed: Embedder
    background: Sequence[str]
    saver: SqliteSaver
    agent: Caller
    grader: Caller | None  # None: graders without an LLM
    lens: Caller | None
    seconds: dict[str, float]


def judged_by(suite: Suite, settings: Settings) -> Suite:
    """The suite with the LLM variant of each offline grader, if there is an LLM that grades."""

    def variant(name: str, llm: str) -> str:
        return name if llm == OFFLINE else re.sub("_offline$", "_llm", name)

    graders = tuple(dict.fromkeys(variant(name, settings.grader_llm) for name in suite.graders))
    return suite.model_copy(update={"graders": graders})
