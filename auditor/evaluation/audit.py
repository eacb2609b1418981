"""One audit: a plan, a walk through the graph, and what came of it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from auditor.agent.graph import Investigation, build_graph
from auditor.agent.hypothesis import observations, verify
from auditor.agent.overview import blinded, lost
from auditor.agent.protocol import Wire
from auditor.agent.state import AuditState, fresh_state
from auditor.errors import AuditorError, UsageError
from auditor.evidence.mapping import Evidence
from auditor.evidence.recipe import named_by
from auditor.llm.caller import Caller
from auditor.models.blind import BlindPair
from auditor.models.embed import Embedder
from auditor.models.pair import ModelPair
from auditor.plugins import Context
from auditor.prompts import Prompt
from auditor.records.cards import Agent, AskSettings, Limits, Protocol
from auditor.records.findings import ClaimCheck, Hypothesis
from auditor.workspace import Workspace

PROMPTS = ("rules", "overview", "nudge", "conclude", "status", "protocol_tools", "protocol_text")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an audit ended: the graph's last state, or the reason why there is no hypothesis."""

    state: AuditState
    findings: Hypothesis | None
    checks: tuple[ClaimCheck, ...]
    seconds: float
    error: str | None = None


def plan(
    workspace: Workspace,
    agent: Agent,
    limits: Limits,
    ask: AskSettings,
    seed: int,
    *,
    name: str,
    pair: ModelPair,
    dataset: Evidence,
    caller: Caller,
    embed: Embedder,
    protocol: Protocol = Protocol.AUTO,
) -> Investigation:
    """An audit's fixed parts, with nothing of any organism's truth among them, nor what only other agents read."""
    dataset = dataset.only(named_by(workspace, [agent]))
    prompts: dict[str, Prompt] = {part: workspace.prompts[f"agent_{part}"] for part in PROMPTS}
    tools = {tool: workspace.tools[tool] for tool in agent.tools}
    return Investigation(
        agent=agent,
        tools=tools,
        prompts={"system": workspace.prompts[agent.prompt], **prompts},
        limits=limits,
        context=Context(BlindPair(pair), blinded([dataset]), ask, seed, embed),
        wire=Wire(caller, tools, prompts, protocol, name),
        lost=lost(agent, dataset),
    )


def investigate(
    job: Investigation,
    saver: BaseCheckpointSaver[str],
    embed: Embedder,
    watch: Callable[[AuditState, dict[str, Any]], None],
) -> Outcome:
    """Walk the graph to a hypothesis, going on from the checkpoint if an earlier run was cut off.

    `watch` is given every state as it comes, with what is to be noted beside it. Raises UsageError if the
    endpoint cannot be used at all; whatever else ends the audit is told in the outcome.
    """
    begun = time.perf_counter()
    graph = build_graph(job, saver)
    config: RunnableConfig = {
        "configurable": {"thread_id": job.wire.purpose},
        "recursion_limit": 40 * job.limits.turns,
    }
    kept = graph.get_state(config)
    state: AuditState = kept.values if kept.values else fresh_state([])  # type: ignore[assignment]
    error: str | None = None
    try:
        if state["hypothesis"] is None:
            given = None if kept.next else fresh_state(job.opening())
            for step in graph.stream(given, config, stream_mode="values"):
                state = step  # type: ignore[assignment]
                watch(state, {})
    except UsageError:
        raise
    except Exception as problem:  # whatever ends an audit, its transcript and the other audits stay
        known = isinstance(problem, AuditorError)
        error = str(problem) if known else f"{type(problem).__name__}: {problem}"
        watch(state, {"error": error} if known else {"error": error, "traceback": traceback.format_exc()})
    if error is None and state["hypothesis"] is None:
        error = "the audit ended without a hypothesis"
    findings = Hypothesis.model_validate(state["findings"]) if state["findings"] else None
    checks = tuple(verify(findings, observations(state["messages"]), embed)) if findings else ()
    if findings:
        watch(state, {"checks": [check.model_dump() for check in checks]})
    return Outcome(state, findings, checks, time.perf_counter() - begun, error)
