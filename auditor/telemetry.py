"""OpenTelemetry spans of audits, turns, tools, LLM calls and model calls (extra `otel`), as the GenAI conventions name
things: numbers and ids. Texts and errors' messages only if `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` asks.

Spans go wherever the process' tracer provider sends them; `start` sets one up if the standard variables name an
exporter. Without either nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auditor.audits.jobs import JobSpec
    from auditor.llm.caller import Reply
    from auditor.llm.journal import Asked
    from auditor.llm.spec import ModelSpec
    from auditor.models.generate import Request
    from auditor.records.results import AuditRecord

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
ADDRESSES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
OURS = "auditor"  # of attributes that no convention names, and the provider of models in this process
LONGEST = 128  # characters of an id that somebody else gave
# What the conventions call a provider, where LangChain calls it otherwise.
_PROVIDERS = {
    "azure_openai": "azure.ai.openai", "azure_ai": "azure.ai.inference", "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai", "bedrock": "aws.bedrock", "bedrock_converse": "aws.bedrock",
    "mistralai": "mistral_ai", "xai": "x_ai", "ibm": "ibm.watsonx.ai",
}  # fmt: skip


class Mark:
    """A span that is under way; without one, nothing happens."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Add what is known by now; None is not."""
        if self._span is not None:
            self._span.set_attributes({key: value for key, value in attributes.items() if value is not None})

    def fail(self, kind: str, message: str = "") -> None:
        """What it stands for went wrong. `kind` is no text of anybody's; the message is kept back unless asked for."""
        if self._span is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute("error.type", kind)
            self._span.set_status(Status(StatusCode.ERROR, message if captures() and message else kind))


NOTHING = Mark()


def captures() -> bool:
    """Whether texts are asked for."""
    return os.environ.get(CAPTURE, "").strip().lower() in ("true", "span_only", "span_and_event")


def start() -> str:
    """Send spans where the standard variables say, if they do and nobody else has set it up. Returns why not, if that
    is amiss; nothing is raised over it.
    """
    names = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "").split(",")]
    asked = any(os.environ.get(address) for address in ADDRESSES) if names == [""] else names != ["none"]
    if not asked or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or _provider() is not None:
        return ""
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import set_tracer_provider
    except ImportError:
        return "OTEL_* asks for spans, which need OpenTelemetry: pip install 'auditor-adl[otel]'"
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    try:
        exporters = [_exporter(name or "otlp") for name in names]
        provider = TracerProvider(resource=Resource.create({} if named else {"service.name": OURS}))
    except Exception as error:  # of an exporter, or of what a variable says
        return f"OTEL_* asks for spans, which cannot be sent: {error}"
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    set_tracer_provider(provider)
    return ""


def _exporter(name: str) -> Any:
    """What an OTEL_TRACES_EXPORTER names, found as OpenTelemetry's own launcher finds it."""
    from importlib.metadata import entry_points

    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    for entry in entry_points(group="opentelemetry_traces_exporter", name=name):
        return entry.load()()
    raise LookupError(f"no exporter called {name} is installed")


def flush() -> None:
    """Send what has ended, before a process that may be killed is left to itself."""
    if (provider := _provider()) is not None:
        getattr(provider, "force_flush", bool)()


def _provider() -> Any:
    """Whatever spans go to in this process; None if there is nothing."""
    trace = sys.modules.get("opentelemetry.trace")
    found = None if trace is None else trace.get_tracer_provider()
    return None if trace is None or isinstance(found, trace.ProxyTracerProvider | trace.NoOpTracerProvider) else found


def span(name: str, attributes: Mapping[str, Any], *, client: bool = False) -> AbstractContextManager[Mark]:
    """What is done in the block, under the span that is under way. `client`: somebody outside does it."""
    provider = _provider()
    return nullcontext(NOTHING) if provider is None else _spanned(provider, name, attributes, client=client)


@contextmanager
def _spanned(provider: Any, name: str, attributes: Mapping[str, Any], *, client: bool) -> Iterator[Mark]:
    from opentelemetry.trace import SpanKind

    tracer = provider.get_tracer(OURS)
    given = {key: value for key, value in attributes.items() if value is not None}
    kind = SpanKind.CLIENT if client else SpanKind.INTERNAL
    quiet = {"record_exception": False, "set_status_on_exception": False}  # an error's message may hold audited text
    with tracer.start_as_current_span(name, kind=kind, attributes=given, **quiet) as started:
        mark = Mark(started)
        try:
            yield mark
        except BaseException as error:
            mark.fail(type(error).__qualname__, str(error))
            raise


def audit(job: JobSpec) -> AbstractContextManager[Mark]:
    """One audit, with its grading."""
    return span(f"invoke_agent {job.agent.name}", {
        "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": job.agent.name,
        "gen_ai.conversation.id": job.name, "gen_ai.request.model": job.llm.partition("?")[0],
        "auditor.audit.id": job.id, "auditor.organism": job.target.name,
        "auditor.budget": job.budget, "auditor.repeat": job.repeat, "auditor.seed": str(job.seed),
    })  # fmt: skip


def came_to(mark: Mark, record: AuditRecord) -> None:
    """How the audit ended, and what it took."""
    mark.set({
        "auditor.status": record.status, "auditor.turns": record.turns_used,
        "auditor.interactions": record.interactions_used, "auditor.ended_by": record.ended_by or None,
        "gen_ai.usage.input_tokens": record.tokens.input, "gen_ai.usage.output_tokens": record.tokens.output,
        "auditor.cost_usd": record.cost_usd,
    })  # fmt: skip
    if record.status != "done":
        mark.fail(record.status, record.error or "")


def turn(number: int, *, last: bool) -> AbstractContextManager[Mark]:
    """The agent's model is asked, once or again."""
    return span("turn", {"auditor.turn": number, "auditor.concluding": last})


def tool(name: str, call: Mapping[str, Any], *, known: bool) -> AbstractContextManager[Mark]:
    """A tool is run; one that there is not is called by no name of the agent's."""
    return span(f"execute_tool {name}", {
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name if known else None,
        "gen_ai.tool.type": "function", "gen_ai.tool.call.id": str(call["id"])[:LONGEST],
        "gen_ai.tool.call.arguments": json.dumps(call["args"], default=str) if captures() else None,
    })  # fmt: skip


def answered(mark: Mark, text: str, cost: int, *, came: bool) -> None:
    """What the tool gave, and what was charged for it."""
    mark.set({"auditor.interactions": cost, "gen_ai.tool.call.result": text if captures() else None})
    if not came:
        mark.fail("no_result", text)


def judgement(grader: str) -> AbstractContextManager[Mark]:
    """A grader reads a hypothesis."""
    name = grader.partition("?")[0]  # of a later judge's label, not where it is reached
    return span(f"grade {name}", {"gen_ai.evaluation.name": name})


def llm_call(asked: Asked, spec: ModelSpec | None) -> AbstractContextManager[Mark]:
    """A chat model is asked, with all attempts."""
    provider, colon, model = asked.model.partition(":")
    sent = _messages([message for message in asked.sent if message["type"] != "system"]) if captures() else None
    return span(f"chat {model or provider}", {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _PROVIDERS.get(provider, provider) if spec is not None and colon else OURS,
        "gen_ai.request.model": model or provider, "gen_ai.conversation.id": asked.job or None,
        "gen_ai.request.temperature": spec and spec.temperature, "gen_ai.request.max_tokens": spec and spec.max_tokens,
        "auditor.role": asked.role, "auditor.repeat": asked.repeat, **_address(spec),
        "gen_ai.input.messages": sent,
        "gen_ai.system_instructions": _instructions(asked) if captures() else None,
    }, client=spec is not None)  # fmt: skip


def replied(mark: Mark, reply: Reply, *, replayed: bool) -> None:
    """What the chat model's answer took. `replayed`: an earlier answer, which is not paid for again."""
    told = reply.message.response_metadata
    reason = told.get("finish_reason") or told.get("stop_reason")
    said = [{"type": "ai", "data": {"content": reply.message.content, "tool_calls": reply.message.tool_calls}}]
    mark.set({
        "gen_ai.usage.input_tokens": reply.tokens_in, "gen_ai.usage.output_tokens": reply.tokens_out,
        "gen_ai.usage.cache_read.input_tokens": reply.tokens_cached, "auditor.cost_usd": reply.cost_usd,
        "gen_ai.response.finish_reasons": [str(reason)[:LONGEST]] if reason else None,
        "gen_ai.response.model": _id(told.get("model_name")), "gen_ai.response.id": _id(told.get("id")),
        "auditor.attempts": reply.attempts, "auditor.replayed": replayed,
        "gen_ai.output.messages": _messages(said) if captures() else None,
    })  # fmt: skip


def model_call(what: str, pair: str, requests: Sequence[Request] = ()) -> AbstractContextManager[Mark]:
    """The audited models are asked, by something that has a span; whatever thread they run in."""
    if _provider() is None or not _under_way():
        return nullcontext(NOTHING)
    operation = what if not requests else "chat" if any(each.chat for each in requests) else "text_completion"
    asked = [{"role": "user", "parts": [{"type": "text", "content": each.prompt}]} for each in requests]
    return span(f"{operation} {pair}", {
        "gen_ai.operation.name": operation, "gen_ai.provider.name": OURS, "gen_ai.request.model": pair,
        "auditor.call": what, "auditor.texts": len(requests) or None,
        "auditor.sides": sorted({each.side.value for each in requests}) or None,
        "gen_ai.request.max_tokens": max((each.max_new_tokens for each in requests), default=None),
        "gen_ai.input.messages": json.dumps(asked) if captures() and asked else None,
    })  # fmt: skip


def texts(mark: Mark, said: Any) -> None:
    """What the audited models said, if texts are asked for."""
    if captures():
        found = [getattr(each, "text", each) for each in said]
        told = [{"role": "assistant", "parts": [{"type": "text", "content": text}]} for text in found]
        mark.set({"gen_ai.output.messages": json.dumps(told)})


def _under_way() -> bool:
    from opentelemetry.trace import get_current_span

    return bool(get_current_span().get_span_context().is_valid)


def _address(spec: ModelSpec | None) -> dict[str, Any]:
    from urllib.parse import urlsplit

    if spec is None or not spec.address:
        return {}
    url = urlsplit(spec.address)
    return {"server.address": url.hostname, "server.port": url.port or (443 if url.scheme == "https" else 80)}


def _id(value: Any) -> str | None:
    return str(value)[:LONGEST] if value else None


def _instructions(asked: Asked) -> str:
    return json.dumps([{"type": "text", "content": _text(message)} for message in asked.sent
                       if message["type"] == "system"])  # fmt: skip


def _text(message: Mapping[str, Any]) -> str:
    content = message["data"].get("content", "")
    return content if isinstance(content, str) else json.dumps(content, default=str)


def _messages(messages: Sequence[Mapping[str, Any]]) -> str:
    """As the conventions write a conversation."""
    roles = {"ai": "assistant", "tool": "tool"}
    told = []
    for message in messages:
        data, text = message["data"], _text(message)
        if message["type"] == "tool":
            parts = [{"type": "tool_call_response", "id": data.get("tool_call_id"), "result": text}]
        else:
            parts = [{"type": "text", "content": text}] if text else []
            calls = data.get("tool_calls") or []
            parts += [{"type": "tool_call", "id": c.get("id"), "name": c.get("name"), "arguments": c.get("args")}
                      for c in calls]  # fmt: skip
        told.append({"role": roles.get(message["type"], "user"), "parts": parts})
    return json.dumps(told, default=str)
