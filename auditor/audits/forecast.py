"""What a run will take, before it is begun: counted where it can be, else by rates that are said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import Field

from auditor.audits.jobs import JobSpec, jobs_of
from auditor.audits.plan import Plan, pairs_of
from auditor.estimate import GPU_TOLD, gpu_decoding, gpu_seconds, seconds_of
from auditor.evidence.recipe import chosen, closure
from auditor.grading import llm_variants
from auditor.llm.spec import OFFLINE, parse_spec
from auditor.public import download_needed, made_of, memory_needed, weights_of
from auditor.records.cards import Organism
from auditor.records.record import Record

TURNS = 6  # of an LLM that plays an agent, as audits here went; the offline one takes three
OPENING, A_TURN, ANSWER = 6_000, 1_200, 350  # tokens: the first message, what a turn adds, what the agent writes
VERDICT = (1_500, 400)  # tokens of a judge's prompt and answer
INTERACTION = 2.4  # seconds of a model interaction, 96 tokens of both models, 135M parameters on two CPU cores


class Cell(Record):
    """One agent at one budget."""

    agent: str
    budget: int
    organisms: int
    repeats: int
    audits: int


class Public(Record):
    """What the suite's public organisms take."""

    organisms: int
    download_gb: float = Field(description="of their bases and whole finetunes, if none is here; adapters come on top")
    memory_gb: float = Field(description="the most that weights of one pair take")
    largest: str = Field(description="which pair that is")
    gated: tuple[str, ...] = Field(description="bases whose licence has to be accepted on the hub first")
    gpu_hours: float = Field(description="evidence and interactions, at least")
    rates: str = GPU_TOLD


class Forecast(Record):
    """What `evaluate --dry-run` says. Figures of LLMs are about so; `most` are those that limits allow."""

    suite: str
    cells: tuple[Cell, ...]
    audits: int
    interactions: int = Field(description="of the audited models, at most")
    agent_calls: int
    agent_tokens: int
    most_agent_tokens: int | None = Field(description="of input; null: no limit is set, turns and interactions end it")
    judge_calls: int
    judge_tokens: int
    cost_usd: float | None = Field(description="null: the price of a model is not known")
    evidence_seconds: float = Field(
        description="of organisms that are not public, if nothing is in the cache, on two CPU cores"
    )
    audit_seconds: float = Field(description="of the same")
    rates: str
    public: Public | None = Field(None, description="null: none of the organisms is public")


def forecast(plan: Plan, lenses: Iterable[str]) -> Forecast:
    """Counts and estimates. Raises UsageError."""
    lenses = tuple(lenses)
    jobs, suite, settings = jobs_of(plan), plan.suite, plan.settings
    hosted = settings.llm != OFFLINE
    turns = min(TURNS, suite.turns)
    read = sum(OPENING + A_TURN * turn for turn in range(turns))
    judges = [name for name in suite.graders if plan.workspace.graders[name].llm]
    verdicts = len(jobs) * len(judges) * settings.grader_repeats
    calls = len(jobs) * turns if hosted else 0
    interactions = sum(job.budget for job in jobs)
    small = {card.name for card in plan.organisms() if made_of(card, plan.workspace.models) is None}
    return Forecast(
        suite=suite.name,
        cells=_cells(jobs),
        audits=len(jobs),
        interactions=interactions,
        agent_calls=calls,
        agent_tokens=len(jobs) * (read + turns * ANSWER) if hosted else 0,
        most_agent_tokens=_sum_all([job.limits.tokens for job in jobs]) if hosted else 0,
        judge_calls=verdicts,
        judge_tokens=verdicts * sum(VERDICT),
        cost_usd=_sum(
            _cost(settings.llm, len(jobs) * read, calls * ANSWER),
            _cost(settings.grader_llm, verdicts * VERDICT[0], verdicts * VERDICT[1]),
        ),
        evidence_seconds=round(len(small) * _evidence_seconds(plan, lenses), 1),
        audit_seconds=round(INTERACTION * sum(job.budget for job in jobs if job.target.name in small), 1),
        rates=f"an LLM's audit taken as {turns} turns that begin at {OPENING:,} tokens and grow by {A_TURN:,}; seconds "
        "as measured with 135M parameters on two CPU cores",
        public=_public(plan, lenses),
    )


def _public(plan: Plan, lenses: Iterable[str]) -> Public | None:
    cards = [(card, of) for card in plan.organisms() if (of := made_of(card, plan.workspace.models))]
    if not cards:
        return None
    whole = {name: download_needed(card, of) / len(_whole(card)) for card, of in cards for name in _whole(card)}
    memory, largest = max((memory_needed(card, of, plan.settings), card.name) for card, of in cards)
    chosen = _lenses(plan, lenses)
    spent = sum(budget for _, budget in pairs_of(plan.suite)) * plan.suite.repeats * plan.suite.ask.max_new_tokens
    seconds = sum(
        gpu_seconds(plan.suite.evidence.texts, chosen, of.billions) + gpu_decoding(2 * spent, of.billions, rows=2)
        for _, of in cards
    )
    return Public(
        organisms=len(cards), download_gb=round(sum(whole.values()) / 1e9, 1), memory_gb=round(memory / 1e9, 1),
        largest=largest, gated=tuple(sorted({of.base for _, of in cards if of.gated})),
        gpu_hours=round(seconds / 3600, 1),
    )  # fmt: skip


def _whole(card: Organism) -> list[str]:
    return [name for name in weights_of(card) if name != card.adapter]


def _cells(jobs: Iterable[JobSpec]) -> tuple[Cell, ...]:
    found: dict[tuple[str, int], list[JobSpec]] = {}
    for job in jobs:
        found.setdefault((job.agent.name, job.budget), []).append(job)
    return tuple(
        Cell(agent=agent, budget=budget, organisms=len({job.target.name for job in mine}),
             repeats=1 + max(job.repeat for job in mine), audits=len(mine))
        for (agent, budget), mine in found.items()
    )  # fmt: skip


def _cost(llm: str, read: int, written: int) -> float | None:
    if llm == OFFLINE or not read:
        return 0.0
    spec = parse_spec(llm)
    if spec.price_in is None or spec.price_out is None:
        return None
    return (read * spec.price_in + written * spec.price_out) / 1e6


def _sum(*costs: float | None) -> float | None:
    return None if None in costs else round(sum(cost for cost in costs if cost is not None), 4)


def _sum_all(numbers: Sequence[int | None]) -> int | None:
    return None if None in numbers else sum(filter(None, numbers))


def _evidence_seconds(plan: Plan, lenses: Iterable[str]) -> float:
    return seconds_of(plan.suite.evidence.texts, _lenses(plan, lenses))


def _lenses(plan: Plan, lenses: Iterable[str]) -> dict[str, Any]:
    """The settings of all that these lenses need."""
    order, _ = closure(plan.workspace.lenses.by_name(), lenses)
    variants = llm_variants(plan.workspace.graders.by_name(), plan.settings.lens_judge)
    return {lens.name: chosen(lens, plan.suite.evidence.lenses.get(lens.name, {}), variants) for lens in order}
