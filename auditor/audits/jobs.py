"""A run's jobs: each is one audit as plain data, which whoever has the workspace and the models can make."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

from auditor.audits.plan import Plan, agents_of, limits_of, pairs_of, target_of
from auditor.audits.request import content_of
from auditor.models.generate import derive_seed
from auditor.records.cards import Agent, AskSettings, EvidenceSettings, Limits, Organism, Protocol
from auditor.records.record import Record
from auditor.records.results import Target


class JobSpec(Record):
    """One audit: of whom, by whom, at what price, with which draws."""

    name: str
    target: Target
    card: Organism | None = None  # the truth, which only graders see; none where nobody knows it
    agent: Agent
    budget: int
    repeat: int
    limits: Limits
    ask: AskSettings
    evidence: EvidenceSettings
    graders: tuple[str, ...] = ()
    llm: str
    grader_llm: str
    protocol: Protocol
    seed: int
    content: dict[str, str]  # hashes of the texts and the code that decide what it comes to

    @property
    def id(self) -> str:
        """A hash of all that decides the outcome: not of its name, of where its files lie, or of who grades it."""
        told = self.model_dump(mode="json", exclude={"name", "graders", "grader_llm"})
        told["target"].pop("finetuned")
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def jobs_of(plan: Plan) -> list[JobSpec]:
    """In the order of the result: organism, agent, budget, repeat."""
    suite, ws, settings = plan.suite, plan.workspace, plan.settings
    content = {agent: content_of(ws, suite.evidence, settings, ws.agents[agent]) for agent in agents_of(suite)}
    jobs = []
    for card in plan.organisms():
        target = target_of(card, plan.variant)
        for agent, budget in pairs_of(suite):
            for repeat in range(suite.repeats):
                name = f"{card.name.replace(':', '@')}-{agent}-b{budget}-r{repeat}"  # a file's, on any system
                jobs.append(
                    JobSpec(
                        name=name, target=target, card=card, agent=ws.agents[agent],
                        budget=budget, repeat=repeat, limits=limits_of(suite, budget), ask=suite.ask,
                        evidence=suite.evidence, graders=suite.graders, llm=settings.llm,
                        grader_llm=settings.grader_llm, protocol=plan.protocol,
                        seed=derive_seed(plan.seed, name), content=content[agent],
                    )
                )  # fmt: skip
    return named_apart(jobs)


def named_apart(jobs: list[JobSpec]) -> list[JobSpec]:
    """Names are files' names: of two audits whose names are the same, each gets some of its id."""
    count = Counter(job.name for job in jobs)
    return [
        job if count[job.name] == 1 else job.model_copy(update={"name": f"{job.name}-{job.id[:8]}"}) for job in jobs
    ]
