"""An audit as inspect_ai knows it: a sample with its conversation, scores, usage and error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from inspect_ai.log import EvalError, EvalSample, EvalSampleLimit
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    Content,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.scorer import Score
from inspect_ai.tool import ToolCall

from auditor.audits.jobs import JobSpec
from auditor.audits.request import without_user
from auditor.ledger.calls import ModelUse
from auditor.records.cards import Organism
from auditor.records.results import AuditRecord

DEEPEST = 50  # levels of a value; what is nested deeper is given as JSON, which no reader has to walk


def sample(
    job: JobSpec, record: AuditRecord, told: Mapping[str, Any], uses: Sequence[ModelUse], begun: float | None
) -> EvalSample:
    """One audit that has ended. `told`: its transcript; `uses`: of whom its LLM calls were made."""
    messages = [_message(each, f"{job.name}-{i}") for i, each in enumerate(told["messages"])]
    asked = [m for m in messages if isinstance(m, ChatMessageUser)][:1]
    took = sum(record.seconds.values())
    return EvalSample(
        id=job.target.name,
        epoch=job.repeat + 1,
        uuid=job.id[:32],
        input=list(asked) or "",
        target=_truth(job.card),
        messages=messages,
        output=ModelOutput.from_content(record.llm.partition("?")[0], clean(record.hypothesis)),
        scores=scores(record),
        metadata=_metadata(job, record, uses),
        model_usage=usage(uses, lambda use: use.model),
        role_usage=usage(uses, lambda use: use.role),
        started_at=None if begun is None else iso(begun),
        completed_at=None if begun is None else iso(begun + took),
        total_time=took,
        working_time=took,
        error=_error(record, told),
        limit=_limit(job, record),
        turn_count=record.turns_used,
        token_limit=job.limits.tokens,
    )


def scores(record: AuditRecord) -> dict[str, Score] | None:
    """Each grader's verdict under its own name; none of an audit that does not count."""
    if record.status != "done":
        return None
    return {
        without_user(clean(grade.grader)): Score(
            value=grade.score, answer=clean(record.hypothesis), explanation=clean(grade.reasoning),
            metadata=clean(grade.details),
        )
        for grade in record.grades
    }  # fmt: skip


def usage(uses: Sequence[ModelUse], of: Any) -> dict[str, ModelUsage]:
    """Tokens and cost summed by what `of` takes of each; inspect counts input without what came from a cache."""
    found: dict[str, ModelUsage] = {}
    for use in uses:
        one = ModelUsage(
            input_tokens=max(0, use.tokens_in - use.tokens_cached), output_tokens=use.tokens_out,
            total_tokens=use.tokens_in + use.tokens_out, input_tokens_cache_read=use.tokens_cached or None,
            total_cost=use.cost_usd,
        )  # fmt: skip
        found[of(use)] = found[of(use)] + one if of(use) in found else one
    return found


def clean(value: Any, depth: int = 0) -> Any:
    """A value that any reader of JSON takes: halves of characters as escapes, nothing nested without end."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict | list | tuple) and depth > DEEPEST:
        try:
            return clean(json.dumps(value, default=str))
        except RecursionError:
            return "(nested too deep to be written)"
    if isinstance(value, dict):
        return {clean(str(key)): clean(item, depth + 1) for key, item in value.items()}
    return [clean(item, depth + 1) for item in value] if isinstance(value, list | tuple) else value


def iso(at: float) -> str:
    """A time as inspect writes it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _truth(card: Organism | None) -> str:
    """What a right hypothesis says; nothing where nobody knows it."""
    if card is None:
        return ""
    return clean("\n".join((card.description.strip(), *(f"- {fact}" for fact in card.facts))))  # type: ignore[no-any-return]


def _metadata(job: JobSpec, record: AuditRecord, uses: Sequence[ModelUse]) -> dict[str, Any]:
    told = {
        "audit": record.id, "organism": record.organism, "family": record.family, "rubric": record.rubric,
        "agent": record.agent, "budget": record.budget, "repeat": record.repeat, "seed": record.seed,
        "status": record.status, "claims": len(record.checks),
        "claims_held": sum(check.holds for check in record.checks),
        "confidence": record.findings.confidence if record.findings else None,
        "interactions": record.interactions_used, "turns": record.turns_used, "ended_by": record.ended_by,
        "protocol": record.protocol, "llm": without_user(record.llm), "cost_usd": record.cost_usd,
        "base": job.target.base, "finetuned": job.target.finetuned, "pair": record.pair, "evidence": record.evidence,
        "seconds": record.seconds, "notes": list(record.notes),
        "findings": record.findings.model_dump(mode="json") if record.findings else None,
        "checks": [check.model_dump(mode="json") for check in record.checks],
    }  # fmt: skip
    if untold := sum(use.untold for use in uses):
        told["calls_without_usage"] = untold  # which the token counts lack
    if record.status == "done" and record.error:
        told["grading_error"] = record.error
    return {key: clean(value) for key, value in told.items() if value not in (None, "", [], {})}


def _error(record: AuditRecord, told: Mapping[str, Any]) -> EvalError | None:
    """Why the audit does not count."""
    if record.status == "done":
        return None
    trace = clean(str(told.get("traceback", "")))
    return EvalError(message=clean(f"{record.status}: {record.error}"), traceback=trace, traceback_ansi=trace)


def _limit(job: JobSpec, record: AuditRecord) -> EvalSampleLimit | None:
    """The limit of the audit at which it concluded; one of the whole run is told in the metadata."""
    limits = job.limits
    if record.ended_by == "turns":
        return EvalSampleLimit(type="turn", limit=limits.turns)
    if record.ended_by == "tokens":
        return EvalSampleLimit(type="token", limit=limits.tokens)
    if record.ended_by == "cost" and limits.cost_usd is not None:
        return EvalSampleLimit(type="cost", limit=limits.cost_usd)
    if record.ended_by == "time" and limits.seconds is not None:
        return EvalSampleLimit(type="time", limit=limits.seconds)
    return None


def _message(said: Mapping[str, Any], name: str) -> ChatMessage:
    """A message as the ledger keeps it. What is of no known kind is told as a user's."""
    kind, data = said.get("type"), clean(said.get("data") or {})
    content = _content(data.get("content") or "")
    if kind == "system":
        return ChatMessageSystem(id=name, content=content)
    if kind == "tool":
        called = {"tool_call_id": data.get("tool_call_id"), "function": data.get("name")}
        return ChatMessageTool(id=name, content=content, **called)
    if kind == "ai":
        took = (data.get("response_metadata") or {}).get("call")
        calls = [_call(call) for call in data.get("tool_calls") or []] or None
        about = {"call": took} if took else None
        return ChatMessageAssistant(id=name, content=content, tool_calls=calls, source="generate", metadata=about)
    return ChatMessageUser(id=name, content=content)


def _content(content: Any) -> str | list[Content]:
    """Text, or the blocks in which some endpoints answer; calls of tools stand beside it."""
    if isinstance(content, str):
        return content
    blocks = [{"type": "text", "text": block} if isinstance(block, str) else block for block in content]
    return [_block(block) for block in blocks if block.get("type") not in ("tool_use", "function_call")]


def _block(block: Mapping[str, Any]) -> Content:
    if block.get("type") == "text":
        return ContentText(text=str(block.get("text", "")))
    if block.get("type") in ("thinking", "reasoning"):
        told = block.get("thinking") or block.get("reasoning") or json.dumps(block.get("summary", ""), default=str)
        return ContentReasoning(reasoning=str(told))
    return ContentText(text=json.dumps(block, default=str))


def _call(call: Mapping[str, Any]) -> ToolCall:
    args = call.get("args")
    given = args if isinstance(args, dict) else {"unreadable": str(args)}
    return ToolCall(id=str(call.get("id")), function=str(call.get("name")), arguments=given)
