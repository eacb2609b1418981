"""One audit: a walk through the graph, everything written down on the way, and what came of it."""

from __future__ import annotations

import json
import sqlite3
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage, message_to_dict
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from auditor.agent.calls import Purse
from auditor.agent.checks import verify
from auditor.agent.graph import Investigation, build_graph
from auditor.agent.hypothesis import observations
from auditor.agent.overview import blinded, lost, seen_by
from auditor.agent.protocol import Wire
from auditor.agent.state import Allowance, AuditState, fresh_state
from auditor.audits.bench import Bench
from auditor.audits.jobs import JobSpec
from auditor.audits.leaks import leaks
from auditor.audits.plan import PROMPTS, offered, tools_of
from auditor.errors import AuditorError, UsageError
from auditor.evidence.mapping import Evidence
from auditor.evidence.recipe import named_by
from auditor.ledger.database import LedgerBroken
from auditor.ledger.ledger import CHECKPOINTS, Ledger
from auditor.models.blind import BlindPair
from auditor.models.kept import Kept
from auditor.models.pair import ModelPair
from auditor.plugins import Context
from auditor.records.cards import Agent
from auditor.records.findings import ClaimCheck, Hypothesis
from auditor.records.results import AuditRecord, TokenUse


@dataclass(frozen=True, slots=True)
class Desk:
    """Where an audit is written down as it goes, and what it may still take of its run's limits."""

    ledger: Ledger
    saver: BaseCheckpointSaver[str]
    allowance: Callable[[], Allowance] = Allowance


@dataclass(frozen=True, slots=True)
class Material:
    """What an agent has of a pair: the readings of the lenses that it names, and why it cannot be judged by them."""

    evidence: Evidence
    lost: str = ""


def material_for(agent: Agent, bench: Bench, evidence: Evidence) -> Material:
    """What `agent` has of `evidence`: nothing that only other agents name."""
    evidence = evidence.only(named_by(bench.workspace, [agent]))
    return Material(evidence, lost(agent, evidence))


def audit(job: JobSpec, bench: Bench, pair: ModelPair, material: Material, desk: Desk) -> AuditRecord:
    """Walk the graph to a hypothesis, going on from where an earlier walk was cut off.

    Raises UsageError if the endpoint cannot be used at all; whatever else ends the audit is told in the record.
    """
    evidence = material.evidence
    purse = Purse(desk.ledger.spends, Kept(job.name, desk.ledger.answers))
    made = investigation(job, bench, pair, material, purse, desk.allowance, partial(_note, job, desk))
    begun = time.perf_counter()
    state, error = _walk(made, job, desk)
    if error is None and state["hypothesis"] is None:
        error = "the audit ended without a hypothesis"
    findings = Hypothesis.model_validate(state["findings"]) if state["findings"] else None
    checks = _checked(findings, made, state, bench) if findings else ()
    if findings:
        _say(desk, job, state, {"checks": [check.model_dump() for check in checks]})
    desk.ledger.transcripts.ended(job.name)
    # The passages stay with the transcript: ten thousand records are to be read in a breath.
    light = tuple(check.model_copy(update={"passages": ()}) for check in checks)
    record = _record(job, state, findings, light, desk.ledger, error, made.wire.caller.no_tools)
    constant = [prompt.source for prompt in made.prompts.values()] + [
        json.dumps(t.schema()) for t in made.tools.values()
    ]
    status, reason = _standing(job, record, evidence, state, constant)
    return record.model_copy(
        update={
            "status": status,
            "error": reason or error,
            "pair": pair.fingerprint,
            "sources": dict(evidence.sources),
            "evidence": dict(evidence.kept_under),
            "lens_seconds": round(sum(evidence.costs[lens].seconds for lens in evidence if lens in evidence.costs), 2),
            "seconds": {"agent": round(time.perf_counter() - begun, 2)},
        }
    )


def _checked(findings: Hypothesis, made: Investigation, state: AuditState, bench: Bench) -> tuple[ClaimCheck, ...]:
    sections = {seen.id: seen.section for seen in seen_by(made.agent, made.context.datasets) if seen.id}
    return tuple(verify(findings, observations(state["messages"]), bench.embed, sections))


def investigation(
    job: JobSpec,
    bench: Bench,
    pair: ModelPair,
    material: Material,
    purse: Purse,
    allowance: Callable[[], Allowance] = Allowance,
    say: Callable[[str], None] = lambda _line: None,
) -> Investigation:
    """An audit's fixed parts, with nothing of any organism's truth among them."""
    ws = bench.workspace
    prompts = {part: ws.prompts[f"agent_{part}"] for part in PROMPTS}
    tools = tools_of(ws, job.agent)
    return Investigation(
        agent=job.agent,
        tools=tools,
        prompts={"system": ws.prompts[job.agent.prompt], **prompts},
        limits=job.limits,
        context=Context(BlindPair(pair, purse.kept), blinded([material.evidence]), job.ask, job.seed, bench.embed),
        wire=Wire(bench.caller(job.llm), offered(tools, job.limits.interactions), prompts, job.protocol, job.name, say),
        purse=purse,
        allowance=allowance,
        lost=material.lost,
    )


def _note(job: JobSpec, desk: Desk, line: str) -> None:
    desk.ledger.events.tell("note", target=job.llm.partition("?")[0], text=line)


def _walk(made: Investigation, job: JobSpec, desk: Desk) -> tuple[AuditState, str | None]:
    """The last state, and what ended the walk before its end, if something did."""
    graph = build_graph(made, desk.saver)
    config: RunnableConfig = {"configurable": {"thread_id": job.id}, "recursion_limit": 40 * made.limits.turns}
    state = fresh_state([])
    try:
        kept = graph.get_state(config)
        state = {**state, **kept.values}  # type: ignore[typeddict-item]
        if state["hypothesis"] is None:
            # Any checkpoint is gone on from, also where all that is left are writes that no checkpoint has yet.
            given = fresh_state(made.opening()) if kept.created_at is None else None
            for step in graph.stream(given, config, stream_mode="values", durability="sync"):
                state = {**state, **step}  # type: ignore[typeddict-item]  # the first step of a resumed walk may lack parts
                _say(desk, job, state, {})
    except UsageError:
        raise
    except sqlite3.Error as problem:  # of the checkpoints
        raise LedgerBroken(
            desk.ledger.folder / CHECKPOINTS, f"cannot be used ({problem}); --resume goes on"
        ) from problem
    except Exception as problem:  # whatever ends an audit, its transcript and the other audits stay
        known = isinstance(problem, AuditorError)
        error = str(problem) if known else f"{type(problem).__name__}: {problem}"
        _say(desk, job, state, {"error": error} if known else {"error": error, "traceback": traceback.format_exc()})
        return state, error
    return state, None


def _say(desk: Desk, job: JobSpec, state: AuditState, more: dict[str, Any]) -> None:
    spent = {key: state[key] for key in ("turns", "interactions", "tokens_in", "tokens_out", "cost_usd")}
    about = {"agent": job.agent.name, "budget": job.budget, "repeat": job.repeat, "llm": job.llm,
             "spent": spent, "hypothesis": state["hypothesis"], "findings": state["findings"], **more}  # fmt: skip
    desk.ledger.transcripts.say(job.name, [_said(message) for message in state["messages"]], about, **spent)


def _said(message: BaseMessage) -> dict[str, Any]:
    """Without the data of a tool's result, which its text tells."""
    result = isinstance(message, ToolMessage)
    return message_to_dict(message.model_copy(update={"artifact": None}) if result else message)


def _record(
    job: JobSpec,
    state: AuditState,
    findings: Hypothesis | None,
    checks: tuple[ClaimCheck, ...],
    ledger: Ledger,
    error: str | None,
    no_tools: str,
) -> AuditRecord:
    protocols = [m.response_metadata["call"]["protocol"] for m in state["messages"] if "call" in m.response_metadata]
    again = ledger.spends.begun_again(job.name)
    in_words = "text" in protocols and no_tools
    cut_off = f"{again} interactions were in flight when the run was cut off: spent once, asked anew"
    return AuditRecord(
        **identity(job),
        status="failed" if error else "done",
        hypothesis=state["hypothesis"] or "",
        findings=findings,
        checks=checks,
        interactions_used=state["interactions"],
        turns_used=state["turns"],
        tokens=TokenUse(input=state["tokens_in"], output=state["tokens_out"]),
        cost_usd=state["cost_usd"],
        protocol=protocols[-1] if protocols else "",
        ended_by=state["ended_by"],
        notes=(*((cut_off,) if again else ()), *((f"calls were text: {no_tools}",) if in_words else ())),
    )


def _standing(
    job: JobSpec, record: AuditRecord, evidence: Evidence, state: AuditState, constant: Sequence[str]
) -> tuple[str, str | None]:
    """Whether the audit counts, and if not, why."""
    if record.status != "done":
        return record.status, None
    sent = [message for message in state["messages"] if message.type != "ai"]
    if job.card is not None and (found := leaks(job.card, job.target, sent, constant)):
        return "leaked", f"the agent was sent what tells the truth: {'; '.join(found)}"
    shown = any(lens in evidence for lens in job.agent.overview)
    if not shown and not any(isinstance(m, ToolMessage) and m.artifact is not None for m in sent):
        return "invalid", "the agent saw nothing of the models: no lens was shown, and no tool answered"
    return "done", None


def identity(job: JobSpec) -> dict[str, Any]:
    """What a record says of its job."""
    card = job.card
    return {
        "id": job.name,
        "organism": job.target.name,
        "family": card.family if card else "",
        "base": (job.target.base or "").rstrip("/").rpartition("/")[2],
        "rubric": card.grading if card else "",
        "agent": job.agent.name,
        "budget": job.budget,
        "repeat": job.repeat,
        "llm": job.llm,
        "seed": job.seed,
    }


def failed(job: JobSpec, reason: str) -> AuditRecord:
    """The record of an audit that came to nothing."""
    return AuditRecord(**identity(job), status="failed", error=reason)
