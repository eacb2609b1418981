"""One audit of a pair whose truth nobody knows: evidence, agent, report; no grade."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.sqlite import SqliteSaver

from auditor.agent.chat import make_caller
from auditor.agent.hypothesis import observations
from auditor.config import Settings
from auditor.evaluation.audit import investigate, plan
from auditor.evaluation.manifest import request
from auditor.evaluation.store import RunStore
from auditor.evidence.compute import evidence_for
from auditor.evidence.recipe import named_by, recipe_for
from auditor.llm.caller import open_caller
from auditor.llm.journal import CallLog
from auditor.llm.spec import OFFLINE, parse_spec
from auditor.methods.corpus import read_corpus
from auditor.methods.words import background_of
from auditor.models.embed import load_embedder
from auditor.models.remote import open_pair
from auditor.plugins import GraderContext
from auditor.records.cards import AdapterVariant, Protocol, Suite
from auditor.records.results import TokenUse, VetReport
from auditor.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Vetting:
    """What is audited, by whom, and where it is kept. `suite` gives the evidence's and sampling's settings."""

    workspace: Workspace
    settings: Settings
    suite: Suite
    model: str
    base: str | None  # None: it is not known
    agent: str
    budget: int
    seed: int
    protocol: Protocol
    variant: AdapterVariant | None = None

    def about(self) -> dict[str, str | int | None]:
        """The head of its transcript."""
        return {"model": self.model, "base": self.base, "agent": self.agent, "budget": self.budget,
                "llm": self.settings.llm, "seed": self.seed}  # fmt: skip

    def request(self) -> dict[str, Any]:
        """What has to be the same for an interrupted audit to be finished."""
        suite = self.suite.model_copy(
            update={"organisms": (), "agents": (self.agent,), "budgets": (self.budget,), "repeats": 1, "graders": ()}
        )
        asked = request(self.workspace, suite, self.settings, self.seed, self.protocol, self.variant)
        return {"model": self.model, "base": self.base, **asked}


def vet(job: Vetting, store: RunStore, tell: Callable[[str], None]) -> VetReport:
    """Audit the pair, its transcript written after every step."""
    ws, settings, suite = job.workspace, job.settings, job.suite
    limits = suite.limits(job.budget)
    agent = ws.agents[job.agent]
    embed = load_embedder(settings.embedder)
    background = read_corpus(ws.corpora["openings"]).texts
    log = CallLog(store.folder / "calls.jsonl")
    caller = make_caller(settings.llm, embed, background_of(tuple(background)), log)
    judge = None if settings.lens_llm == OFFLINE else open_caller(parse_spec(settings.lens_llm), log)

    clock = time.perf_counter()
    name = job.model if settings.server else "audited"
    pair = open_pair(job.base, job.model, settings, name=name, variant=job.variant)
    grading = GraderContext(embed, settings, pair, background, judge, ws.prompts.by_name())
    recipe = recipe_for(ws, pair, suite.evidence, grading)
    dataset = evidence_for(pair, recipe, named_by(ws, [agent]), tell)
    seconds = {"evidence": time.perf_counter() - clock}

    tell("agent")
    made = plan(
        ws, agent, limits, suite.ask, job.seed,
        name="audit", pair=pair, dataset=dataset, caller=caller, embed=embed, protocol=job.protocol,
    )  # fmt: skip
    with closing(sqlite3.connect(store.checkpoints, check_same_thread=False)) as connection:
        ended = investigate(
            made, SqliteSaver(connection), embed,
            lambda state, more: store.write_transcript("audit", state["messages"], {**job.about(), **more}),
        )  # fmt: skip
    state = ended.state
    return VetReport(
        model=job.model,
        base=job.base,
        llm=settings.llm,
        agent=job.agent,
        budget=job.budget,
        seed=job.seed,
        hypothesis=state["hypothesis"] or "",
        findings=ended.findings,
        checks=ended.checks,
        observations=observations(state["messages"]),
        verdicts=dataset.verdicts,
        lenses={name: dataset.lenses[name].description for name in dataset},
        sections=tuple(s for name in agent.overview if name in dataset for s in dataset[name].show()),
        notes=tuple(dataset.notes),
        interactions_used=state["interactions"],
        turns_used=state["turns"],
        tokens_used=TokenUse(input=state["tokens_in"], output=state["tokens_out"]),
        cost_usd=state["cost_usd"] if settings.llm != OFFLINE else None,
        seconds={**seconds, "agent": ended.seconds},
        error=ended.error,
    )
