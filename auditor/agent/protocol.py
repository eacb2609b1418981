"""Between the graph and a chat model: what goes over the wire, and what a reply asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import ValidationError

from auditor.agent.grammar import Fault, TextFinal, parse_turn
from auditor.llm.caller import Caller, Reply
from auditor.llm.failures import CallFailed
from auditor.plugins import Tool, lean
from auditor.prompts import Prompt
from auditor.types import Hypothesis, Protocol

CONCLUDE = "conclude"
_NO_TOOLS = re.compile(r"HTTP (400|404|405|422|501).*\b(tool|function)", re.I | re.S)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one reply asks for: calls, an end, or neither, with the reason if it was meant to be one."""

    reply: Reply
    calls: tuple[dict[str, Any], ...] = ()  # {"name", "args", "id"}, in the order made; "fault" if it is known
    final: Hypothesis | str | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Wire:
    """One audit's line to its model. `purpose` names the audit in the journal."""

    caller: Caller
    tools: Mapping[str, Tool]
    prompts: Mapping[str, Prompt]  # protocol_tools, protocol_text
    protocol: Protocol
    purpose: str = "agent"
    _state: dict[str, bool] = field(default_factory=dict)  # {"text": True} once the endpoint refused tools

    def ask(self, messages: Sequence[AnyMessage], *, last: bool = False) -> Turn:
        """Send the conversation; in the `last` turn nothing but the conclusion can be called.

        Raises what `Caller.call` raises.
        """
        if self.protocol is not Protocol.TEXT and not self._state.get("text"):
            offered = [] if last else [tool.schema() for tool in self.tools.values()]
            try:
                reply = self.caller.call(
                    self._with_help(messages, "protocol_tools"),
                    purpose=self.purpose,
                    tools=[*offered, conclude_schema()],
                )
                return read_turn(reply, len(messages))
            except CallFailed as error:
                if self.protocol is Protocol.TOOLS or not _NO_TOOLS.search(str(error)):
                    raise
                self._state["text"] = True
        sent = as_text(self._with_help(messages, "protocol_text"))
        return read_turn(self.caller.call(sent, purpose=self.purpose), len(messages))

    def _with_help(self, messages: Sequence[AnyMessage], name: str) -> list[BaseMessage]:
        system, *rest = messages
        return [SystemMessage(f"{system.text}\n\n{self.prompts[name].render(tools=described(self.tools))}"), *rest]


def conclude_schema() -> dict[str, Any]:
    """The end of an audit as a tool: the fields of `Hypothesis`."""
    parameters = lean(Hypothesis.model_json_schema())
    for part in (parameters, parameters["$defs"]["Claim"]):
        del part["description"]  # a docstring of ours
    about = "End the audit. Call it alone; the system prompt describes the fields."
    return {"type": "function", "function": {"name": CONCLUDE, "description": about, "parameters": parameters}}


def described(tools: Mapping[str, Tool]) -> str:
    """Each tool's docstring and arguments, for models that are not sent schemas."""
    lines = []
    for tool in tools.values():
        schema = tool.args.model_json_schema()
        needed = schema.get("required", [])
        lines.append(f"### {tool.name}\n{tool.description}\nArguments:")
        lines += [
            f"- {name}{'' if name in needed else ' (optional)'}: {_kind(about)}{_told(about)}"
            for name, about in schema.get("properties", {}).items()
        ] or ["- none"]
    return "\n".join(lines)


def read_turn(reply: Reply, number: int) -> Turn:
    """The calls, or the end, that `reply` asks for."""
    message = reply.message
    calls: list[dict[str, Any]] = [{"name": c["name"], "args": c["args"], "id": c["id"] or f"n{number}-{i}"}
             for i, c in enumerate(message.tool_calls)]  # fmt: skip
    calls += [{"name": c.get("name") or "?", "args": c.get("args"), "id": c.get("id") or f"b{number}-{i}"}
              for i, c in enumerate(message.invalid_tool_calls)]  # fmt: skip
    if calls:
        if len(calls) == 1 and calls[0]["name"] == CONCLUDE:
            final, fault = _hypothesis(calls[0]["args"])
            return Turn(reply, ({**calls[0], "fault": fault},) if fault else (), final, fault)
        return Turn(reply, tuple(calls))
    statement = parse_turn(str(message.text))
    if statement is None:
        return Turn(reply)
    if isinstance(statement, Fault):
        return Turn(reply, fault=statement.reason)
    if isinstance(statement, TextFinal):
        if set(statement.fields) == {"description"}:
            return Turn(reply, final=str(statement.fields["description"]))
        return Turn(reply, (), *_hypothesis(statement.fields))
    if statement.name == CONCLUDE:
        return Turn(reply, (), *_hypothesis(statement.args))
    return Turn(reply, ({"name": statement.name, "args": statement.args, "id": f"t{number}"},))


def _hypothesis(fields: Any) -> tuple[Hypothesis | None, str]:
    if isinstance(fields, str):  # arguments that were no JSON
        try:
            fields = json.loads(fields, strict=False)
        except (ValueError, RecursionError):
            return None, "the conclusion's arguments are not valid JSON"
    try:
        return Hypothesis.model_validate(fields), ""
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'conclusion'}: {e['msg']}" for e in error.errors()[:5])
        return None, f"the conclusion is not complete: {wrong}"


def as_text(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The conversation for a model without tool calling: results are told by the user, roles alternate."""
    sent: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            message = HumanMessage(f"Result of {message.name}: {message.text}")
        elif isinstance(message, AIMessage):
            said = str(message.text).strip()
            if parse_turn(said) is None:  # a native call, made before the endpoint refused tools
                said = "\n".join([said, *(f"CALL({c['name']}: {json.dumps(c['args'])})" for c in message.tool_calls)])
            message = AIMessage(said.strip() or "(nothing)")
        if sent and isinstance(message, HumanMessage) and isinstance(sent[-1], HumanMessage):
            sent[-1] = HumanMessage(f"{sent[-1].text}\n\n{message.text}")
        else:
            sent.append(message)
    return sent


def _kind(about: dict[str, Any]) -> str:
    if "anyOf" in about:
        return " or ".join(_kind(option) for option in about["anyOf"])
    inner = f" of {_kind(about['items'])}" if about.get("type") == "array" and "items" in about else ""
    return f"{about.get('type', 'any')}{inner}"


def _told(about: dict[str, Any]) -> str:
    limits = [f"{word} {about[key]}" for key, word in (("minimum", "at least"), ("maximum", "at most")) if key in about]
    default = [f"default {json.dumps(about['default'])}"] if "default" in about else []
    return "".join(f"; {part}" for part in [about.get("description"), *limits, *default] if part)
