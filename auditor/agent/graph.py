"""The audit as a LangGraph state machine: START → think → one node per tool → think … → conclude → END."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.graph.state import CompiledStateGraph

from auditor import telemetry
from auditor.agent.calls import Purse, answer_call
from auditor.agent.grammar import UNREAD
from auditor.agent.hypothesis import render
from auditor.agent.overview import has_base, render_overview, sees_lens
from auditor.agent.protocol import Turn, Wire
from auditor.agent.records import with_records
from auditor.agent.state import Allowance, AuditState, fresh_state, left, length, next_turn, reached
from auditor.errors import AuditorError
from auditor.llm.caller import flaw
from auditor.llm.failures import CallFailed
from auditor.llm.servers import LONGER
from auditor.llm.spec import OFFLINE
from auditor.plugins import Context, Tool
from auditor.prompts import Prompt
from auditor.records.cards import Agent, Limits
from auditor.records.findings import Hypothesis


class Node(Protocol):
    """A step of the graph: reads the state, returns what changes."""

    def __call__(self, state: AuditState) -> dict[str, Any]: ...


UNKNOWN = "unknown_tool"


@dataclass(frozen=True, slots=True)
class Investigation:
    """One audit's fixed parts: who investigates, with what, at what price."""

    agent: Agent
    tools: Mapping[str, Tool]
    prompts: Mapping[str, Prompt]  # system, rules, overview, nudge, conclude, status
    limits: Limits
    context: Context
    wire: Wire
    purse: Purse = field(default_factory=Purse)
    allowance: Callable[[], Allowance] = Allowance  # what the whole run may still take
    lost: str = ""  # what was not read of what the agent is to be shown, where it cannot do without

    def opening(self) -> list[AnyMessage]:
        """System prompt, with the rules that hold for every agent, and overview. Raises AuditorError if it is lost."""
        if self.lost:
            raise AuditorError(self.lost)
        limits = self.limits
        system = self.prompts["system"].render(
            interactions=limits.interactions, turns=limits.turns, tokens=limits.tokens, lens=sees_lens(self.agent),
            base=has_base(self.context.datasets), images=self.context.pair.images,
        )  # fmt: skip
        overview = render_overview(self.prompts["overview"], self.agent, self.context.datasets)
        told = f"{system}\n\n{self.prompts['rules'].render()}"
        first = length([SystemMessage(told), HumanMessage(overview)]) + self.wire.tokens_of_tools
        return [SystemMessage(told), HumanMessage(f"{overview}\n\n{self.status(fresh_state([]), first)}")]

    def told(self, state: AuditState) -> list[AnyMessage]:
        """The conversation as the agent reads it; an offline one is given the records beside the messages."""
        messages = state["messages"]
        if self.wire.caller.name != OFFLINE:
            return messages
        free = [name for name, tool in self.tools.items() if tool.free]
        return with_records(messages, self.agent, self.context.datasets, left(state, self.limits), free)

    def status(self, state: AuditState, turn: int = 0) -> str:
        """What is left, and about how many tokens the next turn takes; `turn`: where no turn has told."""
        return self.prompts["status"].render(**left(state, self.limits), next_turn=turn or next_turn(state))


def think(job: Investigation) -> Node:
    """Let the model read everything and answer with tool calls or a conclusion."""

    def node(state: AuditState) -> dict[str, Any]:
        with telemetry.turn(state["turns"] + 1, last=False):
            turn = job.wire.ask(job.told(state))
        update = {**_spent(job, state, turn), "turns": state["turns"] + 1}
        if turn.final is not None:
            return {**update, **_concluded(turn.final)}
        if turn.calls:
            return {**update, "pending": list(turn.calls)}
        told: AuditState = {**state, **update}  # type: ignore[typeddict-item]
        if _silent([*state["messages"], turn.reply.message]) == 3 and not flaw(turn.reply.message):
            raise CallFailed(_NOTHING)
        flawed = flaw(turn.reply.message) or ("" if turn.reply.message.text.strip() else "empty")
        fault = turn.fault or (f"it was {flawed}" if flawed else "")
        nudge = HumanMessage(f"{job.prompts['nudge'].render(fault=fault)}\n{job.status(told)}")
        return {**update, "messages": [*update["messages"], nudge]}

    return node


def _spent(job: Investigation, state: AuditState, turn: Turn) -> dict[str, Any]:
    """The message, with what it took beside it, and the sums so far.

    An endpoint that tells no usage must not lift the limit: what it was sent is counted by its length, apart.
    """
    reply = turn.reply
    guessed = 0 if reply.tokens_in or job.wire.caller.name == OFFLINE else length(state["messages"])
    took = {
        "protocol": turn.protocol.value,
        "attempts": reply.attempts,
        "seconds": round(reply.seconds, 3),
        "tokens": [reply.tokens_in, reply.tokens_out],
        "cached": reply.tokens_cached,
        "cost_usd": reply.cost_usd,
    }
    message = reply.message.model_copy(
        update={
            "response_metadata": {**reply.message.response_metadata, "call": took},
            # A conversation whose calls have no answers is refused by endpoints: keep those that get one.
            "tool_calls": [_native(call) for call in turn.calls] if turn.final is None else reply.message.tool_calls,
            "invalid_tool_calls": [],
        }
    )
    known = state["cost_usd"] is not None and reply.cost_usd is not None
    return {
        "messages": [message],
        "tokens_in": state["tokens_in"] + (reply.tokens_in or 0),
        "tokens_out": state["tokens_out"] + (reply.tokens_out or 0),
        "tokens_guessed": state["tokens_guessed"] + guessed,
        "cost_usd": (state["cost_usd"] or 0.0) + (reply.cost_usd or 0.0) if known else None,
    }


def _native(call: dict[str, Any]) -> dict[str, Any]:
    args = call["args"] if isinstance(call["args"], dict) else {"unreadable": str(call["args"])}
    return {"name": _name(call["name"]), "args": args, "id": call["id"], "type": "tool_call"}


def _concluded(final: Hypothesis | str) -> dict[str, Any]:
    if isinstance(final, str):
        return {"hypothesis": final}
    return {"hypothesis": render(final), "findings": final.model_dump(mode="json")}


def tool_node(job: Investigation, tool: Tool | None) -> Node:
    """Validate, charge, run, append an observation; after the last pending call, tell what is left."""

    def node(state: AuditState) -> dict[str, Any]:
        call, *rest = state["pending"]
        with telemetry.tool(tool.name if tool else UNKNOWN, call, known=tool is not None) as span:
            text, cost, value = answer_call(job, tool, call, state)
            telemetry.answered(span, text, cost, came=value is not None)
        update = {"pending": rest, "interactions": state["interactions"] + cost}
        number = 1 + sum(isinstance(message, ToolMessage) for message in state["messages"])
        answer = f"O{number}\n{text}"
        messages: list[AnyMessage] = [
            ToolMessage(answer, tool_call_id=call["id"], name=_name(call["name"]), artifact=value)
        ]
        if not rest:
            spent: AuditState = {**state, **update, "messages": [*state["messages"], *messages]}  # type: ignore[typeddict-item]
            messages.append(HumanMessage(job.status(spent)))
        return {**update, "messages": messages}

    return node


def _name(name: str) -> str:
    """A tool's name as endpoints accept it back, whatever the model made up."""
    return re.sub(r"[^\w-]", "_", name, flags=re.ASCII)[:64] or "unnamed"


def conclude(job: Investigation) -> Node:
    """One last message without tools; whatever it says is the hypothesis."""

    def node(state: AuditState) -> dict[str, Any]:
        limit = reached(state, job.limits, job.allowance()) or "share of the run"  # others may have ended since
        lacking = limit if limit == "turns" else f"{limit.replace('cost', 'money')} for another turn and a conclusion"
        ask = HumanMessage(job.prompts["conclude"].render(reason=f"No {lacking} left."))
        with telemetry.turn(state["turns"] + 1, last=True):
            turn = job.wire.ask([*job.told(state), ask], last=True)
        update = {**_spent(job, state, turn), "ended_by": limit}
        update["messages"] = [ask, *update["messages"]]
        if turn.final is not None:
            return {**update, **_concluded(turn.final)}
        parts = [f"{key}: {value}" for call in turn.calls if isinstance(call["args"], dict)
                 for key, value in call["args"].items()]  # fmt: skip
        said = "\n".join([str(turn.reply.message.text).strip(), *parts]).strip()
        if not said and (reason := flaw(turn.reply.message)):
            raise CallFailed(f"the agent's conclusion was {reason}")  # which is not for its grader to judge
        if turn.fault == UNREAD:
            raise CallFailed(
                "the LLM endpoint left tool calls unread; give it the model's tool parser, or --protocol text"
            )
        if not said and _silent(state["messages"]):
            raise CallFailed(_NOTHING)
        text = said or "Inconclusive: the agent ended without a description."
        return {**update, "hypothesis": text, "inconclusive": True}

    return node


# LM Studio answers so, by HTTP 200, a prompt that is longer than its context.
_NOTHING = f"the LLM endpoint answered nothing, turn after turn; was its context full? {LONGER}"


def _silent(messages: Sequence[AnyMessage]) -> int:
    """How many of the last answers say and call nothing."""
    said = [bool(m.text.strip() or m.tool_calls) for m in messages if isinstance(m, AIMessage)]
    return [*reversed(said), True].index(True)


def timed(node: Node) -> Node:
    """The same step, its seconds added to those before."""

    def run(state: AuditState) -> dict[str, Any]:
        begun = time.perf_counter()
        update = node(state)
        return {**update, "seconds": state["seconds"] + time.perf_counter() - begun}

    return run


def opening(job: Investigation) -> Node:
    """Where somebody talks to the agent: first what every audit begins with; after a conclusion it goes on."""

    def node(state: AuditState) -> dict[str, Any]:
        if state.get("seconds") is None:
            said = [RemoveMessage(id=REMOVE_ALL_MESSAGES), *job.opening(), *state["messages"]]
            return {**fresh_state([]), "messages": said}
        return {"hypothesis": None, "findings": None, "inconclusive": False, "ended_by": ""}

    return node


def build_graph(
    job: Investigation, checkpointer: BaseCheckpointSaver[str] | None = None
) -> CompiledStateGraph[AuditState]:
    """The state machine of one audit. `tests/test_graph.py` walks every edge."""
    return wired(job.tools, lambda: job).compile(checkpointer=checkpointer)


def wired(
    tools: Mapping[str, Tool], job: Callable[[], Investigation], graph: StateGraph[Any] | None = None
) -> StateGraph[Any]:
    """Nodes for these tools, and all edges. `job` is first asked for when a step is made.

    `graph`: one to build on, that begins with an `open` node for what somebody says.
    """

    def step(make: Callable[[Investigation], Node]) -> Any:
        return timed(lambda state: make(job())(state))

    def next_call(state: AuditState) -> str:
        name = state["pending"][0]["name"]
        return name if name in tools else UNKNOWN

    def after_think(state: AuditState) -> str:
        if state["hypothesis"] is not None:
            return END
        return next_call(state) if state["pending"] else after_tools(state)

    def after_tools(state: AuditState) -> str:
        if state["pending"]:
            return next_call(state)
        return "conclude" if reached(state, job().limits, job().allowance()) else "think"

    names, first = [*tools, UNKNOWN], START
    if graph is not None:
        graph.add_node("open", lambda state: opening(job())(state))
        graph.add_edge(START, "open")
        first = "open"
    graph = graph or StateGraph(AuditState)
    graph.add_node("think", step(think))
    graph.add_node("conclude", step(conclude))
    for name in names:
        graph.add_node(name, step(partial(tool_node, tool=tools.get(name))))
        graph.add_conditional_edges(name, after_tools, [*names, "think", "conclude"])
    graph.add_edge(first, "think")
    graph.add_conditional_edges("think", after_think, [*names, "think", "conclude", END])
    graph.add_edge("conclude", END)
    return graph


def draw(tools: Mapping[str, Tool]) -> str:
    """The state machine with these tools as a Mermaid drawing."""

    def nobody() -> Investigation:
        raise AssertionError("a drawing makes no step")

    return wired(tools, nobody).compile().get_graph().draw_mermaid()
