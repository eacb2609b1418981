"""What a run is asked for, and how a suite is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from auditor.agent.pages import READ_MORE
from auditor.config import Settings
from auditor.grading import llm_variants
from auditor.plugins import Tool
from auditor.records.cards import AdapterVariant, Agent, Limits, Organism, Protocol, Suite
from auditor.records.results import Target
from auditor.workspace import Workspace

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

PROMPTS = ("rules", "overview", "nudge", "conclude", "status", "protocol_tools", "protocol_text")  # of every agent


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is asked for. `variant`: of every organism, instead of its card's; `chats`: agents' models that are
    no endpoint's, by the name that the settings give them.
    """

    workspace: Workspace
    suite: Suite
    settings: Settings
    seed: int = 0
    protocol: Protocol = Protocol.AUTO
    variant: AdapterVariant | None = None
    chats: Mapping[str, BaseChatModel] = field(default_factory=dict)

    def organisms(self) -> list[Organism]:
        return [self.workspace.organisms[name] for name in self.suite.organisms]


def target_of(card: Organism, variant: AdapterVariant | None = None) -> Target:
    """The pair of an organism."""
    return Target(
        name=card.name, base=card.base, finetuned=card.finetuned, variant=variant or card.variant,
        adapter_base=card.adapter_base,
    )  # fmt: skip


def limits_of(suite: Suite, budget: int) -> Limits:
    """What an audit with this budget of interactions may spend."""
    return Limits(
        interactions=budget, turns=suite.turns, tokens=suite.tokens, cost_usd=suite.cost_usd, seconds=suite.seconds
    )


def pairs_of(suite: Suite) -> list[tuple[str, int]]:
    """Who audits at which budgets: what `audits:` names, else every agent at every budget."""
    if suite.audits:
        return list(dict.fromkeys((each.agent, budget) for each in suite.audits for budget in each.budgets))
    return [(agent, budget) for agent in suite.agents for budget in suite.budgets]


def tools_of(ws: Workspace, agent: Agent) -> dict[str, Tool]:
    """The tools that its card names, and the one that reads long results on. Raises UnknownName."""
    names = dict.fromkeys((*agent.tools, READ_MORE)) if agent.tools else ()
    return {name: ws.tools[name] for name in names}


def offered(tools: Mapping[str, Tool], interactions: int) -> dict[str, Tool]:
    """The tools that an agent is told of: without interactions none that costs, nor one that only reads them on."""
    kept = {name: tool for name, tool in tools.items() if interactions or tool.free}
    return kept if kept.keys() - {READ_MORE} else {}


def agents_of(suite: Suite) -> tuple[str, ...]:
    return tuple(dict.fromkeys(agent for agent, _ in pairs_of(suite)))


def judged_by(ws: Workspace, suite: Suite, settings: Settings) -> Suite:
    """The suite with what stands in for each of its graders, if there is an LLM that grades. Raises UsageError."""
    variants = llm_variants(ws.graders.by_name(), lambda kind: settings.grader_llm)
    graders = tuple(dict.fromkeys(variants.get(name, name) for name in suite.graders))
    return suite.model_copy(update={"graders": graders})
