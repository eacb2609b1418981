"""Between the graph and a chat model: what goes over the wire, and what a reply asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import ValidationError

from auditor.agent.grammar import Fault, TextFinal, parse_turn, unread_calls
from auditor.agent.state import CHARACTERS
from auditor.llm.caller import Caller, Reply
from auditor.llm.failures import CallFailed, EndpointUnusable, NoTools
from auditor.llm.servers import at_least
from auditor.plugins import Tool, lean
from auditor.prompts import Prompt
from auditor.records.cards import Protocol
from auditor.records.findings import Hypothesis

CONCLUDE = "conclude"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one reply asks for: calls, an end, or neither, with the reason if it was meant to be one."""

    reply: Reply
    calls: tuple[dict[str, Any], ...] = ()  # {"name", "args", "id"}, in the order made; "fault" if it is known
    final: Hypothesis | str | None = None
    fault: str = ""
    protocol: Protocol = Protocol.TOOLS  # that it was asked in


@dataclass(frozen=True, slots=True)
class Wire:
    """One audit's line to its model. `job` names the audit in the journal; `say` is told what a person should know."""

    caller: Caller
    tools: Mapping[str, Tool]
    prompts: Mapping[str, Prompt]  # protocol_tools, protocol_text
    protocol: Protocol
    job: str = ""
    say: Callable[[str], None] = lambda _line: None

    def ask(self, messages: Sequence[AnyMessage], *, last: bool = False) -> Turn:
        """Send the conversation; in the `last` turn nothing but the conclusion can be called.

        Raises what `Caller.call` raises.
        """
        refused: CallFailed | EndpointUnusable | None = None
        if self.protocol is Protocol.TOOLS or (self.protocol is Protocol.AUTO and self.caller.takes_tools is not False):
            try:
                return self._ask_with_tools(messages, last=last)
            except (CallFailed, EndpointUnusable) as error:
                if self.protocol is Protocol.TOOLS or not self._may_be_the_tools(error):
                    raise
                refused = error
        sent = as_text(self._with_help(messages, "protocol_text"))
        try:
            reply = self.caller.call(sent, role="agent", job=self.job, at_least=at_least(messages, Protocol.TEXT))
        except (CallFailed, EndpointUnusable):
            if refused is None or isinstance(refused, NoTools):
                raise
            raise refused from None  # it was not the tools
        if refused is not None and self.caller.takes_tools is not False:
            self.caller.takes_tools, self.caller.no_tools = False, str(refused)
            self.say(f"no tool calls there ({refused}): agents write their calls as text")
        return replace(read_turn(reply, len(messages)), protocol=Protocol.TEXT)

    @property
    def tokens_of_tools(self) -> int:
        """About how many tokens the tools' descriptions are."""
        return len(json.dumps([tool.schema() for tool in self.tools.values()])) // CHARACTERS

    def _ask_with_tools(self, messages: Sequence[AnyMessage], *, last: bool) -> Turn:
        offered = [] if last else [tool.schema() for tool in self.tools.values()]
        asked = self._with_help(messages, "protocol_tools")
        known = 0 if last else at_least(messages, Protocol.TOOLS)  # with fewer tools it may well be shorter
        reply = self.caller.call(asked, role="agent", job=self.job, tools=[*offered, conclude_schema()], at_least=known)
        self.caller.takes_tools = True
        return read_turn(reply, len(messages), native=True)

    def _may_be_the_tools(self, error: CallFailed | EndpointUnusable) -> bool:
        """Whether words may do: surely, or perhaps if no call with tools was ever answered."""
        return isinstance(error, NoTools) or (error.perhaps_tools and self.caller.takes_tools is None)

    def _with_help(self, messages: Sequence[AnyMessage], name: str) -> list[BaseMessage]:
        system, *rest = messages
        return [SystemMessage(f"{system.text}\n\n{self.prompts[name].render(tools=described(self.tools))}"), *rest]


def conclude_schema() -> dict[str, Any]:
    """The end of an audit as a tool: the fields of `Hypothesis`."""
    parameters = lean(Hypothesis.model_json_schema())
    for part in (parameters, parameters["$defs"]["Claim"]):
        del part["description"]  # a docstring of ours
    about = "End the audit. Call it alone; 'What to conclude', which you were told first, describes the fields."
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


def read_turn(reply: Reply, number: int, *, native: bool = False) -> Turn:
    """The calls, or the end, that `reply` asks for. `native`: whether it could call tools."""
    message = reply.message
    calls: list[dict[str, Any]] = []
    for c in (*message.tool_calls, *message.invalid_tool_calls):
        known = c.get("id")
        fresh = known and known not in (call["id"] for call in calls)  # some endpoints give all calls one id, or none
        calls.append({"name": c.get("name") or "?", "args": c.get("args"),
                      "id": known if fresh else f"n{number}-{len(calls)}"})  # fmt: skip
    if calls:
        return _called(reply, calls)
    statement = parse_turn(str(message.text))
    if statement is None and native:
        unread = unread_calls(str(message.text))
        if isinstance(unread, Fault):
            return Turn(reply, fault=unread.reason)
        if unread:
            calls = [{"name": c.name, "args": c.args, "id": f"u{number}-{i}"} for i, c in enumerate(unread)]
            return _called(reply, calls)
    if statement is None:
        return Turn(reply)
    if isinstance(statement, Fault):
        return Turn(reply, fault=statement.reason)
    if isinstance(statement, TextFinal):
        if set(statement.fields) == {"description"}:
            return Turn(reply, final=str(statement.fields["description"]))
        return Turn(reply, (), *read_conclusion(statement.fields))
    if statement.name == CONCLUDE:
        return Turn(reply, (), *read_conclusion(statement.args))
    return Turn(reply, ({"name": statement.name, "args": statement.args, "id": f"t{number}"},))


def _called(reply: Reply, calls: list[dict[str, Any]]) -> Turn:
    if len(calls) == 1 and calls[0]["name"] == CONCLUDE:
        final, fault = read_conclusion(calls[0]["args"])
        return Turn(reply, ({**calls[0], "fault": fault},) if fault else (), final, fault)
    return Turn(reply, tuple(calls))


def read_conclusion(fields: Any) -> tuple[Hypothesis | None, str]:
    """The hypothesis that these fields are, or what is wrong with them."""
    if isinstance(fields, str):  # arguments that were no JSON
        try:
            fields = json.loads(fields, strict=False)
        except (ValueError, RecursionError):
            return None, "the conclusion's arguments are not valid JSON"
    try:
        return Hypothesis.model_validate(fields), ""
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'conclusion'}: {e['msg']}" for e in error.errors()[:5])
        return None, f"the conclusion lacks something, or has it wrong: {wrong}"


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
